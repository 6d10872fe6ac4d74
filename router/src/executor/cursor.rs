//! Rows that the client takes in portions: Execute with a row limit, and SQL's cursors, where no
//! single server has the answer.
//!
//! Both are one thing under one name, as in PostgreSQL. Rows that shards send one by one stay there
//! until they are wanted (`on_shards`). All others (groups, copies, what a write returns), and those
//! of a cursor that goes back or outlives its transaction, are set aside first ([`Spool`]).

mod copied;
mod formats;
mod on_shards;
mod sql;
mod steps;

use std::io;
use std::rc::Rc;

use foldhash::HashMap;
use pgherd_planner::{Action, SessionStatement, StatementKind, Step};

use self::on_shards::OnShards;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::session::{Portal, Run};
use crate::spool::{Aside, Spool, Trouble};
use crate::wire::backend;

/// All that a session has open.
#[derive(Default)]
pub(super) struct Cursors {
    named: HashMap<Box<[u8]>, Cursor>,
    /// How many there have been: servers know each by its number.
    made: u64,
}

struct Cursor {
    rows: Rows,
    /// The query, bound.
    portal: Rc<Portal>,
    /// Its columns, where SQL has declared it.
    columns: Option<Vec<u8>>,
    /// How many savepoints there were: going back to one of these ends it.
    depth: usize,
    hold: bool,
    /// It is not of an earlier transaction.
    new: bool,
    /// It goes back.
    scrolls: bool,
    /// The row that it is on, from 1; before the first it is 0.
    at: u64,
    /// It is behind its last row, which is row `at`.
    ended: bool,
    /// An error has ended it.
    failed: bool,
    /// The command tag, with some count.
    tag: String,
}

enum Rows {
    OnShards(OnShards),
    Aside(Spool),
}

impl Conn {
    /// Whether a portal has begun to send its rows in portions.
    fn is_in_portions(&self, name: &[u8], portal: &Rc<Portal>) -> bool {
        let known = self.cursors.as_ref().and_then(|cursors| cursors.named.get(name));
        known.is_some_and(|cursor| Rc::ptr_eq(&cursor.portal, portal))
    }

    /// Whether the router has a cursor of this name.
    #[must_use]
    pub fn has_cursor(&self, name: &[u8]) -> bool {
        self.cursors.as_ref().is_some_and(|cursors| cursors.named.contains_key(name))
    }

    /// The query of a cursor of the router's.
    #[must_use]
    pub fn query_of_cursor(&self, name: &[u8]) -> Option<Rc<Portal>> {
        let cursor = self.cursors.as_ref()?.named.get(name)?;
        Some(Rc::clone(&cursor.portal))
    }

    /// Execute: the next rows of a portal, up to `limit`; 0 is all.
    ///
    /// # Errors
    /// The statement's.
    pub async fn run_in_portions(
        &mut self,
        name: &[u8],
        portal: &Rc<Portal>,
        limit: i32,
    ) -> Result<(), Failure> {
        if let Some(touches) = &portal.statement.plan.touches {
            self.touch(touches, true);
        }
        if portal.run.get() == Run::NotYet {
            self.close_cursor(name).await?;
            portal.run.set(Run::InPortions);
            let cursor = self.open_cursor(portal, false).await?;
            self.keep_cursor(name, cursor);
        } else if !self.is_in_portions(name, portal) {
            // It has ended since this message was read.
            return Err(gone(name).into());
        }
        let wanted = u64::try_from(limit).ok().filter(|limit| *limit > 0);
        let sent = self.take_step(name, Step::Forward(wanted), true).await?;
        if wanted == Some(sent) {
            self.client.out.extend_from_slice(backend::PORTAL_SUSPENDED);
            return Ok(());
        }
        let cursor = self.cursors.as_ref().and_then(|cursors| cursors.named.get(name));
        let tag = cursor.map_or("", |cursor| &cursor.tag);
        // A count is that of the rows since the last portion.
        let tag = match tag.rsplit_once(' ') {
            Some((verb, count)) if count.parse::<u64>().is_ok() => format!("{verb} {sent}"),
            _ => tag.to_owned(),
        };
        self.client.complete(&tag);
        Ok(())
    }

    /// Execute of a portal that has run to its end.
    ///
    /// # Errors
    /// 55000 for what is no query; 34000 where it has ended the transaction, and itself.
    pub fn run_to_nothing(
        &mut self,
        name: &[u8],
        portal: &Portal,
        returns_rows: bool,
    ) -> Result<(), Failure> {
        match (&portal.statement.plan.action, portal.statement.plan.kind) {
            (_, StatementKind::Insert) if returns_rows => self.client.complete("INSERT 0 0"),
            (_, StatementKind::Update) if returns_rows => self.client.complete("UPDATE 0"),
            (_, StatementKind::Delete) if returns_rows => self.client.complete("DELETE 0"),
            (Action::Empty, _) => self.client.out.extend_from_slice(backend::EMPTY_QUERY),
            (_, StatementKind::Select) => self.client.complete("SELECT 0"),
            (_, StatementKind::Explain) => self.client.complete("EXPLAIN"),
            (Action::Session(SessionStatement::Show(_)), _) => self.client.complete("SHOW"),
            (
                Action::Session(
                    SessionStatement::Commit { .. } | SessionStatement::Rollback { .. },
                ),
                _,
            ) => {
                return Err(gone(name).into());
            }
            _ => return Err(cannot_run(name).into()),
        }
        Ok(())
    }

    /// `whole`: the rows are set aside, whatever they are.
    async fn open_cursor(&mut self, portal: &Rc<Portal>, whole: bool) -> Result<Cursor, Failure> {
        let statement = Statement::bound(portal);
        let cursors = self.cursors.get_or_insert_default();
        cursors.made += 1;
        let name = format!("pgherd_cursor_{}", cursors.made);
        let pulled = match whole {
            true => None,
            false => Box::pin(self.open_on_shards(&name, statement)).await?,
        };
        let (rows, tag) = match pulled {
            Some(rows) => (Rows::OnShards(rows), "SELECT 0".to_owned()),
            None => {
                let (spool, tag) = Box::pin(self.set_aside(statement)).await?;
                (Rows::Aside(spool), tag)
            }
        };
        Ok(Cursor {
            scrolls: matches!(rows, Rows::Aside(_)),
            rows,
            portal: Rc::clone(portal),
            columns: None,
            depth: self.session.transaction.block().map_or(0, |block| block.depth()),
            hold: false,
            new: true,
            at: 0,
            ended: false,
            failed: false,
            tag,
        })
    }

    fn keep_cursor(&mut self, name: &[u8], cursor: Cursor) {
        self.cursors.get_or_insert_default().named.insert(name.into(), cursor);
    }

    /// Runs a statement to its end. Its rows are kept, what it says beside goes to the client.
    pub(super) async fn set_aside(
        &mut self,
        statement: Statement<'_>,
    ) -> Result<(Spool, String), Failure> {
        let most = self.worker.live.borrow().borrow_max;
        let kept = |cursor: &Cursor| match &cursor.rows {
            Rows::Aside(spool) => spool.bytes(),
            Rows::OnShards(_) => 0,
        };
        let cursors = self.cursors.iter().flat_map(|cursors| cursors.named.values());
        let left = most.saturating_sub(cursors.map(kept).sum());
        let before = std::mem::take(&mut self.client.out);
        let outer = self.client.aside.replace(Box::new(Aside::new(left)));
        let ran = Box::pin(self.run_statement(statement)).await;
        let rest = std::mem::replace(&mut self.client.out, before);
        let aside = std::mem::replace(&mut self.client.aside, outer);
        let Some(mut aside) = aside else { return Err(Failure::Torn) };
        aside.take(&rest).await;
        self.client.out.append(&mut aside.passed);
        ran?;
        match aside.trouble {
            None => Ok((aside.spool, aside.tag.unwrap_or_default())),
            Some(Trouble::File(error)) => Err(file_failed(&error).into()),
            Some(Trouble::Full) => Err(ErrorInfo::new("54000", "a cursor has too many rows")
                .detail(format!(
                    "They are set aside before the first is sent, and are more than {} MB.",
                    most >> 20
                ))
                .hint(
                    "Fetch without SCROLL and WITH HOLD, give the query a narrower condition, or \
                     raise [query] borrow_max in the router's configuration.",
                )
                .into()),
        }
    }

    /// Ends the cursor of this name, if there is one.
    ///
    /// # Errors
    /// A lost server.
    pub async fn close_cursor(&mut self, name: &[u8]) -> Result<(), Failure> {
        let taken = self.cursors.as_mut().and_then(|cursors| cursors.named.remove(name));
        match taken.map(|cursor| cursor.rows) {
            Some(Rows::OnShards(rows)) => Box::pin(self.close_on_shards(&rows)).await,
            _ => Ok(()),
        }
    }

    /// The transaction has ended, and with it all cursors that it does not leave behind.
    pub(super) fn end_cursors(&mut self, committed: bool) {
        let Some(cursors) = &mut self.cursors else { return };
        cursors.named.retain(|_, cursor| cursor.hold && (committed || !cursor.new));
        for cursor in cursors.named.values_mut() {
            cursor.new = false;
            cursor.depth = 0;
        }
        if cursors.named.is_empty() {
            self.cursors = None;
        }
    }

    /// After ROLLBACK TO: what was opened since is gone.
    pub(super) fn roll_back_cursors(&mut self) {
        let depth = self.session.transaction.block().map_or(0, |block| block.depth());
        let portals = &mut self.session.portals;
        portals.retain(|_, portal| portal.depth.get() < depth);
        let Some(cursors) = &mut self.cursors else { return };
        cursors.named.retain(|name, cursor| {
            let stays = cursor.depth < depth;
            if !stays {
                portals.remove(name);
            }
            stays
        });
    }

    /// After RELEASE: what was opened since belongs to what is around.
    pub(super) fn release_cursors(&mut self) {
        let depth = self.session.transaction.block().map_or(0, |block| block.depth());
        for portal in self.session.portals.values() {
            portal.depth.set(portal.depth.get().min(depth));
        }
        let cursors = self.cursors.iter_mut().flat_map(|cursors| cursors.named.values_mut());
        cursors.for_each(|cursor| cursor.depth = cursor.depth.min(depth));
    }
}

fn unknown(name: &[u8]) -> ErrorInfo {
    let name = String::from_utf8_lossy(name);
    ErrorInfo::new("34000", format!("cursor \"{name}\" does not exist"))
}

fn gone(name: &[u8]) -> ErrorInfo {
    let name = String::from_utf8_lossy(name);
    ErrorInfo::new("34000", format!("portal \"{name}\" does not exist"))
}

fn cannot_run(name: &[u8]) -> ErrorInfo {
    let name = String::from_utf8_lossy(name);
    ErrorInfo::new("55000", format!("portal \"{name}\" cannot be run"))
}

pub(super) fn file_failed(error: &io::Error) -> ErrorInfo {
    let sqlstate = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "53100",
        _ => "58030",
    };
    ErrorInfo::new(sqlstate, format!("rows could not be set aside: {error}"))
        .hint("The router keeps them in a temporary file; TMPDIR says where.")
}
