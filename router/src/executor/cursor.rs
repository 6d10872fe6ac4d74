//! Rows that the client takes in portions: Execute with a row limit, and SQL's cursors, where no
//! single server has the answer.
//!
//! Both are one thing under one name, as in PostgreSQL. Rows that shards send one by one stay there
//! until they are wanted (`on_shards`). All others (groups, copies, what a write returns), and those
//! of a cursor that goes back or outlives its transaction, are set aside first ([`Spool`]).

mod formats;
mod on_shards;

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;

use foldhash::HashMap;
use pgherd_planner::{
    CursorStatement, Declare, Move, Scan, Stateful, StatementKind, Step, scan,
};
use postgres_protocol::escape::escape_literal;

use self::formats::Formats;
use self::on_shards::OnShards;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::session::{Portal, Prepared};
use crate::spool::{Aside, Spool, Trouble};
use crate::wire::backend;
use crate::wire::frontend::BindTail;
use crate::worker::statements::statement_id;

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
    pub fn is_in_portions(&self, name: &[u8], portal: &Rc<Portal>) -> bool {
        let known = self.cursors.as_ref().and_then(|cursors| cursors.named.get(name));
        known.is_some_and(|cursor| Rc::ptr_eq(&cursor.portal, portal))
    }

    /// Whether the router has a cursor of this name.
    #[must_use]
    pub fn has_cursor(&self, name: &[u8]) -> bool {
        self.cursors.as_ref().is_some_and(|cursors| cursors.named.contains_key(name))
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
        if !self.is_in_portions(name, portal) {
            self.close_cursor(name).await?;
            let cursor = self.open_cursor(portal, false).await?;
            self.keep_cursor(name, cursor);
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
    /// 55000 for what is no query.
    pub fn run_to_nothing(&mut self, name: &[u8], portal: &Portal) -> Result<(), Failure> {
        if portal.statement.plan.kind != StatementKind::Select {
            return Err(cannot_run(name).into());
        }
        self.client.complete("SELECT 0");
        Ok(())
    }

    /// DECLARE, FETCH, MOVE, CLOSE.
    pub(super) async fn run_cursor(
        &mut self,
        cursor: &CursorStatement,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let home = self.planning.map.home;
        match cursor {
            CursorStatement::DeclareAtHome { name, .. } if self.has_cursor(name.as_bytes()) => {
                Err(known(name).into())
            }
            CursorStatement::DeclareAtHome { hold: true, .. } => {
                self.run_stateful(&Stateful::Leaves, statement).await
            }
            CursorStatement::DeclareAtHome { .. } => self.run_one(home, statement).await,
            CursorStatement::Declare(declare) => self.declare(declare, statement).await,
            CursorStatement::Move(moved) if self.has_cursor(moved.name.as_bytes()) => {
                self.move_cursor(moved, statement).await
            }
            CursorStatement::Move(_) => self.run_one(home, statement).await,
            CursorStatement::Close(Some(name)) if self.has_cursor(name.as_bytes()) => {
                self.close_cursor(name.as_bytes()).await?;
                self.client.complete("CLOSE CURSOR");
                Ok(())
            }
            CursorStatement::Close(Some(_)) => {
                self.run_stateful(&Stateful::Closes, statement).await
            }
            CursorStatement::Close(None) => {
                let cursors = self.cursors.iter().flat_map(|cursors| cursors.named.keys());
                for name in cursors.cloned().collect::<Vec<_>>() {
                    self.close_cursor(&name).await?;
                }
                self.run_stateful(&Stateful::Closes, statement).await
            }
        }
    }

    async fn declare(
        &mut self,
        declare: &Declare,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let name = &*declare.name;
        if name.is_empty() {
            let message = "invalid cursor name: must not be empty";
            return Err(ErrorInfo::new("34000", message).into());
        }
        let block = self.session.transaction.block();
        // Statements of one string are in a block, those of a pipeline are not.
        let in_block = block.is_some_and(|block| !block.implicit || !self.session.in_pipeline);
        if !declare.hold && !in_block {
            let message = "DECLARE CURSOR can only be used in transaction blocks";
            return Err(ErrorInfo::new("25P01", message).into());
        }
        self.take_ticket().await?;
        let home = self.server_for(self.planning.map.home).await?;
        self.parse_first(home, statement).await?;
        if self.has_cursor(name.as_bytes())
            || self.session.portals.contains_key(name.as_bytes())
            || self.has_cursor_at(home, name).await?
        {
            return Err(known(name).into());
        }
        let portal = self.query_of(declare, statement)?;
        self.learn_types(&portal.statement).await;
        let before = self.client.out.len();
        let described = self.describe_at_home(&portal, backend::NO_DATA).await;
        let columns = self.client.out.split_off(before);
        let opened = match described {
            Ok(()) => self.open_cursor(&portal, declare.hold || declare.scroll == Some(true)).await,
            Err(failure) => Err(failure),
        };
        let mut cursor = opened?;
        cursor.columns = Some(columns);
        cursor.hold = declare.hold;
        cursor.scrolls &= declare.scroll != Some(false);
        self.keep_cursor(name.as_bytes(), cursor);
        self.client.complete("DECLARE CURSOR");
        Ok(())
    }

    /// Whether the home shard's server has a cursor of this name in this session.
    async fn has_cursor_at(&mut self, home: usize, name: &str) -> Result<bool, Failure> {
        let server = &self.servers[home];
        if !server.joined && !server.kept {
            return Ok(false);
        }
        let name = escape_literal(name);
        let sql = format!("SELECT 1 FROM pg_catalog.pg_cursors WHERE name = {name}");
        Ok(!self.query(home, &sql).await?.rows.is_empty())
    }

    /// A cursor's query as a bound statement, with the parameters of its DECLARE.
    fn query_of(
        &self,
        declare: &Declare,
        statement: Statement<'_>,
    ) -> Result<Rc<Portal>, Failure> {
        let sql = declare.query.of(statement.sql);
        let mut scanned = Scan::default();
        scan(sql.as_bytes(), 0, self.planning.seed, &mut scanned);
        let types = statement.portal.map_or(&[][..], |portal| &portal.statement.types);
        let id = statement_id(sql, types, self.planning.map.epoch);
        let prepared = Prepared {
            sql: sql.into(),
            types: types.into(),
            params: None,
            id,
            server_name: format!("pgherd_{id:032x}").into_bytes().into(),
            seed: None,
            plan: Rc::new(declare.plan.clone()),
            literals: scanned.literals.into_boxed_slice(),
            foreign: OnceCell::new(),
        };
        let parameters = statement.portal.map(Portal::params).transpose()?;
        let parameters = parameters.map_or(&[0, 0, 0, 0][..], |params| params.tail.parameters);
        let format = if declare.binary { [0, 1, 0, 1] } else { [0, 1, 0, 0] };
        let tail = [parameters, &format[..]].concat();
        debug_assert!(BindTail::new(&tail).is_ok());
        Ok(Rc::new(Portal::new(Rc::new(prepared), true, tail.into())))
    }

    async fn move_cursor(
        &mut self,
        moved: &Move,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let name = moved.name.as_bytes();
        if !moved.shows {
            let rows = self.take_step(name, moved.step, false).await?;
            self.client.complete(&format!("MOVE {rows}"));
            return Ok(());
        }
        let columns = self.columns_of_cursor(name).await?;
        let wanted = match statement.portal {
            None => {
                self.client.out.extend_from_slice(&columns);
                None
            }
            Some(portal) => Formats::wanted(&columns, portal.params()?.tail.results)?,
        };
        let rows = match wanted {
            None => self.take_step(name, moved.step, true).await?,
            Some(formats) => self.step_in_formats(name, moved.step, &formats).await?,
        };
        self.client.complete(&format!("FETCH {rows}"));
        Ok(())
    }

    /// What Describe says of a cursor, or of a FETCH from it that was bound with these formats.
    ///
    /// # Errors
    /// The home shard's.
    pub async fn describe_cursor(
        &mut self,
        name: &[u8],
        results: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let mut columns = self.columns_of_cursor(name).await?;
        if let Some(results) = results {
            columns = formats::described(columns, results)?;
        }
        self.client.out.extend_from_slice(&columns);
        Ok(())
    }

    async fn columns_of_cursor(&mut self, name: &[u8]) -> Result<Vec<u8>, Failure> {
        let cursor = self.cursors.as_ref().and_then(|cursors| cursors.named.get(name));
        let Some(cursor) = cursor else { return Err(unknown(name).into()) };
        if let Some(columns) = &cursor.columns {
            return Ok(columns.clone());
        }
        // A portal of the protocol's.
        let portal = Rc::clone(&cursor.portal);
        let before = self.client.out.len();
        let described = self.describe_at_home(&portal, backend::NO_DATA).await;
        let columns = self.client.out.split_off(before);
        described.map(|()| columns)
    }

    /// `whole`: the rows are set aside, whatever they are.
    async fn open_cursor(
        &mut self,
        portal: &Rc<Portal>,
        whole: bool,
    ) -> Result<Cursor, Failure> {
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
    async fn set_aside(
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

    /// Moves a cursor as FETCH does. How many rows it has sent, or passed.
    async fn take_step(&mut self, name: &[u8], step: Step, shows: bool) -> Result<u64, Failure> {
        let taken = self.cursors.as_mut().and_then(|cursors| cursors.named.remove_entry(name));
        let Some((name, mut cursor)) = taken else { return Err(unknown(name).into()) };
        let stepped = match cursor.failed {
            true => Err(cannot_run(&name).into()),
            false => self.walk(&mut cursor, step, shows).await,
        };
        cursor.failed |= stepped.is_err();
        self.cursors.get_or_insert_default().named.insert(name, cursor);
        stepped
    }

    async fn walk(
        &mut self,
        cursor: &mut Cursor,
        step: Step,
        shows: bool,
    ) -> Result<u64, Failure> {
        let to = |row: i64| row.unsigned_abs();
        match step {
            Step::Forward(Some(0)) | Step::Backward(Some(0)) | Step::Relative(0) => {
                if cursor.at == 0 || cursor.ended {
                    return Ok(0);
                }
                if !shows {
                    return Ok(1);
                }
                cursor.go_to(cursor.at - 1)?;
                self.forward(cursor, Some(1), true).await
            }
            Step::Forward(rows) => self.forward(cursor, rows, shows).await,
            Step::Backward(rows) => self.backward(cursor, rows, shows).await,
            Step::Absolute(0) => Ok(cursor.go_to(0).map(|()| 0)?),
            Step::Absolute(row) if row > 0 => {
                // One behind the last row stays where it is, or goes back.
                let here = cursor.at + u64::from(cursor.ended);
                if to(row) <= here {
                    cursor.go_to(to(row) - 1)?;
                } else {
                    self.forward(cursor, Some(to(row) - 1 - cursor.at), false).await?;
                }
                self.forward(cursor, Some(1), shows).await
            }
            Step::Absolute(row) => {
                cursor.need_scroll()?;
                self.forward(cursor, None, false).await?;
                self.backward(cursor, Some(to(row) - 1), false).await?;
                self.backward(cursor, Some(1), shows).await
            }
            Step::Relative(rows) if rows > 0 => {
                self.forward(cursor, Some(to(rows) - 1), false).await?;
                self.forward(cursor, Some(1), shows).await
            }
            Step::Relative(rows) => {
                self.backward(cursor, Some(to(rows) - 1), false).await?;
                self.backward(cursor, Some(1), shows).await
            }
        }
    }

    async fn forward(
        &mut self,
        cursor: &mut Cursor,
        wanted: Option<u64>,
        shows: bool,
    ) -> Result<u64, Failure> {
        if cursor.ended || wanted == Some(0) {
            return Ok(0);
        }
        let sent = match &mut cursor.rows {
            Rows::OnShards(rows) => self.pull(rows, wanted, shows).await?,
            Rows::Aside(spool) => {
                let left = spool.rows() - cursor.at;
                let sent = wanted.map_or(left, |wanted| wanted.min(left));
                if shows {
                    for number in cursor.at..cursor.at + sent {
                        self.show_row(spool, number).await?;
                    }
                }
                sent
            }
        };
        cursor.at += sent;
        cursor.ended = wanted.is_none_or(|wanted| sent < wanted);
        Ok(sent)
    }

    async fn backward(
        &mut self,
        cursor: &mut Cursor,
        wanted: Option<u64>,
        shows: bool,
    ) -> Result<u64, Failure> {
        if wanted == Some(0) {
            return Ok(0);
        }
        cursor.need_scroll()?;
        let Rows::Aside(spool) = &mut cursor.rows else { return Err(only_forward().into()) };
        let before = if cursor.ended { cursor.at } else { cursor.at.saturating_sub(1) };
        let sent = wanted.map_or(before, |wanted| wanted.min(before));
        if shows {
            for number in (before - sent..before).rev() {
                self.show_row(spool, number).await?;
            }
        }
        let to_start = wanted.is_none_or(|wanted| sent < wanted);
        cursor.at = if to_start { 0 } else { before - sent + 1 };
        cursor.ended = false;
        Ok(sent)
    }

    /// Row `number`, from 0.
    async fn show_row(&mut self, spool: &mut Spool, number: u64) -> Result<(), Failure> {
        let row = spool.row(number).await.map_err(|error| file_failed(&error))?;
        self.client.out.extend_from_slice(row.unwrap_or_default());
        self.client.flush_if_high().await?;
        Ok(())
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
        let Some(cursors) = &mut self.cursors else { return };
        let portals = &mut self.session.portals;
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
        let cursors = self.cursors.iter_mut().flat_map(|cursors| cursors.named.values_mut());
        cursors.for_each(|cursor| cursor.depth = cursor.depth.min(depth));
    }
}

impl Cursor {
    /// To this row, from 1, without a look at it.
    fn go_to(&mut self, row: u64) -> Result<(), ErrorInfo> {
        if (self.at, self.ended) != (row, false) {
            self.need_scroll()?;
        }
        self.at = row;
        self.ended = false;
        Ok(())
    }

    fn need_scroll(&self) -> Result<(), ErrorInfo> {
        if self.scrolls { Ok(()) } else { Err(only_forward()) }
    }
}

fn only_forward() -> ErrorInfo {
    ErrorInfo::new("55000", "cursor can only scan forward")
        .hint("Declare it with SCROLL option to enable backward scan.")
}

fn known(name: &str) -> ErrorInfo {
    ErrorInfo::new("42P03", format!("cursor \"{name}\" already exists"))
}

fn unknown(name: &[u8]) -> ErrorInfo {
    let name = String::from_utf8_lossy(name);
    ErrorInfo::new("34000", format!("cursor \"{name}\" does not exist"))
}

fn cannot_run(name: &[u8]) -> ErrorInfo {
    let name = String::from_utf8_lossy(name);
    ErrorInfo::new("55000", format!("portal \"{name}\" cannot be run"))
}

fn file_failed(error: &io::Error) -> ErrorInfo {
    let sqlstate = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "53100",
        _ => "58030",
    };
    ErrorInfo::new(sqlstate, format!("rows could not be set aside: {error}"))
        .hint("The router keeps them in a temporary file; TMPDIR says where.")
}
