//! COPY FROM STDIN into a distributed or reference table: rows go on as they are, each to its
//! shard, all in one transaction.
//!
//! The home shard begins the COPY first: what PostgreSQL has against the statement is told before
//! any data. The other shards begin when their first row arrives. From then on the client and all
//! shards are listened to at once ([`feed`]), so that an error of a shard ends the COPY while the
//! client still sends. Nothing is read from the client while a shard has much to take: memory does
//! not grow with the data.
//!
//! A failed COPY is told by the error that comes first in the client's data, with the line that
//! it has there.

mod feed;
mod made;
mod out;
mod report;

pub(super) use out::CopyStream;

use bytes::Bytes;
use pgherd_planner::{CopyIn, CopyKey, CopyRows, ShardSet};
use pgherd_shard_map::{KeyError, KeyInput, RelationKind, ShardId};

use super::{Conn, Statement};
use crate::copy_rows::{CopySplitter, Key, LineMap, Piece, Row, SplitError};
use crate::error::{ErrorInfo, Failure};
use crate::wire::{HEADER, frontend, put_cstr, put_frame};
use made::Made;

/// A shard's rows are sent on when there are so many bytes of them.
const BATCH: usize = 32 * 1024;

/// One shard's part of a COPY.
struct Target {
    shard: ShardId,
    /// Its checked-out server, once it takes part.
    at: Option<usize>,
    /// Bytes for it, of which `sent` have been sent.
    queue: Vec<u8>,
    sent: usize,
    /// Where in `queue` the CopyData message starts that rows are still added to.
    message: Option<usize>,
    /// It has rows.
    used: bool,
    lines: LineMap,
    /// Replies to BEGIN and its kin that come first.
    hidden: u32,
    /// Its CopyInResponse.
    response: Option<Bytes>,
    /// The first ErrorResponse.
    error: Option<Bytes>,
    rows: u64,
    ended: bool,
}

/// The data is not taken any further.
struct Stop {
    /// In the client's data, from 1.
    line: u64,
    error: Box<ErrorInfo>,
    /// The row has been sent to a shard that will say more.
    sent: bool,
}

/// Where the client's rows go.
struct Placing<'a> {
    copy: &'a CopyIn,
    /// `None` sends all data everywhere, unread.
    splitter: Option<CopySplitter>,
    /// Ascending by shard.
    targets: Vec<Target>,
    home: usize,
    key_name: Box<str>,
    made: Made,
    /// A row with what was made for it; kept for its memory.
    row: Vec<u8>,
}

impl From<SplitError> for Stop {
    fn from(SplitError { line, fault }: SplitError) -> Self {
        let error = ErrorInfo::new(fault.sqlstate(), fault.message());
        let error = match fault.hint() {
            Some(hint) => error.hint(hint),
            None => error,
        };
        Self { line, error: Box::new(error), sent: false }
    }
}

impl Conn {
    pub(super) async fn copy_in(
        &mut self,
        copy: &CopyIn,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        // Nothing else is in its transaction: like PostgreSQL it is done when that is committed.
        let alone = statement.portal.is_none() && self.session.transaction.block().is_none();
        self.open_implicit();
        let mut placing = self.placing(copy);
        // Before the home shard is busy with the COPY itself.
        self.make_for(&mut placing, &[]).await?;
        let own = statement;
        let statement =
            Statement { sql: copy.sql.as_deref().unwrap_or(own.sql), written: None, ..own };
        let home = placing.home;
        self.begin_copy(&mut placing.targets[home], statement).await?;
        let response = self.await_copy(&mut placing.targets, home).await?;
        let columns =
            response.get(HEADER + 1..HEADER + 3).map(|n| u16::from(n[0]) << 8 | u16::from(n[1]));
        let added = copy.makes.len() as u16;
        if placing.splitter.is_some() && columns != Some(copy.columns + added) {
            placing.targets[home].put_fail(b"columns are not known");
            self.drain_copy(&mut placing.targets).await?;
            return Err(unknown_columns(copy));
        }
        if placing.splitter.is_none() {
            for target in &mut placing.targets {
                target.used = true;
            }
        }
        self.client.out.extend_from_slice(&without_columns(&response, added));
        self.client.flush().await?;
        let fed = self.feed_copy_in(&mut placing, statement).await;
        // A Sync that the client had sent with the statement was a part of the data.
        self.session.copy_ended = statement.portal.is_some();
        self.keep_made(&mut placing);
        let rows = fed?;
        if alone {
            self.commit_all().await?;
        }
        self.client.complete(&format!("COPY {rows}"));
        Ok(())
    }

    fn placing<'a>(&self, copy: &'a CopyIn) -> Placing<'a> {
        let map = &self.planning.map;
        let mut shards = self.shard_list(&ShardSet::All);
        shards.sort_unstable();
        let home = shards.iter().position(|shard| *shard == map.home).unwrap_or(0);
        let splitter = match copy.rows {
            CopyRows::Split { key: CopyKey::Field(field), .. } => {
                let splitter = CopySplitter::new(&copy.format, field, copy.columns);
                Some(splitter.in_encoding(copy.encoding))
            }
            CopyRows::Everywhere if copy.makes.is_empty() => None,
            // Where each row ends matters, not what is in it.
            CopyRows::Split { .. } | CopyRows::Everywhere => {
                let splitter = CopySplitter::new(&copy.format, 0, copy.columns);
                Some(splitter.in_encoding(copy.encoding))
            }
        };
        let key_name = match map.relation(&copy.table) {
            Some(RelationKind::Sharded(table)) => table.key_column().map(|key| key.name.clone()),
            _ => None,
        };
        Placing {
            copy,
            splitter,
            targets: shards.into_iter().map(Target::new).collect(),
            home,
            key_name: key_name.unwrap_or_default(),
            made: Made::new(copy),
            row: Vec::new(),
        }
    }

    /// Has the statement sent to one more shard, before what waits for it already.
    async fn begin_copy(
        &mut self,
        target: &mut Target,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let at = self.server_for(target.shard).await?;
        let mut request = Vec::new();
        target.hidden = self.put_join(at, &mut request);
        // COPY has no parameters, so the simple protocol does for both.
        frontend::put_query(&mut request, statement.sql);
        let server = &mut self.servers[at];
        server.wrote = true;
        server.status = 0;
        target.at = Some(at);
        target.message = target.message.map(|start| start + request.len());
        request.append(&mut target.queue);
        target.queue = request;
        Ok(())
    }
}

impl Placing<'_> {
    /// Takes a piece of the client's data, cut anywhere.
    fn take(&mut self, data: &[u8], map: &pgherd_shard_map::ShardMap) -> Result<(), Stop> {
        let Some(mut splitter) = self.splitter.take() else {
            for target in &mut self.targets {
                target.put_rows(data);
            }
            return Ok(());
        };
        let taken = splitter.feed(data, &mut |piece| self.place(&piece, map));
        self.splitter = Some(splitter);
        taken
    }

    /// The client's data has ended.
    fn finish(&mut self, map: &pgherd_shard_map::ShardMap) -> Result<(), Stop> {
        let Some(mut splitter) = self.splitter.take() else { return Ok(()) };
        let finished = splitter.finish(&mut |piece| self.place(&piece, map));
        self.splitter = Some(splitter);
        finished
    }

    fn place(&mut self, piece: &Piece<'_>, map: &pgherd_shard_map::ShardMap) -> Result<(), Stop> {
        match piece {
            Piece::Head { bytes, height } => {
                let mut head = Vec::new();
                made::put_header(self.copy, bytes, &mut head);
                for target in &mut self.targets {
                    target.put_rows(&head);
                    target.lines = LineMap::after_header(*height);
                }
            }
            Piece::Tail(bytes) => {
                for target in &mut self.targets {
                    target.put_rows(bytes);
                }
            }
            Piece::Row(row) => return self.place_row(row, map),
        }
        Ok(())
    }

    fn place_row(&mut self, row: &Row<'_>, map: &pgherd_shard_map::ShardMap) -> Result<(), Stop> {
        let values = self.made.next();
        let mut bytes = std::mem::take(&mut self.row);
        bytes.clear();
        if !values.is_empty() {
            made::put_row(self.copy, &values, row.bytes, &mut bytes);
        }
        let whole = if values.is_empty() { row.bytes } else { &bytes };
        let placed = self.place_whole(row, whole, &values, map);
        self.row = bytes;
        placed
    }

    fn place_whole(
        &mut self,
        row: &Row<'_>,
        bytes: &[u8],
        values: &[super::insert::Value],
        map: &pgherd_shard_map::ShardMap,
    ) -> Result<(), Stop> {
        let CopyRows::Split { group, key, .. } = self.copy.rows else {
            for target in &mut self.targets {
                target.put_row(row, bytes);
            }
            return Ok(());
        };
        let input = match key {
            CopyKey::Field(_) if row.key == Key::Foreign => {
                let error = foreign_key(&self.key_name, self.copy.encoding.name);
                return Err(Stop { line: row.line, error: Box::new(error), sent: false });
            }
            CopyKey::Field(_) => row.key.input(),
            CopyKey::Made(at) => values
                .get(usize::from(at))
                .and_then(Option::as_deref)
                .map(|text| KeyInput::Text(text.as_bytes())),
        };
        let shard = match input {
            Some(key) => map.shard_for(group, key),
            None => Err(KeyError::Null),
        };
        let sent = matches!(shard, Err(KeyError::Null | KeyError::Invalid { .. }));
        let refused = match shard {
            Ok(shard) => {
                let found = self.targets.binary_search_by_key(&shard, |target| target.shard);
                if let Ok(at) = found {
                    self.targets[at].put_row(row, bytes);
                    return Ok(());
                }
                ErrorInfo::new("XX000", "a shard is not in the map")
            }
            // PostgreSQL says it better: the row goes to a shard that will refuse it.
            Err(KeyError::Null | KeyError::Invalid { .. }) => {
                self.targets[self.home].put_row(row, bytes);
                self.no_key(&row.key)
            }
            Err(error @ (KeyError::Uncovered | KeyError::Unsupported { .. })) => {
                super::insert::without_shard(&error)
            }
        };
        Err(Stop { line: row.line, error: Box::new(refused), sent })
    }

    /// What is said should the shard accept the row.
    fn no_key(&self, key: &Key<'_>) -> ErrorInfo {
        match key {
            Key::Null => ErrorInfo::new(
                "23502",
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    self.key_name, self.copy.table.name
                ),
            )
            .detail("The distribution column decides which shard holds the row."),
            _ => ErrorInfo::new(
                "22P04",
                format!("the value of column \"{}\" cannot be read", self.key_name),
            ),
        }
    }
}

impl Target {
    fn new(shard: ShardId) -> Self {
        Self {
            shard,
            at: None,
            queue: Vec::new(),
            sent: 0,
            message: None,
            used: false,
            lines: LineMap::default(),
            hidden: 0,
            response: None,
            error: None,
            rows: 0,
            ended: false,
        }
    }

    fn put_row(&mut self, row: &Row<'_>, bytes: &[u8]) {
        let height = if self.lines.is_empty() { row.first_height } else { row.height };
        self.lines.push(height, row.line);
        self.used = true;
        self.put_rows(bytes);
    }

    fn put_rows(&mut self, bytes: &[u8]) {
        let start = *self.message.get_or_insert_with(|| {
            self.queue.extend_from_slice(&[b'd', 0, 0, 0, 0]);
            self.queue.len() - HEADER
        });
        self.queue.extend_from_slice(bytes);
        if self.queue.len() - start >= BATCH {
            self.seal();
        }
    }

    /// Ends the CopyData message that rows were added to.
    fn seal(&mut self) {
        if let Some(start) = self.message.take() {
            // Far below 1 GB: a row's size is bounded.
            let length = (self.queue.len() - start - 1) as u32;
            self.queue[start + 1..start + HEADER].copy_from_slice(&length.to_be_bytes());
        }
    }

    fn put_done(&mut self) {
        self.seal();
        self.queue.extend_from_slice(frontend::COPY_DONE);
    }

    fn put_fail(&mut self, why: &[u8]) {
        self.seal();
        put_frame(&mut self.queue, b'f', |out| put_cstr(out, why));
    }

    /// How much waits to be sent.
    fn waiting(&self) -> usize {
        self.queue.len() - self.sent
    }
}

/// A CopyInResponse without the columns that the client does not send.
fn without_columns(response: &Bytes, added: u16) -> Bytes {
    let formats = response.get(HEADER + 3 + 2 * usize::from(added)..).unwrap_or_default();
    let mut out = Vec::with_capacity(response.len());
    put_frame(&mut out, b'G', |out| {
        out.push(response.get(HEADER).copied().unwrap_or(0));
        out.extend_from_slice(&((formats.len() / 2) as u16).to_be_bytes());
        out.extend_from_slice(formats);
    });
    out.into()
}

fn foreign_key(column: &str, encoding: &str) -> ErrorInfo {
    ErrorInfo::new("0A000", "cannot tell the shard of this row")
        .detail(format!(
            "The value of \"{column}\" is not ASCII, and the router does not read {encoding}."
        ))
        .hint("Convert the data to UTF-8.")
}

/// The server takes other columns than the map lists: generated ones are not copied.
fn unknown_columns(copy: &CopyIn) -> Failure {
    ErrorInfo::new("0A000", "COPY into this table must name its columns")
        .detail(format!(
            "Which field holds the distribution column of \"{}\" is not clear without them: \
             generated columns are not copied.",
            copy.table.name
        ))
        .hint("Use COPY table (column, …) FROM STDIN.")
        .into()
}
