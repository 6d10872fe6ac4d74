//! The router: PostgreSQL's protocol towards clients, plans executed on pooled server connections.
//!
//! Layers, each importing only lower ones: `error`, `telemetry`, `config` · `wire` · pure machines
//! (`scram`, `md5`, `hba`, `throttle`, `seats`, `proofs`, `session`, `two_phase`, `consistent_read`,
//! `copy_rows`, `merge`) · IO (`tls`, `dial`, `spool`, `client`, `verifiers`, `recovery`, `gate`, `pool`, `worker`) · `executor`, `deadlock`, `admin` · `frontend` · `serve`, `dev`, `cli`.

pub mod admin;
pub mod cli;
pub mod client;
pub mod config;
pub mod consistent_read;
pub mod console;
pub mod contact;
pub mod copy_rows;
pub mod deadlock;
pub mod dev;
pub mod dial;
pub mod error;
pub mod executor;
pub mod frontend;
pub mod gate;
pub mod hba;
pub mod md5;
pub mod merge;
pub mod numbers;
pub mod oids;
pub mod pool;
pub mod proofs;
pub mod recovery;
pub mod reload;
pub mod reshard;
pub mod scram;
pub mod seats;
pub mod serve;
pub mod session;
pub mod spool;
pub mod telemetry;
pub mod throttle;
pub mod tls;
pub mod two_phase;
pub mod verifiers;
pub mod wire;
pub mod worker;
