//! A connected client as its worker knows it: who it is, what it does, and how it is ended from
//! outside.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::SystemTime;

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
pub struct Seat {
    pub user: Rc<str>,
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

impl Seat {
    #[must_use]
    pub fn new(user: &Rc<str>, peer: Option<SocketAddr>) -> Self {
        Self {
            user: Rc::clone(user),
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

    /// Runs the session until it ends by itself (`Some`) or is ended (`None`). Between messages it
    /// costs two loads.
    pub fn sit<T>(
        &self,
        mut session: Pin<&mut impl Future<Output = T>>,
    ) -> impl Future<Output = Option<T>> {
        let mut first = true;
        std::future::poll_fn(move |cx| {
            if std::mem::take(&mut first) {
                // The task's waker is the same at every poll.
                *self.waker.borrow_mut() = Some(cx.waker().clone());
            }
            if self.end.get() == End::Now {
                return Poll::Ready(None);
            }
            match session.as_mut().poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending
                    if self.end.get() == End::WhenIdle && self.doing.get() == Doing::Idle =>
                {
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn an_end_waits_for_the_transaction_or_does_not() {
        let seat = Rc::new(Seat::new(&"ada".into(), None));
        let mut never = pin!(std::future::pending::<()>());
        seat.doing.set(Doing::IdleInTransaction);
        seat.end(End::WhenIdle);
        let mut sitting = pin!(seat.sit(never.as_mut()));
        assert!(futures_util::poll!(&mut sitting).is_pending(), "its transaction is open");
        seat.doing.set(Doing::Idle);
        assert_eq!(sitting.await, None);
        let seat = Seat::new(&"ada".into(), None);
        seat.end(End::Now);
        seat.end(End::WhenIdle);
        assert_eq!(
            seat.sit(pin!(std::future::pending::<()>())).await,
            None,
            "the stronger end stays"
        );
    }

    #[test]
    fn whoever_has_spoken_lately_does_not_rest() {
        let seat = Seat::new(&"ada".into(), None);
        seat.doing.set(Doing::Idle);
        let looks = |count: u8| (0..count).map(|_| seat.rests()).collect::<Vec<_>>();
        assert_eq!(looks(RESTS + 2)[usize::from(RESTS) - 1..], [false, true, true]);
        seat.messages.set(1);
        assert!(!seat.rests());
        seat.doing.set(Doing::IdleInTransaction);
        assert!(!looks(RESTS + 2).contains(&true));
    }
}
