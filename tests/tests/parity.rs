//! Every script in `data/parity` reads the same on PostgreSQL and through the router, in the
//! simple and the extended protocol. `PGHERD_PARITY=joins.sql:42` runs one file up to one line.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use pgherd::dev::LocalCluster;
use pgherd_tests::parity::{self, Contents, Expected, Script, Side, Sides, Unit};
use pgherd_tests::router::RouterProcess;
use pgherd_tests::wire::{Client, Mode};
use pgherd_tests::{cluster, run};

/// After so many statements that change rows, at least, all tables are compared.
const CHANGES: u32 = 300;

/// And all tables hold the same after each statement that changes rows.
#[test]
fn scripts_read_the_same_in_the_simple_protocol() {
    check(Mode::Simple, "shard");
}

#[test]
fn scripts_read_the_same_in_the_extended_protocol() {
    check(Mode::Text, "shard");
}

#[test]
fn scripts_read_the_same_with_binary_results() {
    check(Mode::Binary, "shard");
}

#[test]
fn scripts_read_the_same_where_reads_are_atomic() {
    check(Mode::Simple, "atomic");
}

#[test]
fn scripts_read_the_same_where_transactions_are_snapshots() {
    check(Mode::Text, "snapshot");
}

/// `level` is the database's own `pgherd.read_consistency`.
fn check(mode: Mode, level: &str) {
    let filter = std::env::var("PGHERD_PARITY").unwrap_or_default();
    let (file, line) = match filter.split_once(':') {
        Some((file, line)) => (file, Some(line.parse().expect("file:line"))),
        None => (filter.as_str(), None),
    };
    let scripts: Vec<Script> =
        scripts().into_iter().filter(|script| script.name.contains(file)).collect();
    assert!(!scripts.is_empty(), "no script is named {file}");
    let cluster = cluster();
    let mut sides = sides(&cluster);
    // Tables so small would always go to the shards, and never all rows to the home shard.
    let copies_home = (mode == Mode::Binary).then(|| {
        RouterProcess::start(
            &cluster,
            "copies",
            "[query]\nbroadcast_max = \"0B\"\n[auth]\nmethod = \"trust\"\n",
        )
    });
    if let Some(router) = &copies_home {
        sides.router.address = router.listen.parse().expect("an address");
    }
    for shard in &cluster.file.shards {
        let database = &cluster.file.database;
        run(
            &shard.dsn,
            &format!("ALTER DATABASE {database} SET pgherd.read_consistency = {level}"),
        );
    }
    assert_eq!(run(cluster.dsn(), "SHOW pgherd.read_consistency"), level);
    let mut differences = Vec::new();
    let compares = mode == Mode::Simple && level == "shard";
    let mut contents = compares.then(|| Contents::open(&sides).expect("both sides let us in"));
    let mut refusals = BTreeSet::new();
    for script in &scripts {
        reset(&sides);
        let outcome = parity::run(&sides, script, mode, line, contents.as_mut());
        differences.extend(outcome.differences);
        refusals.extend(outcome.refusals);
    }
    if let Some(contents) = contents {
        println!("all tables were compared after {} changes", contents.compared);
        assert!(contents.compared >= CHANGES || !filter.is_empty(), "{}", contents.compared);
    }
    let count = differences.len();
    assert!(count == 0, "{}\n\n{count} differences", differences.join("\n\n"));
    if mode == Mode::Simple && level == "shard" && filter.is_empty() {
        check_refusals(&refusals);
    }
}

/// The list in `docs/sql-support.md` is what the scripts have met; `PGHERD_ACCEPT=1` rewrites it.
fn check_refusals(refusals: &BTreeSet<(String, String)>) {
    const BEGIN: &str = "<!-- what the parity scripts meet: PGHERD_ACCEPT=1 rewrites it -->\n";
    const END: &str = "<!-- end of the list -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sql-support.md");
    let docs = std::fs::read_to_string(&path).expect("the document is there");
    let (before, rest) = docs.split_once(BEGIN).expect("the list begins");
    let (listed, after) = rest.split_once(END).expect("the list ends");
    let lines = refusals.iter().map(|(code, message)| format!("- `{code}` {message}\n"));
    let wanted: String = lines.collect();
    if std::env::var_os("PGHERD_ACCEPT").is_some() {
        let text = format!("{before}{BEGIN}{wanted}{END}{after}");
        std::fs::write(&path, text).expect("the document can be written");
        return;
    }
    assert_eq!(listed, wanted, "docs/sql-support.md: PGHERD_ACCEPT=1 rewrites the list");
}

/// Queries over the two schemas, a tenants' one and TPC-H, that must read the same in the simple and
/// in the extended protocol, each text counted once; and all of TPC-H's own.
#[test]
fn hundreds_of_queries_are_compared() {
    let is_query = |sql: &str| {
        let sql = sql.trim_start_matches(|c: char| c == '(' || c.is_whitespace());
        let word = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        ["select", "with", "values", "table"].contains(&word.to_ascii_lowercase().as_str())
    };
    let both = [Mode::Simple, Mode::Text];
    let compared = |unit: &&Unit| {
        let runs = |mode| unit.modes.as_ref().is_none_or(|modes| modes.contains(&mode));
        let same = |mode| matches!(unit.expected_in(mode), Expected::Same);
        is_query(&unit.sql) && both.iter().all(|mode| runs(*mode) && same(*mode))
    };
    let mut queries = BTreeSet::new();
    for script in &scripts() {
        if script.name == "tpch.sql" {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/tpch.sql");
            let text = std::fs::read_to_string(path).expect("a text");
            let own = (1..=22).filter(|n| text.contains(&format!("\n-- Q{n}\n")));
            assert_eq!(own.count(), 22, "TPC-H's own queries");
        } else if script.name != "tenants.sql" {
            continue;
        }
        queries.extend(script.units.iter().filter(compared).map(|unit| unit.sql.clone()));
    }
    println!("{} queries over the two schemas are compared", queries.len());
    assert!(queries.len() >= 600, "{} are not enough", queries.len());
}

/// In the order of their names.
fn scripts() -> Vec<Script> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("the scripts are there")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    let parse = |path: &std::path::PathBuf| {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let mut text = std::fs::read_to_string(path).expect("a text");
        // Other versions are brought without ICU (`tests/on-postgres`).
        if std::env::var_os("PG_BIN").is_some() {
            text = text.replace("\"und-x-icu\"", "\"C\"");
        }
        Script::parse(&name, &text).expect("a script")
    };
    files.iter().map(parse).collect()
}

/// PostgreSQL's side is another database of the home shard's server.
fn sides(cluster: &LocalCluster) -> Sides {
    let home = &cluster.file.shards[0];
    run(&home.dsn, "CREATE DATABASE plain");
    let plain = Side {
        address: SocketAddr::from(([127, 0, 0, 1], home.port)),
        database: "plain".to_owned(),
    };
    let router =
        Side { address: cluster.file.routers[0].listen, database: cluster.file.database.clone() };
    Sides { plain, router }
}

/// Drops what the last script made, through the front door on both sides.
fn reset(sides: &Sides) {
    let fresh = "SET client_min_messages = error; DROP SCHEMA public CASCADE; CREATE SCHEMA public; \
                 GRANT USAGE ON SCHEMA public TO PUBLIC";
    for side in [&sides.plain, &sides.router] {
        let mut client = Client::connect(side.address, &side.database).expect("a connection");
        let answer = client.simple(fresh, "").expect("an answer");
        assert_eq!(answer.error, None, "{}: {:?}", side.database, answer.lines);
    }
}
