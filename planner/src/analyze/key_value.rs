//! A key's value as a statement writes it: a literal or parameter, with a sign or a harmless cast.

use pgherd_shard_map::KeyType;

use crate::token::{Kind, Range, Tokens};
use crate::{KeySource, LiteralKind};

/// A literal or parameter that a key of this type may equal, with a sign or a harmless cast.
pub(crate) fn value(tokens: &Tokens<'_>, range: &Range, key_type: KeyType) -> Option<KeySource> {
    let range = tokens.strip_parens(range);
    let (mut inner, mut cast) = (range.clone(), None);
    if let Some(at) = tokens.find(&range, |at| tokens.sign(at, "::")) {
        cast = Some(tokens.text(&(at + 1..range.end)).to_ascii_lowercase());
        inner = tokens.strip_parens(&(range.start..at));
    } else if tokens.is(range.start, "cast")
        && tokens.kind(range.start + 1) == Some(Kind::Open)
        && tokens.list[range.start + 1].close + 1 == range.end
    {
        let inside = range.start + 2..range.end - 1;
        let at = tokens.find(&inside, |at| tokens.is(at, "as"))?;
        cast = Some(tokens.text(&(at + 1..inside.end)).to_ascii_lowercase());
        inner = tokens.strip_parens(&(inside.start..at));
    } else if range.len() == 2 && tokens.word(range.start).is_some() {
        // date '2025-01-01'
        cast = tokens.word(range.start).map(str::to_owned);
        inner = range.start + 1..range.end;
        if !matches!(tokens.kind(inner.start), Some(Kind::Literal { .. })) {
            return None;
        }
    }
    let oid = match &cast {
        Some(name) => cast_oid(name, key_type)?,
        None => 0,
    };
    let negative = inner.len() == 2 && tokens.sign(inner.start, "-");
    if negative {
        // `-1::int` is -(1::int): the same for every type that keys have.
        inner.start += 1;
    }
    if inner.len() != 1 {
        return None;
    }
    match tokens.kind(inner.start)? {
        Kind::Literal { kind, index } => {
            fits(kind, key_type, negative).then_some(KeySource::Literal { index, negative })
        }
        Kind::Param(number) if !negative => Some(KeySource::Param { number, cast_oid: oid }),
        Kind::Word if !negative && tokens.is(inner.start, "null") => Some(KeySource::Null),
        _ => None,
    }
}

fn fits(kind: LiteralKind, key_type: KeyType, negative: bool) -> bool {
    let integer = matches!(key_type, KeyType::Int2 | KeyType::Int4 | KeyType::Int8);
    match kind {
        LiteralKind::Integer => integer || key_type == KeyType::Numeric,
        LiteralKind::Decimal => key_type == KeyType::Numeric,
        LiteralKind::String | LiteralKind::EscapeString | LiteralKind::DollarString => !negative,
        LiteralKind::OtherString => false,
    }
}

/// `ARRAY[…]`, `$n`, each with a cast: the elements of `= ANY (…)`.
pub(super) fn array(
    tokens: &Tokens<'_>,
    range: &Range,
    key_type: KeyType,
) -> Option<Vec<KeySource>> {
    let (mut inner, mut oid) = (range.clone(), 0);
    if let Some(at) = tokens.find(range, |at| tokens.sign(at, "::")) {
        let name = tokens.text(&(at + 1..range.end)).to_ascii_lowercase();
        let element = name.trim_end().strip_suffix("[]")?;
        oid = array_oid(cast_oid(element, key_type)?)?;
        inner = tokens.strip_parens(&(range.start..at));
    }
    if inner.len() == 1
        && let Some(Kind::Param(number)) = tokens.kind(inner.start)
    {
        return Some(vec![KeySource::ParamArray { number, cast_oid: oid }]);
    }
    if tokens.is(inner.start, "array")
        && tokens.sign(inner.start + 1, "[")
        && tokens.list[inner.start + 1].close + 1 == inner.end
    {
        let inside = inner.start + 2..inner.end - 1;
        return tokens.split(&inside).iter().map(|v| value(tokens, v, key_type)).collect();
    }
    None
}

/// The OID of a cast's type, if comparing the cast value with the key compares what was written.
fn cast_oid(name: &str, key_type: KeyType) -> Option<u32> {
    let (oid, same) = match name.trim() {
        "int" | "int4" | "integer" => (23, is_integer(key_type)),
        "int8" | "bigint" => (20, is_integer(key_type)),
        "int2" | "smallint" => (21, is_integer(key_type)),
        "text" => (25, matches!(key_type, KeyType::Text | KeyType::Varchar)),
        "varchar" | "character varying" => {
            (1043, matches!(key_type, KeyType::Text | KeyType::Varchar))
        }
        "uuid" => (2950, key_type == KeyType::Uuid),
        "date" => (1082, key_type == KeyType::Date),
        "time" | "time without time zone" => (1083, key_type == KeyType::Time),
        "timestamp" | "timestamp without time zone" => (1114, key_type == KeyType::Timestamp),
        "timestamptz" | "timestamp with time zone" => (1184, key_type == KeyType::Timestamptz),
        "numeric" | "decimal" => (1700, key_type == KeyType::Numeric),
        "bytea" => (17, key_type == KeyType::Bytea),
        "bool" | "boolean" => (16, key_type == KeyType::Bool),
        "inet" => (869, key_type == KeyType::Inet),
        _ => return None,
    };
    same.then_some(oid)
}

fn is_integer(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::Int2 | KeyType::Int4 | KeyType::Int8)
}

fn array_oid(element: u32) -> Option<u32> {
    Some(match element {
        21 => 1005,
        23 => 1007,
        20 => 1016,
        25 => 1009,
        1043 => 1015,
        2950 => 2951,
        1082 => 1182,
        1083 => 1183,
        1114 => 1115,
        1184 => 1185,
        1700 => 1231,
        17 => 1001,
        16 => 1000,
        869 => 1041,
        _ => return None,
    })
}
