//! SQL's cursors: DECLARE, FETCH, MOVE and CLOSE, for those that are the router's. What is about a
//! cursor of the home shard's server goes there.

use std::cell::OnceCell;
use std::rc::Rc;

use pgherd_planner::{CursorStatement, Declare, Move, Plan, Scan, Stateful, StatementKind, scan};
use postgres_protocol::escape::escape_literal;

use super::super::{Conn, Statement};
use super::formats::{self, Formats};
use super::unknown;
use crate::error::{ErrorInfo, Failure};
use crate::session::{Portal, Prepared, Run};
use crate::wire::backend;
use crate::wire::frontend::BindTail;
use crate::worker::statements::statement_id;

impl Conn {
    /// DECLARE, FETCH, MOVE, CLOSE.
    pub(in super::super) async fn run_cursor(
        &mut self,
        cursor: &CursorStatement,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let home = self.planning.map.home;
        match cursor {
            CursorStatement::DeclareAtHome { name, .. }
                if self.has_cursor(name.as_bytes())
                    || self.session.portals.contains_key(name.as_bytes()) =>
            {
                Err(known(name).into())
            }
            CursorStatement::DeclareAtHome { hold: true, .. } => {
                self.run_stateful(&Stateful::Leaves, statement).await
            }
            CursorStatement::DeclareAtHome { .. } => self.run_one(home, statement).await,
            CursorStatement::Declare(declare) => self.declare(declare, statement).await,
            CursorStatement::Move(moved) => {
                self.open_portal(moved.name.as_bytes()).await?;
                if self.has_cursor(moved.name.as_bytes()) {
                    return self.move_cursor(moved, statement).await;
                }
                let portal = self.session.portals.get(moved.name.as_bytes());
                let shard = portal.and_then(|portal| portal.shard).unwrap_or(home);
                self.run_one(shard, statement).await
            }
            CursorStatement::Close(Some(name))
                if let Some(portal) = self.session.portals.remove(name.as_bytes()) =>
            {
                if let Some(shard) = portal.shard {
                    return self.run_one(shard, statement).await;
                }
                self.close_cursor(name.as_bytes()).await?;
                self.client.complete("CLOSE CURSOR");
                Ok(())
            }
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
                self.session.portals.clear();
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
        if statement.portal.is_none()
            && let Some(number) = pgherd_planner::parameters(statement.sql).first()
        {
            // PostgreSQL says where.
            self.run_one(self.planning.map.home, statement).await?;
            return Err(ErrorInfo::new("42P02", format!("there is no parameter ${number}")).into());
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
        portal.run.set(Run::InPortions);
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

    /// A portal of the protocol's that is bound over several shards, and not executed yet, is a
    /// cursor from its first FETCH on.
    async fn open_portal(&mut self, name: &[u8]) -> Result<(), Failure> {
        let bound = |portal: &&Rc<Portal>| {
            portal.shard.is_none()
                && portal.run.get() == Run::NotYet
                && portal.statement.plan.kind == StatementKind::Select
        };
        let Some(portal) = self.session.portals.get(name).filter(bound).cloned() else {
            return Ok(());
        };
        portal.run.set(Run::InPortions);
        let cursor = self.open_cursor(&portal, false).await?;
        self.keep_cursor(name, cursor);
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
    fn query_of(&self, declare: &Declare, statement: Statement<'_>) -> Result<Rc<Portal>, Failure> {
        let sql = declare.query.of(statement.sql);
        let types = statement.portal.map_or(&[][..], |portal| &portal.statement.types);
        let parameters = statement.portal.map(Portal::params).transpose()?;
        let parameters = parameters.map_or(&[0, 0, 0, 0][..], |params| params.tail.parameters);
        let format = if declare.binary { [0, 1, 0, 1] } else { [0, 1, 0, 0] };
        let tail = [parameters, &format[..]].concat();
        Ok(self.portal_of(sql, &declare.plan, types, &tail))
    }

    /// A query of the router's own making as a bound statement.
    pub(super) fn portal_of(
        &self,
        sql: &str,
        plan: &Plan,
        types: &[u8],
        tail: &[u8],
    ) -> Rc<Portal> {
        let mut scanned = Scan::default();
        scan(sql.as_bytes(), 0, self.planning.seed, &mut scanned);
        let id = statement_id(sql, types, self.planning.map.epoch);
        let prepared = Prepared {
            sql: sql.into(),
            types: types.into(),
            params: None,
            id,
            server_name: format!("pgherd_{id:032x}").into_bytes().into(),
            seed: None,
            plan: Rc::new(plan.clone()),
            literals: scanned.literals.into_boxed_slice(),
            foreign: OnceCell::new(),
            columns: OnceCell::new(),
        };
        debug_assert!(BindTail::new(tail).is_ok());
        Rc::new(Portal::new(Rc::new(prepared), true, tail.into()).encoded(self.planning.encoding))
    }

    async fn move_cursor(&mut self, moved: &Move, statement: Statement<'_>) -> Result<(), Failure> {
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
        let described = self.client.out.len();
        let stepped = match wanted {
            None => self.take_step(name, moved.step, true).await,
            Some(formats) => self.step_in_formats(name, moved.step, &formats).await,
        };
        if stepped.is_err()
            && let Some(before) = described.checked_sub(columns.len())
            && statement.portal.is_none()
            && self.client.out.get(before..described) == Some(&*columns)
        {
            // PostgreSQL has all rows of a FETCH before it sends the first of them.
            self.client.out.truncate(before);
        }
        let rows = stepped?;
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
}

fn known(name: &str) -> ErrorInfo {
    ErrorInfo::new("42P03", format!("cursor \"{name}\" already exists"))
}
