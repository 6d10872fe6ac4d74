-- One of the two schemas of the count in `parity.rs`: tenants with their users, projects and tasks
-- by the tenant's uuid; events by their own uuid and invoices by their text number, so that joins of
-- them with a tenant's rows cross shards; plans and countries everywhere; notes on the home shard.
SET timezone = 'UTC';
CREATE TYPE plan AS ENUM ('free', 'team', 'enterprise');
CREATE TYPE state AS ENUM ('draft', 'open', 'done', 'dropped');
CREATE TABLE plans (code plan PRIMARY KEY, monthly numeric(8, 2), seats int, features text[]);
CREATE TABLE countries (code char(2) PRIMARY KEY, title text, eu boolean);
CREATE TABLE tenants (id uuid PRIMARY KEY, name text NOT NULL, plan plan, country char(2), created timestamptz, settings jsonb, tags text[], parent uuid);
CREATE TABLE users (tenant_id uuid, id int, email varchar(60), role text, active boolean, score numeric(10, 3), seen timestamptz, profile jsonb, phones text[], born date, PRIMARY KEY (tenant_id, id));
CREATE TABLE projects (tenant_id uuid, id int, name text, budget numeric(14, 2), starts date, ends date, state state, labels text[], meta jsonb, PRIMARY KEY (tenant_id, id));
CREATE TABLE tasks (tenant_id uuid, id bigint, project_id int, title text, done boolean, effort interval, priority smallint, assignee int, due timestamptz, estimate float8, history jsonb, watchers int[], PRIMARY KEY (tenant_id, id));
CREATE TABLE events (id uuid PRIMARY KEY, tenant_id uuid, kind text, at timestamptz, payload jsonb, ip inet, amount numeric(12, 4));
CREATE TABLE invoices (number text PRIMARY KEY, tenant_id uuid, total numeric(12, 2), currency char(3), issued date, paid timestamptz, lines jsonb);
CREATE TABLE notes (id int PRIMARY KEY, tenant_id uuid, body text);
--@ router: SELECT create_reference_table('plans')
--@ router: SELECT create_reference_table('countries')
--@ router: SELECT create_distributed_table('tenants', 'id')
--@ router: SELECT create_distributed_table('users', 'tenant_id', colocate_with => 'tenants')
--@ router: SELECT create_distributed_table('projects', 'tenant_id', colocate_with => 'tenants')
--@ router: SELECT create_distributed_table('tasks', 'tenant_id', colocate_with => 'tenants')
--@ router: SELECT create_distributed_table('events', 'id')
--@ router: SELECT create_distributed_table('invoices', 'number')
--@ setup
INSERT INTO plans VALUES ('free', 0, 3, '{}'), ('team', 49.5, 25, '{sso,audit}'), ('enterprise', 990, NULL, '{sso,audit,"own domain",NULL}');
--@ setup
INSERT INTO countries VALUES ('de', 'Germany', true), ('fr', 'France', true), ('ch', 'Switzerland', false), ('is', NULL, false), ('zz', 'Nowhere', NULL);
--@ setup
INSERT INTO tenants SELECT md5('t' || g)::uuid, (ARRAY['Acme', 'ácme', 'beta', 'Beta Labs', 'cöln', 'Delta'])[g % 6 + 1] || CASE WHEN g > 6 THEN ' ' || g ELSE '' END, (ARRAY['free', 'team', 'enterprise', NULL])[g % 4 + 1]::plan, (ARRAY['de', 'fr', 'ch', 'is', NULL])[g % 5 + 1], timestamptz '2023-01-01 00:00+00' + g * interval '37 hours', jsonb_build_object('theme', (ARRAY['dark', 'light'])[g % 2 + 1], 'limits', jsonb_build_object('seats', g % 4 * 10, 'ratio', g / 4.0)), CASE WHEN g % 3 = 0 THEN NULL ELSE ARRAY['t' || g % 4, 'x'] END, CASE WHEN g > 4 THEN md5('t' || g % 4 + 1)::uuid END FROM generate_series(1, 12) g;
--@ setup
INSERT INTO users SELECT md5('t' || t)::uuid, t * 10 + u, CASE WHEN (t + u) % 7 = 0 THEN NULL ELSE lower(chr(64 + u)) || t || '@example.' || (ARRAY['com', 'org', 'de'])[(t + u) % 3 + 1] END, (ARRAY['owner', 'member', 'guest', NULL])[(t * u) % 4 + 1], CASE (t + u) % 5 WHEN 0 THEN NULL WHEN 1 THEN false ELSE true END, CASE WHEN (t * u) % 11 = 0 THEN 'NaN' WHEN (t + u) % 6 = 0 THEN NULL ELSE (t * 31 + u * 17) % 100 / 8.0 END, CASE WHEN u % 4 <> 0 THEN timestamptz '2024-02-28 22:00+00' + (t * 13 + u * 29) * interval '50 minutes' END, CASE WHEN u % 3 = 0 THEN NULL ELSE jsonb_build_object('lang', (ARRAY['de', 'en', NULL])[(t + u) % 3 + 1], 'n', t * u, 'skills', jsonb_build_array(u % 3, 'go')) END, CASE u % 3 WHEN 0 THEN NULL WHEN 1 THEN '{}' ELSE ARRAY['+49' || u, NULL] END, date '1970-01-31' + (t * 397 + u * 911) FROM generate_series(1, 12) t, generate_series(1, 8) u;
--@ setup
INSERT INTO projects SELECT md5('t' || t)::uuid, t * 10 + p, 'P' || t || '/' || p, CASE WHEN (t + p) % 5 = 0 THEN NULL ELSE (t * 7919 + p * 104729) % 100000 / 4.0 END, date '2024-01-01' + t * 9 + p * 3, CASE WHEN p % 2 = 0 THEN date '2024-06-30' + t * p END, (ARRAY['draft', 'open', 'done', 'dropped', NULL])[(t + p) % 5 + 1]::state, CASE WHEN p = 1 THEN NULL ELSE ARRAY['l' || p, 'l' || t % 3] END, jsonb_build_object('risk', (t * p) % 3, 'tags', jsonb_build_array('a', t % 2)) FROM generate_series(1, 12) t, generate_series(1, 4) p;
--@ setup
INSERT INTO tasks SELECT md5('t' || t)::uuid, t * 1000 + n, t * 10 + n % 4 + 1, 'task ' || n || CASE WHEN n % 6 = 0 THEN ' ' ELSE '' END, n % 3 = 0, CASE WHEN n % 7 = 0 THEN NULL ELSE (n % 5) * interval '1 day' + (t * n % 24) * interval '1 hour' END, (t + n) % 5, CASE WHEN n % 4 = 3 THEN NULL ELSE t * 10 + n % 8 + 1 END, CASE WHEN n % 5 <> 4 THEN timestamptz '2024-03-30 20:00+00' + (t * n) * interval '3 hours' END, CASE WHEN n % 8 = 5 THEN NULL ELSE (t * n % 37) / 4.0 END, CASE WHEN n % 2 = 0 THEN jsonb_build_array(jsonb_build_object('by', n % 3, 'at', n), jsonb_build_object('by', t % 3)) END, CASE WHEN n % 3 = 1 THEN NULL ELSE ARRAY[t * 10 + 1, n % 9] END FROM generate_series(1, 12) t, generate_series(1, 15) n;
--@ setup
INSERT INTO events SELECT md5('e' || g)::uuid, CASE WHEN g % 13 = 0 THEN NULL ELSE md5('t' || (g * 5) % 14 + 1)::uuid END, (ARRAY['login', 'logout', 'upload', 'Upload', 'pay'])[g % 5 + 1], timestamptz '2024-03-31 00:30+00' + g * interval '17 minutes', CASE WHEN g % 4 = 0 THEN NULL ELSE jsonb_build_object('n', g % 6, 'ok', g % 2 = 0, 'path', '/p/' || g % 7) END, CASE WHEN g % 6 = 0 THEN NULL ELSE ('10.' || g % 3 || '.0.' || g % 20)::inet END, CASE WHEN g % 5 = 4 THEN (g * 37 % 1000) / 16.0 END FROM generate_series(1, 180) g;
--@ setup
INSERT INTO invoices SELECT 'R-' || lpad(g::text, 4, '0'), md5('t' || g % 13 + 1)::uuid, CASE WHEN g % 10 = 0 THEN NULL ELSE (g * 997 % 5000) / 4.0 - 100 END, (ARRAY['EUR', 'CHF', 'ISK'])[g % 3 + 1], date '2023-11-15' + g * 5, CASE WHEN g % 3 <> 1 THEN timestamptz '2023-11-20 09:00+01' + g * interval '5 days 3 hours' END, jsonb_build_array(jsonb_build_object('sku', 'S' || g % 5, 'qty', g % 4), jsonb_build_object('sku', 'S' || g % 3, 'qty', 1)) FROM generate_series(1, 70) g;
--@ setup
INSERT INTO notes SELECT g, md5('t' || g)::uuid, CASE WHEN g % 4 = 0 THEN NULL ELSE 'note ' || g END FROM generate_series(1, 16) g;
-- One tenant: its shard answers.
SELECT name, plan, country FROM tenants WHERE id = md5('t3')::uuid;
SELECT * FROM tenants WHERE id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6';
SELECT count(*) FROM users WHERE tenant_id = 'ec8ce6abb3e952a85e551ac665c908f6';
SELECT id, email, score FROM users WHERE tenant_id = 'EC8CE6AB-B3E9-52A8-5E55-1AC665C908F6' ORDER BY id;
SELECT u.email, t.name FROM users u JOIN tenants t ON t.id = u.tenant_id WHERE u.tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' ORDER BY u.id;
SELECT p.name, count(k.id), sum(k.estimate) FROM projects p LEFT JOIN tasks k ON k.tenant_id = p.tenant_id AND k.project_id = p.id WHERE p.tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' GROUP BY p.id, p.tenant_id ORDER BY p.id;
SELECT id, row_number() OVER (ORDER BY score DESC NULLS LAST, id), avg(score) OVER (PARTITION BY role) FROM users WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' ORDER BY id;
WITH late AS (SELECT * FROM tasks WHERE NOT done AND due < '2024-04-10') SELECT u.email, count(*) FROM late JOIN users u ON u.tenant_id = late.tenant_id AND u.id = late.assignee WHERE u.tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' GROUP BY u.email ORDER BY 1;
SELECT role, count(*), max(seen) FROM users WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' GROUP BY role ORDER BY role NULLS FIRST;
SELECT title FROM tasks WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' AND id IN (3003, 3004, 4001) ORDER BY id;
SELECT state, array_agg(id ORDER BY id) FROM projects WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' GROUP BY state ORDER BY state;
SELECT id FROM users WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' AND profile @> '{"lang": "de"}' ORDER BY id;
SELECT id, phones[1], array_length(phones, 1) FROM users WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' ORDER BY id;
SELECT id FROM tasks WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' AND 31 = ANY (watchers) ORDER BY id;
SELECT t.name, pl.monthly, c.title FROM tenants t LEFT JOIN plans pl ON pl.code = t.plan LEFT JOIN countries c ON c.code = t.country WHERE t.id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6';
SELECT id FROM users WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' UNION SELECT project_id FROM tasks WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' ORDER BY 1;
SELECT EXISTS (SELECT FROM users WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' AND role = 'owner');
SELECT to_char(due AT TIME ZONE 'Europe/Berlin', 'YYYY-MM-DD HH24:MI') FROM tasks WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' AND due IS NOT NULL ORDER BY id LIMIT 6;
SELECT * FROM tenants WHERE id = NULL;
SELECT count(*) FROM users WHERE tenant_id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' AND tenant_id = '00000000-0000-0000-0000-000000000000';
SELECT number, total FROM invoices WHERE number = 'R-0007';
SELECT number, total FROM invoices WHERE number = 'r-0007';
SELECT kind, at FROM events WHERE id = md5('e9')::uuid;
SELECT kind FROM events WHERE id IN ('c58066f6-ab17-7c29-5dc2-54c5ccfcfac5', '00000000-0000-0000-0000-000000000000') ORDER BY at;
SELECT id FROM users WHERE (tenant_id, id) = ('ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6', 31);
SELECT id FROM users WHERE tenant_id IN ('ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6', NULL) AND id < 33 ORDER BY id;
--@ bind: ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6
SELECT name FROM tenants WHERE id = $1;
--@ bind: ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6|2
SELECT id, title FROM tasks WHERE tenant_id = $1 AND priority > $2 ORDER BY id;
--@ bind: {ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6,83f1535f-99ab-0bf4-e9d0-2dfd85d3e3f7,NULL}
SELECT count(*), min(name) FROM tenants WHERE id = ANY ($1);
--@ bind: {R-0001,R-0002,R-0009,nothing}
SELECT number, currency FROM invoices WHERE number = ANY ($1) ORDER BY number;
--@ bind: NULL
SELECT count(*) FROM users WHERE tenant_id = $1;
-- All tenants, row by row.
SELECT name FROM tenants ORDER BY name;
SELECT name FROM tenants ORDER BY name DESC LIMIT 4;
SELECT name FROM tenants ORDER BY lower(name), id LIMIT 5 OFFSET 2;
SELECT name FROM tenants ORDER BY name COLLATE "und-x-icu", id;
SELECT name, plan FROM tenants ORDER BY plan, name;
SELECT name, plan FROM tenants ORDER BY plan DESC NULLS LAST, name DESC;
SELECT name, country FROM tenants ORDER BY country NULLS FIRST, created;
SELECT name, created FROM tenants ORDER BY created DESC LIMIT 3;
SELECT id FROM tenants ORDER BY id;
SELECT id, parent FROM tenants ORDER BY parent NULLS FIRST, id;
SELECT name, tags FROM tenants ORDER BY tags, name;
SELECT name FROM tenants ORDER BY settings, name;
SELECT settings -> 'limits' ->> 'seats' AS seats, name FROM tenants ORDER BY seats, name;
SELECT (settings #>> '{limits,ratio}')::numeric AS r FROM tenants ORDER BY r;
SELECT name FROM tenants WHERE settings ->> 'theme' = 'dark' ORDER BY created;
SELECT name FROM tenants WHERE tags IS NULL ORDER BY 1;
SELECT name FROM tenants WHERE 't1' = ANY (tags) ORDER BY 1;
SELECT name FROM tenants WHERE tags && ARRAY['t2', 't3'] ORDER BY 1;
SELECT name FROM tenants WHERE tags <@ ARRAY['x', 't1', 't2'] ORDER BY 1;
SELECT name FROM tenants WHERE plan IN ('free', 'team') ORDER BY 1;
SELECT name FROM tenants WHERE plan > 'free' ORDER BY 1;
SELECT name FROM tenants WHERE plan IS NULL ORDER BY 1;
SELECT name FROM tenants WHERE plan IS DISTINCT FROM 'team' ORDER BY 1;
SELECT name FROM tenants WHERE country = 'de ' ORDER BY 1;
SELECT name FROM tenants WHERE name ILIKE 'ac%' OR name ~ 'L.bs' ORDER BY 1;
SELECT name FROM tenants WHERE created BETWEEN '2023-01-05' AND '2023-01-12' ORDER BY 1;
SELECT name FROM tenants WHERE created > '2023-01-10 12:00+09' ORDER BY 1;
SELECT name, upper(name), length(name), octet_length(name), initcap(name), reverse(name) FROM tenants ORDER BY name;
SELECT name || ' (' || coalesce(country, '??') || ')' AS label FROM tenants ORDER BY label;
SELECT substring(name FROM 1 FOR 3), position('e' IN name), replace(name, 'a', 'A') FROM tenants ORDER BY name, id;
SELECT name, created::date, extract(isodow FROM created), date_trunc('week', created) FROM tenants ORDER BY created;
SELECT to_char(created, 'FMDay DD.MM.YY HH24:MI'), age(timestamptz '2024-01-01', created) FROM tenants ORDER BY created;
SELECT name, created AT TIME ZONE 'Asia/Tokyo' FROM tenants ORDER BY created LIMIT 5;
SELECT jsonb_pretty(settings) FROM tenants ORDER BY created LIMIT 2;
SELECT name, settings || '{"theme": null}', settings - 'limits', settings ? 'theme' FROM tenants ORDER BY created LIMIT 4;
SELECT name, jsonb_typeof(settings -> 'limits'), jsonb_array_length('[1, 2]') FROM tenants ORDER BY created LIMIT 3;
SELECT name, tags[1], tags[2:], cardinality(tags), array_position(tags, 'x'), array_to_string(tags, '-', '?') FROM tenants ORDER BY created;
SELECT name, unnest(tags) AS tag FROM tenants ORDER BY name, tag;
SELECT name, key, value FROM tenants, jsonb_each(settings) ORDER BY name, id, key;
SELECT name, x.seats, x.ratio FROM tenants, jsonb_to_record(settings -> 'limits') AS x (seats int, ratio numeric) ORDER BY created;
SELECT t.name, g FROM tenants t, generate_series(1, 2) g WHERE t.plan = 'team' ORDER BY 1, 2;
SELECT t.name, tag FROM tenants t, unnest(t.tags) WITH ORDINALITY AS x (tag, n) WHERE n = 1 ORDER BY 1, 2;
SELECT CASE plan WHEN 'free' THEN 0 WHEN 'team' THEN 1 ELSE 2 END AS rank, name FROM tenants ORDER BY rank, name;
SELECT name, plan::text, plan IS NULL, enum_range(NULL, plan)::text FROM tenants ORDER BY created;
SELECT greatest(name, 'b'), least(name, 'b'), nullif(name, 'Delta') FROM tenants ORDER BY created;
SELECT md5(name), left(name, -2), lpad(name, 6, '.'), split_part(name, ' ', 2) FROM tenants ORDER BY created;
SELECT regexp_replace(name, '[aeiou]', '*', 'g'), translate(name, 'abc', 'xyz') FROM tenants ORDER BY created;
SELECT string_to_array(name, ' ') FROM tenants ORDER BY 1;
SELECT ROW (plan::text, country), name FROM tenants ORDER BY name, id;
SELECT t.name AS "Name", t.id::text AS "select" FROM tenants t ORDER BY "Name", "select" LIMIT 3;
SELECT name FROM tenants ORDER BY (plan IS NULL), plan, (country = 'de') DESC NULLS LAST, name;
SELECT name FROM tenants ORDER BY length(name) DESC, name FETCH FIRST 4 ROWS WITH TIES;
SELECT plan FROM tenants ORDER BY plan FETCH FIRST 2 ROWS WITH TIES;
SELECT count(*) FROM (SELECT id FROM tenants LIMIT 5) x;
SELECT count(*) FROM (SELECT id FROM tenants OFFSET 9) x;
TABLE plans;
SELECT code, monthly FROM plans ORDER BY code DESC;
SELECT * FROM countries ORDER BY code;
-- Users: numbers, dates, NULLs.
SELECT id, score FROM users ORDER BY score, id;
SELECT id, score FROM users ORDER BY score DESC NULLS LAST, id LIMIT 10;
SELECT id, score FROM users WHERE score = 'NaN' ORDER BY id;
SELECT id FROM users WHERE score > 11.5 ORDER BY id;
SELECT id, round(score, 1), trunc(score), ceil(score), floor(score), -score, abs(score), sign(score) FROM users WHERE score < 3 ORDER BY id;
SELECT id, score * 3 / 7, score % 2, power(score, 2), sqrt(score) FROM users WHERE score BETWEEN 1 AND 2 ORDER BY id;
SELECT id, score::int, score::text, score::float8, to_char(score, '00.0') FROM users WHERE score < 2 ORDER BY id;
SELECT id, active, NOT active, active IS TRUE, active IS NOT FALSE, active IS UNKNOWN FROM users ORDER BY active, id LIMIT 12;
SELECT id FROM users WHERE active ORDER BY id LIMIT 7;
SELECT id FROM users WHERE NOT active ORDER BY id DESC LIMIT 7;
SELECT id FROM users WHERE active IS NULL ORDER BY id;
SELECT id, email FROM users WHERE email IS NULL ORDER BY id;
SELECT id, email FROM users WHERE email LIKE '%.org' ORDER BY email;
SELECT id, email FROM users WHERE email SIMILAR TO '[ab]%' ORDER BY email DESC;
SELECT split_part(email, '@', 2) AS host, id FROM users ORDER BY host NULLS FIRST, id LIMIT 20;
SELECT id, role FROM users WHERE role NOT IN ('owner', 'guest') ORDER BY id;
SELECT id FROM users WHERE role IS NOT NULL AND role <> ALL (ARRAY['owner', 'member']) ORDER BY id;
SELECT id, seen FROM users ORDER BY seen DESC NULLS LAST, id LIMIT 8;
SELECT id, seen FROM users WHERE seen::date = '2024-02-29' ORDER BY seen, id;
SELECT id, seen - timestamptz '2024-03-01' FROM users WHERE seen IS NOT NULL ORDER BY 2, 1 LIMIT 6;
SELECT id, date_part('hour', seen), seen::time FROM users WHERE seen IS NOT NULL ORDER BY id LIMIT 6;
SELECT id, born, born + 30, born + interval '1 month', extract(doy FROM born) FROM users ORDER BY born LIMIT 5;
SELECT id, born FROM users WHERE extract(month FROM born) = 2 ORDER BY born, id;
SELECT id, make_date(2024, 1, 1) - born AS days FROM users ORDER BY days, id LIMIT 5;
SELECT id, profile FROM users ORDER BY profile NULLS LAST, id LIMIT 9;
SELECT id, profile ->> 'lang' AS lang FROM users ORDER BY lang NULLS FIRST, id LIMIT 15;
SELECT id, profile -> 'skills' -> 0 FROM users WHERE profile IS NOT NULL ORDER BY id LIMIT 6;
SELECT id FROM users WHERE profile -> 'lang' = 'null' ORDER BY id;
SELECT id FROM users WHERE profile @> '{"skills": ["go"]}' AND (profile ->> 'n')::int > 60 ORDER BY id;
SELECT id FROM users WHERE profile @? '$.skills[*] ? (@ == 2)' ORDER BY id;
SELECT id, jsonb_path_query_first(profile, '$.skills[0]') FROM users WHERE profile IS NOT NULL ORDER BY id LIMIT 5;
SELECT id, s FROM users, jsonb_array_elements_text(profile -> 'skills') s ORDER BY id, s LIMIT 12;
SELECT id, phones FROM users ORDER BY phones NULLS FIRST, id LIMIT 40;
SELECT id, phones = '{}', phones IS NULL, array_append(phones, 'x'), phones || phones FROM users ORDER BY id LIMIT 6;
SELECT id, p FROM users LEFT JOIN LATERAL unnest(phones) p ON true ORDER BY id, p NULLS FIRST LIMIT 12;
SELECT count(*) FROM users, unnest(phones) p WHERE p IS NULL;
SELECT id FROM users WHERE (score > 5) IS NOT TRUE AND active ORDER BY id;
SELECT id, coalesce(email, role, 'none') FROM users ORDER BY 2, 1 LIMIT 14;
SELECT id, tenant_id FROM users ORDER BY tenant_id DESC, id DESC LIMIT 5;
SELECT DISTINCT role FROM users ORDER BY role;
SELECT DISTINCT active, role FROM users ORDER BY 1, 2;
SELECT DISTINCT tenant_id FROM users ORDER BY 1 LIMIT 4;
SELECT DISTINCT date_trunc('month', born) AS m FROM users ORDER BY m LIMIT 6;
SELECT DISTINCT ON (role) role, id, score FROM users ORDER BY role, score DESC NULLS LAST, id;
SELECT DISTINCT ON (active, role) active, role, id FROM users ORDER BY active DESC, role, id DESC;
SELECT DISTINCT ON (tenant_id) id, seen FROM users ORDER BY tenant_id, seen NULLS LAST, id;
SELECT DISTINCT phones FROM users ORDER BY phones;
SELECT DISTINCT profile -> 'skills' AS s FROM users ORDER BY s;
SELECT DISTINCT score IS NULL, score = 'NaN' FROM users ORDER BY 1, 2;
-- Groups.
SELECT plan, count(*) FROM tenants GROUP BY plan ORDER BY plan;
SELECT plan, country, count(*) FROM tenants GROUP BY plan, country ORDER BY 1, 2;
SELECT settings ->> 'theme' AS theme, count(*), min(created), max(created) FROM tenants GROUP BY theme ORDER BY theme;
SELECT tags, count(*) FROM tenants GROUP BY tags ORDER BY tags;
SELECT parent, count(*) FROM tenants GROUP BY parent ORDER BY parent;
SELECT date_trunc('week', created), count(*) FROM tenants GROUP BY 1 ORDER BY 1;
SELECT plan, min(name), max(name) FROM tenants GROUP BY plan HAVING count(*) > 2 ORDER BY 1;
SELECT role, count(*), count(email), count(DISTINCT tenant_id) FROM users GROUP BY role ORDER BY role;
SELECT role, active, count(*), sum(score), avg(score), min(score), max(score) FROM users WHERE score <> 'NaN' GROUP BY role, active ORDER BY 1, 2;
SELECT sum(score), avg(score), max(score), min(score) FROM users;
SELECT tenant_id, count(*), max(score) FROM users GROUP BY tenant_id ORDER BY 3 DESC, 1 LIMIT 5;
SELECT tenant_id, role, count(*) FROM users GROUP BY tenant_id, role HAVING count(*) > 2 ORDER BY 1, 2;
SELECT tenant_id, array_agg(id ORDER BY id DESC), string_agg(email, ', ' ORDER BY email) FROM users GROUP BY tenant_id ORDER BY tenant_id LIMIT 3;
SELECT tenant_id, percentile_disc(0.5) WITHIN GROUP (ORDER BY born) FROM users GROUP BY tenant_id ORDER BY 1 LIMIT 4;
SELECT extract(decade FROM born) AS d, count(*), avg(extract(year FROM born))::numeric(8, 2) FROM users GROUP BY d ORDER BY d;
SELECT split_part(email, '.', 2) AS top, count(*) FROM users GROUP BY 1 ORDER BY 2 DESC, 1;
SELECT profile ->> 'lang', sum((profile ->> 'n')::int) FROM users GROUP BY 1 ORDER BY 1;
SELECT active, bool_and(score > 1), bool_or(score > 12), every(email IS NOT NULL) FROM users GROUP BY active ORDER BY active;
SELECT width_bucket(score, 0, 12, 4) AS bucket, count(*) FROM users WHERE score <> 'NaN' GROUP BY bucket ORDER BY bucket;
SELECT count(*) FILTER (WHERE active), count(*) FILTER (WHERE role = 'owner'), sum(score) FILTER (WHERE score < 5) FROM users;
SELECT role, count(*) FILTER (WHERE active) * 100 / count(*) AS percent FROM users GROUP BY role ORDER BY percent DESC, role;
SELECT role, max(seen) - min(seen) AS span FROM users GROUP BY role ORDER BY span DESC, role;
SELECT count(DISTINCT role), count(DISTINCT active), count(DISTINCT born), count(DISTINCT tenant_id) FROM users;
SELECT count(DISTINCT (role, active)) FROM users;
SELECT role, count(DISTINCT active) FROM users GROUP BY role ORDER BY role;
SELECT stddev(score), variance(score), stddev_pop(score), var_pop(score) FROM users WHERE score < 100;
SELECT round(corr(id, extract(epoch FROM born))::numeric, 6), regr_count(id, score) FROM users;
SELECT mode() WITHIN GROUP (ORDER BY role), percentile_cont(0.25) WITHIN GROUP (ORDER BY score) FROM users WHERE score < 100;
SELECT percentile_disc(ARRAY[0.1, 0.5, 0.9]) WITHIN GROUP (ORDER BY seen) FROM users;
SELECT jsonb_agg(profile ORDER BY id) FROM users WHERE id < 20;
SELECT jsonb_object_agg(id, role ORDER BY id) FROM users WHERE active IS NULL;
SELECT array_agg(DISTINCT role ORDER BY role DESC NULLS LAST) FROM users;
SELECT string_agg(DISTINCT profile ->> 'lang', '+') FROM users;
SELECT bit_or(id), bit_and(id), bit_xor(id) FROM users WHERE role = 'owner';
SELECT max(phones), min(phones) FROM users;
SELECT min(email), max(email), min(role) FROM users;
SELECT min(tenant_id::text), max(seen::date), min(born), max(profile ->> 'n') FROM users;
SELECT count(*), count(1), count(NULL), sum(1), sum(NULL::int) FROM users;
SELECT count(*) + sum(id) AS both, avg(id) > 60, max(id) % 7 FROM users;
SELECT CASE WHEN count(*) > 90 THEN 'many' ELSE 'few' END, coalesce(max(score) FILTER (WHERE id < 0), -1) FROM users;
SELECT avg(born - date '1970-01-01') FROM users;
SELECT sum(effort), avg(effort), max(effort), min(effort) FROM tasks;
SELECT done, sum(effort), count(effort) FROM tasks GROUP BY done ORDER BY done;
SELECT effort, count(*) FROM tasks GROUP BY effort HAVING count(*) > 4 ORDER BY effort;
SELECT priority, count(*), sum(estimate), avg(estimate), min(due), max(due) FROM tasks GROUP BY priority ORDER BY priority;
SELECT priority, sum(priority), avg(priority), sum(id), avg(id) FROM tasks GROUP BY priority ORDER BY priority DESC;
SELECT assignee, count(*) AS n FROM tasks GROUP BY assignee HAVING count(*) > 1 ORDER BY n DESC, assignee NULLS FIRST LIMIT 12;
SELECT due::date AS day, count(*) FROM tasks WHERE due IS NOT NULL GROUP BY day ORDER BY count(*) DESC, day LIMIT 5;
SELECT date_trunc('hour', due) AS h, bool_and(done) FROM tasks GROUP BY h ORDER BY h NULLS FIRST LIMIT 7;
SELECT history -> 0 ->> 'by' AS by, count(*) FROM tasks GROUP BY by ORDER BY by;
SELECT watchers, count(*) FROM tasks GROUP BY watchers ORDER BY count(*) DESC, watchers LIMIT 4;
SELECT cardinality(watchers) AS n, sum(watchers[2]) FROM tasks GROUP BY n ORDER BY n;
SELECT w, count(*) FROM tasks, unnest(watchers) w GROUP BY w ORDER BY 2 DESC, 1 LIMIT 6;
SELECT estimate, count(*) FROM tasks GROUP BY estimate ORDER BY estimate DESC NULLS LAST LIMIT 5;
SELECT sum(estimate), avg(estimate), min(estimate), max(estimate) FROM tasks WHERE done;
SELECT done, priority % 2 = 0 AS even, count(*) FROM tasks GROUP BY done, even ORDER BY 1, 2;
SELECT priority FROM tasks GROUP BY priority HAVING bool_or(estimate > 9) AND min(due) > '2024-03-30' ORDER BY priority;
SELECT count(*) FROM tasks HAVING max(estimate) > 100;
SELECT max(priority) FROM tasks HAVING count(*) BETWEEN 1 AND 1000;
SELECT priority, count(*) FROM tasks GROUP BY priority ORDER BY count(*) DESC, priority OFFSET 1 LIMIT 2;
SELECT count(*) FROM tasks WHERE id % 5 < 2 GROUP BY priority ORDER BY count(*) DESC FETCH FIRST 1 ROW WITH TIES;
SELECT DISTINCT count(*) FROM tasks GROUP BY assignee ORDER BY 1;
SELECT state, count(*), sum(budget), avg(budget) FROM projects GROUP BY state ORDER BY state;
SELECT state, max(budget) FROM projects GROUP BY state HAVING state > 'draft' ORDER BY state DESC;
SELECT labels[1], sum(budget) FROM projects GROUP BY labels[1] ORDER BY 1;
SELECT meta -> 'risk' AS risk, min(starts), max(ends) FROM projects GROUP BY risk ORDER BY risk;
SELECT meta -> 'tags', count(*) FROM projects GROUP BY 1 ORDER BY 1;
SELECT ends IS NULL AS endless, avg(starts - date '2024-01-01') FROM projects GROUP BY endless ORDER BY endless;
SELECT kind, count(*), sum(amount), avg(amount) FROM events GROUP BY kind ORDER BY kind;
SELECT kind, count(DISTINCT tenant_id), count(DISTINCT ip) FROM events GROUP BY kind ORDER BY kind;
SELECT lower(kind) AS k, count(*) FROM events GROUP BY lower(kind) ORDER BY k;
SELECT ip, count(*) FROM events GROUP BY ip ORDER BY count(*) DESC, ip LIMIT 6;
SELECT network(set_masklen(ip, 16)) AS net, count(*) FROM events GROUP BY net ORDER BY net;
SELECT min(ip), max(ip) FROM events;
SELECT date_trunc('hour', at) AS h, count(*), sum(amount) FROM events GROUP BY h ORDER BY h LIMIT 10;
SELECT at AT TIME ZONE 'Europe/Berlin' > '2024-03-31 03:00' AS summer, count(*) FROM events GROUP BY summer ORDER BY 1;
SELECT payload -> 'ok' AS ok, payload -> 'n' AS n, count(*) FROM events GROUP BY 1, 2 ORDER BY 1, 2;
SELECT payload ->> 'path', sum(amount) FROM events GROUP BY 1 HAVING sum(amount) > 20 ORDER BY 2 DESC, 1;
SELECT currency, count(*), sum(total), round(avg(total), 2) FROM invoices GROUP BY currency ORDER BY currency;
SELECT extract(year FROM issued) AS y, extract(quarter FROM issued) AS q, sum(total) FROM invoices GROUP BY y, q ORDER BY y, q;
SELECT to_char(issued, 'YYYY-MM') AS month, count(*) FILTER (WHERE paid IS NULL) AS open FROM invoices GROUP BY month ORDER BY month;
SELECT total < 0 AS credit, sum(total) FROM invoices GROUP BY credit ORDER BY credit;
SELECT currency, max(paid - issued::timestamptz) FROM invoices GROUP BY currency ORDER BY 1;
SELECT tenant_id, sum(total) FROM invoices GROUP BY tenant_id ORDER BY sum(total) DESC NULLS LAST, 1 LIMIT 4;
SELECT lines -> 0 ->> 'sku' AS sku, sum((lines -> 0 ->> 'qty')::int) FROM invoices GROUP BY sku ORDER BY sku;
SELECT l ->> 'sku' AS sku, sum((l ->> 'qty')::numeric) FROM invoices, jsonb_array_elements(lines) l GROUP BY sku ORDER BY sku;
SELECT length(number), min(number), max(number) FROM invoices GROUP BY 1;
SELECT right(number, 1) AS digit, count(total) FROM invoices GROUP BY digit ORDER BY digit DESC;
-- Joins on the tenant.
SELECT t.name, count(u.id) FROM tenants t LEFT JOIN users u ON u.tenant_id = t.id AND u.active GROUP BY t.id ORDER BY t.name, t.id;
SELECT t.name, u.id, u.email FROM tenants t JOIN users u ON u.tenant_id = t.id WHERE u.role = 'owner' ORDER BY u.id LIMIT 10;
SELECT t.name, p.name, count(k.id), count(k.id) FILTER (WHERE k.done) FROM tenants t JOIN projects p ON p.tenant_id = t.id LEFT JOIN tasks k ON k.tenant_id = p.tenant_id AND k.project_id = p.id GROUP BY t.id, t.name, p.tenant_id, p.id, p.name ORDER BY p.id LIMIT 12;
SELECT u.id, count(k.id) AS n FROM users u LEFT JOIN tasks k ON k.tenant_id = u.tenant_id AND k.assignee = u.id GROUP BY u.tenant_id, u.id HAVING count(k.id) <> 2 ORDER BY n DESC, u.id LIMIT 9;
SELECT u.role, count(*), sum(k.estimate) FROM users u JOIN tasks k ON k.tenant_id = u.tenant_id AND k.assignee = u.id GROUP BY u.role ORDER BY u.role;
SELECT p.state, k.priority, count(*) FROM projects p JOIN tasks k USING (tenant_id) WHERE k.project_id = p.id GROUP BY p.state, k.priority ORDER BY 1, 2;
SELECT count(*) FROM users u JOIN projects p USING (tenant_id);
SELECT count(*) FROM users NATURAL JOIN projects;
SELECT count(*) FROM tenants t, users u, projects p, tasks k WHERE t.id = u.tenant_id AND u.tenant_id = p.tenant_id AND p.tenant_id = k.tenant_id AND k.assignee = u.id AND k.project_id = p.id;
SELECT pl.code, count(t.id), sum(pl.monthly) FROM plans pl JOIN tenants t ON t.plan = pl.code GROUP BY pl.code ORDER BY pl.code;
SELECT c.title, t.name FROM tenants t LEFT JOIN countries c ON c.code = t.country ORDER BY 1 NULLS FIRST, 2;
SELECT c.code, count(u.id) FROM countries c JOIN tenants t ON t.country = c.code JOIN users u ON u.tenant_id = t.id WHERE c.eu GROUP BY c.code ORDER BY 1;
SELECT u.id, u.score, t.plan FROM users u JOIN tenants t ON t.id = u.tenant_id WHERE t.plan = 'enterprise' ORDER BY u.score DESC NULLS LAST, u.id LIMIT 6;
SELECT k.title, u.email FROM tasks k LEFT JOIN users u ON u.tenant_id = k.tenant_id AND u.id = k.assignee WHERE k.priority = 0 ORDER BY k.id LIMIT 10;
SELECT k.id FROM tasks k LEFT JOIN users u ON u.tenant_id = k.tenant_id AND u.id = k.assignee WHERE u.id IS NULL ORDER BY k.id LIMIT 10;
SELECT a.id, b.id FROM users a JOIN users b ON a.tenant_id = b.tenant_id AND a.born < b.born AND b.id = a.id + 1 ORDER BY 1 LIMIT 10;
SELECT t.name FROM tenants t WHERE EXISTS (SELECT FROM users u WHERE u.tenant_id = t.id AND u.score > 12) ORDER BY 1;
SELECT t.name FROM tenants t WHERE NOT EXISTS (SELECT FROM tasks k WHERE k.tenant_id = t.id AND k.priority = 4 AND k.done) ORDER BY 1;
SELECT t.name, (SELECT count(*) FROM users u WHERE u.tenant_id = t.id), (SELECT max(due) FROM tasks k WHERE k.tenant_id = t.id) FROM tenants t ORDER BY t.created LIMIT 5;
SELECT p.id FROM projects p WHERE (SELECT count(*) FROM tasks k WHERE k.tenant_id = p.tenant_id AND k.project_id = p.id AND NOT done) > 2 ORDER BY 1;
SELECT t.name FROM tenants t WHERE t.id IN (SELECT tenant_id FROM projects WHERE state = 'open') ORDER BY 1;
SELECT count(*) FROM tasks WHERE tenant_id NOT IN (SELECT tenant_id FROM projects WHERE budget > 20000);
SELECT t.name, x.id, x.score FROM tenants t, LATERAL (SELECT id, score FROM users u WHERE u.tenant_id = t.id ORDER BY score DESC NULLS LAST, id LIMIT 2) x ORDER BY t.created, x.id;
SELECT t.name, x.n FROM tenants t LEFT JOIN LATERAL (SELECT count(*) AS n FROM tasks k WHERE k.tenant_id = t.id AND k.done) x ON x.n > 4 ORDER BY 1, 2;
SELECT id, score, rank() OVER (PARTITION BY tenant_id ORDER BY score DESC NULLS LAST, id) FROM users ORDER BY id LIMIT 12;
SELECT id, sum(estimate) OVER (PARTITION BY tenant_id ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM tasks ORDER BY id LIMIT 12;
SELECT id, lag(title) OVER w, lead(title, 2, 'end') OVER w FROM tasks WINDOW w AS (PARTITION BY tenant_id, done ORDER BY id) ORDER BY id LIMIT 10;
SELECT * FROM (SELECT id, row_number() OVER (PARTITION BY tenant_id ORDER BY born) AS n FROM users) x WHERE n = 1 ORDER BY id;
SELECT tenant_id, count(*) AS n, rank() OVER (ORDER BY count(*) DESC, tenant_id) FROM tasks WHERE done GROUP BY tenant_id ORDER BY 3 LIMIT 5;
-- Joins of other keys.
SELECT t.name, count(e.id) FROM tenants t LEFT JOIN events e ON e.tenant_id = t.id GROUP BY t.id, t.name ORDER BY 2 DESC, 1, t.id;
SELECT t.name, sum(i.total) FROM tenants t JOIN invoices i ON i.tenant_id = t.id GROUP BY t.name ORDER BY 1;
SELECT i.number, t.name FROM invoices i LEFT JOIN tenants t ON t.id = i.tenant_id WHERE i.total > 1000 ORDER BY 1;
SELECT i.number FROM invoices i LEFT JOIN tenants t ON t.id = i.tenant_id WHERE t.id IS NULL ORDER BY 1;
SELECT t.name, i.number FROM tenants t FULL JOIN invoices i ON i.tenant_id = t.id AND i.paid IS NULL ORDER BY 1 NULLS LAST, 2 NULLS LAST, t.id LIMIT 30;
SELECT count(*), count(t.id), count(e.id) FROM tenants t FULL JOIN events e ON e.tenant_id = t.id;
SELECT e.kind, t.plan, count(*) FROM events e JOIN tenants t ON t.id = e.tenant_id GROUP BY e.kind, t.plan ORDER BY 1, 2;
SELECT e.kind, count(DISTINCT t.country) FROM events e JOIN tenants t ON t.id = e.tenant_id GROUP BY e.kind ORDER BY 1;
SELECT e.id FROM events e JOIN invoices i ON i.tenant_id = e.tenant_id AND i.issued = e.at::date ORDER BY 1;
SELECT i.number, e.kind FROM invoices i JOIN events e ON e.payload ->> 'n' = right(i.number, 1) WHERE i.currency = 'EUR' AND e.amount > 50 ORDER BY 1, 2, e.id LIMIT 12;
SELECT u.email, e.kind, e.at FROM users u JOIN events e ON e.tenant_id = u.tenant_id WHERE u.role = 'guest' AND e.ip <<= '10.1.0.0/16' ORDER BY e.at, u.id LIMIT 10;
SELECT t.name, n.body FROM tenants t JOIN notes n ON n.tenant_id = t.id ORDER BY n.id;
SELECT n.id, t.name FROM notes n LEFT JOIN tenants t ON t.id = n.tenant_id ORDER BY n.id;
SELECT n.id, count(u.id) FROM notes n LEFT JOIN users u ON u.tenant_id = n.tenant_id GROUP BY n.id ORDER BY n.id;
SELECT n.body, i.number FROM notes n, invoices i WHERE i.tenant_id = n.tenant_id AND n.id < 4 ORDER BY 2;
SELECT count(*) FROM notes WHERE tenant_id NOT IN (SELECT id FROM tenants);
SELECT a.name, b.name FROM tenants a JOIN tenants b ON b.id = a.parent ORDER BY 1, 2;
SELECT a.name, count(b.id) FROM tenants a LEFT JOIN tenants b ON b.parent = a.id GROUP BY a.id, a.name ORDER BY 2 DESC, 1;
SELECT a.number, b.number FROM invoices a JOIN invoices b ON a.tenant_id = b.tenant_id AND a.issued < b.issued AND a.currency = b.currency WHERE b.total < 0 ORDER BY 1, 2;
SELECT count(*) FROM tenants CROSS JOIN plans;
SELECT count(*) FROM tenants CROSS JOIN invoices;
SELECT t.name, x.number, x.total FROM tenants t LEFT JOIN LATERAL (SELECT number, total FROM invoices i WHERE i.tenant_id = t.id ORDER BY total DESC NULLS LAST, number LIMIT 1) x ON true ORDER BY t.created;
SELECT t.name, x.* FROM tenants t, LATERAL (SELECT kind, count(*) FROM events e WHERE e.tenant_id = t.id GROUP BY kind ORDER BY 2 DESC, 1 LIMIT 1) x ORDER BY t.created;
SELECT c.title, count(DISTINCT i.number) FROM countries c LEFT JOIN tenants t ON t.country = c.code LEFT JOIN invoices i ON i.tenant_id = t.id GROUP BY c.code ORDER BY c.code;
SELECT pl.code, sum(i.total) FROM plans pl LEFT JOIN (tenants t JOIN invoices i ON i.tenant_id = t.id) ON t.plan = pl.code GROUP BY pl.code ORDER BY pl.code;
SELECT i.currency, u.role, count(*) FROM invoices i JOIN users u ON u.tenant_id = i.tenant_id WHERE u.active GROUP BY ROLLUP (i.currency, u.role) ORDER BY 1, 2, 3;
SELECT max(i.total) FILTER (WHERE t.plan = 'team'), min(e.at) FROM invoices i JOIN tenants t ON t.id = i.tenant_id JOIN events e ON e.tenant_id = t.id;
SELECT t.name FROM tenants t JOIN users u ON u.tenant_id = t.id JOIN invoices i ON i.tenant_id = t.id AND i.total > u.score * 100 GROUP BY t.name HAVING count(DISTINCT i.number) > 2 ORDER BY 1;
-- Subqueries over other shards.
SELECT name FROM tenants t WHERE EXISTS (SELECT FROM invoices i WHERE i.tenant_id = t.id AND i.paid IS NULL) ORDER BY 1;
SELECT name FROM tenants t WHERE NOT EXISTS (SELECT FROM events e WHERE e.tenant_id = t.id AND e.kind = 'pay') ORDER BY 1;
SELECT name FROM tenants WHERE id IN (SELECT tenant_id FROM events WHERE amount > 50) ORDER BY 1;
SELECT name FROM tenants WHERE id NOT IN (SELECT tenant_id FROM events WHERE kind = 'login') ORDER BY 1;
SELECT name FROM tenants WHERE id NOT IN (SELECT tenant_id FROM events WHERE kind = 'login' AND tenant_id IS NOT NULL) ORDER BY 1;
SELECT number FROM invoices WHERE total > (SELECT avg(total) * 1.5 FROM invoices) ORDER BY 1;
SELECT number FROM invoices i WHERE total >= ALL (SELECT total FROM invoices x WHERE x.currency = i.currency AND x.total IS NOT NULL) ORDER BY 1;
SELECT number FROM invoices WHERE total < ANY (SELECT -amount FROM events WHERE amount > 40) ORDER BY 1;
SELECT number, (SELECT name FROM tenants t WHERE t.id = i.tenant_id) AS tenant FROM invoices i ORDER BY tenant, number LIMIT 9;
SELECT number, (SELECT count(*) FROM events e WHERE e.tenant_id = i.tenant_id AND e.at < i.paid) FROM invoices i ORDER BY 2 DESC, 1 LIMIT 6;
SELECT (SELECT max(total) FROM invoices), (SELECT count(*) FROM tasks WHERE done), (SELECT name FROM tenants ORDER BY created LIMIT 1);
SELECT ARRAY(SELECT number FROM invoices WHERE total < 0 ORDER BY number), EXISTS (SELECT FROM events WHERE ip IS NULL);
SELECT kind FROM events GROUP BY kind HAVING count(*) >= (SELECT count(*) / 5 FROM events) ORDER BY 1;
SELECT name FROM tenants ORDER BY (SELECT count(*) FROM invoices i WHERE i.tenant_id = tenants.id) DESC, name LIMIT 4;
SELECT CASE WHEN EXISTS (SELECT FROM invoices i WHERE i.tenant_id = t.id AND total < 0) THEN 'credit' ELSE 'none' END AS c, count(*) FROM tenants t GROUP BY 1 ORDER BY 1;
SELECT u.id FROM users u WHERE (u.tenant_id, u.role) IN (SELECT tenant_id, CASE WHEN amount > 30 THEN 'owner' ELSE 'guest' END FROM events WHERE amount IS NOT NULL) ORDER BY 1 LIMIT 12;
SELECT count(*) FROM users u WHERE u.score > (SELECT avg(score) FROM users x WHERE x.role = u.role AND x.score <> 'NaN');
SELECT sum(n) FROM (SELECT count(*) AS n FROM events GROUP BY tenant_id) x;
SELECT avg(total) FROM (SELECT tenant_id, sum(total) AS total FROM invoices GROUP BY tenant_id) x;
SELECT plan, avg(n) FROM (SELECT t.plan, t.id, count(u.id) AS n FROM tenants t LEFT JOIN users u ON u.tenant_id = t.id AND u.active GROUP BY t.id) x GROUP BY plan ORDER BY plan;
SELECT max(n), min(n) FROM (SELECT tenant_id, count(*) AS n FROM tasks WHERE NOT done GROUP BY tenant_id) x;
SELECT x.month, sum(x.total) OVER (ORDER BY x.month) FROM (SELECT date_trunc('month', issued) AS month, sum(total) AS total FROM invoices GROUP BY 1) x ORDER BY 1;
SELECT role, n FROM (SELECT role, count(*) AS n FROM users GROUP BY role) x WHERE n > 20 ORDER BY role;
SELECT x.kind, y.n FROM (SELECT DISTINCT kind FROM events) x JOIN (SELECT lower(kind) AS kind, count(*) AS n FROM events GROUP BY 1) y ON y.kind = lower(x.kind) ORDER BY 1;
SELECT name FROM (SELECT name, created FROM tenants ORDER BY created DESC LIMIT 3) x ORDER BY name;
SELECT count(*) FROM (SELECT tenant_id FROM users WHERE active UNION SELECT tenant_id FROM events) x;
-- WITH.
WITH paid AS (SELECT tenant_id, sum(total) AS total FROM invoices WHERE paid IS NOT NULL GROUP BY tenant_id) SELECT t.name, p.total FROM paid p JOIN tenants t ON t.id = p.tenant_id ORDER BY 2 DESC NULLS LAST, 1 LIMIT 5;
WITH per AS (SELECT tenant_id, kind, count(*) AS n FROM events GROUP BY 1, 2), best AS (SELECT kind, max(n) AS n FROM per GROUP BY kind) SELECT b.kind, b.n, count(*) FROM best b JOIN per p USING (kind, n) GROUP BY 1, 2 ORDER BY 1;
WITH x AS MATERIALIZED (SELECT * FROM users WHERE active) SELECT role, count(*) FROM x GROUP BY role ORDER BY role;
WITH x AS NOT MATERIALIZED (SELECT id, total FROM (SELECT number AS id, total FROM invoices) i) SELECT count(*), max(id) FROM x WHERE total > 10;
WITH RECURSIVE up AS (SELECT id, parent, name, 1 AS depth FROM tenants WHERE parent IS NULL UNION ALL SELECT t.id, t.parent, t.name, up.depth + 1 FROM tenants t JOIN up ON t.parent = up.id) SELECT depth, count(*) FROM up GROUP BY depth ORDER BY depth;
WITH RECURSIVE up AS (SELECT id, parent, name FROM tenants WHERE name = 'Acme 12' UNION SELECT t.id, t.parent, t.name FROM tenants t JOIN up ON t.id = up.parent) SELECT name FROM up ORDER BY name;
WITH RECURSIVE d AS (SELECT date '2024-01-01' AS d UNION ALL SELECT (d + interval '1 month')::date FROM d WHERE d < '2024-06-01') SELECT d.d, count(i.number) FROM d LEFT JOIN invoices i ON date_trunc('month', i.issued) = d.d GROUP BY d.d ORDER BY 1;
WITH RECURSIVE walk AS (SELECT id, parent FROM tenants WHERE parent IS NOT NULL UNION ALL SELECT w.id, t.parent FROM walk w JOIN tenants t ON t.id = w.parent WHERE t.parent IS NOT NULL) SEARCH DEPTH FIRST BY id SET seq SELECT count(*) FROM walk;
WITH RECURSIVE walk AS (SELECT id, parent FROM tenants UNION ALL SELECT w.id, t.parent FROM walk w JOIN tenants t ON t.id = w.parent) CYCLE id, parent SET is_cycle USING path SELECT is_cycle, count(*) FROM walk GROUP BY 1 ORDER BY 1;
WITH tenants AS (SELECT 1 AS id, 'hidden' AS name) SELECT * FROM tenants;
WITH e AS (SELECT * FROM events WHERE kind = 'login'), i AS (SELECT * FROM invoices WHERE currency = 'EUR') SELECT count(*) FROM e, i WHERE e.tenant_id = i.tenant_id;
WITH top (tenant, amount) AS (SELECT tenant_id, sum(amount) FROM events GROUP BY 1 ORDER BY 2 DESC NULLS LAST, 1 LIMIT 3) SELECT amount FROM top ORDER BY amount;
-- Set operations.
SELECT tenant_id FROM users UNION SELECT tenant_id FROM events ORDER BY 1 NULLS FIRST LIMIT 5;
SELECT id FROM tenants INTERSECT SELECT tenant_id FROM invoices ORDER BY 1 LIMIT 5;
SELECT tenant_id FROM invoices EXCEPT SELECT id FROM tenants;
SELECT role FROM users WHERE active EXCEPT ALL SELECT role FROM users WHERE NOT active ORDER BY 1 LIMIT 7;
SELECT name FROM tenants UNION ALL SELECT title FROM countries ORDER BY 1 NULLS FIRST LIMIT 6;
(SELECT number FROM invoices ORDER BY total DESC NULLS LAST, number LIMIT 2) UNION ALL (SELECT number FROM invoices ORDER BY total, number LIMIT 2);
SELECT 'users' AS what, count(*) FROM users UNION ALL SELECT 'tasks', count(*) FROM tasks UNION ALL SELECT 'plans', count(*) FROM plans ORDER BY 1;
SELECT code::text FROM plans UNION SELECT state::text FROM projects ORDER BY 1 NULLS LAST;
SELECT id FROM notes INTERSECT ALL SELECT priority FROM tasks ORDER BY 1;
SELECT currency, total FROM invoices WHERE total < 0 UNION SELECT 'X', 1.5 ORDER BY 2, 1;
VALUES ('a', 1), ('b', 2) UNION ALL SELECT role, count(*)::int FROM users GROUP BY role ORDER BY 1 NULLS LAST, 2;
SELECT kind FROM events UNION SELECT lower(kind) FROM events ORDER BY kind COLLATE "und-x-icu" DESC;
TABLE plans INTERSECT TABLE plans ORDER BY code;
-- Windows over all tenants.
SELECT id, score, rank() OVER (ORDER BY score DESC NULLS LAST), dense_rank() OVER (ORDER BY role) FROM users ORDER BY id LIMIT 12;
SELECT number, total, sum(total) OVER (PARTITION BY currency ORDER BY issued) FROM invoices ORDER BY number LIMIT 12;
SELECT number, avg(total) OVER (ORDER BY issued ROWS BETWEEN 3 PRECEDING AND 3 FOLLOWING EXCLUDE CURRENT ROW) FROM invoices ORDER BY number LIMIT 9;
SELECT id, at - lag(at) OVER (PARTITION BY kind ORDER BY at) FROM events ORDER BY at LIMIT 12;
SELECT number, count(*) OVER (ORDER BY issued RANGE BETWEEN interval '20 days' PRECEDING AND CURRENT ROW) FROM invoices ORDER BY number LIMIT 9;
SELECT DISTINCT first_value(number) OVER (PARTITION BY currency ORDER BY total DESC NULLS LAST, number) FROM invoices ORDER BY 1;
SELECT plan, count(*), sum(count(*)) OVER (ORDER BY plan) FROM tenants GROUP BY plan ORDER BY plan;
SELECT currency, sum(total), sum(total) * 100 / sum(sum(total)) OVER () AS share FROM invoices GROUP BY currency ORDER BY currency;
SELECT ntile(4) OVER (ORDER BY created) AS q, name FROM tenants ORDER BY q, created;
SELECT name, percent_rank() OVER (ORDER BY created), cume_dist() OVER (ORDER BY plan) FROM tenants ORDER BY created;
SELECT id, string_agg(role, ',') OVER (ORDER BY id ROWS 2 PRECEDING) FROM users ORDER BY id LIMIT 8;
SELECT count(*) OVER () AS all_of_them, number FROM invoices WHERE total < 0 ORDER BY 2;
SELECT kind, max(amount) OVER (PARTITION BY kind) - amount AS below FROM events WHERE amount IS NOT NULL ORDER BY 1, 2 LIMIT 10;
SELECT id, nth_value(title, 3) OVER (PARTITION BY priority ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM tasks ORDER BY id LIMIT 6;
SELECT id, sum(estimate) FILTER (WHERE done) OVER (PARTITION BY assignee ORDER BY id) FROM tasks ORDER BY id LIMIT 12;
SELECT x.kind, x.n FROM (SELECT kind, count(*) AS n, row_number() OVER (ORDER BY count(*) DESC, kind) AS r FROM events GROUP BY kind) x WHERE r <= 2 ORDER BY r;
-- Grouping sets.
SELECT plan, country, count(*), grouping(plan, country) FROM tenants GROUP BY CUBE (plan, country) ORDER BY 4, 1, 2;
SELECT role, active, count(*) FROM users GROUP BY GROUPING SETS ((role), (active), ()) ORDER BY 1, 2, 3;
SELECT currency, extract(year FROM issued) AS y, sum(total) FROM invoices GROUP BY ROLLUP (currency, y) ORDER BY 1, 2;
SELECT kind, count(*) FROM events GROUP BY ROLLUP (kind) HAVING count(*) > 36 ORDER BY kind;
SELECT done, priority, sum(estimate) FROM tasks GROUP BY DISTINCT ROLLUP (done, priority), ROLLUP (done) ORDER BY 1, 2, 3;
SELECT coalesce(state::text, 'all'), grouping(state), sum(budget) FROM projects GROUP BY ROLLUP (state) ORDER BY 2, state;
SELECT count(*) FROM invoices GROUP BY GROUPING SETS ((), ());
SELECT role, count(*) FROM users GROUP BY ALL role ORDER BY role;
-- Parameters.
--@ bind: team
SELECT name FROM tenants WHERE plan = $1::text::plan ORDER BY name;
--@ bind: dark|2
SELECT name FROM tenants WHERE settings ->> 'theme' = $1 ORDER BY name LIMIT $2;
--@ bind: 5.5|true
SELECT id FROM users WHERE score > $1 AND active = $2 ORDER BY id LIMIT 9;
--@ bind: 2024-03-01 00:00+00
SELECT count(*), max(seen) FROM users WHERE seen < $1;
--@ bind: {owner,guest}
SELECT role, count(*) FROM users WHERE role = ANY ($1) GROUP BY role ORDER BY role;
--@ bind: {"lang": "en"}
SELECT id FROM users WHERE profile @> $1 ORDER BY id LIMIT 7;
--@ bind: 3|10
SELECT priority + $1 AS p, count(*) FROM tasks GROUP BY priority + $1 HAVING count(*) > $2 ORDER BY 1;
--@ bind: EUR|0
SELECT t.name, sum(i.total) FROM tenants t JOIN invoices i ON i.tenant_id = t.id WHERE i.currency = $1 AND i.total > $2 GROUP BY t.name ORDER BY 1;
--@ bind: login|10.1.0.0/16
SELECT e.at, t.name FROM events e JOIN tenants t ON t.id = e.tenant_id WHERE e.kind = $1 AND e.ip << $2 ORDER BY 1;
--@ bind: 4|2
SELECT id FROM tasks ORDER BY id LIMIT $1 OFFSET $2;
--@ bind: NULL|3
SELECT id FROM tasks ORDER BY id DESC LIMIT $1 OFFSET $2;
--@ bind: 2
SELECT plan FROM tenants ORDER BY plan FETCH FIRST $1 ROWS WITH TIES;
--@ bind: 7|x
SELECT $1::int + count(*), $2::text FROM users WHERE id > $1;
--@ bind: 1 day
SELECT count(*) FROM tasks WHERE effort > $1;
--@ bind: {31,32}
SELECT id FROM tasks WHERE watchers && $1 ORDER BY id;
--@ bind: 100
SELECT x.n FROM (SELECT count(*) AS n FROM invoices WHERE total > $1) x;
--@ bind: a%|%de
SELECT count(*) FROM users WHERE email LIKE $1 OR email LIKE $2;
--@ bind: draft
SELECT tenant_id FROM projects WHERE state > $1::text::state EXCEPT SELECT tenant_id FROM events ORDER BY 1;
--@ bind: 10|20
SELECT sum(total) OVER (ORDER BY number) FROM invoices WHERE total BETWEEN $1 AND $2 ORDER BY 1;
--@ bind: -5
SELECT id FROM tasks ORDER BY id LIMIT $1;
-- What is wrong is PostgreSQL's to say.
SELECT nope FROM tenants;
SELECT name, count(*) FROM tenants;
SELECT plan FROM tenants WHERE plan = 'gold';
SELECT sum(id / (id - id)) FROM users;
SELECT name FROM tenants ORDER BY null;
SELECT sum(name) FROM tenants;
SELECT id FROM users WHERE tenant_id = 'not a uuid';
SELECT t.name FROM tenants t JOIN events e ON e.tenant = t.id;
SELECT count(*) FROM invoices GROUP BY total HAVING number = 'x';
-- Cursors.
BEGIN;
DECLARE c CURSOR FOR SELECT id, title FROM tasks ORDER BY id;
FETCH 3 FROM c;
MOVE 5 IN c;
FETCH 2 FROM c;
CLOSE c;
DECLARE g SCROLL CURSOR FOR SELECT plan, count(*) FROM tenants GROUP BY plan ORDER BY plan;
FETCH ALL FROM g;
FETCH BACKWARD 2 FROM g;
FETCH ABSOLUTE 1 FROM g;
COMMIT;
-- What this transaction has changed is seen.
BEGIN;
UPDATE users SET role = 'owner', score = score + 1 WHERE active IS NULL;
DELETE FROM events WHERE kind = 'Upload';
SELECT role, count(*), sum(score) FROM users WHERE score < 100 GROUP BY role ORDER BY role;
SELECT t.plan, count(e.id) FROM tenants t LEFT JOIN events e ON e.tenant_id = t.id GROUP BY t.plan ORDER BY t.plan;
SELECT DISTINCT kind FROM events ORDER BY kind;
ROLLBACK;
-- Another zone and another way to write dates.
SET timezone = 'America/New_York';
SELECT created, created::date FROM tenants ORDER BY created LIMIT 3;
SELECT date_trunc('day', at) AS d, count(*) FROM events GROUP BY d ORDER BY d;
SELECT due::date, count(*) FROM tasks GROUP BY 1 HAVING count(*) > 3 ORDER BY 1;
SELECT min(paid), max(paid)::date FROM invoices;
SELECT t.name, max(e.at) FROM tenants t JOIN events e ON e.tenant_id = t.id GROUP BY t.name ORDER BY 2 DESC, 1 LIMIT 3;
SET datestyle = 'German, DMY';
SELECT max(created), min(born) FROM tenants, users WHERE users.tenant_id = tenants.id;
SELECT issued, count(*) FROM invoices WHERE issued < '01.02.2024' GROUP BY issued ORDER BY issued LIMIT 4;
RESET datestyle;
RESET timezone;
-- What a column is called, and what it is compared by.
SELECT id::text || '!' FROM users ORDER BY id LIMIT 3;
SELECT id % 10 + 0 AS id, email FROM users ORDER BY id, email NULLS FIRST LIMIT 5;
SELECT -id AS n FROM users ORDER BY n LIMIT 3;
SELECT -id AS id FROM users ORDER BY id + 0 LIMIT 3;
SELECT tags[1] || tags[2] FROM tenants ORDER BY tags, created LIMIT 8;
SELECT (SELECT title FROM countries WHERE code = country), created FROM tenants ORDER BY title NULLS FIRST, created;
SELECT created, (SELECT count(*) AS name FROM users u WHERE u.tenant_id = t.id AND u.active) FROM tenants t ORDER BY name DESC, created;
SELECT max(name COLLATE "und-x-icu"), min(name COLLATE "und-x-icu"), max(name) FROM tenants;
SELECT plan, max(name COLLATE "und-x-icu") FROM tenants GROUP BY plan ORDER BY plan;
SELECT kind COLLATE "und-x-icu" AS k, count(*) FROM events GROUP BY k ORDER BY k;
SELECT DISTINCT kind COLLATE "und-x-icu" AS k FROM events ORDER BY k DESC;
SELECT count(*) FROM tenants GROUP BY plan ORDER BY count(*) FETCH FIRST ROW WITH TIES;
SELECT count(*) FROM tenants GROUP BY country ORDER BY count(*) DESC OFFSET 2 ROWS FETCH NEXT 1 ROW WITH TIES;
SELECT x.who, x.what FROM users AS x (owner, who, mail, what) WHERE x.what = 'owner' ORDER BY 1 LIMIT 4;
SELECT count(*) FROM ONLY tasks WHERE done;
SELECT count(*) FROM tasks TABLESAMPLE BERNOULLI (100);
SELECT count(*) FROM users JOIN ONLY tenants ON tenants.id = tenant_id WHERE plan = 'free';
SELECT id FROM tasks WHERE priority BETWEEN SYMMETRIC 4 AND 3 AND done ORDER BY id LIMIT 5;
SELECT u.id, p.nr, p.phone FROM users u, unnest(u.phones) WITH ORDINALITY p (phone, nr) WHERE u.id < 15 ORDER BY 1, 2;
SELECT (jsonb_each(settings)).* FROM tenants WHERE id = 'ec8ce6ab-b3e9-52a8-5e55-1ac665c908f6' ORDER BY 1;
SELECT name FROM tenants ORDER BY true;
SELECT id, effort FROM tasks ORDER BY effort DESC NULLS LAST, id LIMIT 7;
SELECT id, due FROM tasks WHERE due > '2024-03-31 01:30 Europe/Berlin' ORDER BY due, id LIMIT 7;
SELECT ip, abbrev(ip), host(ip), family(ip) FROM events WHERE ip IS NOT NULL ORDER BY ip, at LIMIT 6;
SELECT id, payload FROM events ORDER BY payload DESC NULLS LAST, at LIMIT 6;
SELECT currency || '|' AS c, length(currency) FROM invoices ORDER BY currency, number LIMIT 3;
SELECT number, total FROM invoices ORDER BY total NULLS FIRST, number DESC LIMIT 9;
SELECT number, paid - issued AS waited FROM invoices WHERE paid IS NOT NULL ORDER BY waited DESC, number LIMIT 5;
SELECT lines FROM invoices ORDER BY lines, number LIMIT 4;
SELECT state, starts, ends FROM projects ORDER BY state DESC, ends NULLS FIRST, starts, id LIMIT 9;
SELECT id, budget, budget::money::numeric = round(budget, 2) FROM projects ORDER BY budget DESC NULLS LAST, id LIMIT 5;
SELECT id FROM projects WHERE (starts, coalesce(ends, 'infinity')) OVERLAPS (date '2024-01-10', date '2024-01-20') ORDER BY id;
SELECT id FROM projects WHERE daterange(starts, ends) @> date '2024-05-01' ORDER BY id LIMIT 6;
SELECT id, estimate FROM tasks ORDER BY estimate DESC NULLS LAST, id LIMIT 6;
SELECT id, estimate::numeric(6, 1), estimate::int, estimate = estimate FROM tasks WHERE estimate < 2 ORDER BY id LIMIT 8;
SELECT DISTINCT ON (priority, done) priority, done, id FROM tasks ORDER BY priority, done DESC, due NULLS LAST, id;
SELECT row_to_json(x) FROM (SELECT id, role FROM users WHERE id < 13 ORDER BY id) x;
SELECT u FROM (SELECT id, role FROM users WHERE role = 'guest') u ORDER BY u.id LIMIT 2;
SELECT count(u) FROM users u WHERE u.active;
SELECT DISTINCT current_setting('timezone'), current_user = session_user FROM tenants;
SELECT count(DISTINCT now()) FROM tasks;
-- Partitions that are on one shard each.
SELECT id, count(*) OVER w, first_value(id) OVER (w ORDER BY born) FROM users WINDOW w AS (PARTITION BY tenant_id) ORDER BY id LIMIT 9;
SELECT DISTINCT count(*) OVER (PARTITION BY tenant_id, role) FROM users ORDER BY 1;
SELECT tenant_id, role, rank() OVER (PARTITION BY tenant_id ORDER BY count(*) DESC, role) FROM users GROUP BY tenant_id, role ORDER BY 1, 3 LIMIT 12;
SELECT t.name, u.id, string_agg(u.role, ',') OVER (PARTITION BY t.id ORDER BY u.id) FROM tenants t JOIN users u ON u.tenant_id = t.id WHERE t.plan = 'team' ORDER BY u.id;
SELECT id FROM users ORDER BY row_number() OVER (PARTITION BY tenant_id ORDER BY id), id LIMIT 14;
SELECT c.title, count(*) OVER (PARTITION BY t.id) FROM tenants t LEFT JOIN countries c ON c.code = t.country ORDER BY 1 NULLS FIRST, t.id LIMIT 5;
SELECT u.id, sum(k.estimate) OVER (PARTITION BY k.tenant_id ORDER BY u.id, k.id) FROM users u LEFT JOIN tasks k ON k.tenant_id = u.tenant_id AND k.assignee = u.id ORDER BY u.id, k.id LIMIT 12;
