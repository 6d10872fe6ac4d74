//! The name of a prepared transaction: an orphan explains itself.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgherd_shard_map::ShardId;

/// `pgherd_<database>_<deciding shard>_<router>_<number>`, below PostgreSQL's limit of 200 bytes.
/// The number has 32 hexadecimal digits: twelve of the time in milliseconds, twenty random.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gid(String);

/// Bytes of a name that are kept.
const NAME_MAX: usize = 32;

const RANDOM_BITS: u32 = 80;

impl Gid {
    /// `random` must not repeat within one millisecond.
    #[must_use]
    pub fn new(
        database: &str,
        decider: ShardId,
        router: &str,
        made: SystemTime,
        random: u128,
    ) -> Self {
        let millis = made.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let number = (millis << RANDOM_BITS) | (random & ((1 << RANDOM_BITS) - 1));
        let plain = |name: &str| -> String {
            name.chars().filter(char::is_ascii_alphanumeric).take(NAME_MAX).collect()
        };
        Self(format!("pgherd_{}_{decider}_{}_{number:032x}", plain(database), plain(router)))
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

    /// The name of the router that made it, as far as it was kept.
    #[must_use]
    pub fn router(&self) -> &str {
        self.0.split('_').nth(3).unwrap_or_default()
    }

    /// When it was made, by its router's clock.
    #[must_use]
    pub fn made(&self) -> SystemTime {
        let number = self.0.rsplit('_').next().and_then(|text| u128::from_str_radix(text, 16).ok());
        let millis = (number.unwrap_or_default() >> RANDOM_BITS) as u64;
        UNIX_EPOCH + Duration::from_millis(millis)
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
    fn a_gid_reads_back_and_names_its_decider_and_its_time() {
        let made = UNIX_EPOCH + Duration::from_millis(0x0193_5a2b_3c4d);
        let gid = Gid::new("My'App", ShardId(12), "r_1.eu", made, u128::MAX);
        let digits = format!("01935a2b3c4d{}", "f".repeat(20));
        assert_eq!(gid.as_str(), format!("pgherd_MyApp_12_r1eu_{digits}"));
        assert_eq!(Gid::parse(gid.as_str()).and_then(|gid| gid.decider()), Some(ShardId(12)));
        assert_eq!(gid.made(), made);
        let (database, router) = ("x".repeat(99), "y".repeat(99));
        let longest = Gid::new(&database, ShardId(u32::MAX), &router, made, 0);
        assert!(longest.as_str().len() < 200);
    }

    #[test]
    fn other_programs_gids_are_not_ours() {
        for text in ["", "pgherd_a_1_b_00", "citus_0_1_2_3", "pgherd_a_x_b_ff'; DROP"] {
            assert_eq!(Gid::parse(text), None, "{text}");
        }
    }
}
