//! Statements that make, change or drop temporary relations: to the home shard, in whose session
//! these live. All other schema changes go to every shard, so what a name means must be certain:
//! a statement that names temporary relations along with others is refused.

use crate::ddl::object_word;
use crate::route::plan_of;
use crate::token::{Kind, Range, Tokens};
use crate::{
    Access, Action, Context, Plan, PlanError, Reuse, Stateful, StatementKind, table_from_query,
};

const WORDS: &[&str] = &[
    "create", "alter", "drop", "comment", "grant", "revoke", "security", "refresh", "truncate",
    "vacuum", "analyze", "analyse", "reindex", "cluster", "lock",
];

pub(crate) fn plan(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Option<Plan>, PlanError> {
    if !tokens.is_any(0, WORDS) {
        return Ok(None);
    }
    if reindexes_schema(tokens) {
        return Ok(Some(leaves(context)));
    }
    let creates = creates_temporary(tokens, context);
    let named = |at: usize| names_temporary(tokens, context, at) && may_be_relation(tokens, at);
    let (targets, rest) = if creates { created(tokens) } else { targets(tokens) };
    let target = |at: &Range| names_temporary(tokens, context, at.start);
    let alike = creates
        || (!targets.is_empty() && targets.iter().all(target))
        // PostgreSQL makes a view temporary that reads what is temporary.
        || (object_word(tokens).is_some_and(|at| tokens.is(at, "view"))
            && tokens.is(0, "create")
            && tokens.all().any(named));
    if !alike && !targets.iter().any(target) && !rest.clone().any(named) {
        return Ok(None);
    }
    let others = context.may_name_sharded(tokens, &rest);
    let table = object_word(tokens).filter(|at| creates && tokens.is(*at, "table"));
    if let (Some(table), Some(_)) = (table, &others)
        && tokens.all().any(|at| tokens.is(at, "as"))
    {
        return table_from_query::create_temporary(tokens, context, table)
            .map(|made| Some(made.unwrap_or_else(|| leaves(context))));
    }
    if !alike || others.is_some() {
        return Err(PlanError::unsupported(
            "temporary relations cannot be named together with others here",
            "A temporary relation lives in this session on the home shard only.",
            "Use a statement for each of them, and names that differ.",
        ));
    }
    Ok(Some(leaves(context)))
}

fn leaves(context: &Context<'_>) -> Plan {
    let action = Action::Stateful(Stateful::Leaves);
    plan_of(context, action, Access::Write, Reuse::Once, StatementKind::Ddl)
}

/// REINDEX SCHEMA of the session's temporary one.
fn reindexes_schema(tokens: &Tokens<'_>) -> bool {
    let schema = tokens.find(&tokens.all(), |at| tokens.is(at, "schema"));
    let name = schema.map(|at| at + 1 + usize::from(tokens.is(at + 1, "concurrently")));
    tokens.is(0, "reindex") && name.and_then(|at| tokens.name(at)).is_some_and(is_temporary_schema)
}

/// Whether a name may be that of a relation where it stands: columns and types have names, too.
fn may_be_relation(tokens: &Tokens<'_>, at: usize) -> bool {
    const BEFORE: &[&str] = &[
        "on",
        "from",
        "join",
        "into",
        "table",
        "view",
        "sequence",
        "index",
        "references",
        "like",
        "of",
        "only",
        "update",
        "using",
        "to",
        "setof",
        "returns",
        "exists",
        "truncate",
        "lock",
        "inherit",
        "partition",
        "concurrently",
        "cluster",
        "analyze",
        "analyse",
        "vacuum",
        "verbose",
        "as",
    ];
    let Some(before) = at.checked_sub(1) else { return false };
    if tokens.sign(at + 1, ".") || tokens.is_any(before, BEFORE) {
        return true;
    }
    // Of relations at the top, or in a query; else of columns or parameters.
    let listed = tokens.sign(before, ",") || tokens.kind(before) == Some(Kind::Open);
    let top = tokens.list.get(at).is_some_and(|token| token.depth == 0);
    let query = || tokens.all().any(|at| tokens.is(at, "select"));
    let parent = || {
        let mut words = tokens.all();
        words
            .any(|word| tokens.is(word, "inherits") && (word..tokens.after(word + 1)).contains(&at))
    };
    listed && (top && !tokens.is(0, "create") || query() || parent())
}

/// CREATE TEMP …, in the schema `pg_temp`, or with `pg_temp` first in search_path.
fn creates_temporary(tokens: &Tokens<'_>, context: &Context<'_>) -> bool {
    if !tokens.is(0, "create") {
        return false;
    }
    let mut at = 1;
    while tokens.is_any(at, &["or", "replace", "local", "global"]) {
        at += 1;
    }
    if tokens.is_any(at, &["temp", "temporary"]) && tokens.word(at + 1).is_some() {
        return true;
    }
    let schema = |at: usize| tokens.name(at).is_some_and(is_temporary_schema);
    let (targets, _) = created(tokens);
    targets.first().is_some_and(|target| match target.len() {
        1 => context.search_path.first().is_some_and(|path| is_temporary_schema(path)),
        _ => schema(target.start),
    })
}

/// What a session calls its temporary schema.
pub const TEMPORARY_SCHEMA: &str = "pg_temp";

pub(crate) fn is_temporary_schema(name: &str) -> bool {
    name.starts_with("pg_temp")
}

/// A relation of the temporary schema is named here.
fn names_temporary(tokens: &Tokens<'_>, context: &Context<'_>, at: usize) -> bool {
    let Some(name) = tokens.name(at) else { return false };
    if at > 0 && tokens.sign(at - 1, ".") {
        return false;
    }
    if tokens.sign(at + 1, ".") {
        return is_temporary_schema(name);
    }
    context.is_temporary(name)
}

/// The name of what a CREATE makes, and what follows it.
fn created(tokens: &Tokens<'_>) -> (Vec<Range>, Range) {
    let Some(object) = object_word(tokens) else { return (Vec::new(), tokens.all()) };
    let mut at = object + 1;
    while tokens.is_any(at, &["if", "not", "exists", "concurrently"]) {
        at += 1;
    }
    // An index is made in the schema of its table.
    if tokens.is(object, "index") {
        return (Vec::new(), tokens.all());
    }
    match tokens.qualified(at) {
        Some((_, after)) => (std::iter::once(at..after).collect(), after..tokens.len()),
        None => (Vec::new(), tokens.all()),
    }
}

/// What a statement is about, where that is certain, and the tokens after it.
fn targets(tokens: &Tokens<'_>) -> (Vec<Range>, Range) {
    const KINDS: &[&str] = &["table", "view", "sequence", "index"];
    // Those that hide no others.
    const OTHERS: &[&str] =
        &["statistics", "type", "domain", "function", "procedure", "routine", "aggregate"];
    const PARTS: &[&str] = &["trigger", "rule", "policy", "constraint"];
    let unknown = (Vec::new(), tokens.all());
    let behind = |from: usize, word: &str| {
        tokens.find(&(from..tokens.len()), |at| tokens.is(at, word)).map(|at| at + 1)
    };
    let in_schema = tokens
        .all()
        .any(|at| tokens.sign(at + 1, ".") && tokens.name(at).is_some_and(is_temporary_schema));
    let found = match tokens.word(0) {
        Some("drop" | "alter") if in_schema && tokens.is_any(1, OTHERS) => Some(2),
        Some("drop" | "alter") if tokens.is_any(1, KINDS) => Some(2),
        Some("drop" | "alter") if tokens.is_any(1, PARTS) => behind(2, "on"),
        Some("comment") if tokens.is(1, "on") && tokens.is_any(2, KINDS) => Some(3),
        Some("comment") if tokens.is(1, "on") && tokens.is_any(2, PARTS) => behind(3, "on"),
        Some("truncate" | "lock") => Some(1 + usize::from(tokens.is(1, "table"))),
        Some("reindex") if tokens.is_any(1, &["table", "index"]) => Some(2),
        Some("vacuum" | "analyze" | "analyse" | "cluster") => match tokens.kind(1) {
            Some(Kind::Open) => Some(tokens.after(1)),
            _ => Some(1),
        },
        Some("grant" | "revoke") => {
            behind(1, "on").map(|at| at + usize::from(tokens.is_any(at, &["table", "sequence"])))
        }
        Some("create") => match object_word(tokens) {
            Some(at) if tokens.is_any(at, &["index", "trigger", "policy"]) => behind(at, "on"),
            Some(at) if tokens.is(at, "rule") => behind(at, "to"),
            Some(at) if tokens.is(at, "statistics") => behind(at, "from"),
            Some(at) if tokens.is_any(at, &["view", "table"]) => Some(at + 1),
            _ => None,
        },
        _ => None,
    };
    let Some(mut at) = found else { return unknown };
    let noise =
        ["if", "not", "exists", "only", "concurrently", "verbose", "full", "freeze", "analyze"];
    while tokens.is_any(at, &noise) {
        at += 1;
    }
    let mut found = Vec::new();
    loop {
        let Some((_, after)) = tokens.qualified(at) else { return unknown };
        found.push(at..after);
        at = after;
        if !tokens.sign(at, ",") || tokens.is_any(0, &["create", "alter"]) {
            return (found, at..tokens.len());
        }
        at += 1;
    }
}
