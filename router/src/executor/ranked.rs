//! Sorted rows whose keys only PostgreSQL can compare: text in a collation of the operating system or
//! of ICU, enums, arrays' elements, types of extensions.
//!
//! Of each shard's stream a window is kept. PostgreSQL ranks the keys of all windows together; by
//! these ranks rows are merged until a window is empty whose shard has more. So memory is that of
//! the windows, and the order is PostgreSQL's, whatever the type. The shard that ranks is asked over
//! a connection whose rows have all come (with a small LIMIT that is always so), or over one apart.

use std::collections::VecDeque;
use std::fmt::Write;

use bytes::Bytes;
use pgherd_planner::Ordered;

use super::Conn;
use super::combine::{PartialType, final_request, put_array_head};
use super::ordered::{Sorted, put_row};
use super::source::{Next, Source, State};
use crate::client::OUT_HIGH;
use crate::error::{ErrorInfo, Failure};
use crate::merge::{Merge, Verdict, Window};
use crate::wire::backend::ColumnDescription;
use crate::wire::{HEADER, Reader, backend};

/// What all windows together may hold.
const WINDOWS: usize = 4 << 20;

/// What one may hold, which is what PostgreSQL ranks for each shard at a time.
const WINDOW: usize = 512 << 10;

/// How PostgreSQL is asked to rank rows.
pub(super) struct Ranked {
    types: Vec<PartialType>,
    sql: String,
    /// DISTINCT looks at fewer keys than the order does: rows have two ranks.
    two: bool,
}

/// The rows of one shard that have come and are not merged yet.
#[derive(Default)]
pub(super) struct Waiting {
    rows: VecDeque<Row>,
    bytes: usize,
}

pub(super) struct Row {
    /// A whole DataRow.
    pub(super) frame: Bytes,
    pub(super) shown_at: usize,
    /// By which it is merged, once it is known.
    pub(super) rank: Rank,
}

impl Waiting {
    pub(super) fn push(&mut self, row: Row) {
        self.bytes += row.frame.len();
        self.rows.push_back(row);
    }

    pub(super) fn pop(&mut self) -> Option<Row> {
        let row = self.rows.pop_front()?;
        self.bytes -= row.frame.len();
        Some(row)
    }

    pub(super) fn first(&self) -> Option<&Row> {
        self.rows.front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}

/// As bytes that compare.
pub(super) type Rank = [u8; 16];

impl Conn {
    /// How these keys are ranked; `None` where those of several shards cannot meet.
    pub(super) async fn ranked(
        &mut self,
        at: usize,
        ordered: &Ordered,
        keys: &[ColumnDescription],
    ) -> Result<Option<Ranked>, Failure> {
        let types = self.types(at, keys).await?;
        if types.iter().any(PartialType::stays_apart) {
            return Ok(None);
        }
        let distinct = usize::from(ordered.distinct);
        let two = distinct > 0 && distinct < ordered.keys.len();
        Ok(Some(Ranked { sql: rank_query(ordered, &types, two), types, two }))
    }

    pub(super) async fn merge_ranked(
        &mut self,
        sources: &mut [Source],
        ranked: &Ranked,
        sorted: &Sorted,
        window: &mut Window,
    ) -> Result<u64, Failure> {
        let mut apart = None;
        let merged = self.merge_windows(sources, ranked, sorted, window, &mut apart).await;
        if apart.is_some() {
            self.close_scratch();
        }
        merged
    }

    async fn merge_windows(
        &mut self,
        sources: &mut [Source],
        ranked: &Ranked,
        sorted: &Sorted,
        window: &mut Window,
        apart: &mut Option<usize>,
    ) -> Result<u64, Failure> {
        let most = (WINDOWS / sources.len()).clamp(1, WINDOW);
        let mut waiting: Vec<Waiting> = sources.iter().map(|_| Waiting::default()).collect();
        let mut merge = Merge::new(sources.len());
        let mut last: Option<Bytes> = None;
        let mut key = Vec::new();
        let mut sent = 0;
        loop {
            self.fill_windows(sources, &mut waiting, sorted, most).await?;
            if waiting.iter().all(Waiting::is_empty) {
                return Ok(sent);
            }
            let at = self.judge(sources, apart).await?;
            let remembered = last.as_ref().filter(|_| window.remembers());
            let renamed = self.rank(at, ranked, remembered, &mut waiting).await?;
            if let Some(rank) = renamed {
                window.rename_last(&rank);
            }
            merge.reset();
            let mut lacking: Vec<usize> = (0..sources.len()).collect();
            loop {
                let mut dry = false;
                for number in lacking.drain(..) {
                    match waiting[number].first() {
                        Some(row) => {
                            key.clear();
                            key.extend_from_slice(&row.rank);
                            if merge.offer(number, &mut key).is_err() {
                                return Err(self.unsorted(sources[number].at));
                            }
                        }
                        None => dry |= sources[number].state < State::Complete,
                    }
                }
                if dry {
                    break;
                }
                let Some(number) = merge.take() else { break };
                let Some(row) = waiting[number].pop() else { break };
                match window.take(&row.rank, 8) {
                    Verdict::Send => {
                        put_row(&mut self.client.out, &row.frame[row.shown_at..], sorted.shown);
                        sent += 1;
                    }
                    Verdict::Drop => {}
                    Verdict::End => return Ok(sent),
                }
                if window.is_done() {
                    return Ok(sent);
                }
                last = Some(row.frame);
                lacking.push(number);
                if self.client.out.len() >= OUT_HIGH {
                    self.client.flush().await?;
                }
            }
        }
    }

    /// Reads until each window is full, or its shard has sent all.
    async fn fill_windows(
        &mut self,
        sources: &mut [Source],
        waiting: &mut [Waiting],
        sorted: &Sorted,
        most: usize,
    ) -> Result<(), Failure> {
        loop {
            let mut lacking = Vec::new();
            for (number, waiting) in waiting.iter_mut().enumerate() {
                while waiting.bytes < most {
                    match self.next(&mut sources[number]).await? {
                        Next::Row(size) => {
                            let inbuf = &mut self.servers[sources[number].at].inbuf;
                            let frame = inbuf.split_to(size).freeze();
                            let shown_at = shown_at(&frame, sorted)?;
                            waiting.push(Row { frame, shown_at, rank: [0; 16] });
                        }
                        Next::Wait => {
                            lacking.push(number);
                            break;
                        }
                        Next::End => break,
                    }
                }
            }
            if lacking.is_empty() {
                return Ok(());
            }
            self.wait_for(sources, lacking.into_iter()).await?;
        }
    }

    /// Has PostgreSQL rank all rows that wait, and the last that went: its rank is returned.
    pub(super) async fn rank(
        &mut self,
        at: usize,
        ranked: &Ranked,
        last: Option<&Bytes>,
        waiting: &mut [Waiting],
    ) -> Result<Option<Rank>, Failure> {
        let frames = || {
            last.into_iter().chain(waiting.iter().flat_map(|w| w.rows.iter().map(|row| &row.frame)))
        };
        let count = frames().count();
        let mut arrays: Vec<Vec<u8>> = Vec::with_capacity(ranked.types.len());
        for of in &ranked.types {
            let mut array = Vec::new();
            put_array_head(of.oid, count, &mut array);
            arrays.push(array);
        }
        for frame in frames() {
            let mut reader = Reader::new(&frame[HEADER..]);
            reader.count().map_err(wrong_shape)?;
            for array in &mut arrays {
                let value = reader.value().map_err(wrong_shape)?;
                let length = value.map_or(-1, |value| value.len() as i32);
                array.extend_from_slice(&length.to_be_bytes());
                array.extend_from_slice(value.unwrap_or_default());
            }
        }
        let reply = self.request(at, &final_request(&ranked.sql, &arrays, &[0, 1, 0, 1])).await?;
        let row = reply.rows.first().map(|row| backend::row_values(row)).transpose();
        let ranks = row.ok().flatten().unwrap_or_default();
        let mut all = Ranks::of(ranks.first().copied().flatten(), count)?;
        let mut parts = match ranked.two {
            true => Some(Ranks::of(ranks.get(1).copied().flatten(), count)?),
            false => None,
        };
        let mut next = || -> Result<Rank, ErrorInfo> {
            let whole = all.next()?;
            let part = parts.as_mut().map_or(Ok(whole), Ranks::next)?;
            let mut rank = [0; 16];
            rank[..8].copy_from_slice(&part);
            rank[8..].copy_from_slice(&whole);
            Ok(rank)
        };
        let renamed = last.map(|_| next()).transpose()?;
        for row in waiting.iter_mut().flat_map(|waiting| &mut waiting.rows) {
            row.rank = next()?;
        }
        Ok(renamed)
    }
}

/// The numbers of an `int8[]` in its binary form.
struct Ranks<'a> {
    rest: Reader<'a>,
}

impl<'a> Ranks<'a> {
    fn of(array: Option<&'a [u8]>, count: usize) -> Result<Self, ErrorInfo> {
        let mut rest = Reader::new(array.unwrap_or_default());
        let mut head = [0; 5];
        for word in &mut head {
            *word = rest.i32().map_err(wrong_shape)?;
        }
        match head[3] as usize == count {
            true => Ok(Self { rest }),
            false => Err(ErrorInfo::new("XX000", "a shard ranked other rows than it was asked to")),
        }
    }

    fn next(&mut self) -> Result<[u8; 8], ErrorInfo> {
        let value = self.rest.value().map_err(wrong_shape)?;
        value
            .and_then(|value| value.try_into().ok())
            .ok_or_else(|| wrong_shape(crate::wire::Malformed::Rule("no rank")))
    }
}

fn wrong_shape(_: crate::wire::Malformed) -> ErrorInfo {
    ErrorInfo::new("XX000", "a shard sent a row of another shape")
}

/// Where the client's columns begin.
pub(super) fn shown_at(frame: &[u8], sorted: &Sorted) -> Result<usize, ErrorInfo> {
    let mut reader = Reader::new(&frame[HEADER..]);
    if reader.count().map_err(wrong_shape)? != usize::from(sorted.hidden + sorted.shown) {
        return Err(ErrorInfo::new("XX000", "a shard sent a row of another shape"));
    }
    for _ in 0..sorted.hidden {
        reader.value().map_err(wrong_shape)?;
    }
    Ok(frame.len() - reader.rest().len())
}

/// Ranks in the order in which the keys are given, equal keys alike.
fn rank_query(ordered: &Ordered, types: &[PartialType], two: bool) -> String {
    let order = |keys: usize| -> String {
        let keys = ordered.keys[..keys].iter().enumerate().map(|(number, key)| {
            let collation = key.collation.as_ref();
            let collation = collation.map_or_else(String::new, |c| format!(" COLLATE {c}"));
            let direction = if key.descending { "DESC" } else { "ASC" };
            let nulls = if key.nulls_first { "FIRST" } else { "LAST" };
            format!("c{number}{collation} {direction} NULLS {nulls}")
        });
        keys.collect::<Vec<String>>().join(", ")
    };
    let rank = |keys| format!("pg_catalog.dense_rank() OVER (ORDER BY {})", order(keys));
    let mut sql = "SELECT pg_catalog.array_agg(pgherd_whole ORDER BY n)".to_owned();
    let mut ranks = format!("{} AS pgherd_whole", rank(ordered.keys.len()));
    if two {
        sql.push_str(", pg_catalog.array_agg(pgherd_part ORDER BY n)");
        let _ = write!(ranks, ", {} AS pgherd_part", rank(ordered.distinct.into()));
    }
    let lists: Vec<String> = (1..)
        .zip(types)
        .map(|(number, of)| format!("pg_catalog.unnest(${number}::{}[])", of.name))
        .collect();
    let columns: Vec<String> = (0..types.len()).map(|number| format!("c{number}")).collect();
    let _ = write!(
        sql,
        " FROM (SELECT n, {ranks} FROM ROWS FROM ({}) WITH ORDINALITY AS pgherd_keys({}, n)) \
         AS pgherd_ranks",
        lists.join(", "),
        columns.join(", ")
    );
    sql
}
