//! Sorted rows of portals on several shards: a piece of each waits here, and the first rows of all
//! are merged. By keys, or by the ranks that PostgreSQL gives the rows that wait.

use bytes::Bytes;
use pgherd_shard_map::ShardId;

use super::super::super::Conn;
use super::super::super::ordered::{Compare, Head, Sorted, put_row, read_head};
use super::super::super::ranked::{Row, Waiting, shown_at};
use super::{OnShards, Part, Way};
use crate::error::Failure;
use crate::merge::{Merge, Verdict, Window};

/// Of a shard whose rows' size is not known yet.
const FIRST_PIECE: u64 = 10;

/// A piece is about as large as this, and never of more rows than that.
const PIECE: u64 = 256 << 10;
const PIECE_ROWS: u64 = 5000;

pub(super) struct Order {
    sorted: Sorted,
    pub(super) window: Window,
    merge: Merge,
    heads: Vec<Head>,
    /// Parts whose first row the merge does not know yet.
    lacking: Vec<usize>,
    /// The rows that wait have ranks, where they need them.
    ranked: bool,
    /// The last row that went.
    last: Option<Bytes>,
}

impl Order {
    pub(super) fn new(sorted: Sorted, window: Window, parts: usize) -> Self {
        Self {
            sorted,
            window,
            merge: Merge::new(parts),
            heads: vec![Head::default(); parts],
            lacking: (0..parts).collect(),
            ranked: false,
            last: None,
        }
    }
}

impl Part {
    pub(super) fn new(shard: ShardId) -> Self {
        Self { shard, complete: false, piece: FIRST_PIECE }
    }

    /// What came last says how many rows make a piece.
    fn learn(&mut self, rows: u64, bytes: u64) {
        if let Some(size) = bytes.checked_div(rows) {
            let fitting = PIECE / size.max(1);
            self.piece = fitting.min(8 * self.piece).clamp(1, PIECE_ROWS);
        }
    }
}

impl Conn {
    pub(super) async fn pull_sorted(
        &mut self,
        rows: &mut OnShards,
        wanted: Option<u64>,
        shows: bool,
    ) -> Result<u64, Failure> {
        let mut sent = 0;
        while !rows.is_done() && wanted.is_none_or(|wanted| sent < wanted) {
            if !self.offer_rows(rows).await? {
                continue;
            }
            let OnShards { waiting, way: Way::Sorted(order), .. } = rows else { break };
            let Some(number) = order.merge.take() else { break };
            let Some(row) = waiting[number].pop() else { break };
            order.lacking.push(number);
            let known_by = order.heads[number].known_by;
            match order.window.take(order.merge.key(number), known_by) {
                Verdict::Send => {
                    sent += 1;
                    if shows {
                        let shown = &row.frame[row.shown_at..];
                        put_row(&mut self.client.out, shown, order.sorted.shown);
                    }
                }
                Verdict::Drop => {}
                Verdict::End => break,
            }
            order.last = Some(row.frame);
            self.client.flush_if_high().await?;
        }
        Ok(sent)
    }

    /// Sees that the merge knows the first row of every part that has one. `false`: they have to be
    /// offered anew.
    async fn offer_rows(&mut self, rows: &mut OnShards) -> Result<bool, Failure> {
        let OnShards { name, parts, waiting, way: Way::Sorted(order) } = rows else {
            return Ok(true);
        };
        let Order { sorted, window, merge, heads, lacking, ranked, last } = &mut **order;
        match &sorted.compare {
            Compare::Native(rules) => {
                let dry =
                    |number, waiting: &Waiting| lacking.contains(&number) && waiting.is_empty();
                self.fill_parts(name, parts, waiting, sorted, dry).await?;
                let mut key = Vec::new();
                for number in lacking.drain(..) {
                    let Some(row) = waiting[number].first() else { continue };
                    key.clear();
                    heads[number] = read_head(&row.frame, rules, sorted, &mut key)?;
                    if merge.offer(number, &mut key).is_err() {
                        return Err(self.unsorted(self.at_of(parts[number].shard)?));
                    }
                }
                Ok(true)
            }
            Compare::Ranked(ranking) => {
                if !*ranked {
                    let low = |_, waiting: &Waiting| waiting.bytes() < PIECE / 2;
                    self.fill_parts(name, parts, waiting, sorted, low).await?;
                    if waiting.iter().all(Waiting::is_empty) {
                        return Ok(true);
                    }
                    let at = self.at_of(parts[0].shard)?;
                    let remembered = last.as_ref().filter(|_| window.remembers());
                    if let Some(rank) = self.rank(at, ranking, remembered, waiting).await? {
                        window.rename_last(&rank);
                    }
                    merge.reset();
                    *lacking = (0..parts.len()).collect();
                    *ranked = true;
                }
                for number in lacking.drain(..) {
                    match waiting[number].first() {
                        Some(row) => {
                            heads[number].known_by = row.rank.len() / 2;
                            if merge.offer(number, &mut row.rank.to_vec()).is_err() {
                                return Err(self.unsorted(self.at_of(parts[number].shard)?));
                            }
                        }
                        None => *ranked &= parts[number].complete,
                    }
                }
                Ok(*ranked)
            }
        }
    }

    /// Gets the next piece for each part that wants one; the shards work at the same time.
    async fn fill_parts(
        &mut self,
        name: &[u8],
        parts: &mut [Part],
        waiting: &mut [Waiting],
        sorted: &Sorted,
        wants: impl Fn(usize, &Waiting) -> bool,
    ) -> Result<(), Failure> {
        let mut asked = Vec::new();
        for (number, (part, waiting)) in parts.iter_mut().zip(waiting).enumerate() {
            if !part.complete && wants(number, waiting) {
                let at = self.at_of(part.shard)?;
                self.send_execute(at, name, Some(part.piece)).await?;
                asked.push((at, part, waiting));
            }
        }
        let mut failure = None;
        for (at, part, waiting) in asked {
            let (mut rows, mut bytes, mut wrong) = (0, 0, None);
            let read = self.read_piece(at, |_, frame| match shown_at(&frame, sorted) {
                Ok(shown_at) => {
                    rows += 1;
                    bytes += frame.len() as u64;
                    waiting.push(Row { frame, shown_at, rank: [0; 16] });
                }
                Err(error) => wrong = Some(error),
            });
            match read.await {
                Ok(complete) => part.complete = complete,
                Err(error @ Failure::Shard(_)) => drop(failure.get_or_insert(error)),
                Err(error) => return Err(error),
            }
            if let Some(error) = wrong {
                failure.get_or_insert_with(|| error.into());
            }
            part.learn(rows, bytes);
        }
        failure.map_or(Ok(()), Err)
    }
}
