//! CALL and DO: what is inside is read as words, since only PostgreSQL can run it.
//!
//! They run on the home shard. A block that changes the schema, and nothing else, runs on every shard,
//! as its statements would: migration tools write `DO $$ … CREATE TYPE … EXCEPTION … $$`.

use crate::classify::{everywhere, only_home};
use crate::literal::decode_str;
use crate::route::plan_of;
use crate::token::{Kind, Tokens};
use crate::{Access, Context, Merge, Plan, PlanError, Reuse, StatementKind, functions};

/// How deep strings in strings are read: EXECUTE in a block.
const DEPTH_MAX: usize = 4;

pub(crate) fn plan(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    for body in tokens.list.iter().filter_map(text) {
        let inner = Tokens::new(&body);
        only_home(&inner, context, StatementKind::Utility, "DO").map_err(no_block)?;
        functions::refuse_reading(&inner, context)?;
    }
    let plan = only_home(tokens, context, StatementKind::Utility, "CALL").map_err(no_block)?;
    let changes = match tokens.is(0, "do") && context.map.shards().len() > 1 {
        true => Changes::of_texts(tokens, 0),
        false => Changes::default(),
    };
    match changes {
        Changes { schema: true, rows: true } => Err(PlanError::unsupported(
            "DO cannot change the schema and rows in one block",
            "The schema is changed on every shard, and rows of plain tables are on the home shard only.",
            "Send the statements one by one, or in two blocks.",
        )),
        Changes { schema: true, rows: false } => {
            let action = everywhere(Merge::Same);
            Ok(plan_of(context, action, Access::Schema, Reuse::Once, StatementKind::Ddl))
        }
        _ => Ok(Plan { reuse: Reuse::SameText, ..plan }),
    }
}

fn no_block(error: PlanError) -> PlanError {
    error.with_hint("Send the statements one by one, or pin a shard with SET pgherd.shard.")
}

fn text(token: &crate::token::Token<'_>) -> Option<Box<str>> {
    match token.kind {
        Kind::Literal { kind, .. } => decode_str(&token.text, kind),
        _ => None,
    }
}

/// What the statements of a block change, as far as their words say.
#[derive(Debug, Default, Clone, Copy)]
struct Changes {
    schema: bool,
    rows: bool,
}

impl Changes {
    fn of_texts(tokens: &Tokens<'_>, depth: usize) -> Self {
        let mut found = Self::default();
        for body in tokens.list.iter().filter_map(text) {
            let inner = Tokens::new(&body);
            let (own, nested) = (
                Self::of(&inner),
                match depth < DEPTH_MAX {
                    true => Self::of_texts(&inner, depth + 1),
                    false => Self::default(),
                },
            );
            found.schema |= own.schema | nested.schema;
            found.rows |= own.rows | nested.rows;
        }
        found
    }

    fn of(tokens: &Tokens<'_>) -> Self {
        const KINDS: &[&str] = &[
            "aggregate",
            "cast",
            "collation",
            "column",
            "conversion",
            "domain",
            "extension",
            "foreign",
            "function",
            "global",
            "index",
            "language",
            "local",
            "materialized",
            "operator",
            "or",
            "policy",
            "procedure",
            "publication",
            "role",
            "rule",
            "schema",
            "sequence",
            "server",
            "statistics",
            "table",
            "text",
            "trigger",
            "type",
            "unique",
            "unlogged",
            "user",
            "view",
            "constraint",
            "event",
            "recursive",
            "default",
        ];
        let mut found = Self::default();
        for at in tokens.all() {
            let makes =
                tokens.is_any(at, &["create", "alter", "drop"]) && tokens.is_any(at + 1, KINDS);
            let grants = tokens.is_any(at, &["grant", "revoke"])
                && (at == 0 || !tokens.is_any(at - 1, &["with", "for"]));
            // A part of an ALTER TABLE, or said of a column.
            let inner = tokens.is_any(at + 1, &["column", "constraint", "default"])
                && tokens.is_any(at, &["alter", "drop"])
                && !tokens.are(at, &["alter", "default"]);
            found.schema |= (makes && !inner) || grants || tokens.are(at, &["comment", "on"]);
            let sets = || {
                let from = at + 1 + usize::from(tokens.is(at + 1, "only"));
                let after = tokens.qualified(from).map_or(from, |(_, after)| after);
                (after..after + 3).any(|at| tokens.is(at, "set"))
            };
            found.rows |= tokens.are(at, &["insert", "into"])
                || tokens.are(at, &["merge", "into"])
                || tokens.are(at, &["delete", "from"])
                || (tokens.is(at, "update") && sets());
        }
        found
    }
}
