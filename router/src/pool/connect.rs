//! Opening a server connection: TCP, startup, authentication.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use pgherd_shard_map::ShardId;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use socket2::TcpKeepalive;
use tokio::net::TcpStream;

use super::{Login, Server, unreachable};
use crate::error::ErrorInfo;
use crate::scram;
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
    stream
        .set_nodelay(true)
        .and_then(|()| watch(&stream))
        .map_err(|error| unreachable(shard, &error.to_string()))?;
    let address: SocketAddr =
        stream.peer_addr().map_err(|error| unreachable(shard, &error.to_string()))?;
    let mut server = Server::new(shard, stream, address);
    let password = config.get_password().filter(|_| config.get_user() == Some(&*login.user));
    let proof = match &login.keys {
        Some(keys) => Proof::Keys(keys),
        None => password.map_or(Proof::None, Proof::Password),
    };
    match handshake(&mut server, login, database, proof).await {
        Ok(None) => Ok(server),
        Ok(Some(error)) => Err(error),
        Err(error) => Err(unreachable(shard, &error.to_string())),
    }
}

/// A machine that is gone without a word is noticed: by keepalives while the router waits for it,
/// and by what it does not acknowledge.
fn watch(stream: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))
}

/// `Ok(Some)` is the shard's own refusal.
async fn handshake(
    server: &mut Server,
    login: &Login,
    database: &str,
    proof: Proof<'_>,
) -> io::Result<Option<ErrorInfo>> {
    let mut out = Vec::new();
    let startup_parameters =
        [("user", &*login.user), ("database", database), ("client_encoding", "UTF8")];
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
