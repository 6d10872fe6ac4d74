//! `SELECT create_distributed_table(…)` and its kin: functions that the router answers itself.

use pgherd_shard_map::TableName;

use crate::literal::decode_str;
use crate::token::{Kind, Range, Tokens};
use crate::{ClusterFunction, Context, PlanError};

const NAMES: &[&str] = &[
    "create_distributed_table",
    "create_reference_table",
    "undistribute_table",
    "pgherd_transaction_outcome",
    "create_distributed_table_concurrently",
];

/// The function, if the statement is a SELECT of one.
pub(crate) fn read(
    tokens: &Tokens<'_>,
    context: &Context<'_>,
) -> Result<Option<ClusterFunction>, PlanError> {
    let Some(at) = tokens
        .all()
        .find(|at| tokens.is_any(*at, NAMES) && tokens.kind(at + 1) == Some(Kind::Open))
    else {
        return Ok(None);
    };
    let schema = at == 3 && tokens.sign(2, ".") && tokens.is_any(1, &["pgherd", "public"]);
    if !tokens.is(0, "select") || !(at == 1 || schema) {
        return Ok(None);
    }
    let close = tokens.list[at + 1].close;
    // `SELECT f(…)`, with or without a label.
    let rest = tokens.len() - close - 1;
    if rest > 2 || (rest == 2 && !tokens.is(close + 1, "as")) {
        return Err(misuse("it stands alone in a SELECT, without FROM or other columns"));
    }
    let inside = at + 2..close;
    let mut plain: Vec<Box<str>> = Vec::new();
    let (mut colocate_with, mut distribution) = (None, None);
    for part in if inside.is_empty() { Vec::new() } else { tokens.split(&inside) } {
        match (tokens.word(part.start), tokens.sign(part.start + 1, "=>"), part.len()) {
            (Some(name), true, _) => {
                let value = argument(tokens, &(part.start + 2..part.end))?;
                match name {
                    "colocate_with" => colocate_with = Some(value),
                    "distribution" | "distribution_type" => distribution = Some(value),
                    "table_name" | "relation" if plain.is_empty() => plain.push(value),
                    "distribution_column" if plain.len() == 1 => plain.push(value),
                    _ => return Err(misuse("an argument of that name does not exist")),
                }
            }
            _ => plain.push(argument(tokens, &part)?),
        }
    }
    let most = match () {
        () if tokens.is(at, NAMES[0]) => 3,
        () if tokens.is(at, NAMES[4]) => 2,
        () => 1,
    };
    if plain.len() < most.min(2) || plain.len() > most {
        return Err(misuse("the number of arguments is wrong"));
    }
    if tokens.is(at, NAMES[3]) {
        let gid = plain.swap_remove(0);
        return Ok(Some(ClusterFunction::TransactionOutcome { gid }));
    }
    let distribution = distribution.or_else(|| plain.get(2).cloned());
    let table = table(&plain[0], context)?;
    let colocate_with = match colocate_with.as_deref() {
        None | Some("default") => None,
        Some(name) => Some(self::table(name, context)?),
    };
    Ok(Some(match tokens.word(at) {
        Some("create_distributed_table_concurrently") => {
            if distribution.is_some_and(|distribution| &*distribution != "hash") {
                return Err(misuse("only distribution by hash can be made concurrently"));
            }
            let column = fold(&plain[1]);
            ClusterFunction::CreateDistributedConcurrently { table, column, colocate_with }
        }
        Some("create_distributed_table") => ClusterFunction::CreateDistributedTable {
            table,
            column: fold(&plain[1]),
            colocate_with,
            distribution: distribution.unwrap_or_else(|| "hash".into()),
        },
        Some("create_reference_table") => ClusterFunction::CreateReferenceTable { table },
        _ => ClusterFunction::UndistributeTable { table },
    }))
}

fn argument(tokens: &Tokens<'_>, range: &Range) -> Result<Box<str>, PlanError> {
    let cast = range.len() == 3 && tokens.sign(range.start + 1, "::");
    if range.len() != 1 && !cast {
        return Err(misuse("arguments are string literals"));
    }
    match tokens.kind(range.start) {
        Some(Kind::Literal { kind, .. }) => decode_str(&tokens.list[range.start].text, kind)
            .ok_or_else(|| misuse("arguments are plain string literals")),
        _ => Err(misuse("arguments are string literals, not parameters or expressions")),
    }
}

/// A name as regclass reads it: folded to lower case unless quoted, looked up in search_path.
fn table(text: &str, context: &Context<'_>) -> Result<TableName, PlanError> {
    let tokens = Tokens::new(text);
    let named = tokens.qualified(0).filter(|(parts, end)| *end == tokens.len() && parts.len() <= 2);
    let Some((parts, _)) = named else {
        return Err(PlanError::new("42602", format!("\"{text}\" is not a table's name")));
    };
    if let Some((name, _)) = context.relation(&parts) {
        return Ok(name);
    }
    Err(PlanError::new("42P01", format!("relation \"{}\" does not exist", parts.join(".")))
        .with_hint("Create the table first, or write its schema before its name."))
}

fn fold(text: &str) -> Box<str> {
    let tokens = Tokens::new(text);
    tokens.name(0).filter(|_| tokens.len() == 1).unwrap_or(text).into()
}

fn misuse(why: &'static str) -> PlanError {
    PlanError::new("22023", "the call of the sharding function is not understood")
        .with_detail(format!("For these functions: {why}."))
        .with_hint("SELECT create_distributed_table('orders', 'customer_id', colocate_with => 'customers');")
}
