//! The shard map: one immutable snapshot of the cluster at one epoch.

use std::collections::BTreeMap;

use foldhash::HashMap;
use thiserror::Error;

use crate::{
    ColocationGroup, ColumnDefault, Epoch, GroupId, HashRange, KeyError, KeyHash, KeyInput,
    KeyType, Relation, RelationKind, SessionEffects, ShardId, StrayingTrigger, TableKind,
    TableName, UserFunctions,
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
    /// Groups whose rows are on their way from shard to shard: a shard may hold copies of another
    /// one's, and may say of some that it has them no more.
    pub moving: Box<[GroupId]>,
    /// Some views could not be read, since somebody had locked what they read: they are refused
    /// until the map is loaded again.
    pub locked_views: bool,
    /// Tables that a transaction is distributing, or brings home, and views that read them:
    /// statements that name them wait for its end.
    pub changing: Box<[TableName]>,
    pub functions: UserFunctions,
    shards: BTreeMap<ShardId, Shard>,
    groups: BTreeMap<GroupId, ColocationGroup>,
    relations: HashMap<TableName, RelationKind>,
    session_effects: SessionEffects,
    straying: Box<[StrayingTrigger]>,
    /// The shortest `varchar(n)` key column of a group; none where all are without length.
    varchar_limits: BTreeMap<GroupId, usize>,
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
    #[error("{0}")]
    Invalid(Box<str>),
}

impl ShardMap {
    /// Whether the transaction that made this epoch, and read it, has seen it as everybody does after
    /// the commit: nothing in it is held back for a change that is under way.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.changing.is_empty() && !self.locked_views
    }

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
            moving: Box::default(),
            locked_views: false,
            changing: Box::default(),
            shards: shards.into_iter().map(|shard| (shard.id, shard)).collect(),
            groups: groups.into_iter().map(|group| (group.id, group)).collect(),
            varchar_limits: varchar_limits(&relations),
            functions: UserFunctions::default(),
            session_effects: SessionEffects::default(),
            straying: Box::default(),
            relations: relations.into_iter().map(|r| (r.name, r.kind)).collect(),
        };
        if map.shards.is_empty() {
            return Err(MapError::NoShards);
        }
        map.check()?;
        Ok(map)
    }

    /// The same at a later epoch: nothing has changed but where rows are.
    pub(crate) fn with_groups(
        &self,
        epoch: Epoch,
        moving: Box<[GroupId]>,
        groups: Vec<ColocationGroup>,
    ) -> Result<Self, MapError> {
        let groups = groups.into_iter().map(|group| (group.id, group)).collect();
        let map = Self { epoch, moving, groups, ..self.clone() };
        map.check()?;
        Ok(map)
    }

    fn check(&self) -> Result<(), MapError> {
        let known = |shard: ShardId| {
            self.shards.contains_key(&shard).then_some(()).ok_or(MapError::UnknownShard(shard))
        };
        known(self.home)?;
        for group in self.groups.values() {
            group.placement.shards().into_iter().try_for_each(known)?;
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

    /// Whether there is a distributed or a reference table.
    #[must_use]
    pub fn has_sharded(&self) -> bool {
        self.relations().any(|(_, kind)| matches!(kind, RelationKind::Sharded(_)))
    }

    /// The group of a distributed table.
    #[must_use]
    pub fn group_of(&self, table: &TableName) -> Option<&ColocationGroup> {
        match self.relation(table)? {
            RelationKind::Sharded(table) => match table.kind {
                TableKind::Distributed { group, .. } => self.group(group),
                TableKind::Reference => None,
            },
            _ => None,
        }
    }

    /// Whether columns of distributed or reference tables are numbered by this sequence.
    #[must_use]
    pub fn feeds_sharded(&self, sequence: &TableName) -> bool {
        self.relations().any(|(_, kind)| {
            match kind {
            RelationKind::Sharded(table) => table.columns.iter().any(|column| {
                matches!(&column.default, ColumnDefault::Sequence(own) if own.name == *sequence)
            }),
            _ => false,
        }
        })
    }

    #[must_use]
    pub fn with_session_effects(self, session_effects: SessionEffects) -> Self {
        Self { session_effects, ..self }
    }

    #[must_use]
    pub fn with_straying(self, straying: Box<[StrayingTrigger]>) -> Self {
        Self { straying, ..self }
    }

    /// Triggers that keep their tables from being written.
    #[must_use]
    pub fn straying(&self) -> &[StrayingTrigger] {
        &self.straying
    }

    /// What calls do to the session of their server.
    #[must_use]
    pub fn session_effects(&self) -> &SessionEffects {
        &self.session_effects
    }

    pub fn relations(&self) -> impl ExactSizeIterator<Item = (&TableName, &RelationKind)> + '_ {
        self.relations.iter()
    }

    /// Whether the group's keys are texts.
    #[must_use]
    pub fn has_text_keys(&self, group: GroupId) -> bool {
        use KeyType::{Bpchar, Enum, Text, Varchar};
        let group = self.groups.get(&group);
        group.is_some_and(|group| matches!(group.key_type, Text | Varchar | Bpchar | Enum))
    }

    /// The shard that holds the rows with this key.
    ///
    /// # Errors
    /// [`KeyError`] when the value has no hash or nothing covers it. An unknown group answers
    /// [`KeyError::Uncovered`]. A value that a `varchar(n)` key column of the group would store
    /// without some of its trailing blanks is [`KeyError::Unsupported`].
    pub fn shard_for(&self, group: GroupId, key: KeyInput<'_>) -> Result<ShardId, KeyError> {
        if let Some(limit) = self.varchar_limits.get(&group)
            && key.may_lose_blanks(*limit)
        {
            return Err(KeyError::Unsupported {
                key_type: KeyType::Varchar,
                reason: "the column's length would cut its trailing blanks",
            });
        }
        self.groups.get(&group).ok_or(KeyError::Uncovered)?.shard_for(key)
    }
}

fn varchar_limits(relations: &[Relation]) -> BTreeMap<GroupId, usize> {
    let mut limits = BTreeMap::new();
    for relation in relations {
        if let RelationKind::Sharded(table) = &relation.kind
            && let TableKind::Distributed { key_type: KeyType::Varchar, group, .. } = table.kind
            && let Some(limit) = table.key_column().and_then(|column| length(&column.type_name))
        {
            let shortest = limits.entry(group).or_insert(limit);
            *shortest = limit.min(*shortest);
        }
    }
    limits
}

/// The number in `character varying(20)`.
fn length(type_name: &str) -> Option<usize> {
    type_name.split_once('(')?.1.split_once(')')?.0.parse().ok()
}

impl ColocationGroup {
    /// The shard that holds the rows with this key. It knows nothing of the lengths of `varchar`
    /// columns: for a row that is to be stored, ask [`ShardMap::shard_for`].
    ///
    /// # Errors
    /// [`KeyError`] when the value has no hash or nothing covers it.
    pub fn shard_for(&self, key: KeyInput<'_>) -> Result<ShardId, KeyError> {
        self.placement.shard_for(self.key_type, key)
    }

    /// SQL that is true for exactly the rows that `shard` owns; NULL for a NULL key. `column` is
    /// quoted already.
    #[must_use]
    pub fn shard_predicate(&self, shard: ShardId, column: &str) -> Option<String> {
        self.placement.predicate(self.key_type, shard, column)
    }

    /// SQL that is true for exactly the rows of a part of the hash space, and a publication accepts;
    /// `None` for a key type whose hash PostgreSQL does not hold for immutable.
    #[must_use]
    pub fn range_predicate(&self, range: HashRange, column: &str) -> Option<String> {
        Some(range.predicate(&self.key_type.hash_expression(column)?))
    }
}
