//! The console: the database `pgherd`, where an administrator looks at this router and stops,
//! resumes and reloads it, in PgBouncer's words.
//!
//! A session here has no server connections. It is one loop: a message, the [`Command`] in it, its
//! [`Table`] or its tag. Both protocols are spoken, without parameters; every column is `text`,
//! which reads the same in both formats.

mod command;
mod tables;
mod work;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::client::Client;
use crate::error::{ErrorInfo, Failure};
use crate::wire::frontend::{self, Named};
use crate::wire::{self, HEADER, backend, put_frame};
use crate::worker::{Phase, Shared};
use command::Command;

/// What clients connect to. A router's own database cannot have this name.
pub use crate::config::CONSOLE as DATABASE;

/// Statements and portals that a session may have.
const NAMES_MAX: usize = 100;

/// Rows for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub columns: &'static [&'static str],
    pub rows: Vec<Vec<Option<String>>>,
}

/// What a command gives.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Table(Table),
    Done(&'static str),
}

/// Serves an administrator who has logged in, until he leaves.
pub async fn serve(mut client: Client, shared: Arc<Shared>, user: Rc<str>) {
    let mut phases = shared.phase.subscribe();
    let mut console = Console { shared, statements: HashMap::new(), portals: HashMap::new() };
    greet(&mut client.out, &user);
    let ended = tokio::select! {
        ended = console.run(&mut client) => ended,
        // After what was asked has been answered: that may have been SHUTDOWN.
        _ = phases.wait_for(|phase| *phase > Phase::Serving) => Err(Failure::Fatal(
            ErrorInfo::new("57P01", "terminating connection due to administrator command"),
        )),
    };
    if let Err(Failure::Fatal(error)) = ended {
        backend::error_response(&mut client.out, "FATAL", &error);
        // The client may be gone; its connection ends either way.
        drop(client.flush().await);
    }
}

fn greet(out: &mut Vec<u8>, user: &str) {
    let version = concat!("15.0 (pgherd ", env!("CARGO_PKG_VERSION"), ")");
    for (name, value) in [
        ("server_version", version),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "on"),
        ("session_authorization", user),
    ] {
        backend::parameter_status(out, name, value);
    }
    // Nothing here can be cancelled.
    put_frame(out, b'K', |out| out.extend_from_slice(&[0; 8]));
    backend::ready_for_query(out, b'I');
}

struct Console {
    shared: Arc<Shared>,
    statements: HashMap<Box<[u8]>, String>,
    portals: HashMap<Box<[u8]>, String>,
}

impl Console {
    async fn run(&mut self, client: &mut Client) -> Result<(), Failure> {
        let mut skipping = false;
        loop {
            let frame = wire::whole(&client.inbuf)
                .map_err(|error| Failure::Fatal(ErrorInfo::protocol(error.to_string())))?;
            let Some((tag, size)) = frame else {
                client.flush().await?;
                client.fill().await?;
                continue;
            };
            let body: Bytes = client.inbuf.split_to(size).freeze().slice(HEADER..);
            match tag {
                b'X' => return Ok(()),
                b'Q' => {
                    if let Err(error) = self.query(&body, &mut client.out).await {
                        backend::error_response(&mut client.out, "ERROR", &error);
                    }
                    backend::ready_for_query(&mut client.out, b'I');
                }
                b'S' => {
                    skipping = false;
                    self.portals.clear();
                    backend::ready_for_query(&mut client.out, b'I');
                }
                b'H' => {}
                b'P' | b'B' | b'D' | b'E' | b'C' if skipping => {}
                b'P' | b'B' | b'D' | b'E' | b'C' => {
                    if let Err(error) = self.extended(tag, &body, &mut client.out).await {
                        backend::error_response(&mut client.out, "ERROR", &error);
                        skipping = true;
                    }
                }
                _ => {
                    return Err(Failure::Fatal(ErrorInfo::protocol(format!(
                        "invalid frontend message type {tag}"
                    ))));
                }
            }
        }
    }

    async fn query(&self, body: &[u8], out: &mut Vec<u8>) -> Result<(), ErrorInfo> {
        let sql = frontend::query(body).map_err(malformed)?;
        match Command::parse(sql)? {
            None => out.extend_from_slice(backend::EMPTY_QUERY),
            Some(command) => {
                let answer = work::run(&self.shared, command).await?;
                if let Answer::Table(table) = &answer {
                    backend::text_columns(out, table.columns);
                }
                put_answer(out, &answer);
            }
        }
        Ok(())
    }

    async fn extended(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), ErrorInfo> {
        match tag {
            b'P' => {
                let parse = frontend::parse(body).map_err(malformed)?;
                Command::parse(parse.query)?;
                keep(&mut self.statements, parse.name, parse.query.to_owned())?;
                out.extend_from_slice(backend::PARSE_COMPLETE);
            }
            b'B' => {
                let bind = frontend::bind(body).map_err(malformed)?;
                let sql = known(&self.statements, bind.statement, "26000", "prepared statement")?;
                keep(&mut self.portals, bind.portal, sql)?;
                out.extend_from_slice(backend::BIND_COMPLETE);
            }
            b'D' => {
                let sql = match frontend::named("DESCRIBE", body).map_err(malformed)? {
                    Named::Statement(name) => {
                        out.extend_from_slice(backend::NO_PARAMETERS);
                        known(&self.statements, name, "26000", "prepared statement")?
                    }
                    Named::Portal(name) => known(&self.portals, name, "34000", "portal")?,
                };
                match Command::parse(&sql)?.and_then(|command| command.columns()) {
                    Some(columns) => backend::text_columns(out, columns),
                    None => out.extend_from_slice(backend::NO_DATA),
                }
            }
            b'E' => {
                let (portal, _) = frontend::execute(body).map_err(malformed)?;
                let sql = known(&self.portals, portal, "34000", "portal")?;
                match Command::parse(&sql)? {
                    None => out.extend_from_slice(backend::EMPTY_QUERY),
                    Some(command) => put_answer(out, &work::run(&self.shared, command).await?),
                }
            }
            _ => {
                match frontend::named("CLOSE", body).map_err(malformed)? {
                    Named::Statement(name) => self.statements.remove(name),
                    Named::Portal(name) => self.portals.remove(name),
                };
                out.extend_from_slice(backend::CLOSE_COMPLETE);
            }
        }
        Ok(())
    }
}

fn put_answer(out: &mut Vec<u8>, answer: &Answer) {
    match answer {
        Answer::Table(table) => {
            for row in &table.rows {
                let row: Vec<_> = row.iter().map(|v| v.as_ref().map(String::as_bytes)).collect();
                backend::data_row(out, &row);
            }
            backend::command_complete(out, "SHOW");
        }
        Answer::Done(tag) => backend::command_complete(out, tag),
    }
}

fn malformed(error: wire::Malformed) -> ErrorInfo {
    ErrorInfo::protocol(error.to_string())
}

fn keep(names: &mut HashMap<Box<[u8]>, String>, name: &[u8], sql: String) -> Result<(), ErrorInfo> {
    if names.len() >= NAMES_MAX && !names.contains_key(name) {
        return Err(ErrorInfo::new("54000", "too many prepared statements for the console"));
    }
    names.insert(name.into(), sql);
    Ok(())
}

fn known(
    names: &HashMap<Box<[u8]>, String>,
    name: &[u8],
    sqlstate: &'static str,
    what: &str,
) -> Result<String, ErrorInfo> {
    names.get(name).cloned().ok_or_else(|| {
        let name = String::from_utf8_lossy(name);
        ErrorInfo::new(sqlstate, format!("{what} \"{name}\" does not exist"))
    })
}
