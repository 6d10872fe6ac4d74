//! A statement that a shard has turned away, since its rows are another shard's by now or will be
//! in a moment (`reshard`): it has done nothing, so it is run again where the next map says.
//!
//! Only while the map says that rows move, and only where nothing of the reply has left: the error
//! goes to the client, as the serialization failure that it is, if the transaction has written on
//! that shard before, or reads by a snapshot of it.

use std::time::Duration;

use super::Conn;
use crate::error::Failure;
use crate::reshard::GATE;
use crate::session::Transaction;
use crate::wire::{HEADER, backend};

/// How long a statement waits for the map that says where its rows are.
const MAP_WAIT: Duration = Duration::from_secs(15);

/// What a statement is told that has waited for a connection while its rows changed owners.
pub(super) const MOVED_MEANWHILE: &str =
    "rows of the statement have moved to other shards meanwhile";

/// A statement in hand that may be turned away. Boxed, since it is there only while rows move.
#[derive(Debug)]
pub(super) struct Turning {
    pub(super) state: TurnState,
    /// Output beyond this length is its own.
    pub(super) out: usize,
    /// The client's messages, where nobody else has them.
    messages: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnState {
    May,
    Turned,
    /// No map has come that says where its rows are: the shard's error is the client's.
    GivenUp,
}

/// Whether an ErrorResponse is a closed gate's.
pub(super) fn is_gate(frame: &[u8]) -> bool {
    backend::sqlstate(frame) == *b"40001"
        && backend::report_field(&frame[HEADER.min(frame.len())..], b'n') == Some(GATE)
}

impl Conn {
    /// Before a statement is sent to one shard: whether it can be run again elsewhere. `hidden`
    /// says that the server joins with it; `size` of the client's buffer are its messages, if they
    /// are still there.
    pub fn may_turn(&mut self, at: usize, hidden: u32, size: usize) {
        let before = self.turning.take();
        if self.planning.map.moving.is_empty()
            || before.is_some_and(|before| before.state == TurnState::GivenUp)
        {
            return;
        }
        let may = match self.session.transaction.block() {
            None => true,
            Some(block) if block.map.is_some() => false,
            Some(block) => {
                let begin = block.begin.to_ascii_lowercase();
                hidden > 0 || !self.servers[at].wrote && !begin.contains("isolation")
            }
        };
        if may {
            let (out, messages) = (self.client.out.len(), self.client.inbuf[..size].into());
            self.turning = Some(Box::new(Turning { state: TurnState::May, out, messages }));
        }
    }

    /// After its reply: whether it was turned away.
    #[must_use]
    pub fn is_turned(&self) -> bool {
        self.turning.as_ref().is_some_and(|turning| turning.state == TurnState::Turned)
    }

    /// If it was, a newer map has come, and it is to be planned anew: its messages.
    pub async fn was_turned(&mut self, at: usize) -> Option<Box<[u8]>> {
        let turned = self.turning.take().filter(|turning| turning.state == TurnState::Turned);
        let messages = turned?.messages;
        Box::pin(self.turn(at)).await;
        Some(messages)
    }

    async fn turn(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if server.joined {
            // The other shards' parts of the transaction stand.
            let rolled_back = server.run("ROLLBACK").await.is_ok_and(|reply| reply.error.is_none());
            server.spoiled |= !rolled_back;
            server.joined = false;
            server.wrote = false;
        }
        self.release();
        if !self.await_newer_map().await {
            let (state, messages) = (TurnState::GivenUp, Box::default());
            self.turning = Some(Box::new(Turning { state, out: 0, messages }));
        }
    }

    /// Whether one has come.
    async fn await_newer_map(&mut self) -> bool {
        let old = self.planning.map.epoch.0;
        let mut loaded = self.worker.shared.loaded.subscribe();
        let newer = loaded.wait_for(|epoch| *epoch > old);
        let came = matches!(tokio::time::timeout(MAP_WAIT, newer).await, Ok(Ok(_)));
        self.refresh_planning();
        came
    }

    /// Whether a statement that has failed on one of several shards can be run again as a whole:
    /// nothing was before it, and nothing of it has left.
    pub(super) async fn was_turned_everywhere(&mut self, failure: &Failure, alone: bool) -> bool {
        let turned = match failure {
            Failure::Shard(frame) => is_gate(frame),
            Failure::Statement(error) => error.message == MOVED_MEANWHILE,
            _ => false,
        };
        if !alone || self.planning.map.moving.is_empty() || !turned {
            return false;
        }
        self.roll_back_all().await;
        self.session.transaction = Transaction::Idle;
        self.await_newer_map().await
    }
}
