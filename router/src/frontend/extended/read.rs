//! Messages of a pipeline, read one by one: what each does to the session, and where it must run.

use std::borrow::Cow;
use std::rc::Rc;

use pgherd_planner::{Action, CursorStatement, SessionStatement};
use pgherd_shard_map::ShardId;

use super::Op;
use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Route};
use crate::pool::Server;
use crate::session::{Portal, Prepared};
use crate::wire::frontend::{BindTail, Named};
use crate::wire::{self, HEADER, frontend};

impl Conn {
    /// One message and the shard that it runs on (`None`: the router does it).
    pub(super) fn read_op(
        &mut self,
        tag: u8,
        size: usize,
    ) -> Result<(Op, Option<ShardId>), Failure> {
        let frame = self.client.inbuf[HEADER..size].to_vec();
        let body = match self.planning.encoding {
            None => Cow::Borrowed(frame.as_slice()),
            Some(encoding) => encoding.decode_message(tag, &frame)?,
        };
        let body = &*body;
        let protocol = |error: wire::Malformed| Failure::Statement(error.into());
        let home = self.planning.map.home;
        match tag {
            b'P' => {
                let message = frontend::parse(body).map_err(protocol)?;
                let prepared = self.prepare(message.query, message.types)?;
                if let Err(refused) = self.refuse_if_failed(&prepared.plan.action) {
                    if message.name.is_empty() {
                        // PostgreSQL has forgotten it by then.
                        self.session.statements.remove(message.name);
                    }
                    return Err(refused);
                }
                let shard = self.statement_home(&prepared);
                if !message.name.is_empty() && self.session.statements.contains_key(message.name) {
                    let name = String::from_utf8_lossy(message.name);
                    return Err(ErrorInfo::new(
                        "42P05",
                        format!("prepared statement \"{name}\" already exists"),
                    )
                    .into());
                }
                let name: Box<[u8]> = message.name.into();
                let replaced = self.session.statements.insert(name.clone(), Rc::clone(&prepared));
                let unnamed = name.is_empty();
                Ok((Op::Parse { statement: prepared, unnamed, name, replaced }, shard))
            }
            b'B' => {
                let message = frontend::bind(body).map_err(protocol)?;
                let statement = self.statement(message.statement)?;
                self.refuse_if_failed(&statement.plan.action)?;
                if self.session.transaction.failed()
                    && matches!(statement.plan.action, Action::Empty)
                {
                    return Err(ErrorInfo::failed_block().into());
                }
                let unnamed = message.statement.is_empty();
                let bound = BindTail::new(message.tail).map_err(protocol)?.count();
                if let Some(wanted) =
                    statement.params.filter(|wanted| usize::from(*wanted) != bound)
                {
                    let name = String::from_utf8_lossy(message.statement);
                    return Err(ErrorInfo::protocol(format!(
                        "bind message supplies {bound} parameters, but prepared statement \
                         \"{name}\" requires {wanted}"
                    ))
                    .into());
                }
                let known = self.session.portals.contains_key(message.portal)
                    || self.has_cursor(message.portal);
                if known && !message.portal.is_empty() {
                    let name = String::from_utf8_lossy(message.portal);
                    let message = format!("cursor \"{name}\" already exists");
                    return Err(ErrorInfo::new("42P03", message).into());
                }
                let mut portal = Portal::new(statement, unnamed, message.tail.into())
                    .within(&self.session.transaction)
                    .encoded(self.planning.encoding);
                let statement = &portal.statement;
                let route = {
                    let params = portal.params()?;
                    self.route(&statement.plan, &statement.sql, &statement.literals, &params)?
                };
                if let Route::One(shard) = route {
                    portal.shard = Some(shard);
                }
                let portal = Rc::new(portal);
                let shard = portal.shard;
                self.session.portals.insert(message.portal.into(), Rc::clone(&portal));
                Ok((Op::Bind { portal, name: message.portal.into() }, shard))
            }
            b'D' => match frontend::named("DESCRIBE", body).map_err(protocol)? {
                Named::Statement(name) => {
                    let statement = self.statement(name)?;
                    self.refuse_rows_if_failed(&statement)?;
                    let local = self.statement_home(&statement).is_none();
                    let unnamed = name.is_empty();
                    let op = Op::DescribeStatement { statement, unnamed };
                    Ok((op, (!local).then_some(home)))
                }
                Named::Portal(name) => {
                    let portal = match self.portal(name) {
                        Ok(portal) => portal,
                        // SQL may have declared it.
                        Err(_) if self.has_cursor(name) => {
                            return Ok((Op::DescribeCursor { name: name.into() }, None));
                        }
                        Err(_) if self.may_have_cursors_at_home() => {
                            return Ok((Op::DescribeCursor { name: name.into() }, Some(home)));
                        }
                        Err(failure) => return Err(failure),
                    };
                    self.refuse_rows_if_failed(&portal.statement)?;
                    let shard = portal.shard;
                    Ok((Op::DescribePortal { portal, name: name.into() }, shard))
                }
            },
            b'E' => {
                let (name, limit) = frontend::execute(body).map_err(protocol)?;
                let portal = match self.query_of_cursor(name) {
                    Some(query) if !self.session.portals.contains_key(name) => query,
                    _ => self.portal(name)?,
                };
                // Where the router has failed the transaction itself, the server would run it.
                self.refuse_if_failed(&portal.statement.plan.action)?;
                let shard = portal.shard;
                Ok((Op::Execute { portal, name: name.into(), limit }, shard))
            }
            _ => match frontend::named("CLOSE", body).map_err(protocol)? {
                Named::Statement(name) => {
                    let closed = self.session.statements.remove(name);
                    Ok((Op::CloseStatement { name: name.into(), closed }, None))
                }
                Named::Portal(name) => {
                    let shard = self.session.portals.remove(name).and_then(|portal| portal.shard);
                    Ok((Op::ClosePortal { name: name.into() }, shard))
                }
            },
        }
    }

    /// PostgreSQL describes no rows in a transaction that has failed.
    fn refuse_rows_if_failed(&self, statement: &Prepared) -> Result<(), Failure> {
        match statement.returns_rows() {
            true => self.refuse_if_failed(&statement.plan.action),
            false => Ok(()),
        }
    }

    fn portal(&self, name: &[u8]) -> Result<Rc<Portal>, Failure> {
        self.session.portals.get(name).cloned().ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            ErrorInfo::new("34000", format!("portal \"{name}\" does not exist")).into()
        })
    }

    /// Whether the home shard's server may have a cursor that SQL has declared.
    fn may_have_cursors_at_home(&self) -> bool {
        let home = self.planning.map.home;
        let holds = |server: &Server| server.shard == home && (server.joined || server.kept);
        self.servers.iter().any(holds)
    }

    /// Where a statement is parsed while its keys are not known: the home shard, or nowhere.
    fn statement_home(&self, statement: &Prepared) -> Option<ShardId> {
        match &statement.plan.action {
            Action::Session(SessionStatement::Show(name)) if !name.starts_with("pgherd.") => {
                Some(self.planning.map.home)
            }
            Action::Session(_) | Action::Cluster(_) | Action::Empty => None,
            Action::Cursor(cursor) => match cursor {
                CursorStatement::Move(moved) if self.has_cursor(moved.name.as_bytes()) => None,
                _ => Some(self.planning.map.home),
            },
            _ => Some(self.planning.map.home),
        }
    }
}
