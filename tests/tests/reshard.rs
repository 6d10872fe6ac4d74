//! `pgherd reshard` under load: what clients were told is there, once, on the right shard.

#[path = "reshard/balance.rs"]
mod balance;
#[path = "reshard/command.rs"]
mod command;
#[path = "reshard/crashes.rs"]
mod crashes;
#[path = "reshard/cut_off.rs"]
mod cut_off;
#[path = "reshard/ddl.rs"]
mod ddl;
#[path = "reshard/distribute.rs"]
mod distribute;
#[path = "reshard/everything.rs"]
mod everything;
#[path = "reshard/killed.rs"]
mod killed;
#[path = "reshard/late.rs"]
mod late;
#[path = "reshard/load.rs"]
mod load;
#[path = "reshard/reads.rs"]
mod reads;
#[path = "reshard/refused.rs"]
mod refused;
#[path = "reshard/shapes.rs"]
mod shapes;
#[path = "reshard/shards.rs"]
mod shards;
#[path = "reshard/throttle.rs"]
mod throttle;
#[path = "reshard/tls.rs"]
mod tls;
#[path = "reshard/tutorial.rs"]
mod tutorial;
#[path = "reshard/ways.rs"]
mod ways;
#[path = "reshard/wrong.rs"]
mod wrong;
