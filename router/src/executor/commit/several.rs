//! Commit over several shards: [`crate::two_phase`] decides, this sends and listens.
//!
//! As `docs/architecture.md` draws it: one participant is the decider; every participant gets a
//! marker row, all but the decider are prepared, then the decider's own COMMIT makes its marker
//! visible, and that is the decision. Three serial round trips, three serial fsyncs, no log outside
//! the shards.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use pgherd_shard_map::ShardId;
use smallvec::SmallVec;

use super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::pool::connect::shard_error;
use crate::recovery;
use crate::telemetry;
use crate::two_phase::{
    Action, Answer, Coordinator, DECIDER, Event, Gid, Outcome, Participant, Request, Verdict,
};
use crate::wire::{HEADER, backend, frontend};

/// One commit: its machine, its name, and who takes part.
struct Commit {
    machine: Coordinator,
    gid: Gid,
    /// Indexes into the session's servers: writers, the decider first, then readers.
    servers: SmallVec<[usize; 4]>,
    /// The writers' shards, as the marker has them.
    participants: String,
    /// What the client is told if nothing is committed: the first that went wrong.
    failure: Option<Failure>,
}

/// A request that was sent.
struct Sent {
    participant: Participant,
    request: Request,
    replies: usize,
}

impl Conn {
    pub(super) async fn commit_several(
        &mut self,
        writers: &[usize],
        readers: &[usize],
    ) -> Result<(), Failure> {
        let mut commit = self.new_commit(writers, readers);
        let outcome = loop {
            let sent = self.act(&mut commit).await;
            for one in &sent {
                let deadline = commit.machine.deadline();
                let heard = tokio::time::timeout_at(deadline.into(), self.hear(&commit, one)).await;
                let (answer, failure) = heard.unwrap_or_else(|_| {
                    let error = io::Error::from(io::ErrorKind::TimedOut);
                    (Answer::Lost, Some(self.lost(commit.servers[one.participant], &error)))
                });
                self.note(&commit, one, answer);
                commit.failure = commit.failure.take().or(failure);
                commit.machine.handle(Event::Answered(one.participant, answer), Instant::now());
            }
            if let Some(outcome) = commit.machine.outcome() {
                break outcome;
            }
        };
        let (counted, result) = match outcome {
            Outcome::Committed => (telemetry::Outcome::Committed, Ok(())),
            Outcome::RolledBack => {
                let unknown = || ErrorInfo::new("40000", "the transaction was rolled back").into();
                let failure = commit.failure.unwrap_or_else(unknown);
                (telemetry::Outcome::Aborted, Err(failure))
            }
            Outcome::Unknown => {
                for at in &commit.servers {
                    self.servers[*at].spoiled = true;
                }
                let decider = self.servers[commit.servers[DECIDER]].shard;
                let failure = resolution_unknown(decider, &commit.gid).into();
                (telemetry::Outcome::Unknown, Err(failure))
            }
        };
        self.worker.metrics.two_phase(counted);
        result
    }

    fn new_commit(&self, writers: &[usize], readers: &[usize]) -> Commit {
        let shards: Vec<String> =
            writers.iter().map(|at| self.servers[*at].shard.to_string()).collect();
        let settings = &self.worker.shared.settings;
        let decider = self.servers[writers[DECIDER]].shard;
        let random =
            (u128::from(self.worker.random_u64()) << 64) | u128::from(self.worker.random_u64());
        let (database, router) = (&settings.database, &settings.router_name);
        Commit {
            machine: Coordinator::new(writers.len(), readers.len(), Instant::now()),
            gid: Gid::new(database, decider, router, SystemTime::now(), random),
            servers: writers.iter().chain(readers).copied().collect(),
            participants: shards.join(","),
            failure: None,
        }
    }

    /// Does all that is to be done now; the requests whose answers are to be heard. All are sent
    /// before any is heard, so that the shards work at the same time.
    async fn act(&mut self, commit: &mut Commit) -> SmallVec<[Sent; 4]> {
        let mut sent = SmallVec::new();
        while let Some(action) = commit.machine.action() {
            match action {
                Action::Send(participant, request) => {
                    let at = commit.servers[participant];
                    let statements = request.statements(&commit.gid, &commit.participants);
                    let mut bytes = Vec::new();
                    for statement in &statements {
                        frontend::put_query(&mut bytes, statement);
                    }
                    let deadline = commit.machine.deadline();
                    let sending = self.servers[at].send(&bytes);
                    let result = tokio::time::timeout_at(deadline.into(), sending).await;
                    match result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                        Ok(()) => {
                            sent.push(Sent { participant, request, replies: statements.len() });
                        }
                        Err(error) => {
                            let failure = self.lost(at, &error);
                            commit.failure.get_or_insert(failure);
                            let lost = Event::Answered(participant, Answer::Lost);
                            commit.machine.handle(lost, Instant::now());
                        }
                    }
                }
                Action::LookUp { not_before } => {
                    tokio::time::sleep_until(not_before.into()).await;
                    let decider = self.servers[commit.servers[DECIDER]].shard;
                    let verdict = self.look_up(decider, &commit.gid).await;
                    commit.machine.handle(Event::LookedUp(verdict), Instant::now());
                }
                Action::Alarm(participant) => {
                    recovery::alarm(self.servers[commit.servers[participant]].shard, &commit.gid);
                }
            }
        }
        sent
    }

    /// The replies to one request. Not cancel safe: a reply that is not heard to its end spoils
    /// the connection.
    async fn hear(&mut self, commit: &Commit, sent: &Sent) -> (Answer, Option<Failure>) {
        let at = commit.servers[sent.participant];
        let mut error = None;
        let mut tag = String::new();
        for number in 0..sent.replies {
            match self.servers[at].collect().await {
                Ok(mut reply) => {
                    error = error.or_else(|| reply.error.map(|frame| (number, frame)));
                    tag = reply.tags.pop().unwrap_or_default();
                }
                Err(error) => return (Answer::Lost, Some(self.lost(at, &error))),
            }
        }
        let sqlstate = error.as_ref().map(|(_, frame)| backend::sqlstate(frame));
        let sqlstate = sqlstate.as_ref().and_then(|code| std::str::from_utf8(code).ok());
        let answer = match error {
            None if tag == sent.request.done_tag() => Answer::Done,
            _ if sent.request.is_missing(&tag, sqlstate) => Answer::Missing,
            _ => Answer::Refused,
        };
        (answer, error.map(|(number, frame)| refusal(sent.request, number, frame)))
    }

    /// What the answer says of the connection's own state.
    fn note(&mut self, commit: &Commit, sent: &Sent, answer: Answer) {
        let at = commit.servers[sent.participant];
        let server = &mut self.servers[at];
        match (sent.request, answer) {
            (_, Answer::Lost) => server.spoiled = true,
            // PREPARE keeps what was set inside as COMMIT does, whatever becomes of it.
            (Request::End | Request::MarkAndPrepare, Answer::Done) => {
                server.joined = sent.request != Request::End;
                if let Some(block) = self.session.transaction.block() {
                    server.settings = Rc::clone(&block.lasting);
                }
            }
            (Request::RollBackPrepared, _) | (Request::RollBack, Answer::Done) => {
                server.joined = false;
            }
            (Request::RollBack | Request::CommitPrepared(_), Answer::Refused) => {
                server.spoiled = true;
            }
            _ => {}
        }
        if matches!(sent.request, Request::CommitPrepared(_))
            && matches!(answer, Answer::Lost | Answer::Refused)
        {
            let (shard, gid) = (server.shard, &commit.gid);
            tracing::warn!(%shard, %gid, "second phase left to recovery");
        }
    }

    /// Asks the decider over a new connection, as recovery does: the session that was lost may
    /// still hold the marker.
    pub(in crate::executor) async fn look_up(&self, decider: ShardId, gid: &Gid) -> Verdict {
        let shared = &self.worker.shared;
        let Some(shard) = self.planning.map.shard(decider) else { return Verdict::Unreachable };
        let dsn = shared.settings.catalog.login_for(&shard.dsn);
        let gid = gid.clone();
        let dialer = Arc::clone(&shared.dialer);
        let asked = async move { recovery::look_up(&dialer, &dsn, &gid).await };
        shared.control.spawn(asked).await.unwrap_or(Verdict::Unreachable)
    }
}

/// What the client is told of an error in the first phase. `number` is that of the statement.
fn refusal(request: Request, number: usize, frame: bytes::Bytes) -> Failure {
    let code = backend::report_field(&frame[HEADER.min(frame.len())..], b'C');
    match (request, number, code) {
        // Recovery was there before the owner.
        (Request::Mark | Request::MarkAndPrepare, 0, Some("23505")) => {
            ErrorInfo::new("40001", "the transaction was rolled back before it could commit")
                .detail("A shard took so long that another router took the transaction for dead.")
                .hint("Run the transaction again.")
                .into()
        }
        (Request::MarkAndPrepare, 1, Some("0A000")) => {
            let mut error = shard_error(&frame);
            let detail =
                "It has written on several shards, so PostgreSQL must prepare it to commit.";
            let hint = "Do this in a transaction of its own, or one that writes on one shard only.";
            error.detail = error.detail.or_else(|| Some(detail.into()));
            error.hint = error.hint.or_else(|| Some(hint.into()));
            error.into()
        }
        _ => Failure::Shard(frame),
    }
}

fn resolution_unknown(decider: ShardId, gid: &Gid) -> ErrorInfo {
    ErrorInfo::new("08007", "transaction resolution unknown")
        .detail(format!(
            "The connection to shard {decider} was lost while it committed the transaction, and it \
             cannot be asked now. Its gid is {gid}."
        ))
        .hint(format!(
            "It will be committed or rolled back on all shards. SELECT \
             pgherd_transaction_outcome('{gid}') says which."
        ))
}
