//! A shard is added to a live cluster, gets its part, gives it back and leaves.

use std::process::Command;

use pgherd_tests::{cluster_with, program, run};

use super::command::{assert_clean, reshard};
use super::load::{audit, cluster, under_load};

const CLIENTS: u32 = 2;

#[test]
fn a_new_shard_gets_roles_schema_and_reference_rows_then_its_part_and_can_leave_again() {
    let cluster = cluster(2, CLIENTS);
    let (dsn, catalog) = (cluster.dsn(), &cluster.file.catalog.dsn);
    run(dsn, "CREATE TABLE countries (code text PRIMARY KEY, name text)");
    run(dsn, "SELECT create_reference_table('countries')");
    run(dsn, "INSERT INTO countries VALUES ('at', 'Austria'), ('pt', 'Portugal')");
    run(dsn, "CREATE ROLE app_reader");
    run(dsn, "GRANT SELECT ON accounts TO app_reader");
    let donor = cluster_with(|options| options.shards = 1);
    let server = donor.file.shards[0].dsn.replace("/app", "");
    run(&format!("{server}/postgres"), "CREATE DATABASE more");
    let more = format!("{server}/more");
    let shard = |args: &[&str]| {
        let output = Command::new(program())
            .arg("shard")
            .args(args)
            .args(["--catalog", catalog])
            .output()
            .expect("pgherd runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    run(&cluster.file.shards[1].dsn, "CREATE DATABASE twin");
    let (added, said) = shard(&["add", &cluster.file.shards[1].dsn.replace("/app", "/twin")]);
    assert!(!added && said.contains("the server of shard 1"), "{said}");
    let ledgers = under_load(&cluster, CLIENTS, || {
        let (added, said) = shard(&["add", &more]);
        assert!(added && said.contains("is shard 2"), "{said}");
        assert_eq!(
            run(&more, "SELECT string_agg(code, ',' ORDER BY code) FROM countries"),
            "at,pt"
        );
        run(dsn, "INSERT INTO countries VALUES ('is', 'Iceland')");
        assert_eq!(run(&more, "SELECT count(*) FROM countries"), "3");
        assert_eq!(
            run(&more, "SELECT has_table_privilege('app_reader', 'accounts', 'SELECT')"),
            "t"
        );
        reshard(&cluster, &["start", "--spread", "--auto", "--max-pause", "2s"]);
        let (removed, said) = shard(&["remove", "2"]);
        assert!(!removed && said.contains("rows are being moved"), "{said}");
        reshard(&cluster, &["finish"]);
        let rows: u32 = run(&more, "SELECT count(*) FROM accounts").parse().expect("a count");
        assert!(rows > 0, "its part");
        let (removed, said) = shard(&["remove", "2"]);
        assert!(!removed && said.contains("holds rows"), "{said}");
        reshard(&cluster, &["start", "--drain", "2", "--auto", "--max-pause", "2s"]);
        reshard(&cluster, &["finish"]);
        assert_eq!(run(&more, "SELECT count(*) FROM accounts"), "0");
        let (removed, said) = shard(&["remove", "2"]);
        assert!(removed, "{said}");
    });
    audit(&cluster, &ledgers);
    assert_clean(&cluster);
}
