//! What the operator wants to have moved, as options.

use std::time::Duration;

use pgherd_shard_map::{
    GroupId, HashRange, KeyHash, KeyInput, Placement, ShardId, ShardMap, TableName,
};

use crate::cli::Failure;
use crate::reshard::distribute::Wanted;
use crate::reshard::proposal::{Weights, Wish};
use crate::reshard::size::Weight;

#[derive(Debug, clap::Args)]
#[group(id = "wish", multiple = true)]
pub(in crate::cli) struct WishArgs {
    /// Give every shard the same part of the hash space.
    #[arg(long, conflicts_with_all = ["split", "drain", "merge", "isolate", "range"])]
    spread: bool,
    /// Give every shard about the same number of bytes, as they are now; or the same load (--by).
    #[arg(long, conflicts_with_all = ["spread", "split", "drain", "merge", "isolate", "range",
        "distribute"])]
    balance: bool,
    /// What --balance weighs: the bytes of tables, or their load (scans begun and rows written).
    #[arg(long, value_enum, default_value = "bytes", requires = "balance")]
    by: By,
    /// How long load is counted; with 0s, what was counted since statistics were last reset.
    #[arg(long, value_name = "TIME", default_value = "10s", requires = "balance",
        value_parser = super::duration)]
    within: Duration,
    /// Give half of a shard's ranges to another (--to).
    #[arg(long, value_name = "SHARD", conflicts_with_all = ["drain", "merge", "isolate", "range"])]
    split: Option<u32>,
    /// Give all of a shard's ranges to the others, or to those of --to.
    #[arg(long, value_name = "SHARD", conflicts_with_all = ["merge", "isolate", "range"])]
    drain: Option<u32>,
    /// Give everything to one shard.
    #[arg(long, value_name = "SHARD", conflicts_with_all = ["isolate", "range", "to"])]
    merge: Option<u32>,
    /// Give the rows of one key to a shard (--to), for example orders=42.
    #[arg(long, value_name = "TABLE=KEY", conflicts_with = "range")]
    isolate: Option<String>,
    /// Give GROUP:START:END of the hash space to a shard (--to); an empty end is the end.
    #[arg(long, value_name = "RANGE")]
    range: Option<String>,
    /// Distribute plain tables with their rows, colocated, each by a column: orders=customer_id.
    #[arg(long, value_name = "TABLE=COLUMN", value_delimiter = ',',
        conflicts_with_all = ["spread", "split", "drain", "merge", "isolate", "range"])]
    distribute: Vec<String>,
    /// With --distribute: a distributed table whose rows theirs go to.
    #[arg(long, value_name = "TABLE", requires = "distribute", conflicts_with = "to")]
    colocate_with: Option<String>,
    /// The shards that get them.
    #[arg(long, value_name = "SHARD", value_delimiter = ',')]
    to: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Bytes,
    Load,
}

impl WishArgs {
    pub(super) const fn is_given(&self) -> bool {
        self.spread
            || self.balance
            || self.split.is_some()
            || self.drain.is_some()
            || self.merge.is_some()
            || self.isolate.is_some()
            || self.range.is_some()
            || !self.distribute.is_empty()
    }

    /// The plain tables that are to be distributed, if that is what is wished.
    pub(super) fn distribution(&self, map: &ShardMap) -> Result<Option<Wanted>, Failure> {
        if self.distribute.is_empty() {
            return Ok(None);
        }
        let example = "For example --distribute customers=id,orders=customer_id.";
        let mut tables = Vec::new();
        for text in &self.distribute {
            let (name, column) = text.split_once('=').ok_or_else(|| {
                Failure::new(format!("--distribute {text}: expected TABLE=COLUMN"), example)
            })?;
            tables.push((table(map, name)?, column.to_owned()));
        }
        let with = self.colocate_with.as_ref().map(|name| table(map, name)).transpose()?;
        let over = self.to.iter().map(|id| known(map, *id)).collect::<Result<_, _>>()?;
        Ok(Some(Wanted { tables, with, over }))
    }

    /// What the shards are to be compared by, if they are.
    pub(super) fn weight(&self) -> Option<Weight> {
        self.balance.then_some(match self.by {
            By::Bytes => Weight::Bytes,
            By::Load => Weight::Load(self.within),
        })
    }

    /// `weights` are the shards', if they are asked for.
    pub(super) fn read(&self, map: &ShardMap, weights: Weights) -> Result<Wish, Failure> {
        let known = |id: u32| known(map, id);
        let targets: Vec<ShardId> =
            self.to.iter().map(|id| known(*id)).collect::<Result<_, _>>()?;
        let one = || match targets[..] {
            [to] => Ok(to),
            _ => Err(Failure::new("which shard gets the rows?", "Give --to with its number.")),
        };
        let all = || map.shards().map(|shard| shard.id);
        if let Some(from) = self.split {
            return Ok(Wish::Split { from: known(from)?, to: one()? });
        }
        if let Some(from) = self.drain {
            let from = known(from)?;
            let to = match targets.is_empty() {
                true => all().filter(|shard| *shard != from).collect(),
                false => targets,
            };
            return Ok(Wish::Drain { from, to });
        }
        if let Some(to) = self.merge {
            return Ok(Wish::Spread { over: vec![known(to)?] });
        }
        if let Some(text) = &self.isolate {
            let (group, hash) = key(map, text)?;
            return Ok(Wish::Isolate { group, hash, to: one()? });
        }
        if let Some(text) = &self.range {
            let (group, range) = range(text)?;
            return Ok(Wish::Range { group, range, to: one()? });
        }
        if self.balance {
            let over = if targets.is_empty() { all().collect() } else { targets };
            return Ok(Wish::Balance { over, weights });
        }
        Ok(Wish::Spread { over: if targets.is_empty() { all().collect() } else { targets } })
    }
}

fn known(map: &ShardMap, id: u32) -> Result<ShardId, Failure> {
    map.shard(ShardId(id)).map(|shard| shard.id).ok_or_else(|| {
        Failure::new(format!("there is no shard {id}"), "pgherd shard list shows all.")
    })
}

/// A table by its name, in the schema public unless it says another.
fn table(map: &ShardMap, text: &str) -> Result<TableName, Failure> {
    let (schema, name) = text.split_once('.').unwrap_or(("public", text));
    let table = TableName::new(schema, name);
    match map.relation(&table) {
        Some(_) => Ok(table),
        None => Err(Failure::new(
            format!("there is no table {schema}.{name}"),
            "Names are as PostgreSQL has them: in lower case, unless they were made with quotes.",
        )),
    }
}

/// The group and the hash of `table=key`.
fn key(map: &ShardMap, text: &str) -> Result<(GroupId, KeyHash), Failure> {
    let example = "For example --isolate orders=42, or --isolate sales.orders=42.";
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| Failure::new(format!("--isolate {text}: expected TABLE=KEY"), example))?;
    let group = map.group_of(&table(map, name)?);
    let by_hash = group.filter(|group| matches!(group.placement, Placement::Hash(_)));
    let group = by_hash
        .ok_or_else(|| Failure::new(format!("{name} is not distributed by hash"), example))?;
    let hash = group.key_type.hash(KeyInput::Text(value.as_bytes()));
    let hash = hash.map_err(|error| Failure::new(format!("{value}: {error}"), example))?;
    Ok((group.id, hash))
}

fn range(text: &str) -> Result<(GroupId, HashRange), Failure> {
    let wrong = || {
        Failure::new(
            format!("--range {text}: expected GROUP:START:END"),
            "The view pgherd.ranges has groups and starts.",
        )
    };
    let parts: Vec<&str> = text.split(':').collect();
    let [group, start, end] = parts[..] else { return Err(wrong()) };
    let number = |text: &str| text.parse::<i64>().map(KeyHash).map_err(|_| wrong());
    let end = if end.is_empty() { None } else { Some(number(end)?) };
    let group = group.parse().map_err(|_| wrong())?;
    Ok((GroupId(group), HashRange { start: number(start)?, end }))
}
