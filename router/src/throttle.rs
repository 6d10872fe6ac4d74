//! Failed logins, counted per address, so that passwords cannot be tried out at will.
//!
//! Each address has an account of failures that it may have, which fills up again as time passes.
//! When it is empty, logins are refused before the password is looked at. The table is bounded;
//! addresses that did nothing wrong are not in it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses that are remembered. Above it the account that was touched longest ago is forgotten.
const ADDRESSES_MAX: usize = 10_000;

#[derive(Debug)]
pub struct Throttle {
    max: u32,
    window: Duration,
    accounts: Mutex<HashMap<IpAddr, Account>>,
}

/// A leaky bucket: what has flowed in of failures, and not out yet.
#[derive(Debug, Clone, Copy)]
struct Account {
    level: f64,
    at: Instant,
}

impl Throttle {
    /// `max` failures at once, and as many again per `window`. No limit when it is 0.
    #[must_use]
    pub fn new(max: u32, window: Duration) -> Self {
        Self { max, window, accounts: Mutex::default() }
    }

    /// Whether a login from there is looked at now. To be asked right before a proof is checked,
    /// without a wait between, so that logins at the same time are not a way around the limit.
    #[must_use]
    pub fn admits(&self, address: Option<IpAddr>, now: Instant) -> bool {
        let Some(address) = address.filter(|_| self.max > 0) else { return true };
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts
            .get(&network(address))
            .is_none_or(|account| self.level(*account, now) + 1.0 <= f64::from(self.max))
    }

    /// One more failure.
    pub fn failed(&self, address: Option<IpAddr>, now: Instant) {
        let Some(address) = address.filter(|_| self.max > 0) else { return };
        let address = network(address);
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= ADDRESSES_MAX && !accounts.contains_key(&address) {
            accounts.retain(|_, account| self.level(*account, now) > 0.0);
            if accounts.len() >= ADDRESSES_MAX
                && let Some(oldest) =
                    accounts.iter().min_by_key(|(_, account)| account.at).map(|(ip, _)| *ip)
            {
                accounts.remove(&oldest);
            }
        }
        let level = accounts.get(&address).map_or(0.0, |account| self.level(*account, now));
        accounts.insert(address, Account { level: level + 1.0, at: now });
    }

    fn level(&self, account: Account, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(account.at).as_secs_f64();
        let out = passed * f64::from(self.max) / self.window.as_secs_f64();
        (account.level - out).max(0.0)
    }
}

/// Whoever has one IPv6 address has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_may_fail_so_often_and_again_after_a_while() {
        let throttle = Throttle::new(3, Duration::from_secs(30));
        let start = Instant::now();
        for _ in 0..3 {
            assert!(throttle.admits(ip("10.0.0.1"), start));
            throttle.failed(ip("10.0.0.1"), start);
        }
        assert!(!throttle.admits(ip("10.0.0.1"), start));
        assert!(!throttle.admits(ip("::ffff:10.0.0.1"), start + Duration::from_secs(9)));
        assert!(throttle.admits(ip("10.0.0.2"), start));
        assert!(throttle.admits(None, start));
        // One more each ten seconds.
        let later = start + Duration::from_secs(11);
        assert!(throttle.admits(ip("10.0.0.1"), later));
        throttle.failed(ip("10.0.0.1"), later);
        assert!(!throttle.admits(ip("10.0.0.1"), later));
    }

    #[test]
    fn one_network_of_ipv6_is_one_address() {
        let throttle = Throttle::new(1, Duration::from_secs(30));
        let now = Instant::now();
        throttle.failed(ip("2001:db8::1"), now);
        assert!(!throttle.admits(ip("2001:db8::2:3"), now));
        assert!(throttle.admits(ip("2001:db8:0:1::1"), now));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let throttle = Throttle::new(0, Duration::from_secs(30));
        let now = Instant::now();
        throttle.failed(ip("10.0.0.1"), now);
        assert!(throttle.admits(ip("10.0.0.1"), now));
    }

    #[test]
    fn the_table_is_bounded() {
        let throttle = Throttle::new(2, Duration::from_secs(3600));
        let now = Instant::now();
        for number in 0..=ADDRESSES_MAX as u32 {
            let at = now + Duration::from_micros(u64::from(number));
            throttle.failed(Some(IpAddr::V4(number.into())), at);
        }
        let accounts = throttle.accounts.lock().expect("nobody panicked");
        assert_eq!(accounts.len(), ADDRESSES_MAX);
        assert!(!accounts.contains_key(&IpAddr::V4(0.into())));
    }
}
