//! The kinds of values in the file: addresses, durations with a unit, database URLs.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{ROUTER_NAME_BYTES, ServerTls, parse_url};

/// A `postgres://` URL that was parsed once. Printing it leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct Dsn(String);

impl Dsn {
    /// # Errors
    /// The reason why this is no database URL.
    pub fn try_new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err("expected postgres://user@host:port/database".into());
        }
        // Whether its own TLS parameters suffice depends on the configuration's.
        parse_url(&text, &ServerTls::lenient())?;
        Ok(Self(text))
    }

    /// The whole URL, with the password if it has one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL without user and password: what the catalog keeps of a shard, since users log in
    /// there as themselves.
    #[must_use]
    pub fn address(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("postgres", &self.0));
        let (authority, path) = split_authority(rest);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        format!("{scheme}://{host}{path}")
    }

    /// The database that it names.
    #[must_use]
    pub fn database(&self) -> Option<String> {
        let (parsed, _) = parse_url(&self.0, &ServerTls::lenient()).ok()?;
        parsed.get_dbname().map(ToOwned::to_owned)
    }

    /// The user that it names.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        let (parsed, _) = parse_url(&self.0, &ServerTls::lenient()).ok()?;
        parsed.get_user().map(ToOwned::to_owned)
    }

    /// The password that it names.
    #[must_use]
    pub fn password(&self) -> Option<Vec<u8>> {
        let (parsed, _) = parse_url(&self.0, &ServerTls::lenient()).ok()?;
        parsed.get_password().map(ToOwned::to_owned)
    }

    /// Another server's DSN with this one's login, unless it names a user itself: shards' DSNs name
    /// none, since clients log in to them as themselves.
    #[must_use]
    pub fn login_for(&self, dsn: &str) -> String {
        let has_user = dsn.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
        let login = self.as_str().split_once("://").and_then(|(_, rest)| rest.split_once('@'));
        match (has_user, login) {
            (false, Some((login, _))) => dsn.replacen("://", &format!("://{login}@"), 1),
            _ => dsn.to_owned(),
        }
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let (authority, path) = split_authority(rest);
        let path = path.split_once("password=").map_or(path, |(head, _)| head);
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                let user = user.split_once(':').map_or(user, |(name, _)| name);
                write!(f, "{scheme}://{user}@{host}{path}")
            }
            None => write!(f, "{scheme}://{authority}{path}"),
        }
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({self})")
    }
}

/// Without the password.
impl Serialize for Dsn {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dsn {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::try_new(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(from)?).map_err(D::Error::custom)
}

pub(super) fn optional_address<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    parse_address(&text).map(Some).map_err(D::Error::custom)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// `"0"` switches the thing off.
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    duration(from).map(|span| (!span.is_zero()).then_some(span))
}

pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    parse_size(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// `64kB`, `16MB`, `1GB`: PostgreSQL's spellings, by 1024. `1GB` is one byte less, as much as a
/// message can have.
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit.trim() {
        "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => return Err(format!("'{text}' is not a size such as \"64kB\", \"16MB\" or \"1GB\"")),
    };
    let number: usize = digits.parse().map_err(|_| format!("'{text}' is not a size"))?;
    let size = number.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is too much"))?;
    Ok(if size == 1 << 30 { super::FRAME_MAX } else { size })
}

/// A file's mode as `chmod` takes it: `"0770"`.
pub(super) fn permissions<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let text = String::deserialize(from)?;
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(D::Error::custom(format!("'{text}' is not a file mode such as \"0770\""))),
    }
}

pub(super) fn show_permissions<S: Serializer>(mode: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{mode:04o}"))
}

pub(super) fn show_size<S: Serializer>(size: &usize, to: S) -> Result<S::Ok, S::Error> {
    let size = if *size == super::FRAME_MAX { 1 << 30 } else { *size as u64 };
    show_bytes(&size, to)
}

pub(super) fn show_bytes<S: Serializer>(size: &u64, to: S) -> Result<S::Ok, S::Error> {
    let units = [(30, "GB"), (20, "MB"), (10, "kB")];
    let unit = units.iter().find(|(shift, _)| *size > 0 && size.trailing_zeros() >= *shift);
    match unit {
        Some((shift, unit)) => to.collect_str(&format_args!("{}{unit}", size >> shift)),
        None => to.collect_str(&format_args!("{size}B")),
    }
}

/// As it is written in the file.
pub(super) fn show_duration<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
    let ms = span.as_millis();
    to.serialize_str(&match ms {
        0 => "0".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    })
}

pub(super) fn show_optional_duration<S: Serializer>(
    span: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    show_duration(&span.unwrap_or_default(), to)
}

/// `5s`, `250ms`, `10m`, `1h`, or `0`. A bare number is refused: its unit would be a guess.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 =
        digits.parse().map_err(|_| format!("'{text}' is not a duration such as \"5s\""))?;
    let milliseconds = match unit.trim() {
        "" if number == 0 => 0,
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "" => return Err(format!("'{text}' has no unit: write \"{number}s\" or \"{number}ms\"")),
        other => return Err(format!("'{other}' is not a unit: ms, s, m and h are")),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("'{text}' is too long"))
}

pub(super) fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    parse_bytes(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// `64kB`, `100MB`, `4GB`, as PostgreSQL writes sizes: steps of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let number: u64 =
        digits.parse().map_err(|_| format!("'{text}' is not a size such as \"4GB\""))?;
    let factor: u64 = match unit.trim() {
        "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        "" => return Err(format!("'{text}' has no unit: write \"{number}MB\" or \"{number}GB\"")),
        other => return Err(format!("'{other}' is not a unit: B, kB, MB, GB and TB are")),
    };
    number.checked_mul(factor).ok_or_else(|| format!("'{text}' is too large"))
}

/// `host:port`; a host name takes its first address.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found = text.to_socket_addrs().map_err(|error| {
        let wrong = format!("'{text}' is not an address such as 127.0.0.1:6432 or localhost:6432");
        match error.kind() {
            // No port, or one that is no number.
            std::io::ErrorKind::InvalidInput => wrong,
            _ => format!("{wrong}: {error}"),
        }
    })?;
    // Of a name that has both kinds: not every client speaks IPv6.
    let found: Vec<SocketAddr> = found.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| format!("'{text}' has no address"))
}

/// The host's name and the port: unique wherever two routers can run.
pub(super) fn default_router_name(listen: SocketAddr) -> String {
    let uname = rustix::system::uname();
    let host: String = uname
        .nodename()
        .to_string_lossy()
        .chars()
        .map(|c| if is_name_char(c) { c } else { '-' })
        .take(ROUTER_NAME_BYTES - "-65535".len())
        .collect();
    format!("{host}-{}", listen.port())
}

pub(super) fn is_router_name(name: &str) -> bool {
    (1..=ROUTER_NAME_BYTES).contains(&name.len()) && name.chars().all(is_name_char)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// `user:password@host:port` and the rest. The user's part ends at the last '@' before the path,
/// since a password may hold an '@' too.
fn split_authority(rest: &str) -> (&str, &str) {
    rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at))
}

pub(super) fn source(error: &dyn std::error::Error) -> Option<String> {
    error.source().map(ToString::to_string)
}
