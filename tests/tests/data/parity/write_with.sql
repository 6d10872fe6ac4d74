-- WITH queries that write, and WITH before writes: on the one shard of their key.
CREATE TABLE jobs (tenant int, id int, state text DEFAULT 'new', note text, PRIMARY KEY (tenant, id));
CREATE TABLE archive (tenant int, id int, state text, moved boolean DEFAULT true, PRIMARY KEY (tenant, id));
CREATE TABLE kinds (state text PRIMARY KEY, label text);
CREATE TABLE plain (id int);
--@ router: SELECT create_distributed_table('jobs', 'tenant')
--@ router: SELECT create_distributed_table('archive', 'tenant', colocate_with => 'jobs')
--@ router: SELECT create_reference_table('kinds')
--@ setup
INSERT INTO jobs (tenant, id, note) VALUES (1, 1, 'a'), (1, 2, 'b'), (1, 3, 'c'), (2, 1, 'd'), (3, 1, 'e');
INSERT INTO kinds VALUES ('new', 'New'), ('done', 'Done');
INSERT INTO plain VALUES (1);
-- A queue's worker.
WITH next AS (SELECT id FROM jobs WHERE tenant = 1 AND state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) UPDATE jobs SET state = 'busy' FROM next WHERE jobs.tenant = 1 AND jobs.id = next.id RETURNING jobs.tenant, jobs.id, state;
WITH next AS (SELECT tenant, id FROM jobs WHERE tenant = 1 AND state = 'new' ORDER BY id LIMIT 1) DELETE FROM jobs USING next WHERE jobs.tenant = 1 AND jobs.id = next.id RETURNING *;
SELECT * FROM jobs ORDER BY tenant, id;
-- Moved to an archive.
WITH gone AS (DELETE FROM jobs WHERE tenant = 1 AND state = 'busy' RETURNING *) INSERT INTO archive (tenant, id, state) SELECT 1, id, state FROM gone RETURNING *;
SELECT * FROM archive WHERE tenant = 1;
WITH gone AS (DELETE FROM jobs WHERE tenant = 1 RETURNING id, note) SELECT count(*), max(note) FROM gone;
WITH changed AS (UPDATE jobs SET state = 'done' WHERE tenant = 2 RETURNING *) SELECT c.tenant, c.id, k.label FROM changed c JOIN kinds k ON k.state = c.state;
WITH new AS (INSERT INTO jobs (tenant, id, note) VALUES (4, 1, 'x'), (4, 2, 'y') RETURNING *) SELECT id, state, note FROM new ORDER BY id;
WITH a AS (INSERT INTO jobs (tenant, id) VALUES (4, 3) RETURNING id), b AS (INSERT INTO archive (tenant, id) SELECT 4, id FROM a RETURNING id) SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b);
SELECT * FROM archive ORDER BY tenant, id;
WITH a AS (SELECT 4 AS id) INSERT INTO jobs (tenant, id) SELECT 4, a.id FROM a RETURNING *;
WITH a AS (SELECT 4 AS id) INSERT INTO jobs (tenant, id, note) SELECT 4, a.id, 'again' FROM a ON CONFLICT (tenant, id) DO UPDATE SET note = excluded.note RETURNING *;
--@ bind: 4|note
WITH a AS (UPDATE jobs SET note = $2 WHERE tenant = $1 RETURNING id) SELECT count(*) FROM a;
--@ bind: 5|1
WITH a AS (INSERT INTO jobs (tenant, id) VALUES ($1, $2) RETURNING *) INSERT INTO archive (tenant, id) VALUES ($1, $2) RETURNING tenant, id;
SELECT tenant, id, state, note FROM jobs WHERE tenant IN (4, 5) ORDER BY tenant, id;
-- A WITH query hides a table of its name.
WITH jobs AS (SELECT 9 AS id) INSERT INTO archive (tenant, id) SELECT 6, jobs.id FROM jobs RETURNING tenant, id;
-- Errors are PostgreSQL's.
WITH a AS (INSERT INTO jobs (tenant, id) VALUES (4, 1) RETURNING id) SELECT * FROM a;
WITH a AS (DELETE FROM jobs WHERE tenant = 4) SELECT * FROM a;
WITH a AS (UPDATE jobs SET nothing = 1 WHERE tenant = 4 RETURNING id) SELECT * FROM a;
-- A NULL that is only looked for matches nothing, also beside a new row.
--@ bind: NULL|5
WITH a AS (DELETE FROM jobs WHERE tenant = $1 RETURNING id) INSERT INTO archive (tenant, id) VALUES ($2, 98) RETURNING tenant, id;
WITH a AS (UPDATE jobs SET note = 'null' WHERE tenant = NULL RETURNING id) INSERT INTO archive (tenant, id) VALUES (5, 97) RETURNING tenant, id;
--@ bind: NULL|1
--@ refused 23502
WITH a AS (SELECT 1) INSERT INTO jobs (tenant, id) VALUES ($1, $2);
-- Parts that need several shards.
WITH gone AS (DELETE FROM jobs WHERE note = 'e' RETURNING *) SELECT * FROM gone;
WITH gone AS (DELETE FROM jobs WHERE tenant = 4 AND id = 3 RETURNING *) INSERT INTO archive (tenant, id) SELECT tenant, id + 10 FROM gone RETURNING *;
WITH gone AS (DELETE FROM jobs WHERE note = 'again' RETURNING *) INSERT INTO plain SELECT id FROM gone;
SELECT * FROM plain ORDER BY id;
INSERT INTO jobs (tenant, id, note) SELECT g, 7, 'it''s "\' || g FROM generate_series(1, 9) AS g;
WITH moved AS (DELETE FROM jobs WHERE tenant % 2 = 0 AND id = 7 RETURNING tenant, id, state, note), kept AS (INSERT INTO archive (tenant, id, state) SELECT tenant, id, state FROM moved RETURNING tenant) SELECT count(*), min(k.tenant), max(m.note) FROM moved m JOIN kept k USING (tenant);
WITH renamed (a, b) AS (UPDATE jobs SET note = 'x' || id WHERE id = 7 RETURNING tenant, note) SELECT a, b FROM renamed ORDER BY a;
WITH some AS (SELECT tenant FROM archive WHERE id = 7), done AS (UPDATE jobs SET state = 'done' FROM some WHERE jobs.tenant = some.tenant + 1 RETURNING jobs.tenant, jobs.id) INSERT INTO plain SELECT tenant FROM done WHERE tenant NOT IN (SELECT tenant FROM some);
SELECT * FROM plain ORDER BY id;
WITH a AS (INSERT INTO plain VALUES (100), (101) RETURNING id), b AS (UPDATE kinds SET label = label || '!' RETURNING state) INSERT INTO jobs (tenant, id, note) SELECT a.id, 1, b.state FROM a, b WHERE b.state = 'new';
WITH a AS (UPDATE kinds SET label = 'x' RETURNING *) SELECT * FROM a ORDER BY state;
WITH a AS (DELETE FROM archive WHERE moved RETURNING tenant) UPDATE jobs SET note = 'left' WHERE tenant IN (SELECT tenant FROM a) RETURNING tenant, note;
--@ bind: 7|note of|100
WITH a AS (UPDATE jobs SET note = $2 WHERE id = $1 RETURNING tenant), b AS (DELETE FROM plain WHERE id >= $3 RETURNING id) SELECT (SELECT count(*) FROM a), (SELECT sum(id) FROM b);
BEGIN;
WITH gone AS (DELETE FROM jobs RETURNING *) INSERT INTO archive (tenant, id) SELECT tenant, id FROM gone;
SELECT count(*) FROM archive;
ROLLBACK;
WITH gone AS (DELETE FROM jobs RETURNING *) INSERT INTO archive (tenant, id) SELECT tenant, 1 / 0 FROM gone;
SELECT tenant, id, state, note FROM jobs ORDER BY tenant, id;
-- WITH that only reads.
WITH a AS (SELECT id FROM plain) UPDATE jobs SET note = 'p' FROM a WHERE jobs.id = a.id;
WITH a AS (VALUES (1, 'one'), (3, 'three'), (9, 'nine')) UPDATE jobs SET note = a.column2 FROM a WHERE tenant = a.column1;
WITH big AS (SELECT tenant, count(*) AS n FROM jobs GROUP BY tenant) UPDATE jobs SET note = big.n::text FROM big WHERE jobs.tenant = big.tenant;
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3), s AS (SELECT tenant FROM archive) DELETE FROM jobs WHERE tenant IN (SELECT n FROM r) AND tenant NOT IN (SELECT tenant FROM s);
WITH old AS (SELECT tenant, id FROM jobs WHERE id < 7) INSERT INTO archive (tenant, id, state) SELECT tenant, id + 50, 'old' FROM old ON CONFLICT DO NOTHING RETURNING *;
WITH a AS (SELECT 1 AS x) INSERT INTO archive (tenant, id) WITH b AS (SELECT 77 AS y) SELECT x, y FROM a, b;
WITH n AS (SELECT count(*) AS c FROM jobs) INSERT INTO plain SELECT c FROM n;
WITH n AS (SELECT max(id) AS c FROM archive) INSERT INTO kinds VALUES ('max', (SELECT c FROM n));
WITH n AS (SELECT tenant FROM jobs) DELETE FROM plain USING n WHERE plain.id = n.tenant;
SELECT * FROM kinds ORDER BY state;
SELECT * FROM plain ORDER BY id;
-- What cannot be right is refused.
WITH a AS (UPDATE jobs SET tenant = 500 WHERE tenant = 4 RETURNING id), b AS (SELECT * FROM jobs) SELECT * FROM a, b;
--@ refused 0A000
WITH a AS (DELETE FROM jobs WHERE id > 5 RETURNING *) SELECT count(*) FROM jobs, a;
--@ refused 0A000
WITH a AS (UPDATE jobs SET note = 'a' RETURNING *), b AS (UPDATE jobs SET state = 'b' RETURNING *) SELECT count(*) FROM a, b;
--@ refused 0A000
WITH a AS (INSERT INTO jobs (tenant, id) VALUES (41, 1) RETURNING *) DELETE FROM jobs USING a WHERE jobs.id = a.id;
--@ refused 0A000
WITH a AS (DELETE FROM jobs WHERE id = 1 RETURNING *) INSERT INTO jobs (tenant, id) SELECT tenant, 88 FROM archive;
--@ refused 0A000
WITH a AS (UPDATE jobs SET note = 'up' RETURNING *) INSERT INTO jobs (tenant, id) SELECT tenant, id FROM a ON CONFLICT DO NOTHING;
WITH a AS (INSERT INTO plain VALUES (2) RETURNING id) SELECT * FROM a;
SELECT tenant, id, state, note FROM jobs ORDER BY tenant, id;
SELECT tenant, id, state FROM archive ORDER BY tenant, id;
-- Rows as they were, beside the parts that change them.
WITH old AS (SELECT tenant, id, note FROM jobs WHERE id IN (1, 7)), new AS (UPDATE jobs SET note = coalesce(note, '') || '+' WHERE id IN (1, 7) RETURNING tenant, id, note) SELECT n.tenant, n.id, o.note, n.note FROM old o JOIN new n USING (tenant, id);
WITH new AS (UPDATE jobs SET note = note || '*' WHERE id = 7 RETURNING tenant, id, note), old AS (SELECT tenant, note FROM jobs WHERE id = 7), both AS (SELECT o.note AS o, n.note AS n FROM old o JOIN new n USING (tenant)) SELECT o, n FROM both WHERE n = o || '*';
WITH never AS (SELECT 1 / 0 AS x FROM jobs), a AS (UPDATE jobs SET state = 's' WHERE id = 7 RETURNING tenant) SELECT count(*) FROM a;
WITH few AS (SELECT tenant AS x FROM jobs WHERE id = 7), old AS (SELECT count(*) AS n FROM jobs JOIN few ON few.x = jobs.tenant), a AS (DELETE FROM jobs WHERE id = 7 AND tenant > 6 RETURNING tenant) SELECT a.tenant, old.n FROM a, old;
SELECT tenant, id, state, note FROM jobs ORDER BY tenant, id;
-- Changed, or else added.
WITH up AS (UPDATE jobs SET note = 'changed' WHERE tenant = 61 OR id = 9999 RETURNING tenant) INSERT INTO jobs (tenant, id, note) SELECT 61, 9999, 'added' WHERE NOT EXISTS (SELECT FROM up);
WITH up AS (UPDATE jobs SET note = 'changed' WHERE tenant = 61 OR id = 9999 RETURNING tenant) INSERT INTO jobs (tenant, id, note) SELECT 61, 9999, 'added' WHERE NOT EXISTS (SELECT FROM up);
WITH new (tenant, id, note) AS (VALUES (3, 1, 'new 3'), (62, 1, 'new 62'), (63, 1, 'new 63')), up AS (UPDATE jobs j SET note = new.note FROM new WHERE j.tenant = new.tenant AND j.id = new.id RETURNING j.tenant) INSERT INTO jobs (tenant, id, note) SELECT tenant, id, note FROM new WHERE tenant NOT IN (SELECT tenant FROM up) RETURNING *;
WITH gone AS (DELETE FROM jobs WHERE id = 1 RETURNING *) INSERT INTO jobs (tenant, id, note) SELECT tenant + 100, id, note FROM gone;
WITH a AS (INSERT INTO jobs (tenant, id) VALUES (71, 1), (72, 1), (73, 1) RETURNING tenant), b AS (INSERT INTO jobs (tenant, id) SELECT tenant + 10, 2 FROM a RETURNING tenant) SELECT (SELECT count(*) FROM a), (SELECT sum(tenant) FROM b);
SELECT tenant, id, state, note FROM jobs ORDER BY tenant, id;
-- Workers of one queue.
--@ refused 0A000
WITH next AS (SELECT tenant, id FROM jobs ORDER BY tenant, id LIMIT 2 FOR UPDATE SKIP LOCKED) DELETE FROM jobs USING next WHERE jobs.tenant = next.tenant AND jobs.id = next.id RETURNING jobs.tenant, jobs.id;
WITH next AS (SELECT tenant, id FROM jobs WHERE id > 5 FOR UPDATE SKIP LOCKED) DELETE FROM jobs USING next WHERE jobs.tenant = next.tenant AND jobs.id = next.id RETURNING jobs.tenant, jobs.id;
WITH next AS (SELECT tenant, id FROM jobs WHERE state <> 'busy' AND id = 2 ORDER BY tenant DESC FOR UPDATE) UPDATE jobs SET state = 'busy' FROM next WHERE jobs.tenant = next.tenant AND jobs.id = next.id RETURNING jobs.*;
SELECT tenant, id, state, note FROM jobs ORDER BY tenant, id;
