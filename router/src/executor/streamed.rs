//! Rows of several shards as they arrive: nothing is read from them faster than the client takes it,
//! and where one of them fails the others are cancelled.

use std::io;
use std::task::Poll;

use bytes::Bytes;

use super::many::Task;
use super::{Conn, Statement, verb};
use crate::error::Failure;
use crate::merge::Counter;
use crate::wire::{HEADER, backend};
use crate::worker::send_cancel;

impl Conn {
    /// Rows of all shards as they arrive, counts added up.
    pub(super) async fn stream(
        &mut self,
        tasks: Vec<Task>,
        statement: Statement<'_>,
        limit: Option<Counter>,
    ) -> Result<(), Failure> {
        let total = self.stream_rows(tasks, statement, limit).await?;
        self.client.complete(&format!("{} {total}", verb(statement.plan.kind)));
        Ok(())
    }

    /// The same without CommandComplete: how many rows it is to tell.
    pub(super) async fn stream_rows(
        &mut self,
        tasks: Vec<Task>,
        statement: Statement<'_>,
        mut limit: Option<Counter>,
    ) -> Result<u64, Failure> {
        let hidden = self.send_tasks(&tasks, statement).await?;
        let mut open: Vec<(usize, u32)> = tasks.iter().map(|task| task.at).zip(hidden).collect();
        let mut described = statement.portal.is_some();
        let mut total = 0;
        let mut failure: Option<Failure> = None;
        while !open.is_empty() {
            let position = self.fill_any(&open).await?;
            let (at, hidden) = open[position];
            let mut hidden_left = hidden;
            let mut ended = false;
            while let Some((tag, frame)) = self.next_frame(at)? {
                match tag {
                    b'Z' => {
                        if hidden_left == 0 {
                            self.servers[at].ready(&frame);
                            ended = true;
                            break;
                        }
                        hidden_left -= 1;
                        if hidden_left == 0 && failure.is_some() {
                            self.cancel_running(&[(at, 0)]);
                        }
                    }
                    b'E' if failure.is_none() => {
                        failure = Some(Failure::Shard(frame));
                        self.cancel_others(at, &open);
                    }
                    _ if hidden_left > 0 || failure.is_some() => {}
                    b'T' if !described => {
                        described = true;
                        let frame = match statement.copies {
                            Some(copies) => copies.description.clone(),
                            None => self.with_home_oids(at, frame).await,
                        };
                        self.client.out.extend_from_slice(&frame);
                    }
                    b'D' => {
                        let wanted = limit.as_mut().is_none_or(Counter::take);
                        if wanted {
                            total += u64::from(limit.is_some());
                            self.client.out.extend_from_slice(&frame);
                        }
                    }
                    b'N' => self.client.out.extend_from_slice(&frame),
                    b'C' if limit.is_none() => {
                        let text = String::from_utf8_lossy(&frame[HEADER..frame.len() - 1]);
                        total += backend::tag_count(&text).unwrap_or(0);
                    }
                    b'G' | b'H' | b'W' => {
                        self.servers[at].spoiled = true;
                        return Err(Failure::Torn);
                    }
                    _ => {}
                }
            }
            if let Some(entry) = open.get_mut(position) {
                entry.1 = hidden_left;
            }
            if ended {
                open.swap_remove(position);
            }
            self.client.flush_if_high().await?;
        }
        failure.map_or(Ok(total), Err)
    }

    /// A RowDescription with the home shard's numbers of types and tables.
    pub async fn with_home_oids(&self, at: usize, frame: Bytes) -> Bytes {
        let (map, shard) = (&self.planning.map, self.servers[at].shard);
        if shard == map.home {
            return frame;
        }
        let mut frame = frame.to_vec();
        let unknown = self.worker.oids.translate(shard, &mut frame);
        if !unknown.is_empty() {
            Box::pin(self.worker.find_oids(map, shard, &unknown)).await;
            self.worker.oids.translate(shard, &mut frame);
        }
        frame.into()
    }

    /// Waits until one of the open servers has sent something; `0` is its position in `open`.
    pub(super) async fn fill_any(&mut self, open: &[(usize, u32)]) -> Result<usize, Failure> {
        // What is in a buffer already comes first: it may hold the end of the reply.
        for (position, (at, _)) in open.iter().enumerate() {
            if matches!(self.servers[*at].buffered(), Ok(Some(_))) {
                return Ok(position);
            }
        }
        let Self { servers, client, .. } = self;
        let filled = std::future::poll_fn(|cx| {
            for (position, (at, _)) in open.iter().enumerate() {
                if let Poll::Ready(result) = servers[*at].poll_fill(cx) {
                    return Poll::Ready(Some((position, result)));
                }
            }
            if client.inbuf.len() < 64 * 1024
                && let Poll::Ready(result) = client.poll_fill(cx)
                && !matches!(result, Ok(count) if count > 0)
            {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
        match filled {
            None => Err(Failure::ClientGone),
            Some((position, Ok(count))) if count > 0 => Ok(position),
            Some((position, Ok(_))) => {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                Err(self.lost_in_stream(open[position].0, open, &error))
            }
            Some((position, Err(error))) => {
                Err(self.lost_in_stream(open[position].0, open, &error))
            }
        }
    }

    fn lost_in_stream(&mut self, at: usize, open: &[(usize, u32)], error: &io::Error) -> Failure {
        self.cancel_others(at, open);
        for (other, _) in open {
            self.servers[*other].spoiled = true;
        }
        self.lost(at, error)
    }

    pub(super) fn next_frame(&mut self, at: usize) -> Result<Option<(u8, Bytes)>, Failure> {
        match self.servers[at].buffered() {
            Ok(Some((tag, size))) => {
                Ok(Some((tag, self.servers[at].inbuf.split_to(size).freeze())))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(self.lost(at, &error)),
        }
    }

    /// The statement has failed on one shard: the others need not finish it. Their connections
    /// are not used again, since the cancel may arrive late.
    pub(super) fn cancel_others(&mut self, failed: usize, open: &[(usize, u32)]) {
        let others: Vec<(usize, u32)> =
            open.iter().filter(|(at, _)| *at != failed).copied().collect();
        self.cancel_running(&others);
    }

    /// Cancels what runs on these servers; their connections are not used again. One that has not
    /// joined the block yet is left alone: it would be BEGIN that fails, and what comes behind it
    /// would be a transaction by itself. So is one that holds something of the session's: that would
    /// be lost with it, so its part is waited for.
    pub(super) fn cancel_running(&mut self, servers: &[(usize, u32)]) {
        for (at, _) in servers.iter().filter(|(_, joins)| *joins == 0) {
            if self.servers[*at].kept {
                continue;
            }
            let server = &mut self.servers[*at];
            server.spoiled = true;
            self.worker.background(send_cancel(server.seldom.address, server.pid, server.secret));
        }
    }
}
