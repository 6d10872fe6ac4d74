//! Opening a server connection: TCP, startup, authentication.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use pgherd_shard_map::ShardId;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use tokio::net::TcpStream;

use super::{Login, Server, unreachable};
use crate::error::ErrorInfo;
use crate::scram;
use crate::session::Settings;
use crate::session::settings::{IDLE_SESSION_TIMEOUT, PLANNED_WITH, SEARCH_PATH, startup_value};
use crate::wire::{HEADER, Reader, backend, put_cstr, put_frame, startup};

/// Connects and logs in as the client's user.
///
/// # Errors
/// 08006 when the shard cannot be reached; its own error when it refuses the login.
pub async fn connect(shard: ShardId, dsn: &str, login: &Login) -> Result<Server, ErrorInfo> {
    let config: tokio_postgres::Config =
        dsn.parse().map_err(|_| unreachable(shard, "its DSN in the catalog is not valid"))?;
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let host = match config.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        _ => return Err(unreachable(shard, "its DSN names no TCP host")),
    };
    let database = config.get_dbname().unwrap_or(&login.database);
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| unreachable(shard, &error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| unreachable(shard, &error.to_string()))?;
    let address: SocketAddr =
        stream.peer_addr().map_err(|error| unreachable(shard, &error.to_string()))?;
    let mut server = Server::new(shard, stream, address);
    let password = config.get_password().filter(|_| config.get_user() == Some(&*login.user));
    let proof = match &login.keys {
        Some(keys) => Proof::Keys(keys),
        None => password.map_or(Proof::None, Proof::Password),
    };
    match handshake(&mut server, login, database, proof).await {
        Ok(None) => own_settings(server).await,
        Ok(Some(error)) => Err(error),
        Err(error) => Err(unreachable(shard, &error.to_string())),
    }
}

/// Asks for the settings that planning depends on, which a role or database may have of its own.
async fn own_settings(mut server: Server) -> Result<Server, ErrorInfo> {
    let shard = server.shard;
    let columns: Vec<String> =
        PLANNED_WITH.iter().map(|name| format!("current_setting('{name}', true)")).collect();
    let reply = server.run(&format!("SELECT {}", columns.join(", "))).await;
    let reply = reply.map_err(|error| unreachable(shard, &error.to_string()))?;
    if let Some(error) = &reply.error {
        return Err(shard_error(error));
    }
    let mut settings = Settings::default();
    for (name, value) in PLANNED_WITH.iter().zip(reply.first_row()) {
        let usual = match *name {
            "search_path" => SEARCH_PATH,
            "default_transaction_isolation" => "read committed",
            "role" => "none",
            _ => "",
        };
        if let Some(value) = value.filter(|value| *value != usual) {
            settings.set(name, Some(&startup_value(name, &value)));
        }
    }
    if !settings.is_empty() {
        server.own_settings = Rc::new(settings);
        server.settings = Rc::clone(&server.own_settings);
    }
    Ok(server)
}

/// `Ok(Some)` is the shard's own refusal.
async fn handshake(
    server: &mut Server,
    login: &Login,
    database: &str,
    proof: Proof<'_>,
) -> io::Result<Option<ErrorInfo>> {
    let mut out = Vec::new();
    // A pooled server is idle for other reasons than its client, whose limit the router minds.
    let startup_parameters = [
        ("user", &*login.user),
        ("database", database),
        ("client_encoding", "UTF8"),
        (IDLE_SESSION_TIMEOUT, "0"),
    ];
    startup::put_startup(&mut out, &startup_parameters);
    server.send(&out).await?;
    let mut exchange = None;
    let mut parameters: Vec<(Box<str>, Box<str>)> = Vec::new();
    loop {
        let (tag, frame) = server.frame().await?;
        match tag {
            b'R' => {
                let answer = match authenticate(&frame, proof, &mut exchange) {
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
enum Proof<'a> {
    /// Of the client's own login: the shards hold the same verifier.
    Keys(&'a scram::Keys),
    /// The shard's DSN has one for this user.
    Password(&'a [u8]),
    None,
}

/// A SCRAM exchange under way.
enum Exchange {
    Keys(scram::Client),
    Password(ScramSha256),
}

/// The answer to one authentication request.
fn authenticate(
    frame: &Bytes,
    proof: Proof<'_>,
    exchange: &mut Option<Exchange>,
) -> Result<Option<Vec<u8>>, ErrorInfo> {
    let refused = |why: &str| {
        ErrorInfo::new("28000", format!("the router cannot log in to a shard: {why}")).hint(
            "Every shard must have the role with the same SCRAM verifier (CREATE ROLE through the \
             router sees to that), or trust the router's host.",
        )
    };
    let mut reader = Reader::new(&frame[HEADER..]);
    match (reader.i32().map_err(|_| refused("a malformed request"))?, proof) {
        (0, _) => Ok(None),
        (3, Proof::Password(password)) => {
            let mut answer = Vec::new();
            put_cstr(&mut answer, password);
            Ok(Some(answer))
        }
        (10, Proof::None) => Err(refused("it asks for a password, but the router has none")),
        (10, _) => {
            let first;
            *exchange = Some(match proof {
                Proof::Keys(keys) => {
                    let (client, message) = scram::Client::first(keys.clone(), random()?);
                    first = message.into_bytes();
                    Exchange::Keys(client)
                }
                Proof::Password(password) => {
                    let client = ScramSha256::new(password, ChannelBinding::unsupported());
                    first = client.message().to_vec();
                    Exchange::Password(client)
                }
                Proof::None => return Err(refused("it asks for a password")),
            });
            let mut answer = Vec::new();
            put_cstr(&mut answer, scram::MECHANISM.as_bytes());
            answer.extend_from_slice(&(first.len() as i32).to_be_bytes());
            answer.extend_from_slice(&first);
            Ok(Some(answer))
        }
        (11, _) => match exchange {
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
            let proven = match exchange.take() {
                Some(Exchange::Keys(client)) => client.finish(reader.rest()).is_ok(),
                Some(Exchange::Password(mut client)) => client.finish(reader.rest()).is_ok(),
                None => false,
            };
            if proven { Ok(None) } else { Err(refused("the shard does not know the password")) }
        }
        (3, _) => Err(refused("it asks for a password in clear")),
        _ => Err(refused("it asks for a method other than scram-sha-256")),
    }
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
    }
}
