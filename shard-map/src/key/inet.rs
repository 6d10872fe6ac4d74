//! `inet`: address and prefix length. `cidr` is another type with other spellings and is not read.

use std::net::{Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

use super::value::KeyBytes;
use super::{Read, Unread};

/// PostgreSQL's own numbers, not the operating system's.
const IPV4: u8 = 2;
const IPV6: u8 = 3;

/// `10.0.0.1`, `10.0.0.1/32`, `::1`, `2001:DB8::/32`. Abbreviations (`10/8`) and octets with
/// leading zeros are not read.
pub(super) fn text(text: &[u8]) -> Read<KeyBytes<'_>> {
    const OTHER: Unread = Unread::Unsupported("the address is not in its plain form");
    let possible = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':' | b'/');
    if text.is_empty() || !text.iter().all(possible) {
        return Err(Unread::Invalid);
    }
    let text = std::str::from_utf8(text).map_err(|_| Unread::Invalid)?;
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let bits = |most: u8| match length {
        None => Ok(most),
        Some(length) if length.len() > 1 && length.starts_with('0') => Err(OTHER),
        Some(length) => length.parse().ok().filter(|bits| *bits <= most).ok_or(OTHER),
    };
    if let Ok(address) = address.parse::<Ipv4Addr>() {
        Ok(inner(IPV4, bits(32)?, &address.octets()))
    } else if let Ok(address) = address.parse::<Ipv6Addr>() {
        Ok(inner(IPV6, bits(128)?, &address.octets()))
    } else {
        Err(OTHER)
    }
}

/// Family, bits, a flag that is not looked at, the number of address bytes, the address.
pub(super) fn binary(bytes: &[u8]) -> Read<KeyBytes<'_>> {
    match bytes {
        [IPV4, bits @ ..=32, _, 4, address @ ..] if address.len() == 4 => {
            Ok(inner(IPV4, *bits, address))
        }
        [IPV6, bits @ ..=128, _, 16, address @ ..] if address.len() == 16 => {
            Ok(inner(IPV6, *bits, address))
        }
        _ => Err(Unread::Invalid),
    }
}

/// The bytes that `hashinet` hashes.
fn inner(family: u8, bits: u8, address: &[u8]) -> KeyBytes<'static> {
    let mut value = SmallVec::from_slice(&[family, bits]);
    value.extend_from_slice(address);
    KeyBytes::Owned(value)
}
