//! Wire scripts: messages that are sent as they stand, and the messages that must come back, on
//! plain PostgreSQL and through the router.
//!
//! A script is a text file of cases. Each case has a connection of its own, already logged in, and
//! tables that [`FIXTURE`] fills anew: `w` is distributed by `k`, `h` lives on the home shard, `r`
//! is a reference table.
//!
//! ```text
//! case: an error skips to Sync                 a new case
//! sql: CREATE TABLE t (k int)                  beforehand, on both sides (`router:` there only)
//! login: application_name=x                    more of the startup packet
//! raw:                                         do not log in: the case sends its own first packet
//! whole:                                       timing matters: do not send it byte by byte
//! unordered:                                   rows may come in any order
//! on: b                                        go on with another connection
//! > Query "SELECT 1"                           consecutive messages leave in one write
//! until: BindComplete                          stop reading there, not at ReadyForQuery
//! differs: why                                 the router may answer otherwise, as `<r` says
//! < ReadyForQuery I                            what both answer; `<p` PostgreSQL, `<r` the router
//! ```
//!
//! Every case runs twice: as it stands, and with every byte in a write of its own. With
//! `PGHERD_WIRE_WRITE=1` the answers are written into the scripts instead, to be read in the diff.

mod message;
mod script;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pgherd::dev::LocalCluster;

pub use script::{Case, Script, Step};

use crate::parity::Side;
use crate::wire::Client;
use message::{Decoder, Sent};

/// What scripts find on both sides: distributed, at home, and everywhere.
const TABLES: &str = "CREATE TABLE w (k int PRIMARY KEY, v text NOT NULL); \
    CREATE TABLE h (k int PRIMARY KEY, v text NOT NULL); \
    CREATE TABLE r (k int PRIMARY KEY, v text NOT NULL)";

/// PostgreSQL's side is another database of the home shard's server.
#[must_use]
pub fn sides(cluster: &LocalCluster) -> [Side; 2] {
    let home = &cluster.file.shards[0];
    crate::run(&home.dsn, "CREATE DATABASE plain");
    let address = SocketAddr::from(([127, 0, 0, 1], home.port));
    crate::run(&format!("postgres://postgres@{address}/plain"), TABLES);
    crate::run(cluster.dsn(), TABLES);
    crate::run(cluster.dsn(), "SELECT create_distributed_table('w', 'k')");
    crate::run(cluster.dsn(), "SELECT create_reference_table('r')");
    let plain = Side { address, database: "plain".to_owned() };
    let database = cluster.file.database.clone();
    [plain, Side { address: cluster.file.routers[0].listen, database }]
}

/// A server that says nothing for so long has nothing more to say.
const SILENCE: Duration = Duration::from_secs(10);

/// What every case finds.
pub const FIXTURE: &str = "TRUNCATE w; TRUNCATE h; TRUNCATE r; \
    INSERT INTO w VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four'), (5, 'five'), \
    (6, 'six'), (7, 'seven'), (8, 'eight'); \
    INSERT INTO h VALUES (1, 'one'), (2, 'two'), (3, 'three'); \
    INSERT INTO r VALUES (1, 'one'), (2, 'two')";

/// How the bytes of a case leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Whole,
    ByteByByte,
}

/// What each step of a case was answered.
pub type Answers = Vec<Vec<String>>;

/// Runs one case on one side.
///
/// # Errors
/// The side does not let anybody in, or the case's preparation fails there.
pub fn run(side: &Side, case: &Case, pace: Pace, router: bool) -> Result<Answers, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut setup = Client::connect(side.address, &side.database).map_err(text)?;
    let only_router = case.router.iter().filter(|_| router);
    for sql in [FIXTURE].into_iter().chain(case.sql.iter().chain(only_router).map(String::as_str)) {
        let answer = setup.simple(sql, "").map_err(text)?;
        if answer.error.is_some() {
            return Err(format!("{sql}: {}", answer.lines.join("; ")));
        }
    }
    let mut connections: HashMap<&str, Connection> = HashMap::new();
    let mut answers = Vec::new();
    for step in &case.steps {
        if !connections.contains_key(&*step.connection) {
            let mut connection = Connection::open(side, pace).map_err(text)?;
            if !case.raw {
                connection.log_in(&case.login)?;
            }
            connections.insert(&step.connection, connection);
        }
        let Some(connection) = connections.get_mut(&*step.connection) else { continue };
        let mut lines = connection.exchange(step)?;
        sort_parameters(&mut lines);
        if case.unordered {
            sort_rows(&mut lines);
        }
        answers.push(lines);
    }
    Ok(answers)
}

/// What a login says of its parameters: since PostgreSQL 16 in no order that is promised, and more
/// of them.
fn sort_parameters(lines: &mut Vec<String>) {
    let name = |line: &str| {
        let name = line.strip_prefix("ParameterStatus ")?.strip_suffix(" *")?;
        Some(name.to_ascii_lowercase())
    };
    lines.retain(|line| {
        !name(line).is_some_and(|name| matches!(&*name, "scram_iterations" | "search_path"))
    });
    for parameters in lines.chunk_by_mut(|a, b| name(a).is_some() && name(b).is_some()) {
        parameters.sort_by_key(|line| name(line));
    }
}

/// Rows between two other messages have no order that is promised.
fn sort_rows(lines: &mut [String]) {
    let is_row = |line: &String| line.starts_with("DataRow") || line.starts_with("CopyData");
    for rows in lines.chunk_by_mut(|a, b| is_row(a) && is_row(b)) {
        rows.sort();
    }
}

struct Connection {
    stream: TcpStream,
    pace: Pace,
    decoder: Decoder,
    database: String,
    closed: bool,
}

impl Connection {
    fn open(side: &Side, pace: Pace) -> std::io::Result<Self> {
        let stream = TcpStream::connect(side.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let decoder = Decoder::default();
        Ok(Self { stream, pace, decoder, database: side.database.clone(), closed: false })
    }

    fn log_in(&mut self, more: &str) -> Result<(), String> {
        let startup = format!("Startup 3.0 user=postgres database=$database {more}");
        let step = Step { send: vec![startup], ..Step::default() };
        let lines = self.exchange(&step)?;
        match lines.last().map(String::as_str) {
            Some("ReadyForQuery I") => Ok(()),
            _ => Err(format!("cannot log in: {lines:?}")),
        }
    }

    /// Sends what the step sends and reads what it waits for.
    fn exchange(&mut self, step: &Step) -> Result<Vec<String>, String> {
        let mut bytes = Vec::new();
        let mut ready = 0;
        for line in &step.send {
            let line = line.replace("$database", &self.database);
            match message::encode(&line, &mut bytes)? {
                Sent::Request => ready += 1,
                Sent::Negotiation => self.decoder.bare += 1,
                Sent::Other => {}
            }
        }
        let written = match self.pace {
            Pace::Whole => self.stream.write_all(&bytes),
            Pace::ByteByByte => {
                bytes.iter().try_for_each(|byte| self.stream.write_all(std::slice::from_ref(byte)))
            }
        };
        // A server that has closed the connection has said why: that is read below.
        drop(written);
        let mut wanted = ready.max(1);
        let mut lines = Vec::new();
        loop {
            while let Some((name, line)) = self.decoder.next()? {
                lines.push(line);
                let stops = match &step.until {
                    Some(until) => until == name,
                    None => {
                        wanted -= usize::from(name == "ReadyForQuery");
                        wanted == 0 || matches!(name, "CopyInResponse" | "Negotiation")
                    }
                };
                if stops {
                    return Ok(lines);
                }
            }
            if self.closed {
                lines.push("closed".to_owned());
                return Ok(lines);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.closed = true,
                Ok(size) => self.decoder.received.extend_from_slice(&chunk[..size]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.closed = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    lines.push("silence".to_owned());
                    return Ok(lines);
                }
            }
        }
    }
}
