-- Partitions and inheritance children that come and go, tables and keys with new names.
CREATE TABLE p (k int, at int, v int, PRIMARY KEY (k, at)) PARTITION BY RANGE (at);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
--@ router: SELECT create_distributed_table('p', 'k')
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
--@ setup
INSERT INTO p SELECT n, at, n FROM generate_series(1, 12) n, (VALUES (5), (15)) a (at);
-- What leaves stays where its rows are.
ALTER TABLE p DETACH PARTITION p2;
SELECT count(*) FROM p;
SELECT count(*) FROM p2;
INSERT INTO p2 SELECT n, 16, n FROM generate_series(1, 12) n;
SELECT k, at FROM p2 WHERE k = 5 ORDER BY at;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20);
SELECT count(*) FROM p;
BEGIN;
ALTER TABLE p DETACH PARTITION p2;
UPDATE p2 SET v = v + 1;
SELECT count(*), sum(v) FROM p2;
ROLLBACK;
SELECT count(*), sum(v) FROM p2;
--@ setup
ALTER TABLE p DETACH PARTITION p2 CONCURRENTLY;
SELECT count(*), sum(v) FROM p2;
UPDATE p2 SET v = v + 1;
ALTER TABLE p DETACH PARTITION p2;
DROP TABLE p2;
-- What joins must be empty, or distributed alike.
CREATE TABLE x (k int, at int, v int);
INSERT INTO x SELECT n, 15, n FROM generate_series(1, 12) n;
--@ refused 0A000
ALTER TABLE p ATTACH PARTITION x FOR VALUES FROM (10) TO (20);
DELETE FROM x;
ALTER TABLE p ATTACH PARTITION x FOR VALUES FROM (10) TO (20);
INSERT INTO p SELECT n, 15, n FROM generate_series(1, 12) n;
SELECT count(*) FROM x;
CREATE TABLE y (k int, at int, v int);
--@ router: SELECT create_distributed_table('y', 'k')
INSERT INTO y SELECT n, 25, n FROM generate_series(1, 12) n;
ALTER TABLE p ATTACH PARTITION y FOR VALUES FROM (20) TO (30);
SELECT count(*) FROM p WHERE k = 3;
CREATE TABLE z (k int, at int, v int);
--@ router: SELECT create_distributed_table('z', 'v')
--@ refused 0A000
ALTER TABLE p ATTACH PARTITION z FOR VALUES FROM (30) TO (40);
CREATE TABLE hp (k int, at int, v int);
INSERT INTO hp VALUES (100, 1, 1);
--@ refused 0A000
ALTER TABLE z INHERIT hp;
--@ refused 0A000
CREATE TABLE pu PARTITION OF p (UNIQUE (v)) FOR VALUES FROM (50) TO (60);
ALTER TABLE p ATTACH PARTITION nosuch FOR VALUES FROM (1) TO (2);
ALTER TABLE p DETACH PARTITION nosuch;
ALTER TABLE nosuch ATTACH PARTITION x FOR VALUES FROM (1) TO (2);
-- Inheritance.
CREATE TABLE dp (k int, at int, v int);
--@ router: SELECT create_distributed_table('dp', 'k')
CREATE TABLE hc () INHERITS (dp);
INSERT INTO hc SELECT n, 15, n + 1 FROM generate_series(1, 10) n;
ALTER TABLE hc NO INHERIT dp;
SELECT count(*) FROM hc;
SELECT count(*) FROM dp;
ALTER TABLE hc INHERIT dp;
SELECT count(*) FROM dp;
ALTER TABLE hc NO INHERIT p;
--@ refused 0A000
CREATE TABLE both_c () INHERITS (dp, hp);
--@ refused 0A000
CREATE TABLE u (w int UNIQUE) INHERITS (dp);
CREATE TABLE u (w int, UNIQUE (k, w)) INHERITS (dp);
INSERT INTO u VALUES (1, 1, 1, 1), (2, 1, 1, 1);
SELECT count(*) FROM dp;
CREATE TABLE rp (k int, n text);
--@ router: SELECT create_reference_table('rp')
CREATE TABLE rc () INHERITS (rp);
INSERT INTO rc VALUES (1, 'a'), (2, 'b');
ALTER TABLE rc NO INHERIT rp;
INSERT INTO rc VALUES (3, 'c');
SELECT * FROM rc ORDER BY k;
-- New names.
ALTER TABLE p RENAME TO pp;
SELECT count(*) FROM pp;
INSERT INTO pp VALUES (50, 5, 5), (51, 5, 5);
SELECT count(*) FROM p;
ALTER TABLE pp RENAME COLUMN k TO kk;
SELECT v FROM pp WHERE kk = 50;
UPDATE pp SET v = v + 1 WHERE kk IN (50, 51);
ALTER TABLE pp RENAME TO dp;
CREATE SCHEMA other;
ALTER TABLE pp SET SCHEMA other;
SELECT count(*) FROM other.pp;
INSERT INTO other.pp VALUES (60, 5, 5), (61, 5, 5);
BEGIN;
ALTER TABLE other.pp RENAME TO old;
CREATE TABLE other.pp (kk int, w text);
INSERT INTO other.pp VALUES (1, 'a');
SELECT count(*) FROM other.old;
COMMIT;
SELECT * FROM other.pp;
SELECT count(*) FROM other.old WHERE kk = 60;
DROP TABLE other.old, other.pp;
DROP SCHEMA other;
-- Foreign keys: to the other's primary key, and what shards could not check.
CREATE TABLE mother (id int PRIMARY KEY, v int);
CREATE TABLE stray (id int PRIMARY KEY, mother int REFERENCES mother, v int);
CREATE TABLE child (id int REFERENCES mother ON DELETE CASCADE, v int);
--@ router: SELECT create_distributed_table('mother', 'id')
--@ router: SELECT create_distributed_table('child', 'id')
INSERT INTO mother VALUES (1, 1), (2, 2), (3, 3), (4, 4);
INSERT INTO child VALUES (1, 1), (2, 2), (3, 3), (4, 4);
--@ refused 0A000
SELECT create_distributed_table('stray', 'id');
--@ refused 0A000
SELECT undistribute_table('mother');
CREATE TABLE late (id int PRIMARY KEY, v int);
--@ router: SELECT create_distributed_table('late', 'id')
ALTER TABLE late ADD FOREIGN KEY (id) REFERENCES mother;
INSERT INTO late VALUES (1, 1), (99, 1);
--@ refused 0A000
ALTER TABLE late ADD FOREIGN KEY (v) REFERENCES mother;
DELETE FROM mother WHERE id = 2;
SELECT * FROM child ORDER BY id;
