//! A server's URL: what libpq knows of TLS in it, and what tokio-postgres reads of the rest.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use tokio_postgres::Config;

/// How connections to the catalog and the shards are encrypted: libpq's parameters. What a server's
/// own URL says goes before.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTls {
    pub sslmode: SslMode,
    /// PEM file of the authorities that may vouch for a server.
    pub sslrootcert: Option<PathBuf>,
    /// PEM files of the router's own certificate and its key, for servers that ask who it is.
    pub sslcert: Option<PathBuf>,
    pub sslkey: Option<PathBuf>,
}

/// As libpq's `sslmode`, without `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    Disable,
    /// Encrypted where the server offers it.
    #[default]
    Prefer,
    /// Encrypted, whoever the server is.
    Require,
    /// An authority of `sslrootcert` vouches for the server.
    VerifyCa,
    /// And its certificate names the host of the URL.
    VerifyFull,
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        })
    }
}

impl ServerTls {
    /// For looking at a URL alone, when it is not known yet what goes with it.
    pub(super) fn lenient() -> Self {
        Self { sslrootcert: Some(PathBuf::new()), ..Self::default() }
    }

    /// What cannot work, with the key's name.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        if self.sslcert.is_some() != self.sslkey.is_some() {
            return Some(("shard_tls.sslcert", "needs sslkey, and the other way round".into()));
        }
        if self.sslrootcert.is_none()
            && matches!(self.sslmode, SslMode::VerifyCa | SslMode::VerifyFull)
        {
            let problem = format!("must be given for sslmode = \"{}\"", self.sslmode);
            return Some(("shard_tls.sslrootcert", problem));
        }
        None
    }
}

/// Reads a `postgres://` URL: how to connect, and how to encrypt. `defaults` hold for what the URL
/// leaves open.
///
/// # Errors
/// The reason why this is no URL of a server.
pub fn parse_url(url: &str, defaults: &ServerTls) -> Result<(Config, ServerTls), String> {
    let (head, query) = url.split_once('?').unwrap_or((url, ""));
    let mut tls = defaults.clone();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value =
            percent_decode_str(value).decode_utf8().map_err(|_| format!("{name} is not UTF-8"))?;
        let file = || (!value.is_empty()).then(|| PathBuf::from(&*value));
        match name {
            "sslmode" => tls.sslmode = mode(&value)?,
            "sslrootcert" => tls.sslrootcert = file(),
            "sslcert" => tls.sslcert = file(),
            "sslkey" => tls.sslkey = file(),
            _ => rest.push(pair),
        }
    }
    if let Some((key, problem)) = tls.problem() {
        let name = key.rsplit_once('.').map_or(key, |(_, name)| name);
        return Err(format!("{name}: {problem}"));
    }
    let plain = match rest.is_empty() {
        true => head.to_owned(),
        false => format!("{head}?{}", rest.join("&")),
    };
    let mut config: Config = plain.parse().map_err(|error: tokio_postgres::Error| {
        match super::value::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        }
    })?;
    if config.get_hosts().is_empty() {
        return Err("names no host".into());
    }
    config.ssl_mode(match tls.sslmode {
        SslMode::Disable => tokio_postgres::config::SslMode::Disable,
        SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            tokio_postgres::config::SslMode::Require
        }
    });
    Ok((config, tls))
}

fn mode(text: &str) -> Result<SslMode, String> {
    use SslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    [Disable, Prefer, Require, VerifyCa, VerifyFull]
        .into_iter()
        .find(|mode| mode.to_string() == text)
        .ok_or_else(|| {
            format!("sslmode={text} is none of disable, prefer, require, verify-ca, verify-full")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_how_it_is_encrypted() {
        let defaults = ServerTls { sslmode: SslMode::Require, ..ServerTls::default() };
        let (config, tls) = parse_url("postgres://u@h:7/d?connect_timeout=3", &defaults).unwrap();
        assert_eq!(tls, defaults);
        assert_eq!(config.get_ports(), [7]);
        assert!(config.get_connect_timeout().is_some());
        let url = "postgres://h/d?sslrootcert=/a%20b.crt&sslmode=verify-full&application_name=x";
        let (config, tls) = parse_url(url, &defaults).unwrap();
        assert_eq!(tls.sslmode, SslMode::VerifyFull);
        assert_eq!(tls.sslrootcert, Some(PathBuf::from("/a b.crt")));
        assert_eq!(config.get_application_name(), Some("x"));
        assert_eq!(config.get_ssl_mode(), tokio_postgres::config::SslMode::Require);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (url, problem) in [
            ("postgres://h/d?sslmode=allow", "sslmode=allow"),
            ("postgres://h/d?sslmode=verify-full", "sslrootcert: must be given"),
            ("postgres://h/d?sslcert=/a", "needs sslkey"),
            ("postgres://?sslmode=disable", "names no host"),
            ("postgres://h/d?nonsense=1", "nonsense"),
        ] {
            let error = parse_url(url, &ServerTls::default()).unwrap_err();
            assert!(error.contains(problem), "{url}: {error}");
        }
    }
}
