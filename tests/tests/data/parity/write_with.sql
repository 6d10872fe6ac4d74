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
--@ bind: NULL|1
--@ refused 23502
WITH a AS (SELECT 1) INSERT INTO jobs (tenant, id) VALUES ($1, $2);
-- What would need several shards is refused.
--@ refused 0A000
WITH gone AS (DELETE FROM jobs RETURNING *) SELECT * FROM gone;
--@ refused 0A000
WITH gone AS (DELETE FROM jobs WHERE tenant = 4 RETURNING *) INSERT INTO archive (tenant, id) SELECT tenant, id FROM gone;
--@ refused 0A000
WITH gone AS (DELETE FROM jobs WHERE tenant = 4 RETURNING *) INSERT INTO plain SELECT id FROM gone;
--@ refused 0A000
WITH a AS (SELECT id FROM plain) UPDATE jobs SET note = 'p' FROM a WHERE tenant = 4 AND jobs.id = a.id;
--@ refused 0A000
WITH a AS (UPDATE jobs SET tenant = 5 WHERE tenant = 4 RETURNING id) SELECT * FROM a;
--@ refused 0A000
WITH a AS (UPDATE kinds SET label = 'x' RETURNING *) SELECT * FROM a;
WITH a AS (INSERT INTO plain VALUES (2) RETURNING id) SELECT * FROM a;
SELECT tenant, id, state, note FROM jobs ORDER BY tenant, id;
SELECT tenant, id, state FROM archive ORDER BY tenant, id;
