//! Random statements do the same on PostgreSQL and through the router: SELECTs (by themselves, in COPY
//! and through cursors, in both protocols), histories of writes and transactions, and pipelines of
//! messages, after each of which all tables are compared.
//!
//! Each statement comes from a seed; a failure prints the command that repeats it alone.
//! `PGHERD_RANDOM_SEED=7 PGHERD_RANDOM_COUNT=1` runs one, a large count runs for hours.

mod random {
    pub(crate) mod pipeline;
    pub(crate) mod query;
    mod shapes;
    pub(crate) mod write;
}

use std::net::SocketAddr;

use pgherd::dev::LocalCluster;
use pgherd_tests::wire::{Answer, Client};
use pgherd_tests::wire_scripts::{self, Pace, Script};
use pgherd_tests::{cluster, run};
use random::pipeline;
use random::query::{Query, SCHEMA, SHARDED, query};
use random::write;

/// Statements in every run of the tests.
const COUNT: u64 = 200;

/// Pipelines in every run.
const PIPELINES: u64 = 60;

/// So many are told at once.
const FAILURES: usize = 10;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What is compared: rows as a set unless the statement orders them, columns, tag, SQLSTATE.
fn shown(answer: &Answer, ordered: bool) -> Vec<String> {
    if let Some(code) = &answer.error {
        return vec![format!("error {code}")];
    }
    let mut rows = answer.rows.clone();
    if !ordered {
        rows.sort_unstable();
    }
    rows.extend(answer.lines.iter().cloned());
    rows
}

/// PostgreSQL, and the router.
fn sides(cluster: &LocalCluster) -> (Client, Client) {
    let home = &cluster.file.shards[0];
    run(&home.dsn, "CREATE DATABASE plain");
    let address = SocketAddr::from(([127, 0, 0, 1], home.port));
    let router = &cluster.file.routers[0];
    (
        Client::connect(address, "plain").expect("plain"),
        Client::connect(router.listen, &cluster.file.database).expect("the router lets us in"),
    )
}

#[test]
fn random_selects_read_the_same() {
    let cluster = cluster();
    let (mut plain, mut routed) = sides(&cluster);
    for sql in SCHEMA {
        for client in [&mut plain, &mut routed] {
            let answer = client.simple(sql, "").expect("an answer");
            assert_eq!(answer.error, None, "{sql}: {:?}", answer.lines);
        }
        if let Some(call) = SHARDED.iter().find(|(table, _)| sql.starts_with(table)) {
            let answer = routed.simple(call.1, "").expect("an answer");
            assert_eq!(answer.error, None, "{}: {:?}", call.1, answer.lines);
        }
    }
    let first = number("PGHERD_RANDOM_SEED", 1);
    let count = number("PGHERD_RANDOM_COUNT", COUNT);
    let (mut answered, mut refused, mut failures) = (0, Vec::new(), Vec::new());
    for seed in first..first + count {
        let Query { sql, ordered, parameters } = query(seed);
        let way = way(seed, &parameters);
        let want = ask(&mut plain, way, &sql, &parameters);
        let got = ask(&mut routed, way, &sql, &parameters);
        assert_eq!(got.status, 'I', "seed {seed}: {sql}");
        if got.error.as_deref() == Some("0A000") && want.error.is_none() {
            refused.push(format!("{sql}: {:?}", got.lines));
            continue;
        }
        answered += 1;
        let (got, want) = (shown(&got, ordered), shown(&want, ordered));
        if got != want {
            failures.push(format!(
                "{way:?}: {sql}\n{parameters:?}\nthe router: {got:#?}\nPostgreSQL: {want:#?}\n\
                 repeat: PGHERD_RANDOM_SEED={seed} PGHERD_RANDOM_COUNT=1 cargo test -p \
                 pgherd-tests --test random"
            ));
        }
        if failures.len() == FAILURES {
            break;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    println!("{answered} answered alike, {} refused", refused.len());
    for refusal in refused.iter().take(20) {
        println!("  {refusal}");
    }
    assert!(answered * 10 >= count * 9 || count < 20, "{} of {count} refused", refused.len());
}

/// How a query is run.
#[derive(Debug, Clone, Copy)]
enum Way {
    Simple,
    Extended { binary: bool },
    Copy,
    Cursor,
}

fn way(seed: u64, parameters: &[String]) -> Way {
    match seed % 8 {
        _ if !parameters.is_empty() => Way::Extended { binary: seed.is_multiple_of(2) },
        0 => Way::Extended { binary: false },
        1 => Way::Extended { binary: true },
        2 => Way::Copy,
        3 => Way::Cursor,
        _ => Way::Simple,
    }
}

fn ask(client: &mut Client, way: Way, sql: &str, parameters: &[String]) -> Answer {
    let mut simple = |sql: &str| client.simple(sql, "").expect("an answer");
    match way {
        Way::Simple => simple(sql),
        Way::Copy => simple(&format!("COPY ({sql}) TO STDOUT")),
        Way::Cursor => {
            simple("BEGIN");
            let mut answer = simple(&format!("DECLARE c CURSOR FOR {sql}"));
            for fetch in ["FETCH 2 FROM c", "FETCH ALL FROM c"] {
                if answer.error.is_none() {
                    let rows = simple(fetch);
                    answer.error = rows.error;
                    answer.rows.extend(rows.rows);
                    answer.lines.extend(rows.lines);
                }
            }
            answer.status = simple("ROLLBACK").status;
            answer
        }
        Way::Extended { binary } => {
            let values: Vec<Option<&str>> =
                parameters.iter().map(|value| Some(value.as_str())).collect();
            client.extended(sql, &values, binary).expect("an answer")
        }
    }
}

/// Histories in every run of the tests.
const HISTORIES: u64 = 40;

#[test]
fn random_writes_leave_the_same() {
    let cluster = cluster();
    let (mut plain, mut routed) = sides(&cluster);
    let sure = |client: &mut Client, sql: &str| {
        let answer = client.simple(sql, "").expect("an answer");
        assert_eq!(answer.error, None, "{sql}: {:?}", answer.lines);
    };
    for sql in write::SCHEMA {
        sure(&mut plain, sql);
        sure(&mut routed, sql);
    }
    write::SHARDED.iter().for_each(|sql| sure(&mut routed, sql));
    let first = number("PGHERD_RANDOM_SEED", 1);
    let count = number("PGHERD_RANDOM_COUNT", HISTORIES);
    let (mut statements, mut refused) = (0, 0);
    for seed in first..first + count {
        let repeat = format!(
            "repeat: PGHERD_RANDOM_SEED={seed} PGHERD_RANDOM_COUNT=1 cargo test -p pgherd-tests \
             --test random writes"
        );
        for sql in write::START {
            sure(&mut plain, sql);
            sure(&mut routed, sql);
        }
        for sql in write::history(seed) {
            let got = routed.simple(&sql, "").expect("the router answers");
            if got.error.as_deref() == Some("0A000") {
                // PostgreSQL goes on without it, too.
                refused += 1;
                println!("{sql}: {:?}", got.lines);
                if got.status == 'E' {
                    sure(&mut plain, "ROLLBACK");
                    sure(&mut routed, "ROLLBACK");
                    break;
                }
                continue;
            }
            statements += 1;
            let want = plain.simple(&sql, "").expect("PostgreSQL answers");
            assert_eq!(
                (got.status, shown(&got, false)),
                (want.status, shown(&want, false)),
                "left: the router, right: PostgreSQL\n{sql}\n{repeat}"
            );
        }
        for sql in write::CONTENTS {
            let got = routed.simple(sql, "").expect("the router answers");
            let want = plain.simple(sql, "").expect("PostgreSQL answers");
            assert_eq!(
                shown(&got, true),
                shown(&want, true),
                "left: the router, right: PostgreSQL\n{sql}\n{repeat}"
            );
        }
    }
    println!("{statements} did the same, {refused} were refused");
    assert!(refused * 20 <= statements, "{refused} of {statements} were refused");
}

#[test]
fn random_pipelines_are_answered_alike() {
    let cluster = cluster();
    let [plain, router] = wire_scripts::sides(&cluster);
    let first = number("PGHERD_RANDOM_SEED", 1);
    for seed in first..first + number("PGHERD_RANDOM_COUNT", PIPELINES) {
        let text = pipeline::case(seed);
        let script = Script::parse("random", &text).expect("a script");
        let case = &script.cases[0];
        let got = wire_scripts::run(&router, case, Pace::Whole, true).expect("the router answers");
        if got.iter().any(|lines| pipeline::refused(lines)) {
            continue;
        }
        let want = wire_scripts::run(&plain, case, Pace::Whole, false).expect("PostgreSQL answers");
        for (step, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(
                pipeline::compared(got),
                pipeline::compared(want),
                "left: the router, right: PostgreSQL; step {} of\n{text}\n\
                 PGHERD_RANDOM_SEED={seed} PGHERD_RANDOM_COUNT=1 cargo nextest run -p pgherd-tests \
                 --test random pipelines",
                step + 1
            );
        }
    }
}
