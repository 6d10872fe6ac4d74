//! What time it is, and what else each server says for itself. In a write to a reference table the home
//! shard says the time once, for all copies. Rows of several shards are not grouped by such values: there
//! would be a group for each shard, where one server makes one.

use crate::token::{Kind, Range, Tokens};
use crate::{borrow, functions};

/// What the time is read from in the shards' statement.
pub const MOMENT: &str = "pgherd_moment";

/// The statement with the time read from [`MOMENT`], if it asks for it in ways that are known.
pub(crate) fn read_once(tokens: &Tokens<'_>) -> Option<String> {
    let mut edits = Vec::new();
    for at in tokens.all() {
        let called = |open: usize| {
            tokens.kind(open) == Some(Kind::Open) && tokens.list[open].close == open + 1
        };
        let (column, end) = match functions::call(tokens, at) {
            Some((Some("now" | "transaction_timestamp"), open)) if called(open) => {
                ("now", open + 2)
            }
            Some((Some("statement_timestamp"), open)) if called(open) => ("stated", open + 2),
            _ => match tokens.word(at) {
                Some("current_timestamp") => ("now", at + 1),
                Some("localtimestamp") => ("now::timestamp", at + 1),
                Some("current_date") => ("now::date", at + 1),
                Some("current_time") => ("now::timetz", at + 1),
                Some("localtime") => ("now::time", at + 1),
                _ => continue,
            },
        };
        // With a schema, or with a precision.
        if at > 0 && tokens.sign(at - 1, ".") || tokens.kind(end) == Some(Kind::Open) {
            return None;
        }
        edits.push((tokens.bytes(&(at..end)), format!("(SELECT {column} FROM {MOMENT})")));
    }
    (!edits.is_empty()).then(|| borrow::edited(tokens, edits))
}

/// Functions, and words that are as functions, whose value is one for a whole statement, but another on
/// each server. The date is not among them: it differs at midnight only.
const OWN_VALUES: &[&str] = &[
    "current_setting",
    "current_time",
    "current_timestamp",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "localtime",
    "localtimestamp",
    "now",
    "pg_backend_pid",
    "pg_conf_load_time",
    "pg_indexes_size",
    "pg_postmaster_start_time",
    "pg_relation_size",
    "pg_table_size",
    "pg_total_relation_size",
    "statement_timestamp",
    "transaction_timestamp",
];

/// Whether the value of an expression has something of the server's own in it.
pub(crate) fn is_own(tokens: &Tokens<'_>, range: &Range) -> bool {
    range.clone().any(|at| {
        let word = |name: &str| OWN_VALUES.contains(&name);
        match functions::call(tokens, at) {
            Some((name, _)) => name.is_some_and(word),
            None => {
                let column = at > 0 && tokens.sign(at - 1, ".");
                !column && tokens.word(at).is_some_and(|name| word(name) && is_keyword(name))
            }
        }
    })
}

/// Without parentheses these are values, the others names of columns.
fn is_keyword(name: &str) -> bool {
    matches!(name, "current_time" | "current_timestamp" | "localtime" | "localtimestamp")
}
