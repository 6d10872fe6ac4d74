//! COPY is all or nothing, however it ends and whatever surrounds it.

use crate::twins::{Twins, lines, shard_counts};
use crate::wire::{Protocol, Wire, cstr};

#[test]
fn an_error_of_a_shard_ends_the_copy_while_the_client_still_sends() {
    let columns = "k int PRIMARY KEY, n int";
    let mut t = Twins::new("copy_early", columns);
    drop(Twins::on_home_shard("copy_early_home", columns));
    let bad = [&lines(0..5000, "#\t#\n")[..], b"5000\tx\n", &lines(5001..9000, "#\t#\n")].concat();
    for (table, protocol) in [
        ("copy_early", Protocol::Simple),
        ("copy_early", Protocol::Extended),
        ("copy_early_home", Protocol::Simple),
        ("copy_early_home", Protocol::Extended),
    ] {
        let mut outcome = t.router.begin(&format!("COPY {table} FROM STDIN"), protocol);
        t.router.send(&[(b'd', &bad)]);
        // No CopyDone has been sent.
        while t.router.take(&mut outcome) != b'E' {}
        assert_eq!(outcome.sqlstate(), "22P02");
        assert_eq!(outcome.context(), format!("COPY {table}, line 5001, column n: \"x\""));
        t.router.send(&[(b'd', b"more\n"), (b'c', b"")]);
        if protocol == Protocol::Extended {
            t.router.send(&[(b'S', b"")]);
        }
        assert_eq!(t.router.reply().status, b'I');
        assert_eq!(t.router.query("SELECT 1").tag(), "SELECT 1");
    }
    assert_eq!(shard_counts(&t.cluster, "copy_early"), ["0"; 4]);
}

#[test]
fn a_copy_that_the_client_fails_or_leaves_leaves_nothing() {
    let mut t = Twins::new("copy_fail", "k int PRIMARY KEY, n int");
    let data = lines(0..3000, "#\t#\n");
    for protocol in [Protocol::Simple, Protocol::Extended] {
        let [wanted, found] = [&mut t.plain, &mut t.router].map(|wire| {
            let mut outcome = wire.begin("COPY copy_fail FROM STDIN", protocol);
            wire.send(&[(b'd', &data), (b'f', &cstr("no more of it"))]);
            if protocol == Protocol::Extended {
                wire.send(&[(b'S', b"")]);
            }
            while wire.take(&mut outcome) != b'Z' {}
            outcome
        });
        assert_eq!(found, wanted);
        assert_eq!(found.message(), "COPY from stdin failed: no more of it");
    }
    let mut leaving = Wire::connect(t.cluster.dsn());
    leaving.begin("COPY copy_fail FROM STDIN", Protocol::Simple);
    leaving.send(&[(b'd', &data)]);
    drop(leaving);
    for shard in &t.cluster.file.shards {
        // Waits for every session that has written to it.
        let mut wire = Wire::connect(&shard.dsn);
        assert_eq!(wire.query("BEGIN; LOCK TABLE copy_fail; COMMIT").tag(), "COMMIT");
    }
    assert_eq!(shard_counts(&t.cluster, "copy_fail"), ["0"; 4]);
}

#[test]
fn copy_takes_part_in_transactions_and_pipelines() {
    let t = Twins::new("copy_block", "k int PRIMARY KEY, n int");
    let (mut router, data) = (t.router, lines(0..100, "#\t#\n"));
    let copy = "COPY copy_block FROM STDIN";
    let count = |router: &mut Wire| {
        let sql = "COPY copy_block TO STDOUT";
        router.copy_out(sql, Protocol::Simple).data.len()
    };
    for protocol in [Protocol::Simple, Protocol::Extended] {
        router.query("BEGIN");
        let copied = router.copy_in(copy, &data, 50, protocol);
        assert_eq!((copied.tag(), copied.status), ("COPY 100", b'T'));
        assert_eq!(count(&mut router), 100);
        router.query("ROLLBACK");
        assert_eq!(count(&mut router), 0);
        router.query("BEGIN");
        router.query("SAVEPOINT s");
        let failed = router.copy_in(copy, b"1\t1\n2\tx\n", 50, protocol);
        assert_eq!((failed.sqlstate(), failed.status), ("22P02", b'E'));
        assert_eq!(router.query("SELECT 1").sqlstate(), "25P02");
        router.query("ROLLBACK TO s");
        router.copy_in(copy, &data, 50, protocol);
        assert_eq!(router.query("COMMIT").tag(), "COMMIT");
        assert_eq!(count(&mut router), 100);
        router.query("TRUNCATE copy_block");
    }
    // One string of statements is one transaction.
    let sql = format!("INSERT INTO copy_block VALUES (1000, 1); {copy}");
    assert_eq!(router.copy_in(&sql, b"1\t1\n2\tx\n", 50, Protocol::Simple).sqlstate(), "22P02");
    assert_eq!(count(&mut router), 0);
    // So is a pipeline: the COPY, without a wait for its response, and an INSERT that fails.
    let parse = |sql: &str| [&[0][..], &cstr(sql), &[0, 0]].concat();
    for (insert, left) in [("INSERT INTO copy_block VALUES (5, 1)", 0), ("SELECT 1", 100)] {
        router.send(&[
            (b'P', &parse(copy)),
            (b'B', &[0; 8]),
            (b'E', &[0; 5]),
            (b'd', &data),
            (b'c', b""),
            (b'P', &parse(insert)),
            (b'B', &[0; 8]),
            (b'E', &[0; 5]),
            (b'S', b""),
        ]);
        let outcome = router.reply();
        assert_eq!(outcome.tags[0], "COPY 100");
        assert_eq!(outcome.sqlstate(), if left == 0 { "23505" } else { "" });
        assert_eq!(count(&mut router), left);
    }
}

#[test]
fn a_constraint_that_is_checked_at_commit_undoes_the_copy() {
    let columns = "k int, n int, UNIQUE (k) DEFERRABLE INITIALLY DEFERRED";
    let mut t = Twins::new("copy_deferred", columns);
    let failed = t.compare("FROM STDIN", &[lines(0..50, "#\t#\n"), lines(7..8, "#\t#\n")].concat());
    assert_eq!(failed.sqlstate(), "23505");
}

#[test]
fn frozen_rows_need_a_table_that_the_transaction_has_emptied() {
    let mut t = Twins::new("copy_frozen", "k int PRIMARY KEY, n int");
    let data = lines(0..100, "#\t#\n");
    let sql = "COPY copy_frozen FROM STDIN (FREEZE)";
    let [wanted, found] =
        [&mut t.plain, &mut t.router].map(|wire| wire.copy_in(sql, &data, 99, Protocol::Simple));
    assert_eq!((wanted.sqlstate(), found), ("55000", wanted.clone()));
    t.router.query("BEGIN");
    t.router.query("TRUNCATE copy_frozen");
    assert_eq!(t.router.copy_in(sql, &data, 99, Protocol::Simple).tag(), "COPY 100");
    assert_eq!(t.router.query("COMMIT").tag(), "COMMIT");
    assert_eq!(t.rows()[1].len(), 100);
}

#[test]
fn a_shard_that_is_lost_undoes_the_copy_on_the_others() {
    let mut t = Twins::new("copy_lost", "k int PRIMARY KEY, n int");
    let data = lines(0..1000, "#\t#\n");
    let mut outcome = t.router.begin("COPY copy_lost FROM STDIN", Protocol::Simple);
    t.router.send(&[(b'd', &data)]);
    let mut shard = Wire::connect(&t.cluster.file.shards[2].dsn);
    let end = "COPY (SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE query = 'COPY copy_lost FROM STDIN') TO STDOUT";
    while shard.copy_out(end, Protocol::Simple).copied() != b"t\n" {
        // Its rows are on their way to the shard.
    }
    t.router.send(&[(b'd', b"5000\t1\n"), (b'c', b"")]);
    while t.router.take(&mut outcome) != b'Z' {}
    assert_eq!((outcome.sqlstate(), outcome.status), ("08006", b'I'));
    for shard in &t.cluster.file.shards {
        let mut wire = Wire::connect(&shard.dsn);
        assert_eq!(wire.query("BEGIN; LOCK TABLE copy_lost; COMMIT").tag(), "COMMIT");
    }
    assert_eq!(shard_counts(&t.cluster, "copy_lost"), ["0"; 4]);
    let copied = t.router.copy_in("COPY copy_lost FROM STDIN", &data, 99, Protocol::Simple);
    assert_eq!(copied.tag(), "COPY 1000");
}
