//! The name of a prepared transaction: an orphan explains itself.

use std::fmt;

use pgherd_shard_map::ShardId;

/// `pgherd_<database>_<deciding shard>_<router>_<random>`, below PostgreSQL's limit of 200 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gid(String);

/// Bytes of a name that are kept.
const NAME_MAX: usize = 32;

impl Gid {
    /// `random` must not repeat within the life of a marker.
    #[must_use]
    pub fn new(database: &str, decider: ShardId, router: &str, random: u128) -> Self {
        let plain = |name: &str| -> String {
            name.chars().filter(char::is_ascii_alphanumeric).take(NAME_MAX).collect()
        };
        Self(format!("pgherd_{}_{decider}_{}_{random:032x}", plain(database), plain(router)))
    }

    /// A gid of ours; `None` for another program's prepared transaction.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let gid = Self(text.to_owned());
        let parts: Vec<&str> = text.split('_').collect();
        let ours = parts.len() == 5
            && parts[0] == "pgherd"
            && parts[4].len() == 32
            && parts[4].bytes().all(|byte| byte.is_ascii_hexdigit())
            && text.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
        gid.decider().filter(|_| ours)?;
        Some(gid)
    }

    /// The shard whose marker row is the decision.
    #[must_use]
    pub fn decider(&self) -> Option<ShardId> {
        self.0.split('_').nth(2)?.parse().ok().map(ShardId)
    }

    /// Needs no quoting inside a literal: letters, digits and `_` only.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_reads_back_and_names_its_decider() {
        let gid = Gid::new("My'App", ShardId(12), "r_1.eu", u128::MAX);
        assert_eq!(gid.as_str(), format!("pgherd_MyApp_12_r1eu_{}", "f".repeat(32)));
        assert_eq!(Gid::parse(gid.as_str()).and_then(|gid| gid.decider()), Some(ShardId(12)));
        assert!(
            Gid::new(&"x".repeat(99), ShardId(u32::MAX), &"y".repeat(99), 0).as_str().len() < 200
        );
    }

    #[test]
    fn other_programs_gids_are_not_ours() {
        for text in ["", "pgherd_a_1_b_00", "citus_0_1_2_3", "pgherd_a_x_b_ff'; DROP"] {
            assert_eq!(Gid::parse(text), None, "{text}");
        }
    }
}
