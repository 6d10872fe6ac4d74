//! What an idle client costs: memory of PgBouncer and of pgherd with thousands of them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::case::Protocol;
use crate::contenders::{Contender, Contenders};
use crate::interrupt;
use crate::procfs::Memory;
use crate::table::{Table, number};
use crate::wire::Connection;

/// Files besides the clients' connections, with room to spare.
const OTHER_FILES: u64 = 512;

/// Opens `clients` connections to each, runs one statement on every one, and lets them stand.
///
/// # Errors
/// What could not be started or opened.
pub(crate) fn run(clients: u32, shards: u32) -> Result<(), String> {
    // Before anything starts: children inherit the limit.
    raise_file_limit(u64::from(clients) + OTHER_FILES)?;
    let contenders = Contenders::start(shards, false)?;
    let mut table = Table::new(
        1,
        ["process", "clients", "RSS before, MiB", "RSS after, MiB", "bytes per client"],
    );
    for contender in [Contender::PgBouncer, Contender::Pgherd] {
        let Some(pid) = contenders.middle(contender) else { continue };
        let dsn = contenders.dsn(contender, Protocol::Simple);
        eprintln!("opening {clients} connections to {}", contender.name());
        // The first client's work (server connections, caches) is not an idle client's.
        visit(&dsn)?;
        let before = Memory::of(pid)?.now;
        let mut open = Vec::new();
        for count in 0..clients {
            interrupt::check()?;
            let connection = visit(&dsn)
                .map_err(|error| format!("{}, client {count}: {error}", contender.name()))?;
            open.push(connection);
        }
        let after = Memory::of(pid)?.now;
        let grown = after.saturating_sub(before) as f64;
        table.row(vec![
            contender.name().to_owned(),
            clients.to_string(),
            mebibytes(before),
            mebibytes(after),
            format!("{:.0}", grown / f64::from(clients.max(1))),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

/// A client that has done something and now does nothing.
fn visit(dsn: &str) -> Result<Connection, String> {
    let mut connection = Connection::open(dsn)?;
    connection.query("SELECT 1")?;
    Ok(connection)
}

fn mebibytes(bytes: u64) -> String {
    number(Some(bytes as f64 / f64::from(1 << 20)))
}

fn raise_file_limit(wanted: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let enough = |value: Option<u64>| value.is_none_or(|value| value >= wanted);
    if enough(limit.current) {
        return Ok(());
    }
    if !enough(limit.maximum) {
        return Err(format!(
            "a process may open {} files here, not {wanted}\nRaise it (ulimit -Hn {wanted}), or \
             give fewer --clients.",
            limit.maximum.unwrap_or(0)
        ));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
        .map_err(|error| format!("cannot raise the number of open files: {error}"))
}
