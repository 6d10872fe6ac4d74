//! The catalog by itself: whether it can be used, whether every key has a shard, and what is under
//! way.

use std::collections::BTreeSet;

use pgherd_shard_map::store::{Record, Unfinished};
use pgherd_shard_map::{
    KeyType, MapError, Placement, RelationKind, ShardId, ShardMap, TableKind, ValueRanges,
};

use super::report::{Finding, Part, Severity, name};
use crate::reshard::phase::Phase;

/// The catalog contradicts itself, so routers cannot use it either.
pub(super) fn unusable(error: &MapError) -> Finding {
    Finding::new(
        Severity::Error,
        Part::Map,
        &[],
        format!("the shard map cannot be used: {error}"),
        "Routers that run keep the last good one, and no router starts. Somebody has changed the \
         tables of the schema pgherd by hand: put back what was there (SELECT * FROM pgherd.ranges \
         shows the ranges).",
    )
}

const NOTHING_PLACED: &str = "Every row of its tables is refused.";

/// What is to be said of a map that can be used. `run` is the last one of `pgherd reshard`.
pub(super) fn judge(map: &ShardMap, run: Option<&Record>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |severity, shards: &[ShardId], message: String, hint: &str| {
        found.push(Finding::new(severity, Part::Map, shards, message, hint));
    };
    if let Some(run) = run.filter(|run| is_under_way(run)) {
        let (severity, stopped) = match &run.problem {
            Some(problem) => (Severity::Warning, format!(", and has stopped: {problem}")),
            None => (Severity::Note, String::new()),
        };
        let text = format!("run {} of pgherd reshard is {}{stopped}", run.id, run.phase);
        add(severity, &[], text, "pgherd reshard status tells more, and what comes next.");
    }
    let mut owners: BTreeSet<ShardId> = BTreeSet::new();
    for group in map.groups() {
        let id = group.id;
        match &group.placement {
            Placement::Hash(ranges) => owners.extend(ranges.iter().map(|(_, shard)| shard)),
            Placement::Range(ranges) => {
                owners.extend(ranges.iter().map(|range| range.shard));
                let gaps = gaps(ranges);
                if ranges.iter().len() == 0 {
                    let text = format!("group {id}: no value has a shard yet");
                    add(Severity::Note, &[], text, NOTHING_PLACED);
                } else if !gaps.is_empty() {
                    let text = format!("group {id}: no shard has the keys {}", gaps.join(", "));
                    let hint = "Rows with such keys are refused. SELECT * FROM pgherd.ranges shows \
                                what has a shard.";
                    add(Severity::Note, &[], text, hint);
                }
            }
            Placement::List(values) => {
                owners.extend(values.iter().map(|(_, shard)| shard));
                if values.iter().len() == 0 {
                    let text = format!("group {id}: no value has a shard yet");
                    add(Severity::Note, &[], text, NOTHING_PLACED);
                }
            }
        }
    }
    for (table, kind) in map.relations() {
        if let RelationKind::Sharded(known) = kind
            && let TableKind::Distributed { key_type, group, .. } = known.kind
            && let Some(column) = known.key_column()
            // None of an enum or a domain, whose names say nothing.
            && let Some(found) = KeyType::from_type_name(&column.type_name)
            && found != key_type
        {
            let text = format!(
                "table {table}: its key {} is {}, and group {group} is of {key_type:?} keys",
                column.name, column.type_name
            );
            let hint = "Its rows are looked for on the wrong shards. Give the column its old type \
                        again, on every shard.";
            add(Severity::Error, &[map.home], text, hint);
        }
    }
    let idle: Vec<ShardId> =
        map.shards().map(|shard| shard.id).filter(|shard| !owners.contains(shard)).collect();
    if !owners.is_empty() && !idle.is_empty() {
        let text = format!("no rows of distributed tables belong on {}", name(&idle));
        let hint = "pgherd reshard plan --spread shows what could move there; pgherd shard remove \
                    takes out a shard that nobody needs.";
        add(Severity::Note, &idle, text, hint);
    }
    found
}

/// A statement that has run on some shards only.
pub(super) fn unfinished(statement: &Unfinished) -> Finding {
    let Unfinished { sql, done, by, began } = statement;
    let on = if done.is_empty() { "no shard".to_owned() } else { name(done) };
    Finding::new(
        Severity::Error,
        Part::Map,
        done,
        format!("a statement of {by}, begun at {began}, is finished on {on} only: {sql}"),
        "Repeat it with the same search_path: it goes on with the other shards. Or undo it on those \
         that have it, and DELETE FROM pgherd.unfinished on the home shard.",
    )
}

pub(super) fn is_under_way(run: &Record) -> bool {
    !Phase::parse(&run.phase).is_some_and(Phase::is_over)
}

/// Keys between ranges, and before and after them.
fn gaps(ranges: &ValueRanges) -> Vec<String> {
    let mut gaps = Vec::new();
    let mut end: Option<&str> = None;
    let mut is_first = true;
    for range in ranges.iter() {
        match (is_first, end, range.start.as_deref()) {
            (true, _, Some(start)) => gaps.push(format!("below {start}")),
            (false, Some(end), Some(start)) if end != start => {
                gaps.push(format!("from {end} to below {start}"));
            }
            _ => {}
        }
        (is_first, end) = (false, range.end.as_deref());
    }
    if let Some(end) = end {
        gaps.push(format!("from {end} on"));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use pgherd_shard_map::ValueRange;

    use super::*;

    #[test]
    fn keys_without_a_shard_are_named() {
        let ranges = |bounds: &[(Option<&str>, Option<&str>)]| {
            let range = |(start, end): &(Option<&str>, Option<&str>)| ValueRange {
                start: start.map(Into::into),
                end: end.map(Into::into),
                shard: ShardId(0),
            };
            let list = bounds.iter().map(range).collect();
            gaps(&ValueRanges::try_new(KeyType::Int4, list).unwrap())
        };
        assert!(ranges(&[(None, Some("10")), (Some("10"), None)]).is_empty());
        assert!(ranges(&[(None, None)]).is_empty());
        assert_eq!(
            ranges(&[(Some("20"), Some("30")), (Some("0"), Some("10"))]),
            ["below 0", "from 10 to below 20", "from 30 on"]
        );
    }

    #[test]
    fn a_key_column_of_another_type_and_a_shard_without_rows_are_found() {
        let map = ShardMap::from_json(
            r#"{"epoch": 1, "home": 0, "bytewise_collation": true,
                "shards": [{"id": 0, "dsn": "postgres://a/"}, {"id": 1, "dsn": "postgres://b/"}],
                "groups": [{"id": 1, "key_type": "integer", "placement":
                    {"hash": [[-9223372036854775808, 0]]}}],
                "relations": [{"schema": "public", "name": "t", "kind": "distributed", "group": 1,
                    "key": "k", "columns": [{"name": "k", "type_name": "text", "collation": null,
                    "default": "none"}]}],
                "functions": {"immutable": [], "reading": [], "sharded": []}}"#,
        )
        .unwrap();
        let found: Vec<String> = judge(&map, None).iter().map(Finding::line).collect();
        assert_eq!(
            found,
            [
                "error table public.t: its key k is text, and group 1 is of Int4 keys",
                "note no rows of distributed tables belong on shard 1",
            ]
        );
    }
}
