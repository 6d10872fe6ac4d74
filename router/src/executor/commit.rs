//! The end of a transaction: a plain COMMIT where one shard wrote, two-phase commit where more did.
//!
//! Two-phase commit as `docs/architecture.md` draws it: one participant is the decider; every
//! participant gets a marker row, all but the decider are prepared, then the decider's own COMMIT
//! makes its marker visible, and that is the decision. Three serial round trips, three serial
//! fsyncs, no log outside the shards. The steps are decided by [`crate::two_phase`], whose
//! coordinator is a pure machine; here they are only sent.

use std::rc::Rc;
use std::sync::Arc;

use pgherd_shard_map::ShardId;
use smallvec::{SmallVec, smallvec};

use super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::pool::Server;
use crate::recovery;
use crate::session::{Block, Transaction};
use crate::telemetry::Outcome;
use crate::two_phase::{Aborting, Answer, Decided, Gid, Participant, Preparing, Request};
use crate::wire::{backend, frontend};

impl Conn {
    /// The client's COMMIT.
    pub(super) async fn commit(&mut self, and_chain: bool) -> Result<(), Failure> {
        self.need_own_block(and_chain, "COMMIT AND CHAIN")?;
        let Some(block) = self.session.transaction.block() else {
            self.client.complete("COMMIT");
            return Ok(());
        };
        let begin = block.begin.clone();
        if block.failed {
            self.roll_back_all().await;
            self.chain(and_chain, &begin);
            self.client.complete("ROLLBACK");
            return Ok(());
        }
        self.commit_all().await?;
        self.chain(and_chain, &begin);
        self.client.complete("COMMIT");
        Ok(())
    }

    pub(super) async fn roll_back(&mut self, and_chain: bool) -> Result<(), Failure> {
        self.need_own_block(and_chain, "ROLLBACK AND CHAIN")?;
        let begin = self.session.transaction.block().map(|block| block.begin.clone());
        if let Some(begin) = begin {
            self.roll_back_all().await;
            self.chain(and_chain, &begin);
        }
        self.client.complete("ROLLBACK");
        Ok(())
    }

    /// Outside the client's own block the end of one is worth a warning, and no chain follows it;
    /// the router's block, what came before in a string or a pipeline, does end.
    fn need_own_block(&mut self, and_chain: bool, what: &str) -> Result<(), Failure> {
        if self.session.transaction.block().is_some_and(|block| !block.implicit) {
            return Ok(());
        }
        if and_chain {
            let message = format!("{what} can only be used in transaction blocks");
            return Err(ErrorInfo::new("25P01", message).into());
        }
        let notice = ErrorInfo::new("25P01", "there is no transaction in progress");
        backend::notice_response(&mut self.client.out, "WARNING", &notice);
        Ok(())
    }

    fn chain(&mut self, and_chain: bool, begin: &str) {
        if and_chain {
            let settings = Rc::clone(&self.session.settings);
            self.session.transaction =
                Transaction::Open(Box::new(Block::new(begin, false, settings)));
        }
    }

    /// Rolls back everywhere. Cannot fail: a server that does not answer is closed, and that rolls
    /// back, too.
    pub async fn roll_back_all(&mut self) {
        for server in &mut self.servers {
            if server.joined {
                let rolled_back = match server.status {
                    0 => false,
                    _ => server.run("ROLLBACK").await.is_ok_and(|reply| reply.error.is_none()),
                };
                server.spoiled |= !rolled_back;
                server.joined = false;
            }
        }
        if let Transaction::Open(block) = std::mem::take(&mut self.session.transaction) {
            // What was set inside is gone on the servers, too: they are where they joined.
            self.session.settings = block.settings;
        }
        self.note_parameters();
        self.session.portals.clear();
        self.look_again().await;
        self.release();
    }

    /// The client will hear of parameters that the end of the transaction has changed.
    fn note_parameters(&mut self) {
        // One that stays unused beside the transaction may have older ones.
        let settings = &self.session.settings;
        let told = |server: &&Server| !server.spoiled && Rc::ptr_eq(&server.settings, settings);
        let server = self.servers.iter().find(told);
        self.session.news = server.map(|server| Rc::clone(&server.parameters));
    }

    /// Commits everywhere, atomically.
    ///
    /// # Errors
    /// What made it fail; then everything is rolled back, unless it is 08007.
    pub async fn commit_all(&mut self) -> Result<(), Failure> {
        let schema_changed =
            self.session.transaction.block().is_some_and(|block| block.schema_changed);
        let mut writers: Vec<usize> = (0..self.servers.len())
            .filter(|at| self.servers[*at].joined && self.servers[*at].wrote)
            .collect();
        // The first decides and is the only one that is not prepared. PREPARE TRANSACTION refuses
        // what has to do with temporary tables, NOTIFY and cursors WITH HOLD: all of it is at home.
        let home = self.planning.map.home;
        writers.sort_by_key(|at| self.servers[*at].shard != home);
        let two_phase = writers.len() > 1 && !self.planning.one_phase;
        let mut result = self.end_readers(&writers).await;
        if result.is_ok() {
            result = if two_phase {
                self.commit_two_phase(&writers).await
            } else {
                self.commit_each(&writers).await
            };
        }
        if let Err(failure) = result {
            self.roll_back_all().await;
            return Err(failure);
        }
        if let Transaction::Open(block) = std::mem::take(&mut self.session.transaction) {
            // What was SET LOCAL is gone, the rest is there to stay, here as on the servers.
            self.session.settings = Rc::clone(&block.lasting);
            for server in self.servers.iter_mut().filter(|server| server.joined) {
                server.settings = Rc::clone(&block.lasting);
                server.joined = false;
            }
        }
        self.note_parameters();
        self.session.portals.clear();
        self.look_again().await;
        self.release();
        if schema_changed {
            self.wait_for_map().await;
        }
        Ok(())
    }

    /// COMMIT where nothing was written, before any writer's: if it fails, nothing has happened.
    async fn end_readers(&mut self, writers: &[usize]) -> Result<(), Failure> {
        let readers: SmallVec<[usize; 4]> = (0..self.servers.len())
            .filter(|at| !writers.contains(at) && self.servers[*at].joined)
            .collect();
        let mut request = Vec::new();
        frontend::put_query(&mut request, "COMMIT");
        for at in &readers {
            if let Err(error) = self.servers[*at].send(&request).await {
                return Err(self.lost(*at, &error));
            }
        }
        let (mut failure, mut told) = (None, false);
        for at in readers {
            match self.servers[at].collect().await {
                Ok(mut reply) => {
                    if writers.is_empty() && !std::mem::replace(&mut told, true) {
                        self.pass_on_asides(at, &mut reply);
                    }
                    failure = failure.or_else(|| reply.error.map(Failure::Shard));
                }
                Err(error) => failure = Some(self.lost(at, &error)),
            }
            self.servers[at].joined = false;
            if let Some(block) = self.session.transaction.block() {
                self.servers[at].settings = Rc::clone(&block.lasting);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// A plain COMMIT on each shard that was written on: one, unless the client wants it so.
    async fn commit_each(&mut self, writers: &[usize]) -> Result<(), Failure> {
        for at in writers {
            self.step(*at, "COMMIT").await?;
        }
        Ok(())
    }

    /// One step of a commit on one server.
    async fn step(&mut self, at: usize, sql: &str) -> Result<(), Failure> {
        match self.servers[at].run(sql).await {
            Ok(mut reply) => match reply.error.take() {
                None if self.servers[at].status == b'I' || sql != "COMMIT" => {
                    self.pass_on_asides(at, &mut reply);
                    Ok(())
                }
                None => Err(ErrorInfo::new("40000", "the transaction was rolled back").into()),
                Some(error) => Err(Failure::Shard(error)),
            },
            Err(error) if sql == "COMMIT" => {
                let shard = self.servers[at].shard;
                self.lost(at, &error);
                Err(ErrorInfo::new(
                    "08007",
                    format!("the connection to shard {shard} was lost during COMMIT"),
                )
                .detail("The transaction may or may not have been committed.")
                .into())
            }
            Err(error) => Err(self.lost(at, &error)),
        }
    }
}

/// What one participant answered, and the error that a client would be told.
struct Answered {
    participant: Participant,
    answer: Answer,
    failure: Option<Failure>,
}

/// Commit over several shards: [`crate::two_phase`] decides, this sends and listens.
impl Conn {
    async fn commit_two_phase(&mut self, writers: &[usize]) -> Result<(), Failure> {
        let decider = self.servers[writers[0]].shard;
        let settings = &self.worker.shared.settings;
        let random =
            (u128::from(self.worker.random_u64()) << 64) | u128::from(self.worker.random_u64());
        let gid = Gid::new(&settings.database, decider, &settings.router_name, random);

        let mut preparing = Preparing::new(writers.len());
        let requests: Vec<_> = preparing.requests().collect();
        let mut failure = None;
        for answered in self.ask_all(&gid, writers, &requests).await {
            preparing.answered(answered.participant, answered.answer);
            failure = failure.or(answered.failure);
        }
        let deciding = match preparing.end() {
            Ok(deciding) => deciding,
            Err(aborting) => return Err(self.abort(&gid, writers, &aborting, failure).await),
        };
        let answered = self.ask_all(&gid, writers, &[deciding.request()]).await.pop();
        let (answer, failure) = match answered {
            Some(answered) => (answered.answer, answered.failure),
            None => (Answer::Lost, None),
        };
        let mut decided = deciding.answered(answer);
        if let Decided::InDoubt(doubt) = decided {
            decided = doubt.looked_up(self.look_up(decider, &gid).await);
        }
        match decided {
            Decided::Committed(finishing) => {
                let requests: Vec<_> = finishing.requests().collect();
                for answered in self.ask_all(&gid, writers, &requests).await {
                    if answered.answer != Answer::Done {
                        let server = &mut self.servers[writers[answered.participant]];
                        server.spoiled = true;
                        tracing::warn!(shard = %server.shard, %gid, "second phase left to recovery");
                    }
                }
                self.worker.metrics.two_phase(Outcome::Committed);
                Ok(())
            }
            Decided::Aborted(aborting) => Err(self.abort(&gid, writers, &aborting, failure).await),
            Decided::InDoubt(_) => {
                for at in writers {
                    self.servers[*at].spoiled = true;
                }
                self.worker.metrics.two_phase(Outcome::Unknown);
                Err(ErrorInfo::new("08007", "transaction resolution unknown")
                    .detail(format!(
                        "The connection to shard {decider} was lost while it committed the \
                         transaction, and it cannot be asked now. Its gid is {gid}."
                    ))
                    .hint(
                        "It will be committed or rolled back on all shards; the row of this gid \
                         in pgherd.tx on the deciding shard says which.",
                    )
                    .into())
            }
        }
    }

    /// Tells the participants of the abort. What the client is told: `failure`.
    async fn abort(
        &mut self,
        gid: &Gid,
        writers: &[usize],
        aborting: &Aborting,
        failure: Option<Failure>,
    ) -> Failure {
        for answered in self.ask_all(gid, writers, aborting.requests()).await {
            let block = self.session.transaction.block();
            // What was prepared has left the settings that were set inside, and no way back.
            let set = block.is_some_and(|block| !Rc::ptr_eq(&block.settings, &block.lasting));
            let server = &mut self.servers[writers[answered.participant]];
            server.spoiled |= answered.answer == Answer::Lost || set;
            server.joined = false;
        }
        self.worker.metrics.two_phase(Outcome::Aborted);
        failure.unwrap_or_else(|| ErrorInfo::new("40000", "the transaction was rolled back").into())
    }

    /// Sends all requests, then listens for all answers: the shards work at the same time.
    async fn ask_all(
        &mut self,
        gid: &Gid,
        writers: &[usize],
        requests: &[(Participant, Request)],
    ) -> Vec<Answered> {
        let shards: Vec<String> =
            writers.iter().map(|at| self.servers[*at].shard.to_string()).collect();
        let participants = shards.join(",");
        let mut answers = Vec::with_capacity(requests.len());
        let mut sent = Vec::with_capacity(requests.len());
        for (participant, request) in requests {
            let at = writers[*participant];
            let statements = statements(*request, gid, &participants);
            let mut bytes = Vec::new();
            for statement in &statements {
                frontend::put_query(&mut bytes, statement);
            }
            match self.servers[at].send(&bytes).await {
                Ok(()) => sent.push((*participant, *request, statements.len())),
                Err(error) => {
                    let failure = Some(self.lost(at, &error));
                    let participant = *participant;
                    answers.push(Answered { participant, answer: Answer::Lost, failure });
                }
            }
        }
        for (participant, request, replies) in sent {
            let (answer, failure) = self.hear(writers[participant], request, replies).await;
            answers.push(Answered { participant, answer, failure });
        }
        answers
    }

    /// The replies to one request.
    async fn hear(
        &mut self,
        at: usize,
        request: Request,
        replies: usize,
    ) -> (Answer, Option<Failure>) {
        let wanted = match request {
            Request::Mark => "INSERT 0 1",
            Request::MarkAndPrepare => "PREPARE TRANSACTION",
            Request::Commit => "COMMIT",
            Request::RollBack => "ROLLBACK",
            Request::RollBackPrepared => "ROLLBACK PREPARED",
            Request::CommitPrepared(_) => "COMMIT PREPARED",
        };
        let mut failure = None;
        let mut tag = String::new();
        for _ in 0..replies {
            match self.servers[at].collect().await {
                Ok(mut reply) => {
                    failure = failure.or_else(|| reply.error.map(Failure::Shard));
                    tag = reply.tags.pop().unwrap_or_default();
                }
                Err(error) => return (Answer::Lost, Some(self.lost(at, &error))),
            }
        }
        match failure {
            None if tag == wanted => (Answer::Done, None),
            failure => (Answer::Refused, failure),
        }
    }

    /// Asks the decider over a new connection, as recovery does; a few times, since the session
    /// that was lost may still hold the marker.
    async fn look_up(&self, decider: ShardId, gid: &Gid) -> Option<bool> {
        let shared = &self.worker.shared;
        let dsn = self.planning.map.shard(decider).map(|shard| shard.dsn.clone())?;
        let dsn = shared.settings.catalog.login_for(&dsn);
        let gid = gid.clone();
        let dialer = Arc::clone(&shared.dialer);
        let asked = async move { recovery::look_up(&dialer, &dsn, &gid).await };
        shared.control.spawn(asked).await.ok()?
    }
}

/// What a request is in SQL. A gid and shard numbers need no quoting.
fn statements(request: Request, gid: &Gid, participants: &str) -> SmallVec<[String; 2]> {
    let mark = || {
        format!(
            "INSERT INTO pgherd.tx (gid, state, participants) \
             VALUES ('{gid}', 'committed', '{participants}')"
        )
    };
    match request {
        Request::Mark => smallvec![mark()],
        Request::MarkAndPrepare => smallvec![mark(), format!("PREPARE TRANSACTION '{gid}'")],
        Request::Commit => smallvec!["COMMIT".to_owned()],
        Request::RollBack => smallvec!["ROLLBACK".to_owned()],
        Request::RollBackPrepared => smallvec![format!("ROLLBACK PREPARED '{gid}'")],
        Request::CommitPrepared(_) => smallvec![format!("COMMIT PREPARED '{gid}'")],
    }
}
