//! From the first byte to ReadyForQuery: TLS, cancel requests, authentication, startup settings.

use std::rc::Rc;

use super::authenticate::{Caller, Known, authenticate};
use crate::client::{Client, Socket};
use crate::error::ErrorInfo;
use crate::executor::Conn;
use crate::pool::Login;
use crate::session::{Session, Settings, settings::startup_value};
use crate::tls::server::Channel;
use crate::wire::startup::{self, Startup};
use crate::wire::{self, backend, put_frame};
use crate::worker::{Planning, Worker, send_cancel};
use bytes::Buf;

/// How long a client may take to log in.
const LOGIN: std::time::Duration = std::time::Duration::from_secs(60);

/// A connection that is ready for queries, or nothing: the client was refused, was a cancel
/// request, or left.
pub(super) async fn handshake(client: Client, worker: Rc<Worker>) -> Option<Conn> {
    tokio::time::timeout(LOGIN, start(client, worker)).await.ok().flatten()
}

async fn start(mut client: Client, worker: Rc<Worker>) -> Option<Conn> {
    let mut channel = None;
    loop {
        let packet = loop {
            match startup::packet(&client.inbuf) {
                Ok(Some((packet, size))) => {
                    client.inbuf.advance(size);
                    break packet;
                }
                Ok(None) => client.fill().await.ok()?,
                Err(error) => {
                    refuse(&mut client, &ErrorInfo::protocol(error.to_string())).await;
                    return None;
                }
            }
        };
        match packet {
            Startup::Gss => client.write_all(b"N").await.ok()?,
            Startup::Ssl => match &worker.shared.tls {
                // Bytes that came with the request were not encrypted: somebody put them there.
                Some(tls) if channel.is_none() && client.inbuf.is_empty() => {
                    client.write_all(b"S").await.ok()?;
                    let Socket::Plain(stream) = client.into_socket() else { return None };
                    let (stream, secured) = tls
                        .accept(stream)
                        .await
                        .inspect_err(|error| tracing::debug!(%error, "TLS handshake failed"))
                        .ok()?;
                    client = Client::new(Socket::Tls(Box::new(stream)));
                    channel = Some(secured);
                }
                _ => client.write_all(b"N").await.ok()?,
            },
            Startup::Cancel { pid, secret } => {
                if let Ok(secret) = <[u8; 4]>::try_from(&*secret) {
                    worker.shared.cancel(pid, u32::from_be_bytes(secret));
                }
                return None;
            }
            Startup::Session { minor, parameters } => {
                return match log_in(&mut client, &worker, channel.as_ref(), minor, parameters).await
                {
                    Ok((session, login)) => Some(greet(client, worker, session, login).await?),
                    Err(Some(error)) => {
                        refuse(&mut client, &error).await;
                        None
                    }
                    Err(None) => None,
                };
            }
        }
    }
}

async fn refuse(client: &mut Client, error: &ErrorInfo) {
    backend::error_response(&mut client.out, "FATAL", error);
    // The client may be gone; its connection ends either way.
    drop(client.flush().await);
}

/// `Err(None)` when the client is gone.
async fn log_in(
    client: &mut Client,
    worker: &Worker,
    channel: Option<&Channel>,
    minor: u16,
    parameters: Vec<(String, String)>,
) -> Result<(Session, Login), Option<ErrorInfo>> {
    let shared = &worker.shared.settings;
    let named = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let user = named("user").filter(|user| !user.is_empty()).ok_or_else(|| {
        ErrorInfo::new("28000", "no PostgreSQL user name specified in startup packet")
    })?;
    let database = named("database").unwrap_or(user);
    if minor > 0 || parameters.iter().any(|(name, _)| name.starts_with("_pq_.")) {
        let options: Vec<_> =
            parameters.iter().filter(|(name, _)| name.starts_with("_pq_.")).collect();
        put_frame(&mut client.out, b'v', |out| {
            out.extend_from_slice(&0u32.to_be_bytes());
            out.extend_from_slice(&(options.len() as u32).to_be_bytes());
            for (name, _) in options {
                wire::put_cstr(out, name.as_bytes());
            }
        });
    }
    if named("replication").is_some_and(|v| !matches!(v, "false" | "off" | "no" | "0")) {
        return Err(Some(
            ErrorInfo::new("0A000", "replication connections are not supported by the router")
                .hint("Connect to a shard directly; \"pgherd status\" lists their addresses."),
        ));
    }
    if worker.sessions() >= shared.max_clients.div_ceil(shared.workers) {
        return Err(Some(ErrorInfo::new("53300", "sorry, too many clients already")));
    }
    let caller = Caller { address: client.address(), channel, user, database };
    let Known { login, may_connect } = authenticate(client, worker, caller).await?;
    if database != &*shared.database {
        return Err(Some(
            ErrorInfo::new("3D000", format!("database \"{database}\" does not exist"))
                .hint(format!("This router serves the database \"{}\".", shared.database)),
        ));
    }
    if !may_connect {
        return Err(Some(
            ErrorInfo::new("42501", format!("permission denied for database \"{database}\""))
                .detail("User does not have CONNECT privilege."),
        ));
    }
    let settings = startup_settings(&parameters)?;
    Ok((Session::new(user, worker.intern(settings)), login))
}

fn startup_settings(parameters: &[(String, String)]) -> Result<Settings, ErrorInfo> {
    let mut settings = Settings::default();
    for (name, value) in parameters {
        match name.to_lowercase().as_str() {
            "user" | "database" | "replication" => {}
            name if name.starts_with("_pq_.") => {}
            "client_encoding" => {
                let encoding = value.trim_matches('\'').to_uppercase().replace('-', "");
                if !matches!(&*encoding, "UTF8" | "UNICODE" | "AUTO") {
                    return Err(ErrorInfo::new("0A000", "the router speaks UTF8 only")
                        .hint("Set client_encoding to UTF8."));
                }
            }
            "options" => options(value, &mut settings)?,
            name => settings.set(name, Some(&startup_value(name, value))),
        }
    }
    Ok(settings)
}

/// `-c name=value` and `--name=value`, spaces escaped by a backslash.
fn options(text: &str, settings: &mut Settings) -> Result<(), ErrorInfo> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => words.last_mut().expect("never empty").extend(chars.next()),
            c if c.is_whitespace() => words.push(String::new()),
            c => words.last_mut().expect("never empty").push(c),
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let pair = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => words.next().unwrap_or_default(),
            Some(pair) => pair.to_owned(),
            None => String::new(),
        };
        let Some((name, value)) = pair.split_once('=') else {
            return Err(ErrorInfo::new(
                "0A000",
                format!("startup option \"{word}\" is not supported"),
            )
            .hint("The router takes -c name=value."));
        };
        let name = name.to_lowercase().replace('-', "_");
        settings.set(&name, Some(&startup_value(&name, value)));
    }
    Ok(())
}

/// Logs in to the home shard, so that a user unknown there is refused now, and passes its
/// parameters on.
async fn greet(
    mut client: Client,
    worker: Rc<Worker>,
    session: Session,
    login: Login,
) -> Option<Conn> {
    let map = worker.map();
    let home = match worker.pools.checkout(map.home, &login, &map).await {
        Ok(server) => server,
        Err(error) => {
            refuse(&mut client, &error).await;
            return None;
        }
    };
    let planning = Planning::new(map, &session.settings, &session.user, false);
    let cancel = worker.register();
    let mut conn = Conn::new(client, session, worker, login, cancel, planning);
    let parameters = home.parameters.clone();
    conn.servers.push(home);
    let settled = conn.bring_settings(0).await;
    conn.release();
    if let Err(failure) = settled {
        if let crate::error::Failure::Shard(frame) = failure {
            let error = crate::pool::connect::shard_error(&frame);
            refuse(&mut conn.client, &error).await;
        }
        conn.worker.unregister(&conn.cancel);
        return None;
    }
    let out = &mut conn.client.out;
    out.extend_from_slice(backend::AUTHENTICATION_OK);
    for (name, value) in parameters.iter() {
        let own = conn.session.settings.value(name).map(|value| value.trim_matches('\''));
        let value = match (&**name, own) {
            ("session_authorization", _) => &*conn.session.user,
            (_, Some(own)) => own,
            (_, None) => value,
        };
        backend::parameter_status(out, name, value);
    }
    put_frame(out, b'K', |out| {
        out.extend_from_slice(&conn.cancel.pid.to_be_bytes());
        out.extend_from_slice(&conn.cancel.secret.to_be_bytes());
    });
    backend::ready_for_query(out, b'I');
    conn.client.flush().await.ok()?;
    Some(conn)
}

/// Passes a cancel request on to the servers that work for the session it names.
pub async fn cancel(worker: Rc<Worker>, pid: u32, secret: u32) {
    for (address, pid, secret) in worker.cancel_targets(pid, secret) {
        send_cancel(address, pid, secret).await;
    }
}
