//! What a client's login gave that logs in to the shards, shared by the sessions of a role.
//!
//! A session lives on when its role's password is changed, but what it logged in with opens no more
//! server connections. The next login of the same role brings what does, for the older sessions too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::{md5, scram};

/// Above this, roles whose sessions have all ended are forgotten.
const ROLES: usize = 1024;

/// What logs a client in to the shards: it comes from the client's own login.
#[derive(Debug, Clone)]
pub enum Proof {
    Scram(Arc<scram::Keys>),
    Md5(Arc<md5::Verifier>),
    /// The client was believed, or has shown a certificate: nothing that a shard would take.
    None,
}

impl Proof {
    /// Whether both came from the same login.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scram(a), Self::Scram(b)) => Arc::ptr_eq(a, b),
            (Self::Md5(a), Self::Md5(b)) => Arc::ptr_eq(a, b),
            (Self::None, Self::None) => true,
            _ => false,
        }
    }
}

/// The proofs of the last logins, by the role's OID, while a session has them.
#[derive(Debug, Default)]
pub struct Proofs(Mutex<HashMap<u32, Known>>);

#[derive(Debug)]
enum Known {
    Scram(Weak<scram::Keys>),
    Md5(Weak<md5::Verifier>),
}

impl Proofs {
    /// A login has just succeeded by this.
    pub fn learn(&self, role: u32, proof: &Proof) {
        let known = match proof {
            Proof::Scram(keys) => Known::Scram(Arc::downgrade(keys)),
            Proof::Md5(verifier) => Known::Md5(Arc::downgrade(verifier)),
            Proof::None => return,
        };
        let mut proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if proofs.len() >= ROLES {
            proofs.retain(|_, known| known.proof().is_some());
        }
        proofs.insert(role, known);
    }

    /// The newest that a session of the role has; `own` is this session's. Who was let in without
    /// a proof does not get another's.
    #[must_use]
    pub fn newest(&self, role: u32, own: &Proof) -> Proof {
        if matches!(own, Proof::None) {
            return Proof::None;
        }
        let proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proofs.get(&role).and_then(Known::proof).unwrap_or_else(|| own.clone())
    }
}

impl Known {
    fn proof(&self) -> Option<Proof> {
        match self {
            Self::Scram(keys) => keys.upgrade().map(Proof::Scram),
            Self::Md5(verifier) => verifier.upgrade().map(Proof::Md5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(digit: &str) -> Proof {
        let text = format!("md5{}", digit.repeat(32));
        Proof::Md5(Arc::new(md5::Verifier::parse(&text).expect("well formed")))
    }

    fn is(found: &Proof, wanted: &Proof) -> bool {
        matches!((found, wanted), (Proof::Md5(a), Proof::Md5(b)) if a == b)
    }

    #[test]
    fn an_older_session_uses_what_a_newer_one_has_shown() {
        let proofs = Proofs::default();
        let (old, new) = (proof("1"), proof("2"));
        proofs.learn(7, &old);
        assert!(is(&proofs.newest(7, &old), &old));
        proofs.learn(7, &new);
        assert!(is(&proofs.newest(7, &old), &new));
        assert!(is(&proofs.newest(8, &old), &old));
        assert!(matches!(proofs.newest(7, &Proof::None), Proof::None));
        // Nobody keeps the proof of a session that has ended.
        drop(new);
        assert!(is(&proofs.newest(7, &old), &old));
    }
}
