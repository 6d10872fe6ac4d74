//! Texts put together from SQL's own words: planning answers or refuses, and never fails.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use pgherd_planner::{Action, Context, Literal, NoParams, Scan, ShardSet, plan, scan};
use pgherd_shard_map::{
    ColocationGroup, Column, ColumnDefault, Epoch, GroupId, KeyType, Placement, RangeMap, Relation,
    RelationKind, Shard, ShardId, ShardMap, Table, TableKind, TableName,
};
use proptest::prelude::*;

const WORDS: &[&str] = &[
    "select",
    "from",
    "t",
    "where",
    "k",
    "=",
    "1",
    "'a'",
    "$1",
    "(",
    ")",
    ",",
    "and",
    "or",
    "not",
    "in",
    "join",
    "left",
    "on",
    "using",
    "group by",
    "order by",
    "limit",
    "offset",
    "union all",
    "with",
    "as",
    "x",
    "insert into",
    "values",
    "update",
    "set",
    "delete",
    "returning",
    "count(*)",
    "sum(v)",
    "case",
    "end",
    "between",
    "*",
    ".",
    "::int",
    "copy",
    "stdin",
    "for update",
    "having",
    "distinct",
    "exists",
    "v",
    "fetch first",
    "rows only",
    "nulls",
    "desc",
    "explain",
    "any",
    "merge",
    "over",
    "filter",
    "lateral",
    "table",
    "natural",
    "cross",
    "[",
    "]",
    "default",
];

fn map() -> ShardMap {
    let shards = [ShardId(0), ShardId(1)];
    let group = ColocationGroup {
        id: GroupId(1),
        key_type: KeyType::Int4,
        placement: Placement::Hash(RangeMap::even(&shards).unwrap()),
    };
    let column = |name: &str| Column {
        name: name.into(),
        type_name: "integer".into(),
        collation: None,
        default: ColumnDefault::None,
    };
    let name = TableName::new("public", "t");
    let table = Table {
        name: name.clone(),
        kind: TableKind::Distributed { key: 0, key_type: KeyType::Int4, group: GroupId(1) },
        columns: Box::new([column("k"), column("v")]),
    };
    let shard = |id| Shard { id, dsn: "".into() };
    ShardMap::try_new(
        Epoch::FIRST,
        ShardId(0),
        true,
        shards.into_iter().map(shard).collect(),
        vec![group],
        vec![Relation { name, kind: RelationKind::Sharded(Arc::new(table)) }],
    )
    .unwrap()
}

fn check(text: &str, map: &ShardMap) -> Option<Action> {
    let path = ["public".into()];
    let context = Context {
        map,
        search_path: &path,
        temporary: &[],
        scatter: true,
        pinned: None,
        auto_distribute: &[],
        copies: &[],
    };
    plan(text, &context).ok().map(|plan| plan.action)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    #[test]
    fn planning_answers_or_refuses(words in prop::collection::vec(prop::sample::select(WORDS), 0..30)) {
        let text = words.join(" ");
        let map = map();
        let action = check(&text, &map);
        // What is routed by literals resolves with the literals that the scanner lists.
        if let Some(Action::One(one)) = action {
            let mut out = Scan::default();
            scan(text.as_bytes(), 0, 0, &mut out);
            let literals: &[Literal] = &out.literals;
            if let Ok(ShardSet::Some(shards)) = one.target.resolve(&map, text.as_bytes(), literals, &NoParams) {
                prop_assert!(!shards.is_empty());
            }
        }
    }
}

#[test]
fn hostile_sizes_are_refused_or_planned() {
    let map = map();
    let _ = check(&format!("select * from {}t", "t join ".repeat(20_000)), &map);
    let _ = check(&format!("select * from t{}", " join t on true".repeat(20_000)), &map);
    let _ = check(&format!("select {}1{} from t", "(".repeat(20_000), ")".repeat(20_000)), &map);
    let _ = check(&format!("select 1{} from t", "+1".repeat(50_000)), &map);
    let _ = check(&format!("select * from t where k in (1{})", ",1".repeat(50_000)), &map);
    let _ = check(&format!("select 1 from t{}", " union all select 1 from t".repeat(3_000)), &map);
    let _ = check(&format!("select {} true from t", "not ".repeat(20_000)), &map);
    let _ = check(&format!("insert into t values (1,1){}", ",(1,1)".repeat(20_000)), &map);
}
