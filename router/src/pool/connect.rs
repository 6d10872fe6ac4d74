//! Opening a server connection: TCP, startup, authentication.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use pgherd_shard_map::ShardId;
use tokio::net::TcpStream;

use super::{Login, Server, unreachable};
use crate::error::ErrorInfo;
use crate::scram::ClientExchange;
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
    let parameters =
        [("user", &*login.user), ("database", database), ("client_encoding", "UTF8")];
    startup::put_startup(&mut out, &parameters);
    server.send(&out).await?;
    let mut scram = None;
    loop {
        let (tag, frame) = server.frame().await?;
        match tag {
            b'R' => {
                let answer = match authenticate(&frame, login, password, &mut scram) {
                    Ok(answer) => answer,
                    Err(error) => return Ok(Some(error)),
                };
                if let Some(answer) = answer {
                    out.clear();
                    put_frame(&mut out, b'p', |out| out.extend_from_slice(&answer));
                    server.send(&out).await?;
                }
            }
            b'K' => {
                let mut reader = Reader::new(&frame[HEADER..]);
                server.pid = reader.i32().unwrap_or(0);
                server.secret = reader.i32().unwrap_or(0);
            }
            b'Z' => {
                server.status = b'I';
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
    login: &Login,
    password: Option<&[u8]>,
    scram: &mut Option<ClientExchange>,
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
            let exchange = match (&login.secret, password) {
                (Some(secret), _) => ClientExchange::with_secret((**secret).clone()),
                (None, Some(password)) => ClientExchange::with_password(password),
                (None, None) => return Err(refused("it asks for a password, but has none")),
            };
            let first = exchange.first_message();
            *scram = Some(exchange);
            let mut answer = b"SCRAM-SHA-256\0".to_vec();
            answer.extend_from_slice(&(first.len() as i32).to_be_bytes());
            answer.extend_from_slice(first.as_bytes());
            Ok(Some(answer))
        }
        11 => {
            let exchange = scram.as_mut().ok_or_else(|| refused("SCRAM out of order"))?;
            let answer = std::str::from_utf8(reader.rest())
                .ok()
                .and_then(|challenge| exchange.handle_challenge(challenge).ok())
                .ok_or_else(|| refused("SCRAM failed"))?;
            Ok(Some(answer.into_bytes()))
        }
        12 => {
            let exchange = scram.as_mut().ok_or_else(|| refused("SCRAM out of order"))?;
            let proven = std::str::from_utf8(reader.rest())
                .is_ok_and(|proof| exchange.handle_final(proof).is_ok());
            if proven { Ok(None) } else { Err(refused("the shard does not know the user's keys")) }
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
        sqlstate: field(b'C').unwrap_or("XX000".into()),
        message: field(b'M').unwrap_or("error without a message".into()),
        detail: field(b'D'),
        hint: field(b'H'),
        position: None,
    }
}
