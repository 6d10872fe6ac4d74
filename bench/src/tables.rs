//! pgbench's tables on every contender: the same schema and rows, distributed where that exists.

use crate::case::{Layout, Protocol};
use crate::contenders::{Contender, Contenders};
use crate::pgbench;
use crate::wire::Connection;

/// Makes the tables anew on the plain server and on pgherd's shards.
///
/// # Errors
/// What pgbench or a server said.
pub(crate) fn load(contenders: &Contenders, layout: Layout, scale: u32) -> Result<(), String> {
    load_into(contenders, Contender::Direct, layout, scale)?;
    load_pgherd(contenders, layout, scale)
}

/// Makes the tables anew on pgherd's shards only.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_pgherd(
    contenders: &Contenders,
    layout: Layout,
    scale: u32,
) -> Result<(), String> {
    load_into(contenders, Contender::Pgherd, layout, scale)
}

fn load_into(
    contenders: &Contenders,
    contender: Contender,
    layout: Layout,
    scale: u32,
) -> Result<(), String> {
    eprintln!("loading pgbench's tables, scale {scale}, into {}", contender.name());
    let dsn = contenders.dsn(contender, Protocol::Simple);
    fill(&dsn, contender, layout, scale)
        .map_err(|error| format!("loading tables into {}: {error}", contender.name()))
}

fn fill(dsn: &str, contender: Contender, layout: Layout, scale: u32) -> Result<(), String> {
    pgbench::initialize(dsn, "dt", scale)?;
    let mut connection = Connection::open(dsn)?;
    if contender == Contender::Pgherd {
        for (table, key) in distribution(layout) {
            connection.query(&format!("SELECT create_distributed_table('{table}', '{key}')"))?;
        }
    }
    pgbench::initialize(dsn, "g", scale)?;
    for (table, key) in primary_keys(layout) {
        connection.query(&format!("ALTER TABLE {table} ADD PRIMARY KEY ({key})"))?;
    }
    pgbench::initialize(dsn, "v", scale)
}

fn distribution(layout: Layout) -> [(&'static str, &'static str); 4] {
    let key = |own| match layout {
        Layout::ByOwnKey => own,
        Layout::ByBranch => "bid",
    };
    [
        ("pgbench_branches", "bid"),
        ("pgbench_tellers", key("tid")),
        ("pgbench_accounts", key("aid")),
        ("pgbench_history", key("aid")),
    ]
}

/// Uniqueness over shards can only be promised for keys that contain the distribution column.
fn primary_keys(layout: Layout) -> [(&'static str, &'static str); 3] {
    match layout {
        Layout::ByOwnKey => {
            [("pgbench_branches", "bid"), ("pgbench_tellers", "tid"), ("pgbench_accounts", "aid")]
        }
        Layout::ByBranch => [
            ("pgbench_branches", "bid"),
            ("pgbench_tellers", "bid, tid"),
            ("pgbench_accounts", "bid, aid"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_primary_key_contains_the_distribution_column() {
        for layout in [Layout::ByOwnKey, Layout::ByBranch] {
            for (table, key) in primary_keys(layout) {
                let by = distribution(layout).into_iter().find(|(name, _)| *name == table);
                let (_, column) = by.expect("every table with a key is distributed");
                assert!(key.split(", ").any(|part| part == column), "{table} {key} {column}");
            }
        }
    }

    #[test]
    fn by_branch_everything_goes_by_bid() {
        assert!(distribution(Layout::ByBranch).iter().all(|(_, key)| *key == "bid"));
    }
}
