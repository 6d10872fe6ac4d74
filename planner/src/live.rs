//! Views of what is in no table: `pgherd.transactions`, whose rows every shard has for itself, and
//! the router's own figures. The router gathers the rows and puts them before the statement as
//! `WITH pools AS (…)`; the rest is PostgreSQL's.

use crate::query::keyword;
use crate::route::plan_of;
use crate::token::Tokens;
use crate::{Access, Action, Context, Live, LiveView, Plan, PlanError, Reuse, Span, StatementKind};

const SCHEMA: &str = "pgherd";

/// The plan, if the statement is a query that names one of the views.
pub(crate) fn read(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Option<Plan>, PlanError> {
    let named: Vec<(usize, LiveView)> = tokens
        .all()
        .filter(|at| tokens.name(*at) == Some(SCHEMA) && tokens.sign(at + 1, "."))
        .filter_map(|at| Some((at, LiveView::named(tokens.name(at + 2)?)?)))
        .collect();
    let Some((_, first)) = named.first() else { return Ok(None) };
    if !tokens.is_any(0, &["select", "with", "values", "table"]) {
        return Err(refusal(*first, "Only a SELECT may name it."));
    }
    // What is on one shard only, at home or not, cannot be read together with it.
    let recursive = tokens.is(0, "with") && keyword(tokens, 1, "recursive");
    if context.may_name_sharded(tokens, &tokens.all()).is_some() {
        return Err(refusal(*first, "The statement reads distributed tables, too."));
    }
    // The rows get the view's name without its schema, which must not be another table's.
    let taken = |at: &usize| {
        let before = |word| *at > 0 && tokens.is(at - 1, word);
        (before("from") || before("join") || *at > 0 && tokens.sign(at - 1, ","))
            && !tokens.sign(at + 1, ".")
            && named.iter().any(|(_, view)| tokens.name(*at) == Some(view.name()))
    };
    if tokens.all().any(|at| taken(&at)) {
        return Err(refusal(*first, "The statement has its name without the schema, too."));
    }
    let head = match (tokens.is(0, "with"), recursive) {
        (true, true) => tokens.list[1].end,
        (true, false) => tokens.list[0].end,
        (false, _) => tokens.list[0].start,
    };
    let mut views: Vec<LiveView> = named.iter().map(|(_, view)| *view).collect();
    views.sort_unstable();
    views.dedup();
    let schemas = named.iter().map(|(at, _)| Span {
        start: tokens.list[*at].start as u32,
        end: tokens.list[at + 1].end as u32,
    });
    let live = Live {
        views: views.into(),
        head: head as u32,
        extends_with: tokens.is(0, "with"),
        schemas: schemas.collect(),
    };
    let (access, kind) = (Access::Read, StatementKind::Select);
    Ok(Some(plan_of(context, Action::Live(live), access, Reuse::Once, kind)))
}

impl LiveView {
    const ALL: [Self; 5] =
        [Self::Clients, Self::Pools, Self::Servers, Self::Statements, Self::Transactions];

    /// Without the schema.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Pools => "pools",
            Self::Servers => "servers",
            Self::Statements => "statements",
            Self::Transactions => "transactions",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|view| view.name() == name)
    }
}

fn refusal(view: LiveView, detail: &'static str) -> PlanError {
    PlanError::unsupported(
        format!("pgherd.{} cannot be read by this statement", view.name()),
        detail,
        "Read it in a SELECT of its own.",
    )
}
