//! Where a row lives: **key → hash → range → shard → server**.
//!
//! A row of a distributed table has a *key* (the value of its distribution column). The key is
//! hashed with PostgreSQL's own extended hash function of its type; the 64-bit hash space is cut
//! into half-open *ranges*; each range lives on one *shard*; a shard is one PostgreSQL database.
//!
//! Worked example, four shards, table `orders` distributed by `customer_id int4`: the row with
//! `customer_id = 1` has the hash `hashint8extended(1, 0)`; the space of `i64` is cut into four
//! equal ranges; the range that contains the hash names the shard. Anyone with psql can check it.
//!
//! Instead of hashes, a group may place its values themselves, by ranges or one by one.
//!
//! The types, from small to large: [`ShardId`], [`GroupId`], [`Epoch`] (ids); [`KeyType`],
//! [`KeyInput`], [`KeyHash`] (keys); [`HashRange`], [`RangeMap`] (ranges); [`Column`], [`Table`],
//! [`TableKind`], [`View`], [`ColocationGroup`] (schema); [`Placement`], [`ValueRanges`], [`ValueList`]; [`Shard`], [`ShardMap`] (one immutable snapshot).
//! There is no IO here unless the feature `stores` is on.

mod functions;
mod hash;
mod id;
mod key;
mod map;
mod placement;
mod range;
mod schema;
mod session;
mod snapshot;
#[cfg(feature = "stores")]
pub mod store;

pub use functions::UserFunctions;
pub use hash::KeyHash;
pub use id::{Epoch, GroupId, ShardId};
pub use key::{KeyError, KeyInput, KeyType};
pub use map::{MapError, Shard, ShardMap};
pub use placement::{Placement, ValueList, ValueRanges};
pub use range::{HashRange, RangeMap};
pub use schema::{
    ColocationGroup, Column, ColumnDefault, ColumnSequence, Distribution, Identity, Relation,
    RelationKind, Table, TableKind, TableName, ValueRange, View, ViewBody, quoted,
};
pub use session::{SessionEffect, SessionEffects, StrayingTrigger};
