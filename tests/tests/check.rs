//! `pgherd check`: what somebody has changed by hand on one shard is found and named, and nothing
//! is found where nothing is wrong.

use std::process::Command;

use pgherd::dev::LocalCluster;
use pgherd_tests::{cluster_with, program, run, wait_until};

/// One of each kind that a shard could differ in.
const SCHEMA: &str = r#"
CREATE ROLE app LOGIN PASSWORD 'secret';
CREATE ROLE reader;
CREATE SCHEMA "Other";
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE DOMAIN positive AS int DEFAULT 1 CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text COLLATE "C");
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE orders (customer int, id bigserial, total numeric(10, 2) DEFAULT 0 CHECK (total >= 0),
    mood mood, twice int GENERATED ALWAYS AS (customer * 2) STORED, PRIMARY KEY (customer, id));
CREATE INDEX orders_total ON orders (total);
CREATE TABLE parts (k int, at date, note text, PRIMARY KEY (k, at)) PARTITION BY RANGE (at);
CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE parts_new PARTITION OF parts DEFAULT;
CREATE INDEX ON parts (note);
CREATE TABLE countries (code text PRIMARY KEY, name text);
CREATE TABLE "Other"."Home" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "A b" text);
CREATE TABLE "Other".rooms (home int REFERENCES "Other"."Home", note text);
CREATE VIEW codes AS SELECT code FROM countries;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM "Other"."Home";
CREATE FUNCTION answer(a int, b text DEFAULT 'x') RETURNS int LANGUAGE sql AS 'SELECT 42';
CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE PROCEDURE work() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
CREATE CAST (pair AS text) WITH INOUT;
CREATE TRIGGER pass BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pass();
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON orders FOR SELECT TO app, reader USING (customer > 0);
GRANT SELECT ON orders TO reader;
GRANT reader TO app;
GRANT SELECT (name) ON countries TO app WITH GRANT OPTION;
ALTER TABLE countries OWNER TO app;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader;
ALTER ROLE app SET work_mem = '8MB';
ALTER DATABASE app SET lock_timeout = '9s';
CREATE STATISTICS dependent ON customer, total FROM orders;
CREATE SEQUENCE numbers START 5 CYCLE MAXVALUE 10;
SELECT create_distributed_table('orders', 'customer');
SELECT create_distributed_table('parts', 'k');
SELECT create_reference_table('countries');
INSERT INTO orders (customer, total) SELECT i, i FROM generate_series(1, 200) i;
INSERT INTO parts SELECT i, date '2019-10-01' + i, 'n' FROM generate_series(1, 200) i;
INSERT INTO countries VALUES ('at', 'Austria'), ('pt', 'Portugal');
INSERT INTO "Other"."Home" ("A b") VALUES ('here');
"#;

/// What test clusters are warned of: they run without fsync.
const FSYNC: &str = "fsync is off";

/// Exit status, and each finding but that of fsync in a line.
fn check(cluster: &LocalCluster, args: &[&str]) -> (Option<i32>, Vec<String>) {
    let mut command = Command::new(program());
    command.arg("check").args(args).args(["--json", "--catalog", &cluster.file.catalog.dsn]);
    let output = command.output().expect("pgherd runs");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let line = |finding: &serde_json::Value| {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        assert_ne!(text("hint"), "", "{finding}");
        format!("{} {}: {}", text("severity"), text("object"), text("message"))
    };
    let findings = json["findings"].as_array().expect("a list");
    let lines = findings.iter().map(line).filter(|line| !line.contains(FSYNC));
    (output.status.code(), lines.collect())
}

fn with_schema(shards: u32) -> LocalCluster {
    let cluster = cluster_with(|options| options.shards = shards);
    for statement in SCHEMA.split(";\n") {
        run(cluster.dsn(), statement);
    }
    cluster
}

#[test]
fn a_good_cluster_has_no_findings_and_each_change_by_hand_is_one() {
    let cluster = with_schema(3);
    let none: Vec<String> = Vec::new();
    assert_eq!(check(&cluster, &["--rows"]), (Some(0), none));

    let [_, one, two] = &cluster.file.shards[..] else { panic!("three shards") };
    run(
        &one.dsn,
        r#"INSERT INTO "Other"."Home" ("A b") VALUES ('lost');
        INSERT INTO countries VALUES ('xx', 'Nowhere');
        INSERT INTO orders (customer, id) SELECT i, 9000 FROM generate_series(1, 50) i;
        DROP INDEX orders_total;
        ALTER TABLE parts ALTER note TYPE varchar(20);
        CREATE OR REPLACE FUNCTION answer(a int, b text DEFAULT 'x') RETURNS int LANGUAGE sql
            AS 'SELECT 41';
        ALTER TABLE orders DROP CONSTRAINT orders_total_check;
        ALTER TYPE mood ADD VALUE 'sad';
        ALTER POLICY visible ON orders USING (true);
        DROP TRIGGER pass ON orders;
        DROP VIEW codes;
        REVOKE SELECT ON orders FROM reader;
        ALTER ROLE app PASSWORD 'other';
        ALTER DATABASE app SET timezone = 'Asia/Tokyo';
        ALTER TABLE "Other".rooms DISABLE TRIGGER ALL;
        ALTER TABLE countries REPLICA IDENTITY FULL;
        CREATE TABLE spare (a int)"#,
    );
    run(
        &two.dsn,
        "ALTER TABLE countries OWNER TO postgres; DROP OWNED BY app; DROP ROLE app;
        ALTER TABLE orders ADD extra int;
        ALTER SEQUENCE numbers INCREMENT 3;
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_total'::regclass",
    );
    // Of a shard that is not there, so no router can finish it.
    let gid = "pgherd_app_9_gone_00000000000000000000000000000001";
    let prepare = "BEGIN; CREATE TABLE prepared (); PREPARE TRANSACTION";
    for gid in [gid, "elsewhere"] {
        run(&two.dsn, &format!("{prepare} '{gid}'").replace("prepared ()", &format!("_{gid} ()")));
    }
    run(&one.dsn, "SELECT pg_create_physical_replication_slot('standby', true)");

    let (status, mut found) = check(&cluster, &["--rows"]);
    assert_eq!(status, Some(1));
    let misplaced = "error table public.orders: ";
    let at = found.iter().position(|line| line.starts_with(misplaced)).expect("misplaced rows");
    let wrong = found.remove(at);
    // A third of fifty customers is shard 1's own.
    let count: u32 = wrong[misplaced.len()..].split(' ').next().unwrap().parse().expect("a number");
    assert!((20..45).contains(&count), "{wrong}");
    assert!(wrong.contains(" rows on shard 1 that do not belong there, with customer = "));
    found.retain(|line| !line.contains("prepared transactions"));
    found.sort();
    let mut expected = [
        "error column public.orders.extra: on shard 2, but not on shard 0",
        "error column public.parts.note: differs on shard 1",
        "error constraint orders_total_check on public.orders: missing on shard 1",
        "error constraint rooms_home_fkey on \"Other\".rooms: differs on shard 1",
        "error function public.answer(integer, text): differs on shard 1",
        "error owner of table public.countries: differs on shard 2",
        "error password of role app: differs on shard 1",
        "error policy visible on public.orders: differs on shard 1",
        "error privileges on table public.orders: differs on shard 1",
        "error role app: missing on shard 2",
        "error sequence public.numbers: differs on shard 2",
        "error setting TimeZone: differs on shard 1",
        "error settings of the database: differs on shard 1",
        "error table public.countries: rows on shard 1 are not those on shard 0, 3 to 2",
        "error trigger pass on public.orders: missing on shard 1",
        "error type public.mood: differs on shard 1",
        "error view public.codes: missing on shard 1",
        "error policy visible on public.orders: differs on shard 2",
        "note : shard 1: the replication slot standby has no reader and keeps",
        "warning : shard 2: invalid indexes: public.orders_total",
        "warning index public.orders_total: missing on shard 1",
        "warning replica identity of table public.countries: on shard 1, but not on shard 0",
        "warning table \"Other\".\"Home\": it is not distributed, but has rows on shard 1",
        "warning table public.spare: on shard 1, but not on shard 0",
    ];
    expected.sort_unstable();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }

    let (_, named) = check(&cluster, &["--table", "countries"]);
    assert!(named.iter().any(|line| line.contains("rows on shard 1 are not those")), "{named:?}");
    assert!(!named.iter().any(|line| line.starts_with(misplaced)), "{named:?}");

    wait_until("the prepared transactions are old", || {
        let (_, found) = check(&cluster, &[]);
        let old = |start: &str| found.iter().any(|line| line.starts_with(start));
        old(&format!(
            "error : shard 2: prepared transactions of pgherd that nobody has finished: 1; the \
             oldest, {gid}"
        )) && old("warning : shard 2: prepared transactions of somebody else")
    });
}

#[test]
fn a_running_reshard_is_no_drift() {
    let cluster = with_schema(2);
    let reshard = |args: &[&str]| {
        let mut command = Command::new(program());
        command.arg("reshard").args(args).args(["--catalog", &cluster.file.catalog.dsn]);
        let output = command.output().expect("pgherd runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let noted = |phase: &str| vec![format!("note : run 1 of pgherd reshard is {phase}")];
    reshard(&["start", "--split", "0", "--to", "1"]);
    assert_eq!(check(&cluster, &["--rows"]), (Some(0), noted("ready")));
    reshard(&["cutover"]);
    assert_eq!(check(&cluster, &["--rows"]), (Some(0), noted("moved")));
    reshard(&["finish"]);
    assert_eq!(check(&cluster, &["--rows"]), (Some(0), Vec::new()));
}

#[test]
fn a_shard_that_is_down_is_a_finding_and_the_others_are_checked() {
    let mut cluster = cluster_with(|options| options.shards = 3);
    let dsn = cluster.dsn().to_owned();
    run(&dsn, "CREATE TABLE t (k int PRIMARY KEY)");
    run(&dsn, "SELECT create_distributed_table('t', 'k')");
    cluster.crash_shard(2).expect("it stops");
    run(&cluster.file.shards[1].dsn, "ALTER TABLE t ADD extra int");
    let (status, found) = check(&cluster, &[]);
    assert_eq!(status, Some(1));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("error : shard 2 at "), "{found:?}");
    assert_eq!(found[1], "error column public.t.extra: on shard 1, but not on shard 0");

    // A part of the keys without a shard: no router could start.
    let catalog = cluster.file.catalog.dsn.clone();
    run(
        &catalog,
        "DELETE FROM pgherd.range_list WHERE start_hash = (SELECT min(start_hash) \
        FROM pgherd.range_list)",
    );
    let (status, found) = check(&cluster, &[]);
    assert_eq!(status, Some(1));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("the shard map cannot be used: the ranges"), "{found:?}");

    // Without the catalog nothing can be said, and it says so.
    cluster.crash_shard(0).expect("it stops");
    let output = Command::new(program()).args(["check", "--catalog", &catalog]).output();
    let output = output.expect("pgherd runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("pgherd: cannot connect to "), "{said}");
}
