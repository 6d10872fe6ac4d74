//! Who the client is: it logs in the way that `[[auth.hba]]` names, as a role that is what the home
//! shard says now. Errors are PostgreSQL's, in PostgreSQL's order, so that nobody learns more from
//! the router than from a server.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::config::{AuthMethod, CONSOLE};
use crate::error::ErrorInfo;
use crate::hba::Peer;
use crate::md5;
use crate::pool::Login;
use crate::proofs::Proof;
use crate::scram::{self, MECHANISM, MECHANISM_PLUS, ScramError};
use crate::tls::server::Channel;
use crate::verifiers::{Password, Role};
use crate::wire::{self, HEADER, put_frame};
use crate::worker::Worker;

/// The longest password message that is read.
const PASSWORD_MAX: usize = 8192;

/// Between two questions to a home shard that is paused.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Where a login comes from, and what is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) address: Option<IpAddr>,
    /// Of an encrypted connection.
    pub(super) channel: Option<&'a Channel>,
    pub(super) user: &'a str,
    pub(super) database: &'a str,
}

/// A client that has proven who it is.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) login: Login,
    /// The role has CONNECT on the database.
    pub(super) may_connect: bool,
    pub(super) superuser: bool,
}

/// Lets the client prove who it is. `Err(None)` when it is gone.
pub(super) async fn authenticate(
    client: &mut Client,
    worker: &Worker,
    caller: Caller<'_>,
) -> Result<Known, Option<ErrorInfo>> {
    let Caller { address, channel, user, database } = caller;
    let peer = Peer { address, encrypted: channel.is_some() };
    let method = worker.live.borrow().hba.method(peer, user, database).inspect_err(|error| {
        tracing::warn!(
            user,
            address = address.map(tracing::field::display),
            "login refused: {}",
            error.message
        );
    })?;
    let by_password = matches!(method, AuthMethod::ScramSha256 | AuthMethod::Md5);
    if by_password {
        check_throttle(worker, caller)?;
    }
    let role = match look_up(worker, user).await {
        Err(Some(error)) => stand_in(worker, caller).await.ok_or(error).map(Some)?,
        found => found?,
    };
    let password = role.as_ref().and_then(|role| role.password.as_ref());
    let proof = match (method, password) {
        (AuthMethod::Md5, Some(Password::Md5(verifier))) => {
            md5(client, worker, caller, verifier).await?
        }
        (AuthMethod::ScramSha256 | AuthMethod::Md5, Some(Password::Scram(verifier))) => {
            scram(client, worker, caller, Some(verifier.clone())).await?
        }
        (AuthMethod::ScramSha256 | AuthMethod::Md5, _) => {
            scram(client, worker, caller, None).await?
        }
        (AuthMethod::Cert, _) => {
            check_certificate(caller)?;
            Proof::None
        }
        (AuthMethod::Trust, _) => Proof::None,
        // The table has refused it already.
        (AuthMethod::Reject, _) => return Err(None),
    };
    let role =
        role.ok_or_else(|| ErrorInfo::new("28000", format!("role \"{user}\" does not exist")))?;
    if !role.can_login {
        let message = format!("role \"{user}\" is not permitted to log in");
        return Err(Some(ErrorInfo::new("28000", message)));
    }
    let seat =
        worker.shared.seats.take(role.version.oid, role.connection_limit).ok_or_else(|| {
            ErrorInfo::new("53300", format!("too many connections for role \"{user}\""))
        })?;
    worker.shared.proofs.learn(role.version.oid, &proof);
    let login = Login {
        user: user.into(),
        database: database.into(),
        role: role.version,
        proof,
        seat: seat.map(Rc::new),
    };
    Ok(Known { login, may_connect: role.may_connect, superuser: role.superuser })
}

/// The role as the home shard knows it at this moment.
async fn look_up(worker: &Worker, user: &str) -> Result<Option<Role>, Option<ErrorInfo>> {
    loop {
        let shared = Arc::clone(&worker.shared);
        let name = user.to_owned();
        let asked = worker.shared.control.spawn(async move { shared.role(&name).await });
        match asked.await {
            Ok(Ok(role)) => return Ok(role),
            // An operator restarts it: who logs in waits with those who are in already.
            Ok(Err(_)) if worker.shared.is_home_paused() => tokio::time::sleep(ASK_AGAIN).await,
            Ok(Err(error)) => {
                tracing::error!(%error, "a client cannot be authenticated");
                return Err(Some(
                    ErrorInfo::new("08006", "roles cannot be looked up now")
                        .hint("The home shard does not answer; see the router's log."),
                ));
            }
            Err(_) => return Err(None),
        }
    }
}

/// The catalog's own role comes to the console also while the home shard does not answer: it is
/// what the configuration says of it.
async fn stand_in(worker: &Worker, caller: Caller<'_>) -> Option<Role> {
    let catalog = &worker.shared.settings.catalog;
    if caller.database != CONSOLE || catalog.user().as_deref() != Some(caller.user) {
        return None;
    }
    let password = catalog.password();
    // Thousands of rounds of a hash: not on the thread that serves clients.
    let hashing = worker.shared.control.spawn_blocking(move || {
        let text = postgres_protocol::password::scram_sha_256(&password?);
        scram::Verifier::parse(&text).map(Password::Scram)
    });
    Some(Role::administrator(hashing.await.ok()?))
}

fn check_throttle(worker: &Worker, caller: Caller<'_>) -> Result<(), ErrorInfo> {
    if worker.shared.throttle.admits(caller.address, Instant::now()) {
        return Ok(());
    }
    tracing::warn!(
        user = caller.user,
        address = caller.address.map(tracing::field::display),
        "login refused: too many failed"
    );
    Err(ErrorInfo::new("28000", "too many failed logins from this address").hint(
        "Wait a moment. [auth] max_failures and failure_window in the router's configuration say \
         how many are allowed.",
    ))
}

/// A wrong password, or none to compare it with: the client is not told which.
fn wrong_password(worker: &Worker, caller: Caller<'_>, known: bool) -> ErrorInfo {
    let Caller { address, user, .. } = caller;
    worker.shared.throttle.failed(address, Instant::now());
    tracing::warn!(
        user,
        address = address.map(tracing::field::display),
        known,
        "password authentication failed"
    );
    ErrorInfo::new("28P01", format!("password authentication failed for user \"{user}\""))
}

fn check_certificate(caller: Caller<'_>) -> Result<(), ErrorInfo> {
    let Caller { address, channel, user, .. } = caller;
    let Some(channel) = channel.filter(|channel| channel.certified) else {
        return Err(ErrorInfo::new("28000", "connection requires a valid client certificate"));
    };
    if channel.common_name.as_deref() == Some(user) {
        return Ok(());
    }
    tracing::warn!(
        user,
        address = address.map(tracing::field::display),
        common_name = channel.common_name,
        "certificate of another user"
    );
    let message = format!("certificate authentication failed for user \"{user}\"");
    Err(ErrorInfo::new("28000", message))
}

/// The md5 exchange: what the shards will be shown is the verifier itself.
async fn md5(
    client: &mut Client,
    worker: &Worker,
    caller: Caller<'_>,
    verifier: &md5::Verifier,
) -> Result<Proof, Option<ErrorInfo>> {
    let salt = random()?;
    put_frame(&mut client.out, b'R', |out| {
        out.extend_from_slice(&5i32.to_be_bytes());
        out.extend_from_slice(&salt);
    });
    let message = password_message(client).await?;
    let answer = wire::Reader::new(&message).cstr().map_err(malformed)?;
    check_throttle(worker, caller)?;
    if !verifier.is_right(salt, answer) {
        return Err(Some(wrong_password(worker, caller, true)));
    }
    Ok(Proof::Md5(Arc::new(verifier.clone())))
}

/// SCRAM-SHA-256, bound to the channel if the client can: the keys that log in to the shards.
/// Without a verifier the exchange looks like any other, and fails at its end.
async fn scram(
    client: &mut Client,
    worker: &Worker,
    caller: Caller<'_>,
    verifier: Option<scram::Verifier>,
) -> Result<Proof, Option<ErrorInfo>> {
    let known = verifier.is_some();
    let verifier = verifier
        .unwrap_or_else(|| scram::Verifier::made_up(caller.user, worker.shared.verifiers.secret()));
    let end_point = caller.channel.and_then(|channel| channel.end_point.as_deref());
    put_frame(&mut client.out, b'R', |out| {
        out.extend_from_slice(&10i32.to_be_bytes());
        if end_point.is_some() {
            wire::put_cstr(out, MECHANISM_PLUS.as_bytes());
        }
        wire::put_cstr(out, MECHANISM.as_bytes());
        out.push(0);
    });
    let wrong = |error: ScramError| match error {
        ScramError::WrongProof => wrong_password(worker, caller, known),
        ScramError::Channel(_) => ErrorInfo::new("28000", error.to_string()),
        ScramError::Malformed(_) => ErrorInfo::protocol(error.to_string()),
    };
    let first = password_message(client).await?;
    let mut reader = wire::Reader::new(&first);
    let mechanism = reader.cstr().map_err(malformed)?;
    let channel = match end_point {
        Some(hash) if mechanism == MECHANISM_PLUS.as_bytes() => scram::Channel::EndPoint(hash),
        Some(_) if mechanism == MECHANISM.as_bytes() => scram::Channel::Unbound,
        None if mechanism == MECHANISM.as_bytes() => scram::Channel::None,
        _ => {
            return Err(Some(ErrorInfo::protocol(
                "client selected an invalid SASL authentication mechanism",
            )));
        }
    };
    let message = reader.value().map_err(malformed)?.unwrap_or_default();
    let (exchange, answer) =
        scram::Server::first(verifier, channel, message, random()?).map_err(wrong)?;
    put_sasl(&mut client.out, 11, &answer);
    let last = password_message(client).await?;
    check_throttle(worker, caller)?;
    let (answer, keys) = exchange.last(&last).map_err(wrong)?;
    put_sasl(&mut client.out, 12, &answer);
    Ok(Proof::Scram(Arc::new(keys)))
}

fn put_sasl(out: &mut Vec<u8>, code: i32, message: &str) {
    put_frame(out, b'R', |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(message.as_bytes());
    });
}

fn malformed(error: wire::Malformed) -> ErrorInfo {
    ErrorInfo::protocol(error.to_string())
}

fn random<const N: usize>() -> Result<[u8; N], ErrorInfo> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|_| ErrorInfo::new("XX000", "the system gives no random bytes"))?;
    Ok(bytes)
}

/// The body of the client's next message, which must be a password message of modest size.
async fn password_message(client: &mut Client) -> Result<bytes::Bytes, Option<ErrorInfo>> {
    client.flush().await.map_err(|_| None)?;
    loop {
        match wire::peek(&client.inbuf).map_err(malformed)? {
            Some((b'p', size)) if size > PASSWORD_MAX => {
                return Err(Some(ErrorInfo::protocol("the password is too long")));
            }
            Some((b'p', size)) if client.inbuf.len() >= size => {
                return Ok(client.inbuf.split_to(size).freeze().slice(HEADER..));
            }
            Some((b'p', _)) | None => {}
            Some((b'X', _)) => return Err(None),
            Some((tag, _)) => {
                return Err(Some(ErrorInfo::protocol(format!(
                    "expected password response, got message type {tag}"
                ))));
            }
        }
        client.fill().await.map_err(|_| None)?;
    }
}
