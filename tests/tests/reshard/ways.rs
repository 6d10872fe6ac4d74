//! The ways of a run: there, and back, and given up.

use pgherd_tests::run;

use super::command::{assert_clean, assert_placed, reshard, start};
use super::load::{TABLES, audit, cluster, under_load};

const CLIENTS: u32 = 4;

#[test]
fn rows_move_under_load_and_every_acknowledged_write_is_there_once() {
    let cluster = cluster(2, CLIENTS);
    let ledgers = under_load(&cluster, CLIENTS, || {
        start(&cluster, 0, 1);
        let lines = reshard(&cluster, &["cutover", "--max-pause", "2s"]);
        assert!(lines.last().is_some_and(|line| line.contains("moved")), "{lines:?}");
        reshard(&cluster, &["verify"]);
        reshard(&cluster, &["finish"]);
    });
    audit(&cluster, &ledgers);
    assert_placed(&cluster, &TABLES);
    assert_clean(&cluster);
    assert_eq!(run(&cluster.file.shards[0].dsn, "SELECT count(*) FROM accounts"), "0");
}

#[test]
fn what_was_written_after_the_cut_over_comes_back_with_a_rollback() {
    let cluster = cluster(2, CLIENTS);
    let ledgers = under_load(&cluster, CLIENTS, || {
        start(&cluster, 1, 0);
        reshard(&cluster, &["cutover", "--max-pause", "2s"]);
        let lines = reshard(&cluster, &["rollback", "--max-pause", "2s"]);
        assert!(lines.last().is_some_and(|line| line.contains("ready")), "{lines:?}");
        reshard(&cluster, &["cancel"]);
    });
    audit(&cluster, &ledgers);
    assert_placed(&cluster, &TABLES);
    assert_clean(&cluster);
}
