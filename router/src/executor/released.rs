//! Servers whose work for a session is done: given back clean, or ended.

use std::rc::Rc;
use std::time::Duration;

use super::Conn;
use super::observed::count_answer;
use crate::pool::{Login, Server};
use crate::session::Transaction;
use crate::worker::{JOIN_MAX, Worker, send_cancel};

/// How long a server that is cancelled is waited for, each time.
const STOP: [Duration; 8] = {
    let millis = Duration::from_millis;
    [
        millis(50),
        millis(100),
        millis(200),
        millis(400),
        millis(800),
        millis(1600),
        millis(3200),
        millis(6400),
    ]
};

impl Conn {
    /// Outside a transaction nothing is kept: servers go back to their pools, portals are gone.
    pub fn release(&mut self) {
        if !matches!(self.session.transaction, Transaction::Idle) {
            for server in &mut self.servers {
                self.worker.pools.count(server);
            }
            return;
        }
        if !self.session.portals.is_empty() {
            self.session.portals.clear();
        }
        if self.cursors.is_some() {
            self.end_cursors(true);
        }
        if self.kept.is_some() {
            return self.release_but_kept();
        }
        self.ticket = None;
        let cancelled = self.cancel.sent.replace(false);
        self.cancel.deadlock.set(false);
        self.cancel.servers.borrow_mut().clear();
        for mut server in self.servers.drain(..) {
            server.spoiled |= cancelled;
            if server.wrote && server.shard == self.planning.map.home {
                self.session.sequences.written(server.pid, server.same_user);
                server.drew = true;
            }
            server.wrote = false;
            server.joined &= server.status != b'I';
            count_answer(&self.worker, self.running, &server);
            give_back(&self.worker, &self.login, server);
        }
    }

    /// The client is gone: whatever runs for it is cancelled, its servers are closed.
    pub fn abandon(&mut self) {
        self.session.transaction = Transaction::Idle;
        self.ticket = None;
        // A cancel may still be on its way to any of them.
        let cancelled = self.cancel.sent.get();
        let whole = self.kept.as_ref().is_some_and(|kept| kept.session);
        self.cancel.servers.borrow_mut().clear();
        for mut server in self.servers.drain(..).collect::<Vec<_>>() {
            server.spoiled |= cancelled || server.cancelled;
            server.kept |= whole;
            if server.status == 0 || server.spoiled {
                give_back(&self.worker, &self.login, server);
            } else {
                let pools = Rc::clone(&self.worker.pools);
                self.worker.background(roll_back(server, pools, self.login.clone()));
            }
        }
        self.worker.pools.leave(&self.login);
    }
}

/// Gives a server back, or ends it first if it is at work.
pub(super) fn give_back(worker: &Worker, login: &Login, server: Server) {
    if server.status == 0 {
        worker.background(stop(server, Rc::clone(&worker.pools), login.clone()));
    } else {
        worker.pools.give_back(login, server);
    }
}

/// Ends a server that works for nobody any more. Nothing is sent to it after what it does now, and
/// that is cancelled: again and again, since a request that comes before the statement has begun
/// stops nothing. It counts in its pool until it is gone.
async fn stop(mut server: Server, pools: Rc<crate::pool::Pools>, login: Login) {
    server.spoiled = true;
    // A cancel must not hit the BEGIN before a write.
    let write = server.wrote.then_some((JOIN_MAX, false));
    let waits = write.into_iter().chain(STOP.into_iter().map(|wait| (wait, true)));
    for (wait, cancels) in waits {
        let ended = async {
            drop(server.end_requests().await);
            if cancels {
                send_cancel(server.seldom.address, server.pid, server.secret).await;
            }
            while server.fill().await.is_ok() {
                server.inbuf.clear();
            }
        };
        if tokio::time::timeout(wait, ended).await.is_ok() {
            break;
        }
    }
    pools.give_back(&login, server);
}

async fn roll_back(mut server: Server, pools: Rc<crate::pool::Pools>, login: Login) {
    server.wrote = false;
    if server.status != b'I' || server.joined {
        server.joined = false;
        let rolled_back = server.run("ROLLBACK").await;
        server.spoiled |= rolled_back.is_err();
    }
    if server.kept && !server.spoiled {
        let cleaned = server.make_clean().await;
        server.spoiled |= cleaned.is_err();
    }
    pools.give_back(&login, server);
    pools.leave(&login);
}
