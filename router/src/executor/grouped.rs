//! Groups of several shards: each shard aggregates its own rows and sends its groups in order, the
//! router adds up those that meet, and PostgreSQL finishes them a part at a time.
//!
//! So the final statement sees each group once, and memory is that of one part. Where it has to see
//! all groups together (ORDER BY, LIMIT, DISTINCT) they are collected before, each of them once.

use bytes::Bytes;
use pgherd_planner::{Combine, PartialSum};

use super::combine::{
    PartialType, check_columns, final_request, final_statement, put_array_head, too_many,
};
use super::many::{Rows, Task};
use super::ordered::Source;
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::merge::Merge;
use crate::merge::fold::{Fold, Unfolded};
use crate::merge::key::{Kind, Rule, is_text};
use crate::wire::{HEADER, Reader, frontend, put_frame};

/// So many bytes of groups are finished at a time.
const PART: usize = 1 << 20;

/// The most that all groups together may hold, where they are finished at once.
const ALL: usize = 256 << 20;

/// How groups are compared and added up.
pub(super) struct Grouped {
    pub(super) sql: String,
    rules: Vec<Rule>,
    folds: Vec<Fold>,
}

/// Groups that PostgreSQL has not finished yet, as arrays without their heads.
struct Part {
    arrays: Vec<Vec<u8>>,
    rows: usize,
    bytes: usize,
}

/// One group's values: those that it is known by, and what has been added up.
#[derive(Default)]
struct Group {
    key: Vec<u8>,
    /// The group's own values, as the first shard has sent them.
    values: Vec<Option<Vec<u8>>>,
    open: bool,
}

/// What a statement of groups is run with.
struct Run<'a> {
    grouped: &'a Grouped,
    combine: &'a Combine,
    types: &'a [PartialType],
    final_sql: String,
    results: &'a [u8],
    original: &'a [u8],
    /// As the client is told of its columns.
    shown: Bytes,
    simple: bool,
}

impl Grouped {
    /// `None` where the router cannot compare the groups, or add up what belongs to them.
    /// `bytewise`: the database's own collation compares bytes; `unconverted`: texts arrive as the
    /// shards compare them.
    pub(super) fn of(
        combine: &Combine,
        types: &[PartialType],
        bytewise: bool,
        unconverted: bool,
    ) -> Option<Self> {
        let (groups, sums) = types.split_at_checked(combine.groups.len())?;
        if groups.is_empty() || sums.len() != combine.sums.len() {
            return None;
        }
        let rule = |of: &PartialType| {
            let kind = Kind::of(of.oid).filter(|_| unconverted || !is_text(of.oid))?;
            Some(Rule { kind, descending: false, nulls_first: false })
        };
        let rules = groups.iter().map(rule).collect::<Option<Vec<Rule>>>()?;
        let fold = |(sum, of): (&PartialSum, &PartialType)| {
            let ordered =
                || Kind::of(of.oid).filter(|_| bytewise && unconverted || !is_text(of.oid));
            Some(match (sum, of.oid) {
                (PartialSum::Sum, 20) => Fold::AddInteger,
                (PartialSum::Sum, 1700) => Fold::AddNumeric,
                (PartialSum::Sum, 701) => Fold::AddDouble,
                (PartialSum::Sum, 700) => Fold::AddReal,
                (PartialSum::Sum, _) => return None,
                (PartialSum::Min, _) => Fold::Least(ordered()?),
                (PartialSum::Max, _) => Fold::Greatest(ordered()?),
                (PartialSum::And, _) => Fold::And,
                (PartialSum::Or, _) => Fold::Or,
                (PartialSum::Any, _) => Fold::First,
            })
        };
        let folds = combine.sums.iter().zip(sums).map(fold).collect::<Option<Vec<Fold>>>()?;
        let by_bytes =
            |group: usize| !bytewise && groups.get(group).is_some_and(|of| is_text(of.oid));
        Some(Self { sql: combine.shard_query(Some(&by_bytes)), rules, folds })
    }
}

impl Conn {
    pub(super) async fn run_grouped(
        &mut self,
        mut tasks: Vec<Task>,
        grouped: &Grouped,
        combine: &Combine,
        types: &[PartialType],
        original: &Bytes,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let tail = statement.portal.map(|portal| frontend::BindTail::new(&portal.tail));
        let results = match &tail {
            Some(Ok(tail)) => tail.results,
            _ => &[0, 0],
        };
        let run = Run {
            combine,
            types,
            final_sql: final_statement(combine, types, statement.portal)?,
            results,
            original,
            shown: self.with_home_oids(tasks[0].at, original.clone()).await,
            simple: statement.portal.is_none(),
            grouped,
        };
        for task in &mut tasks {
            task.sql = Some(grouped.sql.clone());
        }
        self.bind_together(&mut tasks, statement, Rows::Binary).await?;
        let mut sources = self.send_to_sources(&tasks, Rows::Binary, statement, false).await?;
        let mut apart = None;
        let mut described = false;
        let sent = self.merge_groups(&mut sources, &run, &mut apart, &mut described).await;
        if apart.is_some() {
            self.close_scratch();
        }
        match sent {
            Ok(sent) => {
                self.end_sources(&mut sources).await?;
                self.client.complete(&format!("SELECT {sent}"));
                Ok(())
            }
            Err(failure) => {
                // The statement ran: PostgreSQL would have described its rows.
                if run.simple && !described && sources.iter().any(Source::has_begun) {
                    self.client.out.extend_from_slice(&run.shown);
                }
                Err(self.give_up(&mut sources, failure).await)
            }
        }
    }

    async fn merge_groups(
        &mut self,
        sources: &mut [Source],
        run: &Run<'_>,
        apart: &mut Option<usize>,
        described: &mut bool,
    ) -> Result<u64, Failure> {
        let mut merge = Merge::new(sources.len());
        let mut rows = vec![0; sources.len()];
        let mut lacking: Vec<usize> = (0..sources.len()).collect();
        let mut key = Vec::new();
        let mut group = Group { values: vec![None; run.types.len()], ..Group::default() };
        let mut part = Part { arrays: vec![Vec::new(); run.types.len()], rows: 0, bytes: 0 };
        let mut sent = 0;
        loop {
            let read = |number: usize, frame: &[u8], key: &mut Vec<u8>| {
                rows[number] = frame.len();
                read_key(frame, &run.grouped.rules, key).map_err(Failure::from)
            };
            self.offer_heads(sources, &mut merge, &mut lacking, &mut key, read).await?;
            let taken = merge.take();
            let same = taken.is_some_and(|number| group.open && merge.key(number) == group.key);
            if group.open && !same {
                part.push(&mut group);
                if part.bytes > ALL {
                    return Err(too_many(ALL).into());
                }
                if part.bytes >= PART && !run.combine.whole {
                    sent += self.finish_part(sources, run, &mut part, apart, described).await?;
                }
            }
            let Some(number) = taken else { break };
            let inbuf = &mut self.servers[sources[number].at].inbuf;
            let frame = inbuf.split_to(rows[number]);
            if !same {
                group.start(merge.key(number));
            }
            group.add(&frame, run)?;
            lacking.push(number);
        }
        // Without a group, too: the client's columns are described.
        Ok(sent + self.finish_part(sources, run, &mut part, apart, described).await?)
    }

    /// Has PostgreSQL finish some groups, and passes their rows on.
    async fn finish_part(
        &mut self,
        sources: &mut [Source],
        run: &Run<'_>,
        part: &mut Part,
        apart: &mut Option<usize>,
        described: &mut bool,
    ) -> Result<u64, Failure> {
        if *described && part.rows == 0 {
            return Ok(0);
        }
        let at = self.judge(sources, apart).await?;
        let arrays: Vec<Vec<u8>> = part
            .arrays
            .iter_mut()
            .zip(run.types)
            .map(|(values, of)| {
                let mut array = Vec::with_capacity(values.len() + 20);
                put_array_head(of.oid, part.rows, &mut array);
                array.append(values);
                array
            })
            .collect();
        (part.rows, part.bytes) = (0, 0);
        let reply = self.request(at, &final_request(&run.final_sql, &arrays, run.results)).await?;
        if !*described {
            check_columns(&reply, run.original)?;
            *described = true;
            if run.simple {
                self.client.out.extend_from_slice(&run.shown);
            }
        }
        for row in &reply.rows {
            put_frame(&mut self.client.out, b'D', |out| out.extend_from_slice(row));
            self.client.flush_if_high().await?;
        }
        Ok(reply.rows.len() as u64)
    }
}

impl Part {
    /// Takes a group that is complete.
    fn push(&mut self, group: &mut Group) {
        for (array, value) in self.arrays.iter_mut().zip(&mut group.values) {
            let length = value.as_ref().map_or(-1, |value| value.len() as i32);
            array.extend_from_slice(&length.to_be_bytes());
            let value = value.take().unwrap_or_default();
            array.extend_from_slice(&value);
            self.bytes += 4 + value.len();
        }
        self.rows += 1;
        group.open = false;
    }
}

impl Group {
    fn start(&mut self, key: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(key);
    }

    /// Adds a whole DataRow of a shard.
    fn add(&mut self, frame: &[u8], run: &Run<'_>) -> Result<(), ErrorInfo> {
        let known = run.grouped.rules.len();
        let mut reader = Reader::new(&frame[HEADER..]);
        reader.count().map_err(|_| wrong_row())?;
        for (number, value) in self.values.iter_mut().enumerate() {
            let next = reader.value().map_err(|_| wrong_row())?;
            match number.checked_sub(known).and_then(|sum| run.grouped.folds.get(sum)) {
                Some(fold) => fold.add(value, next).map_err(unfolded)?,
                None if !self.open => *value = next.map(<[u8]>::to_vec),
                None => {}
            }
        }
        self.open = true;
        Ok(())
    }
}

fn unfolded(error: Unfolded) -> ErrorInfo {
    match error {
        Unfolded::OutOfRange => ErrorInfo::new("22003", "bigint out of range"),
        Unfolded::Malformed => wrong_row(),
    }
}

fn wrong_row() -> ErrorInfo {
    ErrorInfo::new("XX000", "a shard sent a row of another shape")
}

fn read_key(frame: &[u8], rules: &[Rule], key: &mut Vec<u8>) -> Result<(), ErrorInfo> {
    let mut reader = Reader::new(&frame[HEADER..]);
    reader.count().map_err(|_| wrong_row())?;
    for rule in rules {
        let value = reader.value().map_err(|_| wrong_row())?;
        rule.append(value, key).map_err(|_| wrong_row())?;
    }
    Ok(())
}
