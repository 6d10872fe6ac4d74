//! A shard map from the JSON document that the catalog's load query returns.

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    ColocationGroup, Column, Epoch, GroupId, HashRange, KeyHash, KeyType, MapError, Placement,
    RangeMap, Relation, RelationKind, SessionEffect, SessionEffects, Shard, ShardId, ShardMap,
    StrayingTrigger, Table, TableKind, TableName, UserFunctions, ValueList, ValueRange,
    ValueRanges, View, ViewBody,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    epoch: u64,
    home: u32,
    bytewise_collation: bool,
    #[serde(default)]
    moving: Box<[GroupId]>,
    #[serde(default)]
    locked_views: bool,
    #[serde(default)]
    changing: Box<[TableName]>,
    shards: Vec<ShardRow>,
    groups: Vec<GroupRow>,
    relations: Vec<RelationRow>,
    functions: UserFunctions,
    #[serde(default)]
    session_effects: Vec<EffectRow>,
    #[serde(default)]
    straying: Box<[StrayingTrigger]>,
}

/// The part that a change of owners changes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacementDocument {
    epoch: u64,
    /// Since then nothing else has changed.
    whole_epoch: Option<u64>,
    moving: Box<[GroupId]>,
    groups: Vec<GroupRow>,
}

#[derive(Deserialize)]
struct EffectRow {
    kind: EffectKind,
    name: Box<str>,
    #[serde(flatten)]
    effect: SessionEffect,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum EffectKind {
    Function,
    Read,
    Write,
}

#[derive(Deserialize)]
struct ShardRow {
    id: u32,
    dsn: Box<str>,
}

#[derive(Deserialize)]
struct GroupRow {
    id: u32,
    key_type: Box<str>,
    placement: PlacementRow,
}

/// Each list is null where it has no rows.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum PlacementRow {
    /// The start of each range.
    Hash(Option<Vec<(i64, u32)>>),
    Range(Option<Vec<ValueRange>>),
    List(Option<Vec<(Box<str>, ShardId)>>),
}

#[derive(Deserialize)]
struct RelationRow {
    schema: Box<str>,
    name: Box<str>,
    kind: Kind,
    group: Option<u32>,
    key: Option<Box<str>>,
    columns: Option<Vec<Column>>,
    view: Option<ViewBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Distributed,
    Reference,
    Home,
    View,
    ViewOverDistributed,
    ViewOverReference,
}

impl ShardMap {
    /// Reads what `store::LOAD_SQL` returns.
    ///
    /// # Errors
    /// [`MapError`] when the document is not what that query gives, or contradicts itself.
    pub fn from_json(text: &str) -> Result<Self, MapError> {
        let document: Document = serde_json::from_str(text)
            .map_err(|error| MapError::Invalid(error.to_string().into()))?;
        let groups: Vec<ColocationGroup> =
            document.groups.into_iter().map(group).collect::<Result<_, _>>()?;
        let relations = document
            .relations
            .into_iter()
            .map(|row| relation(row, &groups))
            .collect::<Result<_, _>>()?;
        let shards = document
            .shards
            .into_iter()
            .map(|row| Shard { id: ShardId(row.id), dsn: row.dsn })
            .collect();
        let mut map = Self::try_new(
            Epoch(document.epoch),
            ShardId(document.home),
            document.bytewise_collation,
            shards,
            groups,
            relations,
        )?
        .with_session_effects(effects(document.session_effects))
        .with_straying(document.straying);
        map.functions = document.functions;
        map.moving = document.moving;
        map.locked_views = document.locked_views;
        map.changing = document.changing;
        Ok(map)
    }
}

impl ShardMap {
    /// The newer map that the catalog's `shard_placement()` makes of this one; `None` where more has changed than
    /// it tells.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn placed_anew(&self, text: &str) -> Result<Option<Self>, MapError> {
        let document: PlacementDocument = serde_json::from_str(text)
            .map_err(|error| MapError::Invalid(error.to_string().into()))?;
        if document.whole_epoch.is_none_or(|whole| whole > self.epoch.0) {
            return Ok(None);
        }
        let groups = document.groups.into_iter().map(group).collect::<Result<_, _>>()?;
        self.with_groups(Epoch(document.epoch), document.moving, groups).map(Some)
    }
}

fn effects(rows: Vec<EffectRow>) -> SessionEffects {
    let mut effects = SessionEffects::default();
    for EffectRow { kind, name, effect } in rows {
        match kind {
            EffectKind::Function => effects.functions.insert(name, effect),
            EffectKind::Read => effects.read.insert(name, effect),
            EffectKind::Write => effects.written.insert(name, effect),
        };
    }
    effects
}

fn group(row: GroupRow) -> Result<ColocationGroup, MapError> {
    let key_type = KeyType::from_type_name(&row.key_type)
        .ok_or_else(|| MapError::Invalid(format!("key type {}", row.key_type).into()))?;
    let placement = match row.placement {
        PlacementRow::Hash(starts) => Placement::Hash(hash_ranges(starts.unwrap_or_default())?),
        PlacementRow::Range(ranges) => {
            Placement::Range(ValueRanges::try_new(key_type, ranges.unwrap_or_default())?)
        }
        PlacementRow::List(values) => {
            Placement::List(ValueList::try_new(key_type, values.unwrap_or_default())?)
        }
    };
    Ok(ColocationGroup { id: GroupId(row.id), key_type, placement })
}

/// Each range ends where the next one starts.
fn hash_ranges(mut starts: Vec<(i64, u32)>) -> Result<RangeMap, MapError> {
    starts.sort_unstable();
    let ends = starts.iter().skip(1).map(|(start, _)| Some(KeyHash(*start))).chain([None]);
    let ranges = starts
        .iter()
        .zip(ends)
        .map(|((start, shard), end)| (HashRange { start: KeyHash(*start), end }, ShardId(*shard)))
        .collect();
    RangeMap::try_new(ranges)
}

fn relation(row: RelationRow, groups: &[ColocationGroup]) -> Result<Relation, MapError> {
    let name = TableName { schema: row.schema, name: row.name };
    let table = |kind, columns: Option<Vec<Column>>| {
        let columns = columns.unwrap_or_default().into_boxed_slice();
        RelationKind::Sharded(Arc::new(Table { name: name.clone(), kind, columns }))
    };
    let kind = match row.kind {
        Kind::Home => RelationKind::Home,
        Kind::View => {
            let columns = row.columns.unwrap_or_default().into_boxed_slice();
            let body = row.view.ok_or_else(|| MapError::Invalid(format!("view {name}").into()))?;
            RelationKind::View(Arc::new(View { name: name.clone(), columns, body }))
        }
        Kind::ViewOverDistributed => RelationKind::ViewOverDistributed,
        Kind::ViewOverReference => RelationKind::ViewOverReference,
        Kind::Reference => table(TableKind::Reference, row.columns),
        Kind::Distributed => {
            let key = row.key.as_deref().unwrap_or_default();
            let position = row.columns.iter().flatten().position(|column| &*column.name == key);
            let group = groups.iter().find(|group| Some(group.id.0) == row.group);
            match (position, group) {
                (Some(key), Some(group)) => table(
                    TableKind::Distributed { key, key_type: group.key_type, group: group.id },
                    row.columns,
                ),
                _ => return Err(MapError::Invalid(format!("key or group of {name}").into())),
            }
        }
    };
    Ok(Relation { name, kind })
}
