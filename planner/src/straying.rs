//! Writes to tables whose triggers would reach for rows of other servers: a trigger runs on the one server
//! where its row is.

use pgherd_shard_map::StrayingTrigger;

use crate::token::Tokens;
use crate::{Context, PlanError};

pub(crate) fn refuse(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<(), PlanError> {
    let straying = context.map.straying();
    // Who names the shard answers for it.
    if straying.is_empty() || context.pinned.is_some() {
        return Ok(());
    }
    for at in tokens.all() {
        let Some(name) = tokens.name(at) else { continue };
        let Some(found) = straying.iter().find(|s| *s.relation == *name) else { continue };
        if written(tokens, at).iter().any(|event| found.events.iter().any(|e| **e == **event)) {
            return Err(refused(found));
        }
    }
    Ok(())
}

/// What the statement does to the table that is named at `at`: its triggers' events.
fn written(tokens: &Tokens<'_>, at: usize) -> &'static [&'static str] {
    let mut before = at;
    while before > 1 && tokens.sign(before - 1, ".") {
        before -= 2;
    }
    if before > 0 && tokens.is(before - 1, "only") {
        before -= 1;
    }
    let Some(word) = before.checked_sub(1) else { return &[] };
    let prior = |text| word > 0 && tokens.is(word - 1, text);
    match tokens.word(word) {
        Some("into") if prior("merge") => &["insert", "update", "delete"],
        Some("into") if tokens.all().any(|at| tokens.are(at, &["do", "update"])) => {
            &["insert", "update"]
        }
        Some("into") | Some("copy") => &["insert"],
        Some("update") => &["update"],
        Some("from") if prior("delete") => &["delete"],
        Some("truncate") => &["truncate"],
        Some("table") if prior("truncate") => &["truncate"],
        _ => &[],
    }
}

fn refused(found: &StrayingTrigger) -> PlanError {
    let StrayingTrigger { relation, trigger, names, .. } = found;
    let why = match names {
        Some(other) => {
            format!("It names {other}, whose rows are not where those of {relation} are.")
        }
        None => format!("Its function names sharded tables, and {relation} is on the home shard."),
    };
    PlanError::unsupported(
        format!("the trigger {trigger} of {relation} would run on one server only"),
        why,
        "Colocate the tables, or write to both in a transaction and drop the trigger.",
    )
}
