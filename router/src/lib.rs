//! The router: PostgreSQL's protocol towards clients, plans executed on pooled server connections.
//!
//! Layers, each importing only lower ones: `error`, `telemetry`, `config` · `wire` · pure machines
//! (`session`, `merge`, `copy_rows`, `two_phase`, `scram`) · IO (`tls`, `pool`, `map_watch`,
//! `plan_cache`) · `executor`, `recovery`, `admin` · `frontend` · `serve`, `dev`, `cli`.

pub mod cli;
pub mod config;
pub mod copy_rows;
pub mod dev;
pub mod merge;
pub mod recovery;
pub mod scram;
pub mod telemetry;
pub mod two_phase;
pub mod admin;
