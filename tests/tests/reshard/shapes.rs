//! Tables of every form that can move, and those that cannot.

use pgherd::dev::LocalCluster;
use pgherd_tests::{cluster_with, run};

use super::command::{assert_clean, reshard, try_reshard};

fn two_shards() -> LocalCluster {
    cluster_with(|options| {
        options.shards = 2;
        options.pg_conf.push("max_worker_processes=16".into());
    })
}

/// Name, its columns, its distribution column, how row `g` is made, and one more change of rows.
const TABLES: [(&str, &str, &str, &str, &str); 7] = [
    (
        "partitioned",
        "(k int, at date, v text, PRIMARY KEY (k, at)) PARTITION BY RANGE (at)",
        "k",
        "g, date '2026-01-01' + g % 60, 'value ' || g",
        "UPDATE partitioned SET v = v || '!', at = at + 30 WHERE at < '2026-01-10'",
    ),
    (
        "large",
        "(k bigint PRIMARY KEY, body text)",
        "k",
        "g, repeat(md5(g::text), 4000)",
        "UPDATE large SET body = body || 'more' WHERE k % 3 = 0",
    ),
    (
        "made",
        "(k uuid PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)",
        "k",
        "md5(g::text)::uuid, g",
        "UPDATE made SET n = n + 1",
    ),
    (
        "numbered",
        "(k text, id bigint GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (k, id))",
        "k",
        "'key ' || g",
        "DELETE FROM numbered WHERE k LIKE '%7'",
    ),
    (
        "bare",
        "(k numeric NOT NULL, note text)",
        "k",
        "g / 10.0, CASE WHEN g % 5 > 0 THEN 'note ' || g END",
        "UPDATE bare SET note = 'changed' WHERE note IS NULL",
    ),
    (
        "odd names",
        "(\"the key\" timestamptz PRIMARY KEY, \"a \"\"quoted\"\" one\" jsonb)",
        "the key",
        "timestamptz '2026-01-01 00:00+00' + g * interval '1 hour', jsonb_build_object('g', g)",
        "UPDATE \"odd names\" SET \"a \"\"quoted\"\" one\" = '[1, 2.50, \"ä\"]'",
    ),
    (
        "empty",
        "(k date PRIMARY KEY)",
        "k",
        "date '2026-01-01' + g WHERE false",
        "DELETE FROM empty",
    ),
];

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// All rows of a table, summed up so that their order and place do not matter.
fn sum(cluster: &LocalCluster, table: &str) -> String {
    let sql = format!("SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {table} t");
    let parts: Vec<(i64, i128)> = cluster
        .file
        .shards
        .iter()
        .map(|shard| {
            let row = run(&shard.dsn, &sql);
            let (count, sum) = row.split_once('|').expect("two columns");
            (count.parse().expect("a count"), sum.parse().unwrap_or_default())
        })
        .collect();
    let all = parts.iter().fold((0, 0), |all, part| (all.0 + part.0, all.1 + part.1));
    format!("{} rows, {}", all.0, all.1)
}

#[test]
fn rows_of_every_form_move_there_and_back_as_they_are() {
    let cluster = two_shards();
    let dsn = cluster.dsn();
    for (name, columns, key, row, _) in TABLES {
        let table = quoted(name);
        run(dsn, &format!("CREATE TABLE {table} {columns}"));
        if name == "partitioned" {
            for (part, from, to) in
                [("one", "2026-01-01", "2026-02-01"), ("two", "2026-02-01", "2026-05-01")]
            {
                let of = "PARTITION OF partitioned FOR VALUES FROM";
                run(dsn, &format!("CREATE TABLE part_{part} {of} ('{from}') TO ('{to}')"));
            }
        }
        run(dsn, &format!("SELECT create_distributed_table('{table}', '\"{key}\"')"));
        let into = if name == "numbered" { "(k)" } else { "" };
        let into = if name == "made" { "(k, n)" } else { into };
        run(
            dsn,
            &format!("INSERT INTO {table} {into} SELECT {row} FROM generate_series(1, 200) g")
                .replace(
                    " WHERE false FROM generate_series(1, 200) g",
                    " FROM generate_series(1, 0) g",
                ),
        );
    }
    let sums = || TABLES.map(|(name, ..)| sum(&cluster, &quoted(name)));
    for back in [false, true] {
        let ends = if back { ["1", "0"] } else { ["0", "1"] };
        reshard(&cluster, &["start", "--drain", ends[0], "--to", ends[1]]);
        // They are followed, too.
        for (.., change) in TABLES.iter().filter(|_| !back) {
            run(dsn, change);
        }
        reshard(&cluster, &["cutover", "--max-pause", "5s"]);
        for (name, ..) in TABLES.iter().filter(|(name, ..)| *name != "empty") {
            let count = format!("SELECT count(*) > 0 FROM {}", quoted(name));
            assert_eq!(run(dsn, &count), "t", "{name}");
        }
        let before: Vec<String> = TABLES
            .iter()
            .map(|(name, ..)| {
                let rows = format!(
                    "SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {} t",
                    quoted(name)
                );
                run(&cluster.file.shards[usize::from(!back)].dsn, &rows)
            })
            .collect();
        reshard(&cluster, &["finish"]);
        let after = sums();
        for (at, (name, ..)) in TABLES.iter().enumerate() {
            let (count, sum) = before[at].split_once('|').expect("two columns");
            let sum = if sum.is_empty() { "0" } else { sum };
            assert_eq!(after[at], format!("{count} rows, {sum}"), "{name}, back: {back}");
        }
        let left = &cluster.file.shards[usize::from(back)].dsn;
        for (name, ..) in TABLES {
            let count = format!("SELECT count(*) FROM {}", quoted(name));
            assert_eq!(run(left, &count), "0", "{name}");
        }
    }
    assert_clean(&cluster);
}

#[test]
fn tables_that_cannot_move_are_named_before_anything_is_begun() {
    let cluster = two_shards();
    let dsn = cluster.dsn();
    run(dsn, "CREATE TYPE mood AS ENUM ('good', 'bad')");
    run(dsn, "CREATE TABLE moods (k mood PRIMARY KEY)");
    run(dsn, "CREATE TABLE fast (k int PRIMARY KEY)");
    run(dsn, "SELECT create_distributed_table('moods', 'k')");
    run(dsn, "SELECT create_distributed_table('fast', 'k')");
    let failed = |args: &[&str]| {
        let output = try_reshard(&cluster, args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let drain = ["start", "--drain", "0"];
    let error = failed(&drain);
    assert!(error.contains("public.moods is distributed by an enum"), "{error}");
    run(dsn, "SELECT undistribute_table('moods')");
    for shard in &cluster.file.shards {
        run(&shard.dsn, "ALTER TABLE fast SET UNLOGGED");
    }
    let error = failed(&drain);
    assert!(error.contains("public.fast is unlogged"), "{error}");
    for shard in &cluster.file.shards {
        run(&shard.dsn, "ALTER TABLE fast SET LOGGED");
    }
    run(dsn, "CREATE TABLE listed (k int PRIMARY KEY)");
    run(dsn, "SELECT create_distributed_table('listed', 'k', distribution => 'list')");
    let planned = try_reshard(&cluster, &["plan", "--drain", "0"]);
    let said = String::from_utf8_lossy(&planned.stderr).into_owned();
    assert!(said.contains("distributed by list, and stay"), "{said}");
    let runs = "SELECT count(*) FROM pgherd.reshard_list";
    assert_eq!(run(&cluster.file.catalog.dsn, runs), "0");
}
