//! Runs plans. The executor obeys: which shards and which text, the plan says; how the answer
//! reaches the client, these files do.
//!
//! A [`Conn`] is one client with everything that works for it. Servers are checked out when a
//! statement first needs their shard and stay until the transaction ends (autocommit: until the
//! statement does). In a transaction block a shard *joins* by getting the client's BEGIN and what
//! has been set since, in the same write as its first statement. A statement that writes on
//! several shards outside a block gets one of the router's own (`Block::implicit`), so it commits
//! on all of them or on none.
//!
//! - `relay`: one shard, bytes passed on as they come. The hot path.
//! - `many`: several shards, merged. `ordered`, `ranked`: sorted rows. `combine`, `grouped`: partial
//!   aggregates. `insert`: rows by their keys. `gather`: rows made at home, `own_sequences` with the
//!   numbers of a sequence that is new.
//! - `columns`: what prepared statements return, and go on returning.
//! - `borrow`: copies of rows, and PostgreSQL over them. `broadcast`: copies of small tables on the
//!   shards of a large one. `informed`: writes with copies of what they read. `carried`: MERGE with
//!   rows of other shards. `spelled`: rows as a WITH query.
//! - `steps`: WITH queries that write on several shards.
//! - `pulled`: what shards are asked for rows that are copied.
//! - `forms`: what keeps rows from going between servers as text.
//! - `rekey`: UPDATEs that change distribution columns, so that rows move.
//! - `commit`: the end of a transaction, on one shard or by two-phase commit.
//! - `consistent`: snapshots of several shards that tear no transaction.
//! - `copy`: COPY of several shards, in and out. `cluster`: create_distributed_table and its kin.
//! - `live`: transactions between the phases of their commit, on all shards.
//! - `alone`: statements that refuse transactions. `numbered`: columns that sequences fill.
//! - `yielding`: schema changes that wait for locks give way to others.
//! - `turned`: statements that a shard has turned away since their rows move.
//! - `concurrently`: a table distributed while it is used.
//! - `held`: statements that wait for the end of create_distributed_table.
//! - `kept`: servers that stay beyond a transaction. `touched`: servers whose settings a function has
//!   changed. `settings`, `set`: the session's own statements.
//! - `cursor`: rows that the client takes in portions.
//! - `observed`: counters and the log of slow statements. `released`: servers that are done.
//! - `encoded`: clients that do not speak UTF-8.
//! - `explain`: the distributed plan with the shards' own.

mod alone;
mod borrow;
mod broadcast;
mod carried;
mod cluster;
mod columns;
mod combine;
mod commit;
mod concurrently;
mod consistent;
mod copy;
mod cursor;
mod drawn;
mod encoded;
mod explain;
mod followed;
mod forms;
mod gather;
mod grouped;
mod held;
mod informed;
mod insert;
mod kept;
mod live;
mod many;
mod numbered;
mod observed;
mod ordered;
mod own_sequences;
mod prepared;
mod pulled;
mod ranked;
mod refused;
mod rekey;
mod relay;
mod released;
mod servers;
mod set;
mod settings;
mod source;
mod spelled;
mod steps;
mod streamed;
mod touched;
mod turned;
mod unnamed;
mod yielding;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgherd_planner::{
    Access, Action, CursorStatement, HighBytes, Literal, OneShard, Otherwise, ParamValue, Params,
    Plan, Scan, ShardSet, StatementKind, Target,
};
use pgherd_shard_map::ShardId;
use smallvec::SmallVec;

use crate::client::Client;
use crate::error::{ErrorInfo, Failure};
use crate::pool::server::Reply;
use crate::pool::{Login, Server, Ticket};
use crate::session::{Block, BoundParams, Portal, Session, Transaction};
use crate::wire::backend;
use crate::wire::reply::ReplyScanner;
use crate::worker::{Cancel, Planning, Worker};
pub use broadcast::Copies;
pub use cluster::cluster_column;
pub use encoded::check_encoding;
pub use kept::Kept;
pub use relay::{Ready, RelayEnd};
pub use settings::runs_in_block;

/// One client, its session and the servers that work for it.
pub struct Conn {
    pub client: Client,
    pub session: Session,
    pub servers: SmallVec<[Server; 1]>,
    pub worker: Rc<Worker>,
    pub login: Login,
    pub cancel: Rc<Cancel>,
    pub scanner: ReplyScanner,
    /// What goes to a server next; kept for its memory.
    pub request: Vec<u8>,
    pub planning: Planning,
    /// How many characters of the client's string come before the statement in hand; `None`: it does
    /// not stand there.
    pub statement_at: Option<u32>,
    /// Of the last error that was relayed.
    pub last_sqlstate: [u8; 5],
    /// Whether the statement in hand may be run again on another shard.
    turning: Option<Box<turned::Turning>>,
    /// Since when a statement is run piece by piece.
    running: Option<Instant>,
    /// Admission to hold connections of several shards.
    ticket: Option<Ticket>,
    /// Servers that stay beyond a transaction, if any do.
    pub kept: Option<Box<Kept>>,
    /// Rows that the client takes in portions, if it does.
    cursors: Option<Box<cursor::Cursors>>,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("session", &self.session).finish_non_exhaustive()
    }
}

/// A statement, however it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    pub sql: &'a str,
    /// The same as the client has written it, with its semicolon: servers show it, and complain of it.
    pub written: Option<&'a str>,
    pub plan: &'a Plan,
    pub literals: &'a [Literal],
    /// Bound parameters and result formats; the simple protocol has neither.
    pub portal: Option<&'a Portal>,
    /// Rows that go to the shards with it.
    pub copies: Option<&'a Copies>,
}

impl<'a> Statement<'a> {
    /// A portal's, with its values.
    fn bound(portal: &'a Portal) -> Self {
        let statement = &portal.statement;
        let (sql, literals) = (&statement.sql, &statement.literals);
        let plan = &statement.plan;
        Self { sql, written: None, plan, literals, portal: Some(portal), copies: None }
    }

    /// What a server gets that runs it as it is.
    fn written(&self) -> &'a str {
        self.written.unwrap_or(self.sql)
    }

    /// Its parameters, for the planner.
    fn params(&self) -> Result<StatementParams<'a>, ErrorInfo> {
        self.portal.map(Portal::params).transpose().map(StatementParams)
    }
}

/// Those of a portal, or none.
struct StatementParams<'a>(Option<BoundParams<'a>>);

impl Params for StatementParams<'_> {
    fn param(&self, number: u16) -> Option<ParamValue<'_>> {
        self.0.as_ref()?.param(number)
    }

    fn high_bytes(&self) -> Option<&HighBytes> {
        self.0.as_ref()?.high_bytes()
    }
}

/// Where a statement goes, once its keys are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    One(ShardId),
    /// Anything else: `run_statement` looks at the plan.
    Other,
}

impl Conn {
    #[must_use]
    pub fn new(
        client: Client,
        session: Session,
        worker: Rc<Worker>,
        login: Login,
        cancel: Rc<Cancel>,
        planning: Planning,
    ) -> Self {
        Self {
            client,
            session,
            servers: SmallVec::new(),
            worker,
            login,
            cancel,
            scanner: ReplyScanner::default(),
            request: Vec::new(),
            planning,
            statement_at: Some(0),
            running: None,
            last_sqlstate: *b"00000",
            turning: None,
            ticket: None,
            kept: None,
            cursors: None,
        }
    }

    /// What a server said beside its reply to a statement of the client.
    fn pass_on_asides(&mut self, at: usize, reply: &mut Reply) {
        self.client.out.append(&mut reply.notices);
        self.session.news = Some(Rc::clone(&self.servers[at].parameters));
    }

    /// Brings `self.planning` up to date with map and settings: a transaction that has changed the
    /// schema plans with a map of its own, any other with the router's newest.
    pub fn refresh_planning(&mut self) {
        let own = self.session.transaction.block().and_then(|block| block.map.as_ref());
        let same_map = match own {
            Some(map) => Arc::ptr_eq(map, &self.planning.map),
            None => self.worker.is_newest(&self.planning.map),
        };
        let Session { settings, temporary, .. } = &self.session;
        let private = own.is_some();
        // A map that a commit has made everybody's is the same one.
        let same_map = same_map && self.planning.is_private() == private;
        if !same_map || !self.planning.is_of(settings, temporary) {
            let map = own.map_or_else(|| self.worker.map(), Arc::clone);
            self.planning = Planning::new(map, settings, &self.login.user, temporary, private);
        }
    }

    /// Whether the map has changed since the statement in hand was planned: it may have waited for
    /// a connection meanwhile.
    pub fn is_planned_late(&self) -> bool {
        let own = self.session.transaction.block().is_some_and(|block| block.map.is_some());
        !own && !self.worker.is_newest(&self.planning.map)
    }

    /// The plan of one scanned statement.
    ///
    /// # Errors
    /// The planner's.
    pub fn find_plan(&self, sql: &str, scan: &Scan) -> Result<Rc<Plan>, Failure> {
        let auto = &self.worker.live.borrow().auto_distribute;
        let (planning, user) = (&self.planning, &self.login.user);
        let plan = self.worker.plans.borrow_mut().find(sql, scan, planning, user, auto);
        let plan = plan.map_err(|error| Failure::of_plan(error, sql))?;
        if let Some(encoding) = planning.encoding {
            let passes = encoded::refuse_own_texts(&plan, encoding);
            passes.map_err(|error| Failure::of_plan(error, sql))?;
        }
        Ok(plan)
    }

    /// The plan of a SELECT whose keys name several shards, which it cannot run on each by itself.
    pub(super) fn plan_borrowed(&self, statement: Statement<'_>) -> Result<Plan, Failure> {
        let auto = &self.worker.live.borrow().auto_distribute;
        let plan = pgherd_planner::plan_borrowed(statement.sql, &self.planning.context(auto))?;
        Ok(Plan { consistency: statement.plan.consistency, ..plan })
    }

    /// The one shard of a plan that is relayed, if it has one.
    ///
    /// # Errors
    /// What the planner says of a key that it cannot place.
    pub fn route(
        &self,
        plan: &Plan,
        sql: &str,
        literals: &[Literal],
        params: &dyn Params,
    ) -> Result<Route, Failure> {
        match plan.touches {
            None => self.place(plan, sql, literals, params),
            // Its servers are asked afterwards what they have become.
            Some(_) => Ok(Route::Other),
        }
    }

    /// [`Self::route`], also of what is more than a relay.
    pub(super) fn place(
        &self,
        plan: &Plan,
        sql: &str,
        literals: &[Literal],
        params: &dyn Params,
    ) -> Result<Route, Failure> {
        let Action::One(OneShard { target, otherwise }) = &plan.action else {
            return Ok(self.route_of_cursor(plan));
        };
        if let Target::Home = target {
            return Ok(Route::One(self.planning.map.home));
        }
        match target.resolve(&self.planning.map, sql.as_bytes(), literals, params)? {
            ShardSet::Home => Ok(Route::One(self.planning.map.home)),
            ShardSet::Any => Ok(Route::One(self.any_shard())),
            ShardSet::Some(shards) if shards.len() == 1 => Ok(Route::One(shards[0])),
            _ if otherwise.is_some() => Ok(Route::Other),
            _ => Err(ErrorInfo::new("0A000", "the statement names keys of several shards")
                .detail("Its shape can only be run on the one shard that holds its key.")
                .hint("Run one statement per key.")
                .into()),
        }
    }

    /// A cursor that the router does not know is one of the home shard's server, or none at all.
    fn route_of_cursor(&self, plan: &Plan) -> Route {
        let name = match &plan.action {
            Action::Cursor(cursor) => match cursor {
                CursorStatement::DeclareAtHome { name, hold: false } => name,
                CursorStatement::Move(moved) => &moved.name,
                _ => return Route::Other,
            },
            _ => return Route::Other,
        };
        let portal = self.session.portals.get(name.as_bytes());
        match portal.map(|portal| portal.shard) {
            _ if self.has_cursor(name.as_bytes()) => Route::Other,
            // A portal of the protocol's.
            Some(Some(shard))
                if matches!(&plan.action, Action::Cursor(CursorStatement::Move(_))) =>
            {
                Route::One(shard)
            }
            Some(_) => Route::Other,
            None => Route::One(self.planning.map.home),
        }
    }

    /// A shard for what any shard can answer: one that the transaction uses already, else home.
    fn any_shard(&self) -> ShardId {
        self.servers.first().map_or(self.planning.map.home, |server| server.shard)
    }

    /// The shards of a target, as [`Self::shard_list`] has them.
    fn shards_of(
        &self,
        target: &Target,
        statement: Statement<'_>,
    ) -> Result<Vec<ShardId>, Failure> {
        let (map, sql) = (&self.planning.map, statement.sql.as_bytes());
        let set = target.resolve(map, sql, statement.literals, &statement.params()?)?;
        Ok(self.shard_list(&set))
    }

    /// All shards that a set names, ascending, the home shard first where all are meant.
    fn shard_list(&self, set: &ShardSet) -> Vec<ShardId> {
        let map = &self.planning.map;
        match set {
            ShardSet::Home => vec![map.home],
            ShardSet::Any => vec![self.any_shard()],
            ShardSet::Some(shards) => shards.to_vec(),
            ShardSet::All => {
                let others = map.shards().map(|shard| shard.id).filter(|id| *id != map.home);
                std::iter::once(map.home).chain(others).collect()
            }
        }
    }

    /// Keeps a request's memory for the next one, unless it has grown.
    pub fn keep_request(&mut self, request: Vec<u8>) {
        if request.capacity() <= 4096 {
            self.request = request;
        }
    }

    /// Tells the client of parameters that a server has changed where the client could not see it:
    /// the end of a transaction brings back what was set inside.
    pub fn report_parameters(&mut self) {
        let Some(news) = self.session.news.take() else { return };
        for (name, value) in news.iter() {
            let told = self.session.reported.iter().find(|(other, _)| other == name);
            if told.is_some_and(|(_, told)| told != value) && !is_fixed(name) {
                backend::parameter_status(&mut self.client.out, name, value);
            }
        }
        self.session.reported = news;
    }

    /// Opens a block of the router's own around what touches several shards.
    pub fn open_implicit(&mut self) {
        if matches!(self.session.transaction, Transaction::Idle) {
            let settings = Rc::clone(&self.session.settings);
            self.session.transaction =
                Transaction::Open(Box::new(Block::new("BEGIN", true, settings)));
        }
    }

    /// Runs one statement that is not a plain relay to one shard. Everything but ReadyForQuery is
    /// written to the client.
    ///
    /// # Errors
    /// A [`Failure`] that has not been told to the client yet.
    pub async fn run_statement(&mut self, statement: Statement<'_>) -> Result<(), Failure> {
        match &statement.plan.touches {
            None => self.run_untouched(statement).await,
            Some(touches) => Box::pin(self.run_touching(touches, statement)).await,
        }
    }

    async fn run_untouched(&mut self, statement: Statement<'_>) -> Result<(), Failure> {
        let alone = matches!(self.session.transaction, Transaction::Idle);
        let mut attempts = 0;
        loop {
            let before = (self.client.sent, self.client.out.len());
            match self.run_once(statement).await {
                Ok(Ran::Done) => return Ok(()),
                Ok(Ran::Turned) => {}
                Err(failure) => {
                    let alone = alone && (self.client.sent, self.client.out.len()) == before;
                    if Box::pin(self.was_turned_everywhere(&failure, alone)).await {
                        continue;
                    }
                    if !alone {
                        return Err(failure);
                    }
                    attempts += 1;
                    if Box::pin(self.stepped_aside(&failure, statement.plan, attempts)).await {
                        continue;
                    }
                    if statement.plan.access != Access::Schema {
                        return Err(failure);
                    }
                    Box::pin(self.yield_to_others(failure, attempts)).await?;
                }
            }
        }
    }

    async fn run_once(&mut self, statement: Statement<'_>) -> Result<Ran, Failure> {
        let plan = statement.plan;
        if let Some(portal) = statement.portal {
            self.check_bound(portal)?;
        }
        match &plan.action {
            Action::Empty => self.client.out.extend_from_slice(backend::EMPTY_QUERY),
            Action::Session(session) => self.run_session(session, statement).await?,
            Action::Stateful(state) => self.run_stateful(state, statement).await?,
            Action::Cluster(call) => self.run_cluster(call, statement).await?,
            Action::Live(live) => Box::pin(self.run_live(live, statement)).await?,
            Action::Explain(explain) => {
                Box::pin(self.run_explain(explain, statement)).await?;
            }
            Action::Cursor(cursor) => Box::pin(self.run_cursor(cursor, statement)).await?,
            Action::Role(role) => self.run_role(role, statement).await?,
            Action::CopyIn(copy) => self.copy_in(copy, statement).await?,
            Action::CopyOut(copy) => self.copy_out(copy, statement).await?,
            Action::CopyQuery(copy) => Box::pin(self.copy_query(copy, statement)).await?,
            Action::Insert(insert) => self.run_split_insert(insert, statement).await?,
            Action::Informed(informed) => {
                Box::pin(self.run_informed(informed, statement)).await?;
            }
            Action::Steps(steps) => Box::pin(self.run_steps(steps, statement)).await?,
            Action::MadeTable(made) => Box::pin(self.run_made_table(made, statement)).await?,
            Action::Carried(carried) => Box::pin(self.run_carried(carried, statement)).await?,
            Action::Gather(gather) => Box::pin(self.run_gather(gather, statement)).await?,
            Action::Borrow(borrow) => {
                if plan.access == Access::Schema {
                    self.open_implicit();
                }
                Box::pin(self.run_borrowed(borrow, statement)).await?;
                if plan.access == Access::Schema {
                    Box::pin(self.schema_changed()).await?;
                }
            }
            Action::Many(many) => match &plan.then {
                None => self.run_many(many, statement).await?,
                Some(then) => Box::pin(self.run_followed(many, then, statement)).await?,
            },
            Action::One(one) => {
                let params = statement.params()?;
                match self.place(plan, statement.sql, statement.literals, &params)? {
                    Route::One(shard) => return self.run_at(shard, statement, true).await,
                    Route::Other => match one.otherwise.as_deref() {
                        Some(Otherwise::Many(many)) => self.run_many(many, statement).await?,
                        Some(Otherwise::Borrow) => {
                            let plan = self.plan_borrowed(statement)?;
                            let statement = Statement { plan: &plan, ..statement };
                            return Box::pin(self.run_once(statement)).await;
                        }
                        None => {}
                    },
                }
            }
        }
        Ok(Ran::Done)
    }

    /// One statement on one shard, without its ReadyForQuery.
    pub(super) async fn run_one(
        &mut self,
        shard: ShardId,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.run_at(shard, statement, false).await.map(drop)
    }

    /// `again`: it can be run again elsewhere, if the shard turns it away.
    async fn run_at(
        &mut self,
        shard: ShardId,
        statement: Statement<'_>,
        again: bool,
    ) -> Result<Ran, Failure> {
        let at = self.server_for(shard).await?;
        if again && self.is_planned_late() {
            self.release();
            self.refresh_planning();
            return Ok(Ran::Turned);
        }
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        self.scanner.reset();
        let hidden = self.put_join(at, &mut request);
        self.put_statement(&mut request, shard, statement.written(), statement.portal);
        self.expect_statement(statement.portal);
        if again {
            self.may_turn(at, hidden, 0);
        }
        let end = self.relay(at, &request, hidden, Ready::Keep, statement.plan).await;
        self.request = request;
        let end = end?;
        self.servers[at].note_answer();
        if self.was_turned(at).await.is_some() {
            return Ok(Ran::Turned);
        }
        if end.failed {
            return Err(Failure::Told);
        }
        Ok(Ran::Done)
    }
}

/// What has become of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ran {
    Done,
    /// Nothing of it has been done, and the map has changed.
    Turned,
}

/// Parameters that no statement changes; shards may differ in them.
fn is_fixed(name: &str) -> bool {
    matches!(name, "server_version" | "server_encoding" | "integer_datetimes" | "in_hot_standby")
}

/// The verb of a command tag that the router makes itself.
#[must_use]
pub fn verb(kind: StatementKind) -> &'static str {
    match kind {
        StatementKind::Insert => "INSERT 0",
        StatementKind::Update => "UPDATE",
        StatementKind::Delete => "DELETE",
        StatementKind::Merge => "MERGE",
        StatementKind::Copy => "COPY",
        _ => "SELECT",
    }
}
