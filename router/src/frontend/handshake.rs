//! From the first byte to ReadyForQuery: TLS, cancel requests, authentication, startup settings.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::client::{Client, Socket};
use crate::console;
use crate::error::ErrorInfo;
use crate::executor::Conn;
use crate::pool::Login;
use crate::scram::{self, ScramError};
use crate::session::{Session, Settings, settings::startup_value};
use crate::wire::startup::{self, Startup};
use crate::wire::{self, HEADER, backend, put_frame};
use crate::worker::{Phase, Planning, Worker, send_cancel};
use bytes::Buf;

/// How long a client may take to log in.
const LOGIN: std::time::Duration = std::time::Duration::from_secs(60);

/// The longest password message that is read.
const PASSWORD_MAX: usize = 8192;

/// What a client has come for.
pub(super) enum Visit {
    Session(Box<Conn>),
    Console(Client, Login),
}

/// A connection that is ready for queries, or nothing: the client was refused, was a cancel
/// request, or left.
pub(super) async fn handshake(client: Client, worker: Rc<Worker>) -> Option<Visit> {
    tokio::time::timeout(LOGIN, start(client, worker)).await.ok().flatten()
}

async fn start(mut client: Client, worker: Rc<Worker>) -> Option<Visit> {
    let mut encrypted = false;
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
            Startup::Ssl => match &worker.tls {
                // Bytes that came with the request were not encrypted: somebody put them there.
                Some(tls) if !encrypted && client.inbuf.is_empty() => {
                    client.write_all(b"S").await.ok()?;
                    let Socket::Plain(stream) = client.into_socket() else { return None };
                    let stream = tls.0.accept(stream).await.ok()?;
                    client = Client::new(Socket::Tls(Box::new(stream)));
                    encrypted = true;
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
                return match log_in(&mut client, &worker, minor, parameters).await {
                    Ok((_, login)) if &*login.database == console::DATABASE => {
                        Some(Visit::Console(client, login))
                    }
                    Ok((session, login)) => {
                        let conn = greet(client, worker, session, login).await?;
                        Some(Visit::Session(Box::new(conn)))
                    }
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
    if worker.phase() >= Phase::Drain {
        return Err(Some(ErrorInfo::new("57P03", "the database system is shutting down")));
    }
    if worker.sessions() >= worker.live.borrow().max_clients.div_ceil(shared.workers) {
        return Err(Some(ErrorInfo::new("53300", "sorry, too many clients already")));
    }
    let keys = match shared.trust {
        true => None,
        false => Some(Rc::new(prove(client, worker, user).await?)),
    };
    if database == console::DATABASE {
        admit_to_console(worker, user).await?;
    } else if worker.shared.disabled.load(Ordering::Relaxed) {
        let message = format!("database \"{database}\" takes no new connections now");
        return Err(Some(ErrorInfo::new("57P03", message)));
    } else if database != &*shared.database {
        return Err(Some(
            ErrorInfo::new("3D000", format!("database \"{database}\" does not exist"))
                .hint(format!("This router serves the database \"{}\".", shared.database)),
        ));
    }
    let settings = startup_settings(&parameters)?;
    let login = Login { user: user.into(), database: database.into(), keys };
    Ok((Session::new(user, worker.intern(settings)), login))
}

/// The console is for superusers.
async fn admit_to_console(worker: &Worker, user: &str) -> Result<(), ErrorInfo> {
    match worker.shared.is_admin(user).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(ErrorInfo::new("42501", "permission denied for the console")
            .detail("Only superusers may use it.")),
        Err(error) => {
            tracing::error!(%error, "an administrator cannot be recognized");
            Err(ErrorInfo::new("08006", "roles cannot be looked up now")
                .hint("The home shard does not answer; the catalog's own role may come in."))
        }
    }
}

/// SCRAM-SHA-256 against the home shard's verifier: the keys that log in to the shards.
async fn prove(
    client: &mut Client,
    worker: &Worker,
    user: &str,
) -> Result<scram::Keys, Option<ErrorInfo>> {
    let shared = Arc::clone(&worker.shared);
    let name = user.to_owned();
    let asked = worker.shared.control.spawn(async move { shared.verifier(&name).await });
    let verifier = match asked.await {
        Ok(Ok(verifier)) => verifier,
        Ok(Err(error)) => {
            tracing::error!(%error, "a client cannot be authenticated");
            return Err(Some(
                ErrorInfo::new("08006", "roles cannot be looked up now")
                    .hint("The home shard does not answer; see the router's log."),
            ));
        }
        Err(_) => return Err(None),
    };
    let known = verifier.is_some();
    let secret = worker.shared.verifiers.secret;
    let verifier = verifier.unwrap_or_else(|| scram::Verifier::made_up(user, &secret));
    put_frame(&mut client.out, b'R', |out| {
        out.extend_from_slice(&10i32.to_be_bytes());
        wire::put_cstr(out, scram::MECHANISM.as_bytes());
        out.push(0);
    });
    let wrong = |error: ScramError| match error {
        ScramError::WrongProof => {
            tracing::warn!(user, known, "password authentication failed");
            let message = format!("password authentication failed for user \"{user}\"");
            ErrorInfo::new("28P01", message)
        }
        other => ErrorInfo::protocol(other.to_string()),
    };
    let first = password_message(client).await?;
    let mut reader = wire::Reader::new(&first);
    let malformed = |error: wire::Malformed| Some(ErrorInfo::protocol(error.to_string()));
    if reader.cstr().map_err(malformed)? != scram::MECHANISM.as_bytes() {
        return Err(Some(ErrorInfo::protocol(
            "client selected an invalid SASL authentication mechanism",
        )));
    }
    let message = reader.value().map_err(malformed)?.unwrap_or_default();
    let mut random = [0; 18];
    getrandom::fill(&mut random)
        .map_err(|_| ErrorInfo::new("XX000", "the system gives no random bytes"))?;
    let (exchange, answer) = scram::Server::first(verifier, message, random).map_err(wrong)?;
    put_sasl(&mut client.out, 11, &answer);
    let last = password_message(client).await?;
    let (answer, keys) = exchange.last(&last).map_err(wrong)?;
    put_sasl(&mut client.out, 12, &answer);
    Ok(keys)
}

fn put_sasl(out: &mut Vec<u8>, code: i32, message: &str) {
    put_frame(out, b'R', |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(message.as_bytes());
    });
}

/// The body of the client's next message, which must be a password message of modest size.
async fn password_message(client: &mut Client) -> Result<bytes::Bytes, Option<ErrorInfo>> {
    client.flush().await.map_err(|_| None)?;
    loop {
        match wire::peek(&client.inbuf).map_err(|e| ErrorInfo::protocol(e.to_string()))? {
            Some((b'p', size)) if size > PASSWORD_MAX => {
                return Err(Some(ErrorInfo::protocol("the password is too long")));
            }
            Some((b'p', size)) if client.inbuf.len() >= size => {
                return Ok(client.inbuf.split_to(size).freeze().slice(HEADER..));
            }
            Some((b'p', _)) => {}
            Some((b'X', _)) => return Err(None),
            Some((tag, _)) => {
                return Err(Some(ErrorInfo::protocol(format!(
                    "expected password response, got message type {tag}"
                ))));
            }
            None => {}
        }
        client.fill().await.map_err(|_| None)?;
    }
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
    let home = match worker.pools.checkout(map.home, &login, &map, None).await {
        Ok(server) => server,
        Err(error) => {
            refuse(&mut client, &error).await;
            return None;
        }
    };
    worker.pools.expect(&login, &map);
    let planning = Planning::new(map, &session.settings, &session.user, false);
    let cancel = worker.register(&login.user, client.peer());

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
