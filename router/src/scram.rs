//! SCRAM-SHA-256 (RFC 5802, RFC 7677) on both sides of the router, without any IO.
//!
//! The router checks a client's proof against the verifier that the shards hold, as a PostgreSQL
//! server does. A right proof reveals the *ClientKey*, and with it the router can prove itself to
//! every shard that holds the same verifier: so no password stands in any file, and none passes
//! through. [`Server`] faces the client, [`Client`] a shard; [`Keys`] is what the one hands to the
//! other.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The same, bound to the TLS channel: a login that somebody passes on from another channel fails.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The one kind of channel binding that PostgreSQL has.
const END_POINT_FLAG: &str = "p=tls-server-end-point";

/// Iterations of a made-up verifier: PostgreSQL's default, so that a user that does not exist looks
/// like one that does.
const ITERATIONS: u32 = 4096;

/// The longest message that is looked at.
const MESSAGE_MAX: usize = 4096;

type Key = [u8; 32];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScramError {
    /// The message breaks the protocol; says how.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// The two sides do not see the same channel: somebody may stand between them.
    #[error("SCRAM channel binding {0}")]
    Channel(&'static str),
    /// The proof is wrong, or there is no such user.
    #[error("the password is wrong")]
    WrongProof,
}

/// What a server keeps of a password: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Box<[u8]>,
    stored_key: Key,
    server_key: Key,
    /// Made up: no proof is right.
    dead: bool,
}

/// What logs in wherever the same verifier is: as good as the password there, so it is never
/// printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    client_key: Key,
    server_key: Key,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Verifier {
    /// Reads what `pg_authid.rolpassword` holds; `None` for another kind of password.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some(Self {
            iterations: iterations.parse().ok().filter(|count| *count > 0)?,
            salt: BASE64.decode(salt).ok()?.into(),
            stored_key: key(stored)?,
            server_key: key(server)?,
            dead: false,
        })
    }

    /// For a user who cannot log in: the exchange looks like any other and fails at its end. The
    /// salt depends on `user` and `secret`, so asking twice tells nothing.
    #[must_use]
    pub fn made_up(user: &str, secret: &[u8]) -> Self {
        let salt = hmac(secret, &[user.as_bytes()]);
        Self {
            iterations: ITERATIONS,
            salt: salt[..16].into(),
            stored_key: [0; 32],
            server_key: hmac(secret, &[&salt]),
            dead: true,
        }
    }
}

/// What an exchange is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel<'a> {
    /// There is nothing to bind to.
    None,
    /// The channel could be bound, but the other side did not choose or offer it.
    Unbound,
    /// `tls-server-end-point`: the hash of the server's certificate.
    EndPoint(&'a [u8]),
}

/// The server's side of one exchange.
#[derive(Debug)]
pub struct Server {
    verifier: Verifier,
    /// What the client's last message must say of the channel.
    binding: Box<[u8]>,
    bound: bool,
    /// `client-first-message-bare,server-first-message`
    messages: String,
    nonce: String,
}

impl Server {
    /// Reads the client's first message and answers it. `channel` is [`Channel::EndPoint`] if the
    /// client chose [`MECHANISM_PLUS`], [`Channel::Unbound`] if it was offered and not chosen.
    /// `random` makes the server's part of the nonce.
    ///
    /// # Errors
    /// [`ScramError::Malformed`] or [`ScramError::Channel`].
    pub fn first(
        verifier: Verifier,
        channel: Channel<'_>,
        message: &[u8],
        random: [u8; 18],
    ) -> Result<(Self, String), ScramError> {
        let text = text(message)?;
        let (flag, rest) = text.split_once(',').ok_or(malformed("no GS2 header"))?;
        let mut binding = format!("{flag},,").into_bytes();
        let bound = match (flag, channel) {
            (END_POINT_FLAG, Channel::EndPoint(hash)) => {
                binding.extend_from_slice(hash);
                true
            }
            (_, Channel::EndPoint(_)) if flag.starts_with("p=") => {
                return Err(malformed("unknown kind of channel binding"));
            }
            (_, Channel::EndPoint(_)) => return Err(malformed("no channel binding data")),
            ("n", _) | ("y", Channel::None) => false,
            // The client could bind the channel and believes that we cannot: our offer was lost.
            ("y", Channel::Unbound) => return Err(ScramError::Channel("negotiation error")),
            _ if flag.starts_with("p=") => {
                return Err(malformed("channel binding data without SCRAM-SHA-256-PLUS"));
            }
            _ => return Err(malformed("unknown channel binding flag")),
        };
        let (authzid, bare) = rest.split_once(',').ok_or(malformed("no GS2 header"))?;
        if !authzid.is_empty() {
            return Err(malformed("an authorization identity is not supported"));
        }
        let mut fields = bare.split(',');
        // The user name of the startup packet counts, as in PostgreSQL.
        if !fields.next().is_some_and(|field| field.starts_with("n=")) {
            return Err(malformed("no user name"));
        }
        let client_nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        let client_nonce = client_nonce
            .filter(|nonce| !nonce.is_empty() && nonce.bytes().all(|b| b.is_ascii_graphic()))
            .ok_or(malformed("no nonce"))?;
        let nonce = format!("{client_nonce}{}", BASE64.encode(random));
        let answer =
            format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        let server = Self {
            verifier,
            binding: binding.into(),
            bound,
            messages: format!("{bare},{answer}"),
            nonce,
        };
        Ok((server, answer))
    }

    /// Checks the client's proof: the server's last message, and the keys.
    ///
    /// # Errors
    /// [`ScramError::WrongProof`], [`ScramError::Channel`] or [`ScramError::Malformed`].
    pub fn last(self, message: &[u8]) -> Result<(String, Keys), ScramError> {
        let text = text(message)?;
        let (without_proof, proof) =
            text.rsplit_once(",p=").ok_or(malformed("no proof at its end"))?;
        let mut fields = without_proof.split(',');
        let binding = fields.next().and_then(|field| field.strip_prefix("c="));
        let binding = binding.ok_or(malformed("no channel binding"))?;
        if BASE64.decode(binding).ok().as_deref() != Some(&*self.binding) {
            return Err(match self.bound {
                true => ScramError::Channel("check failed"),
                false => malformed("another channel binding than at first"),
            });
        }
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        if nonce != Some(&self.nonce) {
            return Err(malformed("another nonce than the server's"));
        }
        let proof = key(proof).ok_or(malformed("the proof is not 32 bytes in base64"))?;
        let messages = [self.messages.as_bytes(), b",", without_proof.as_bytes()];
        let signature = hmac(&self.verifier.stored_key, &messages);
        let client_key = xor(&proof, &signature);
        let right = hash(&client_key).ct_eq(&self.verifier.stored_key);
        if !bool::from(right) || self.verifier.dead {
            return Err(ScramError::WrongProof);
        }
        let server_key = self.verifier.server_key;
        let answer = format!("v={}", BASE64.encode(hmac(&server_key, &messages)));
        Ok((answer, Keys { client_key, server_key }))
    }
}

/// The client's side of one exchange, with keys instead of a password.
#[derive(Debug)]
pub struct Client {
    keys: Keys,
    /// What the last message says of the channel, in base64.
    binding: String,
    /// `client-first-message-bare`, then everything that is signed.
    messages: String,
    nonce: String,
}

impl Client {
    /// The exchange and its first message: by [`MECHANISM_PLUS`] for [`Channel::EndPoint`].
    #[must_use]
    pub fn first(keys: Keys, channel: Channel<'_>, random: [u8; 18]) -> (Self, String) {
        let nonce = BASE64.encode(random);
        let bare = format!("n=,r={nonce}");
        let (flag, hash) = match channel {
            Channel::None => ("n", &[][..]),
            Channel::Unbound => ("y", &[][..]),
            Channel::EndPoint(hash) => (END_POINT_FLAG, hash),
        };
        let message = format!("{flag},,{bare}");
        let binding = BASE64.encode([flag.as_bytes(), b",,", hash].concat());
        (Self { keys, binding, messages: bare, nonce }, message)
    }

    /// The proof.
    ///
    /// # Errors
    /// [`ScramError::Malformed`].
    pub fn proof(&mut self, server_first: &[u8]) -> Result<String, ScramError> {
        let server_first = text(server_first)?;
        let nonce = server_first.split(',').next().and_then(|field| field.strip_prefix("r="));
        let nonce = nonce
            .filter(|nonce| nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len())
            .ok_or(malformed("the nonce is not ours"))?;
        let without_proof = format!("c={},r={nonce}", self.binding);
        self.messages = format!("{},{server_first},{without_proof}", self.messages);
        let stored_key = hash(&self.keys.client_key);
        let signature = hmac(&stored_key, &[self.messages.as_bytes()]);
        let proof = xor(&self.keys.client_key, &signature);
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)))
    }

    /// Checks that the server knows the verifier, too.
    ///
    /// # Errors
    /// [`ScramError::WrongProof`] or [`ScramError::Malformed`].
    pub fn finish(self, server_last: &[u8]) -> Result<(), ScramError> {
        let signature = text(server_last)?.strip_prefix("v=").and_then(key);
        let signature = signature.ok_or(malformed("no signature"))?;
        let right = hmac(&self.keys.server_key, &[self.messages.as_bytes()]);
        if bool::from(right.ct_eq(&signature)) { Ok(()) } else { Err(ScramError::WrongProof) }
    }
}

const fn malformed(how: &'static str) -> ScramError {
    ScramError::Malformed(how)
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_MAX {
        return Err(malformed("it is too long"));
    }
    std::str::from_utf8(message).map_err(|_| malformed("it is not UTF-8"))
}

fn key(base64: &str) -> Option<Key> {
    BASE64.decode(base64).ok()?.try_into().ok()
}

fn hmac(key: &[u8], pieces: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for piece in pieces {
        mac.update(piece);
    }
    mac.finalize().into_bytes().into()
}

fn hash(key: &Key) -> Key {
    Sha256::digest(key).into()
}

fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|at| a[at] ^ b[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a password, by RFC 5802's Hi() (PBKDF2 with one block).
    fn keys_of(password: &[u8], salt: &[u8], iterations: u32) -> Keys {
        let mut block = hmac(password, &[salt, &[0, 0, 0, 1]]);
        let mut salted = block;
        for _ in 1..iterations {
            block = hmac(password, &[&block]);
            salted = xor(&salted, &block);
        }
        Keys {
            client_key: hmac(&salted, &[b"Client Key"]),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }

    fn verifier_of(keys: &Keys, salt: &[u8]) -> Verifier {
        let text = format!(
            "SCRAM-SHA-256$4096:{}${}:{}",
            BASE64.encode(salt),
            BASE64.encode(hash(&keys.client_key)),
            BASE64.encode(keys.server_key)
        );
        Verifier::parse(&text).expect("well formed")
    }

    #[test]
    fn the_exchange_of_rfc_7677_gives_its_proof_and_signature() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let keys = keys_of(b"pencil", &salt, 4096);
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let mut client = Client {
            keys: keys.clone(),
            binding: "biws".to_owned(),
            messages: "n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned(),
            nonce: "rOprNGfwEbeRWgbNEkqO".to_owned(),
        };
        let server_first = format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let proof = client.proof(server_first.as_bytes()).expect("well formed");
        let wanted = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert_eq!(proof, wanted);
        let server = Server {
            verifier: verifier_of(&keys, &salt),
            binding: b"n,,"[..].into(),
            bound: false,
            messages: format!("n=user,r=rOprNGfwEbeRWgbNEkqO,{server_first}"),
            nonce: nonce.to_owned(),
        };
        let (last, found) = server.last(proof.as_bytes()).expect("the proof is right");
        assert_eq!(last, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(found, keys);
        client.finish(last.as_bytes()).expect("the signature is right");
    }

    #[test]
    fn keys_learnt_from_one_login_log_in_to_the_next_server() {
        let keys = keys_of(b"secret", b"salt", 4096);
        for (theirs, ours) in [
            (Channel::None, Channel::None),
            (Channel::None, Channel::Unbound),
            (Channel::Unbound, Channel::None),
            (Channel::EndPoint(b"hash"), Channel::EndPoint(b"hash")),
        ] {
            let (mut client, first) = Client::first(keys.clone(), theirs, [7; 18]);
            let verifier = verifier_of(&keys, b"salt");
            let (server, answer) =
                Server::first(verifier, ours, first.as_bytes(), [9; 18]).expect("ok");
            let proof = client.proof(answer.as_bytes()).expect("ok");
            let (last, found) = server.last(proof.as_bytes()).expect("right");
            assert_eq!(found, keys);
            client.finish(last.as_bytes()).expect("right");
        }
    }

    #[test]
    fn a_wrong_password_an_unknown_user_and_a_changed_message_are_refused() {
        let keys = keys_of(b"secret", b"salt", 4096);
        let wrong = keys_of(b"other", b"salt", 4096);
        for (verifier, keys) in [
            (verifier_of(&keys, b"salt"), wrong),
            (Verifier::made_up("nobody", b"router secret"), keys.clone()),
        ] {
            let (mut client, first) = Client::first(keys, Channel::None, [7; 18]);
            let (server, answer) =
                Server::first(verifier, Channel::None, first.as_bytes(), [9; 18]).expect("ok");
            let proof = client.proof(answer.as_bytes()).expect("ok");
            assert_eq!(server.last(proof.as_bytes()), Err(ScramError::WrongProof));
        }
        let verifier = verifier_of(&keys, b"salt");
        for first in
            ["", "n,,", "n,,n=,r=", "p=tls-unique,,n=,r=abc", "n,a=x,n=,r=abc", "q,,n=,r=a"]
        {
            let refused = Server::first(verifier.clone(), Channel::None, first.as_bytes(), [0; 18]);
            assert!(refused.is_err(), "{first}");
        }
    }

    #[test]
    fn a_login_does_not_pass_from_one_channel_to_another() {
        let keys = keys_of(b"secret", b"salt", 4096);
        let exchange = |theirs, ours| {
            let (mut client, first) = Client::first(keys.clone(), theirs, [7; 18]);
            let verifier = verifier_of(&keys, b"salt");
            let (server, answer) = Server::first(verifier, ours, first.as_bytes(), [9; 18])?;
            server.last(client.proof(answer.as_bytes())?.as_bytes()).map(drop)
        };
        let (one, two) = (Channel::EndPoint(b"one"), Channel::EndPoint(b"two"));
        assert_eq!(exchange(one, one), Ok(()));
        assert_eq!(exchange(one, two), Err(ScramError::Channel("check failed")));
        // Somebody took the offer away.
        let lost = exchange(Channel::Unbound, Channel::Unbound);
        assert_eq!(lost, Err(ScramError::Channel("negotiation error")));
        // The mechanism and the message must agree.
        for (theirs, ours) in [
            (Channel::None, one),
            (Channel::Unbound, one),
            (one, Channel::None),
            (one, Channel::Unbound),
        ] {
            assert!(matches!(exchange(theirs, ours), Err(ScramError::Malformed(_))));
        }
    }

    #[test]
    fn only_scram_verifiers_are_read() {
        for text in ["", "md5abc", "SCRAM-SHA-256$4096:c2FsdA==", "SCRAM-SHA-256$0:c2FsdA==$a:b"] {
            assert!(Verifier::parse(text).is_none(), "{text}");
        }
    }
}
