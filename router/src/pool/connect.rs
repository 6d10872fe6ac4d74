//! Opening a server connection: startup and authentication on a stream of the dialer's.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use pgherd_shard_map::store::enter_sql;
use pgherd_shard_map::{Epoch, ShardId};
use postgres_protocol::authentication::{
    self,
    sasl::{ChannelBinding, ScramSha256},
};

use super::{Login, Server, unreachable};
use crate::dial::{Dialer, Opened};
use crate::error::ErrorInfo;
use crate::proofs::{Proof, Proofs};
use crate::session::Settings;
use crate::session::settings::{IDLE_SESSION_TIMEOUT, READ_HERE, startup_value};
use crate::wire::{HEADER, Malformed, Reader, backend, put_cstr, put_frame, startup};
use crate::{md5, scram};

/// Connects and logs in as the client's user.
///
/// # Errors
/// 08006 when the shard cannot be reached; its own error when it refuses the login.
pub async fn connect(
    dialer: &Dialer,
    proofs: &Proofs,
    shard: ShardId,
    dsn: &str,
    login: &Login,
) -> Result<Server, ErrorInfo> {
    let server = log_in(dialer, proofs, shard, dsn, login, false).await?;
    match own_settings(server, None).await? {
        Own::Known(server) => Ok(*server),
        Own::IdleLimit(limit) => {
            let server = log_in(dialer, proofs, shard, dsn, login, true).await?;
            match own_settings(server, Some(&limit)).await? {
                Own::Known(server) => Ok(*server),
                Own::IdleLimit(_) => {
                    Err(unreachable(shard, "it keeps its limit for idle sessions"))
                }
            }
        }
    }
}

/// Opens a session. A pooled server is idle for other reasons than its client, whose limit the router
/// minds: where the server has one, `unlimited` takes it away for good, since RESET and DISCARD go
/// back to what the login has said.
async fn log_in(
    dialer: &Dialer,
    proofs: &Proofs,
    shard: ShardId,
    dsn: &str,
    login: &Login,
    unlimited: bool,
) -> Result<Server, ErrorInfo> {
    let target = dialer.target(dsn).map_err(|error| unreachable(shard, &error.to_string()))?;
    let database = target.config.get_dbname().unwrap_or(&login.database);
    let opened = dialer.open(&target).await;
    let Opened { stream, address, end_point } =
        opened.map_err(|error| unreachable(shard, &error.to_string()))?;
    let mut server = Server::new(shard, stream, address);
    let is_theirs = target.config.get_user() == Some(&*login.user);
    let password = target.config.get_password().filter(|_| is_theirs);
    let proof = proofs.newest(login.role.oid, &login.proof);
    let secret = match &proof {
        Proof::Scram(keys) => Secret::Keys(keys),
        Proof::Md5(verifier) => Secret::Md5(verifier),
        Proof::None => password.map_or(Secret::None, Secret::Password),
    };
    let mut authentication = Authentication {
        user: &login.user,
        secret,
        end_point: end_point.as_deref(),
        exchange: None,
    };
    let mut parameters =
        vec![("user", &*login.user), ("database", database), ("client_encoding", "UTF8")];
    if unlimited {
        parameters.push((IDLE_SESSION_TIMEOUT, "0"));
    }
    match handshake(&mut server, &parameters, &mut authentication).await {
        Ok(None) => Ok(server),
        Ok(Some(error)) => Err(error),
        Err(error) => Err(unreachable(shard, &error.to_string())),
    }
}

/// Tells the shard whose session it is, and asks which epoch it is at: a shard whose rows have moved
/// must not be read by who does not know.
///
/// # Errors
/// The connection was lost.
pub async fn enter(server: &mut Server, router: &str, epoch: Epoch) -> Result<Epoch, ErrorInfo> {
    let shard = server.shard;
    let reply = server.run(&enter_sql(router, epoch)).await;
    let reply = reply.map_err(|error| unreachable(shard, &error.to_string()))?;
    if let Some(error) = reply.error {
        return Err(shard_error(&error));
    }
    let at = reply.rows.last().and_then(|row| backend::row_values(row).ok()?.first().copied()?);
    let at = at.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
    at.map(Epoch).ok_or_else(|| unreachable(shard, "it does not say which epoch it is at"))
}

/// A server with what its sessions start with; or the limit that they have for being idle, wherever it
/// was set: for a role, a database or in the server's configuration.
enum Own {
    Known(Box<Server>),
    IdleLimit(Box<str>),
}

/// Asks for the settings that matter to the router itself, which a role, a database or the server may
/// have of its own.
async fn own_settings(mut server: Server, limit: Option<&str>) -> Result<Own, ErrorInfo> {
    let columns: Vec<String> =
        READ_HERE.iter().map(|(name, _)| format!("current_setting('{name}', true)")).collect();
    let columns = columns.join(", ");
    let sql = format!(
        "SELECT {columns}, current_setting('{IDLE_SESSION_TIMEOUT}'), \
         pg_catalog.pg_current_snapshot()"
    );
    let mut row = own_row(&mut server, &sql).await?;
    let snapshot = row.pop().flatten();
    server.seldom.earlier = snapshot.map(|snapshot| (snapshot.into(), Instant::now()));
    if let Some(found) = row.pop().flatten().filter(|found| found != "0") {
        return Ok(Own::IdleLimit(found.into()));
    }
    let mut settings = Settings::default();
    if let Some(limit) = limit {
        settings.set(IDLE_SESSION_TIMEOUT, Some(&startup_value(IDLE_SESSION_TIMEOUT, limit)));
    }
    for ((name, usual), value) in READ_HERE.iter().zip(row) {
        if let Some(value) = value.filter(|value| value != usual) {
            settings.set(name, Some(&startup_value(name, &value)));
        }
    }
    if !settings.is_empty() {
        server.seldom.own_settings = Rc::new(settings);
        server.settings = Rc::clone(&server.seldom.own_settings);
    }
    Ok(Own::Known(Box::new(server)))
}

async fn own_row(server: &mut Server, sql: &str) -> Result<Vec<Option<String>>, ErrorInfo> {
    let shard = server.shard;
    let reply = server.run(sql).await;
    let reply = reply.map_err(|error| unreachable(shard, &error.to_string()))?;
    match &reply.error {
        Some(error) => Err(shard_error(error)),
        None => Ok(reply.first_row()),
    }
}

/// `Ok(Some)` is the shard's own refusal.
async fn handshake(
    server: &mut Server,
    startup_parameters: &[(&str, &str)],
    authentication: &mut Authentication<'_>,
) -> io::Result<Option<ErrorInfo>> {
    let mut out = Vec::new();
    startup::put_startup(&mut out, startup_parameters);
    server.send(&out).await?;
    let mut parameters: Vec<(Box<str>, Box<str>)> = Vec::new();
    loop {
        let (tag, frame) = server.frame().await?;
        match tag {
            b'R' => {
                let answer = match authentication.answer(&frame) {
                    Ok(answer) => answer,
                    Err(error) => return Ok(Some(error)),
                };
                if let Some(answer) = answer {
                    out.clear();
                    put_frame(&mut out, b'p', |out| out.extend_from_slice(&answer));
                    server.send(&out).await?;
                }
            }
            b'S' => {
                let mut reader = Reader::new(&frame[HEADER..]);
                if let (Ok(name), Ok(value)) = (reader.str(), reader.str()) {
                    parameters.push((name.into(), value.into()));
                }
            }
            b'K' => {
                let mut reader = Reader::new(&frame[HEADER..]);
                server.pid = reader.i32().unwrap_or(0);
                server.secret = reader.i32().unwrap_or(0);
            }
            b'Z' => {
                server.status = b'I';
                server.parameters = parameters.into();
                return Ok(None);
            }
            b'E' => return Ok(Some(shard_error(&frame))),
            _ => {}
        }
    }
}

/// What the router logs in to a shard with.
#[derive(Debug, Clone, Copy)]
enum Secret<'a> {
    /// Of the client's own login: the shards hold the same verifier.
    Keys(&'a scram::Keys),
    Md5(&'a md5::Verifier),
    /// The shard's DSN has one for this user.
    Password(&'a [u8]),
    None,
}

/// A SCRAM exchange under way.
enum Exchange {
    Keys(scram::Client),
    Password(ScramSha256),
}

/// One login to a shard.
struct Authentication<'a> {
    user: &'a str,
    secret: Secret<'a>,
    /// What it can be bound to.
    end_point: Option<&'a [u8]>,
    exchange: Option<Exchange>,
}

fn refused(why: &str) -> ErrorInfo {
    ErrorInfo::new("28000", format!("the router cannot log in to a shard: {why}")).hint(
        "Every shard must hold the role with the same verifier (CREATE ROLE through the router \
         sees to that), or trust the router's host or certificate.",
    )
}

impl Authentication<'_> {
    /// The answer to one authentication request.
    fn answer(&mut self, frame: &Bytes) -> Result<Option<Vec<u8>>, ErrorInfo> {
        let mut reader = Reader::new(&frame[HEADER..]);
        let malformed = |_| refused("a malformed request");
        match (reader.i32().map_err(malformed)?, self.secret) {
            // Whoever lets us in before the exchange has ended has not shown that it knows us.
            (0, _) if self.exchange.is_some() => Err(refused("it did not end the exchange")),
            (0, _) => Ok(None),
            (3, Secret::Password(password)) => Ok(Some(terminated(password))),
            (5, Secret::Md5(verifier)) => {
                let salt = salt(&mut reader).map_err(malformed)?;
                Ok(Some(terminated(verifier.answer(salt).as_bytes())))
            }
            (5, Secret::Password(password)) => {
                let salt = salt(&mut reader).map_err(malformed)?;
                let hash = authentication::md5_hash(self.user.as_bytes(), password, salt);
                Ok(Some(terminated(hash.as_bytes())))
            }
            (10, Secret::Keys(_) | Secret::Password(_)) => self.first(reader.rest()).map(Some),
            (11, _) => match &mut self.exchange {
                Some(Exchange::Keys(client)) => {
                    let proof = client.proof(reader.rest());
                    proof.map(|proof| Some(proof.into_bytes())).map_err(|e| refused(&e.to_string()))
                }
                Some(Exchange::Password(client)) => {
                    client.update(reader.rest()).map_err(|_| refused("SCRAM failed"))?;
                    Ok(Some(client.message().to_vec()))
                }
                None => Err(refused("SCRAM out of order")),
            },
            (12, _) => {
                let proven = match self.exchange.take() {
                    Some(Exchange::Keys(client)) => client.finish(reader.rest()).is_ok(),
                    Some(Exchange::Password(mut client)) => client.finish(reader.rest()).is_ok(),
                    None => false,
                };
                match proven {
                    true => Ok(None),
                    false => Err(refused("the shard does not know the password")),
                }
            }
            (3 | 5 | 10, Secret::None) => {
                Err(refused("it asks for a password, but the client has shown the router none"))
            }
            (10, _) => Err(refused("it asks for SCRAM, but the role's verifier here is md5")),
            (5, _) => Err(refused("it asks for md5, but the role's verifier here is SCRAM")),
            (3, _) => Err(refused("it asks for a password in clear")),
            _ => Err(refused("it asks for a method other than scram-sha-256 and md5")),
        }
    }

    /// Opens the exchange by the strongest mechanism that both sides have.
    fn first(&mut self, mut offered: &[u8]) -> Result<Vec<u8>, ErrorInfo> {
        let mut has = (false, false);
        while let Some(end) = offered.iter().position(|byte| *byte == 0).filter(|end| *end > 0) {
            has.0 |= &offered[..end] == scram::MECHANISM_PLUS.as_bytes();
            has.1 |= &offered[..end] == scram::MECHANISM.as_bytes();
            offered = &offered[end + 1..];
        }
        let (channel, mechanism) = match (has, self.end_point) {
            ((true, _), Some(hash)) => (scram::Channel::EndPoint(hash), scram::MECHANISM_PLUS),
            ((_, true), Some(_)) => (scram::Channel::Unbound, scram::MECHANISM),
            ((_, true), None) => (scram::Channel::None, scram::MECHANISM),
            _ => return Err(refused("it offers no SASL mechanism that the router has")),
        };
        let (exchange, first) = match self.secret {
            Secret::Keys(keys) => {
                let (client, first) = scram::Client::first(keys.clone(), channel, random()?);
                (Exchange::Keys(client), first.into_bytes())
            }
            Secret::Password(password) => {
                let binding = match channel {
                    scram::Channel::None => ChannelBinding::unsupported(),
                    scram::Channel::Unbound => ChannelBinding::unrequested(),
                    scram::Channel::EndPoint(hash) => {
                        ChannelBinding::tls_server_end_point(hash.to_vec())
                    }
                };
                let client = ScramSha256::new(password, binding);
                let first = client.message().to_vec();
                (Exchange::Password(client), first)
            }
            Secret::Md5(_) | Secret::None => return Err(refused("SCRAM out of order")),
        };
        self.exchange = Some(exchange);
        let mut answer = Vec::new();
        put_cstr(&mut answer, mechanism.as_bytes());
        answer.extend_from_slice(&(first.len() as i32).to_be_bytes());
        answer.extend_from_slice(&first);
        Ok(answer)
    }
}

fn salt(reader: &mut Reader<'_>) -> Result<[u8; 4], Malformed> {
    Ok(reader.i32()?.to_be_bytes())
}

/// A text as the protocol has it.
fn terminated(text: &[u8]) -> Vec<u8> {
    let mut answer = Vec::with_capacity(text.len() + 1);
    put_cstr(&mut answer, text);
    answer
}

fn random() -> Result<[u8; 18], ErrorInfo> {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes)
        .map_err(|_| ErrorInfo::new("XX000", "the system gives no random bytes"))?;
    Ok(bytes)
}

/// A shard's ErrorResponse in our own terms.
#[must_use]
pub fn shard_error(frame: &Bytes) -> ErrorInfo {
    let body = &frame[HEADER.min(frame.len())..];
    let field = |code| backend::report_field(body, code).map(|text| text.to_owned().into());
    ErrorInfo {
        sqlstate: field(b'C').unwrap_or_else(|| "XX000".into()),
        message: field(b'M').unwrap_or_else(|| "error without a message".into()),
        detail: field(b'D'),
        hint: field(b'H'),
        position: None,
        routine: None,
    }
}
