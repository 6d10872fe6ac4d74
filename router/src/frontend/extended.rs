//! The extended protocol: messages up to Sync or Flush are one pipeline.
//!
//! Each message is read into an [`Op`] with the place where it must run. A pipeline whose messages
//! all belong to one shard, the usual case, is sent there in one write with the statements'
//! names replaced, and its reply is relayed. Any other is run piece by piece inside one
//! transaction, as PostgreSQL treats a pipeline: an error undoes all of it.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Buf;
use pgherd_planner::{Access, Action, Plan, Scan, scan};
use pgherd_shard_map::ShardId;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Ready, Route, Statement};
use crate::session::{Portal, Prepared};
use crate::wire::frontend::Named;
use crate::wire::reply::Expect;
use crate::wire::{self, HEADER, backend, frontend};

/// One message of a pipeline.
#[derive(Debug)]
enum Op {
    Parse(Rc<Prepared>),
    Bind { portal: Rc<Portal>, name: Box<[u8]> },
    DescribeStatement(Rc<Prepared>),
    DescribePortal { portal: Rc<Portal>, name: Box<[u8]> },
    Execute { portal: Rc<Portal>, name: Box<[u8]>, limit: i32 },
    CloseStatement,
    ClosePortal { name: Box<[u8]> },
}

/// Messages of one pipeline at most; more are refused instead of buffered.
const OPS_MAX: usize = 100_000;

impl Conn {
    /// Reads messages up to Sync or Flush and runs them.
    pub(super) async fn pipeline(&mut self) -> Result<(), Failure> {
        let mut ops: Vec<(Op, Option<ShardId>)> = Vec::new();
        let mut failure = None;
        let sync = loop {
            let frame = wire::whole(&self.client.inbuf)
                .map_err(|error| Failure::Fatal(ErrorInfo::protocol(error.to_string())))?;
            let Some((tag, size)) = frame else {
                self.client.fill().await?;
                continue;
            };
            match tag {
                b'S' | b'H' => {
                    self.client.inbuf.advance(size);
                    break tag == b'S';
                }
                b'P' | b'B' | b'D' | b'E' | b'C' => {
                    let skipped = self.session.skip_to_sync || failure.is_some();
                    if !skipped {
                        if ops.len() >= OPS_MAX {
                            return Err(Failure::Fatal(ErrorInfo::new(
                                "54000",
                                "too many messages in one pipeline",
                            )));
                        }
                        self.refresh_planning();
                        match self.read_op(tag, size) {
                            Ok(op) => ops.push(op),
                            Err(error) => failure = Some(error),
                        }
                    }
                    self.client.inbuf.advance(size);
                }
                // Anything else in mid-pipeline: run what came before it.
                _ => break false,
            }
        };
        self.session.in_pipeline = true;
        let ran = self.run_pipeline(ops, failure, sync).await;
        self.session.in_pipeline = false;
        ran
    }

    /// One message and the shard that it runs on (`None`: the router does it).
    fn read_op(&mut self, tag: u8, size: usize) -> Result<(Op, Option<ShardId>), Failure> {
        let frame = self.client.inbuf[HEADER..size].to_vec();
        let body = frame.as_slice();
        let protocol =
            |error: wire::Malformed| Failure::Statement(ErrorInfo::protocol(error.to_string()));
        let home = self.planning.map.home;
        match tag {
            b'P' => {
                let message = frontend::parse(body).map_err(protocol)?;
                let prepared = Rc::new(self.prepare(message)?);
                let shard = self.statement_home(&prepared);
                if !message.name.is_empty() && self.session.statements.contains_key(message.name) {
                    let name = String::from_utf8_lossy(message.name);
                    return Err(ErrorInfo::new(
                        "42P05",
                        format!("prepared statement \"{name}\" already exists"),
                    )
                    .into());
                }
                self.session.statements.insert(message.name.into(), Rc::clone(&prepared));
                Ok((Op::Parse(prepared), shard))
            }
            b'B' => {
                let message = frontend::bind(body).map_err(protocol)?;
                let statement = self.statement(message.statement)?;
                let plan = self.fresh_plan(&statement)?;
                self.refuse_if_failed(&plan.action)?;
                let mut portal = Portal { statement, tail: message.tail.into(), shard: None };
                let statement = &portal.statement;
                let route = {
                    let params = portal.params()?;
                    self.route(&plan, &statement.sql, &statement.literals, &params)?
                };
                if let Route::One(shard) = route {
                    portal.shard = Some(shard);
                }
                let portal = Rc::new(portal);
                let shard = portal.shard;
                self.session.portals.insert(message.portal.into(), Rc::clone(&portal));
                Ok((Op::Bind { portal, name: message.portal.into() }, shard))
            }
            b'D' => match frontend::named(body).map_err(protocol)? {
                Named::Statement(name) => {
                    let statement = self.statement(name)?;
                    let local = self.statement_home(&statement).is_none();
                    Ok((Op::DescribeStatement(statement), (!local).then_some(home)))
                }
                Named::Portal(name) => {
                    let portal = self.portal(name)?;
                    let shard = portal.shard;
                    Ok((Op::DescribePortal { portal, name: name.into() }, shard))
                }
            },
            b'E' => {
                let (name, limit) = frontend::execute(body).map_err(protocol)?;
                let portal = self.portal(name)?;
                let shard = portal.shard;
                Ok((Op::Execute { portal, name: name.into(), limit }, shard))
            }
            _ => match frontend::named(body).map_err(protocol)? {
                Named::Statement(name) => {
                    self.session.statements.remove(name);
                    Ok((Op::CloseStatement, None))
                }
                Named::Portal(name) => {
                    let shard = self.session.portals.remove(name).and_then(|portal| portal.shard);
                    Ok((Op::ClosePortal { name: name.into() }, shard))
                }
            },
        }
    }

    fn prepare(&self, message: frontend::Parse<'_>) -> Result<Prepared, Failure> {
        let mut scanned = Scan::default();
        let sql = message.query.trim_end().trim_end_matches(';');
        let end = scan(sql.as_bytes(), 0, self.planning.seed, &mut scanned);
        if end < sql.len() && !sql[end..].trim().is_empty() {
            return Err(ErrorInfo::new(
                "42601",
                "cannot insert multiple commands into a prepared statement",
            )
            .into());
        }
        let plan = self.find_plan(sql, &scanned)?;
        self.refuse_if_failed(&plan.action)?;
        let mut key = Vec::with_capacity(sql.len() + message.types.len() + 1);
        key.extend_from_slice(message.types);
        key.push(0);
        key.extend_from_slice(sql.as_bytes());
        Ok(Prepared {
            sql: sql.into(),
            types: message.types.into(),
            id: xxh3_128(&key),
            plan: RefCell::new(plan),
            literals: scanned.literals.into_boxed_slice(),
            unnamed: message.name.is_empty(),
        })
    }

    /// The statement's plan for the map of now: the map may have changed since Parse.
    fn fresh_plan(&self, statement: &Prepared) -> Result<Rc<Plan>, Failure> {
        let plan = Rc::clone(&statement.plan.borrow());
        if plan.epoch == self.planning.map.epoch {
            return Ok(plan);
        }
        let mut scanned = Scan::default();
        scan(statement.sql.as_bytes(), 0, self.planning.seed, &mut scanned);
        let plan = self.find_plan(&statement.sql, &scanned)?;
        *statement.plan.borrow_mut() = Rc::clone(&plan);
        Ok(plan)
    }

    fn statement(&self, name: &[u8]) -> Result<Rc<Prepared>, Failure> {
        self.session.statements.get(name).cloned().ok_or_else(|| {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                let name = String::from_utf8_lossy(name);
                format!("prepared statement \"{name}\" does not exist")
            };
            ErrorInfo::new("26000", message).into()
        })
    }

    fn portal(&self, name: &[u8]) -> Result<Rc<Portal>, Failure> {
        self.session.portals.get(name).cloned().ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            ErrorInfo::new("34000", format!("portal \"{name}\" does not exist")).into()
        })
    }

    /// Where a statement is parsed while its keys are not known: the home shard, or nowhere.
    fn statement_home(&self, statement: &Prepared) -> Option<ShardId> {
        match &statement.plan.borrow().action {
            Action::Session(_) | Action::Cluster(_) | Action::Empty | Action::Explain(_) => None,
            _ => Some(self.planning.map.home),
        }
    }

    async fn run_pipeline(
        &mut self,
        mut ops: Vec<(Op, Option<ShardId>)>,
        failure: Option<Failure>,
        sync: bool,
    ) -> Result<(), Failure> {
        place_parses(&mut ops);
        let one = match ops.first() {
            Some((_, Some(shard))) if failure.is_none() && sync => {
                ops.iter().all(|(_, other)| *other == Some(*shard)).then_some(*shard)
            }
            _ => None,
        };
        let implicit = self.session.transaction.block().is_some_and(|block| block.implicit);
        if let (Some(shard), false) = (one, implicit) {
            match self.send_ops(shard, &ops, Ready::Pass).await {
                Ok(_) => {
                    self.release();
                    return Ok(());
                }
                Err(failure) => self.tell(failure)?,
            }
            return self.end_pipeline(true).await;
        }
        self.session.copy_ended = false;
        let ran = self.run_pieces(ops, sync).await;
        // A Sync that came with a COPY FROM STDIN was a part of its data, as PostgreSQL has it.
        let sync = sync && !std::mem::take(&mut self.session.copy_ended);
        if let Err(failure) = ran {
            self.tell(failure)?;
            self.session.skip_to_sync = true;
        } else if let Some(failure) = failure {
            self.tell(failure)?;
            self.session.skip_to_sync = true;
        }
        self.end_pipeline(sync).await
    }

    /// Sync ends the router's own block; Flush only sends what there is.
    async fn end_pipeline(&mut self, sync: bool) -> Result<(), Failure> {
        if sync {
            if self.session.skip_to_sync
                && let Some(block) = self.session.transaction.block_mut()
            {
                block.failed = true;
            }
            self.session.skip_to_sync = false;
            if let Err(failure) = self.end_implicit().await {
                self.tell(failure)?;
            }
            self.release();
            self.ready();
        }
        self.client.flush().await?;
        Ok(())
    }

    /// Runs consecutive messages of one shard together, the router's own one by one.
    async fn run_pieces(
        &mut self,
        ops: Vec<(Op, Option<ShardId>)>,
        sync: bool,
    ) -> Result<(), Failure> {
        let executes = ops.iter().filter(|(op, _)| matches!(op, Op::Execute { .. })).count();
        let alone = executes <= 1 && sync;
        let mut at = 0;
        while at < ops.len() {
            let shard = ops[at].1;
            let end = match shard {
                None => at + 1,
                Some(_) => at + ops[at..].iter().take_while(|(_, other)| *other == shard).count(),
            };
            match shard {
                Some(shard) => {
                    let runs = ops[at..end].iter().any(|(op, _)| matches!(op, Op::Bind { .. }));
                    if runs && !alone {
                        self.open_implicit();
                    }
                    let ended = self.send_ops(shard, &ops[at..end], Ready::Keep).await?;
                    if ended {
                        return Err(Failure::Told);
                    }
                }
                None => {
                    let op = &ops[at].0;
                    let copy = matches!(op, Op::Execute { portal, .. }
                        if matches!(portal.statement.plan.borrow().action, Action::CopyIn(_)));
                    if copy && end < ops.len() {
                        return Err(ErrorInfo::protocol(
                            "unexpected message during COPY from stdin",
                        )
                        .into());
                    }
                    self.run_op(op, alone).await?;
                }
            }
            at = end;
        }
        Ok(())
    }

    /// Sends messages of one shard and relays the replies. `true` when one was an error.
    async fn send_ops(
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
        let mut plan = None;
        for (op, _) in ops {
            let statement = match op {
                Op::Parse(statement) | Op::DescribeStatement(statement) => Some(statement),
                Op::Bind { portal, .. } => Some(&portal.statement),
                _ => None,
            };
            if let Some(statement) = statement {
                let asked = matches!(op, Op::Parse(_));
                let known = if statement.unnamed {
                    unnamed == Some(statement.id) && !asked
                } else {
                    self.servers[at].statements.contains(&statement.id)
                        || parsed.contains(&statement.id)
                };
                if known && asked {
                    self.scanner.expects.push_back(Expect::KnownParse);
                } else if !known {
                    let name = statement.server_name();
                    frontend::put_parse(&mut request, &name, &statement.sql, &statement.types);
                    let expect = if asked { Expect::Parse } else { Expect::HiddenParse };
                    self.scanner.expects.push_back(expect);
                    if statement.unnamed {
                        unnamed = Some(statement.id);
                        parsed.push(0);
                    } else {
                        parsed.push(statement.id);
                    }
                }
            }
            match op {
                Op::Parse(_) => {}
                Op::Bind { portal, name } => {
                    put_bind(&mut request, portal, name);
                    self.scanner.expects.push_back(Expect::Bind);
                    plan = Some(Rc::clone(&portal.statement.plan.borrow()));
                }
                Op::DescribeStatement(statement) => {
                    frontend::put_describe(&mut request, b'S', &statement.server_name());
                    self.scanner.expects.push_back(Expect::Describe);
                }
                Op::DescribePortal { name, .. } => {
                    frontend::put_describe(&mut request, b'P', name);
                    self.scanner.expects.push_back(Expect::Describe);
                }
                Op::Execute { name, limit, portal } => {
                    frontend::put_execute(&mut request, name, *limit);
                    self.scanner.expects.push_back(Expect::Execute);
                    plan = Some(Rc::clone(&portal.statement.plan.borrow()));
                }
                Op::CloseStatement => self.scanner.expects.push_back(Expect::KnownClose),
                Op::ClosePortal { name } => {
                    frontend::put_close(&mut request, b'P', name);
                    self.scanner.expects.push_back(Expect::Close);
                }
            }
        }
        request.extend_from_slice(frontend::SYNC);
        let nothing = Rc::new(nothing_planned(self.planning.map.epoch));
        let plan = plan.unwrap_or(nothing);
        let started = self.worker.metrics.start();
        let end = self.relay(at, &request, hidden, ready, &plan).await;
        if request.capacity() <= 4096 {
            self.request = request;
        }
        let end = end?;
        self.worker.metrics.statement(plan.kind, plan.tier(), Some(shard), started);
        let confirmed = self.scanner.parsed.min(parsed.len());
        let server = &mut self.servers[at];
        server.statements.extend(parsed[..confirmed].iter().copied().filter(|id| *id != 0));
        // Statements are never closed one by one: a server that has too many starts afresh.
        server.spoiled |= !server.has_room() && server.status == b'I';
        if end.failed && plan.access == Access::Read {
            // A prepared statement may have failed because the schema has changed under it.
            server.spoiled |= server.status == b'I' && !parsed.is_empty();
        }
        Ok(end.failed)
    }

    /// One message that no single shard can answer.
    async fn run_op(&mut self, op: &Op, alone: bool) -> Result<(), Failure> {
        match op {
            Op::Parse(_) => self.client.out.extend_from_slice(backend::PARSE_COMPLETE),
            Op::Bind { .. } => self.client.out.extend_from_slice(backend::BIND_COMPLETE),
            Op::CloseStatement | Op::ClosePortal { .. } => {
                self.client.out.extend_from_slice(backend::CLOSE_COMPLETE);
            }
            Op::DescribeStatement(statement) => {
                self.client.out.extend_from_slice(backend::NO_PARAMETERS);
                self.describe_own(&statement.plan.borrow());
            }
            Op::DescribePortal { portal, .. } => {
                let own = matches!(
                    portal.statement.plan.borrow().action,
                    Action::Session(_)
                        | Action::Cluster(_)
                        | Action::Empty
                        | Action::Explain(_)
                        | Action::CopyIn(_)
                        | Action::CopyOut(_)
                );
                if own {
                    let plan = Rc::clone(&portal.statement.plan.borrow());
                    self.describe_own(&plan);
                } else {
                    // Bound on the home shard for its description only: nothing runs.
                    let home = self.planning.map.home;
                    let name: Box<[u8]> = b""[..].into();
                    let ops = [
                        (Op::Bind { portal: Rc::clone(portal), name: name.clone() }, Some(home)),
                        (Op::DescribePortal { portal: Rc::clone(portal), name }, Some(home)),
                    ];
                    self.describe_at_home(&ops).await?;
                }
            }
            Op::Execute { portal, limit, .. } => {
                let copies = matches!(
                    portal.statement.plan.borrow().action,
                    Action::CopyIn(_) | Action::CopyOut(_)
                );
                // PostgreSQL ignores it for COPY.
                if *limit > 0 && !copies {
                    return Err(ErrorInfo::new(
                        "0A000",
                        "row limits are not supported for statements that touch several shards",
                    )
                    .hint("Execute the portal without a row limit.")
                    .into());
                }
                let statement = Rc::clone(&portal.statement);
                let plan = self.fresh_plan(&statement)?;
                self.refuse_if_failed(&plan.action)?;
                if !alone && !matches!(plan.action, Action::Session(_)) {
                    self.open_implicit();
                }
                let started = self.worker.metrics.start();
                Box::pin(self.run_statement(Statement {
                    sql: &statement.sql,
                    plan: &plan,
                    literals: &statement.literals,
                    portal: Some(portal),
                }))
                .await?;
                self.worker.metrics.statement(plan.kind, plan.tier(), None, started);
            }
        }
        Ok(())
    }

    /// Binds and describes on the home shard; the client sees the description only.
    async fn describe_at_home(&mut self, ops: &[(Op, Option<ShardId>)]) -> Result<(), Failure> {
        let home = self.planning.map.home;
        let [(Op::Bind { portal, .. }, _), ..] = ops else { return Ok(()) };
        let at = self.server_for(home).await?;
        let mut request = Vec::new();
        let hidden = self.put_join(at, &mut request);
        let statement = &portal.statement;
        frontend::put_parse(&mut request, b"", &statement.sql, &statement.types);
        put_bind(&mut request, portal, b"");
        request.extend_from_slice(frontend::DESCRIBE_UNNAMED_PORTAL);
        request.extend_from_slice(frontend::SYNC);
        if let Err(error) = self.servers[at].send(&request).await {
            return Err(self.lost(at, &error));
        }
        for round in 0..=hidden {
            let reply = match self.servers[at].collect().await {
                Ok(reply) => reply,
                Err(error) => return Err(self.lost(at, &error)),
            };
            if let Some(error) = reply.error {
                return Err(Failure::Shard(error));
            }
            if round == hidden {
                match reply.description {
                    Some(description) => self.client.out.extend_from_slice(&description),
                    None => self.client.out.extend_from_slice(backend::NO_DATA),
                }
            }
        }
        Ok(())
    }

    /// The columns of what the router answers itself.
    fn describe_own(&mut self, plan: &Plan) {
        use pgherd_planner::SessionStatement;
        let out = &mut self.client.out;
        match &plan.action {
            Action::Session(SessionStatement::Show(name)) => backend::text_columns(out, &[name]),
            Action::Cluster(call) => {
                backend::text_columns(out, &[crate::executor::cluster_column(call)]);
            }
            Action::Explain(_) => backend::text_columns(out, &["QUERY PLAN"]),
            _ => out.extend_from_slice(backend::NO_DATA),
        }
    }
}

fn put_bind(request: &mut Vec<u8>, portal: &Portal, name: &[u8]) {
    let statement = portal.statement.server_name();
    frontend::put_bind(request, name, &statement, &portal.tail, &[]);
}

/// A Parse goes where its statement's first Bind in the same pipeline goes.
fn place_parses(ops: &mut [(Op, Option<ShardId>)]) {
    for at in 0..ops.len() {
        let (Op::Parse(statement) | Op::DescribeStatement(statement)) = &ops[at].0 else {
            continue;
        };
        let bound = ops[at..].iter().find_map(|(op, shard)| match op {
            Op::Bind { portal, .. } if Rc::ptr_eq(&portal.statement, statement) => Some(*shard),
            _ => None,
        });
        match bound {
            Some(Some(shard)) => ops[at].1 = Some(shard),
            // Its execution is the router's work, which parses it anew on each shard.
            Some(None) if matches!(ops[at].0, Op::Parse(_)) => ops[at].1 = None,
            _ => {}
        }
    }
    // A Close of a statement is answered by the router, in its place: it goes with its neighbour.
    for at in 0..ops.len() {
        if matches!(ops[at].0, Op::CloseStatement) {
            let neighbour =
                if at > 0 { ops[at - 1].1 } else { ops.get(at + 1).and_then(|op| op.1) };
            ops[at].1 = neighbour;
        }
    }
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
