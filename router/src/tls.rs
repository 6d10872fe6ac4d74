//! TLS with rustls on both sides: [`server`] towards clients, [`client`] towards the shards.
//!
//! Certificates are read from PEM files. Neither side needs a restart for new ones: whoever holds
//! them looks at the files' times and loads what has changed; connections that are open keep what
//! they were made with.

mod certificate;
pub mod client;
mod files;
pub mod server;

pub use certificate::end_point;
