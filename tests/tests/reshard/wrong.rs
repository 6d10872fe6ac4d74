//! A verification that cannot fail proves nothing: rows are changed, lost and added by hand.

use pgherd_tests::run;

use super::command::{assert_clean, reshard, start, try_reshard};
use super::load::cluster;

#[test]
fn rows_that_were_changed_lost_or_added_are_named_and_nothing_moves() {
    let cluster = cluster(2, 2);
    start(&cluster, 0, 1);
    let target = &cluster.file.shards[1].dsn;
    let source = &cluster.file.shards[0].dsn;
    let keys = run(source, "SELECT k FROM accounts ORDER BY k LIMIT 2");
    let keys: Vec<&str> = keys.lines().collect();
    let id = run(&cluster.file.catalog.dsn, "SELECT max(id) FROM pgherd.reshard_list");
    for (change, named, undo) in [
        (
            format!("UPDATE accounts SET filler = 'wrong' WHERE k = {}", keys[0]),
            format!("changed ({})", keys[0]),
            format!("UPDATE accounts SET filler = 'filler of {0}' WHERE k = {0}", keys[0]),
        ),
        (
            format!("DELETE FROM accounts WHERE k = {}", keys[1]),
            format!("lost ({})", keys[1]),
            format!("INSERT INTO accounts (k, filler) VALUES ({0}, 'filler of {0}')", keys[1]),
        ),
        (
            format!("INSERT INTO notes VALUES ({}, 'nobody''s')", keys[0]),
            format!("added ({},nobody's)", keys[0]),
            "DELETE FROM notes".to_owned(),
        ),
    ] {
        run(target, &format!("SET session_replication_role = replica; {change}"));
        for verb in ["verify", "cutover"] {
            let failed = try_reshard(&cluster, &[verb]);
            let error = String::from_utf8_lossy(&failed.stderr).into_owned();
            assert!(!failed.status.success() && error.contains(&named), "{verb}: {error}");
        }
        run(target, &format!("SET session_replication_role = replica; {undo}"));
        reshard(&cluster, &["verify"]);
    }
    let wrong = format!(
        "SELECT count(*) FROM pgherd.reshard_list, jsonb_array_elements(certificates) c, \
         jsonb_array_elements(c->'tables') t WHERE id = {id} AND (t->>'wrong')::int > 0 AND t->>'source_checksum' <> t->>'target_checksum'"
    );
    assert_eq!(run(&cluster.file.catalog.dsn, &wrong), "6", "certificates say it, too");
    reshard(&cluster, &["cancel"]);
    assert_clean(&cluster);
}
