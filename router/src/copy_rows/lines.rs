//! Which line of the client's data a shard's line is: shards count only the rows that they got,
//! and errors name a line.
//!
//! Memory is bounded: only the last rows are remembered. A shard is never behind by more than what
//! fits into the buffers between the router and it, so that is enough in practice; an older line
//! is not named at all.

use std::collections::VecDeque;

/// Bytes that are remembered per shard, two or three for a row.
const KEPT: usize = 1 << 20;

#[derive(Debug, Default)]
pub struct LineMap {
    /// Per row: how many lines on the shard, then of the client's data, it is after the one
    /// before. Seven bits per byte, the highest set where more follow.
    steps: VecDeque<u8>,
    /// The lines of the row before the first that is remembered.
    before: (u64, u64),
    last: (u64, u64),
    /// Lines that every shard has.
    header: u64,
}

impl LineMap {
    /// The shard's data starts with a header of so many lines.
    #[must_use]
    pub fn after_header(height: u64) -> Self {
        Self { steps: VecDeque::new(), before: (height, 0), last: (height, 0), header: height }
    }

    /// Whether the shard has got no line yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.0 == 0
    }

    /// The next row of the shard has so many lines there and ends in this line of the client's.
    pub fn push(&mut self, height: u64, client: u64) {
        self.put(height);
        self.put(client.saturating_sub(self.last.1));
        self.last = (self.last.0 + height, client);
        while self.steps.len() > KEPT {
            let (Some(shard), Some(client)) = (self.pop(), self.pop()) else { break };
            self.before = (self.before.0 + shard, self.before.1 + client);
        }
    }

    /// The line of the client's data for a line of the shard's.
    #[must_use]
    pub fn client_line(&self, wanted: u64) -> Option<u64> {
        if wanted <= self.header {
            return Some(wanted);
        }
        let mut steps = self.steps.iter().copied();
        let (mut shard, mut client) = self.before;
        while shard < wanted {
            shard += read(&mut || steps.next())?;
            client += read(&mut || steps.next())?;
        }
        (shard == wanted && client > 0).then_some(client)
    }

    fn put(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.steps.push_back(value as u8 | 0x80);
            value >>= 7;
        }
        self.steps.push_back(value as u8);
    }

    fn pop(&mut self) -> Option<u64> {
        read(&mut || self.steps.pop_front())
    }
}

fn read(next: &mut impl FnMut() -> Option<u8>) -> Option<u64> {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}
