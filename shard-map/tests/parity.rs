//! The hash of every key type, computed here, against the same value's hash on a real server.
//!
//! Values are made at random in the spellings that PostgreSQL accepts, and damaged at random. For
//! each text the server is the oracle, under several settings: a hash must be the server's, what
//! is called invalid the server must refuse, and what is unsupported makes no claim. The binary
//! forms come from the server's own send functions.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/server.rs"]
mod server;

#[path = "support/spellings.rs"]
mod spellings;

use pgherd_shard_map::{
    ColocationGroup, GroupId, KeyError, KeyInput, KeyType, Placement, RangeMap, ShardId, ValueList,
    ValueRange, ValueRanges,
};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use server::Server;
use spellings::{Case, cases};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

/// No two agree on what `01-02-03` or a timestamp without a zone is.
const SETTINGS: [&str; 3] = [
    "SET DateStyle = 'ISO, MDY'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'",
    "SET DateStyle = 'German, DMY'; SET TimeZone = 'Asia/Kolkata'",
    "SET DateStyle = 'SQL, YMD'; SET TimeZone = 'America/St_Johns'; SET bytea_output = 'escape'",
];

struct Oracle {
    runtime: Runtime,
    client: Client,
    _server: Server,
}

impl Oracle {
    /// A server with two functions for each type: the hash and the binary form of a text, NULL
    /// where it is no value of the type.
    fn start() -> Self {
        let server = Server::start();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&server.dsn("postgres"), NoTls).await.unwrap();
            tokio::spawn(connection);
            let mut setup =
                "CREATE TYPE mood AS ENUM ('sad', 'OK', 'très bien', 'a ''b'' \\c', ' ');"
                    .to_owned();
            for case in cases() {
                let (name, sql_type, send) = (case.name, case.sql_type, case.send);
                let hash = case.key_type.hash_expression("k").unwrap();
                for (function, result, value) in
                    [("hash", "bigint", hash), ("send", "bytea", format!("{send}(k)"))]
                {
                    setup += &format!(
                        "CREATE FUNCTION {function}_{name}(v text) RETURNS {result} \
                         LANGUAGE plpgsql AS $$ DECLARE k {sql_type}; BEGIN \
                         k := v::{sql_type}; RETURN {value}; \
                         EXCEPTION WHEN data_exception OR feature_not_supported THEN \
                         RETURN NULL; END $$;"
                    );
                }
            }
            client.batch_execute(&setup).await.unwrap();
            client
        });
        Self { runtime, client, _server: server }
    }

    /// The hash and the binary form of each text.
    fn ask(&self, case: &Case, texts: &[String]) -> Vec<(Option<i64>, Option<Vec<u8>>)> {
        let sql = format!(
            "SELECT hash_{0}(v), send_{0}(v) FROM unnest($1::text[]) WITH ORDINALITY u(v, at) \
             ORDER BY at",
            case.name
        );
        let rows = self.runtime.block_on(self.client.query(&sql, &[&texts])).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    fn set(&self, settings: &str) {
        self.runtime.block_on(self.client.batch_execute(settings)).unwrap();
    }

    fn check(&self, case: &Case, texts: &[String]) -> Result<(), TestCaseError> {
        for (text, (hash, binary)) in texts.iter().zip(self.ask(case, texts)) {
            let key_type = case.key_type;
            let fail =
                |what: String| Err(TestCaseError::fail(format!("{key_type:?} {text:?}: {what}")));
            match key_type.hash(KeyInput::Text(text.as_bytes())) {
                // Labels are not known here; the server refuses others on any shard.
                Ok(_) if key_type == KeyType::Enum && hash.is_none() => {}
                Ok(ours) if Some(ours.0) != hash => {
                    return fail(format!("{ours}, server {hash:?}"));
                }
                Err(KeyError::Invalid { .. }) if hash.is_some() => {
                    return fail(format!("invalid, server {hash:?}"));
                }
                _ => {}
            }
            if let (Some(hash), Some(bytes)) = (hash, binary) {
                let input =
                    KeyInput::Param { bytes: &bytes, binary: true, type_oid: key_type.oid() };
                match key_type.hash(input) {
                    Ok(ours) if ours.0 == hash => {}
                    // Bounded on purpose.
                    Err(KeyError::Unsupported { .. }) if bytes.len() > 1_000 => {}
                    other => return fail(format!("binary {bytes:?}: {other:?}, server {hash}")),
                }
            }
        }
        Ok(())
    }
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

#[test]
fn every_type_hashes_as_the_server_does_in_text_and_binary() {
    let oracle = Oracle::start();
    for case in cases() {
        for settings in SETTINGS {
            oracle.set(settings);
            let batch = proptest::collection::vec(case.valid.clone(), 100);
            runner(2)
                .run(&batch, |texts| {
                    for text in &texts {
                        let hash = case.key_type.hash(KeyInput::Text(text.as_bytes()));
                        // The 31st of a month without one, for example, is rightly invalid.
                        if let Err(KeyError::Unsupported { .. }) = hash {
                            return Err(TestCaseError::fail(format!("{text:?} was not read")));
                        }
                    }
                    oracle.check(&case, &texts)
                })
                .unwrap_or_else(|error| panic!("{}", error));
        }
    }
}

#[test]
fn damaged_and_odd_spellings_are_never_hashed_differently_than_on_the_server() {
    let oracle = Oracle::start();
    for case in cases() {
        for settings in SETTINGS {
            oracle.set(settings);
            let odd: Vec<String> = case.odd.iter().map(|text| (*text).to_owned()).collect();
            oracle.check(&case, &odd).unwrap_or_else(|error| panic!("{}", error));
            let batch = proptest::collection::vec(spellings::damaged(&case), 150);
            runner(2)
                .run(&batch, |texts| oracle.check(&case, &texts))
                .unwrap_or_else(|error| panic!("{}", error));
        }
    }
}

#[test]
fn a_shard_predicate_is_true_on_the_server_for_exactly_the_rows_of_the_shard() {
    let oracle = Oracle::start();
    for case in cases() {
        let batch = proptest::collection::vec(case.valid.clone(), 60);
        runner(1)
            .run(&batch, |texts| {
                let rows = stored(&oracle, &case, &texts);
                let shards: Vec<ShardId> = (0..3).map(ShardId).collect();
                let mut placements = vec![Placement::Hash(RangeMap::even(&shards).unwrap())];
                let distinct = distinct(&oracle, &case);
                // The first value and every fifth are nowhere.
                let listed = distinct.iter().enumerate().filter(|(at, _)| at % 5 != 0);
                let listed = listed.map(|(at, text)| (text.as_str().into(), shards[at % 3]));
                let list = ValueList::try_new(case.key_type, listed.collect());
                placements.push(Placement::List(list.unwrap()));
                if case.key_type.is_ordered() {
                    placements.push(Placement::Range(ranges(&case, &distinct, &shards)));
                }
                for placement in placements {
                    let group =
                        ColocationGroup { id: GroupId(1), key_type: case.key_type, placement };
                    owners_agree(&oracle, &group, &shards, &rows)?;
                }
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{}", error));
    }
}

/// Stores the texts that are values, and returns them.
fn stored(oracle: &Oracle, case: &Case, texts: &[String]) -> Vec<String> {
    let sql_type = case.sql_type;
    let collation = if case.collatable() { "COLLATE \"C\"" } else { "" };
    oracle
        .set(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v text, k {sql_type} {collation})"));
    let sql = format!(
        "INSERT INTO t SELECT v, v::{sql_type} FROM unnest($1::text[]) v \
         WHERE hash_{}(v) IS NOT NULL RETURNING v",
        case.name
    );
    // A CASE keeps the cast behind its check.
    let sql = sql.replace(
        &format!("v::{sql_type}"),
        &format!("CASE WHEN hash_{}(v) IS NOT NULL THEN v::{sql_type} END", case.name),
    );
    let rows = oracle.runtime.block_on(oracle.client.query(&sql, &[&texts])).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The stored values in the server's order, in the form that the catalog keeps.
fn distinct(oracle: &Oracle, case: &Case) -> Vec<String> {
    oracle.set("SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; SET bytea_output = 'hex'");
    let sql = "SELECT min(k::text) FROM t GROUP BY k ORDER BY k";
    let rows = oracle.runtime.block_on(oracle.client.query(sql, &[])).unwrap();
    oracle.set(SETTINGS[case.name.len() % SETTINGS.len()]);
    rows.iter().map(|row| row.get(0)).collect()
}

/// Three ranges, with a gap before the last: …a, a…b, c….
fn ranges(case: &Case, ascending: &[String], shards: &[ShardId]) -> ValueRanges {
    let at = |part: usize| Some(ascending[ascending.len() * part / 4].as_str().into());
    let mut ranges = vec![ValueRange { start: None, end: at(1), shard: shards[1] }];
    for (start, end, shard) in [(at(1), at(2), shards[0]), (at(3), None, shards[2])] {
        if start != end {
            ranges.push(ValueRange { start, end, shard });
        }
    }
    ValueRanges::try_new(case.key_type, ranges).unwrap()
}

fn owners_agree(
    oracle: &Oracle,
    group: &ColocationGroup,
    shards: &[ShardId],
    texts: &[String],
) -> Result<(), TestCaseError> {
    let predicates: Vec<String> =
        shards.iter().map(|shard| group.shard_predicate(*shard, "k").unwrap()).collect();
    let sql = format!("SELECT v, ARRAY[{}] FROM t", predicates.join(", "));
    let rows = oracle.runtime.block_on(oracle.client.query(&sql, &[])).unwrap();
    assert_eq!(rows.len(), texts.len());
    for row in rows {
        let (text, owns): (String, Vec<bool>) = (row.get(0), row.get(1));
        let theirs: Vec<ShardId> =
            shards.iter().zip(owns).filter(|(_, owns)| *owns).map(|(shard, _)| *shard).collect();
        let ours: Vec<ShardId> = match group.shard_for(KeyInput::Text(text.as_bytes())) {
            Ok(shard) => vec![shard],
            Err(KeyError::Uncovered) => vec![],
            Err(error) => return Err(TestCaseError::fail(format!("{text:?}: {error}"))),
        };
        if ours != theirs {
            return Err(TestCaseError::fail(format!(
                "{:?} {text:?}: {ours:?}, server {theirs:?} by {sql}",
                group.key_type
            )));
        }
    }
    Ok(())
}

#[test]
fn parameters_of_neighbouring_types_find_the_row_that_the_server_finds() {
    let oracle = Oracle::start();
    let found = |column: &str, stored: &str, declared: &str, value: &str| -> bool {
        let sql = format!("SELECT ('{stored}'::{column} = '{value}'::{declared})");
        let row = oracle.runtime.block_on(oracle.client.query_one(&sql, &[])).unwrap();
        row.get(0)
    };
    for (key_type, column, stored, type_oid, declared, value) in [
        (KeyType::Int4, "integer", "5", 20, "bigint", "5"),
        (KeyType::Int2, "smallint", "-5", 23, "integer", "-5"),
        (KeyType::Numeric, "numeric", "-123456.00", 20, "bigint", "-123456"),
        (KeyType::Text, "text", "ab", 1043, "varchar", "ab"),
        (KeyType::Text, "text", "ab", 1042, "bpchar", "ab  "),
        (KeyType::Bpchar, "char(5)", "ab", 25, "text", "ab"),
        (KeyType::Bpchar, "char(5)", "ab", 1043, "varchar", "ab "),
    ] {
        assert!(found(column, stored, declared, value), "{column} {declared}");
        let param = KeyInput::Param { bytes: value.as_bytes(), binary: false, type_oid };
        assert_eq!(
            key_type.hash(param),
            key_type.hash(KeyInput::Text(stored.as_bytes())),
            "{column} {declared}"
        );
    }
    // Why a bpchar parameter cannot choose the shard of a varchar column.
    assert!(found("varchar", "ab  ", "bpchar", "ab"));
}
