//! The end of a transaction: a plain COMMIT where one shard wrote, two-phase commit
//! (`several`) where more did.

mod several;

use std::rc::Rc;
use std::sync::Arc;

use postgres_protocol::escape::escape_identifier;
use smallvec::SmallVec;

use super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::pool::Server;
use crate::session::{Block, Transaction};
use crate::wire::frontend;

impl Conn {
    /// The client's COMMIT.
    pub(super) async fn commit(&mut self, and_chain: bool) -> Result<(), Failure> {
        self.need_own_block(and_chain, "COMMIT AND CHAIN")?;
        let Some(block) = self.session.transaction.block() else {
            self.client.complete("COMMIT");
            return Ok(());
        };
        let next = and_chain.then(|| block.chained(Rc::clone(&block.settings)));
        if block.failed {
            self.roll_back_all().await;
            self.chain(next);
            self.client.complete("ROLLBACK");
            return Ok(());
        }
        self.commit_all().await?;
        self.chain(next);
        self.client.complete("COMMIT");
        Ok(())
    }

    pub(super) async fn roll_back(&mut self, and_chain: bool) -> Result<(), Failure> {
        self.need_own_block(and_chain, "ROLLBACK AND CHAIN")?;
        if let Some(block) = self.session.transaction.block() {
            let next = and_chain.then(|| block.chained(Rc::clone(&block.settings)));
            self.roll_back_all().await;
            self.chain(next);
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
        self.notice("WARNING", &notice);
        Ok(())
    }

    /// `next` is what the ended block has chained to it; its settings are those of now.
    fn chain(&mut self, next: Option<Block>) {
        if let Some(mut block) = next {
            block.settings = Rc::clone(&self.session.settings);
            block.lasting = Rc::clone(&self.session.settings);
            self.session.transaction = Transaction::Open(Box::new(block));
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
        self.end_changes();
        if let Transaction::Open(block) = std::mem::take(&mut self.session.transaction) {
            // What was set inside is gone on the servers, too: they are where they joined.
            self.session.settings = block.settings;
        }
        self.note_parameters();
        self.session.portals.clear();
        self.end_cursors(false);
        self.look_again().await;
        self.release();
    }

    /// A transaction that has failed holds no locks, as in PostgreSQL: where the error was not a
    /// server's own, that one's transaction is open still.
    pub async fn leave_failed(&mut self) {
        let failed =
            self.session.transaction.block().is_some_and(|block| block.failed && !block.implicit);
        if failed && self.servers.iter().any(|server| server.joined && server.status == b'T') {
            Box::pin(self.give_way()).await;
        }
    }

    /// The other shards' locks are what others wait for, and they must not wait for the client's
    /// ROLLBACK. As PostgreSQL's own rollback of a failed statement's transaction, or of what came
    /// after its last savepoint.
    pub async fn give_way(&mut self) {
        self.cancel.deadlock.set(false);
        let savepoint = self.session.transaction.block().and_then(|block| block.last_savepoint());
        let sql = match savepoint {
            Some(name) => format!("ROLLBACK TO SAVEPOINT {}", escape_identifier(name)),
            None => "ROLLBACK".to_owned(),
        };
        let whole = savepoint.is_none();
        for server in self.servers.iter_mut().filter(|server| server.joined) {
            if server.status != b'T' {
                continue;
            }
            let rolled_back = server.run(&sql).await.is_ok_and(|reply| reply.error.is_none());
            server.spoiled |= !rolled_back;
            if whole {
                server.joined = false;
            }
        }
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
        let joined = (0..self.servers.len()).filter(|at| self.servers[*at].joined);
        let (mut writers, readers): (SmallVec<[usize; 4]>, SmallVec<[usize; 4]>) =
            joined.partition(|at| self.servers[*at].wrote);
        // The first decides and is the only one that is not prepared. PREPARE TRANSACTION refuses
        // what has to do with temporary tables, NOTIFY and cursors WITH HOLD: all of it is at home.
        let home = self.planning.map.home;
        writers.sort_by_key(|at| self.servers[*at].shard != home);
        if let Err(failure) = self.turn_others_away().await {
            self.roll_back_all().await;
            return Err(failure);
        }
        let result = if writers.len() > 1 && !self.planning.one_phase {
            // Large, and most clients never come here.
            Box::pin(self.commit_several(&writers, &readers)).await
        } else {
            match self.end_readers(readers, writers.is_empty()).await {
                Ok(()) => self.commit_each(&writers).await,
                failed => failed,
            }
        };
        if let Err(failure) = result {
            self.roll_back_all().await;
            return Err(failure);
        }
        if let Transaction::Open(block) = std::mem::take(&mut self.session.transaction) {
            if let Some(map) = block.map.as_ref().filter(|map| schema_changed && map.is_final()) {
                self.worker.shared.take_map(Arc::clone(map));
            }
            // What was SET LOCAL is gone, the rest is there to stay, here as on the servers.
            self.session.settings = Rc::clone(&block.lasting);
            for server in self.servers.iter_mut().filter(|server| server.joined) {
                server.settings = Rc::clone(&block.lasting);
                server.joined = false;
            }
        }
        self.note_parameters();
        self.session.portals.clear();
        self.end_cursors(true);
        self.look_again().await;
        self.release();
        if schema_changed {
            self.wait_for_map().await;
        }
        Ok(())
    }

    /// COMMIT where nothing was written, before any writer's: if it fails, nothing has happened.
    async fn end_readers(
        &mut self,
        readers: SmallVec<[usize; 4]>,
        alone: bool,
    ) -> Result<(), Failure> {
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
                    if alone && !std::mem::replace(&mut told, true) {
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
        // Then nothing has been committed there, whatever is sent.
        let ended = self.servers[at].ended;
        match self.servers[at].run(sql).await {
            Ok(mut reply) => match reply.error.take() {
                None if self.servers[at].status == b'I' || sql != "COMMIT" => {
                    self.pass_on_asides(at, &mut reply);
                    Ok(())
                }
                None => Err(ErrorInfo::new("40000", "the transaction was rolled back").into()),
                Some(error) => Err(Failure::Shard(error)),
            },
            Err(error) if sql == "COMMIT" && !ended => {
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
