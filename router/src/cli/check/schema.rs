//! What has to be the same on every shard: each server describes its objects (`schema.sql`), and the
//! descriptions are compared here with the home shard's.

use std::collections::{BTreeMap, BTreeSet};

use pgherd_shard_map::ShardId;
use tokio_postgres::Client;

use super::report::{Finding, Part, Severity, grouped, name};

const SQL: &str = include_str!("schema.sql");

/// The kind of a table's columns taken together.
const COLUMN_ORDER: &str = "order of columns";

/// What changes how errors look, how long something may take, or perhaps how text is sorted.
const MINOR: [&str; 7] = [
    "setting lc_messages",
    "setting statement_timeout",
    "setting lock_timeout",
    "setting idle_in_transaction_session_timeout",
    "setting password_encryption",
    "setting escape_string_warning",
    "database collation version",
];

/// All objects of one shard, by `kind name`.
#[derive(Debug, Default)]
pub(super) struct Schema(BTreeMap<String, Object>);

#[derive(Debug)]
struct Object {
    kind: String,
    /// `kind name` of what it belongs to, or empty.
    parent: String,
    /// `kind name` of what it takes after, or empty.
    alike: String,
    definition: String,
}

/// In which way a shard is not like the home shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference<'a> {
    Missing,
    Differs(&'a str),
    /// The home shard does not have it.
    Extra,
}

impl Schema {
    /// Asks a server, whose session has `search_path = pg_catalog`.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn read(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let rows = client.query(SQL, &[]).await?;
        // A database in SQL_ASCII may have names that are no text.
        let text = |row: &tokio_postgres::Row| -> Result<[String; 5], tokio_postgres::Error> {
            let part = |at| row.try_get(at);
            Ok([part(0)?, part(1)?, part(2)?, part(3)?, part(4)?])
        };
        rows.iter().map(text).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether that to which an object belongs is there.
    fn has_parent(&self, object: &Object) -> bool {
        object.parent.is_empty() || self.0.contains_key(&object.parent)
    }
}

impl FromIterator<[String; 5]> for Schema {
    fn from_iter<T: IntoIterator<Item = [String; 5]>>(rows: T) -> Self {
        let object = |[kind, name, parent, alike, definition]: [String; 5]| {
            (format!("{kind} {name}"), Object { kind, parent, alike, definition })
        };
        Self(rows.into_iter().map(object).collect())
    }
}

/// How the other shards differ from the home shard.
pub(super) fn drift(home: (ShardId, &Schema), others: &[(ShardId, &Schema)]) -> Vec<Finding> {
    let (home_id, home) = home;
    let all: BTreeMap<&String, &Object> =
        others.iter().flat_map(|(_, schema)| &schema.0).chain(&home.0).collect();
    let mut findings = Vec::new();
    for (name, object) in all {
        let differences = grouped(
            others
                .iter()
                .filter_map(|(shard, schema)| Some((*shard, compare(name, home, schema)?))),
        );
        let own = home.0.get(name).map(|object| &*object.definition);
        for (difference, shards) in differences {
            findings.push(told(name, &object.kind, difference, (home_id, own), &shards));
        }
    }
    findings
}

fn compare<'a>(name: &str, home: &Schema, schema: &'a Schema) -> Option<Difference<'a>> {
    match (home.0.get(name), schema.0.get(name)) {
        (Some(own), None) => schema.has_parent(own).then_some(Difference::Missing),
        (None, Some(other)) => home.has_parent(other).then_some(Difference::Extra),
        (Some(own), Some(other)) if own.definition != other.definition => {
            // Columns that are missing are told of as such.
            let told = own.kind != COLUMN_ORDER || same_names(&own.definition, &other.definition);
            let pattern = home.0.get(&own.alike).zip(schema.0.get(&own.alike));
            let as_its_pattern = pattern.is_some_and(|(mine, theirs)| {
                mine.definition == own.definition && theirs.definition == other.definition
            });
            (told && !as_its_pattern).then_some(Difference::Differs(&other.definition))
        }
        _ => None,
    }
}

fn same_names(one: &str, other: &str) -> bool {
    let names = |list: &str| list.split(", ").map(str::to_owned).collect::<BTreeSet<_>>();
    names(one) == names(other)
}

fn told(
    object: &str,
    kind: &str,
    difference: Difference<'_>,
    (home, own): (ShardId, Option<&str>),
    shards: &[ShardId],
) -> Finding {
    let on = name(shards);
    let message = match difference {
        Difference::Missing => format!("missing on {on}"),
        Difference::Differs(_) => format!("differs on {on}"),
        Difference::Extra => format!("on {on}, but not on shard {home}"),
    };
    let severity = severity(object, kind, difference);
    let hint = hint(kind, difference);
    let finding = Finding::new(severity, Part::Schema, shards, message, hint).about(object);
    match (difference, own) {
        (Difference::Differs(other), Some(own)) => finding.side(&[home], own).side(shards, other),
        _ => finding,
    }
}

fn severity(object: &str, kind: &str, difference: Difference<'_>) -> Severity {
    match kind {
        // Statements are slower, or use other plans.
        "index" | "statistics" | "storage options" | "replica identity" => Severity::Warning,
        _ if MINOR.contains(&object) => Severity::Warning,
        "extension" if matches!(difference, Difference::Differs(_)) => Severity::Warning,
        // What takes part in statements by itself.
        "column" | "constraint" | "trigger" | "rule" | "policy" | "unique index" | "setting"
        | "settings" | "event trigger" | "cast" => Severity::Error,
        // Nobody asks for it, until somebody makes it through a router.
        _ if difference == Difference::Extra => Severity::Warning,
        _ => Severity::Error,
    }
}

fn hint(kind: &str, difference: Difference<'_>) -> &'static str {
    match (kind, difference) {
        ("setting", _) => {
            "Set it to the same value in every shard's postgresql.conf (or by ALTER DATABASE or \
             ALTER ROLE … SET through a router) and reload: answers depend on it."
        }
        ("database", _) => {
            "It is chosen when a database is made, or comes with the operating system: move the \
             rows to a shard that is like the others (docs/resharding.md), and remove this one."
        }
        ("settings", _) => {
            "Run ALTER ROLE or ALTER DATABASE … SET or RESET through a router, which tells all \
             shards."
        }
        ("password", _) => {
            "A user logs in to the shards with the verifier of the home shard. ALTER ROLE … \
             PASSWORD through a router gives all shards the same one."
        }
        ("role" | "membership", Difference::Missing) => {
            "Create it on the shard itself as it is on the home shard: pg_dumpall --roles-only of \
             the home shard prints the statement."
        }
        ("extension", Difference::Missing) => {
            "Install its package on the shard's machine, then CREATE EXTENSION IF NOT EXISTS \
             through a router."
        }
        ("extension", Difference::Differs(_)) => {
            "Install the same package on all machines, then ALTER EXTENSION … UPDATE through a \
             router."
        }
        ("index" | "unique index", Difference::Missing) => {
            "CREATE INDEX IF NOT EXISTS through a router makes it where it is missing; or CREATE \
             INDEX CONCURRENTLY on the shard itself."
        }
        ("function" | "procedure" | "view" | "aggregate", Difference::Differs(_)) => {
            "CREATE OR REPLACE through a router makes it the same on all shards."
        }
        ("owner" | "privileges", _) => {
            "Run ALTER … OWNER TO, GRANT or REVOKE through a router, which tells all shards."
        }
        ("replica identity", _) => {
            "Run ALTER TABLE … REPLICA IDENTITY through a router: it decides what a subscriber to \
             the shard's changes gets."
        }
        (COLUMN_ORDER, _) => {
            "SELECT * and INSERT without column names go by it: make the table anew on the shard, \
             with its columns in the home shard's order."
        }
        (_, Difference::Missing) => {
            "Create it on the shard itself as it is on the home shard: pg_dump --schema-only of \
             the home shard prints the statement. From then on change the schema through routers, \
             which tell all shards in one transaction."
        }
        (_, Difference::Differs(_)) => {
            "Change it on the shard itself to what the home shard has. From then on change the \
             schema through routers, which tell all shards in one transaction."
        }
        (_, Difference::Extra) => {
            "Drop it on the shard itself, if nobody needs it. To have it everywhere, create it \
             through a router after that."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of kind, name, parent, definition.
    fn schema(rows: &[(&str, &str, &str, &str)]) -> Schema {
        rows.iter()
            .map(|(kind, name, parent, definition)| {
                [*kind, *name, *parent, "", *definition].map(str::to_owned)
            })
            .collect()
    }

    /// Each finding in a line.
    fn lines(home: &Schema, others: &[&Schema]) -> Vec<String> {
        let others: Vec<(ShardId, &Schema)> =
            (1..).map(ShardId).zip(others.iter().copied()).collect();
        drift((ShardId(0), home), &others).iter().map(Finding::line).collect()
    }

    #[test]
    fn what_is_the_same_is_not_told_of() {
        let one = schema(&[("table", "public.t", "", ""), ("role", "app", "", "LOGIN")]);
        let other = schema(&[("role", "app", "", "LOGIN"), ("table", "public.t", "", "")]);
        assert!(lines(&one, &[&other, &other]).is_empty());
        assert!(lines(&one, &[]).is_empty());
    }

    #[test]
    fn shards_with_the_same_difference_stand_in_one_line() {
        let home = schema(&[("function", "public.f()", "", "a"), ("index", "public.i", "", "x")]);
        let old = schema(&[("function", "public.f()", "", "b")]);
        let other = schema(&[("function", "public.f()", "", "c"), ("index", "public.i", "", "x")]);
        assert_eq!(
            lines(&home, &[&old, &other, &old]),
            [
                "error function public.f(): differs on shards 1, 3",
                "error function public.f(): differs on shard 2",
                "warning index public.i: missing on shards 1, 3",
            ]
        );
    }

    #[test]
    fn what_belongs_to_a_missing_object_is_not_told_of_by_itself() {
        let home = schema(&[
            ("materialized view", "public.m x", "", ""),
            ("owner", "of materialized view public.m x", "materialized view public.m x", "ann"),
        ]);
        let empty = schema(&[]);
        assert_eq!(
            lines(&home, &[&empty]),
            ["error materialized view public.m x: missing on shard 1"]
        );
        assert_eq!(
            lines(&empty, &[&home]),
            ["warning materialized view public.m x: on shard 1, but not on shard 0"]
        );
        let unowned = schema(&[("materialized view", "public.m x", "", "")]);
        assert_eq!(
            lines(&home, &[&unowned]),
            ["error owner of materialized view public.m x: missing on shard 1"]
        );
    }

    #[test]
    fn a_partitions_column_is_told_of_where_it_differs_in_its_own_way() {
        let tables = |of_table: &str, of_partition: &str| -> Schema {
            let table = ["column", "public.t.a", "", "", of_table];
            let partition = ["column", "public.t_1.a", "", "column public.t.a", of_partition];
            [table, partition].into_iter().map(|row| row.map(str::to_owned)).collect()
        };
        let home = tables("text", "text");
        assert_eq!(
            lines(&home, &[&tables("uuid", "uuid"), &tables("text", "uuid")]),
            [
                "error column public.t.a: differs on shard 1",
                "error column public.t_1.a: differs on shard 2"
            ]
        );
    }

    #[test]
    fn the_order_of_columns_is_told_of_only_where_all_are_there() {
        let table = |order: &str| {
            schema(&[
                ("table", "public.t", "", ""),
                ("order of columns", "of table public.t", "table public.t", order),
            ])
        };
        assert!(lines(&table("a, b"), &[&table("a")]).is_empty());
        assert_eq!(
            lines(&table("a, b"), &[&table("b, a")]),
            ["error order of columns of table public.t: differs on shard 1"]
        );
    }

    #[test]
    fn what_changes_no_answer_is_a_warning() {
        let home =
            schema(&[("setting", "TimeZone", "", "UTC"), ("setting", "lc_messages", "", "C")]);
        let other =
            schema(&[("setting", "TimeZone", "", "CET"), ("setting", "lc_messages", "", "de")]);
        assert_eq!(
            lines(&home, &[&other]),
            [
                "error setting TimeZone: differs on shard 1",
                "warning setting lc_messages: differs on shard 1"
            ]
        );
    }
}
