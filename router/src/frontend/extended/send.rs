//! Messages of one shard: sent in one write, their replies relayed.

use std::rc::Rc;

use pgherd_planner::{Access, Action, Plan};
use pgherd_shard_map::ShardId;

use super::Op;
use crate::error::Failure;
use crate::executor::{Conn, Ready};
use crate::session::{Portal, Prepared};
use crate::wire::frontend;
use crate::wire::reply::Expect;

impl Conn {
    /// Sends messages of one shard and relays the replies. `true` when one was an error.
    pub(super) async fn send_ops(
        &mut self,
        shard: ShardId,
        ops: &[(Op, Option<ShardId>)],
        ready: Ready,
    ) -> Result<bool, Failure> {
        let at = self.server_for(shard).await?;
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        self.scanner.reset();
        let hidden = self.put_join(at, &mut request);
        let mut parsed: Vec<u128> = Vec::new();
        let mut unnamed: Option<u128> = None;
        let mut ran: Option<Rc<Prepared>> = None;
        for (op, _) in ops {
            let statement = match op {
                Op::Parse { statement, unnamed } | Op::DescribeStatement { statement, unnamed } => {
                    Some((statement, *unnamed))
                }
                Op::Bind { portal, .. } => Some((&portal.statement, portal.unnamed)),
                _ => None,
            };
            if let Some((statement, is_unnamed)) = statement {
                let asked = matches!(op, Op::Parse { .. });
                let known = if is_unnamed {
                    unnamed == Some(statement.id) && !asked
                } else {
                    self.servers[at].statements.contains(&statement.id)
                        || parsed.contains(&statement.id)
                };
                if known && asked {
                    self.scanner.expects.push_back(Expect::KnownParse);
                } else if !known {
                    let name = statement.name(is_unnamed);
                    frontend::put_parse(&mut request, name, &statement.sql, &statement.types);
                    let expect = if asked { Expect::Parse } else { Expect::HiddenParse };
                    self.scanner.expects.push_back(expect);
                    if is_unnamed {
                        unnamed = Some(statement.id);
                        parsed.push(0);
                    } else {
                        parsed.push(statement.id);
                    }
                }
            }
            match op {
                Op::Parse { .. } => {}
                Op::Bind { portal, name } => {
                    put_bind(&mut request, portal, name);
                    self.scanner.expects.push_back(Expect::Bind);
                    ran = Some(Rc::clone(&portal.statement));
                }
                Op::DescribeStatement { statement, unnamed } => {
                    frontend::put_describe(&mut request, b'S', statement.name(*unnamed));
                    self.scanner.expects.push_back(Expect::Describe);
                }
                Op::DescribePortal { name, .. } => {
                    frontend::put_describe(&mut request, b'P', name);
                    self.scanner.expects.push_back(Expect::Describe);
                }
                Op::Execute { name, limit, portal } => {
                    frontend::put_execute(&mut request, name, *limit);
                    self.scanner.expects.push_back(Expect::Execute);
                    ran = Some(Rc::clone(&portal.statement));
                }
                Op::CloseStatement => self.scanner.expects.push_back(Expect::KnownClose),
                Op::ClosePortal { name } => {
                    frontend::put_close(&mut request, b'P', name);
                    self.scanner.expects.push_back(Expect::Close);
                }
            }
        }
        request.extend_from_slice(frontend::SYNC);
        let nothing = nothing_planned(self.planning.map.epoch);
        let plan = ran.as_ref().map_or(&nothing, |statement| &*statement.plan);
        let started = self.worker.metrics.start();
        let end = self.relay(at, &request, hidden, ready, plan).await;
        self.keep_request(request);
        let end = end?;
        let sql = ran.as_ref().map_or(&[][..], |statement| statement.sql.as_bytes());
        self.observe(plan, Some(shard), started, sql);
        let confirmed = self.scanner.parsed.min(parsed.len());
        let server = &mut self.servers[at];
        server.statements.extend(parsed[..confirmed].iter().copied().filter(|id| *id != 0));
        // Statements are never closed one by one: a server that has too many forgets them all.
        server.forget |= !server.has_room();
        self.forget_stale_statements(at, end.failed);
        Ok(end.failed)
    }

    /// "cached plan must not change result type": the schema has changed under a statement that
    /// the server keeps. It forgets all of these.
    pub(super) fn forget_stale_statements(&mut self, at: usize, failed: bool) {
        if failed && self.last_sqlstate == *b"0A000" {
            self.servers[at].forget = true;
        }
    }
}

fn put_bind(request: &mut Vec<u8>, portal: &Portal, name: &[u8]) {
    let statement = portal.statement.name(portal.unnamed);
    frontend::put_bind(request, name, statement, &portal.tail, &[]);
}

fn nothing_planned(epoch: pgherd_shard_map::Epoch) -> Plan {
    Plan {
        epoch,
        access: Access::Read,
        reuse: pgherd_planner::Reuse::Once,
        action: Action::Empty,
        kind: pgherd_planner::StatementKind::Utility,
        then: None,
    }
}
