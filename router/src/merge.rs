//! Sorted streams of several shards, merged into one: which row is next, and which rows the client
//! gets. Pure: rows stay where they are, only their keys are here.
//!
//! A row's sort keys become one byte string whose order is theirs ([`key`]), so that comparing two
//! rows is comparing two strings. Each stream offers the key of its first row; once all that are
//! still open have done so, the smallest is taken. Equal keys leave in the order of the streams.
//!
//! A stream that is not sorted as the keys say (a shard whose collation has another version) is an
//! error, since the answer would not be sorted either.

pub mod fold;
pub mod groups;
pub mod key;
pub mod numeric;
pub mod text;

/// Which of several sorted streams has the next row.
#[derive(Debug)]
pub struct Merge {
    /// The key that each stream has offered last.
    keys: Vec<Vec<u8>>,
    /// A heap of the streams that have offered a row, the smallest first.
    heap: Vec<Entry>,
}

/// A stream, and the first bytes of its key: most comparisons end there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    start: u64,
    stream: usize,
}

/// A stream's key is smaller than the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsorted {
    pub stream: usize,
}

impl Merge {
    #[must_use]
    pub fn new(streams: usize) -> Self {
        Self { keys: vec![Vec::new(); streams], heap: Vec::with_capacity(streams) }
    }

    /// The key of a stream's next row. `key` gets other memory in exchange, to be used again.
    ///
    /// # Errors
    /// [`Unsorted`]
    pub fn offer(&mut self, stream: usize, key: &mut Vec<u8>) -> Result<(), Unsorted> {
        if *key < self.keys[stream] {
            return Err(Unsorted { stream });
        }
        std::mem::swap(&mut self.keys[stream], key);
        let mut start = [0; 8];
        let known = &self.keys[stream];
        let length = known.len().min(8);
        start[..length].copy_from_slice(&known[..length]);
        self.heap.push(Entry { start: u64::from_be_bytes(start), stream });
        let mut at = self.heap.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.before(at, parent) {
                break;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
        Ok(())
    }

    /// The keys will be those of another order: ranks are given anew for each window.
    pub fn reset(&mut self) {
        self.heap.clear();
        self.keys.iter_mut().for_each(Vec::clear);
    }

    /// The stream whose row is the next one; it has to offer another, or has ended.
    pub fn take(&mut self) -> Option<usize> {
        let first = self.heap.first()?.stream;
        self.heap.swap_remove(0);
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            if left >= self.heap.len() {
                return Some(first);
            }
            let right = left + 1;
            let child =
                if right < self.heap.len() && self.before(right, left) { right } else { left };
            if !self.before(child, at) {
                return Some(first);
            }
            self.heap.swap(at, child);
            at = child;
        }
    }

    /// The key of the row that a stream has offered last.
    #[must_use]
    pub fn key(&self, stream: usize) -> &[u8] {
        &self.keys[stream]
    }

    fn before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.heap[a], self.heap[b]);
        (a.start, &self.keys[a.stream], a.stream) < (b.start, &self.keys[b.stream], b.stream)
    }
}

/// LIMIT and OFFSET over all shards' rows.
#[derive(Debug, Clone, Copy)]
pub struct Counter {
    skip: u64,
    left: Option<u64>,
}

impl Counter {
    #[must_use]
    pub fn new(skip: u64, left: Option<u64>) -> Self {
        Self { skip, left }
    }

    /// Every row.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(0, None)
    }

    /// Whether no row will be taken any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// How many rows of one shard may be needed.
    #[must_use]
    pub fn most(&self) -> Option<u64> {
        self.left.map(|left| left.saturating_add(self.skip))
    }

    /// How many rows must come for so many that are wanted.
    #[must_use]
    pub fn needs(&self, wanted: u64) -> u64 {
        wanted.min(self.left.unwrap_or(u64::MAX)).saturating_add(self.skip)
    }

    /// Whether the next row is one that the client gets.
    pub fn take(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

/// What becomes of a row of the merged stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Send,
    Drop,
    /// Neither this row nor any that follows is wanted.
    End,
}

/// Which rows of the merged stream the client gets: DISTINCT, then OFFSET, then LIMIT.
#[derive(Debug)]
pub struct Window {
    counter: Counter,
    distinct: bool,
    ties: bool,
    /// With DISTINCT what the last row is known by, WITH TIES its whole key.
    last: Vec<u8>,
    started: bool,
}

impl Window {
    #[must_use]
    pub fn new(counter: Counter, distinct: bool, ties: bool) -> Self {
        Self { counter, distinct, ties, last: Vec::new(), started: false }
    }

    /// A row's key, of which the first `known_by` bytes say what DISTINCT looks at.
    pub fn take(&mut self, key: &[u8], known_by: usize) -> Verdict {
        // Equal rows are dropped after the last one, too.
        if self.distinct && self.started && self.last.get(..known_by) == key.get(..known_by) {
            return Verdict::Drop;
        }
        if self.counter.is_done() {
            let tie = self.ties && self.started && self.last == key;
            return if tie { Verdict::Send } else { Verdict::End };
        }
        let wanted = self.counter.take();
        if self.distinct || (self.ties && wanted) {
            self.last.clear();
            self.last.extend_from_slice(key);
            self.started = true;
        }
        if wanted { Verdict::Send } else { Verdict::Drop }
    }

    /// Whether the next row can only be dropped, and all after it.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.counter.is_done() && !(self.ties && self.started)
    }

    /// Whether the last row's key is needed for what comes next.
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.started
    }

    /// The last row's key in the order that holds from now on.
    pub fn rename_last(&mut self, key: &[u8]) {
        self.last.clear();
        self.last.extend_from_slice(key);
    }
}

#[cfg(test)]
mod tests;
