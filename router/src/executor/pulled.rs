//! What shards are asked for rows that are copied.
//!
//! COPY takes no parameters. So a condition that names some gets their values as literals, where a
//! literal is certainly read as the value was bound; else it is left out, and more rows are copied.

use pgherd_planner::{BoundCondition, Pull};
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::combine::built_in;
use crate::session::Portal;

/// The query of one table.
pub(super) fn pull_query(pull: &Pull, portal: Option<&Portal>) -> String {
    let bound = portal.map_or(&[][..], |_| &*pull.bound).iter();
    let bound = bound.filter_map(|condition| with_values(condition, portal?));
    let bound = bound.map(|sql| format!("({sql})"));
    let conditions: Vec<String> =
        pull.filter.iter().map(|sql| sql.to_string()).chain(bound).collect();
    let filter = match conditions.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", conditions.join(" AND ")),
    };
    format!("SELECT {} FROM {}{filter}", columns(pull), table(pull))
}

/// Names of the columns.
fn columns(pull: &Pull) -> String {
    let columns: Vec<String> =
        pull.columns.iter().map(|column| escape_identifier(column)).collect();
    columns.join(", ")
}

/// The table as its filter calls it.
fn table(pull: &Pull) -> String {
    format!("{} AS {}", pull.table.quoted(), escape_identifier(&pull.alias))
}

/// A condition with its parameters' values in it.
fn with_values(condition: &BoundCondition, portal: &Portal) -> Option<String> {
    let numbers = pgherd_planner::parameters(&condition.sql);
    let literals: Option<Vec<(u16, String)>> = numbers
        .into_iter()
        .map(|number| Some((number, literal(portal, number, condition.alone)?)))
        .collect();
    let literals = literals?;
    Some(pgherd_planner::with_parameters(&condition.sql, |number| {
        let known = literals.iter().find(|(known, _)| *known == number);
        known.map_or_else(|| format!("${number}"), |(_, literal)| literal.clone())
    }))
}

/// A bound value as a literal of the type that was declared, or of one that its place says (`alone`).
fn literal(portal: &Portal, number: u16, alone: bool) -> Option<String> {
    let types = &portal.statement.types;
    let at = usize::from(number).checked_sub(1)? * 4;
    let declared = types.get(at..at + 4).and_then(|oid| oid.try_into().ok());
    let oid = declared.map_or(0, u32::from_be_bytes);
    let (bytes, binary) = portal.params().ok()?.tail.value(number)?;
    let text = match bytes {
        None => None,
        Some(bytes) if binary && !matches!(oid, 25 | 1043) => Some(binary_text(oid, bytes)?),
        Some(bytes) => Some(match portal.encoding {
            None => std::str::from_utf8(bytes).ok()?.to_owned(),
            Some(encoding) => encoding.decode(bytes).ok()?.into_owned(),
        }),
    };
    let text = text.map_or_else(|| "NULL".to_owned(), |text| escape_literal(&text));
    match oid {
        0 => alone.then_some(text),
        _ => Some(format!("CAST({} AS {})", text.trim_start(), built_in(oid)?)),
    }
}

/// The text of a value in its binary form, as every setting reads it; that of a text is itself.
fn binary_text(oid: u32, bytes: &[u8]) -> Option<String> {
    Some(match oid {
        16 => (bytes.first()? != &0).to_string(),
        20 => i64::from_be_bytes(bytes.try_into().ok()?).to_string(),
        21 => i16::from_be_bytes(bytes.try_into().ok()?).to_string(),
        23 => i32::from_be_bytes(bytes.try_into().ok()?).to_string(),
        2950 if bytes.len() == 16 => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => return None,
    })
}
