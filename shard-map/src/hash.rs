//! PostgreSQL's extended hash functions with seed 0, bit for bit (`src/common/hashfn.c`, which is
//! Bob Jenkins' lookup3). A change here would move rows: it is never an edit, but a new variant.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What `hash…extended(key, 0)` returns on the server: a point of the hash space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(pub i64);

impl KeyHash {
    /// `hashint8extended(value, 0)`; `hashint2extended` and `hashint4extended` of the same value
    /// are equal to it.
    #[must_use]
    pub const fn of_int(value: i64) -> Self {
        let low = value as u32;
        let high = (value >> 32) as u32;
        Self::of_u32(low ^ if value >= 0 { high } else { !high })
    }

    /// `hash_uint32_extended(value, 0)`.
    #[must_use]
    pub const fn of_u32(value: u32) -> Self {
        let start = INITIAL.wrapping_add(4);
        finish(start.wrapping_add(value), start, start)
    }

    /// `hash_any_extended(bytes, 0)`: text, bytea, uuid.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let start = INITIAL.wrapping_add(bytes.len() as u32);
        let (mut a, mut b, mut c) = (start, start, start);
        let mut chunks = bytes.chunks_exact(12);
        for chunk in &mut chunks {
            a = a.wrapping_add(word(&chunk[..4]));
            b = b.wrapping_add(word(&chunk[4..8]));
            c = c.wrapping_add(word(&chunk[8..]));
            (a, b, c) = mix(a, b, c);
        }
        let tail = chunks.remainder();
        let mut rest = [0; 12];
        // The lowest byte of the third word is reserved for the length.
        for (at, byte) in tail.iter().enumerate() {
            rest[if at < 8 { at } else { at + 1 }] = *byte;
        }
        a = a.wrapping_add(word(&rest[..4]));
        b = b.wrapping_add(word(&rest[4..8]));
        c = c.wrapping_add(word(&rest[8..]));
        finish(a, b, c)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const INITIAL: u32 = 0x9e37_79b9_u32.wrapping_add(3_923_095);

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte))
}

const fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

const fn finish(mut a: u32, mut b: u32, mut c: u32) -> KeyHash {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    KeyHash((((b as u64) << 32) | c as u64) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each expected value was printed by `SELECT hash…extended(…, 0)` on PostgreSQL 15.
    #[test]
    fn equals_the_server() {
        for (value, hash) in [
            (0, 4_154_612_158_245_552_303),
            (1, -3_670_598_878_359_251_130),
            (-1, -1_888_257_769_727_981_238),
            (i64::MAX, 1_977_219_185_673_256_887),
            (-7, -4_284_878_795_861_022_465),
        ] {
            assert_eq!(KeyHash::of_int(value), KeyHash(hash), "hashint8extended({value}, 0)");
        }
        for (value, hash) in [
            ("", -6_939_563_903_564_495_251),
            ("a", 3_591_986_179_850_072_241),
            ("hello world!", -2_866_487_628_948_787_489),
            ("hello world, twelve and more", -4_879_502_111_978_389_484),
        ] {
            assert_eq!(KeyHash::of_bytes(value.as_bytes()), KeyHash(hash), "{value:?}");
        }
        let mut uuid = [0; 16];
        uuid[15] = 1;
        assert_eq!(KeyHash::of_bytes(&uuid), KeyHash(3_419_970_005_924_668_665));
    }
}
