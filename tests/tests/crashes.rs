//! Transfers between shards while routers and shards die and links break: `kill -9`, real servers.
//!
//! Every transfer moves money between accounts on several shards and leaves a line in each one's
//! journal. Afterwards no money may be made or lost, a transfer is there as a whole or not at all,
//! and what its client was told is true.
//!
//! - `failpoints`: the router dies between every two steps of the protocol.
//! - `chaos`: routers, shards and links fail at random under load. `PGHERD_ROUTER_KILLS=100` makes
//!   a long run of it.
//! - `cost`: what a commit costs that keeps all this: round trips and fsyncs.
//! - `reads`: what is read meanwhile shows no half of a transfer.
//! - `durable`: a decision outlives its shard, whatever the client has set.

#[path = "crashes/bank.rs"]
mod bank;
#[path = "crashes/chaos.rs"]
mod chaos;
#[path = "crashes/cost.rs"]
mod cost;
#[path = "crashes/durable.rs"]
mod durable;
#[path = "crashes/failpoints.rs"]
mod failpoints;
#[path = "crashes/reads.rs"]
mod reads;
