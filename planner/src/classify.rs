//! What kind of statement the first words make, and the plans of those that need no more than
//! words: transactions, settings, cursors, maintenance.

use pgherd_shard_map::{RelationKind, ShardId};

use crate::ddl::object_word;
use crate::query::{keyword, starts_query};
use crate::route::{home, one, plan_of};
use crate::token::{Kind, Range, Tokens};
use crate::witness::unread;
use crate::{
    Access, Action, Alone, BeginWord, ClusterFunction, Context, Discard, Isolation, ManyShards,
    Merge, OneShard, Plan, PlanError, ReadConsistency, Reuse, SessionStatement, Span, Stateful,
    StatementKind, Target, block, change, cluster, copy, cursor, ddl, explain, functions, insert,
    live, merge_into, route, temporary, with,
};

pub(crate) fn plan(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    if tokens.len() == 0 {
        let kind = StatementKind::Utility;
        return Ok(plan_of(context, Action::Empty, Access::Read, Reuse::AnyLiterals, kind));
    }
    if tokens.list.iter().any(|t| t.kind == Kind::Semicolon && t.depth == 0)
        && !tokens.is(0, "create")
    {
        return Err(PlanError::new("42601", "cannot plan several statements at once"));
    }
    if let Some(statement) = session(tokens)? {
        let kind = match statement {
            SessionStatement::Set { .. }
            | SessionStatement::Reset(_)
            | SessionStatement::Show(_)
            | SessionStatement::SetCharacteristics(_)
            | SessionStatement::Discard(_)
            | SessionStatement::Prepare { .. }
            | SessionStatement::Execute { .. }
            | SessionStatement::CreateAsExecute { .. }
            | SessionStatement::Deallocate(_) => StatementKind::Session,
            _ => StatementKind::Transaction,
        };
        let action = Action::Session(statement);
        return Ok(plan_of(context, action, Access::Read, Reuse::SameText, kind));
    }
    if tokens.is(0, "explain") {
        return explain::plan(tokens, context);
    }
    let hint = hint(tokens)?;
    let mut plan = statement(tokens, context, hint.shard.or(context.pinned))?;
    plan.consistency = hint.consistency;
    Ok(plan)
}

fn statement(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    pin: Option<ShardId>,
) -> Result<Plan, PlanError> {
    if let Some(plan) = cursor::plan(tokens, context)? {
        return Ok(plan);
    }
    if pin.is_none() {
        functions::refuse_reading(tokens, context)?;
    }
    if let Some(plan) = stateful(tokens, context)? {
        return Ok(plan);
    }
    if let Some(shard) = pin
        && let Some(plan) = pinned(tokens, context, shard)?
    {
        return Ok(plan);
    }
    unpinned(tokens, context)
}

/// A statement under `pgherd.shard`. The pin is for what reads or changes the rows that the shard
/// has: new rows go where their keys say, reference tables are written everywhere, and tables that
/// nobody distributed are on the home shard, whatever it says.
fn pinned(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    shard: ShardId,
) -> Result<Option<Plan>, PlanError> {
    let Some(kind) = query_kind(tokens) else { return Ok(None) };
    if context.map.shard(shard).is_none() {
        return Err(PlanError::new("22023", format!("shard {shard} does not exist"))
            .with_hint("SELECT * FROM pgherd.shards lists the shards."));
    }
    let there = one(context, Target::Shard(shard), Access::Write, kind);
    match kind {
        StatementKind::Select if tokens.is(0, "with") && write_after_with(tokens).is_some() => {
            Ok(None)
        }
        StatementKind::Select => {
            // In a WITH; FOR [NO KEY] UPDATE is a lock.
            let writes = tokens.all().any(|at| {
                ["insert", "update", "delete", "merge"].iter().any(|word| keyword(tokens, at, word))
                    && !(at > 0 && tokens.is_any(at - 1, &["for", "key"]))
            });
            let sharded = context.may_name_sharded(tokens, &tokens.all()).is_some()
                || functions::reading_call(tokens, context).is_some();
            Ok((sharded && !writes).then_some(there))
        }
        StatementKind::Update | StatementKind::Delete => {
            let plan = unpinned(tokens, context)?;
            let spread = match &plan.action {
                Action::One(one) => matches!(one.target, Target::Keys { .. } | Target::All),
                Action::Many(many) => many.merge == Merge::Sum,
                _ => false,
            };
            if let Action::Many(ManyShards { merge: merge @ Merge::Rekeyed(_), .. }) = plan.action {
                let many = ManyShards { target: Target::Shard(shard), sql: None, merge };
                return Ok(Some(Plan { action: Action::Many(many), ..plan }));
            }
            Ok(Some(if spread { there } else { plan }))
        }
        // CALL and DO: what is inside runs there.
        StatementKind::Utility if tokens.is_any(0, &["call", "do"]) => Ok(Some(there)),
        _ => Ok(None),
    }
}

pub(crate) fn unpinned(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    // Also where a pin does not hold: new rows.
    functions::refuse_reading(tokens, context)?;
    if let Some(plan) = live::read(tokens, context)? {
        return Ok(plan);
    }
    match tokens.word(0).unwrap_or_default() {
        "select" => match cluster::read(tokens, context)? {
            Some(function) => {
                let access = match function {
                    ClusterFunction::TransactionOutcome { .. }
                    | ClusterFunction::CreateDistributedConcurrently { .. } => Access::Read,
                    _ => Access::Schema,
                };
                let kind = StatementKind::Utility;
                Ok(plan_of(context, Action::Cluster(function), access, Reuse::Once, kind))
            }
            None => route::select(tokens, context),
        },
        "values" | "table" => route::select(tokens, context),
        "with" => match write_after_with(tokens) {
            Some(kind) => with::plan(tokens, context, kind),
            None => route::select(tokens, context),
        },
        "" if starts_query(tokens, 0) => route::select(tokens, context),
        "insert" => insert::insert(tokens, context),
        "update" => change::update(tokens, context),
        "delete" => change::delete(tokens, context),
        "merge" => merge_into::plan(tokens, context),
        "copy" => copy::plan(tokens, context),
        "vacuum" | "analyze" | "analyse" | "reindex" | "cluster" | "checkpoint" => {
            Ok(maintenance(tokens, context))
        }
        "create" | "alter" | "drop" | "comment" | "grant" | "revoke" | "security" | "reassign"
        | "refresh" | "import" => ddl::plan(tokens, context),
        "truncate" => {
            let many = ManyShards { target: Target::All, sql: None, merge: Merge::Same };
            let (action, kind) = (Action::Many(many), StatementKind::Ddl);
            // Sequences that start again are another state of the schema: routers forget their
            // numbers.
            let restarts = tokens.all().any(|at| tokens.are(at, &["restart", "identity"]));
            let access = if restarts { Access::Schema } else { Access::Write };
            Ok(plan_of(context, action, access, Reuse::Once, kind))
        }
        "call" | "do" => block::plan(tokens, context),
        "lock" => lock(tokens, context),
        "notify" => Ok(home(context, Access::Write, StatementKind::Utility)),
        "load" => Err(PlanError::unsupported(
            "LOAD is not supported",
            "The library would stay loaded in a pooled server.",
            "Set session_preload_libraries on the shards.",
        )),
        // Not SQL that we know: PostgreSQL will say what is wrong with it.
        _ if context.may_name_sharded(tokens, &tokens.all()).is_some() => Err(unread(tokens)),
        _ => Ok(home(context, Access::Write, StatementKind::Utility)),
    }
}

/// What comments say: `/* pgherd: shard=2, read_consistency=atomic */`
#[derive(Default)]
struct Hint {
    shard: Option<ShardId>,
    consistency: Option<ReadConsistency>,
}

fn hint(tokens: &Tokens<'_>) -> Result<Hint, PlanError> {
    let mut found = Hint::default();
    for part in tokens.hints.iter().flat_map(|hint| hint.split([',', ' '])) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let understood = match name {
            "" => true,
            "shard" => {
                found.shard = value.parse().ok().map(ShardId);
                found.shard.is_some()
            }
            "read_consistency" => {
                found.consistency = ReadConsistency::parse(value);
                found.consistency.is_some()
            }
            _ => false,
        };
        if !understood {
            let message = format!("the hint \"{part}\" is not understood");
            return Err(PlanError::new("22023", message).with_hint(
                "Hints are shard=2 and read_consistency=atomic, as in /* pgherd: shard=2 */.",
            ));
        }
    }
    Ok(found)
}

fn query_kind(tokens: &Tokens<'_>) -> Option<StatementKind> {
    Some(match tokens.word(0) {
        None if starts_query(tokens, 0) => StatementKind::Select,
        Some("select" | "values" | "table" | "with") => StatementKind::Select,
        Some("insert") => StatementKind::Insert,
        Some("update") => StatementKind::Update,
        Some("delete") => StatementKind::Delete,
        Some("merge") => StatementKind::Merge,
        Some("copy") => StatementKind::Copy,
        Some("call" | "do" | "lock") => StatementKind::Utility,
        _ => return None,
    })
}

/// WITH … INSERT | UPDATE | DELETE | MERGE
fn write_after_with(tokens: &Tokens<'_>) -> Option<StatementKind> {
    let main = tokens.find(&(1..tokens.len()), |at| {
        tokens.is_any(at, &["select", "insert", "update", "delete", "merge", "values", "table"])
    });
    match tokens.word(main?)? {
        "insert" => Some(StatementKind::Insert),
        "update" => Some(StatementKind::Update),
        "delete" => Some(StatementKind::Delete),
        "merge" => Some(StatementKind::Merge),
        _ => None,
    }
}

fn session(tokens: &Tokens<'_>) -> Result<Option<SessionStatement>, PlanError> {
    let word = tokens.word(0).unwrap_or_default();
    let noise = |at: usize| at + usize::from(tokens.is_any(at, &["work", "transaction"]));
    let and_chain = |at: usize| tokens.are(at, &["and", "chain"]);
    let name = |at: usize| tokens.name(at).unwrap_or_default().into();
    Ok(Some(match word {
        "begin" => begin(tokens, BeginWord::Begin, noise(1)),
        "start" if tokens.is(1, "transaction") => begin(tokens, BeginWord::StartTransaction, 2),
        "commit" | "rollback" if tokens.is(1, "prepared") => return Err(prepared()),
        "prepare" if tokens.is(1, "transaction") => return Err(prepared()),
        "commit" | "end" => SessionStatement::Commit { and_chain: and_chain(noise(1)) },
        "rollback" | "abort" => {
            let at = noise(1);
            if tokens.is(at, "to") {
                let at = at + 1 + usize::from(tokens.is(at + 1, "savepoint"));
                return Ok(Some(SessionStatement::RollbackToSavepoint(name(at))));
            }
            SessionStatement::Rollback { and_chain: and_chain(at) }
        }
        "savepoint" => SessionStatement::Savepoint(name(1)),
        "release" => {
            SessionStatement::ReleaseSavepoint(name(1 + usize::from(tokens.is(1, "savepoint"))))
        }
        "set" => return set(tokens),
        "reset" if tokens.is(1, "all") => SessionStatement::Reset(None),
        "reset" => SessionStatement::Reset(Some(setting(tokens, 1).0)),
        "show" => SessionStatement::Show(setting(tokens, 1).0),
        "discard" => SessionStatement::Discard(match tokens.word(1) {
            Some("all") => Discard::All,
            Some("plans") => Discard::Plans,
            Some("sequences") => Discard::Sequences,
            Some("temp" | "temporary") => Discard::Temp,
            _ => return Ok(None),
        }),
        "prepare" => return prepare(tokens).map(Some),
        "execute" => {
            let (name, arguments) = execute(tokens, 0, tokens.len())?;
            SessionStatement::Execute { name, arguments }
        }
        "create" => return create_as_execute(tokens),
        "deallocate" => {
            let at = 1 + usize::from(tokens.is(1, "prepare") && tokens.len() > 2);
            SessionStatement::Deallocate((!tokens.is(at, "all")).then(|| name(at)))
        }
        _ => return Ok(None),
    }))
}

fn begin(tokens: &Tokens<'_>, start_word: BeginWord, from: usize) -> SessionStatement {
    let Modes { isolation, read_only, .. } = modes(tokens, from);
    let modes = tokens.span(&(from..tokens.len()));
    SessionStatement::Begin { start_word, isolation, read_only, modes }
}

/// `ISOLATION LEVEL …, READ ONLY, DEFERRABLE`
#[derive(Default)]
struct Modes {
    isolation: Option<Isolation>,
    read_only: Option<bool>,
    deferrable: Option<bool>,
}

fn modes(tokens: &Tokens<'_>, from: usize) -> Modes {
    let mut modes = Modes::default();
    for at in from..tokens.len() {
        if tokens.are(at, &["isolation", "level"]) {
            modes.isolation = match (tokens.word(at + 2), tokens.word(at + 3)) {
                (Some("read"), Some("uncommitted")) => Some(Isolation::ReadUncommitted),
                (Some("read"), Some("committed")) => Some(Isolation::ReadCommitted),
                (Some("repeatable"), Some("read")) => Some(Isolation::RepeatableRead),
                (Some("serializable"), _) => Some(Isolation::Serializable),
                _ => modes.isolation,
            };
        } else if tokens.are(at, &["read", "only"]) {
            modes.read_only = Some(true);
        } else if tokens.are(at, &["read", "write"]) {
            modes.read_only = Some(false);
        } else if tokens.is(at, "deferrable") {
            modes.deferrable = Some(!tokens.is(at - 1, "not"));
        }
    }
    modes
}

fn characteristics(tokens: &Tokens<'_>) -> Box<[(Box<str>, Box<str>)]> {
    let modes = modes(tokens, 5);
    let flag = |on: bool| if on { "on" } else { "off" };
    let isolation = modes.isolation.map(|isolation| match isolation {
        Isolation::ReadUncommitted => "'read uncommitted'",
        Isolation::ReadCommitted => "'read committed'",
        Isolation::RepeatableRead => "'repeatable read'",
        Isolation::Serializable => "'serializable'",
    });
    [
        ("default_transaction_isolation", isolation),
        ("default_transaction_read_only", modes.read_only.map(flag)),
        ("default_transaction_deferrable", modes.deferrable.map(flag)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.into(), value?.into())))
    .collect()
}

/// `PREPARE name [(types)] AS statement`
fn prepare(tokens: &Tokens<'_>) -> Result<SessionStatement, PlanError> {
    let wrong = || PlanError::new("42601", "syntax error in PREPARE");
    let name = tokens.name(1).ok_or_else(wrong)?.into();
    let mut at = 2;
    let mut types = Vec::new();
    if tokens.kind(at) == Some(Kind::Open) {
        let inside = at + 1..tokens.list[at].close;
        types.extend(tokens.split(&inside).iter().map(|part| tokens.text(part).into()));
        at = tokens.after(at);
    }
    let query = query_kind_at(tokens, at + 1);
    if !tokens.is(at, "as") || !query {
        return Err(wrong());
    }
    let statement = tokens.span(&(at + 1..tokens.len()));
    Ok(SessionStatement::Prepare { name, types: types.into(), statement })
}

fn query_kind_at(tokens: &Tokens<'_>, at: usize) -> bool {
    const WORDS: &[&str] =
        &["select", "values", "table", "with", "insert", "update", "delete", "merge"];
    tokens.is_any(at, WORDS) || starts_query(tokens, at)
}

/// `EXECUTE name [(arguments)]`, up to `end`.
fn execute(
    tokens: &Tokens<'_>,
    at: usize,
    end: usize,
) -> Result<(Box<str>, Box<[Span]>), PlanError> {
    let wrong = || PlanError::new("42601", "syntax error in EXECUTE");
    let name = tokens.name(at + 1).filter(|_| at + 1 < end).ok_or_else(wrong)?.into();
    let mut arguments = Vec::new();
    if tokens.kind(at + 2) == Some(Kind::Open) && tokens.after(at + 2) == end {
        let inside = at + 3..tokens.list[at + 2].close;
        arguments.extend(tokens.split(&inside).iter().map(|part| tokens.span(part)));
        if tokens.split(&inside).iter().any(Range::is_empty) {
            return Err(wrong());
        }
    } else if end > at + 2 {
        return Err(wrong());
    }
    Ok((name, arguments.into()))
}

/// `CREATE TABLE … AS EXECUTE name [(arguments)] [WITH [NO] DATA]`
fn create_as_execute(tokens: &Tokens<'_>) -> Result<Option<SessionStatement>, PlanError> {
    let table = object_word(tokens).filter(|at| tokens.is(*at, "table"));
    let execute_word = table.and_then(|table| {
        tokens.find(&(table..tokens.len()), |at| tokens.are(at, &["as", "execute"]))
    });
    let Some(at) = execute_word.map(|at| at + 1) else { return Ok(None) };
    let no_data = tokens.are(tokens.len() - 3, &["with", "no", "data"]);
    let with_data = no_data || tokens.are(tokens.len() - 2, &["with", "data"]);
    let end = tokens.len() - 2 * usize::from(with_data) - usize::from(no_data);
    let (name, arguments) = execute(tokens, at, end)?;
    let (create, data) = (tokens.span(&(0..at)), tokens.span(&(end..tokens.len())));
    Ok(Some(SessionStatement::CreateAsExecute { create, name, arguments, data }))
}

/// A setting's name and the token after it: `a.b`, `TIME ZONE`, `TRANSACTION ISOLATION LEVEL`.
fn setting(tokens: &Tokens<'_>, at: usize) -> (Box<str>, usize) {
    if tokens.are(at, &["time", "zone"]) {
        return ("timezone".into(), at + 2);
    }
    if tokens.are(at, &["transaction", "isolation", "level"]) {
        return ("transaction_isolation".into(), at + 3);
    }
    if tokens.are(at, &["session", "authorization"]) {
        return ("session_authorization".into(), at + 2);
    }
    match tokens.qualified(at) {
        Some((parts, after)) => (parts.join(".").to_lowercase().into(), after),
        None => ("".into(), at + 1),
    }
}

/// As [`setting`], with the names that only SET has for some.
fn setting_to_set(tokens: &Tokens<'_>, at: usize) -> (Box<str>, usize) {
    match tokens.word(at) {
        Some("xml") if tokens.is(at + 1, "option") => ("xmloption".into(), at + 2),
        Some("names") => ("client_encoding".into(), at + 1),
        Some("schema") => ("search_path".into(), at + 1),
        _ => setting(tokens, at),
    }
}

fn set(tokens: &Tokens<'_>) -> Result<Option<SessionStatement>, PlanError> {
    if tokens.is(1, "transaction") {
        if tokens.is(2, "snapshot") {
            return Err(PlanError::unsupported(
                "SET TRANSACTION SNAPSHOT is not supported",
                "A snapshot belongs to one server.",
                "Use REPEATABLE READ in one transaction.",
            ));
        }
        let modes = modes(tokens, 2);
        return Ok(Some(SessionStatement::SetTransaction { isolation: modes.isolation }));
    }
    if tokens.are(1, &["session", "characteristics", "as", "transaction"]) {
        return Ok(Some(SessionStatement::SetCharacteristics(characteristics(tokens))));
    }
    if tokens.is(1, "constraints") {
        return Ok(Some(SessionStatement::SetConstraints { named: !tokens.is(2, "all") }));
    }
    let local = tokens.is(1, "local");
    let session = tokens.is(1, "session") && !tokens.is(2, "authorization");
    let at = 1 + usize::from(local || session);
    let (name, mut after) = setting_to_set(tokens, at);
    if tokens.sign(after, "=") || tokens.is(after, "to") {
        after += 1;
    }
    let default = tokens.len() == after + 1
        && (tokens.is(after, "default")
            || (&*name == "timezone" && tokens.is(at, "time") && tokens.is(after, "local")));
    let off = !default
        && !tokens.is(after, "on")
        && tokens.list.get(after).is_none_or(|t| t.text != "'on'");
    if &*name == "standard_conforming_strings" && off {
        return Err(PlanError::unsupported(
            "standard_conforming_strings cannot be switched off",
            "Where a string literal ends would depend on it.",
            "Write escapes in E'…' literals.",
        ));
    }
    // Settings of the transaction by their own names.
    if let "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" = &*name {
        let word = tokens.list.get(after).map_or("", |token| token.text.trim_matches('\''));
        let isolation = match word.to_ascii_lowercase().as_str() {
            _ if &*name != "transaction_isolation" => None,
            "serializable" => Some(Isolation::Serializable),
            "repeatable read" => Some(Isolation::RepeatableRead),
            "read committed" => Some(Isolation::ReadCommitted),
            "read uncommitted" => Some(Isolation::ReadUncommitted),
            _ => None,
        };
        return Ok(Some(SessionStatement::SetTransaction { isolation }));
    }
    let value = (!default).then(|| tokens.text(&(after..tokens.len().max(after))).into());
    Ok(Some(SessionStatement::Set { name, value, local }))
}

pub(crate) fn everywhere(merge: Merge) -> Action {
    Action::Many(ManyShards { target: Target::All, sql: None, merge })
}

fn maintenance(tokens: &Tokens<'_>, context: &Context<'_>) -> Plan {
    // Those that could run in a transaction block gain nothing from one.
    let alone = !tokens.is_any(0, &["analyze", "analyse", "checkpoint"]);
    let again = match tokens.all().any(|at| tokens.is(at, "concurrently")) {
        true => Alone::Rest,
        false => Alone::Again,
    };
    let merge = if alone { Merge::EachAlone(again) } else { Merge::Same };
    let action = match names_home(tokens, context) {
        // Empty elsewhere.
        true => Action::One(OneShard { target: Target::Home, otherwise: None }),
        false => everywhere(merge),
    };
    plan_of(context, action, Access::Write, Reuse::Once, StatementKind::Utility)
}

/// Whether VACUUM and its kin name tables of the home shard, and nothing else.
fn names_home(tokens: &Tokens<'_>, context: &Context<'_>) -> bool {
    let mut at = match tokens.kind(1) {
        Some(Kind::Open) => tokens.after(1),
        _ => 1,
    };
    if tokens.is(0, "reindex") {
        if !tokens.is(at, "table") {
            return false;
        }
        at += 1;
    }
    while tokens.is_any(at, &["full", "freeze", "verbose", "analyze", "analyse", "concurrently"]) {
        at += 1;
    }
    // CLUSTER index ON table
    if tokens.is(0, "cluster")
        && let Some(on) = tokens.find(&(at..tokens.len()), |at| tokens.is(at, "on"))
    {
        at = on + 1;
    }
    let tables = tokens.split(&(at..tokens.len()));
    tables.iter().all(|table| {
        tokens.qualified(table.start).is_some_and(|(parts, _)| {
            matches!(context.relation(&parts), Some((_, RelationKind::Home)))
        })
    })
}

pub(crate) fn only_home(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    kind: StatementKind,
    what: &'static str,
) -> Result<Plan, PlanError> {
    if let Some(name) = context.may_name_sharded(tokens, &tokens.all()) {
        return Err(PlanError::unsupported(
            format!("{what} is not supported on sharded tables"),
            format!("The statement names {name}."),
            "Use INSERT … ON CONFLICT, UPDATE or DELETE with the distribution column.",
        ));
    }
    Ok(home(context, Access::Write, kind))
}

fn lock(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    let kind = StatementKind::Utility;
    match context.may_name_sharded(tokens, &tokens.all()) {
        Some(_) => {
            let action = everywhere(Merge::SameInBlock);
            Ok(plan_of(context, action, Access::Write, Reuse::Once, kind))
        }
        None => Ok(home(context, Access::Write, kind)),
    }
}

fn prepared() -> PlanError {
    PlanError::unsupported(
        "two-phase commit by clients is not supported",
        "The router itself commits across shards in two phases.",
        "Use COMMIT: transactions on several shards are atomic.",
    )
}

/// Statements that leave something in their server's session: they run on the home shard, and the
/// router looks what they have left.
fn stateful(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Option<Plan>, PlanError> {
    if let Some(plan) = temporary::plan(tokens, context)? {
        return Ok(Some(plan));
    }
    let kind = query_kind(tokens);
    let word = tokens.word(0).unwrap_or_default();
    let leaves = Some(functions::Tie::Session(Stateful::Leaves));
    let tie = match word {
        "listen" | "unlisten" => leaves,
        // What their bodies do is looked at afterwards.
        "do" => None,
        _ if kind.is_some() => functions::session_state(tokens, context)?,
        _ => None,
    };
    let kind = kind.unwrap_or(StatementKind::Utility);
    Ok(tie.map(|tie| match tie {
        functions::Tie::Home => home(context, Access::Write, kind),
        functions::Tie::Session(state) => {
            let access = match state {
                Stateful::Settings { anywhere: true, .. } => Access::Read,
                _ => Access::Write,
            };
            plan_of(context, Action::Stateful(state), access, Reuse::SameText, kind)
        }
    }))
}
