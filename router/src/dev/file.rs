//! `DIR/cluster.json`: where everything of a running local cluster is, for tools and tests.
//!
//! The file appears, complete, when the cluster is ready, and goes when it stops.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file's name in the data directory.
pub const CLUSTER_FILE: &str = "cluster.json";

/// What `DIR/cluster.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterFile {
    pub database: String,
    pub data_dir: PathBuf,
    /// Of the process that started the cluster.
    pub pid: u32,
    pub routers: Vec<RouterEntry>,
    pub shards: Vec<ShardEntry>,
    pub catalog: CatalogEntry,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouterEntry {
    pub name: String,
    pub dsn: String,
    pub listen: SocketAddr,
    /// Of `listen`.
    pub port: u16,
    pub http: SocketAddr,
    pub pid: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardEntry {
    pub id: u32,
    pub dsn: String,
    pub port: u16,
    /// Of the postmaster.
    pub pid: u32,
    pub data_dir: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CatalogEntry {
    pub dsn: String,
}

impl ClusterFile {
    /// Reads what a running cluster wrote into its data directory.
    ///
    /// # Errors
    /// One sentence.
    pub fn read(data_dir: &Path) -> Result<Self, String> {
        read_json(&data_dir.join(CLUSTER_FILE))
    }

    pub(super) fn write(&self) -> Result<(), String> {
        write_json(&self.data_dir.join(CLUSTER_FILE), self)
    }
}

pub(super) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Readers see the old file or the new one, never a part.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    let fresh = path.with_extension("json.new");
    std::fs::write(&fresh, text + "\n")
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
