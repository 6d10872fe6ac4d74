//! The second reading of a statement: the parser must accept it, and name as many sharded relations
//! as we found.
//!
//! The parser does not know every form that PostgreSQL has. Some of them name no relation, and what
//! is left is a statement without them; it gets the text with these taken out. Its answer is a
//! count, so nothing of the changed text is ever sent anywhere.

use crate::analyze::Analysis;
use crate::query::{after_walk, fetches, may_be_cte, starts_query};
use crate::token::{Kind, Range, Tokens};
use crate::{Context, PlanError, parse};

/// # Errors
/// The two readings differ.
pub(crate) fn witness(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    analysis: &Analysis,
    locks: Option<&Range>,
) -> Result<(), PlanError> {
    let seen = parse::relations(&plain(tokens, locks)).map_err(|error| {
        unread(tokens)
            .with_detail(format!("It names a sharded table and cannot be parsed: {error}."))
    })?;
    let sharded = |parts: &Vec<String>| {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        context.spread(&parts).is_some()
    };
    let seen: Vec<&Vec<String>> = seen.iter().filter(|parts| sharded(parts)).collect();
    // A CTE may have the name of a sharded table: then the parser counts more.
    let hidden = |parts: &&&Vec<String>| matches!(&parts[..], [name] if may_be_cte(tokens, name));
    let least = seen.len() - seen.iter().filter(hidden).count();
    if !(least..=seen.len()).contains(&analysis.sharded()) {
        return Err(unread(tokens));
    }
    Ok(())
}

/// Whether a query may name a relation so, without a schema.
pub(crate) fn may_name(tokens: &Tokens<'_>, name: &str) -> bool {
    parse::relations(&plain(tokens, None))
        .map_or(true, |seen| seen.iter().any(|parts| matches!(&parts[..], [own] if own == name)))
}

/// The statement in the parser's words.
fn plain(tokens: &Tokens<'_>, locks: Option<&Range>) -> String {
    let mut sql = String::with_capacity(tokens.sql.len() + 16);
    // Locking clauses hold table names only, and the parser knows few forms of them and of FETCH.
    let cut: Vec<Range> = fetches(tokens).into_iter().chain(locks.cloned()).collect();
    let mut from = 0;
    let mut at = 0;
    while at < tokens.len() {
        let gone = cut.iter().find(|range| range.start == at);
        let found = gone.map(|range| (range.clone(), "")).or_else(|| foreign(tokens, at));
        let Some((range, text)) = found else {
            at += 1;
            continue;
        };
        let bytes = tokens.bytes(&range);
        sql.push_str(&tokens.sql[from..bytes.start]);
        sql.push_str(text);
        from = bytes.end;
        at = range.end;
    }
    sql.push_str(&tokens.sql[from..]);
    sql
}

/// What stands here that the parser does not know, and what it may read instead.
fn foreign(tokens: &Tokens<'_>, at: usize) -> Option<(Range, &'static str)> {
    let before = |sign: &str| at > 0 && tokens.sign(at - 1, sign);
    let opens = at > 0 && tokens.kind(at - 1) == Some(Kind::Open);
    if before(".") && tokens.sign(at, "*") {
        // `(composite).*`
        let composite = at > 1 && tokens.kind(at - 2) == Some(Kind::Close);
        return composite.then_some((at - 1..at + 1, ""));
    }
    match tokens.word(at)? {
        // The parser names no relation for it.
        "table" if !before(".") && tokens.name(at + 1).is_some() => {
            Some((at..at + 1, "SELECT * FROM"))
        }
        "exclude" => {
            let end = match tokens.word(at + 1)? {
                "current" | "no" => at + 3,
                "group" | "ties" => at + 2,
                _ => return None,
            };
            (tokens.kind(end) == Some(Kind::Close)).then_some((at..end, ""))
        }
        "only"
            if at > 0
                && (before(",") || tokens.is_any(at - 1, &["from", "join", "update"]))
                && tokens.name(at + 1).is_some_and(|_| !tokens.is(at + 1, "as")) =>
        {
            Some((at..at + 1, ""))
        }
        "symmetric" if at > 0 && tokens.is(at - 1, "between") => Some((at..at + 1, "")),
        "all" | "distinct" if at > 1 && tokens.are(at - 2, &["group", "by"]) => {
            Some((at..at + 1, ""))
        }
        "search" | "cycle" if at > 0 && tokens.kind(at - 1) == Some(Kind::Close) => {
            let end = after_walk(tokens, at).filter(|end| *end > at)?;
            Some((at..end, ""))
        }
        "variadic" if opens || before(",") => Some((at..at + 1, "")),
        "leading" | "trailing" | "both" if opens && tokens.is(at + 1, "from") => {
            Some((at..at + 2, ""))
        }
        "from" if opens => Some((at..at + 1, "")),
        // Columns of a function that returns records: `f() AS (a int, b text)`.
        "as" if at > 0
            && tokens.kind(at - 1) == Some(Kind::Close)
            && tokens.kind(at + 1) == Some(Kind::Open)
            && tokens.name(at + 2).is_some()
            && tokens.name(at + 3).is_some()
            && !starts_query(tokens, at + 2)
            && !tokens.is_any(at + 2, &["insert", "update", "delete", "merge"]) =>
        {
            Some((at..at + 1, "AS record"))
        }
        _ => None,
    }
}

pub(crate) fn unread(tokens: &Tokens<'_>) -> PlanError {
    let start: String = tokens.sql.trim_start().chars().take(40).collect();
    PlanError::unsupported(
        "the statement is not supported on sharded tables",
        format!("Its clauses cannot be told apart with certainty: \"{start}\"."),
        "Write it in a simpler form, or pin it to one shard with SET pgherd.shard.",
    )
}
