//! COPY through the router is COPY of plain PostgreSQL: the same data goes to a distributed table
//! and to a plain one, and rows, counts and errors must be equal.

#[path = "copy/clients.rs"]
mod clients;
#[path = "copy/encodings.rs"]
mod encodings;
#[path = "copy/formats.rs"]
mod formats;
#[path = "copy/transactions.rs"]
mod transactions;
#[path = "copy/twins.rs"]
mod twins;
#[path = "copy/wire.rs"]
mod wire;

use twins::{Twins, cluster, lines, shard_counts};
use wire::{Protocol, Wire};

#[test]
fn copy_to_stdout_is_one_stream_of_all_shards_rows() {
    let mut t = Twins::new("copy_out", "k int PRIMARY KEY, v text");
    let data = lines(0..1000, "#\tvalue, \"#\"\n");
    t.router.copy_in("COPY copy_out FROM STDIN", &data, 9999, Protocol::Simple);
    t.plain.copy_in("COPY copy_out FROM STDIN", &data, 9999, Protocol::Simple);
    for source in ["copy_out", "copy_out (v)", "(SELECT v, k + 1 FROM copy_out WHERE k > 500)"] {
        for options in ["", "CSV", "CSV HEADER", "(FORMAT csv, FORCE_QUOTE *)", "(HEADER)"] {
            let sql = format!("COPY {source} TO STDOUT {options}");
            for protocol in [Protocol::Simple, Protocol::Extended] {
                let mut wanted = t.plain.copy_out(&sql, protocol);
                let mut found = t.router.copy_out(&sql, protocol);
                if options.contains("HEADER") {
                    assert_eq!(found.data[0], wanted.data[0], "{sql}");
                }
                wanted.data.sort();
                found.data.sort();
                assert_eq!(found, wanted, "{sql}");
            }
        }
        let sql = format!("COPY {source} TO STDOUT (FORMAT binary)");
        for protocol in [Protocol::Simple, Protocol::Extended] {
            let [mut wanted, mut found] =
                [&mut t.plain, &mut t.router].map(|wire| wire.copy_out(&sql, protocol));
            for outcome in [&mut wanted, &mut found] {
                assert!(outcome.data[0].starts_with(b"PGCOPY\n\xff\r\n\0"), "{sql}");
                outcome.data[0].drain(..19);
                assert_eq!(outcome.data.pop(), Some(vec![0xff, 0xff]), "{sql}");
                outcome.data.sort();
            }
            assert_eq!(found, wanted, "{sql}");
        }
    }
    let empty = "COPY (SELECT * FROM copy_out WHERE k < 0) TO STDOUT (FORMAT binary)";
    let [wanted, found] =
        [&mut t.plain, &mut t.router].map(|wire| wire.copy_out(empty, Protocol::Simple));
    assert_eq!(found.copied(), wanted.copied());
    assert_eq!(found.tag(), "COPY 0");
    let pinned = "COPY (SELECT v FROM copy_out WHERE k = 7) TO STDOUT";
    assert_eq!(t.router.copy_out(pinned, Protocol::Extended).copied(), b"value, \"7\"\n");
    let failing = "COPY (SELECT 1 / (k - 777) FROM copy_out) TO STDOUT";
    for protocol in [Protocol::Simple, Protocol::Extended] {
        let failed = t.router.copy_out(failing, protocol);
        assert_eq!((failed.sqlstate(), failed.status), ("22012", b'I'));
    }
    // Made of several shards' rows together: the router writes them.
    for query in [
        "SELECT v FROM copy_out ORDER BY v",
        "SELECT k, v FROM copy_out ORDER BY k DESC LIMIT 3 OFFSET 2",
        "SELECT sum(k), avg(k) FROM copy_out",
        "SELECT a.k, b.v, NULL, '', 'x|y', E'a\\b\t' FROM copy_out a JOIN copy_out b \
         ON b.k = a.k + 1 ORDER BY a.k",
        "SELECT rank() OVER (ORDER BY k), k AS \"a\"\"b\" FROM copy_out WHERE k < 5 ORDER BY k",
        "SELECT k, v FROM copy_out WHERE k IN (7, 8, 9) ORDER BY k",
        "SELECT '\\.' FROM copy_out ORDER BY k LIMIT 2",
        "SELECT k FROM copy_out WHERE k < 0 ORDER BY k",
    ] {
        for options in [
            "",
            "(DELIMITER '|', NULL 'x')",
            "(FORMAT csv, HEADER)",
            "WITH CSV HEADER DELIMITER '|' QUOTE '\"' FORCE QUOTE *",
            "(FORMAT csv, QUOTE '''', ESCAPE '\\', NULL '')",
            "(FORMAT text, HEADER)",
            "(FORMAT binary)",
        ] {
            let sql = format!("COPY ({query}) TO STDOUT {options}");
            for protocol in [Protocol::Simple, Protocol::Extended] {
                let [wanted, found] =
                    [&mut t.plain, &mut t.router].map(|wire| wire.copy_out(&sql, protocol));
                assert_eq!(found.copied(), wanted.copied(), "{sql}");
                assert_eq!((found.tag(), found.status), (wanted.tag(), wanted.status), "{sql}");
            }
        }
    }
    for wrong in [
        "COPY (SELECT v FROM copy_out ORDER BY v) TO STDOUT (FORMAT csv, FORCE_QUOTE (nothing))",
        "COPY (SELECT v FROM copy_out ORDER BY v) TO STDOUT (FORMAT csv, DELIMITER '\"')",
        "COPY (SELECT nothing FROM copy_out ORDER BY v) TO STDOUT",
        "COPY (SELECT sum(1 / (k - 777)) FROM copy_out) TO STDOUT",
    ] {
        let [wanted, found] =
            [&mut t.plain, &mut t.router].map(|wire| wire.copy_out(wrong, Protocol::Simple));
        assert_eq!((found.sqlstate(), found.status), (wanted.sqlstate(), b'I'), "{wrong}");
    }
    assert_eq!(t.rows()[1].len(), 1000);
}

#[test]
fn a_table_of_the_home_shard_is_copied_as_plain_postgresql_does() {
    let mut t = Twins::on_home_shard("copy_home", "k int PRIMARY KEY, v text");
    for (options, data) in [
        ("FROM STDIN", &lines(0..300, "#\tv #\n")[..]),
        ("FROM STDIN CSV HEADER", b"k,v\n1,\"a\nb\"\n"),
        ("FROM STDIN", b"1\ta\n1\tb\n2\tc\n"),
        ("FROM STDIN BINARY", b"no signature at all"),
    ] {
        t.compare(options, data);
    }
}

#[test]
fn a_reference_table_gets_every_row_on_every_shard() {
    let cluster = cluster();
    let mut router = Wire::connect(cluster.dsn());
    router.query(
        "CREATE TABLE copy_ref \
         (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, name text)",
    );
    router.query("SELECT create_reference_table('copy_ref')");
    let copied = router.copy_in(
        "COPY copy_ref FROM STDIN CSV HEADER",
        &lines(0..51, "#,name #\n"),
        3,
        Protocol::Extended,
    );
    assert_eq!(copied.tag(), "COPY 50");
    assert_eq!(shard_counts(&cluster, "copy_ref"), ["50"; 4]);
    let failed = router.copy_in("COPY copy_ref FROM STDIN", b"100\ta\n7\tb\n", 3, Protocol::Simple);
    assert_eq!(failed.sqlstate(), "23505");
    assert_eq!(failed.context(), "COPY copy_ref, line 2");
    assert_eq!(shard_counts(&cluster, "copy_ref"), ["50"; 4]);
    assert_eq!(router.copy_out("COPY copy_ref TO STDOUT", Protocol::Simple).tag(), "COPY 50");
}

#[test]
fn a_row_without_a_clear_shard_is_refused_before_any_data() {
    let cluster = cluster();
    let mut router = Wire::connect(cluster.dsn());
    router.query("CREATE TABLE copy_gen (g int GENERATED ALWAYS AS (n * 2) STORED, k int, n int)");
    router.query("SELECT create_distributed_table('copy_gen', 'k')");
    let refused = router.copy_in("COPY copy_gen FROM STDIN", b"1\t1\n", 9, Protocol::Simple);
    assert_eq!(refused.sqlstate(), "0A000");
    let without = router.copy_in("COPY copy_gen (n) FROM STDIN", b"1\n", 9, Protocol::Extended);
    assert_eq!(without.sqlstate(), "23502");
    let named = router.copy_in(
        "COPY public.copy_gen (n, k) FROM stdin",
        &lines(0..90, "#\t#\n"),
        99,
        Protocol::Extended,
    );
    assert_eq!(named.tag(), "COPY 90");
    assert_eq!(named.status, b'I');
}
