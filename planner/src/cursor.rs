//! SQL cursors: DECLARE, FETCH, MOVE and CLOSE.
//!
//! A cursor over what the home shard has is its server's own, with everything that PostgreSQL can do
//! with it. Of one over rows of other shards the router takes care: its query is planned like any
//! other. Which of the two a name means is known when FETCH runs, not when it is planned.

use crate::route::{check_scatter, home, plan_of};
use crate::token::{Kind, Range, Tokens};
use crate::witness::unread;
use crate::{
    Access, Action, Context, CursorStatement, Declare, Move, Plan, PlanError, Reuse, StatementKind,
    Step, Target, classify, functions,
};

/// `None`: no such statement, or one that PostgreSQL has to judge.
pub(crate) fn plan(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Option<Plan>, PlanError> {
    let statement = match tokens.word(0) {
        Some("declare") => return declare(tokens, context).map(Some),
        Some("fetch" | "move") => match moved(tokens) {
            Some(moved) => CursorStatement::Move(moved),
            // The count may be what cannot be read, and others of this form can be.
            None => {
                let plan = home(context, Access::Write, StatementKind::Utility);
                return Ok(Some(Plan { reuse: Reuse::SameText, ..plan }));
            }
        },
        Some("close") if tokens.len() == 2 => {
            let all = tokens.is(1, "all");
            CursorStatement::Close(tokens.name(1).filter(|_| !all).map(Into::into))
        }
        _ => return Ok(None),
    };
    // What a cursor's query writes, its DECLARE may have written.
    Ok(Some(plan_for(context, statement, Access::Read)))
}

fn plan_for(context: &Context<'_>, statement: CursorStatement, access: Access) -> Plan {
    let action = Action::Cursor(statement);
    plan_of(context, action, access, Reuse::SameText, StatementKind::Utility)
}

/// `DECLARE name [BINARY] [ASENSITIVE | INSENSITIVE] [[NO] SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR`
struct Head {
    binary: bool,
    scroll: Option<bool>,
    hold: bool,
    /// Where the query starts.
    query: usize,
}

impl Head {
    fn read(tokens: &Tokens<'_>) -> Option<Self> {
        let mut head = Self { binary: false, scroll: None, hold: false, query: 0 };
        let mut at = 2;
        while !tokens.is(at, "cursor") {
            match tokens.word(at)? {
                "binary" => head.binary = true,
                "insensitive" | "asensitive" => {}
                "scroll" => head.scroll = Some(true),
                "no" if tokens.is(at + 1, "scroll") => {
                    head.scroll = Some(false);
                    at += 1;
                }
                _ => return None,
            }
            at += 1;
        }
        at += 1;
        if tokens.is_any(at, &["with", "without"]) && tokens.is(at + 1, "hold") {
            head.hold = tokens.is(at, "with");
            at += 2;
        }
        head.query = at + 1;
        (tokens.is(at, "for") && head.query < tokens.len()).then_some(head)
    }
}

fn declare(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Plan, PlanError> {
    // Reference tables are at home, too.
    let spread = context.may_name_distributed(tokens, &tokens.all())
        || functions::reading_call(tokens, context).is_some();
    let (Some(name), Some(head)) = (tokens.name(1), Head::read(tokens)) else {
        return match spread {
            true => Err(unread(tokens)),
            false => Ok(home(context, Access::Write, StatementKind::Utility)),
        };
    };
    let at_home = |access| {
        let statement = CursorStatement::DeclareAtHome { name: name.into(), hold: head.hold };
        plan_for(context, statement, access)
    };
    let query = tokens.span(&(head.query..tokens.len()));
    let mut inner = Tokens::known(query.of(tokens.sql), context);
    inner.hints.extend(tokens.hints.iter().copied());
    let plan = classify::plan(&inner, context);
    if !spread {
        return Ok(at_home(plan.map_or(Access::Write, |plan| plan.access)));
    }
    let plan = check_scatter(plan?, context)?;
    // What is no query at all PostgreSQL refuses in its own words.
    let there = matches!(&plan.action, Action::One(one)
        if matches!(one.target, Target::Home | Target::Any));
    if there || plan.kind != StatementKind::Select {
        return Ok(at_home(plan.access));
    }
    let access = plan.access;
    let Head { binary, scroll, hold, .. } = head;
    let declare = Declare { name: name.into(), binary, scroll, hold, query, plan };
    Ok(plan_for(context, CursorStatement::Declare(Box::new(declare)), access))
}

/// `FETCH [direction] [FROM | IN] name`
fn moved(tokens: &Tokens<'_>) -> Option<Move> {
    let last = tokens.len().checked_sub(1).filter(|last| *last > 0)?;
    let name = tokens.name(last)?.into();
    let from = last > 1 && tokens.is_any(last - 1, &["from", "in"]);
    let direction = 1..last - usize::from(from);
    let step = match direction.len() {
        0 => Step::Forward(Some(1)),
        _ => step(tokens, &direction)?,
    };
    Some(Move { name, step, shows: tokens.is(0, "fetch") })
}

fn step(tokens: &Tokens<'_>, direction: &Range) -> Option<Step> {
    let rest = direction.start + 1..direction.end;
    let alone = rest.is_empty();
    let all = rest.len() == 1 && tokens.is(rest.start, "all");
    Some(match tokens.word(direction.start) {
        Some("next") if alone => Step::Forward(Some(1)),
        Some("prior") if alone => Step::Backward(Some(1)),
        Some("first") if alone => Step::Absolute(1),
        Some("last") if alone => Step::Absolute(-1),
        Some("all") if alone => Step::Forward(None),
        Some("forward") if all => Step::Forward(None),
        Some("backward") if all => Step::Backward(None),
        Some("forward") if alone => Step::Forward(Some(1)),
        Some("backward") if alone => Step::Backward(Some(1)),
        Some("forward") => Step::forward(number(tokens, &rest)?),
        Some("backward") => Step::forward(-number(tokens, &rest)?),
        Some("absolute") => Step::Absolute(number(tokens, &rest)?),
        Some("relative") => Step::Relative(number(tokens, &rest)?),
        Some(_) => return None,
        None => Step::forward(number(tokens, direction)?),
    })
}

/// A number with a sign or without one, as far as PostgreSQL takes it.
fn number(tokens: &Tokens<'_>, range: &Range) -> Option<i64> {
    let signed =
        range.len() == 2 && (tokens.sign(range.start, "-") || tokens.sign(range.start, "+"));
    let digits = range.end.checked_sub(1).filter(|_| range.len() == 1 || signed)?;
    let literal = matches!(tokens.kind(digits), Some(Kind::Literal { .. }));
    let value: i32 = tokens.list[digits].text.parse().ok().filter(|_| literal)?;
    let negative = signed && tokens.sign(range.start, "-");
    Some(if negative { -i64::from(value) } else { value.into() })
}
