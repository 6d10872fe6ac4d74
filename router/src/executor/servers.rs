//! The servers that a session holds: taken from their pools when a statement needs them, with the
//! client's settings, and put into its open transaction before anything runs there.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pgherd_shard_map::ShardId;

use super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::pool::Server;
use crate::session::{Settings, Transaction};
use crate::wire::frontend;
use crate::worker::CancelTarget;
use crate::worker::presence::Doing;

impl Conn {
    /// The index of a checked-out server of the shard, with the client's settings.
    ///
    /// # Errors
    /// No connection to be had (53300, 08006).
    pub async fn server_for(&mut self, shard: ShardId) -> Result<usize, Failure> {
        self.cancel.turn.set(self.cancel.turn.get().wrapping_add(1));
        if self.session.transaction.block().is_some_and(|block| block.cut_due) {
            Box::pin(self.begin_block()).await?;
        }
        if let Some(at) = self.servers.iter().position(|server| server.shard == shard) {
            if !self.servers[at].joined && self.differs(at) {
                Box::pin(self.bring_settings(at)).await?;
            }
            if self.has_set_in_block() {
                Box::pin(self.join_in_parts(at)).await?;
            }
            return Ok(at);
        }
        if self.session.transaction.block().is_some_and(|block| block.is_serializable())
            && self.servers.iter().any(|server| server.joined || !server.kept)
        {
            return Err(serializable_over_shards().into());
        }
        if !matches!(self.session.transaction, Transaction::Idle) || self.kept.is_some() {
            self.take_ticket().await?;
        }
        let pools = &self.worker.pools;
        let mut server = match pools.idle(shard, &self.login) {
            Some(server) => server,
            // Seldom, and large: it is not a part of every client's memory.
            None => Box::pin(self.wait_for_server(shard)).await?,
        };
        server.same_user = server.last_user == self.cancel.pid;
        if !server.same_user {
            server.others_numbers = server.drew;
        }
        let forgets = server.others_numbers;
        server.last_user = self.cancel.pid;
        self.cancel.servers.borrow_mut().push(cancel_target(&server));
        self.servers.push(server);
        let at = self.servers.len() - 1;
        if self.differs(at) {
            Box::pin(self.bring_settings(at)).await?;
        }
        let stays = || self.kept.as_ref().is_some_and(|kept| kept.session);
        if forgets && (self.worker.shared.asks_numbers.load(Ordering::Relaxed) || stays()) {
            Box::pin(self.forget_numbers(at)).await?;
        }
        if self.has_set_in_block() {
            Box::pin(self.join_in_parts(at)).await?;
        }
        Ok(at)
    }

    pub(super) async fn wait_for_server(&self, shard: ShardId) -> Result<Server, ErrorInfo> {
        let doing = &self.cancel.presence.doing;
        doing.set(Doing::Waiting);
        let (pools, ticket) = (&self.worker.pools, self.ticket.as_ref());
        let server = pools.checkout(shard, &self.login, &self.planning.map, ticket).await;
        doing.set(Doing::Active);
        server
    }

    /// What a server must have before it runs anything: in a transaction, what the client had when
    /// it began; what has been set since is said again when the server joins.
    pub(super) fn wanted_settings(&self) -> &Rc<Settings> {
        self.session.transaction.block().map_or(&self.session.settings, |block| &block.settings)
    }

    pub(super) fn differs(&self, at: usize) -> bool {
        !Rc::ptr_eq(&self.servers[at].settings, self.wanted_settings())
    }

    /// Before the first of several connections that are held at once.
    pub(super) async fn take_ticket(&mut self) -> Result<(), Failure> {
        if self.ticket.is_none() {
            self.ticket = Some(match self.worker.pools.try_admit() {
                Some(ticket) => ticket,
                None => Box::pin(self.worker.pools.admit()).await?,
            });
        }
        Ok(())
    }

    pub async fn bring_settings(&mut self, at: usize) -> Result<(), Failure> {
        let wanted = Rc::clone(self.wanted_settings());
        self.give_settings(at, wanted).await
    }

    pub(super) async fn give_settings(
        &mut self,
        at: usize,
        wanted: Rc<Settings>,
    ) -> Result<(), Failure> {
        let server = &mut self.servers[at];
        // The encoding first, by itself: the others arrive in it.
        for sql in wanted.change_from(&server.settings).into_iter().filter(|sql| !sql.is_empty()) {
            let reply = server.run(&sql).await;
            match reply {
                Ok(reply) if reply.error.is_none() => {}
                Ok(reply) => {
                    server.spoiled = true;
                    return Err(reply.error.map_or(Failure::ClientGone, Failure::Shard));
                }
                Err(error) => return Err(self.lost(at, &error)),
            }
        }
        self.servers[at].settings = wanted;
        Ok(())
    }

    /// Appends what makes a server join the open block, if there is one and it has not joined.
    pub fn put_join(&mut self, at: usize, request: &mut Vec<u8>) -> u32 {
        let server = &mut self.servers[at];
        let mut replies = 0;
        if server.forget && server.status != b'E' {
            server.forget = false;
            server.statements.clear();
            frontend::put_query(request, "DEALLOCATE ALL");
            replies += 1;
        }
        match self.session.transaction.block() {
            Some(block) if !server.joined => {
                server.joined = true;
                self.cancel.joined.set(Some(Instant::now()));
                for sql in block.join_statements() {
                    frontend::put_query(request, sql);
                    replies += 1;
                }
                replies
            }
            _ => replies,
        }
    }

    /// Has a server join the open block, where the router's own statements come before the
    /// client's.
    pub(super) async fn join(&mut self, at: usize) -> Result<(), Failure> {
        let mut request = Vec::new();
        let joins = self.put_join(at, &mut request);
        if joins > 0 {
            if let Err(error) = self.servers[at].send(&request).await {
                return Err(self.lost(at, &error));
            }
            for _ in 0..joins {
                self.collect_ok(at).await?;
            }
        }
        Ok(())
    }

    /// A server's connection broke. Its part of the transaction is gone, so the block has failed.
    pub fn lost(&mut self, at: usize, error: &std::io::Error) -> Failure {
        let server = &mut self.servers[at];
        server.spoiled = true;
        let shard = server.shard;
        let dismissed = server.seldom.dismissed && self.worker.is_moving();
        tracing::warn!(%shard, %error, dismissed, "server connection lost");
        if let Some(block) = self.session.transaction.block_mut() {
            block.failed = true;
        }
        if dismissed {
            return ErrorInfo::moved_away().into();
        }
        Failure::Statement(
            ErrorInfo::new("08006", format!("the connection to shard {shard} was lost: {error}"))
                .hint(
                    "The statement may or may not have run there; its transaction has not \
                       committed unless this was its COMMIT.",
                ),
        )
    }
}

pub(super) fn serializable_over_shards() -> ErrorInfo {
    ErrorInfo::new("0A000", "a SERIALIZABLE transaction cannot touch several shards")
        .detail("Each shard would be serializable by itself, but not all together.")
        .hint("Use REPEATABLE READ, or keep the transaction to one key.")
}

/// How a server is reached by CancelRequest.
pub(super) fn cancel_target(server: &Server) -> CancelTarget {
    let Server { shard, pid, secret, .. } = *server;
    let address = server.seldom.address;
    CancelTarget { shard, address, pid, secret }
}
