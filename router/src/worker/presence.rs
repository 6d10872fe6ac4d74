//! A connected client as its worker knows it: who it is, what it does, and how it is ended from
//! outside.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::SystemTime;

use crate::pool::Login;
use crate::verifiers::RoleVersion;

/// What a client does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Nothing, outside a transaction.
    Idle,
    /// Nothing, inside one.
    IdleInTransaction,
    Active,
    /// It waits for a server connection.
    Waiting,
}

impl Doing {
    /// In PostgreSQL's words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::IdleInTransaction => "idle in transaction",
            Self::Active => "active",
            Self::Waiting => "waiting",
        }
    }
}

/// Whether the session is to end by the router's will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Stay,
    /// As soon as it does nothing, outside a transaction.
    WhenIdle,
    Now,
}

/// A client that was found idle so often in a row, once a second, rests.
const RESTS: u8 = 5;

#[derive(Debug)]
pub struct Presence {
    pub user: Rc<str>,
    pub role: RoleVersion,
    pub peer: Option<SocketAddr>,
    pub since: SystemTime,
    pub doing: Cell<Doing>,
    /// Messages that it has sent, and how many there were at the last [`Self::rests`].
    pub messages: Cell<u64>,
    seen: Cell<u64>,
    idle_looks: Cell<u8>,
    end: Cell<End>,
    waker: RefCell<Option<Waker>>,
}

impl Presence {
    #[must_use]
    pub fn new(login: &Login, peer: Option<SocketAddr>) -> Self {
        Self {
            user: Rc::clone(&login.user),
            role: login.role,
            peer,
            since: SystemTime::now(),
            doing: Cell::new(Doing::Active),
            messages: Cell::new(0),
            seen: Cell::new(u64::MAX),
            idle_looks: Cell::new(0),
            end: Cell::new(End::Stay),
            waker: RefCell::new(None),
        }
    }

    /// Whether it has done nothing the last [`RESTS`] times that this was asked.
    #[must_use]
    pub fn rests(&self) -> bool {
        let before = self.seen.replace(self.messages.get());
        let idle = self.doing.get() == Doing::Idle && before == self.messages.get();
        self.idle_looks.set(if idle { self.idle_looks.get().saturating_add(1) } else { 0 });
        self.idle_looks.get() >= RESTS
    }

    /// A stronger end stays.
    pub fn end(&self, end: End) {
        self.end.set(end.max(self.end.get()));
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl AsRef<Self> for Presence {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Runs a session until it ends by itself (`Some`) or is ended (`None`). Between messages it costs
/// three loads.
pub fn until_sent_away<T>(
    client: Rc<impl AsRef<Presence>>,
    mut session: Pin<&mut impl Future<Output = T>>,
) -> impl Future<Output = Option<T>> {
    std::future::poll_fn(move |cx| {
        let presence = (*client).as_ref();
        if presence.waker.borrow().is_none() {
            // The task's waker is the same at every poll.
            *presence.waker.borrow_mut() = Some(cx.waker().clone());
        }
        if presence.end.get() == End::Now {
            return Poll::Ready(None);
        }
        match session.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending
                if presence.end.get() == End::WhenIdle && presence.doing.get() == Doing::Idle =>
            {
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::proofs::Proof;

    fn ada() -> Login {
        let role = RoleVersion { oid: 10, settings: 0 };
        Login { user: "ada".into(), database: "app".into(), role, proof: Proof::None, seat: None }
    }

    #[tokio::test]
    async fn an_end_waits_for_the_transaction_or_does_not() {
        let presence = Rc::new(Presence::new(&ada(), None));
        let mut never = pin!(std::future::pending::<()>());
        presence.doing.set(Doing::IdleInTransaction);
        presence.end(End::WhenIdle);
        let mut attended = pin!(until_sent_away(Rc::clone(&presence), never.as_mut()));
        assert!(futures_util::poll!(&mut attended).is_pending(), "its transaction is open");
        presence.doing.set(Doing::Idle);
        assert_eq!(attended.await, None);
        let presence = Rc::new(Presence::new(&ada(), None));
        presence.end(End::Now);
        presence.end(End::WhenIdle);
        assert_eq!(
            until_sent_away(presence, pin!(std::future::pending::<()>())).await,
            None,
            "the stronger end stays"
        );
    }

    #[test]
    fn whoever_has_spoken_lately_does_not_rest() {
        let presence = Presence::new(&ada(), None);
        presence.doing.set(Doing::Idle);
        let looks = |count: u8| (0..count).map(|_| presence.rests()).collect::<Vec<_>>();
        assert_eq!(looks(RESTS + 2)[usize::from(RESTS) - 1..], [false, true, true]);
        presence.messages.set(1);
        assert!(!presence.rests());
        presence.doing.set(Doing::IdleInTransaction);
        assert!(!looks(RESTS + 2).contains(&true));
    }
}
