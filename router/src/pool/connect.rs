//! Opening a server connection: TCP, startup, authentication.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use pgherd_shard_map::ShardId;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use tokio::net::TcpStream;

use super::{Login, Server, unreachable};
use crate::error::ErrorInfo;
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
    match handshake(&mut server, login, database, password).await {
        Ok(None) => Ok(server),
        Ok(Some(error)) => Err(error),
        Err(error) => Err(unreachable(shard, &error.to_string())),
    }
}

/// `Ok(Some)` is the shard's own refusal.
async fn handshake(
    server: &mut Server,
    login: &Login,
    database: &str,
    password: Option<&[u8]>,
) -> io::Result<Option<ErrorInfo>> {
    let mut out = Vec::new();
    let startup_parameters =
        [("user", &*login.user), ("database", database), ("client_encoding", "UTF8")];
    startup::put_startup(&mut out, &startup_parameters);
    server.send(&out).await?;
    let mut scram = None;
    let mut parameters: Vec<(Box<str>, Box<str>)> = Vec::new();
    loop {
        let (tag, frame) = server.frame().await?;
        match tag {
            b'R' => {
                let answer = match authenticate(&frame, password, &mut scram) {
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

/// The answer to one authentication request.
fn authenticate(
    frame: &Bytes,
    password: Option<&[u8]>,
    scram: &mut Option<ScramSha256>,
) -> Result<Option<Vec<u8>>, ErrorInfo> {
    let refused = |why: &str| {
        ErrorInfo::new("28000", format!("the router cannot log in to a shard: {why}")).hint(
            "Shards must accept scram-sha-256 with the same verifier, or trust the router's host.",
        )
    };
    let mut reader = Reader::new(&frame[HEADER..]);
    match reader.i32().map_err(|_| refused("a malformed request"))? {
        0 => Ok(None),
        3 => {
            let password = password.ok_or_else(|| refused("it asks for a password in clear"))?;
            let mut answer = Vec::new();
            put_cstr(&mut answer, password);
            Ok(Some(answer))
        }
        10 => {
            let password =
                password.ok_or_else(|| refused("it asks for a password, but has none"))?;
            let exchange = ScramSha256::new(password, ChannelBinding::unsupported());
            let first = exchange.message().to_vec();
            *scram = Some(exchange);
            let mut answer = b"SCRAM-SHA-256\0".to_vec();
            answer.extend_from_slice(&(first.len() as i32).to_be_bytes());
            answer.extend_from_slice(&first);
            Ok(Some(answer))
        }
        11 => {
            let exchange = scram.as_mut().ok_or_else(|| refused("SCRAM out of order"))?;
            exchange.update(reader.rest()).map_err(|_| refused("SCRAM failed"))?;
            Ok(Some(exchange.message().to_vec()))
        }
        12 => {
            let exchange = scram.as_mut().ok_or_else(|| refused("SCRAM out of order"))?;
            let proven = exchange.finish(reader.rest()).is_ok();
            if proven { Ok(None) } else { Err(refused("the shard does not know the password")) }
        }
        _ => Err(refused("it asks for a method other than scram-sha-256")),
    }
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
