//! COPY FROM STDIN into a distributed or reference table: rows go on as they are, each to its
//! shard, all in one transaction.

use pgherd_planner::{CopyFormat, CopyIn, CopyOut, CopyRows};
use pgherd_shard_map::{KeyInput, ShardId};

use super::{Conn, Statement};
use crate::copy_rows::{CopySplitter, SplitError};
use crate::error::{ErrorInfo, Failure};
use crate::wire::{self, HEADER, backend, frontend, put_frame};

/// A shard's rows are sent on when there are so many bytes of them.
const BATCH: usize = 32 * 1024;

impl From<SplitError> for Failure {
    fn from(error: SplitError) -> Self {
        match error {
            SplitError::RowTooLong { line } => {
                ErrorInfo::new("54000", format!("COPY line {line} is too long")).into()
            }
            SplitError::MissingField { line } => ErrorInfo::new(
                "22P04",
                format!("missing data for the distribution column in COPY line {line}"),
            )
            .into(),
        }
    }
}

/// One shard's part of a COPY.
struct Target {
    shard: ShardId,
    at: usize,
    batch: Vec<u8>,
}

impl Conn {
    pub(super) async fn copy_in(
        &mut self,
        copy: &CopyIn,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        if statement.portal.is_some() {
            return Err(ErrorInfo::new(
                "0A000",
                "COPY into a sharded table is not supported in the extended protocol",
            )
            .hint("Send it as a simple query.")
            .into());
        }
        let key_field = match &copy.rows {
            CopyRows::Split { key_field, .. } => *key_field,
            CopyRows::Everywhere => 0,
        };
        let Some(mut splitter) = CopySplitter::new(&copy.format, key_field) else {
            return Err(ErrorInfo::new(
                "0A000",
                "only text format is supported by COPY into a sharded table",
            )
            .hint("Leave FORMAT out.")
            .into());
        };
        self.open_implicit();
        let mut targets = Vec::new();
        for shard in self.shard_list(&pgherd_planner::ShardSet::All) {
            let at = self.server_for(shard).await?;
            let mut request = Vec::new();
            let joins = self.put_join(at, &mut request);
            frontend::put_query(&mut request, statement.sql);
            self.servers[at].wrote = true;
            if let Err(error) = self.servers[at].send(&request).await {
                return Err(self.lost(at, &error));
            }
            for _ in 0..joins {
                self.collect_ok(at).await?;
            }
            self.await_copy(at).await?;
            targets.push(Target { shard, at, batch: Vec::new() });
        }
        put_frame(&mut self.client.out, b'G', |out| {
            out.push(0);
            out.extend_from_slice(&copy.columns.to_be_bytes());
            out.extend(std::iter::repeat_n(0, usize::from(copy.columns) * 2));
        });
        self.client.flush().await?;
        let fed = self.feed_rows(copy, &mut splitter, &mut targets).await;
        let counts = self.end_copy(&mut targets, fed.as_ref().err()).await;
        let rows = match (fed?, counts?) {
            (true, counts) if matches!(copy.rows, CopyRows::Everywhere) => {
                counts.first().copied().unwrap_or(0)
            }
            (true, counts) => counts.iter().sum(),
            (false, _) => {
                return Err(ErrorInfo::new("57014", "COPY from stdin failed")
                    .detail("The client ended it.")
                    .into());
            }
        };
        self.client.complete(&format!("COPY {rows}"));
        Ok(())
    }

    /// Waits for a shard's CopyInResponse.
    async fn await_copy(&mut self, at: usize) -> Result<(), Failure> {
        let mut failure = None;
        loop {
            let (tag, frame) = match self.servers[at].frame().await {
                Ok(frame) => frame,
                Err(error) => return Err(self.lost(at, &error)),
            };
            match (tag, failure) {
                (b'G', _) => return Ok(()),
                (b'E', _) => failure = Some(Failure::Shard(frame)),
                (b'Z', ended) => {
                    self.servers[at].status = frame.get(HEADER).copied().unwrap_or(0);
                    return Err(ended.unwrap_or(Failure::Torn));
                }
                (_, earlier) => failure = earlier,
            }
        }
    }

    /// The client's rows up to CopyDone (`true`) or CopyFail (`false`).
    async fn feed_rows(
        &mut self,
        copy: &CopyIn,
        splitter: &mut CopySplitter,
        targets: &mut [Target],
    ) -> Result<bool, Failure> {
        loop {
            let frame = wire::whole(&self.client.inbuf)
                .map_err(|error| Failure::Fatal(ErrorInfo::protocol(error.to_string())))?;
            let Some((tag, size)) = frame else {
                self.client.fill().await?;
                continue;
            };
            let frame = self.client.inbuf.split_to(size);
            let map = std::sync::Arc::clone(&self.planning.map);
            let mut place = |row: &[u8], key: Option<&[u8]>| -> Result<(), Failure> {
                match &copy.rows {
                    CopyRows::Everywhere => {
                        for target in targets.iter_mut() {
                            target.batch.extend_from_slice(row);
                        }
                    }
                    CopyRows::Split { group, .. } => {
                        let key = key.ok_or_else(|| null_key(copy))?;
                        let shard = map
                            .shard_for(*group, KeyInput::Text(key))
                            .map_err(|error| ErrorInfo::new("22P02", error.to_string()))?;
                        let target = targets
                            .iter_mut()
                            .find(|target| target.shard == shard)
                            .ok_or_else(|| ErrorInfo::new("XX000", "a shard is not in the map"))?;
                        target.batch.extend_from_slice(row);
                    }
                }
                Ok(())
            };
            match tag {
                b'd' => splitter.feed(&frame[HEADER..], &mut place)?,
                b'c' => {
                    splitter.finish(&mut place)?;
                    return Ok(true);
                }
                b'f' => return Ok(false),
                b'H' | b'S' => {}
                b'X' => return Err(Failure::ClientGone),
                _ => {
                    return Err(Failure::Fatal(ErrorInfo::protocol(
                        "unexpected message type during COPY from stdin",
                    )));
                }
            }
            for target in targets.iter_mut() {
                if target.batch.len() >= BATCH {
                    self.send_batch(target).await?;
                }
            }
        }
    }

    async fn send_batch(&mut self, target: &mut Target) -> Result<(), Failure> {
        let mut request = Vec::with_capacity(target.batch.len() + HEADER);
        put_frame(&mut request, b'd', |out| out.extend_from_slice(&target.batch));
        target.batch.clear();
        match self.servers[target.at].send(&request).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(target.at, &error)),
        }
    }

    /// Ends the COPY on every shard and collects the counts; after a failure each is told so.
    async fn end_copy(
        &mut self,
        targets: &mut [Target],
        failure: Option<&Failure>,
    ) -> Result<Vec<u64>, Failure> {
        if matches!(failure, Some(Failure::ClientGone | Failure::Torn)) {
            for target in targets.iter() {
                self.servers[target.at].spoiled = true;
            }
            return Ok(Vec::new());
        }
        for target in targets.iter_mut() {
            if self.servers[target.at].spoiled {
                continue;
            }
            let mut request = Vec::new();
            if failure.is_none() {
                if !target.batch.is_empty() {
                    put_frame(&mut request, b'd', |out| out.extend_from_slice(&target.batch));
                }
                request.extend_from_slice(frontend::COPY_DONE);
            } else {
                put_frame(&mut request, b'f', |out| wire::put_cstr(out, b"failed elsewhere"));
            }
            if let Err(error) = self.servers[target.at].send(&request).await {
                self.lost(target.at, &error);
            }
        }
        let mut counts = Vec::new();
        let mut first = None;
        for target in targets.iter() {
            if self.servers[target.at].spoiled {
                continue;
            }
            match self.servers[target.at].collect().await {
                Ok(reply) => match reply.error {
                    Some(error) if failure.is_none() => {
                        first.get_or_insert(Failure::Shard(error));
                    }
                    _ => counts.extend(reply.tags.last().and_then(|tag| backend::tag_count(tag))),
                },
                Err(error) => {
                    let lost = self.lost(target.at, &error);
                    first.get_or_insert(lost);
                }
            }
        }
        first.map_or(Ok(counts), Err)
    }

    pub(super) async fn copy_out(
        &mut self,
        copy: &CopyOut,
        _statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let format = match copy.format {
            CopyFormat::Text { .. } => "text",
            CopyFormat::Csv { .. } => "csv",
            CopyFormat::Binary => "binary",
        };
        Err(ErrorInfo::new("0A000", "COPY TO from several shards is not supported yet")
            .detail(format!(
                "The rows of several shards would have to follow each other ({format})."
            ))
            .hint("SELECT the rows instead.")
            .into())
    }
}

fn null_key(copy: &CopyIn) -> ErrorInfo {
    ErrorInfo::new(
        "23502",
        format!("null value in the distribution column of table \"{}\"", copy.table.name),
    )
}
