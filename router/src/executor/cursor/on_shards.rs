//! A query whose rows stay on their shards until they are wanted: each server holds a portal, inside
//! the transaction that is open there.
//!
//! Between two pulls every server has answered all that it was asked, so that the transaction's
//! other statements run as ever, and other cursors beside this one. Rows that need no order are
//! asked for shard by shard, as many as are wanted. Sorted ones come in pieces, since the next row
//! may be any shard's: what waits here is a piece of each (`sorted`).

mod sorted;

use bytes::Bytes;
use pgherd_planner::{Access, Action, Limit, ManyShards, Merge as Merging, Ordered, Otherwise};
use pgherd_shard_map::ShardId;

use self::sorted::Order;
use super::super::many::{Rows, Task, put_bound, row_counter};
use super::super::ordered::with_hidden;
use super::super::ranked::Waiting;
use super::super::{Conn, Route, Statement};
use crate::client::Client;
use crate::error::{ErrorInfo, Failure};
use crate::merge::{Counter, Window};
use crate::wire::frontend;

pub(super) struct OnShards {
    /// Its portal's on every server.
    name: Box<[u8]>,
    parts: Vec<Part>,
    /// Rows of each part that have come and are not merged yet.
    waiting: Vec<Waiting>,
    way: Way,
}

/// One shard's rows.
struct Part {
    shard: ShardId,
    /// Its last row has come.
    complete: bool,
    /// How many rows are asked for next.
    piece: u64,
}

enum Way {
    /// One shard's rows after the other's.
    InTurn(Counter),
    Sorted(Box<Order>),
}

/// How a statement's rows can be pulled.
enum Shape<'a> {
    One(ShardId),
    InTurn(&'a ManyShards, &'a Limit),
    Sorted(&'a ManyShards, &'a Ordered),
}

impl OnShards {
    fn is_done(&self) -> bool {
        match &self.way {
            Way::InTurn(counter) => counter.is_done(),
            Way::Sorted(order) => order.window.is_done(),
        }
    }
}

impl Conn {
    /// Binds a statement on its shards, which takes its snapshots. `None`: its rows cannot be pulled,
    /// since they are made out of those of all shards. `name` is no other portal's.
    pub(super) async fn open_on_shards(
        &mut self,
        name: &str,
        statement: Statement<'_>,
    ) -> Result<Option<OnShards>, Failure> {
        let Some(shape) = self.shape(statement)? else { return Ok(None) };
        let (shards, many) = match &shape {
            Shape::One(shard) => (vec![*shard], None),
            Shape::InTurn(many, _) | Shape::Sorted(many, _) => {
                (self.shards_of(&many.target, statement)?, Some(*many))
            }
        };
        if self.session.drawn.is_some() {
            self.note_home_write(statement.plan);
        }
        self.read_together(&shards, statement.plan).await?;
        let text = many.and_then(|many| many.sql.as_deref());
        let mut tasks = self.tasks(&shards, text).await?;
        let mut results = None;
        let way = match shape {
            Shape::One(_) => Way::InTurn(Counter::unlimited()),
            Shape::InTurn(_, limit) => Way::InTurn(row_counter(limit, statement.portal)?),
            Shape::Sorted(_, ordered) => {
                let counter = row_counter(&ordered.limit, statement.portal)?;
                let text = text.unwrap_or(statement.sql);
                let at = tasks[0].at;
                let Some(sorted) = self.prepare_sorted(at, text, ordered, statement).await? else {
                    return Ok(None);
                };
                for task in &mut tasks {
                    task.sql = Some(sorted.sql.clone());
                }
                let asked = statement.portal.map(|portal| portal.params()).transpose()?;
                let asked = asked.map_or(&[0, 0][..], |params| params.tail.results);
                results = Some(with_hidden(asked, &sorted)?);
                let window = Window::new(counter, ordered.distinct > 0, ordered.ties);
                Way::Sorted(Box::new(Order::new(sorted, window, tasks.len())))
            }
        };
        self.open_implicit();
        let rows = results.as_deref().map_or(Rows::AsAsked, Rows::Formats);
        let bound = match many {
            Some(_) => self.bind_as(name.as_bytes(), &mut tasks, statement, rows).await?,
            None => false,
        };
        if !bound {
            self.bind_tasks(name.as_bytes(), &tasks, statement, rows).await?;
        }
        let waiting = shards.iter().map(|_| Waiting::default()).collect();
        let parts = shards.into_iter().map(Part::new).collect();
        Ok(Some(OnShards { name: name.as_bytes().into(), parts, waiting, way }))
    }

    fn shape<'a>(&self, statement: Statement<'a>) -> Result<Option<Shape<'a>>, Failure> {
        let many = match &statement.plan.action {
            Action::Many(many) => many,
            Action::One(one) => {
                let Statement { plan, sql, literals, .. } = statement;
                match (self.place(plan, sql, literals, &statement.params()?)?, &one.otherwise) {
                    (Route::One(shard), _) => return Ok(Some(Shape::One(shard))),
                    (Route::Other, Some(otherwise)) => match &**otherwise {
                        Otherwise::Many(many) => many,
                        Otherwise::Borrow => return Ok(None),
                    },
                    (Route::Other, None) => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        Ok(match &many.merge {
            Merging::Concat { limit } => Some(Shape::InTurn(many, limit)),
            Merging::Ordered(ordered) => Some(Shape::Sorted(many, ordered)),
            _ => None,
        })
    }

    /// Each server binds its part; all of them at once.
    async fn bind_tasks(
        &mut self,
        name: &[u8],
        tasks: &[Task],
        statement: Statement<'_>,
        rows: Rows<'_>,
    ) -> Result<(), Failure> {
        let mut asked = Vec::with_capacity(tasks.len());
        for task in tasks {
            let mut request = Vec::new();
            let joins = self.put_join(task.at, &mut request);
            let shard = self.servers[task.at].shard;
            put_bound(&mut request, name, task, shard, statement, rows)?;
            request.extend_from_slice(frontend::SYNC);
            self.servers[task.at].wrote |= statement.plan.access != Access::Read;
            if let Err(error) = self.servers[task.at].send(&request).await {
                return Err(self.lost(task.at, &error));
            }
            asked.push((task.at, joins + 1));
        }
        self.collect_all(&asked).await
    }

    /// So many replies of each server; the first error in them is told once all have come.
    async fn collect_all(&mut self, asked: &[(usize, u32)]) -> Result<(), Failure> {
        let mut failure = None;
        for (at, replies) in asked {
            for _ in 0..*replies {
                match self.collect_ok(*at).await {
                    Err(error @ Failure::Shard(_)) => drop(failure.get_or_insert(error)),
                    collected => collected?,
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Gives the client so many of the rows (`None`: all), or reads over them. How many there were.
    pub(super) async fn pull(
        &mut self,
        rows: &mut OnShards,
        wanted: Option<u64>,
        shows: bool,
    ) -> Result<u64, Failure> {
        match rows.way {
            Way::InTurn(_) => self.pull_in_turn(rows, wanted, shows).await,
            Way::Sorted(_) => self.pull_sorted(rows, wanted, shows).await,
        }
    }

    async fn pull_in_turn(
        &mut self,
        rows: &mut OnShards,
        wanted: Option<u64>,
        shows: bool,
    ) -> Result<u64, Failure> {
        let OnShards { name, parts, way: Way::InTurn(counter), .. } = rows else { return Ok(0) };
        let mut sent = 0;
        for part in parts {
            while !part.complete && !counter.is_done() && wanted.is_none_or(|wanted| sent < wanted)
            {
                let at = self.at_of(part.shard)?;
                let needed = wanted.map(|wanted| counter.needs(wanted - sent));
                self.send_execute(at, name, needed).await?;
                let row = |client: &mut Client, frame: Bytes| {
                    if counter.take() {
                        sent += 1;
                        if shows {
                            client.out.extend_from_slice(&frame);
                        }
                    }
                };
                part.complete = self.read_piece(at, row).await?;
            }
        }
        Ok(sent)
    }

    async fn send_execute(
        &mut self,
        at: usize,
        name: &[u8],
        rows: Option<u64>,
    ) -> Result<(), Failure> {
        let limit = rows.map_or(0, |rows| i32::try_from(rows).unwrap_or(i32::MAX));
        let mut request = Vec::new();
        frontend::put_execute(&mut request, name, limit);
        request.extend_from_slice(frontend::SYNC);
        match self.servers[at].send(&request).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(at, &error)),
        }
    }

    /// The reply to an Execute. Whether its last row was among the rows.
    async fn read_piece(
        &mut self,
        at: usize,
        mut row: impl FnMut(&mut Client, Bytes),
    ) -> Result<bool, Failure> {
        let mut complete = false;
        let mut failure = None;
        loop {
            self.fill_any(&[(at, 0)]).await?;
            while let Some((tag, frame)) = self.next_frame(at)? {
                match tag {
                    b'D' if failure.is_none() => row(&mut self.client, frame),
                    b'C' => complete = true,
                    b'E' => drop(failure.get_or_insert(Failure::Shard(frame))),
                    b'N' => self.client.out.extend_from_slice(&frame),
                    b'Z' => {
                        self.servers[at].ready(&frame);
                        return failure.map_or(Ok(complete), Err);
                    }
                    b'G' | b'H' | b'W' => {
                        self.servers[at].spoiled = true;
                        return Err(Failure::Torn);
                    }
                    _ => {}
                }
            }
            self.client.flush_if_high().await?;
        }
    }

    /// Where the transaction has this shard.
    fn at_of(&self, shard: ShardId) -> Result<usize, Failure> {
        let there = |server: &crate::pool::Server| server.shard == shard && server.joined;
        self.servers.iter().position(there).ok_or_else(|| {
            let message = format!("the rows that shard {shard} held for a cursor are gone");
            ErrorInfo::new("55000", message).into()
        })
    }

    /// The servers forget their portals, as far as they can hear of it: with a transaction that has
    /// failed these are gone anyway.
    pub(super) async fn close_on_shards(&mut self, rows: &OnShards) -> Result<(), Failure> {
        let mut asked = Vec::with_capacity(rows.parts.len());
        let mut request = Vec::new();
        frontend::put_close(&mut request, b'P', &rows.name);
        request.extend_from_slice(frontend::SYNC);
        for part in &rows.parts {
            let Ok(at) = self.at_of(part.shard) else { continue };
            if self.servers[at].status != b'T' {
                continue;
            }
            if let Err(error) = self.servers[at].send(&request).await {
                return Err(self.lost(at, &error));
            }
            asked.push((at, 1));
        }
        self.collect_all(&asked).await
    }
}
