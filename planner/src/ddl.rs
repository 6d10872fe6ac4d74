//! Schema changes: to every shard, after refusing what could not hold on a sharded table.

use pgherd_shard_map::{Table, TableKind, TableName};

use crate::classify::everywhere;
use crate::route::{home, plan_of};
use crate::token::{Kind, Range, Tokens};
use crate::witness::unread;
use crate::{
    Access, Action, Alone, ClusterFunction, Context, Merge, Numbering, Plan, PlanError, Reuse,
    Role, StatementKind, Then, UnnamedIndex, families, functions, literal, table_from_query,
};

pub(crate) fn plan(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    refuse_kinds(tokens)?;
    let mut then = None;
    let mut numbering = None;
    let object = object_word(tokens);
    match (
        tokens.word(0).unwrap_or_default(),
        object.map_or("", |at| tokens.word(at).unwrap_or_default()),
    ) {
        ("create", "table") => {
            let at = object.unwrap_or(1);
            if let Some(plan) = table_from_query::create_as(tokens, context, at)? {
                return Ok(plan);
            }
            then = create_table(tokens, context, at)?;
        }
        ("create", "materialized") if context.may_name_sharded(tokens, &tokens.all()).is_some() => {
            return Err(refused(
                "materialized views over sharded tables are not supported",
                "Each shard would keep the rows of its own part only.",
                "Create a table, distribute it, and fill it with INSERT … SELECT.",
            ));
        }
        ("refresh", _) if context.may_name_sharded(tokens, &tokens.all()).is_some() => {
            return Err(refused(
                "materialized views over sharded tables are not supported",
                "Each shard would fill it with the rows of its own part only.",
                "Make it a table, distribute it, and fill it with INSERT … SELECT.",
            ));
        }
        // The rows are on the home shard; elsewhere it is empty, and stays so. It makes a temporary
        // table, so it could not be prepared.
        ("refresh", _) if tokens.all().any(|at| tokens.is(at, "concurrently")) => {
            return Ok(home(context, Access::Write, StatementKind::Ddl));
        }
        _ if tokens.all().any(|at| tokens.are(at, &["large", "object"])) => {
            return Ok(home(context, Access::Write, StatementKind::Ddl));
        }
        ("create", "index") => create_index(tokens, context)?,
        ("create", "trigger") => create_trigger(tokens, context)?,
        ("create", "rule") if context.may_name_sharded(tokens, &tokens.all()).is_some() => {
            return Err(refused(
                "rules on sharded tables are not supported",
                "What a rule adds to a statement could need another shard.",
                "Write the other statement in the application, or in a transaction.",
            ));
        }
        ("alter", "type") => {
            let label =
                tokens.qualified(2).filter(|(_, end)| tokens.are(*end, &["rename", "value"]));
            then = label.map(|(_, end)| Then::Labels(tokens.text(&(2..end)).into()));
        }
        ("alter", "table") => (numbering, then) = alter_table(tokens, context)?,
        _ => {}
    }
    if let Some(role) = role_password(tokens)? {
        let kind = StatementKind::Ddl;
        return Ok(plan_of(context, Action::Role(role), Access::Write, Reuse::Once, kind));
    }
    let alone = tokens.all().any(|at| tokens.is(at, "concurrently"));
    let merge = match (alone, numbering) {
        (true, _) => Merge::EachAlone(resumed(tokens)?),
        (false, Some(numbering)) => Merge::Numbered(numbering),
        (false, None) => Merge::Same,
    };
    let mut plan =
        plan_of(context, everywhere(merge), Access::Schema, Reuse::Once, StatementKind::Ddl);
    plan.then = then;
    Ok(plan)
}

/// How a statement goes on that has not run on all shards.
fn resumed(tokens: &Tokens<'_>) -> Result<Alone, PlanError> {
    let at = tokens.find(&tokens.all(), |at| tokens.is(at, "concurrently"));
    let Some((name, after)) = at.and_then(|at| written(tokens, at)) else {
        return Ok(Alone::Rest);
    };
    if tokens.is(0, "drop") {
        return Ok(Alone::NoIndex { name });
    }
    if !tokens.is(0, "create") {
        return Ok(Alone::Rest);
    }
    if tokens.is(after - 1, "on") {
        return Ok(unnamed(tokens, at.unwrap_or(0), after - 1));
    }
    let table = tokens.is(after, "on").then(|| written(tokens, after)).flatten();
    Ok(table.map_or(Alone::Rest, |(table, _)| Alone::Index { name, table }))
}

/// An index without a name: `concurrently` and `on` are where these words are.
fn unnamed(tokens: &Tokens<'_>, concurrently: usize, on: usize) -> Alone {
    let end = tokens.len();
    let text = |range: Range| Box::from(tokens.text(&range));
    let Some((table, after)) = written(tokens, on).filter(|_| on == concurrently + 1) else {
        // PostgreSQL says what is wrong with it.
        return Alone::Again;
    };
    let name = tokens.name(after - 1).unwrap_or_default().into();
    let (verb, head) = (text(0..concurrently), text(0..on));
    Alone::Unnamed(Box::new(UnnamedIndex {
        verb,
        head,
        tail: text(on..end),
        table,
        name,
        rest: text(after..end),
    }))
}

/// A name behind `at` as it is written, past IF [NOT] EXISTS and ONLY, and where it ends.
fn written(tokens: &Tokens<'_>, at: usize) -> Option<(Box<str>, usize)> {
    let mut from = at + 1;
    while tokens.is_any(from, &["if", "not", "exists", "only"]) {
        from += 1;
    }
    let (_, after) = tokens.qualified(from)?;
    Some((tokens.text(&(from..after)).into(), after))
}

/// A trigger of a distributed table works where the row is; of a reference table it would work on
/// each shard for itself.
fn create_trigger(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<(), PlanError> {
    let on = tokens.find(&tokens.all(), |at| tokens.is(at, "on"));
    let table = on.and_then(|at| tokens.qualified(at + 1)).map(|(parts, _)| parts);
    match table.and_then(|parts| context.sharded(&parts)) {
        Some(table) if matches!(table.kind, TableKind::Reference) => Err(refused(
            "triggers on reference tables are not supported",
            "Each shard would run the trigger for itself, and the copies could differ.",
            "Compute the values before the write.",
        )),
        _ => Ok(()),
    }
}

fn refused(message: &'static str, detail: &'static str, hint: &'static str) -> PlanError {
    PlanError::unsupported(message, detail, hint)
}

/// `{CREATE | ALTER} {ROLE | USER | GROUP} … PASSWORD '…'`
fn role_password(tokens: &Tokens<'_>) -> Result<Option<Role>, PlanError> {
    let role =
        tokens.is_any(0, &["create", "alter"]) && tokens.is_any(1, &["role", "user", "group"]);
    // What a user mapping has is a password itself, for a server elsewhere.
    if !role || tokens.is(2, "mapping") {
        return Ok(None);
    }
    let Some(at) = (2..tokens.len()).find(|at| tokens.is(*at, "password")) else { return Ok(None) };
    let Some(Kind::Literal { kind, .. }) = tokens.kind(at + 1) else { return Ok(None) };
    let range = at + 1..at + 2;
    let password = literal::decode_str(tokens.text(&range), kind).ok_or_else(|| {
        refused(
            "this form of a password literal is not supported",
            "The router must read the password to give every shard the same verifier.",
            "Write it as a plain string: PASSWORD '…'.",
        )
    })?;
    Ok(Some(Role { literal: tokens.span(&range), password }))
}

/// The word that says what is made or changed, past OR REPLACE, UNIQUE, UNLOGGED, ….
pub(crate) fn object_word(tokens: &Tokens<'_>) -> Option<usize> {
    (1..tokens.len().min(6)).find(|at| {
        !tokens.is_any(
            *at,
            &[
                "or",
                "replace",
                "unique",
                "unlogged",
                "global",
                "local",
                "temp",
                "temporary",
                "recursive",
                "foreign",
                "constraint",
                "event",
                "trusted",
                "procedural",
            ],
        )
    })
}

fn refuse_kinds(tokens: &Tokens<'_>) -> Result<(), PlanError> {
    let object = tokens.word(1).unwrap_or_default();
    if (object == "database" && !tokens.is_any(0, &["comment", "grant", "revoke", "alter"]))
        || matches!(object, "system" | "tablespace" | "subscription")
    {
        return Err(refused(
            "this command is not supported through the router",
            "It concerns one server, and cannot run inside a transaction on all of them.",
            "Run it on each shard.",
        ));
    }
    Ok(())
}

/// The table named at `at`, past IF [NOT] EXISTS and ONLY.
fn named<'t>(tokens: &'t Tokens<'_>, mut at: usize) -> Option<(Vec<&'t str>, usize)> {
    while tokens.is_any(at, &["if", "not", "exists", "only", "concurrently"]) {
        at += 1;
    }
    tokens.qualified(at)
}

fn create_table(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    table_word: usize,
) -> Result<Option<Then>, PlanError> {
    let Some((parts, after)) = named(tokens, table_word + 1) else { return Ok(None) };
    let of_family = families::created(tokens, context, after)?;
    if tokens.kind(after) != Some(Kind::Open) {
        return Ok(None);
    }
    let inside = after + 1..tokens.list[after].close;
    let columns: Vec<&str> = tokens
        .split(&inside)
        .iter()
        .filter(|part| {
            !tokens.is_any(
                part.start,
                &["constraint", "primary", "unique", "foreign", "check", "exclude", "like"],
            )
        })
        .filter_map(|part| tokens.name(part.start))
        .collect();
    let column = context.auto_distribute.iter().find(|wanted| columns.contains(&&***wanted));
    // Of a table that is distributed at once the catalog sees whether they hold.
    if column.is_none() {
        foreign_keys(tokens, context, None, &inside)?;
    }
    if of_family {
        return Ok(None);
    }
    let table = match parts.as_slice() {
        [schema, name] => TableName::new(schema, name),
        [name] => TableName::new(context.search_path.first().map_or("public", |s| s), name),
        _ => return Ok(None),
    };
    // IF NOT EXISTS of a table that is there already must not distribute it.
    if tokens.is(table_word + 1, "if") && context.relation(&parts).is_some() {
        return Ok(None);
    }
    Ok(column.map(|column| {
        Then::Distribute(ClusterFunction::CreateDistributedTable {
            table,
            column: column.clone(),
            colocate_with: None,
            distribution: "hash".into(),
        })
    }))
}

fn create_index(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<(), PlanError> {
    if !tokens.is(1, "unique") {
        return Ok(());
    }
    let Some(on) = tokens.find(&(2..tokens.len()), |at| tokens.is(at, "on")) else {
        return Ok(());
    };
    let Some((parts, mut at)) = named(tokens, on + 1) else { return Ok(()) };
    if tokens.is(at, "using") {
        at += 2;
    }
    if let Some(table) = context.sharded(&parts)
        && tokens.kind(at) == Some(Kind::Open)
    {
        unique(tokens, table, &(at + 1..tokens.list[at].close))?;
    }
    Ok(())
}

/// A unique constraint holds across shards only if it contains the key: equal keys share a shard.
fn unique(tokens: &Tokens<'_>, table: &Table, columns: &Range) -> Result<(), PlanError> {
    let Some(key) = table.key_column() else { return Ok(()) };
    let names = tokens.split(columns).iter().any(|part| {
        // The column itself, perhaps with an order; not an expression over it.
        tokens.name(part.start) == Some(&*key.name)
            && !tokens.sign(part.start + 1, ".")
            && tokens.kind(part.start + 1) != Some(Kind::Open)
    });
    if names {
        return Ok(());
    }
    Err(PlanError::unsupported(
        "a unique constraint on a distributed table must contain the distribution column",
        format!(
            "Rows of {} with different \"{}\" are on different shards, which cannot check each other.",
            table.name, key.name
        ),
        format!("Add \"{}\" to the constraint's columns.", key.name),
    ))
}

fn alter_table(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
) -> Result<(Option<Numbering>, Option<Then>), PlanError> {
    let Some((parts, after)) = named(tokens, 2) else { return Ok((None, None)) };
    let table = context.sharded(&parts);
    let actions = after..tokens.len();
    foreign_keys(tokens, context, table.map(|t| &**t), &actions)?;
    let mut changes = Vec::new();
    for action in tokens.split(&actions) {
        changes.extend(families::altered(tokens, context, &parts, &action)?);
    }
    let then = (!changes.is_empty()).then(|| Then::Families(changes.into()));
    let Some(table) = table else { return Ok((None, then)) };
    if tokens.is(after, "rename") || tokens.are(after, &["set", "schema"]) {
        return Ok((None, then));
    }
    let mut columns = Vec::new();
    for action in tokens.split(&actions) {
        alter_action(tokens, table, &action)?;
        columns.extend(numbered(tokens, table, &action)?);
    }
    let unique = |at| tokens.is_any(at, &["unique", "primary", "exclude"]);
    if !columns.is_empty() && actions.clone().any(unique) {
        return Err(refused(
            "a column that is filled from a sequence and a unique constraint cannot be added at once",
            "Rows get their numbers shard by shard, when the constraint would be there already.",
            "Add the constraint in a second ALTER TABLE.",
        ));
    }
    let table = table.name.clone();
    let numbering = (!columns.is_empty()).then(|| Numbering { table, columns: columns.into() });
    Ok((numbering, then))
}

/// A new column that a sequence of its own fills, in rows that are there already, too.
fn numbered(
    tokens: &Tokens<'_>,
    table: &Table,
    action: &Range,
) -> Result<Option<Box<str>>, PlanError> {
    if !tokens.is(action.start, "add")
        || tokens.is(action.start + 1, "constraint")
        || table.kind == TableKind::Reference
    {
        return Ok(None);
    }
    if action.clone().any(|at| tokens.is(at, "nextval") && tokens.kind(at + 1) == Some(Kind::Open))
    {
        return Err(refused(
            "a distributed table cannot get a column that is filled from another's sequence",
            "Each shard would number the rows that it has by itself.",
            "Use serial or GENERATED … AS IDENTITY; or add the column without a default, fill it, \
             and then use ALTER COLUMN … SET DEFAULT nextval(…).",
        ));
    }
    let types = ["serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"];
    let numbers = |at| tokens.is_any(at, &types) || tokens.are(at, &["as", "identity"]);
    let mut at = action.start + 1;
    while tokens.is_any(at, &["column", "if", "not", "exists"]) {
        at += 1;
    }
    match (at + 1..action.end).any(numbers) {
        false => Ok(None),
        true => Ok(Some(tokens.name(at).ok_or_else(|| unread(tokens))?.into())),
    }
}

fn alter_action(tokens: &Tokens<'_>, table: &Table, action: &Range) -> Result<(), PlanError> {
    let mut at = action.start + 1;
    let word = tokens.word(action.start).unwrap_or_default();
    if matches!(word, "drop" | "alter") {
        at += usize::from(tokens.is(at, "column"));
        while tokens.is_any(at, &["if", "exists"]) {
            at += 1;
        }
        let is_key = table.key_column().is_some_and(|key| tokens.name(at) == Some(&*key.name));
        let changes = word == "drop"
            || tokens.is(at + 1, "type")
            || tokens.are(at + 1, &["set", "data"])
            || tokens.are(at + 1, &["drop", "not"]);
        if is_key && changes {
            return Err(PlanError::unsupported(
                "the distribution column cannot be dropped or change its type",
                format!("Every row of {} stands where its key's hash says.", table.name),
                "Undistribute the table, alter it, and distribute it again.",
            ));
        }
    }
    if word == "alter"
        && let Some(using) = tokens.find(action, |at| tokens.is(at, "using"))
    {
        let (nature, name) = functions::worst(tokens, &(using..action.end));
        if nature > functions::Nature::Immutable && table.kind == TableKind::Reference
            || name == "nextval"
        {
            return Err(refused(
                "the column's new values would not be the same, or not unique, on all shards",
                "Each shard would compute them for itself.",
                "Add a column, fill it with UPDATE and constants, and drop the old one.",
            ));
        }
    }
    if word == "add" {
        let marks = tokens.find(action, |at| {
            tokens.are(at, &["primary", "key"]) || tokens.is_any(at, &["unique", "exclude"])
        });
        if let Some(at) = marks {
            let open = tokens.find(&(at..action.end), |at| tokens.kind(at) == Some(Kind::Open));
            let uses_index =
                tokens.find(&(at..action.end), |at| tokens.are(at, &["using", "index"]));
            match open {
                Some(open) => unique(tokens, table, &(open + 1..tokens.list[open].close))?,
                None if uses_index.is_some() => {}
                // ADD COLUMN x int UNIQUE
                None => unique(tokens, table, &(at..at))?,
            }
        }
        let differs = functions::worst(tokens, action).0 > functions::Nature::Immutable
            || action
                .clone()
                .any(|at| tokens.is_any(at, &["serial", "bigserial", "smallserial", "identity"]));
        if table.kind == TableKind::Reference
            && differs
            && action.clone().any(|at| {
                tokens.is_any(at, &["default", "serial", "bigserial", "smallserial", "identity"])
            })
        {
            return Err(refused(
                "a reference table cannot get a column that each shard would fill differently",
                "The default is not the same on every shard.",
                "Add the column without a default, and fill it with UPDATE and constants.",
            ));
        }
    }
    Ok(())
}

/// REFERENCES: the row that is referred to must be on the same shard. The catalog looks at it once more
/// when it is done.
fn foreign_keys(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
    from: Option<&Table>,
    range: &Range,
) -> Result<(), PlanError> {
    for at in range.clone().filter(|at| tokens.is(*at, "references")) {
        let Some((parts, after)) = tokens.qualified(at + 1) else { continue };
        let to = context.sharded(&parts).map(|t| &**t);
        let kinds = (from.map(|t| t.kind), to.map(|t| t.kind));
        let why = match kinds {
            (_, Some(TableKind::Reference)) | (None, None) => continue,
            (
                Some(TableKind::Distributed { group: a, key, .. }),
                Some(TableKind::Distributed { group: b, key: other, .. }),
            ) => {
                let (Some(from), Some(to)) = (from, to) else { continue };
                // Without a list it is the other's primary key, which the catalog knows.
                let pairs = tokens.kind(after) != Some(Kind::Open)
                    || key_pairs(
                        tokens,
                        at,
                        after,
                        &from.columns[key].name,
                        &to.columns[other].name,
                    );
                if a == b && pairs {
                    continue;
                }
                "The tables are not co-located, or the foreign key does not pair their distribution columns."
            }
            (Some(_), None) => "The table that it refers to lives on the home shard only.",
            (None, Some(_)) => {
                return Err(refused(
                    "the foreign key cannot be checked on the shards",
                    "The table that it refers to is distributed, its rows are on many shards.",
                    "Create the table without the foreign key, distribute it, and then use ALTER \
                     TABLE … ADD FOREIGN KEY.",
                ));
            }
            (Some(TableKind::Reference), _) => {
                "The table that it refers to is distributed, its rows are on many shards."
            }
        };
        return Err(refused(
            "the foreign key cannot be checked on the shards",
            why,
            "Co-locate the tables and put the distribution column into the key, or make the other a reference table.",
        ));
    }
    Ok(())
}

/// FOREIGN KEY (…, key, …) REFERENCES t (…, key, …), both at the same place.
fn key_pairs(tokens: &Tokens<'_>, at: usize, after: usize, from: &str, to: &str) -> bool {
    let place = |open: usize, name: &str| {
        (tokens.kind(open) == Some(Kind::Open)).then(|| {
            let inside = open + 1..tokens.list[open].close;
            tokens.split(&inside).iter().position(|c| tokens.name(c.start) == Some(name))
        })
    };
    // The list before REFERENCES ends just before it.
    let open = (0..at)
        .rev()
        .find(|i| tokens.kind(*i) == Some(Kind::Open) && tokens.list[*i].close + 1 == at);
    let left = open.and_then(|open| place(open, from)).flatten();
    let right = place(after, to).flatten();
    left.is_some() && left == right
}
