//! What a worker does when it is asked from outside: by the console, by a neighbour whose places
//! are taken, once a second by the clock.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashSet;
use pgherd_shard_map::ShardId;
use tokio::sync::mpsc;

use super::presence::{Doing, End, Presence};
use super::{Live, Mail, Phase, WarmUsers, Worker};
use crate::pool::Login;
use crate::pool::lend::Want;
use crate::pool::server::Parcel;
use crate::proofs::Proof;
use crate::verifiers::RoleVersion;

/// Between two requests to the neighbours for places.
const BEG_AGAIN: Duration = Duration::from_millis(5);

/// A worker's clients and server connections, one by one.
#[derive(Debug, Default)]
pub struct People {
    pub clients: Vec<ClientFigures>,
    pub servers: Vec<ServerFigures>,
}

#[derive(Debug)]
pub struct ClientFigures {
    pub pid: u32,
    pub user: Box<str>,
    pub peer: Option<SocketAddr>,
    pub since: std::time::SystemTime,
    pub doing: Doing,
    pub messages: u64,
    /// Backend processes that work for it.
    pub servers: Vec<i32>,
}

#[derive(Debug)]
pub struct ServerFigures {
    pub shard: ShardId,
    pub user: Box<str>,
    pub address: SocketAddr,
    pub pid: i32,
    /// The client that it works for.
    pub client: Option<u32>,
}

impl ServerFigures {
    #[must_use]
    pub const fn state(&self) -> &'static str {
        if self.client.is_some() { "active" } else { "idle" }
    }
}

impl Worker {
    /// Every client and every server connection.
    #[must_use]
    pub fn people(&self) -> People {
        let mut people = People::default();
        for client in self.sessions.borrow().values().filter_map(Weak::upgrade) {
            let presence = &client.presence;
            let servers = client.servers.borrow();
            people.servers.extend(servers.iter().map(|server| ServerFigures {
                shard: server.shard,
                user: (*presence.user).into(),
                address: server.address,
                pid: server.pid,
                client: Some(client.pid),
            }));
            people.clients.push(ClientFigures {
                pid: client.pid,
                user: (*presence.user).into(),
                peer: presence.peer,
                since: presence.since,
                doing: presence.doing.get(),
                messages: presence.messages.get(),
                servers: servers.iter().map(|server| server.pid).collect(),
            });
        }
        self.pools.each_idle(|user, server| {
            people.servers.push(ServerFigures {
                shard: server.shard,
                user: user.into(),
                address: server.seldom.address,
                pid: server.pid,
                client: None,
            });
        });
        people
    }

    /// Ends a client's session now; whether there is such a client.
    #[must_use]
    pub fn kill(&self, pid: u32) -> bool {
        let client = self.sessions.borrow().get(&(pid >> 8)).and_then(Weak::upgrade);
        let client = client.filter(|client| client.pid == pid);
        client.inspect(|client| client.presence.end(End::Now)).is_some()
    }

    /// Ends all clients' sessions now.
    pub fn kill_all(&self) {
        let sessions = self.sessions.borrow();
        sessions
            .values()
            .filter_map(Weak::upgrade)
            .for_each(|client| client.presence.end(End::Now));
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// As [`Pools::pause`], of shards that this worker may not have used yet.
    pub fn pause(&self, shards: &[ShardId], generation: u32) {
        self.pools.know_all(&self.map());
        self.pools.pause(shards, generation);
    }

    /// Sends clients away as the phase has it; again once a second, for [`Phase::HandOver`].
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        if phase == Phase::Serving {
            return;
        }
        for client in self.sessions.borrow().values().filter_map(Weak::upgrade) {
            match phase {
                Phase::Serving => {}
                // A client that rests expects no answer, and its pool of connections sees a closed
                // one; who is at work goes on.
                // Nor does one whose state a server holds: it may be there to listen.
                Phase::HandOver
                    if !client.presence.rests() || !client.servers.borrow().is_empty() => {}
                Phase::HandOver | Phase::Drain => client.presence.end(End::WhenIdle),
                Phase::Stop => client.presence.end(End::Now),
            }
        }
    }

    /// Runs what its client does not wait for any more; the router ends when it is done.
    pub fn background(&self, work: impl Future<Output = ()> + 'static) {
        let count = Rc::clone(&self.background);
        count.set(count.get() + 1);
        tokio::task::spawn_local(async move {
            work.await;
            count.set(count.get() - 1);
        });
    }

    /// Takes a new configuration.
    pub fn set_live(&self, live: Arc<Live>) {
        self.pools.set_limits(live.share(self.shared.settings.workers));
        *self.live.borrow_mut() = live;
    }

    /// Opens what is to be warm for the users that the configuration names: as far as the shards
    /// let the router in, since nobody but a client knows his password.
    pub fn warm(&self, users: WarmUsers) {
        for (user, role) in &*users {
            let login = Login {
                user: Rc::from(&**user),
                database: Rc::from(&*self.shared.settings.database),
                role: *role,
                proof: Proof::None,
                seat: None,
            };
            self.pools.expect(&login, &self.map());
        }
        *self.warm.borrow_mut() = users;
    }

    /// Asks the neighbours while queues are long and places are taken.
    pub async fn beg(self: Rc<Self>) {
        if self.shared.settings.workers == 1 {
            return;
        }
        loop {
            self.pools.hungry.notified().await;
            loop {
                let wants = self.pools.wants();
                if wants.is_empty() {
                    break;
                }
                for want in wants {
                    for mailbox in self.neighbours() {
                        // A busy one has nothing to give.
                        drop(
                            mailbox.try_send(Mail::Borrow { want: want.clone(), from: self.index }),
                        );
                    }
                }
                tokio::time::sleep(BEG_AGAIN).await;
            }
        }
    }

    fn neighbours(&self) -> impl Iterator<Item = &mpsc::Sender<Mail>> {
        let mailboxes = self.shared.mailboxes.get().into_iter().flatten().enumerate();
        mailboxes.filter(|(index, _)| *index != self.index).map(|(_, mailbox)| mailbox)
    }

    /// Gives a neighbour what it asks for, if there is something.
    pub fn lend(&self, want: Want, from: usize) {
        let Some(mailbox) = self.shared.mailboxes.get().and_then(|boxes| boxes.get(from)) else {
            return;
        };
        // Places that are on their way must arrive.
        let Ok(space) = mailbox.try_reserve() else { return };
        let lent = self.pools.lend(&want);
        self.lent.set(self.lent.get() + lent.len() as u64);
        if !lent.is_empty() {
            space.send(Mail::Lent { want, lent });
        }
    }

    pub fn borrow_places(&self, want: &Want, lent: Vec<Option<Parcel>>) {
        self.pools.borrow_places(want, lent, |settings| self.intern(settings));
    }

    /// Once a second: see [`Pools::sweep`].
    pub fn sweep(&self, now: Instant) {
        let live = self.live.borrow();
        let sessions = self.sessions.borrow();
        let present: HashSet<(RoleVersion, Rc<str>)> = match live.pool.min_size {
            0 => HashSet::default(),
            _ => {
                let clients = sessions.values().filter_map(Weak::upgrade);
                let who = |presence: &Presence| (presence.role, Rc::clone(&presence.user));
                clients.map(|client| who(&client.presence)).collect()
            }
        };
        let warm = self.warm.borrow();
        let unused = self.pools.sweep(now, &self.map(), |role, user| {
            present.contains(&(role, Rc::clone(user)))
                || warm.iter().any(|(name, version)| **name == **user && *version == role)
        });
        for want in unused {
            self.pass_on(want);
        }
        self.enter_again();
    }

    /// Places that nobody here needs, to the next worker.
    fn pass_on(&self, want: Want) {
        let lent: Vec<Option<Parcel>> = (0..want.count).map(|_| None).collect();
        let next = (self.index + 1) % self.shared.settings.workers;
        let mailbox = self.shared.mailboxes.get().and_then(|boxes| boxes.get(next));
        match mailbox.map(mpsc::Sender::try_reserve) {
            Some(Ok(space)) => space.send(Mail::Lent { want, lent }),
            // Again a second later.
            _ => self.pools.borrow_places(&want, lent, |settings| self.intern(settings)),
        }
    }

    fn enter_again(&self) {
        if self.phase.get() == Phase::HandOver {
            self.enter(Phase::HandOver);
        }
    }
}
