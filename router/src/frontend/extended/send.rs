//! Messages of one shard: sent in one write, their replies relayed.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use pgherd_planner::{Access, Action, Plan};
use pgherd_shard_map::ShardId;

use super::Op;
use crate::error::Failure;
use crate::executor::{Conn, Ready};
use crate::pool::Server;
use crate::session::{Portal, Prepared};
use crate::wire::frontend;
use crate::wire::reply::Expect;

/// What a server was sent of a pipeline.
#[derive(Default)]
pub(super) struct Sent {
    /// The statements of its Parse messages in order; `0` for the unnamed one.
    parsed: Vec<u128>,
    /// The last statement that runs.
    pub(super) ran: Option<Rc<Prepared>>,
    /// What the unnamed statement is, once it was parsed in this pipeline.
    unnamed: Option<u128>,
    /// Those whose columns the server is asked for, unseen by the client.
    described: Vec<Rc<Prepared>>,
}

/// What has become of messages that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Done,
    /// One was answered with an error, which was passed on.
    Failed,
    /// Nothing of them has been done: their rows are another shard's now.
    Turned,
}

/// Whether nothing that runs was bound before.
fn is_whole(ops: &[(Op, Option<ShardId>)]) -> bool {
    let bound = |wanted: &Rc<Portal>| {
        ops.iter()
            .any(|(op, _)| matches!(op, Op::Bind { portal, .. } if Rc::ptr_eq(portal, wanted)))
    };
    ops.iter().all(|(op, _)| match op {
        Op::Execute { portal, .. } | Op::DescribePortal { portal, .. } => bound(portal),
        Op::DescribeCursor { .. } => false,
        _ => true,
    })
}

impl Conn {
    /// Sends messages of one shard and relays the replies. `again`: they can be run again elsewhere.
    pub(super) async fn send_ops(
        &mut self,
        shard: ShardId,
        ops: &[(Op, Option<ShardId>)],
        ready: Ready,
        again: bool,
    ) -> Result<Sending, Failure> {
        let at = self.server_for(shard).await?;
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        self.scanner.reset();
        let hidden = self.put_join(at, &mut request);
        let mut sent = Sent::default();
        for (op, _) in ops {
            sent.put(op, &self.servers[at], &mut request, &mut self.scanner.expects);
        }
        request.extend_from_slice(frontend::SYNC);
        let nothing = nothing_planned(self.planning.map.epoch, Access::Read);
        let plan = sent.ran.as_ref().map_or(&nothing, |statement| &*statement.plan);
        let started = self.worker.metrics.start();
        if again && is_whole(ops) {
            self.may_turn(at, hidden, 0);
        }
        let end = self.relay(at, &request, hidden, ready, plan).await;
        self.keep_request(request);
        if end.is_ok() && self.is_turned() {
            sent.keep_statements(self.scanner.parsed, &mut self.servers[at]);
            self.was_turned(at).await;
            return Ok(Sending::Turned);
        }
        let sql = sent.ran.as_ref().map_or(&[][..], |statement| statement.sql.as_bytes());
        self.observe(plan, shard, started, sql);
        let end = end?;
        sent.keep_statements(self.scanner.parsed, &mut self.servers[at]);
        let described = std::mem::take(&mut self.scanner.described);
        self.keep_columns(at, &sent, &described).await;
        self.forget_stale_statements(at, end.failed);
        Ok(if end.failed { Sending::Failed } else { Sending::Done })
    }

    /// What the server was asked unseen.
    pub(super) async fn keep_columns(&self, at: usize, sent: &Sent, described: &[Bytes]) {
        for (statement, frame) in sent.described.iter().zip(described) {
            self.note_columns(at, statement, frame.clone()).await;
        }
    }

    /// "cached plan must not change result type": the schema has changed under a statement that
    /// the server keeps. It forgets all of these.
    pub(super) fn forget_stale_statements(&mut self, at: usize, failed: bool) {
        if failed && self.last_sqlstate == *b"0A000" {
            self.servers[at].forget = true;
        }
    }
}

impl Sent {
    /// Appends what the server gets for one message, and what its replies will be.
    pub(super) fn put(
        &mut self,
        op: &Op,
        server: &Server,
        request: &mut Vec<u8>,
        expects: &mut VecDeque<Expect>,
    ) {
        match op {
            Op::Parse { statement, unnamed, .. } => {
                let known = !unnamed && self.knows(server, statement);
                if known {
                    expects.push_back(Expect::KnownParse);
                } else {
                    self.parse(statement, *unnamed, server.shard, request);
                    expects.push_back(Expect::Parse);
                }
                if !unnamed {
                    self.ask_columns(statement, false, request, expects);
                }
            }
            Op::Bind { portal, name } => {
                self.need(&portal.statement, portal.unnamed, server, request, expects);
                put_bind(request, portal, name, server.shard);
                expects.push_back(Expect::Bind);
                self.ran = Some(Rc::clone(&portal.statement));
            }
            Op::DescribeStatement { statement, unnamed } => {
                self.need(statement, *unnamed, server, request, expects);
                self.ask_columns(statement, *unnamed, request, expects);
                frontend::put_describe(request, b'S', statement.name(*unnamed));
                expects.push_back(Expect::Describe);
            }
            Op::DescribePortal { name, .. } | Op::DescribeCursor { name } => {
                frontend::put_describe(request, b'P', name);
                expects.push_back(Expect::Describe);
            }
            Op::Execute { name, limit, portal } => {
                frontend::put_execute(request, name, *limit);
                expects.push_back(Expect::Execute);
                self.ran = Some(Rc::clone(&portal.statement));
            }
            Op::CloseStatement { .. } => expects.push_back(Expect::KnownClose),
            Op::ClosePortal { name } => {
                frontend::put_close(request, b'P', name);
                expects.push_back(Expect::Close);
            }
        }
    }

    /// A statement that the client takes for prepared is prepared, unseen by it.
    fn need(
        &mut self,
        statement: &Prepared,
        unnamed: bool,
        server: &Server,
        request: &mut Vec<u8>,
        expects: &mut VecDeque<Expect>,
    ) {
        let known = match unnamed {
            true => self.unnamed == Some(statement.id),
            false => self.knows(server, statement),
        };
        if !known {
            self.parse(statement, unnamed, server.shard, request);
            expects.push_back(Expect::HiddenParse);
        }
    }

    /// Whoever prepares a statement for more than once, or has it described, may be told later that
    /// its columns are others.
    fn ask_columns(
        &mut self,
        statement: &Rc<Prepared>,
        unnamed: bool,
        request: &mut Vec<u8>,
        expects: &mut VecDeque<Expect>,
    ) {
        let asked = |known: &Rc<Prepared>| Rc::ptr_eq(known, statement);
        if statement.lacks_columns() && !self.described.iter().any(asked) {
            frontend::put_describe(request, b'S', statement.name(unnamed));
            expects.push_back(Expect::HiddenDescribe);
            self.described.push(Rc::clone(statement));
        }
    }

    fn knows(&self, server: &Server, statement: &Prepared) -> bool {
        server.statements.contains(&statement.id) || self.parsed.contains(&statement.id)
    }

    fn parse(
        &mut self,
        statement: &Prepared,
        unnamed: bool,
        shard: ShardId,
        request: &mut Vec<u8>,
    ) {
        let name = statement.name(unnamed);
        frontend::put_parse(request, name, &statement.sql, statement.types_on(shard));
        if unnamed {
            self.unnamed = Some(statement.id);
            self.parsed.push(0);
        } else {
            self.parsed.push(statement.id);
        }
    }

    /// The server has answered so many Parse messages: it keeps these statements.
    pub(super) fn keep_statements(&self, confirmed: usize, server: &mut Server) {
        let confirmed = confirmed.min(self.parsed.len());
        server.statements.extend(self.parsed[..confirmed].iter().copied().filter(|id| *id != 0));
        // Statements are never closed one by one: a server that has too many forgets them all.
        server.forget |= !server.has_room();
    }
}

fn put_bind(request: &mut Vec<u8>, portal: &Portal, name: &[u8], shard: ShardId) {
    let statement = portal.statement.name(portal.unnamed);
    frontend::put_bind(request, name, statement, &portal.tail_on(shard), &[]);
}

/// For messages that no plan was made for.
pub(in crate::frontend) fn nothing_planned(epoch: pgherd_shard_map::Epoch, access: Access) -> Plan {
    Plan {
        epoch,
        access,
        reuse: pgherd_planner::Reuse::Once,
        action: Action::Empty,
        kind: pgherd_planner::StatementKind::Utility,
        then: None,
        place: 0,
        consistency: None,
        touches: None,
    }
}
