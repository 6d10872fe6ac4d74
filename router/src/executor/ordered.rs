//! Sorted rows of several shards: each shard sorts its own, the router merges them as they arrive.
//!
//! One shard describes its statement first, so that the types of the keys are known before anything
//! runs. Keys whose order is the same everywhere (numbers, dates, bytes, text in the collation C) are
//! compared here; for others PostgreSQL is asked (`ranked`). Nothing is read from a shard but what is
//! needed for its next row, so memory is that of a read from each.
//!
//! A LIMIT that is large lets the shards send their rows in pieces: what the client will not get is
//! then not sent at all, and the connection is free as soon as the piece has ended.

use bytes::{Buf, Bytes};
use pgherd_planner::{Access, Ordered};
use pgherd_shard_map::ShardId;

use super::many::{Rows, piece_types, row_counter};
use super::ranked::Ranked;
use super::source::{Next, PIECE, Source};
use super::{Conn, Statement};
use crate::client::OUT_HIGH;
use crate::error::{ErrorInfo, Failure};
use crate::merge::key::{Kind, NAME_OID, Rule, is_text};
use crate::merge::{Merge, Verdict, Window};
use crate::pool::server::Reply;
use crate::wire::{HEADER, Reader, backend, frontend, put_frame};

/// What each shard is asked, and how its rows are read.
pub(super) struct Sorted {
    pub(super) sql: String,
    /// How many columns come first that the client does not see.
    pub(super) hidden: u16,
    /// How many the client sees.
    pub(super) shown: u16,
    /// Keys by which DISTINCT knows a row.
    pub(super) distinct: u16,
    pub(super) compare: Compare,
    /// The client's columns.
    pub(super) description: Bytes,
}

/// Who compares keys.
pub(super) enum Compare {
    Native(Vec<Rule>),
    /// PostgreSQL.
    Ranked(Ranked),
}

/// A row that is its shard's next one. It stays in the server's buffer.
#[derive(Clone, Copy, Default)]
pub(super) struct Head {
    size: usize,
    /// Where the client's columns begin.
    shown_at: usize,
    pub(super) known_by: usize,
}

impl Conn {
    pub(super) async fn run_ordered(
        &mut self,
        shards: &[ShardId],
        sql: &str,
        ordered: &Ordered,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        if statement.plan.access != Access::Read {
            self.open_implicit();
        }
        let counter = row_counter(&ordered.limit, statement.portal)?;
        let mut tasks = self.tasks(shards, None).await?;
        let Some(sorted) = self.prepare_sorted(tasks[0].at, sql, ordered, statement).await? else {
            let plan = self.plan_borrowed(statement)?;
            return Box::pin(self.run_statement(Statement { plan: &plan, ..statement })).await;
        };
        let pieces = counter.most().is_some_and(|most| most > u64::from(PIECE));
        let results = match statement.portal {
            None => &[0, 0][..],
            Some(portal) => portal.params()?.tail.results,
        };
        let results = with_hidden(results, &sorted)?;
        let rows = Rows::Formats(&results);
        for task in &mut tasks {
            task.sql = Some(sorted.sql.clone());
        }
        self.bind_together(&mut tasks, statement, rows).await?;
        let mut sources = self.send_to_sources(&tasks, rows, statement, pieces).await?;
        let mut window = Window::new(counter, ordered.distinct > 0, ordered.ties);
        let described = self.client.out.len();
        if statement.portal.is_none() {
            let own = statement.copies.map(|copies| &copies.description);
            self.client.out.extend_from_slice(own.unwrap_or(&sorted.description));
        }
        let merged = match &sorted.compare {
            Compare::Native(rules) => {
                self.merge_native(&mut sources, rules, &sorted, &mut window).await
            }
            Compare::Ranked(ranked) => {
                self.merge_ranked(&mut sources, ranked, &sorted, &mut window).await
            }
        };
        let sent = match merged {
            Ok(sent) => sent,
            Err(failure) => {
                // Rows that never began PostgreSQL does not describe.
                if !sources.iter().any(Source::has_begun) {
                    self.client.out.truncate(described);
                }
                return Err(self.give_up(&mut sources, failure).await);
            }
        };
        self.end_sources(&mut sources).await?;
        self.client.complete(&format!("SELECT {sent}"));
        Ok(())
    }

    /// What the shards will be asked; `None` where PostgreSQL has to run the statement over copies.
    pub(super) async fn prepare_sorted(
        &mut self,
        at: usize,
        sql: &str,
        ordered: &Ordered,
        statement: Statement<'_>,
    ) -> Result<Option<Sorted>, Failure> {
        // The client's own mistakes have their place in its own text. In a block an error is the
        // block's end, so there the client's statement is asked for first.
        let alone = self.session.transaction.block().is_none();
        if !alone {
            let mut described = self.describe(at, &[statement.sql, sql], statement).await?;
            let Some(description) = described.pop() else { return Err(Failure::Torn) };
            described.into_iter().try_for_each(|original| original.map(drop))?;
            return self.sorted(at, sql, ordered, description?).await;
        }
        match self.describe_one(at, sql, statement).await {
            Ok(description) => self.sorted(at, sql, ordered, description).await,
            Err(failure) if statement.plan.access != Access::Read => Err(failure),
            Err(_) => self.describe_one(at, statement.sql, statement).await.map(|_| None),
        }
    }

    /// What the shards will be asked, from the description of their statement.
    async fn sorted(
        &mut self,
        at: usize,
        sql: &str,
        ordered: &Ordered,
        description: Bytes,
    ) -> Result<Option<Sorted>, Failure> {
        let columns = backend::columns(&description).map_err(described_wrongly)?;
        let hidden = ordered.keys.len() as u16;
        let Some((keys, shown)) = columns.split_at_checked(ordered.keys.len()) else {
            return Err(ErrorInfo::new("XX000", "a shard did not describe its rows").into());
        };
        let shown = shown.len() as u16;
        if ordered.width.is_some_and(|width| width != shown) {
            return Ok(None);
        }
        let bytewise = self.planning.map.bytewise_collation;
        let unconverted = self.sends_texts_as_they_are(at);
        let by_bytes: Vec<bool> = ordered
            .keys
            .iter()
            .zip(keys)
            .map(|(key, column)| key.free && is_text(column.type_oid) && !bytewise && unconverted)
            .collect();
        let rules =
            ordered.keys.iter().zip(keys).zip(&by_bytes).map(|((key, column), by_bytes)| {
                let kind = Kind::of(column.type_oid)?;
                let c = match key.collation.as_deref() {
                    Some(name) => is_c(name),
                    None => *by_bytes || bytewise || column.type_oid == NAME_OID,
                };
                let text = is_text(column.type_oid) || column.type_oid == NAME_OID;
                let (descending, nulls_first) = (key.descending, key.nulls_first);
                (!text || (c && unconverted)).then_some(Rule { kind, descending, nulls_first })
            });
        let (compare, by_bytes) = match rules.collect::<Option<Vec<Rule>>>() {
            Some(rules) => (Compare::Native(rules), by_bytes),
            None => match self.ranked(at, ordered, keys).await? {
                Some(ranked) => (Compare::Ranked(ranked), vec![false; keys.len()]),
                None => return Ok(None),
            },
        };
        let sql = match by_bytes.contains(&true) {
            true => ordered.shard_query(|key| by_bytes[key]),
            false => sql.to_owned(),
        };
        let mut shown_columns = Vec::new();
        backend::cut_first_columns(&description, hidden, &mut shown_columns)
            .map_err(described_wrongly)?;
        let description = self.with_home_oids(at, shown_columns.into()).await;
        Ok(Some(Sorted { sql, hidden, shown, distinct: ordered.distinct, compare, description }))
    }

    /// Whether texts arrive in the encoding in which the shards compare them.
    pub(super) fn sends_texts_as_they_are(&self, at: usize) -> bool {
        let parameters = &self.servers[at].parameters;
        let encoding = parameters.iter().find(|(name, _)| &**name == "client_encoding");
        encoding.is_some_and(|(_, value)| matches!(&**value, "UTF8" | "SQL_ASCII"))
    }

    /// The columns of some statements with the client's parameters.
    pub(super) async fn describe(
        &mut self,
        at: usize,
        statements: &[&str],
        statement: Statement<'_>,
    ) -> Result<Vec<Result<Bytes, Failure>>, Failure> {
        let mut request = Vec::new();
        let joins = self.put_join(at, &mut request);
        let shard = self.servers[at].shard;
        for sql in statements {
            let types = match statement.portal {
                None => Vec::new(),
                Some(portal) => piece_types(sql, portal, shard)?,
            };
            frontend::put_parse(&mut request, b"", sql, &types);
            request.extend_from_slice(frontend::DESCRIBE_UNNAMED_STATEMENT);
            request.extend_from_slice(frontend::SYNC);
        }
        if let Err(error) = self.servers[at].send(&request).await {
            return Err(self.lost(at, &error));
        }
        self.collect_joins(at, joins).await?;
        let mut described = Vec::with_capacity(statements.len());
        for _ in statements {
            described.push(match self.servers[at].collect().await {
                Ok(Reply { error: Some(error), .. }) => Err(Failure::Shard(error)),
                Ok(Reply { description: Some(description), .. }) => Ok(description),
                Ok(_) => Err(ErrorInfo::new("XX000", "a shard did not describe its rows").into()),
                Err(error) => return Err(self.lost(at, &error)),
            });
        }
        Ok(described)
    }

    pub(super) async fn describe_one(
        &mut self,
        at: usize,
        sql: &str,
        statement: Statement<'_>,
    ) -> Result<Bytes, Failure> {
        let mut described = self.describe(at, &[sql], statement).await?;
        described.pop().unwrap_or(Err(Failure::Torn))
    }

    /// Merges rows by keys that are compared here. Returns how many the client got.
    async fn merge_native(
        &mut self,
        sources: &mut [Source],
        rules: &[Rule],
        sorted: &Sorted,
        window: &mut Window,
    ) -> Result<u64, Failure> {
        let mut merge = Merge::new(sources.len());
        let mut heads = vec![Head::default(); sources.len()];
        let mut lacking: Vec<usize> = (0..sources.len()).collect();
        let mut key = Vec::new();
        let mut sent = 0;
        while !window.is_done() {
            let read = |number: usize, frame: &[u8], key: &mut Vec<u8>| {
                heads[number] = read_head(frame, rules, sorted, key)?;
                Ok(())
            };
            self.offer_heads(sources, &mut merge, &mut lacking, &mut key, read).await?;
            let Some(number) = merge.take() else { break };
            let Head { size, shown_at, known_by } = heads[number];
            let inbuf = &mut self.servers[sources[number].at].inbuf;
            match window.take(merge.key(number), known_by) {
                Verdict::Send => {
                    put_row(&mut self.client.out, &inbuf[shown_at..size], sorted.shown);
                    sent += 1;
                }
                Verdict::Drop => {}
                Verdict::End => break,
            }
            inbuf.advance(size);
            lacking.push(number);
            if self.client.out.len() >= OUT_HIGH {
                self.client.flush().await?;
            }
        }
        Ok(sent)
    }

    /// Offers the next row of each source that lacks one, and waits until all have come. `read` finds
    /// a row's key, and keeps what else it needs of it; the row stays in its buffer. `key` is kept for
    /// its memory.
    pub(super) async fn offer_heads(
        &mut self,
        sources: &mut [Source],
        merge: &mut Merge,
        lacking: &mut Vec<usize>,
        key: &mut Vec<u8>,
        mut read: impl FnMut(usize, &[u8], &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let mut next = 0;
            while let Some(number) = lacking.get(next).copied() {
                match self.next(&mut sources[number]).await? {
                    Next::Wait => next += 1,
                    Next::End => drop(lacking.swap_remove(next)),
                    Next::Row(size) => {
                        let frame = &self.servers[sources[number].at].inbuf[..size];
                        key.clear();
                        read(number, frame, key)?;
                        if merge.offer(number, key).is_err() {
                            return Err(self.unsorted(sources[number].at));
                        }
                        lacking.swap_remove(next);
                    }
                }
            }
            if lacking.is_empty() {
                return Ok(());
            }
            self.wait_for(sources, lacking.iter().copied()).await?;
        }
    }

    pub(super) fn unsorted(&self, at: usize) -> Failure {
        let shard = self.servers[at].shard;
        ErrorInfo::new("XX000", format!("shard {shard} sent rows that are not in order"))
            .detail("Its collation is another one than it is elsewhere, or an index is damaged.")
            .hint(
                "Compare the shards' versions of the C library and of ICU, and look for warnings \
                 about collation versions in their logs.",
            )
            .into()
    }
}

fn described_wrongly(error: crate::wire::Malformed) -> ErrorInfo {
    ErrorInfo::new("XX000", format!("a shard described its rows wrongly: {error}"))
}

/// The collation that compares bytes.
fn is_c(collation: &str) -> bool {
    let name = collation.strip_prefix("pg_catalog.").unwrap_or(collation);
    matches!(name, "\"C\"" | "\"POSIX\"" | "ucs_basic" | "\"ucs_basic\"")
}

/// The client's result formats, behind those of the keys: binary.
pub(super) fn with_hidden(results: &[u8], sorted: &Sorted) -> Result<Vec<u8>, ErrorInfo> {
    let (count, formats) = results.split_at_checked(2).unwrap_or((&[0, 0], &[]));
    let count = usize::from(u16::from_be_bytes([count[0], count[1]]));
    let shown = usize::from(sorted.shown);
    if count > 1 && count != shown {
        // In PostgreSQL's words: it would count the hidden columns, too.
        return Err(ErrorInfo::protocol(format!(
            "bind message has {count} result formats but query has {shown} columns"
        )));
    }
    let columns = sorted.hidden + sorted.shown;
    let mut all = columns.to_be_bytes().to_vec();
    all.extend(std::iter::repeat_n([0, 1], usize::from(sorted.hidden)).flatten());
    match count {
        0 => all.extend(std::iter::repeat_n(0, 2 * shown)),
        1 => all.extend(formats[..2].iter().copied().cycle().take(2 * shown)),
        _ => all.extend_from_slice(formats),
    }
    Ok(all)
}

/// A whole DataRow's keys, appended to `key`.
pub(super) fn read_head(
    frame: &[u8],
    rules: &[Rule],
    sorted: &Sorted,
    key: &mut Vec<u8>,
) -> Result<Head, ErrorInfo> {
    let wrong = |_| ErrorInfo::new("XX000", "a shard sent a row of another shape");
    let mut reader = Reader::new(&frame[HEADER..]);
    let columns = reader.count().map_err(wrong)?;
    if columns != usize::from(sorted.hidden + sorted.shown) {
        return Err(ErrorInfo::new("XX000", "a shard sent a row of another shape"));
    }
    let mut known_by = 0;
    for (number, rule) in rules.iter().enumerate() {
        rule.append(reader.value().map_err(wrong)?, key).map_err(wrong)?;
        if number + 1 == usize::from(sorted.distinct) {
            known_by = key.len();
        }
    }
    let size = frame.len();
    Ok(Head { size, shown_at: size - reader.rest().len(), known_by })
}

/// A row of the client's own columns.
pub(super) fn put_row(out: &mut Vec<u8>, values: &[u8], columns: u16) {
    put_frame(out, b'D', |out| {
        out.extend_from_slice(&columns.to_be_bytes());
        out.extend_from_slice(values);
    });
}
