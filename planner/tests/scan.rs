//! The byte lexer: never panics, cuts where PostgreSQL cuts, and fingerprints what matters.
#![allow(clippy::unwrap_used, reason = "tests")]

use pgherd_planner::{Context, LiteralKind, Scan, plan, scan};
use pgherd_shard_map::{Epoch, Shard, ShardId, ShardMap};
use proptest::prelude::*;

fn scanned(sql: &str) -> Scan {
    let mut out = Scan::default();
    scan(sql.as_bytes(), 0, 0, &mut out);
    out
}

fn pieces(sql: &str) -> Vec<&str> {
    let mut out = Scan::default();
    let (mut at, mut found) = (0, Vec::new());
    while at < sql.len() {
        let next = scan(sql.as_bytes(), at, 0, &mut out);
        found.push(&sql[at..next]);
        at = next;
    }
    found
}

fn alike(a: &str, b: &str) -> bool {
    scanned(a).fingerprint == scanned(b).fingerprint
}

#[test]
fn statements_end_where_postgresql_ends_them() {
    assert_eq!(pieces("a;b"), ["a;", "b"]);
    assert_eq!(pieces("select ';' ; b;"), ["select ';' ;", " b;"]);
    assert_eq!(pieces("select $x$;$x$, \";\", e'\\';' /* ; /* ; */ ; */ -- ;\n; b").len(), 2);
    assert_eq!(pieces("create rule r as on insert to t do (a; b); c").len(), 2);
    assert_eq!(
        pieces("create function f() begin atomic select case when a then 1 end; end; c").len(),
        2
    );
    assert_eq!(pieces("begin; end; begin; end").len(), 4);
    assert_eq!(pieces("select 'open; b"), ["select 'open; b"]);
}

#[test]
fn literals_stand_where_they_are() {
    let sql = "select 1, 2.5e-3, 'a''b', E'\\'', $$x$$, X'ff', $2, a1 from t where b=-7";
    let out = scanned(sql);
    let found: Vec<(LiteralKind, &str)> =
        out.literals.iter().map(|l| (l.kind, &sql[l.start as usize..l.end as usize])).collect();
    assert_eq!(
        found,
        [
            (LiteralKind::Integer, "1"),
            (LiteralKind::Decimal, "2.5e-3"),
            (LiteralKind::String, "'a''b'"),
            (LiteralKind::EscapeString, "E'\\''"),
            (LiteralKind::DollarString, "$$x$$"),
            (LiteralKind::OtherString, "X'ff'"),
            (LiteralKind::Integer, "7"),
        ]
    );
    assert_eq!(out.params, 2);
}

#[test]
fn the_fingerprint_sees_what_matters() {
    assert!(alike("SELECT  a FROM t WHERE b = 1 -- x", "select a\nfrom T where b=22"));
    assert!(!alike("select a", "select \"A\""));
    assert!(!alike("select 1", "select '1'"));
    assert!(!alike("select 1", "select 1.0"));
    assert!(!alike("select $1", "select $2"));
    assert!(!alike("select /* pgherd: shard=1 */ 1", "select /* pgherd: shard=2 */ 1"));
    assert!(alike("select /* other */ 1", "select 1"));
    assert!(!alike("select a b", "select ab"));
    assert!(!alike("select \"a\" b", "select \"a b\""));
    let mut out = Scan::default();
    scan(b"select 1", 0, 7, &mut out);
    assert_ne!(out.fingerprint, scanned("select 1").fingerprint, "the seed counts");
}

fn map() -> ShardMap {
    let shard = Shard { id: ShardId(0), dsn: "".into() };
    ShardMap::try_new(Epoch::FIRST, ShardId(0), true, vec![shard], vec![], vec![]).unwrap()
}

proptest! {
    #[test]
    fn scan_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut out = Scan::default();
        let mut at = 0;
        while at < bytes.len() {
            let next = scan(&bytes, at, 0, &mut out);
            prop_assert!(next > at && next <= bytes.len());
            for literal in &out.literals {
                prop_assert!(literal.start < literal.end && (literal.end as usize) <= next - at);
            }
            at = next;
        }
    }

    #[test]
    fn plan_takes_any_text(text in "[ a-c'\"$eE\\\\;()\\[\\]*/\\-.,0-9:=\n]{0,80}") {
        let (map, path) = (map(), ["public".into()]);
        let context = Context {
            map: &map, search_path: &path, temporary: &[], scatter: true, pinned: None, auto_distribute: &[],
            copies: &[],
        };
        let _ = plan(&text, &context);
    }

    #[test]
    fn the_fingerprint_ignores_values(a in 0_u64.., b in 0_u64.., s in "[^'\\\\]{0,20}", t in "[^'\\\\]{0,20}") {
        let one = format!("select {a} from t where x = '{s}'");
        let two = format!("select {b} from t where x = '{t}'");
        prop_assert!(alike(&one, &two));
    }
}
