//! Golden plans: `data/*_cases.txt` hold statements and the text of their plans, separated by
//! empty lines; `UPDATE=1` rewrites them. A refusal is a golden text too.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pgherd_planner::{Context, owned_rows, plan};
use pgherd_shard_map::{
    ColocationGroup, Column, ColumnDefault, ColumnSequence, Epoch, GroupId, Identity, KeyType,
    Placement, RangeMap, Relation, RelationKind, SessionEffect, SessionEffects, Shard, ShardId,
    ShardMap, Table, TableKind, TableName, UserFunctions, View, ViewBody,
};

const HEAD: &str = "-- Each statement is followed by its plan. Rewritten by: UPDATE=1 cargo nextest run -p pgherd-planner golden\n";

fn column(text: &str) -> Column {
    let (name, rest) = text.split_once(' ').expect("name and type");
    let number = |identity| {
        let name = TableName::new("public", &format!("{name}_seq"));
        ColumnDefault::Sequence(ColumnSequence { name, identity })
    };
    let defaults = [
        (" default", ColumnDefault::Expression),
        (" constant", ColumnDefault::Constant),
        (" serial", number(Identity::None)),
        (" identity", number(Identity::ByDefault)),
        (" always", number(Identity::Always)),
        (" uuid", ColumnDefault::RandomUuid),
    ];
    let found = defaults
        .into_iter()
        .find_map(|(word, default)| rest.strip_suffix(word).map(|type_name| (type_name, default)));
    let (type_name, default) = found.unwrap_or((rest, ColumnDefault::None));
    let (type_name, collation) = match type_name.split_once(" collate ") {
        Some((type_name, collation)) => (type_name, Some(collation.into())),
        None => (type_name, None),
    };
    Column { name: name.into(), type_name: type_name.into(), collation, default }
}

fn sharded(name: &str, kind: TableKind, columns: &str) -> Relation {
    let name = TableName::new("public", name);
    let columns = columns.split(", ").map(column).collect();
    let table = Table { name: name.clone(), kind, columns };
    Relation { name, kind: RelationKind::Sharded(Arc::new(table)) }
}

fn other(name: &str, kind: RelationKind) -> Relation {
    Relation { name: TableName::new("public", name), kind }
}

/// A view whose query reads these relations; `marks` says what PostgreSQL knows of it.
fn view(name: &str, columns: &str, query: &str, reads: &[&str], marks: &str) -> Relation {
    let name = TableName::new("public", name);
    let body = ViewBody {
        query: query.into(),
        reads: reads.iter().map(|name| TableName::new("public", name)).collect(),
        functions: Box::default(),
        may_write: false,
        folds: marks.contains("folds"),
        row_security: marks.contains("guarded"),
        updatable: marks.contains("updatable"),
    };
    let columns = columns.split(", ").map(column).collect();
    let view = View { name: name.clone(), columns, body };
    Relation { name, kind: RelationKind::View(Arc::new(view)) }
}

fn map() -> ShardMap {
    let shards: Vec<ShardId> = (0..4).map(ShardId).collect();
    let group = |id, key_type| ColocationGroup {
        id: GroupId(id),
        key_type,
        placement: Placement::Hash(RangeMap::even(&shards).unwrap()),
    };
    let by = |key, key_type, group| TableKind::Distributed { key, key_type, group: GroupId(group) };
    let mut map = ShardMap::try_new(
        Epoch::FIRST,
        ShardId(0),
        true,
        shards.iter().map(|id| Shard { id: *id, dsn: "".into() }).collect(),
        vec![group(1, KeyType::Int4), group(2, KeyType::Int8), group(3, KeyType::Text), group(4, KeyType::Numeric)],
        vec![
            sharded(
                "pgbench_accounts",
                by(0, KeyType::Int4, 1),
                "aid integer, bid integer, abalance integer, filler character(84)",
            ),
            sharded(
                "pgbench_history",
                by(2, KeyType::Int4, 1),
                "tid integer, bid integer, aid integer, delta integer, mtime timestamp without time zone, filler character(22)",
            ),
            sharded(
                "orders",
                by(1, KeyType::Int8, 2),
                "id bigint default, customer_id bigint, amount numeric, note text, ts timestamp with time zone",
            ),
            sharded("customers", by(0, KeyType::Int8, 2), "id bigint, name text, country text"),
            sharded(
                "tickets",
                by(0, KeyType::Int8, 2),
                "id bigint serial, title text constant, opened timestamptz default, n integer always",
            ),
            sharded(
                "colors",
                TableKind::Reference,
                "id integer identity, name text, token uuid uuid, kind text constant",
            ),
            sharded("events", by(0, KeyType::Text, 3), "k text, v integer, t text collate C"),
            sharded("prices", by(0, KeyType::Numeric, 4), "price numeric(10,2)"),
            sharded("countries", TableKind::Reference, "code text, name text"),
            sharded("currencies", TableKind::Reference, "code text, updated timestamptz default"),
            other("plain", RelationKind::Home),
            other("order_totals", RelationKind::ViewOverDistributed),
            view(
                "big_orders",
                "customer bigint, id bigint, amount numeric",
                "SELECT o.customer_id AS customer, o.id, o.amount FROM public.orders o WHERE (o.amount > (100)::numeric);",
                &["orders"],
                "updatable",
            ),
            view(
                "biggest_orders",
                "customer bigint, amount numeric",
                "SELECT big_orders.customer, big_orders.amount FROM public.big_orders WHERE (big_orders.amount > (1000)::numeric);",
                &["big_orders"],
                "updatable",
            ),
            view(
                "amounts",
                "amount numeric, note text",
                "SELECT orders.amount, orders.note FROM public.orders;",
                &["orders"],
                "updatable",
            ),
            view(
                "named_orders",
                "customer_id bigint, name text, land text, amount numeric",
                "SELECT o.customer_id, c.name, l.name AS land, o.amount FROM ((public.orders o JOIN public.customers c ON ((c.id = o.customer_id))) LEFT JOIN public.countries l ON ((l.code = c.country)));",
                &["orders", "customers", "countries"],
                "",
            ),
            view(
                "orders_of_customers",
                "id bigint, name text, amount numeric",
                "SELECT c.id, c.name, o.amount FROM (public.orders o RIGHT JOIN public.customers c ON ((c.id = o.customer_id)));",
                &["orders", "customers"],
                "",
            ),
            view(
                "per_customer",
                "customer_id bigint, orders bigint, total numeric",
                "SELECT orders.customer_id, count(*) AS orders, sum(orders.amount) AS total FROM public.orders GROUP BY orders.customer_id;",
                &["orders"],
                "folds",
            ),
            view(
                "per_note",
                "note text, total numeric",
                "SELECT orders.note, sum(orders.amount) AS total FROM public.orders GROUP BY orders.note;",
                &["orders"],
                "folds",
            ),
            view(
                "last_orders",
                "customer_id bigint, id bigint, n bigint",
                "SELECT orders.customer_id, orders.id, row_number() OVER (PARTITION BY orders.customer_id ORDER BY orders.ts DESC) AS n FROM public.orders;",
                &["orders"],
                "folds",
            ),
            view(
                "ranked_orders",
                "customer_id bigint, n bigint",
                "SELECT orders.customer_id, rank() OVER (ORDER BY orders.amount) AS n FROM public.orders;",
                &["orders"],
                "folds",
            ),
            view(
                "newest_orders",
                "customer_id bigint, id bigint",
                "SELECT DISTINCT ON (orders.customer_id) orders.customer_id, orders.id FROM public.orders ORDER BY orders.customer_id, orders.ts DESC;",
                &["orders"],
                "",
            ),
            view(
                "notes",
                "note text",
                "SELECT DISTINCT orders.note FROM public.orders;",
                &["orders"],
                "",
            ),
            view(
                "top_orders",
                "customer_id bigint, amount numeric",
                "SELECT orders.customer_id, orders.amount FROM public.orders ORDER BY orders.amount DESC LIMIT 10;",
                &["orders"],
                "",
            ),
            view(
                "best_named",
                "name text, amount numeric",
                "SELECT c.name, t.amount FROM (public.top_orders t JOIN public.customers c ON ((c.id = t.customer_id)));",
                &["top_orders", "customers"],
                "",
            ),
            view(
                "everyone",
                "id bigint, name text",
                "SELECT customers.id, customers.name FROM public.customers UNION ALL SELECT tickets.id, tickets.title FROM public.tickets;",
                &["customers", "tickets"],
                "",
            ),
            view(
                "anyone",
                "id bigint",
                "SELECT customers.id FROM public.customers UNION SELECT tickets.id FROM public.tickets;",
                &["customers", "tickets"],
                "",
            ),
            view(
                "with_plain",
                "id bigint",
                "SELECT c.id FROM (public.customers c JOIN public.plain p ON ((p.id = c.id)));",
                &["customers", "plain"],
                "",
            ),
            view("guarded", "total bigint", "SELECT count(*) AS total FROM public.customers;", &["customers"], "folds guarded"),
            view("numbered", "n bigint, id bigint", "SELECT nextval('public.s'::regclass) AS n, customers.id FROM public.customers;", &["customers", "s"], ""),
            view("misread", "id bigint", "SELECT customers.id FROM public.customers;", &["customers", "orders"], ""),
            view("itself", "id bigint", "SELECT itself.id FROM public.itself;", &["itself"], ""),
            other("country_names", RelationKind::ViewOverReference),
        ],
    )
    .unwrap();
    map.functions = UserFunctions {
        immutable: ["doubled".into()].into(),
        reading: ["newest_note".into(), "middle".into()].into(),
        sharded: ["customer_total".into()].into(),
    };
    map.with_session_effects(effects())
}

fn effects() -> SessionEffects {
    let effect = |settings: &[&str], stays| SessionEffect {
        settings: settings.iter().map(|name| (*name).into()).collect(),
        stays,
    };
    let mut effects = SessionEffects::default();
    effects.functions.insert("set_tenant".into(), effect(&["app.tenant"], false));
    effects.functions.insert("set_any".into(), effect(&[], true));
    effects.written.insert("currencies".into(), effect(&["app.currency"], false));
    effects.read.insert("plain_view".into(), effect(&[], false));
    effects
}

fn answer(sql: &str, map: &ShardMap) -> String {
    let path: [Box<str>; 1] = ["public".into()];
    let temporary: [Box<str>; 1] = ["scratch".into()];
    let tenants: [Box<str>; 1] = ["tenant_id".into()];
    let context = Context {
        map,
        search_path: &path,
        scatter: !sql.contains("-- scatter off"),
        pinned: None,
        temporary: &temporary,
        auto_distribute: if sql.contains("-- no auto") { &[] } else { &tenants },
        copies: &[],
    };
    match plan(sql, &context) {
        Ok(plan) => plan.describe(),
        Err(error) => {
            let detail = error.detail.as_deref().unwrap_or_default();
            let hint = error.hint.as_deref().unwrap_or_default();
            format!("refused {}: {}\n  {detail}\n  {hint}", error.sqlstate, error.message)
        }
    }
}

fn check(file: &str) {
    check_with(file, &map(), answer);
}

fn check_with(file: &str, map: &ShardMap, answer: fn(&str, &ShardMap) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
    let text = fs::read_to_string(&path).unwrap();
    let mut fresh = HEAD.to_owned();
    for case in text.split("\n\n") {
        let lines: Vec<&str> = case.lines().filter(|l| !l.starts_with("-- Each")).collect();
        let sql: Vec<&str> = lines
            .iter()
            .copied()
            .take_while(|line| *line != "=>")
            .filter(|l| !l.is_empty())
            .collect();
        if sql.is_empty() {
            continue;
        }
        let sql = sql.join("\n");
        fresh += &format!("\n{sql}\n=>\n{}\n", answer(&sql, map));
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &fresh).unwrap();
    } else if fresh != text {
        for (have, want) in fresh.lines().zip(text.lines()) {
            assert_eq!(have, want, "{file} differs; look at it and run with UPDATE=1");
        }
        panic!("{file} has another length");
    }
}

#[test]
fn golden_pgbench() {
    check("pgbench_cases.txt");
}

#[test]
fn golden_select() {
    check("select_cases.txt");
}

#[test]
fn golden_write() {
    check("write_cases.txt");
}

#[test]
fn golden_view() {
    check("view_cases.txt");
}

#[test]
fn golden_utility() {
    check("utility_cases.txt");
}

#[test]
fn golden_unsupported() {
    check("unsupported_cases.txt");
}

#[test]
fn the_parser_is_named_in_one_file_only() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let names = fs::read_to_string(&path).unwrap().contains("sqlparser::");
            assert_eq!(names, path.ends_with("parse.rs"), "{}", path.display());
        }
    }
}

/// The text for shard 1 while rows of group 2 move, with its condition made short.
fn own_answer(sql: &str, map: &ShardMap) -> String {
    let path: [Box<str>; 1] = ["public".into()];
    let context = Context {
        map,
        search_path: &path,
        scatter: true,
        pinned: None,
        auto_distribute: &[],
        copies: &[],
        temporary: &[],
    };
    match owned_rows(sql, &context, ShardId(1)) {
        Ok(Some(text)) => short(&text),
        Ok(None) => "as it is".to_owned(),
        Err(error) => format!("refused {}: {}", error.sqlstate, error.message),
    }
}

/// `own(column)` for the condition that a key is the shard's own.
fn short(text: &str) -> String {
    let hash = "(pg_catalog.hashint8extended((";
    let mut short = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(hash) {
        short.push_str(&rest[..at]);
        let column = &rest[at + hash.len()..];
        short += &format!("own({})", &column[..column.find(')').unwrap()]);
        let end = "< '0'::pg_catalog.int8)";
        rest = &rest[rest.find(end).unwrap() + end.len()..];
    }
    short + rest
}

#[test]
fn golden_moving() {
    let mut map = map();
    map.moving = Box::new([GroupId(2)]);
    check_with("moving_cases.txt", &map, own_answer);
}
