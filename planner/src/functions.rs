//! What functions do, as far as planning must know. Of PostgreSQL's own, `functions/builtin.txt` says
//! it as `pg_proc` does, and the lists here add what that does not know, or where planning sees it
//! otherwise; of users' own, the map says it. Whatever is in neither is unknown: it may write, be an
//! aggregate, or keep session state.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::literal::decode_str;
use crate::query::keyword;
use crate::token::{Kind, Range, Tokens};
use crate::{Context, PlanError, SetConfig, SettingName, Stateful};

/// Aggregates whose partial results the router can finish.
pub(crate) const COMBINED: &[&str] =
    &["count", "sum", "min", "max", "avg", "bool_and", "bool_or", "every"];

const OTHER_AGGREGATES: &[&str] = &[
    "any_value",
    "array_agg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "corr",
    "covar_pop",
    "covar_samp",
    "cume_dist",
    "dense_rank",
    "grouping",
    "json_agg",
    "json_agg_strict",
    "json_arrayagg",
    "json_object_agg",
    "json_objectagg",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_object_agg",
    "mode",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "range_agg",
    "range_intersect_agg",
    "rank",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "var_pop",
    "var_samp",
    "variance",
    "xmlagg",
];

const WINDOW: &[&str] =
    &["row_number", "ntile", "lag", "lead", "first_value", "last_value", "nth_value"];

const SEQUENCE: &[&str] = &["nextval", "setval"];

/// Same arguments, same result, on every server of a cluster, whose settings are the client's.
const IMMUTABLE: &[&str] = &[
    "array_to_string",
    "cast",
    "coalesce",
    "concat",
    "concat_ws",
    "date_part",
    "date_trunc",
    "extract",
    "format",
    "greatest",
    "json_build_array",
    "json_build_object",
    "jsonb_build_array",
    "jsonb_build_object",
    "least",
    "length",
    "nullif",
    "quote_literal",
    "row",
    "row_to_json",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "trim",
];

/// Volatile for PostgreSQL, but they only read.
const STABLE: &[&str] =
    &["pg_is_in_recovery", "pg_relation_size", "pg_table_size", "pg_total_relation_size"];

/// Another result for each row, and nothing is written.
const VOLATILE: &[&str] = &[
    "clock_timestamp",
    "gen_random_uuid",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "random",
    "timeofday",
];

/// Not functions, though a parenthesis follows.
const NOT_FUNCTIONS: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "by",
    "case",
    "char",
    "character",
    "check",
    "conflict",
    "decimal",
    "default",
    "distinct",
    "else",
    "except",
    "exists",
    "filter",
    "float",
    "from",
    "having",
    "ilike",
    "in",
    "intersect",
    "interval",
    "into",
    "is",
    "join",
    "key",
    "lateral",
    "like",
    "limit",
    "materialized",
    "not",
    "numeric",
    "of",
    "offset",
    "on",
    "or",
    "over",
    "precision",
    "returning",
    "select",
    "set",
    "similar",
    "some",
    "then",
    "time",
    "timestamp",
    "to",
    "union",
    "update",
    "using",
    "values",
    "varchar",
    "varying",
    "when",
    "where",
    "with",
    "within",
    "bit",
    "bpchar",
    "recursive",
    "do",
    "symmetric",
    "both",
    "leading",
    "trailing",
    "timestamptz",
    "timetz",
    "group",
    "order",
    "only",
    "escape",
    "zone",
    "first",
    "next",
    "nothing",
    "rollup",
    "cube",
    "sets",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nature {
    Immutable,
    Stable,
    /// Another result each time, and no effect.
    Volatile,
    SetReturning,
    Combined,
    OtherAggregate,
    Window,
    /// A user's, which reads at most: it could be an aggregate, and read tables of the home shard.
    Reading,
    /// It writes nothing but a sequence, which is on the home shard.
    Sequence,
    Unknown,
}

static BUILTIN: LazyLock<HashMap<&str, Nature>> = LazyLock::new(|| {
    let lines = include_str!("functions/builtin.txt").lines();
    let entries = lines.filter_map(|line| line.split_once(' '));
    let natures = entries.filter_map(|(nature, name)| match nature {
        "immutable" => Some((name, Nature::Immutable)),
        "stable" => Some((name, Nature::Stable)),
        "set" => Some((name, Nature::SetReturning)),
        _ => None,
    });
    let lists = [
        (IMMUTABLE, Nature::Immutable),
        (STABLE, Nature::Stable),
        (VOLATILE, Nature::Volatile),
        (COMBINED, Nature::Combined),
        (OTHER_AGGREGATES, Nature::OtherAggregate),
        (WINDOW, Nature::Window),
        (SEQUENCE, Nature::Sequence),
    ];
    let ours = lists.iter().flat_map(|(names, nature)| names.iter().map(|name| (*name, *nature)));
    natures.chain(ours).collect()
});

/// What a call means, by the function's name.
fn nature(tokens: &Tokens<'_>, at: usize, builtin: bool) -> Nature {
    let Some(name) = tokens.name(at) else { return Nature::Unknown };
    if let Some(nature) = BUILTIN.get(name).filter(|_| builtin) {
        return *nature;
    }
    match tokens.functions {
        Some(users) if users.immutable.contains(name) => Nature::Immutable,
        Some(users) if users.reading.contains(name) => Nature::Reading,
        _ => Nature::Unknown,
    }
}

/// The function called at this word, if one is: what it does, and its opening parenthesis.
pub(crate) fn called(tokens: &Tokens<'_>, at: usize) -> Option<(Nature, usize)> {
    let (name, open) = call(tokens, at)?;
    Some((nature(tokens, at, name.is_some()), open))
}

/// The function called at this word, if one is: its plain name (of another schema than pg_catalog:
/// `None` as name) and its opening parenthesis.
pub(crate) fn call<'t>(tokens: &'t Tokens<'_>, at: usize) -> Option<(Option<&'t str>, usize)> {
    if tokens.kind(at + 1) != Some(Kind::Open) {
        return None;
    }
    let name = tokens.name(at)?;
    let qualified = at > 0 && tokens.sign(at - 1, ".");
    if !qualified && tokens.kind(at) == Some(Kind::Word) && NOT_FUNCTIONS.contains(&name) {
        return None;
    }
    // `x::numeric(10, 2)`, `AS t(a, b)`, `(…) t(a, b)`, `THEN INSERT (a, b)`, `WITH name (columns) AS (`.
    if at > 0
        && (tokens.sign(at - 1, "::")
            || tokens.are(at - 1, &["then", "insert"])
            || keyword(tokens, at - 1, "as")
            || keyword(tokens, at - 1, "ordinality")
            || keyword(tokens, at - 1, "tablesample")
            || tokens.kind(at - 1) == Some(Kind::Close)
            || is_alias(tokens, at))
    {
        return None;
    }
    let after = tokens.after(at + 1);
    let starts_cte = at > 0
        && (tokens.is_any(at - 1, &["with", "recursive"]) || tokens.sign(at - 1, ","))
        && tokens.is(after, "as")
        && (tokens.kind(after + 1) == Some(Kind::Open)
            || tokens.is_any(after + 1, &["materialized", "not"]));
    if starts_cte {
        return None;
    }
    let known = !qualified || (at > 1 && tokens.is(at - 2, "pg_catalog"));
    Some((known.then_some(name), at + 1))
}

/// `FROM schema.table t(a, b)`: a name between FROM and another name can only be a table's, unless it
/// is one of the words with which an expression or an item of FROM begins.
fn is_alias(tokens: &Tokens<'_>, at: usize) -> bool {
    const BEGINNINGS: &[&str] = &[
        "all", "any", "array", "case", "distinct", "lateral", "not", "only", "row", "rows",
        "select", "some",
    ];
    let mut table = at - 1;
    if tokens.name(table).is_none() || tokens.is(at, "operator") {
        return false;
    }
    while table > 1 && tokens.sign(table - 1, ".") && tokens.name(table - 2).is_some() {
        table -= 2;
    }
    let word = tokens.kind(table) == Some(Kind::Word) && table == at - 1;
    table > 0
        && (keyword(tokens, table - 1, "from") || keyword(tokens, table - 1, "join"))
        && !(word && tokens.is_any(table, BEGINNINGS))
}

/// The worst of all functions called in these tokens, with the name of one.
pub(crate) fn worst(tokens: &Tokens<'_>, range: &Range) -> (Nature, String) {
    let mut worst = (Nature::Immutable, String::new());
    for at in range.clone() {
        if let Some((nature, _)) = called(tokens, at)
            && nature > worst.0
        {
            worst = (nature, tokens.list[at].text.to_string());
        }
    }
    worst
}

/// This nature, if a function of it is called in these tokens.
pub(crate) fn worst_of(tokens: &Tokens<'_>, range: &Range, wanted: Nature) -> Option<Nature> {
    range.clone().find_map(|at| (called(tokens, at)?.0 == wanted).then_some(wanted))
}

/// Nothing is called but PostgreSQL's own functions that write nothing.
pub(crate) fn reads_only(tokens: &Tokens<'_>, range: &Range) -> bool {
    range.clone().all(|at| {
        call(tokens, at).is_none_or(|(name, _)| {
            name.and_then(|name| BUILTIN.get(name)).is_some_and(|n| *n < Nature::Unknown)
        })
    })
}

/// As [`reads_only`], and users' functions that read at most.
pub(crate) fn reads_at_most(tokens: &Tokens<'_>, range: &Range) -> bool {
    worst(tokens, range).0 < Nature::Unknown
}

pub(crate) fn calls_nothing(tokens: &Tokens<'_>, range: &Range) -> bool {
    let stable = |at| {
        tokens.word(at).is_some_and(|word| {
            word.starts_with("current_")
                || word.starts_with("local")
                || word == "session_user"
                || word == "user"
                || word == "system_user"
        })
    };
    range.clone().all(|at| call(tokens, at).is_none() && !stable(at))
}

/// What ties a statement to the home shard.
pub(crate) enum Tie {
    /// Locks and notifications have their home there.
    Home,
    /// So has the session's state.
    Session(Stateful),
}

/// What the functions called in a statement have to do with the session of their server.
///
/// # Errors
/// Together with sharded tables they are refused: locks exclude, notifications arrive and settings
/// are followed on the home shard only.
pub(crate) fn session_state(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
) -> Result<Option<Tie>, PlanError> {
    let (mut leaves, mut sequences, mut at_home) = (false, false, None);
    let mut settings = Vec::new();
    for at in tokens.all() {
        let Some((Some(name), open)) = call(tokens, at) else { continue };
        match name {
            "set_config" => settings.push(set_config(tokens, open)?),
            "currval" | "lastval" => sequences = true,
            "pg_notify" => at_home = Some(at),
            _ if name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") => {
                at_home = Some(at);
                leaves |= !name.contains("_xact_");
            }
            _ => {}
        }
    }
    if at_home.is_none() && settings.is_empty() && !sequences {
        return Ok(None);
    }
    if let Some(table) = context.may_name_sharded(tokens, &tokens.all())
        && (at_home.is_some() || !settings.is_empty())
    {
        let function = at_home.map_or("set_config", |at| &*tokens.list[at].text);
        return Err(PlanError::unsupported(
            format!("{function}() cannot be called together with sharded tables"),
            format!("It has effect on the home shard, and {table} is elsewhere."),
            "Call it in a statement of its own, in the same transaction.",
        ));
    }
    if !settings.is_empty() {
        if leaves || sequences {
            return Err(PlanError::unsupported(
                "set_config() cannot be called together with session locks and sequences",
                "Each of them is followed by the router in its own way.",
                "Call them in statements of their own.",
            ));
        }
        let all = tokens.all();
        let calls_only = all.clone().filter(|at| call(tokens, *at).is_some()).count();
        let reads = all.clone().any(|at| tokens.is_any(at, &["from", "table"]));
        let anywhere = tokens.is(0, "select") && !reads && calls_only == settings.len();
        let calls = settings.into();
        return Ok(Some(Tie::Session(Stateful::Settings { calls, anywhere })));
    }
    Ok(Some(match (leaves, sequences) {
        (true, _) => Tie::Session(Stateful::Leaves),
        (false, true) => Tie::Session(Stateful::Sequences),
        (false, false) => Tie::Home,
    }))
}

/// Whether a `set_config()` inside of a body says which setting it changes, or lasts for the
/// transaction only.
pub(crate) fn names_its_setting(tokens: &Tokens<'_>, open: usize) -> bool {
    let parts = tokens.split(&(open + 1..tokens.list[open].close));
    let named = parts.first().is_some_and(|part| {
        part.len() == 1 && matches!(tokens.kind(part.start), Some(Kind::Literal { .. }))
    });
    let local = parts.get(2).is_some_and(|part| {
        part.len() == 1
            && matches!(&*tokens.list[part.start].text, "true" | "'true'" | "'t'" | "'on'" | "'1'")
    });
    named || local
}

/// `set_config(name, value, is_local)`: the router must know the name and whether it is local.
fn set_config(tokens: &Tokens<'_>, open: usize) -> Result<SetConfig, PlanError> {
    let parts = tokens.split(&(open + 1..tokens.list[open].close));
    let text = |range: &Range| match (range.len(), tokens.kind(range.start)?) {
        (1, Kind::Literal { kind, .. }) => decode_str(&tokens.list[range.start].text, kind),
        _ => None,
    };
    let word = |range: &Range| match range.len() {
        1 => tokens.word(range.start).map(Into::into).or_else(|| text(range)),
        _ => None,
    };
    let known = |name: Box<str>| SettingName::Known(name.to_lowercase().into());
    let name = parts.first().and_then(|part| match (part.len(), tokens.kind(part.start)?) {
        (1, Kind::Param(number)) => Some(SettingName::Param(number)),
        (1, Kind::Word) if tokens.is(part.start, "name") => {
            let listed = listed_setting(tokens, tokens.list[open].close + 1);
            listed.and_then(|at| text(&(at..at + 1))).map(known)
        }
        _ => text(part).map(known),
    });
    let local = parts.get(2).and_then(word).and_then(|word| match &*word.to_lowercase() {
        "true" | "t" | "on" | "yes" | "1" => Some(true),
        "false" | "f" | "off" | "no" | "0" => Some(false),
        _ => None,
    });
    match (name, local) {
        (Some(name), Some(local)) if parts.len() == 3 => Ok(SetConfig { name, local }),
        _ => Err(PlanError::unsupported(
            "this form of set_config() is not supported",
            "The router follows the setting, and must know its name and whether it is local.",
            "Write the name as a literal or parameter, and true or false as third argument.",
        )),
    }
}

/// `FROM pg_settings WHERE name = '…'`, as pg_dump has it to set what the server may not know: where
/// the literal is.
fn listed_setting(tokens: &Tokens<'_>, at: usize) -> Option<usize> {
    if !tokens.is(at, "from") {
        return None;
    }
    let (parts, at) = tokens.qualified(at + 1)?;
    let listed = matches!(&*parts, ["pg_settings"] | ["pg_catalog", "pg_settings"]);
    let literal = at + 3;
    (listed
        && tokens.are(at, &["where", "name"])
        && tokens.sign(at + 2, "=")
        && tokens.len() == literal + 1)
        .then_some(literal)
}

/// The word that calls a function whose body names sharded tables, if one does.
pub(crate) fn reading_call(tokens: &Tokens<'_>, context: &Context<'_>) -> Option<usize> {
    tokens.all().find(|at| {
        tokens.kind(at + 1) == Some(Kind::Open)
            && tokens.name(*at).is_some_and(|name| context.map.functions.sharded.contains(name))
    })
}

/// Functions that read what a string names or says: tables as XML, statistics of a query's words.
const READ_BY_STRING: &[&str] = &[
    "cursor_to_xml",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "ts_stat",
];

/// The word that calls a function which runs a query that is a string.
fn string_call(tokens: &Tokens<'_>, context: &Context<'_>) -> Option<usize> {
    let mut calls = tokens.all().filter(|at| call(tokens, *at).is_some());
    calls
        .find(|at| {
            tokens.is_any(*at, READ_BY_STRING)
                || tokens.is(*at, "ts_rewrite")
                    && tokens.split(&(at + 2..tokens.list[at + 1].close)).len() == 2
        })
        .filter(|_| context.map.has_sharded())
}

/// Wherever such a function runs, it would see one server's part of the table.
pub(crate) fn refuse_reading(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<(), PlanError> {
    // What defines or drops it may name it.
    let runs = match tokens.word(0) {
        Some("create") => (1..4).any(|at| tokens.is_any(at, &["table", "materialized"])),
        Some("alter" | "drop" | "comment" | "grant" | "revoke" | "security" | "reassign") => false,
        _ => true,
    };
    if let Some(at) = string_call(tokens, context).filter(|_| runs) {
        return Err(PlanError::unsupported(
            format!(
                "the function {}() is not supported in a sharded database",
                tokens.list[at].text
            ),
            "It runs a query that is a string, and would see the rows of one server only.",
            "Write the query into the statement; or SET pgherd.shard, if one shard has all the rows.",
        ));
    }
    let called = if runs { reading_call(tokens, context) } else { None };
    match called {
        None => Ok(()),
        Some(at) => Err(PlanError::unsupported(
            format!("the function {}() reads or writes sharded tables", tokens.list[at].text),
            "Its body names a sharded table, and would see the rows of one server only.",
            "Write its query into the statement; or SET pgherd.shard, if one shard has all the rows.",
        )),
    }
}
