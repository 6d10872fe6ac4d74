//! COPY through the router is COPY of plain PostgreSQL: the same data goes to a distributed table
//! and to a plain one, and rows, counts and errors must be equal.

#[path = "copy/wire.rs"]
mod wire;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::{SinkExt, TryStreamExt};
use pgherd::dev::{DevOptions, LocalCluster};
use wire::{Outcome, Protocol, Wire, cstr};

/// One cluster for the tests that run at the same time; the last of them stops it.
fn cluster() -> Arc<LocalCluster> {
    static SHARED: Mutex<Weak<LocalCluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let cluster = LocalCluster::start(&DevOptions {
        listen: "127.0.0.1:0".parse().expect("an address"),
        http: "127.0.0.1:0".parse().expect("an address"),
        pg_conf: vec!["fsync=off".into(), "shared_buffers=32MB".into()],
        program: Some(PathBuf::from(env!("CARGO_BIN_EXE_pgherd-under-test"))),
        ..DevOptions::default()
    })
    .expect("a local cluster starts");
    let cluster = Arc::new(cluster);
    *shared = Arc::downgrade(&cluster);
    cluster
}

/// The same table twice: distributed, and plain in another database of the first server.
struct Twins {
    cluster: Arc<LocalCluster>,
    router: Wire,
    plain: Wire,
    table: &'static str,
}

impl Twins {
    fn new(table: &'static str, columns: &str) -> Self {
        let mut twins = Self::on_home_shard(table, columns);
        let distribute = format!("SELECT create_distributed_table('{table}', 'k')");
        assert_eq!(twins.router.query(&distribute).tag(), "SELECT 1");
        twins
    }

    /// The router's table is not distributed.
    fn on_home_shard(table: &'static str, columns: &str) -> Self {
        let cluster = cluster();
        let mut router = Wire::connect(cluster.dsn());
        let shard = &cluster.file.shards[0].dsn;
        let (server, _) = shard.rsplit_once('/').expect("a database");
        let mut plain = Wire::connect(&format!("{server}/postgres"));
        let create = format!("CREATE TABLE {table} ({columns})");
        assert_eq!(router.query(&create).tag(), "CREATE TABLE");
        assert_eq!(plain.query(&create).tag(), "CREATE TABLE");
        Self { cluster, router, plain, table }
    }

    fn rows(&mut self) -> [Vec<Vec<u8>>; 2] {
        let sql = format!("COPY {} TO STDOUT", self.table);
        [&mut self.plain, &mut self.router].map(|wire| {
            let outcome = wire.copy_out(&sql, Protocol::Simple);
            assert_eq!(outcome.tag(), format!("COPY {}", outcome.data.len()));
            let mut rows = outcome.data;
            rows.sort();
            rows
        })
    }

    /// Copies the data into both tables, in both protocols and cut in several ways.
    fn compare(&mut self, options: &str, data: &[u8]) -> Outcome {
        let sql = format!("COPY {} {options}", self.table);
        let truncate = format!("TRUNCATE {}", self.table);
        let mut wanted = Outcome::default();
        for (protocol, cut) in
            [(Protocol::Simple, 1), (Protocol::Extended, 7), (Protocol::Simple, 1 << 20)]
        {
            wanted = self.plain.copy_in(&sql, data, cut, protocol);
            let found = self.router.copy_in(&sql, data, cut, protocol);
            let shown = String::from_utf8_lossy(&data[..data.len().min(500)]);
            assert_eq!(found, wanted, "{sql} in pieces of {cut} of {shown:?}");
            let [plain, routed] = self.rows();
            assert_eq!(routed, plain, "{sql} in pieces of {cut} of {shown:?}");
            for wire in [&mut self.plain, &mut self.router] {
                assert_eq!(wire.query(&truncate).tag(), "TRUNCATE TABLE");
            }
        }
        wanted
    }
}

fn shard_counts(cluster: &LocalCluster, table: &str) -> Vec<String> {
    let count = format!("COPY (SELECT count(*) FROM {table}) TO STDOUT");
    let shards = cluster.file.shards.iter();
    shards
        .map(|shard| {
            let counted = Wire::connect(&shard.dsn).copy_out(&count, Protocol::Simple).copied();
            String::from_utf8_lossy(&counted).trim().to_owned()
        })
        .collect()
}

/// `pattern` for each number, with the number for every `#`.
fn lines(numbers: std::ops::Range<u32>, pattern: &str) -> Vec<u8> {
    numbers.map(|n| pattern.replace('#', &n.to_string())).collect::<String>().into_bytes()
}

#[test]
fn text_is_copied_as_plain_postgresql_does() {
    let mut t = Twins::new("copy_text", "k int PRIMARY KEY, v text, n int CHECK (n < 1000)");
    let copied = t.compare("FROM STDIN", &lines(0..200, "#\tvalue #\t#\n"));
    assert_eq!(copied.tag(), "COPY 200");
    for (options, data) in [
        ("FROM STDIN", &b""[..]),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t\\N"),
        ("FROM STDIN", b"1\ta\\tb\\nc\\\\\\x41\\101\\q\t1\r\n2\t\\N\t2\r\n"),
        ("FROM STDIN", b"1\ta\t1\r2\tb\\\rc\t2\r"),
        ("FROM STDIN", b"1\ta\\\nb\t1\n\\62\tx\t2\n\\x33\ty\t3\n 4 \tz\t4\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\n\\.\nnot read\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\\.\nnot read\n"),
        ("FROM STDIN DELIMITER '|' NULL 'nix'", b"1|nix|1\n2|a\\|b|nix\n"),
        ("(v, k) FROM STDIN WITH (DELIMITER ';')", b"a;1\nb;2\n"),
        ("FROM STDIN (HEADER)", b"what\never\n1\ta\t1\n2\tb\t2\n3\tb\t3\n"),
        ("FROM STDIN (HEADER MATCH)", b"k\tv\tn\n1\ta\t1\n2\tb\t2\n3\tb\t3\n"),
        ("FROM STDIN WHERE n > 100", &lines(0..200, "#\tx\t#\n")),
        // What PostgreSQL refuses.
        ("FROM STDIN (HEADER MATCH)", b"k\tw\tn\n1\ta\t1\n2\tb\t2\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\n\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\tmore\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\tno number\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\nno number\tb\t2\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\n99999999999\tb\t2\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\n\\N\tb\t2\n3\tc\t3\n"),
        ("FROM STDIN", b"1\ta\t1\r\n2\tb\t2\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\r\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\n\\.\r\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\t2\n\\.x\n"),
        ("FROM STDIN", b"1\ta\t1\n2\tb\xff\t2\n"),
        ("FROM STDIN", b"1\ta\t1\n2\t\\0\t2\n"),
        ("FROM STDIN", &[&lines(0..60, "#\tx\t#\n")[..], b"60\tx\t1000\n61\tx\t61\n"].concat()),
        ("FROM STDIN", &[&lines(0..60, "#\tx\t#\n")[..], b"17\tx\t17\n61\tx\t61\n"].concat()),
        ("FROM STDIN (DELIMITER 'ab')", b""),
        ("FROM STDIN (FORMAT xml)", b""),
        ("FROM STDIN (nothing 1)", b""),
        ("FROM STDIN (HEADER maybe)", b""),
        ("FROM STDIN (FORMAT csv, FORMAT text)", b""),
        ("(k, nothing) FROM STDIN", b""),
        ("(v, nothing) FROM STDIN", b""),
    ] {
        t.compare(options, data);
    }
}

#[test]
fn csv_is_copied_as_plain_postgresql_does() {
    let mut t = Twins::new("copy_csv", "k text, v text, n int");
    let copied = t.compare("FROM STDIN CSV HEADER", &lines(0..201, "key #,\"a \"\"#\"\"\nb\",#\n"));
    assert_eq!(copied.tag(), "COPY 200");
    for (options, data) in [
        ("FROM STDIN CSV", &b"a,b,1\n\"\",,\n\"x,y\",\"z\r\n\",2\n"[..]),
        ("FROM STDIN CSV", b"a,b,1\r\nb,\"c\r\nd\",2\r\n"),
        ("FROM STDIN CSV", b"a,b,1\rb,\"c\nd\",2\r"),
        ("FROM STDIN CSV", b"pre\"fix\"post,b,1\n\\.,b,2\n\\.\nnot read"),
        ("FROM STDIN CSV DELIMITER AS ';' QUOTE '''' ESCAPE '\\'", b"'a\\'b';c;1\n'\\\\';d;2\n"),
        ("FROM STDIN (FORMAT csv, NULL 'nix', FORCE_NOT_NULL (k))", b"nix,nix,1\n\"nix\",b,2\n"),
        ("FROM STDIN (FORMAT csv, HEADER match)", b"k,v,n\na,b,1\nb,c,2\n"),
        ("FROM STDIN (FORMAT csv, HEADER false)", b"k,v,1\na,b,2\n"),
        ("FROM STDIN (FORMAT csv, HEADER)", b"k,v,n"),
        ("FROM STDIN WITH CSV HEADER FORCE NOT NULL k", b"k,v,n\na,b,1\nb,c,2\n,c,2\n"),
        ("FROM STDIN (FORMAT csv, HEADER match)", b"k,w,n\na,b,1\n"),
        ("FROM STDIN CSV", b"a,b,1\nb,\"c,2\nd,e,3\n"),
        ("FROM STDIN CSV", b"a,b,1\nb,c,2\r\n"),
        ("FROM STDIN CSV", b"a,b,1\r\nb,c,2\n"),
        ("FROM STDIN CSV", b"a,b,1\nb\nc,d,3\n"),
        ("FROM STDIN CSV", b"a,b,1\nb,\"c\nd\",x\nc,d,3\n"),
        ("FROM STDIN CSV", &[&lines(0..50, "#,\"x\ny\",1\n")[..], b"x,\"\n\n\",z\n"].concat()),
        ("FROM STDIN CSV", b"a,b,1\nb,c,2\n\\.\r\n"),
    ] {
        t.compare(options, data);
    }
    // PostgreSQL would take a NULL where the column allows it; a distributed table does not.
    let data = b"a,b,1\n\"\",c,2\n";
    let sql = "COPY copy_csv FROM STDIN (FORMAT csv, FORCE_NULL (k))";
    let refused = t.router.copy_in(sql, data, 1, Protocol::Simple);
    assert_eq!(refused.sqlstate(), "23502");
    assert_eq!(refused.context(), "COPY copy_csv, line 2");
    assert_eq!(t.rows()[1].len(), 0);
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn data_that_is_mostly_wrong_is_read_as_plain_postgresql_reads_it() {
    let mut t = Twins::new("copy_noise", "v text, k text NOT NULL");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut messages = std::collections::BTreeSet::new();
    let pieces = [
        "a", "b\u{e9}", "\t", ",", "\n", "\n", "\r\n", "\r", "\"", "\"", "\\", "\\.", "\\N",
        "\\x41", "1",
    ];
    for options in [
        "FROM STDIN",
        "FROM STDIN CSV",
        "FROM STDIN CSV HEADER QUOTE '\"' ESCAPE '\\'",
        "FROM STDIN (HEADER, DELIMITER ',', NULL 'a')",
    ] {
        for _ in 0..40 {
            // Mostly one kind of line end, and rows that are whole more often than not.
            let line_end = ["\n", "\r\n", "\r"][dice.below(3)];
            let delimiter = if options == "FROM STDIN" { "\t" } else { "," };
            let mut data = String::new();
            for _ in 0..dice.below(6) {
                let field = pieces[dice.below(pieces.len())];
                let quoted = dice.below(2) == 0 && delimiter == ",";
                let field = if quoted { format!("\"{field}x\"") } else { field.to_owned() };
                data.push_str(&format!("v{delimiter}{field}{line_end}"));
            }
            for _ in 0..dice.below(3) {
                data.push_str(pieces[dice.below(pieces.len())]);
            }
            messages.insert(t.compare(options, data.as_bytes()).message().to_owned());
        }
    }
    // The data is wrong in many ways, and sometimes right.
    assert!(messages.contains("") && messages.len() > 6, "{messages:?}");
}

#[test]
fn binary_is_copied_as_plain_postgresql_does() {
    let mut t = Twins::new("copy_binary", "k bigint PRIMARY KEY, v text, n int");
    let source = "COPY (SELECT g - 100::bigint, nullif(g::text, '7'), g FROM generate_series(1, 300) g) \
                  TO STDOUT (FORMAT binary)";
    let data = t.plain.copy_out(source, Protocol::Simple).copied();
    let copied = t.compare("FROM STDIN (FORMAT binary)", &data);
    assert_eq!(copied.tag(), "COPY 300");
    assert_eq!(copied.response.as_deref().map(|response| response[0]), Some(1));
    let mut wrong = data.clone();
    wrong[3] = b'x';
    let mut flagged = data.clone();
    flagged[12] = 1;
    let mut extended = data.clone();
    extended[18] = 5;
    extended.splice(19..19, *b"hello");
    let head = &data[..19];
    let row = |fields: &[&[u8]]| {
        let mut row = (fields.len() as u16).to_be_bytes().to_vec();
        for field in fields {
            row.extend_from_slice(&(field.len() as i32).to_be_bytes());
            row.extend_from_slice(field);
        }
        row
    };
    let (key, four) = (&[0, 0, 0, 0, 0, 0, 0, 5][..], &[0, 0, 0, 5][..]);
    for data in [
        extended,
        data[..data.len() - 2].to_vec(),
        data[..data.len() - 20].to_vec(),
        [&data[..], b"more"].concat(),
        wrong,
        flagged,
        Vec::new(),
        data[..10].to_vec(),
        [head, &row(&[key, b"v", four]), &row(&[key, b"v"])].concat(),
        [head, &row(&[key, b"v", four]), &row(&[four, b"v", four])].concat(),
        [head, &row(&[key, b"v", four]), &row(&[key, b"v", key])].concat(),
        [head, &row(&[key, b"v", four]), &[0, 3, 0xff, 0xff, 0xff, 0xff], &[0; 8]].concat(),
        [head, &row(&[key, b"v", four]), &[0, 3, 0xff, 0xff, 0xff, 0xfe]].concat(),
    ] {
        t.compare("FROM STDIN BINARY", &data);
    }
}

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
    for sql in [
        "COPY (SELECT v FROM copy_out ORDER BY v) TO STDOUT",
        "COPY (SELECT sum(k) FROM copy_out) TO STDOUT",
    ] {
        assert_eq!(t.router.copy_out(sql, Protocol::Simple).sqlstate(), "0A000", "{sql}");
    }
    assert_eq!(t.rows()[1].len(), 1000);
}

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
    router.query("CREATE TABLE copy_ref (id int PRIMARY KEY, name text)");
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

#[test]
fn more_is_copied_than_any_buffer_holds() {
    let mut t = Twins::new("copy_much", "k int, v text");
    let data = lines(0..60_000, &format!("#\t{}\n", "x".repeat(300)));
    let copied = t.router.copy_in("COPY copy_much FROM STDIN", &data, 1 << 20, Protocol::Simple);
    assert_eq!(copied.tag(), "COPY 60000");
    let mut rows = t.router.copy_out("COPY copy_much TO STDOUT", Protocol::Simple).data;
    let mut wanted: Vec<_> = data.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    rows.sort();
    wanted.sort();
    assert!(rows == wanted);
}

#[test]
fn a_driver_copies_by_the_extended_protocol() {
    let cluster = cluster();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (mut client, connection) =
            tokio_postgres::connect(cluster.dsn(), tokio_postgres::NoTls).await.expect("a router");
        tokio::spawn(connection);
        client.batch_execute("CREATE TABLE copy_drv (k int, v text)").await.expect("created");
        client
            .query("SELECT create_distributed_table('copy_drv', 'k')", &[])
            .await
            .expect("distributed");
        let mut data = Vec::new();
        for format in ["text", "binary"] {
            let transaction = client.transaction().await.expect("begun");
            if format == "text" {
                data = lines(0..500, "#\tv#\n");
            }
            let sql = format!("COPY copy_drv FROM STDIN (FORMAT {format})");
            let sink = transaction.copy_in(&*sql).await.expect("a COPY");
            futures_util::pin_mut!(sink);
            for piece in data.chunks(37) {
                sink.send(bytes::Bytes::copy_from_slice(piece)).await.expect("sent");
            }
            assert_eq!(sink.finish().await.expect("copied"), 500);
            transaction.commit().await.expect("committed");
            let rows = client.query("SELECT k FROM copy_drv", &[]).await.expect("rows");
            assert_eq!(rows.len(), 500, "{format}");
            let out = client.copy_out("COPY copy_drv TO STDOUT BINARY").await.expect("a COPY");
            let pieces: Vec<bytes::Bytes> = out.try_collect().await.expect("copied");
            data = pieces.concat();
            client.batch_execute("TRUNCATE copy_drv").await.expect("emptied");
        }
        let sink = client.copy_in("COPY copy_drv FROM STDIN").await.expect("a COPY");
        futures_util::pin_mut!(sink);
        sink.send(bytes::Bytes::from_static(b"1\tx\nbad\ty\n")).await.expect("sent");
        let error = sink.finish().await.expect_err("a bad key");
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("22P02"));
        let row = client.query_one("SELECT count(*) FROM copy_drv", &[]).await.expect("a row");
        assert_eq!(row.get::<_, i64>(0), 0);
    });
}

#[test]
fn psql_copies_from_and_to_files() {
    let mut t = Twins::new("copy_psql", "k int PRIMARY KEY, v text");
    let directory = &t.cluster.file.data_dir;
    let file = directory.join("in.csv");
    std::fs::write(&file, lines(0..101, "#;\"line\n#\"\n")).expect("written");
    let psql = |command: &str| {
        let output = Command::new("psql")
            .args(["-XAt", t.cluster.dsn(), "-c", command])
            .output()
            .expect("psql runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let from = format!("\\copy copy_psql from '{}' with csv header delimiter ';'", file.display());
    assert_eq!(psql(&from), "COPY 100\n");
    assert!(psql(&from).starts_with("ERROR:  duplicate key value violates"));
    let out = directory.join("out.bin");
    assert_eq!(psql(&format!("\\copy copy_psql to '{}' binary", out.display())), "COPY 100\n");
    let data = std::fs::read(&out).expect("written");
    let copied =
        t.plain.copy_in("COPY copy_psql FROM STDIN BINARY", &data, 1 << 20, Protocol::Simple);
    assert_eq!(copied.tag(), "COPY 100");
    let [plain, routed] = t.rows();
    assert_eq!(routed, plain);
}
