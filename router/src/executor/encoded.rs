//! Sessions whose client does not speak UTF-8.
//!
//! Their servers have the client's encoding ([`crate::wire::encoding`]), so rows that only pass
//! through are right as they are: those of one shard, of several in turn, sorted, and summed up by
//! PostgreSQL. Copies for PostgreSQL to run a statement over are made in UTF-8. What reads rows as text here, to write them into statements of its own, is refused.

use std::rc::Rc;

use pgherd_planner::{Action, CursorStatement, Merge, Otherwise, Plan, PlanError};

use super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::session::Portal;
use crate::session::settings::ENCODING;
use crate::wire::encoding::{Encoding, Named};

/// Refuses what would read the client's texts as UTF-8.
pub(super) fn refuse_own_texts(plan: &Plan, encoding: &Encoding) -> Result<(), PlanError> {
    if passes_through(plan) {
        return Ok(());
    }
    Err(PlanError::unsupported(
        format!("the statement cannot be run with the client encoding {}", encoding.name),
        "Its rows, or a plan of it, go through the router, which reads them in UTF8.",
        "SET client_encoding TO 'UTF8'",
    ))
}

fn passes_through(plan: &Plan) -> bool {
    let merged = |merge: &Merge| !matches!(merge, Merge::Rekeyed(_));
    match &plan.action {
        Action::One(one) => match one.otherwise.as_deref() {
            Some(Otherwise::Many(many)) => merged(&many.merge),
            Some(Otherwise::Borrow) | None => true,
        },
        Action::Many(many) => merged(&many.merge),
        Action::Cursor(CursorStatement::Declare(declare)) => passes_through(&declare.plan),
        Action::Insert(_)
        | Action::Role(_)
        | Action::Borrow(_)
        | Action::Cluster(_)
        | Action::CopyOut(_)
        | Action::Session(_)
        | Action::Stateful(_)
        | Action::Cursor(_)
        | Action::Empty => true,
        Action::Gather(_)
        | Action::Informed(_)
        | Action::Carried(_)
        | Action::Steps(_)
        | Action::MadeTable(_)
        | Action::CopyIn(_)
        | Action::CopyQuery(_)
        | Action::Explain(_)
        | Action::Live(_) => false,
    }
}

/// Whether the router can serve a client with this `client_encoding`, as it is written after
/// `SET client_encoding TO`. What PostgreSQL does not know itself it says.
///
/// # Errors
/// 0A000.
pub fn check_encoding(value: &str) -> Result<(), ErrorInfo> {
    match Named::of(value) {
        Named::AsIs | Named::Single(_) | Named::Unknown => Ok(()),
        Named::Wide => {
            let name = value.trim_matches(['\'', '"']);
            Err(ErrorInfo::new("0A000", format!("the client encoding \"{name}\" is not supported"))
                .detail("The router reads UTF8, SQL_ASCII and encodings of one byte a character.")
                .hint("SET client_encoding TO 'UTF8'"))
        }
        Named::Unread => Err(ErrorInfo::new("0A000", "the client encoding is not read here")
            .hint("Write it as a plain name: SET client_encoding TO 'UTF8'")),
    }
}

impl Conn {
    /// Whether the open block has changed settings.
    pub(super) fn has_set_in_block(&self) -> bool {
        let block = self.session.transaction.block();
        block.is_some_and(|block| !Rc::ptr_eq(&block.settings, &self.session.settings))
    }

    /// A portal's values, and the rows of a cursor, are in the encoding that held when it was bound.
    pub(super) fn check_bound(&self, portal: &Portal) -> Result<(), ErrorInfo> {
        let [bound, now] =
            [portal.encoding, self.planning.encoding].map(|encoding| encoding.map(|e| e.name));
        if bound == now {
            return Ok(());
        }
        let message = format!(
            "a portal of the client encoding {} cannot be run with {}",
            bound.unwrap_or("UTF8"),
            now.unwrap_or("UTF8")
        );
        Err(ErrorInfo::new("0A000", message).hint("Change client_encoding between transactions."))
    }

    /// Where the open block has changed its encoding, what makes a server join it is sent in several
    /// parts: each is in the encoding that holds when it arrives.
    pub(super) async fn join_in_parts(&mut self, at: usize) -> Result<(), Failure> {
        let Some(block) = self.session.transaction.block() else { return Ok(()) };
        let changed = block.settings.value(ENCODING) != self.session.settings.value(ENCODING);
        if self.servers[at].joined || !changed {
            return Ok(());
        }
        let statements: Vec<String> = block.join_statements().map(str::to_owned).collect();
        self.servers[at].joined = true;
        for sql in statements {
            self.query(at, &sql).await?;
        }
        Ok(())
    }
}
