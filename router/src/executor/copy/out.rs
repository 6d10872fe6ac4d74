//! COPY … TO STDOUT of several shards: their rows follow each other in one stream, as they arrive.
//!
//! A shard's CopyData messages are passed on whole, so rows stay rows. What PostgreSQL writes once
//! per COPY (a header line; header and trailer of the binary format) the client gets once. Nothing
//! is read from the shards faster than the client takes it.

use bytes::Bytes;
use pgherd_planner::{Access, CopyFormat, CopyOut};

use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Statement};
use crate::wire::{HEADER, backend, frontend, put_frame};

/// Signature, flags, length of the header's extension.
const BINARY_HEAD: usize = 19;

const BINARY_TRAILER: &[u8] = &[0xff, 0xff];

/// One COPY stream made of those of several shards.
pub(in crate::executor) struct CopyStream {
    binary: bool,
    header_line: bool,
    /// CopyOutResponse has been passed on.
    begun: bool,
    /// What comes once at the start has been passed on.
    headed: bool,
    /// Servers whose first message has been seen.
    seen: Vec<usize>,
}

impl Conn {
    pub(in crate::executor) async fn copy_out(
        &mut self,
        copy: &CopyOut,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let shards = self.shards_of(&copy.target, statement)?;
        let reads = statement.plan.access == Access::Read;
        if !reads {
            self.open_implicit();
        }
        self.read_together(&shards, statement.plan).await?;
        let tasks = self.tasks(&shards, None).await?;
        let mut open: Vec<(usize, u32)> = tasks.iter().map(|task| (task.at, 0)).collect();
        for (at, hidden) in &mut open {
            let mut request = Vec::new();
            let own = self.own_rows(statement.sql, self.servers[*at].shard)?;
            *hidden = self.put_join(*at, &mut request);
            // COPY has no parameters, so the simple protocol does for both.
            frontend::put_query(&mut request, own.as_deref().unwrap_or(statement.sql));
            self.servers[*at].wrote |= !reads;
            if let Err(error) = self.servers[*at].send(&request).await {
                return Err(self.lost(*at, &error));
            }
        }
        let mut stream = CopyStream::new(&copy.format);
        let rows = self.pass_copies(open, &mut stream).await?;
        stream.end(&mut self.client.out);
        self.client.complete(&format!("COPY {rows}"));
        Ok(())
    }

    /// Passes on what the shards send until all have ended. Gives the number of rows.
    async fn pass_copies(
        &mut self,
        mut open: Vec<(usize, u32)>,
        stream: &mut CopyStream,
    ) -> Result<u64, Failure> {
        let mut rows = 0;
        let mut failure = None;
        while !open.is_empty() {
            let position = self.fill_any(&open).await?;
            let (at, mut hidden) = open[position];
            let mut ended = false;
            while let Some((tag, frame)) = self.next_frame(at)? {
                match tag {
                    b'Z' => {
                        if hidden == 0 {
                            self.servers[at].ready(&frame);
                            ended = true;
                            break;
                        }
                        hidden -= 1;
                        if hidden == 0 && failure.is_some() {
                            self.cancel_running(&[(at, 0)]);
                        }
                    }
                    b'E' if failure.is_none() => {
                        failure = Some(Failure::Shard(frame));
                        self.cancel_others(at, &open);
                    }
                    _ if hidden > 0 || failure.is_some() => {}
                    b'C' => {
                        let tag = String::from_utf8_lossy(&frame[HEADER..]);
                        rows += backend::tag_count(tag.trim_end_matches('\0')).unwrap_or(0);
                    }
                    _ => stream.pass(tag, &frame, at, &mut self.client.out)?,
                }
            }
            open[position].1 = hidden;
            if ended {
                open.swap_remove(position);
            }
            self.client.flush_if_high().await?;
        }
        failure.map_or(Ok(rows), Err)
    }
}

impl CopyStream {
    fn new(format: &CopyFormat) -> Self {
        Self {
            binary: matches!(format, CopyFormat::Binary),
            header_line: format.has_header(),
            begun: false,
            headed: false,
            seen: Vec::new(),
        }
    }

    /// For rows that another server takes in, which has asked for them already.
    pub(in crate::executor) fn onwards(binary: bool) -> Self {
        Self { binary, header_line: false, begun: true, headed: false, seen: Vec::new() }
    }

    /// One message of the server `at`.
    pub(in crate::executor) fn pass(
        &mut self,
        tag: u8,
        frame: &Bytes,
        at: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorInfo> {
        match tag {
            b'H' if !self.begun => {
                self.begun = true;
                out.extend_from_slice(frame);
            }
            b'N' => out.extend_from_slice(frame),
            b'd' if self.binary => return self.pass_binary(&frame[HEADER..], at, out),
            b'd' if self.header_line && !self.seen.contains(&at) => {
                self.seen.push(at);
                if !std::mem::replace(&mut self.headed, true) {
                    out.extend_from_slice(frame);
                }
            }
            b'd' => out.extend_from_slice(frame),
            _ => {}
        }
        Ok(())
    }

    fn pass_binary(
        &mut self,
        mut body: &[u8],
        at: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorInfo> {
        let mut head: &[u8] = &[];
        if !self.seen.contains(&at) {
            self.seen.push(at);
            // PostgreSQL writes the header in front of the first row, or of the trailer.
            let size = body.get(15..BINARY_HEAD).map(|length| {
                let length = length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
                BINARY_HEAD.saturating_add(length)
            });
            let parts = size.and_then(|size| body.split_at_checked(size));
            let Some(parts) = parts else {
                return Err(ErrorInfo::new("08P01", "a shard sent a malformed COPY header"));
            };
            (head, body) = parts;
        }
        if std::mem::replace(&mut self.headed, true) {
            head = &[];
        }
        if body == BINARY_TRAILER {
            body = &[];
        }
        if !(head.is_empty() && body.is_empty()) {
            put_frame(out, b'd', |out| {
                out.extend_from_slice(head);
                out.extend_from_slice(body);
            });
        }
        Ok(())
    }

    pub(in crate::executor) fn end(&self, out: &mut Vec<u8>) {
        if self.binary {
            put_frame(out, b'd', |out| out.extend_from_slice(BINARY_TRAILER));
        }
        out.extend_from_slice(frontend::COPY_DONE);
    }
}
