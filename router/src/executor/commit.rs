//! The end of a transaction: a plain COMMIT where one shard wrote, two-phase commit where more did.
//!
//! Two-phase commit as `docs/architecture.md` draws it: one participant is the decider; every
//! participant gets a marker row, all but the decider are prepared, then the decider's own COMMIT
//! makes its marker visible, and that is the decision. Three serial round trips, three serial
//! fsyncs, no log outside the shards. The steps are decided by [`crate::two_phase`], whose
//! coordinator is a pure machine; here they are only sent.

use std::rc::Rc;

use super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::session::{Block, Transaction};
use crate::wire::{backend, frontend};

impl Conn {
    /// The client's COMMIT.
    pub(super) async fn commit(&mut self, and_chain: bool) -> Result<(), Failure> {
        let Some(block) = self.session.transaction.block() else {
            let notice = ErrorInfo::new("25P01", "there is no transaction in progress");
            backend::notice_response(&mut self.client.out, "WARNING", &notice);
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
        let begin = self.session.transaction.block().map(|block| block.begin.clone());
        match begin {
            None => {
                let notice = ErrorInfo::new("25P01", "there is no transaction in progress");
                backend::notice_response(&mut self.client.out, "WARNING", &notice);
            }
            Some(begin) => {
                self.roll_back_all().await;
                self.chain(and_chain, &begin);
            }
        }
        self.client.complete("ROLLBACK");
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
            // Settings changed inside are gone on the servers, too.
            for server in &mut self.servers {
                server.settings = Rc::clone(&block.settings);
            }
            self.session.settings = block.settings;
        }
        self.session.portals.clear();
        self.release();
    }

    /// Commits everywhere, atomically.
    ///
    /// # Errors
    /// What made it fail; then everything is rolled back, unless it is 08007.
    pub async fn commit_all(&mut self) -> Result<(), Failure> {
        let schema_changed =
            self.session.transaction.block().is_some_and(|block| block.schema_changed);
        let writers: Vec<usize> = (0..self.servers.len())
            .filter(|at| self.servers[*at].joined && self.servers[*at].wrote)
            .collect();
        let two_phase = writers.len() > 1 && !self.planning.one_phase;
        let result = if two_phase {
            self.commit_two_phase(&writers).await
        } else {
            self.commit_each(&writers).await
        };
        if let Err(failure) = result {
            self.roll_back_all().await;
            return Err(failure);
        }
        self.session.transaction = Transaction::Idle;
        self.session.portals.clear();
        for server in &mut self.servers {
            server.joined = false;
        }
        self.release();
        if schema_changed {
            self.wait_for_map().await;
        }
        Ok(())
    }

    /// COMMIT on each shard: readers first, so that nothing can fail after a writer's.
    async fn commit_each(&mut self, writers: &[usize]) -> Result<(), Failure> {
        let readers =
            (0..self.servers.len()).filter(|at| !writers.contains(at) && self.servers[*at].joined);
        for at in readers.chain(writers.iter().copied()).collect::<Vec<_>>() {
            self.step(at, "COMMIT").await?;
        }
        Ok(())
    }

    /// One step of a commit on one server.
    async fn step(&mut self, at: usize, sql: &str) -> Result<(), Failure> {
        match self.servers[at].run(sql).await {
            Ok(reply) => match reply.error {
                None if self.servers[at].status == b'I' || sql != "COMMIT" => Ok(()),
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

/// Commit over several shards.
impl Conn {
    async fn commit_two_phase(&mut self, writers: &[usize]) -> Result<(), Failure> {
        let readers: Vec<usize> = (0..self.servers.len())
            .filter(|at| !writers.contains(at) && self.servers[*at].joined)
            .collect();
        for at in readers {
            self.step(at, "COMMIT").await?;
        }
        let decider = writers[0];
        let others = &writers[1..];
        let gid = self.new_gid(decider);
        let participants =
            writers.iter().map(|at| self.servers[*at].shard.to_string()).collect::<Vec<_>>();
        let mark = format!(
            "INSERT INTO pgherd.tx (gid, state, participants) VALUES ('{gid}', 'committed', '{}')",
            participants.join(",")
        );
        let prepare = format!("PREPARE TRANSACTION '{gid}'");

        let mut failure = None;
        for at in writers.iter().copied() {
            let mut request = Vec::new();
            frontend::put_query(&mut request, &mark);
            if at != decider {
                frontend::put_query(&mut request, &prepare);
            }
            if let Err(error) = self.servers[at].send(&request).await {
                failure = Some(self.lost(at, &error));
            }
        }
        let mut prepared = Vec::new();
        for at in
            writers.iter().copied().filter(|at| !self.servers[*at].spoiled).collect::<Vec<_>>()
        {
            let replies = if at == decider { 1 } else { 2 };
            for _ in 0..replies {
                match self.servers[at].collect().await {
                    Ok(reply) => {
                        if let Some(error) = reply.error {
                            failure.get_or_insert(Failure::Shard(error));
                        } else if reply.tags.iter().any(|tag| tag == "PREPARE TRANSACTION") {
                            prepared.push(at);
                        }
                    }
                    Err(error) => {
                        let lost = self.lost(at, &error);
                        failure.get_or_insert(lost);
                        break;
                    }
                }
            }
        }
        if failure.is_none() && prepared.len() != others.len() {
            failure = Some(ErrorInfo::new("40000", "a shard did not prepare").into());
        }
        if let Some(failure) = failure {
            for at in prepared {
                // One that cannot be told now is rolled back by recovery: no decider row exists.
                let told = self.servers[at].run(&format!("ROLLBACK PREPARED '{gid}'")).await;
                self.servers[at].spoiled |= told.is_err();
                self.servers[at].joined = false;
            }
            self.worker.metrics.two_phase_aborted();
            return Err(failure);
        }
        self.decide(decider, &gid).await?;
        for at in others.iter().copied() {
            let mut request = Vec::new();
            frontend::put_query(&mut request, &format!("COMMIT PREPARED '{gid}'"));
            if let Err(error) = self.servers[at].send(&request).await {
                self.unfinished(at, &gid, &error.to_string());
            }
        }
        for at in others.iter().copied() {
            if self.servers[at].spoiled {
                continue;
            }
            match self.servers[at].collect().await {
                Ok(reply) if reply.error.is_none() => {}
                Ok(_) => self.unfinished(at, &gid, "refused"),
                Err(error) => self.unfinished(at, &gid, &error.to_string()),
            }
        }
        self.worker.metrics.two_phase_committed();
        Ok(())
    }

    /// The decider's COMMIT. Once it is confirmed the transaction is committed for good.
    async fn decide(&mut self, decider: usize, gid: &str) -> Result<(), Failure> {
        match self.servers[decider].run("COMMIT").await {
            Ok(reply) if reply.error.is_none() && reply.tags.iter().any(|tag| tag == "COMMIT") => {
                Ok(())
            }
            // It answered and did not commit: recovery and we agree that it is aborted.
            Ok(reply) => {
                self.worker.metrics.two_phase_aborted();
                Err(reply.error.map_or_else(
                    || ErrorInfo::new("40000", "the transaction was rolled back").into(),
                    Failure::Shard,
                ))
            }
            Err(error) => {
                self.lost(decider, &error);
                self.worker.metrics.two_phase_unknown();
                Err(ErrorInfo::new("08007", "transaction resolution unknown")
                    .detail(format!(
                        "The connection to the deciding shard was lost while it committed \
                         transaction {gid}: {error}."
                    ))
                    .hint(
                        "It is committed or rolled back on all shards within seconds; see \
                           pgherd.tx on the deciding shard for the outcome.",
                    )
                    .into())
            }
        }
    }

    /// The decision stands; recovery finishes what this connection could not.
    fn unfinished(&mut self, at: usize, gid: &str, why: &str) {
        let server = &mut self.servers[at];
        server.spoiled = true;
        tracing::warn!(shard = %server.shard, gid, why, "second phase left to recovery");
    }

    /// `pgherd_<database>_<deciding shard>_<router>_<random>`: an orphan explains itself.
    fn new_gid(&self, decider: usize) -> String {
        let settings = &self.worker.shared.settings;
        let plain = |name: &str| -> String {
            name.chars().filter(char::is_ascii_alphanumeric).take(32).collect()
        };
        format!(
            "pgherd_{}_{}_{}_{:016x}{:016x}",
            plain(&settings.database),
            self.servers[decider].shard,
            plain(&settings.router_name),
            self.worker.random_u64(),
            self.worker.random_u64(),
        )
    }
}
