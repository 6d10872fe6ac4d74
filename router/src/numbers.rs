//! Numbers of sequences that this router has taken from the home shard and not used yet.
//!
//! A sequence that is asked seldom is asked for exactly what is needed, so its numbers have no
//! gaps; one that is asked again and again is asked for more each time. What is left of a block is
//! forgotten after some seconds, and with every change of the map: `setval()`, ALTER SEQUENCE and
//! TRUNCATE … RESTART IDENTITY make a new one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgherd_shard_map::{Epoch, TableName};

/// The most that is taken beyond what is needed.
const BLOCK_MAX: u32 = 1024;

/// A sequence that is asked again within this time is asked often.
const OFTEN: Duration = Duration::from_secs(1);

/// What is left of a block is as old as this at most: later numbers are later rows.
const KEPT: Duration = Duration::from_secs(5);

/// Above this, blocks that nobody has used lately are forgotten.
const BLOCKS_MAX: usize = 10_000;

/// Whose numbers: a role may take those that it has a right to.
type Key = (Box<str>, TableName);

/// The blocks of all sequences.
#[derive(Debug, Default)]
pub struct Numbers(Mutex<HashMap<Key, Block>>);

#[derive(Debug)]
struct Block {
    epoch: Epoch,
    left: VecDeque<i64>,
    size: u32,
    filled: Instant,
}

/// What the home shard is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub needed: u32,
    /// At least as many as are needed.
    pub wanted: u32,
}

impl Numbers {
    /// Takes up to `count` numbers into `taken`, and says what is missing.
    pub fn take(
        &self,
        user: &str,
        sequence: &TableName,
        epoch: Epoch,
        count: u32,
        now: Instant,
        taken: &mut VecDeque<i64>,
    ) -> Option<Wanted> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.len() > BLOCKS_MAX {
            blocks.retain(|_, block| now.duration_since(block.filled) < KEPT);
        }
        let block = blocks.entry((user.into(), sequence.clone())).or_insert_with(|| Block {
            epoch,
            left: VecDeque::new(),
            size: 0,
            filled: now,
        });
        let age = now.duration_since(block.filled);
        if block.epoch != epoch || age > KEPT {
            block.left.clear();
            block.epoch = epoch;
        }
        let here = block.left.len().min(count as usize);
        taken.extend(block.left.drain(..here));
        let needed = count - here as u32;
        if needed == 0 {
            return None;
        }
        block.size = match block.size {
            0 => 1,
            size if age < OFTEN => (size * 2).min(BLOCK_MAX),
            _ => 1,
        };
        block.filled = now;
        Some(Wanted { needed, wanted: needed.saturating_add(block.size - 1) })
    }

    /// Keeps what was taken beyond what was needed.
    pub fn keep(
        &self,
        user: &str,
        sequence: &TableName,
        epoch: Epoch,
        rest: impl Iterator<Item = i64>,
    ) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = blocks.get_mut(&(user.into(), sequence.clone()))
            && block.epoch == epoch
        {
            // They are older than what was taken since.
            let mut all: VecDeque<i64> = rest.collect();
            all.append(&mut block.left);
            block.left = all;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sequence {
        numbers: Numbers,
        next: i64,
        asked: Vec<u32>,
    }

    impl Sequence {
        fn new() -> Self {
            Self { numbers: Numbers::default(), next: 1, asked: Vec::new() }
        }

        fn take(&mut self, count: u32, epoch: u64, now: Instant) -> Vec<i64> {
            let name = TableName::new("public", "s");
            let epoch = Epoch(epoch);
            let mut taken = VecDeque::new();
            if let Some(wanted) = self.numbers.take("u", &name, epoch, count, now, &mut taken) {
                self.asked.push(wanted.wanted);
                let mut drawn = self.next..self.next + i64::from(wanted.wanted);
                self.next = drawn.end;
                taken.extend(drawn.by_ref().take(wanted.needed as usize));
                self.numbers.keep("u", &name, epoch, drawn);
            }
            taken.into()
        }
    }

    #[test]
    fn seldom_asked_sequences_have_no_gaps() {
        let (mut sequence, start) = (Sequence::new(), Instant::now());
        for at in 0..5 {
            let now = start + Duration::from_secs(at * 2);
            assert_eq!(sequence.take(1, 1, now), [at as i64 + 1]);
        }
        assert_eq!(sequence.asked, [1; 5]);
    }

    #[test]
    fn one_that_is_asked_often_is_asked_for_more() {
        let (mut sequence, start) = (Sequence::new(), Instant::now());
        let numbers: Vec<i64> = (0..1000).flat_map(|_| sequence.take(1, 1, start)).collect();
        assert_eq!(numbers, (1..=1000).collect::<Vec<_>>());
        assert!(sequence.asked.len() <= 10, "{:?}", sequence.asked);
        assert!(sequence.asked.iter().all(|asked| *asked <= BLOCK_MAX));
    }

    #[test]
    fn another_epoch_and_a_long_time_forget_what_is_left() {
        let (mut sequence, start) = (Sequence::new(), Instant::now());
        for _ in 0..3 {
            sequence.take(1, 1, start);
        }
        // 1, 2 and 3 of 1, 2, 3: the next block is of four.
        assert_eq!(sequence.take(1, 1, start), [4]);
        assert_eq!(sequence.take(1, 2, start), [8], "5, 6, 7 are forgotten");
        let late = start + KEPT + Duration::from_secs(1);
        let next = sequence.next;
        assert_eq!(sequence.take(2, 2, late), [next, next + 1]);
    }
}
