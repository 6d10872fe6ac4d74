//! Which way to log in a connection gets: the table of `[[auth.hba]]`, as PostgreSQL reads
//! `pg_hba.conf`. The first entry that fits decides; where none fits, nobody gets in.

use std::net::IpAddr;

use crate::config::{AuthConfig, AuthMethod, HbaEntry, HbaType, Names};
use crate::error::ErrorInfo;

/// The table, or what `auth.method` means as one.
#[derive(Debug, Clone)]
pub struct Hba {
    entries: Vec<HbaEntry>,
    /// Over TCP nobody gets in without TLS, whatever the table says.
    require_tls: bool,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// `None` is a Unix socket.
    pub address: Option<IpAddr>,
    pub encrypted: bool,
}

impl Hba {
    #[must_use]
    pub fn new(auth: &AuthConfig, require_tls: bool) -> Self {
        let mut entries = auth.hba.clone();
        if entries.is_empty() {
            let method = auth.method.unwrap_or_default();
            let kinds = match method {
                AuthMethod::Cert => &[HbaType::HostSsl][..],
                _ => &[HbaType::Host, HbaType::Local],
            };
            entries.extend(kinds.iter().map(|kind| HbaEntry {
                kind: *kind,
                database: Names::default(),
                user: Names::default(),
                address: None,
                method,
            }));
        }
        Self { entries, require_tls }
    }

    /// How the client is to log in.
    ///
    /// # Errors
    /// 28000 in PostgreSQL's words: it may not, whatever it proves.
    pub fn method(&self, peer: Peer, user: &str, database: &str) -> Result<AuthMethod, ErrorInfo> {
        let unsafe_channel = self.require_tls && peer.address.is_some() && !peer.encrypted;
        let entry = self.entries.iter().find(|entry| {
            !unsafe_channel
                && entry.fits(peer)
                && entry.database.include(database)
                && entry.user.include(user)
        });
        let refused = |what: &str| {
            let host = peer
                .address
                .map_or_else(|| "[local]".to_owned(), |ip| ip.to_canonical().to_string());
            let encryption = if peer.encrypted { "SSL encryption" } else { "no encryption" };
            ErrorInfo::new(
                "28000",
                format!(
                    "{what} for host \"{host}\", user \"{user}\", database \"{database}\", \
                     {encryption}"
                ),
            )
        };
        match entry.map(|entry| entry.method) {
            None if unsafe_channel => {
                Err(refused("no pg_hba.conf entry")
                    .hint("The router asks for TLS: sslmode=require."))
            }
            None => Err(refused("no pg_hba.conf entry")),
            Some(AuthMethod::Reject) => Err(refused("pg_hba.conf rejects connection")),
            Some(method) => Ok(method),
        }
    }
}

impl HbaEntry {
    fn fits(&self, peer: Peer) -> bool {
        let kind = match (self.kind, peer.address) {
            (HbaType::Local, address) => address.is_none(),
            (_, None) => false,
            (HbaType::Host, _) => true,
            (HbaType::HostSsl, _) => peer.encrypted,
            (HbaType::HostNoSsl, _) => !peer.encrypted,
        };
        let from = |ip: IpAddr| match &self.address {
            None => true,
            Some(networks) => networks.iter().any(|network| network.contains(&ip)),
        };
        kind && peer.address.is_none_or(|ip| from(ip.to_canonical()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn hba(text: &str) -> Hba {
        let text = format!("catalog = 'postgres://h/d'\n{text}");
        let config = Config::parse(&text, |_| None).expect("a valid table");
        Hba::new(&config.auth, false)
    }

    fn peer(address: &str, encrypted: bool) -> Peer {
        Peer { address: Some(address.parse().expect("an address")), encrypted }
    }

    const UNIX: Peer = Peer { address: None, encrypted: false };

    #[test]
    fn the_first_entry_that_fits_decides() {
        let hba = hba("[[auth.hba]]\ntype = 'hostnossl'\nuser = ['eve', 'mallory']\n\
             method = 'reject'\n\
             [[auth.hba]]\ntype = 'host'\naddress = ['10.0.0.0/8', '::1']\nmethod = 'trust'\n\
             [[auth.hba]]\ntype = 'hostssl'\ndatabase = 'shop'\naddress = 'all'\n\
             method = 'md5'\n");
        let ask = |peer, user, database| hba.method(peer, user, database);
        assert_eq!(ask(peer("10.1.2.3", false), "ada", "app").unwrap(), AuthMethod::Trust);
        assert_eq!(ask(peer("::ffff:10.1.2.3", true), "ada", "app").unwrap(), AuthMethod::Trust);
        assert_eq!(ask(peer("::1", false), "ada", "app").unwrap(), AuthMethod::Trust);
        assert_eq!(ask(peer("11.1.2.3", true), "ada", "shop").unwrap(), AuthMethod::Md5);
        assert_eq!(ask(peer("10.1.2.3", true), "eve", "app").unwrap(), AuthMethod::Trust);
        let rejected = ask(peer("10.1.2.3", false), "eve", "app").unwrap_err();
        assert_eq!(
            (&*rejected.sqlstate, &*rejected.message),
            (
                "28000",
                "pg_hba.conf rejects connection for host \"10.1.2.3\", user \"eve\", database \
                 \"app\", no encryption"
            )
        );
        let unknown = ask(peer("11.1.2.3", true), "ada", "app").unwrap_err();
        assert_eq!(
            unknown.message,
            "no pg_hba.conf entry for host \"11.1.2.3\", user \"ada\", database \"app\", SSL \
             encryption"
        );
        let local = ask(UNIX, "ada", "app").unwrap_err();
        assert!(local.message.contains("\"[local]\""), "{}", local.message);
    }

    #[test]
    fn without_a_table_one_method_is_for_all() {
        let short = hba("[auth]\nmethod = 'trust'\n");
        assert_eq!(short.method(UNIX, "a", "b").unwrap(), AuthMethod::Trust);
        let default = hba("");
        assert_eq!(
            default.method(peer("1.2.3.4", false), "a", "b").unwrap(),
            AuthMethod::ScramSha256
        );
        let strict = Hba { require_tls: true, ..default };
        assert!(strict.method(peer("1.2.3.4", false), "a", "b").unwrap_err().hint.is_some());
        assert!(strict.method(peer("1.2.3.4", true), "a", "b").is_ok());
        assert!(strict.method(UNIX, "a", "b").is_ok());
    }
}
