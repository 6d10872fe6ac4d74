//! A shard as a source of rows that the router itself reads: in pieces, so that nothing is asked for
//! which the client has no use for, and ended in good order whatever happens.

use bytes::{Buf, Bytes};
use pgherd_planner::Access;

use super::many::{Rows, Task, put_bound};
use super::{Conn, Statement};
use crate::error::Failure;
use crate::wire::frontend;

/// From so many rows of one shard on they come in pieces of so many.
pub(super) const PIECE: u32 = 5000;

/// PostgreSQL's own buffer: so much may wait for more before the client sees it.
const OUT_LOW: usize = 8 * 1024;

/// One shard's rows.
pub(super) struct Source {
    pub(super) at: usize,
    /// Replies to the router's own statements that come first.
    joins: u32,
    portal: &'static [u8],
    pub(super) state: State,
    /// Sync has been sent: the reply ends by itself.
    synced: bool,
    /// Bind has been answered: what goes wrong now does so while the statement runs.
    bound: bool,
}

impl Source {
    /// Asks for all rows, or for the next piece.
    fn put_execute(&self, request: &mut Vec<u8>) {
        let rows = if self.synced { 0 } else { PIECE as i32 };
        frontend::put_execute(request, self.portal, rows);
        if !self.synced {
            request.extend_from_slice(frontend::FLUSH);
            return;
        }
        if !self.portal.is_empty() {
            frontend::put_close(request, b'P', self.portal);
        }
        request.extend_from_slice(frontend::SYNC);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.bound
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It sends rows.
    Running,
    /// A piece has ended, and it can be asked for the next.
    Suspended,
    /// Its last row has come.
    Complete,
    /// It has said ReadyForQuery.
    Ended,
}

/// What a source has in its buffer.
pub(super) enum Next {
    /// A whole row, of this size.
    Row(usize),
    Wait,
    End,
}

impl Conn {
    /// Every shard gets the statement before any of them is read.
    pub(super) async fn send_to_sources(
        &mut self,
        tasks: &[Task],
        rows: Rows<'_>,
        statement: Statement<'_>,
        pieces: bool,
    ) -> Result<Vec<Source>, Failure> {
        let mut sources = Vec::with_capacity(tasks.len());
        for task in tasks {
            let at = task.at;
            let mut request = Vec::new();
            let joins = self.put_join(at, &mut request);
            if task.portal.is_none() {
                let shard = self.servers[at].shard;
                put_bound(&mut request, b"", task, shard, statement, rows)?;
            }
            let portal = task.portal.unwrap_or_default();
            let source = Source {
                at,
                joins,
                portal,
                state: State::Running,
                synced: !pieces,
                bound: task.portal.is_some(),
            };
            source.put_execute(&mut request);
            self.servers[at].wrote |= statement.plan.access != Access::Read;
            if let Err(error) = self.servers[at].send(&request).await {
                return Err(self.lost(at, &error));
            }
            sources.push(source);
        }
        Ok(sources)
    }

    /// What comes next from a source; rows stay in its buffer, all else is dealt with.
    pub(super) async fn next(&mut self, source: &mut Source) -> Result<Next, Failure> {
        let at = source.at;
        loop {
            match source.state {
                State::Running => {}
                State::Suspended => {
                    let mut request = Vec::new();
                    source.put_execute(&mut request);
                    source.state = State::Running;
                    if let Err(error) = self.servers[at].send(&request).await {
                        return Err(self.lost(at, &error));
                    }
                }
                State::Complete | State::Ended => return Ok(Next::End),
            }
            let (tag, size) = match self.servers[at].buffered() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(Next::Wait),
                Err(error) => return Err(self.lost(at, &error)),
            };
            if tag == b'D' && source.joins == 0 {
                return Ok(Next::Row(size));
            }
            let frame = self.servers[at].inbuf.split_to(size).freeze();
            self.note_frame(source, tag, frame)?;
        }
    }

    /// Any frame but a row that is wanted.
    fn note_frame(&mut self, source: &mut Source, tag: u8, frame: Bytes) -> Result<(), Failure> {
        match tag {
            b'Z' => match source.joins.checked_sub(1) {
                Some(left) => source.joins = left,
                None => {
                    self.servers[source.at].ready(&frame);
                    source.state = State::Ended;
                }
            },
            b'E' => return Err(Failure::Shard(frame)),
            b'2' => source.bound = true,
            b's' => source.state = State::Suspended,
            b'C' if source.joins == 0 => source.state = State::Complete,
            b'N' if source.joins == 0 => self.client.out.extend_from_slice(&frame),
            b'G' | b'H' | b'W' => {
                self.servers[source.at].spoiled = true;
                return Err(Failure::Torn);
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits until one of these sources has sent something. The client gets meanwhile what is ready.
    pub(super) async fn wait_for(
        &mut self,
        sources: &[Source],
        wanted: impl Iterator<Item = usize>,
    ) -> Result<(), Failure> {
        if self.client.out.len() >= OUT_LOW {
            self.client.flush().await?;
        }
        let open: Vec<(usize, u32)> = wanted.map(|number| (sources[number].at, 0)).collect();
        self.fill_any(&open).await.map(drop)
    }

    /// Ends what has not ended: rows that nobody wants are not asked for, and those on their way are
    /// read over.
    pub(super) async fn end_sources(&mut self, sources: &mut [Source]) -> Result<(), Failure> {
        for source in &mut *sources {
            self.send_end(source).await?;
        }
        for source in sources {
            self.drain(source).await?;
        }
        Ok(())
    }

    /// A connection on which a statement of the router's own can run between the shards' rows: that
    /// of the first source, if all of its rows have come, or one apart.
    pub(super) async fn judge(
        &mut self,
        sources: &mut [Source],
        apart: &mut Option<usize>,
    ) -> Result<usize, Failure> {
        if let Some(at) = apart {
            return Ok(*at);
        }
        if sources[0].state >= State::Complete {
            self.end_source(&mut sources[0]).await?;
            return Ok(sources[0].at);
        }
        let at = self.open_scratch(sources[0].at, false).await?;
        Ok(*apart.insert(at))
    }

    /// One source that has sent its last row: its connection is free afterwards.
    async fn end_source(&mut self, source: &mut Source) -> Result<(), Failure> {
        self.send_end(source).await?;
        self.drain(source).await
    }

    async fn send_end(&mut self, source: &mut Source) -> Result<(), Failure> {
        if source.synced {
            return Ok(());
        }
        source.synced = true;
        let mut request = Vec::new();
        frontend::put_close(&mut request, b'P', source.portal);
        request.extend_from_slice(frontend::SYNC);
        match self.servers[source.at].send(&request).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(source.at, &error)),
        }
    }

    async fn drain(&mut self, source: &mut Source) -> Result<(), Failure> {
        while source.state != State::Ended {
            match self.servers[source.at].buffered() {
                Ok(Some((b'D', size))) => self.servers[source.at].inbuf.advance(size),
                Ok(Some((tag, size))) => {
                    let frame = self.servers[source.at].inbuf.split_to(size).freeze();
                    self.note_frame(source, tag, frame)?;
                }
                Ok(None) => self.fill_any(&[(source.at, 0)]).await.map(drop)?,
                Err(error) => return Err(self.lost(source.at, &error)),
            }
        }
        Ok(())
    }

    /// The statement has failed: what still runs is cancelled. Returns what the client is told.
    pub(super) async fn give_up(&mut self, sources: &mut [Source], failure: Failure) -> Failure {
        let open = |source: &&mut Source| source.state != State::Ended;
        if !matches!(failure, Failure::Shard(_) | Failure::Statement(_)) {
            for source in sources.iter_mut().filter(open) {
                self.servers[source.at].spoiled = true;
            }
            return failure;
        }
        let running = sources.iter().filter(|source| source.state == State::Running);
        let running: Vec<(usize, u32)> = running.map(|source| (source.at, 0)).collect();
        self.cancel_running(&running);
        for source in sources.iter_mut().filter(open) {
            let spoiled = self.servers[source.at].spoiled;
            // Its own error, or that of the cancel, comes before the end.
            let mut ended = self.send_end(source).await;
            while ended.is_ok() && source.state != State::Ended {
                ended = match self.drain(source).await {
                    Err(Failure::Shard(_)) => Ok(()),
                    other => other,
                };
            }
            self.servers[source.at].spoiled |= spoiled || ended.is_err();
        }
        failure
    }
}
