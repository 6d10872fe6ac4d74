//! Groups of several shards: each shard aggregates its own rows, the router adds up the groups that
//! meet, and PostgreSQL finishes them a part at a time. Where nothing is left to be computed, and the
//! router can write the values, they go to the client as they are.
//!
//! The groups are in a hash table (`merge::groups`), so the shards need not sort. Where that would
//! grow too large they are asked again, and send their groups in order: then those that meet are
//! next to each other, and memory is that of one part. Where the final statement has to see all
//! groups together (ORDER BY, LIMIT, DISTINCT) they are collected before, each of them once.

use bytes::{Buf, Bytes};
use pgherd_planner::{Combine, PartialSum};

use super::combine::{
    PartialType, check_columns, final_request, final_statement, put_array_head, too_many,
};
use super::many::{Rows, Task};
use super::source::{Next, Source};
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::merge::fold::{Fold, Unfolded};
use crate::merge::groups::{self, Groups};
use crate::merge::key::{Kind, Rule, is_text};
use crate::merge::{Merge, text};
use crate::wire::backend::ColumnDescription;
use crate::wire::{self, HEADER, Reader, backend, frontend, put_frame};

/// So many bytes of groups are finished at a time.
const PART: usize = 1 << 20;

/// The most that the hash table may hold; more groups are merged in order.
const TABLE: usize = 64 << 20;

/// The most that all groups together may hold, where they are finished at once.
const ALL: usize = 256 << 20;

/// How groups are compared and added up.
pub(super) struct Grouped {
    /// For groups in order.
    sql: String,
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

    /// Whether PostgreSQL has nothing to do with the groups any more, for a client that wants text.
    pub(super) fn are_shown_directly(combine: &Combine, types: &[PartialType]) -> bool {
        let known =
            |column: &u16| types.get(usize::from(*column)).is_some_and(|of| text::knows(of.oid));
        combine.direct.as_ref().is_some_and(|columns| columns.iter().all(known))
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
        if self.run_hashed(&mut tasks, &run, statement).await? {
            return Ok(());
        }
        for task in &mut tasks {
            task.sql = Some(grouped.sql.clone());
            task.portal = None;
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

    /// All groups in one table. `false`: they are too many for that, and the client has nothing yet.
    async fn run_hashed(
        &mut self,
        tasks: &mut [Task],
        run: &Run<'_>,
        statement: Statement<'_>,
    ) -> Result<bool, Failure> {
        self.bind_together(tasks, statement, Rows::Binary).await?;
        let mut sources = self.send_to_sources(tasks, Rows::Binary, statement, false).await?;
        let mut described = false;
        match self.hash_groups(&mut sources, run, &mut described).await {
            Ok(sent) => {
                self.end_sources(&mut sources).await?;
                if let Some(sent) = sent {
                    self.client.complete(&format!("SELECT {sent}"));
                }
                Ok(sent.is_some())
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

    /// How many rows the client has got; `None` where there are too many groups.
    async fn hash_groups(
        &mut self,
        sources: &mut [Source],
        run: &Run<'_>,
        described: &mut bool,
    ) -> Result<Option<u64>, Failure> {
        let mut groups = Groups::new(run.grouped.rules.len(), &run.grouped.folds);
        let mut open: Vec<usize> = (0..sources.len()).collect();
        while !open.is_empty() {
            let mut at = 0;
            while let Some(number) = open.get(at).copied() {
                match self.next(&mut sources[number]).await? {
                    Next::Row(_) => {
                        let inbuf = &mut self.servers[sources[number].at].inbuf;
                        let read = add_rows(&mut groups, inbuf, run)?;
                        inbuf.advance(read);
                        if groups.bytes() > TABLE {
                            return Ok(None);
                        }
                    }
                    Next::Wait => at += 1,
                    Next::End => drop(open.swap_remove(at)),
                }
            }
            if !open.is_empty() {
                self.wait_for(sources, open.iter().copied()).await?;
            }
        }
        if let Some(shown) = run.shown_directly() {
            if run.simple {
                self.client.out.extend_from_slice(&run.shown);
            }
            *described = true;
            for group in 0..groups.len() {
                put_group(&mut self.client.out, &groups, group, &shown)?;
                self.client.flush_if_high().await?;
            }
            return Ok(Some(groups.len() as u64));
        }
        let mut part = Part { arrays: vec![Vec::new(); run.types.len()], rows: 0, bytes: 0 };
        let mut sent = 0;
        for group in 0..groups.len() {
            part.push((0..run.types.len()).map(|column| groups.value(column, group)));
            if part.bytes > ALL {
                return Err(too_many(ALL).into());
            }
            if part.bytes >= PART && !run.combine.whole {
                sent += self.finish_part(sources, run, &mut part, &mut None, described).await?;
            }
        }
        // Without a group, too: the client's columns are described.
        Ok(Some(sent + self.finish_part(sources, run, &mut part, &mut None, described).await?))
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
                part.push(group.values.iter_mut().map(Option::take));
                group.open = false;
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
    fn push(&mut self, values: impl Iterator<Item = Option<impl AsRef<[u8]>>>) {
        for (array, value) in self.arrays.iter_mut().zip(values) {
            let value = value.as_ref().map(AsRef::as_ref);
            let length = value.map_or(-1, |value| value.len() as i32);
            array.extend_from_slice(&length.to_be_bytes());
            array.extend_from_slice(value.unwrap_or_default());
            self.bytes += 4 + length.max(0) as usize;
        }
        self.rows += 1;
    }
}

impl Run<'_> {
    /// The partial columns that the client gets, and whether in binary, where PostgreSQL has nothing to
    /// do with them any more.
    fn shown_directly(&self) -> Option<Vec<Shown>> {
        let direct = self.combine.direct.as_ref()?;
        let columns = backend::columns(self.original).ok()?;
        let of = |(at, (number, column)): (usize, (&u16, &ColumnDescription))| {
            let number = usize::from(*number);
            let oid = self.types.get(number)?.oid;
            let binary = result_format(self.results, at) == 1;
            (oid == column.type_oid && (binary || text::knows(oid))).then_some(Shown {
                number,
                oid,
                binary,
            })
        };
        let pairs = direct.iter().zip(&columns).enumerate();
        (direct.len() == columns.len()).then(|| pairs.map(of).collect())?
    }
}

/// A partial column that the client gets.
struct Shown {
    number: usize,
    oid: u32,
    binary: bool,
}

/// The format of a column by Bind's list of formats.
fn result_format(results: &[u8], column: usize) -> u8 {
    match results.len() / 2 {
        0 | 1 => 0,
        2 => results[3],
        _ => results.get(2 * column + 3).copied().unwrap_or(0),
    }
}

fn put_group(
    out: &mut Vec<u8>,
    groups: &Groups,
    group: usize,
    shown: &[Shown],
) -> Result<(), ErrorInfo> {
    let mut good = true;
    put_frame(out, b'D', |out| {
        out.extend_from_slice(&(shown.len() as u16).to_be_bytes());
        for Shown { number, oid, binary } in shown {
            let at = out.len();
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            let Some(value) = groups.value(*number, group) else { continue };
            match binary {
                true => out.extend_from_slice(&value),
                false => good &= text::put(*oid, &value, out).is_some(),
            }
            let length = (out.len() - at - 4) as i32;
            out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        }
    });
    if good { Ok(()) } else { Err(wrong_row()) }
}

/// Adds all whole DataRows that come first, and says how many bytes they are.
fn add_rows(groups: &mut Groups, buffer: &[u8], run: &Run<'_>) -> Result<usize, ErrorInfo> {
    let mut at = 0;
    let mut rows = groups::Rows::default();
    // What cannot be read is another's to say, when its turn comes.
    while let Ok(Some((b'D', size))) = wire::whole(&buffer[at..]) {
        let mut reader = Reader::new(&buffer[at + HEADER..at + size]);
        if reader.count().map_err(|_| wrong_row())? != run.types.len() {
            return Err(wrong_row());
        }
        rows.push(reader, |key| put_key(reader, &run.grouped.rules, key))?;
        if rows.are_enough() {
            groups.add(&mut rows).map_err(unfolded)?;
        }
        at += size;
    }
    groups.add(&mut rows).map_err(unfolded)?;
    Ok(at)
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
    put_key(reader, rules, key)
}

/// The key of a row's first values.
fn put_key(mut values: Reader<'_>, rules: &[Rule], key: &mut Vec<u8>) -> Result<(), ErrorInfo> {
    for rule in rules {
        let value = values.value().map_err(|_| wrong_row())?;
        rule.append(value, key).map_err(|_| wrong_row())?;
    }
    Ok(())
}
