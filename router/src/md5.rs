//! PostgreSQL's md5 logins on both sides of the router, without any IO.
//!
//! The verifier is md5(password ‖ user), and what proves it is made of the verifier alone: whoever
//! knows it needs no password, neither to check a client nor to log in to a shard.

use std::fmt;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// What `pg_authid.rolpassword` holds after `md5`, as 32 hexadecimal digits. As good as the
/// password on every server that holds the same, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier([u8; 32]);

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl Verifier {
    /// Reads what `pg_authid.rolpassword` holds; `None` for another kind of password.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; 32] = text.strip_prefix("md5")?.as_bytes().try_into().ok()?;
        digits.iter().all(u8::is_ascii_hexdigit).then_some(Self(digits))
    }

    /// The proof for one challenge.
    #[must_use]
    pub fn answer(&self, salt: [u8; 4]) -> String {
        let hash = Md5::new().chain_update(self.0).chain_update(salt).finalize();
        hash.iter().fold("md5".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// Whether a client's proof is right.
    #[must_use]
    pub fn is_right(&self, salt: [u8; 4], answer: &[u8]) -> bool {
        self.answer(salt).as_bytes().ct_eq(answer).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_that_of_libpq() {
        let verifier = postgres_protocol::password::md5(b"sesame", "ada");
        let ours = Verifier::parse(&verifier).expect("well formed");
        let salt = [1, 2, 3, 4];
        let theirs = postgres_protocol::authentication::md5_hash(b"ada", b"sesame", salt);
        assert_eq!(ours.answer(salt), theirs);
        assert!(ours.is_right(salt, theirs.as_bytes()));
        assert!(!ours.is_right([1, 2, 3, 5], theirs.as_bytes()));
        assert!(!ours.is_right(salt, b""));
    }

    #[test]
    fn only_md5_verifiers_are_read() {
        let short = "md5".to_owned() + &"a".repeat(31);
        let other = "md5".to_owned() + &"g".repeat(32);
        for text in ["", "md5", &short, &other, "SCRAM-SHA-256$4096:a$b:c"] {
            assert!(Verifier::parse(text).is_none(), "{text}");
        }
    }
}
