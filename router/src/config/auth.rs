//! `[auth]`: who may connect, from where, and how they prove who they are.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::value;

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// How every client logs in; `scram-sha-256` when it is left out. Not beside a table.
    pub method: Option<AuthMethod>,
    /// A table as in `pg_hba.conf`: the first entry that fits a connection decides.
    #[serde(skip_serializing)]
    pub hba: Vec<HbaEntry>,
    /// Failed logins of one address within `failure_window`; more are refused unlooked at. 0: no
    /// limit.
    pub max_failures: u32,
    #[serde(deserialize_with = "value::duration", serialize_with = "value::show_duration")]
    pub failure_window: Duration,
}

/// The ways to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMethod {
    /// Every user name is believed: for networks in which everybody may be anybody.
    Trust,
    /// The SCRAM verifiers that the home shard holds.
    #[default]
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// By md5 for roles whose verifier is md5, by SCRAM for all others.
    Md5,
    /// The user's name is in a certificate that `tls.client_ca` vouches for.
    Cert,
    /// Never.
    Reject,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HbaEntry {
    #[serde(rename = "type")]
    pub kind: HbaType,
    #[serde(default)]
    pub database: Names,
    #[serde(default)]
    pub user: Names,
    /// `None` is every address.
    #[serde(default, deserialize_with = "networks")]
    pub address: Option<Vec<IpNet>>,
    pub method: AuthMethod,
}

/// Which connections a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HbaType {
    /// TCP, encrypted or not.
    Host,
    HostSsl,
    HostNoSsl,
    /// A Unix socket.
    Local,
}

/// Names of users or databases; `None` is `all`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names(pub Option<Vec<String>>);

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            method: None,
            hba: Vec::new(),
            max_failures: 10,
            failure_window: Duration::from_secs(60),
        }
    }
}

impl AuthConfig {
    /// What cannot work, with the key's name.
    pub(super) fn problem(&self, client_ca: bool) -> Option<(&'static str, String)> {
        if self.method.is_some() && !self.hba.is_empty() {
            let problem = "is for all clients, and a table [[auth.hba]] is there: give one of both";
            return Some(("auth.method", problem.into()));
        }
        if self.max_failures > 0 && self.failure_window.is_zero() {
            return Some(("auth.failure_window", "must be longer than 0".into()));
        }
        let without_ca = "method \"cert\" needs [tls] client_ca".to_owned();
        if self.method == Some(AuthMethod::Cert) && !client_ca {
            return Some(("auth.method", without_ca));
        }
        self.hba.iter().enumerate().find_map(|(at, entry)| {
            let wrong = |problem: &str| Some(("auth.hba", format!("entry {}: {problem}", at + 1)));
            match entry.method {
                AuthMethod::Cert if entry.kind != HbaType::HostSsl => {
                    wrong("method \"cert\" is for type \"hostssl\" only")
                }
                AuthMethod::Cert if !client_ca => wrong(&without_ca),
                _ if entry.kind == HbaType::Local && entry.address.is_some() => {
                    wrong("type \"local\" has no address")
                }
                _ => None,
            }
        })
    }
}

impl Names {
    /// Whether `name` is one of them.
    #[must_use]
    pub fn include(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.iter().any(|one| one == name))
    }
}

/// One text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let names = OneOrMany::deserialize(from)?.into_list();
        if names.is_empty() {
            return Err(D::Error::custom("an empty list fits nothing; \"all\" fits everything"));
        }
        // Words that mean something else than a name in pg_hba.conf must not pass for names here.
        let special = ["sameuser", "samerole", "samegroup", "replication"];
        let foreign =
            |name: &&String| special.contains(&name.as_str()) || name.starts_with(['+', '@', '/']);
        if let Some(name) = names.iter().find(foreign) {
            return Err(D::Error::custom(format!(
                "\"{name}\" is not supported: names and \"all\""
            )));
        }
        Ok(Self((!names.iter().any(|name| name == "all")).then_some(names)))
    }
}

fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    let texts = OneOrMany::deserialize(from)?.into_list();
    if texts.iter().any(|text| text == "all") {
        return Ok(None);
    }
    let network = |text: &String| {
        let found = text.parse().or_else(|_| text.parse().map(|one: std::net::IpAddr| one.into()));
        found.map_err(|_| {
            D::Error::custom(format!("\"{text}\" is no network such as 10.1.0.0/16, nor \"all\""))
        })
    };
    texts.iter().map(network).collect::<Result<_, _>>().map(Some)
}
