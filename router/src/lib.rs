//! The router: PostgreSQL's protocol towards clients, plans executed on pooled server connections.
//!
//! Layers, each importing only lower ones: `error`, `telemetry`, `config` · `wire` · pure machines
//! (`scram`, `session`, `two_phase`, `copy_rows`) · IO (`tls`, `client`, `verifiers`, `pool`, `worker`) · `executor`, `recovery`,
//! `reload`, `admin`, `console` · `frontend` · `serve`, `dev`, `cli`.

pub mod admin;
pub mod cli;
pub mod client;
pub mod config;
pub mod console;
pub mod copy_rows;
pub mod dev;
pub mod error;
pub mod executor;
pub mod frontend;
pub mod pool;
pub mod recovery;
pub mod reload;
pub mod scram;
pub mod serve;
pub mod session;
pub mod telemetry;
pub mod tls;
pub mod two_phase;
pub mod verifiers;
pub mod wire;
pub mod worker;
