//! Where keys are, for clients that choose their shards.

use pgherd_shard_map::store;
use pgherd_shard_map::{GroupId, KeyInput, RelationKind, ShardMap, TableKind, TableName};

/// Which shard holds which key: found once, so that clients pay no more than a look.
pub(crate) struct KeyShards(Vec<u8>);

impl KeyShards {
    /// Of a table in the schema `public`, and keys from 0 to `keys`.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn load(catalog: &str, table: &str, keys: u64) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let catalog = store::Target::plain(catalog).map_err(|error| error.to_string())?;
        let map = runtime.block_on(async { store::Catalog::connect(catalog).await?.load().await });
        let map = map.map_err(|error| format!("the shard map: {error}"))?;
        let group = group_of(&map, table).ok_or_else(|| format!("{table} is not distributed"))?;
        let shard = |key: u64| {
            let text = key.to_string();
            let shard = map.shard_for(group, KeyInput::Text(text.as_bytes()));
            let shard = shard.map_err(|error| error.to_string())?;
            let at = map.shards().position(|known| known.id == shard);
            at.and_then(|at| u8::try_from(at).ok()).ok_or_else(|| "too many shards".to_owned())
        };
        Ok(Self((0..=keys).map(shard).collect::<Result<_, String>>()?))
    }

    pub(crate) fn keys(&self) -> u64 {
        self.0.len() as u64 - 1
    }

    pub(crate) fn shard(&self, key: u64) -> usize {
        usize::from(self.0[key as usize])
    }
}

fn group_of(map: &ShardMap, table: &str) -> Option<GroupId> {
    match map.relation(&TableName::new("public", table))? {
        RelationKind::Sharded(table) => match table.kind {
            TableKind::Distributed { group, .. } => Some(group),
            TableKind::Reference => None,
        },
        _ => None,
    }
}
