//! Writes to reference tables that say what time it is: the home shard says it once, for all copies.

use crate::token::{Kind, Tokens};
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
