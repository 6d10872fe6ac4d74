//! The shard map: one immutable snapshot of the cluster at one epoch.

use std::collections::BTreeMap;

use foldhash::HashMap;
use thiserror::Error;

use crate::{
    ColocationGroup, Epoch, GroupId, KeyError, KeyHash, KeyInput, Placement, Relation,
    RelationKind, ShardId, TableKind, TableName,
};

/// One PostgreSQL database that holds a part of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub id: ShardId,
    /// How routers reach it: a `postgres://` URL without user where users log in themselves.
    pub dsn: Box<str>,
}

/// Everything that planning needs to know, at one epoch. Cheap to share (`Arc`), never changed.
#[derive(Debug, Clone)]
pub struct ShardMap {
    pub epoch: Epoch,
    /// The shard that keeps what nobody distributed.
    pub home: ShardId,
    /// Text comparison by bytes equals the database's default collation (C, POSIX, C.UTF-8).
    pub bytewise_collation: bool,
    shards: BTreeMap<ShardId, Shard>,
    groups: BTreeMap<GroupId, ColocationGroup>,
    relations: HashMap<TableName, RelationKind>,
}

/// Why a map cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MapError {
    #[error("a cluster needs at least one shard")]
    NoShards,
    #[error("the ranges of the hash space do not cover it exactly once, at {at}")]
    Uncovered { at: KeyHash },
    #[error("shard {0} is named but not in the catalog")]
    UnknownShard(ShardId),
    #[error("colocation group {0} is named but not in the catalog")]
    UnknownGroup(GroupId),
    #[error("the map is at epoch {current}, the change was made for {expected}")]
    StaleEpoch { current: Epoch, expected: Epoch },
    #[error("{0}")]
    Invalid(Box<str>),
}

impl ShardMap {
    /// Checks that every shard and group that is named exists.
    ///
    /// # Errors
    /// [`MapError`] says what is missing.
    pub fn try_new(
        epoch: Epoch,
        home: ShardId,
        bytewise_collation: bool,
        shards: Vec<Shard>,
        groups: Vec<ColocationGroup>,
        relations: Vec<Relation>,
    ) -> Result<Self, MapError> {
        let map = Self {
            epoch,
            home,
            bytewise_collation,
            shards: shards.into_iter().map(|shard| (shard.id, shard)).collect(),
            groups: groups.into_iter().map(|group| (group.id, group)).collect(),
            relations: relations.into_iter().map(|r| (r.name, r.kind)).collect(),
        };
        if map.shards.is_empty() {
            return Err(MapError::NoShards);
        }
        map.check()?;
        Ok(map)
    }

    fn check(&self) -> Result<(), MapError> {
        let known = |shard: ShardId| {
            self.shards.contains_key(&shard).then_some(()).ok_or(MapError::UnknownShard(shard))
        };
        known(self.home)?;
        for group in self.groups.values() {
            match &group.placement {
                Placement::Hash(ranges) => ranges.iter().try_for_each(|(_, s)| known(s))?,
                Placement::Range(ranges) => ranges.iter().try_for_each(|r| known(r.shard))?,
                Placement::List(values) => values.iter().try_for_each(|(_, s)| known(*s))?,
            }
        }
        for kind in self.relations.values() {
            if let RelationKind::Sharded(table) = kind
                && let TableKind::Distributed { group, .. } = table.kind
                && !self.groups.contains_key(&group)
            {
                return Err(MapError::UnknownGroup(group));
            }
        }
        Ok(())
    }

    /// All shards, by id.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = &Shard> + Clone + '_ {
        self.shards.values()
    }

    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards.get(&id)
    }

    pub fn groups(&self) -> impl ExactSizeIterator<Item = &ColocationGroup> + '_ {
        self.groups.values()
    }

    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<&ColocationGroup> {
        self.groups.get(&id)
    }

    /// What a qualified name is; `None` where the user schemas have no such relation (a system
    /// catalog, a temporary table, a table that another client made a moment ago, a typo).
    #[must_use]
    pub fn relation(&self, name: &TableName) -> Option<&RelationKind> {
        self.relations.get(name)
    }

    pub fn relations(&self) -> impl ExactSizeIterator<Item = (&TableName, &RelationKind)> + '_ {
        self.relations.iter()
    }

    /// The shard that holds the rows with this key.
    ///
    /// # Errors
    /// [`KeyError`] when the value has no hash or nothing covers it. An unknown group answers
    /// [`KeyError::Uncovered`].
    pub fn shard_for(&self, group: GroupId, key: KeyInput<'_>) -> Result<ShardId, KeyError> {
        self.groups.get(&group).ok_or(KeyError::Uncovered)?.shard_for(key)
    }
}

impl ColocationGroup {
    /// The shard that holds the rows with this key.
    ///
    /// # Errors
    /// [`KeyError`] when the value has no hash or nothing covers it.
    pub fn shard_for(&self, key: KeyInput<'_>) -> Result<ShardId, KeyError> {
        match &self.placement {
            Placement::Hash(ranges) => Ok(ranges.shard_for(self.key_type.hash(key)?)),
            Placement::Range(_) | Placement::List(_) => Err(KeyError::Unsupported {
                key_type: self.key_type,
                reason: "range and list distributions are not supported yet",
            }),
        }
    }

    /// SQL that is true for exactly the rows that `shard` owns. `column` is quoted already.
    #[must_use]
    pub fn shard_predicate(&self, shard: ShardId, column: &str) -> Option<String> {
        let Placement::Hash(ranges) = &self.placement else { return None };
        let hash = self.key_type.hash_expression(column)?;
        let parts: Vec<String> = ranges
            .iter()
            .filter(|(_, owner)| *owner == shard)
            .map(|(range, _)| match range.end {
                Some(end) => format!(
                    "({hash} >= '{}'::pg_catalog.int8 AND {hash} < '{}'::pg_catalog.int8)",
                    range.start, end
                ),
                None => format!("({hash} >= '{}'::pg_catalog.int8)", range.start),
            })
            .collect();
        Some(if parts.is_empty() { "false".to_owned() } else { parts.join(" OR ") })
    }
}
