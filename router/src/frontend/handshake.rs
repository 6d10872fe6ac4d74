//! From the first byte to ReadyForQuery: TLS, cancel requests, authentication, startup settings.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::authenticate::{Caller, Known, authenticate};
use crate::client::{Client, Socket};
use crate::console;
use crate::error::ErrorInfo;
use crate::executor::{Conn, check_encoding};
use crate::pool::Login;
use crate::session::settings::{ENCODING, startup_value};
use crate::session::{Session, Settings};
use crate::tls::server::{Acceptor, Channel};
use crate::wire::startup::{self, Startup};
use crate::wire::{self, backend, put_frame};
use crate::worker::{CancelTarget, Phase, Planning, Shared, Worker, send_cancel};
use bytes::Buf;

/// How long a client may take to log in.
const LOGIN: std::time::Duration = std::time::Duration::from_secs(60);

/// The minor version from which on cancel keys may have any length.
const LONG_KEYS: u16 = 2;

/// What a client has come for.
enum Visit {
    Session(Box<Conn>),
    Console(Client, Arc<Shared>, Rc<str>),
}

/// A connection that is ready for queries, or nothing: the client was refused, was a cancel
/// request, left, or came to the console and has left that.
pub(super) async fn handshake(client: Client, worker: Rc<Worker>) -> Option<Box<Conn>> {
    match tokio::time::timeout(LOGIN, start(client, worker)).await.ok()?? {
        Visit::Session(conn) => Some(conn),
        Visit::Console(client, shared, user) => {
            console::serve(client, shared, user).await;
            None
        }
    }
}

/// What a client has asked for already: PostgreSQL answers each question once.
#[derive(Default)]
struct Asked {
    ssl: bool,
    gss: bool,
}

async fn start(client: Client, worker: Rc<Worker>) -> Option<Visit> {
    let (mut client, mut channel) = accept_direct_tls(client, &worker).await?;
    let mut asked = Asked { ssl: channel.is_some(), gss: channel.is_some() };
    loop {
        let packet = loop {
            match startup::packet(&client.inbuf) {
                Ok(Some((packet, size))) => {
                    client.inbuf.advance(size);
                    break packet;
                }
                Ok(None) => client.fill().await.ok()?,
                Err(error) => {
                    client.dismiss(&error.into()).await;
                    return None;
                }
            }
        };
        match packet {
            Startup::Gss if !asked.gss => {
                asked = Asked { ssl: false, gss: true };
                client.write_all(b"N").await.ok()?;
                refuse_early_bytes(&mut client, "GSSAPI encryption").await?;
            }
            Startup::Ssl if !asked.ssl => {
                let tls = worker.shared.tls.as_ref().filter(|_| client.is_tcp());
                asked = Asked { ssl: true, gss: tls.is_some() };
                match tls {
                    Some(tls) => {
                        // Before the handshake, so that what somebody has put in front of it is
                        // not taken for what the client says behind it.
                        refuse_early_bytes(&mut client, "SSL").await?;
                        client.write_all(b"S").await.ok()?;
                        let (secured, through) = accept_tls(client, tls).await?;
                        client = secured;
                        channel = Some(through);
                    }
                    None => {
                        client.write_all(b"N").await.ok()?;
                        refuse_early_bytes(&mut client, "SSL").await?;
                    }
                }
            }
            Startup::Gss => return refuse_protocol(&mut client, 1234, 5680).await,
            Startup::Ssl => return refuse_protocol(&mut client, 1234, 5679).await,
            Startup::Other { major, minor } => {
                return refuse_protocol(&mut client, major, minor).await;
            }
            Startup::Cancel { pid, secret } => {
                worker.shared.cancel(pid, secret);
                return None;
            }
            Startup::Session { minor, parameters } => {
                return match log_in(&mut client, &worker, channel.as_ref(), minor, parameters).await
                {
                    Ok((_, login)) if &*login.database == console::DATABASE => {
                        Some(Visit::Console(client, Arc::clone(&worker.shared), login.user))
                    }
                    Ok((session, login)) => {
                        let long_key = minor >= LONG_KEYS;
                        let conn = greet(client, worker, session, login, long_key).await?;
                        Some(Visit::Session(Box::new(conn)))
                    }
                    Err(Some(error)) => {
                        client.dismiss(&error).await;
                        None
                    }
                    Err(None) => None,
                };
            }
        }
    }
}

/// A connection whose first byte begins a TLS handshake (`sslnegotiation=direct`): the client must
/// name the protocol that it means to speak, so that another's bytes are never taken for ours.
async fn accept_direct_tls(client: Client, worker: &Worker) -> Option<(Client, Option<Channel>)> {
    let Some(tls) = worker.shared.tls.as_ref().filter(|_| client.is_tcp()) else {
        return Some((client, None));
    };
    if client.first_byte().await.ok()? != startup::TLS_HANDSHAKE {
        return Some((client, None));
    }
    let (mut client, channel) = accept_tls(client, tls).await?;
    if !client.names_our_protocol() {
        let error = "received direct SSL connection request without ALPN protocol negotiation \
                     extension";
        client.dismiss(&ErrorInfo::protocol(error)).await;
        return None;
    }
    Some((client, Some(channel)))
}

async fn accept_tls(client: Client, tls: &Acceptor) -> Option<(Client, Channel)> {
    let Socket::Plain(stream) = client.into_socket() else { return None };
    let accepted = tls.accept(stream).await;
    let (stream, channel) =
        accepted.inspect_err(|error| tracing::debug!(%error, "TLS handshake failed")).ok()?;
    Some((Client::new(Socket::Tls(Box::new(stream))), channel))
}

/// Bytes that came with a request for encryption were not encrypted: somebody put them there.
async fn refuse_early_bytes(client: &mut Client, request: &str) -> Option<()> {
    if client.inbuf.is_empty() {
        return Some(());
    }
    let error = ErrorInfo::protocol(format!("received unencrypted data after {request} request"))
        .detail(
            "This could be either a client-software bug or evidence of an attempted \
             man-in-the-middle attack.",
        );
    client.dismiss(&error).await;
    None
}

async fn refuse_protocol(client: &mut Client, major: u16, minor: u16) -> Option<Visit> {
    let message = format!(
        "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{}",
        startup::MINOR_MAX
    );
    if major < 3 {
        // Such a client reads a text up to a zero.
        client.out.extend_from_slice(format!("EFATAL:  {message}\n\0").as_bytes());
        // It may be gone; its connection ends either way.
        drop(client.flush().await);
    } else {
        client.dismiss(&ErrorInfo::new("0A000", message)).await;
    }
    None
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
    let options: Vec<_> = parameters.iter().filter(|(name, _)| name.starts_with("_pq_.")).collect();
    if minor > startup::MINOR_MAX || !options.is_empty() {
        put_frame(&mut client.out, b'v', |out| {
            let version = 3 << 16 | u32::from(minor.min(startup::MINOR_MAX));
            out.extend_from_slice(&version.to_be_bytes());
            out.extend_from_slice(&(options.len() as u32).to_be_bytes());
            for (name, _) in options {
                wire::put_cstr(out, name.as_bytes());
            }
        });
    }
    if let Some(value) = named("replication") {
        refuse_replication(value)?;
    }
    let user = named("user").filter(|user| !user.is_empty()).ok_or_else(|| {
        ErrorInfo::new("28000", "no PostgreSQL user name specified in startup packet")
    })?;
    let database = named("database").filter(|name| !name.is_empty()).unwrap_or(user);
    if worker.phase() >= Phase::Drain {
        return Err(Some(ErrorInfo::new("57P03", "the database system is shutting down")));
    }
    if worker.sessions() >= worker.live.borrow().max_clients.div_ceil(shared.workers) {
        return Err(Some(ErrorInfo::new("53300", "sorry, too many clients already")));
    }
    let caller = Caller { address: client.peer().map(|peer| peer.ip()), channel, user, database };
    let Known { login, may_connect, superuser } = authenticate(client, worker, caller).await?;
    client.out.extend_from_slice(backend::AUTHENTICATION_OK);
    if database == console::DATABASE {
        if !superuser {
            return Err(Some(
                ErrorInfo::new("42501", "permission denied for the console")
                    .detail("Only superusers may use it."),
            ));
        }
        return Ok((Session::new(worker.intern(Settings::default())), login));
    }
    if worker.shared.disabled.load(Ordering::Relaxed) {
        let message = format!("database \"{database}\" takes no new connections now");
        return Err(Some(ErrorInfo::new("57P03", message)));
    }
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
    Ok((Session::new(worker.intern(settings)), login))
}

/// The router has no log of changes to stream: the shards have one each.
fn refuse_replication(value: &str) -> Result<(), ErrorInfo> {
    let word = value.to_ascii_lowercase();
    let is = |whole: &str, least: usize| word.len() >= least && whole.starts_with(&word);
    if is("false", 1) || is("no", 1) || is("off", 2) || word == "0" {
        return Ok(());
    }
    if is("true", 1) || is("yes", 1) || word == "on" || word == "1" || word == "database" {
        return Err(ErrorInfo::new(
            "0A000",
            "replication connections are not supported by the router",
        )
        .hint("Connect to a shard directly; \"pgherd status\" lists their addresses."));
    }
    let message = format!("invalid value for parameter \"replication\": \"{value}\"");
    Err(ErrorInfo::new("22023", message)
        .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\"."))
}

fn startup_settings(parameters: &[(String, String)]) -> Result<Settings, ErrorInfo> {
    let mut settings = Settings::default();
    for (name, value) in parameters {
        match name.to_lowercase().as_str() {
            "user" | "database" | "replication" => {}
            name if name.starts_with("_pq_.") => {}
            "options" => options(value, &mut settings)?,
            name => settings.set(name, Some(&startup_value(name, value))),
        }
    }
    if let Some(value) = settings.value(ENCODING) {
        check_encoding(value)?;
        // What servers have anyway.
        if matches!(&*value.to_lowercase(), "'utf8'" | "'utf-8'" | "'unicode'") {
            settings.set(ENCODING, None);
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
    mut session: Session,
    login: Login,
    long_key: bool,
) -> Option<Conn> {
    let map = worker.map();
    let home = match worker.pools.checkout(map.home, &login, &map, None).await {
        Ok(server) => server,
        Err(error) => {
            client.dismiss(&error).await;
            return None;
        }
    };
    worker.pools.expect(&login, &map);
    if !home.seldom.own_settings.is_empty() {
        // What role and database have of their own, on whatever server the session runs.
        let mut settings = (*session.startup).clone();
        settings.add_missing(&home.seldom.own_settings);
        session.startup = worker.intern(settings);
        session.settings = Rc::clone(&session.startup);
    }
    let Session { settings, temporary, .. } = &session;
    let planning = Planning::new(map, settings, &login.user, temporary, false);
    let cancel = worker.register(&login, client.peer(), long_key);
    let keep_all = worker.shared.settings.session_pooling;
    let mut conn = Conn::new(client, session, worker, login, cancel, planning);
    conn.servers.push(home);
    if keep_all {
        conn.keep_all();
    }
    let settled = conn.bring_settings(0).await;
    conn.session.reported = Rc::clone(&conn.servers[0].parameters);
    conn.release();
    if let Err(failure) = settled {
        if let crate::error::Failure::Shard(frame) = failure {
            let error = crate::pool::connect::shard_error(&frame);
            conn.client.dismiss(&error).await;
        }
        conn.abandon();
        conn.worker.unregister(&conn.cancel);
        return None;
    }
    let out = &mut conn.client.out;
    for (name, value) in conn.session.reported.iter() {
        backend::parameter_status(out, name, value);
    }
    put_frame(out, b'K', |out| {
        out.extend_from_slice(&conn.cancel.pid.to_be_bytes());
        out.extend_from_slice(conn.cancel.secret());
    });
    backend::ready_for_query(out, b'I');
    conn.client.flush().await.ok()?;
    Some(conn)
}

/// Passes a cancel request on to the servers that work for the session it names.
pub async fn cancel(worker: Rc<Worker>, pid: u32, secret: Box<[u8]>) {
    if let Some((delay, messages)) = worker.cancel_delay(pid) {
        tokio::time::sleep(delay).await;
        if !worker.is_at(pid, messages) {
            return;
        }
    }
    for CancelTarget { address, pid, secret, .. } in worker.cancel_targets(pid, &secret) {
        send_cancel(address, pid, secret).await;
    }
}
