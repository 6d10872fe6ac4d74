//! The usual pipeline: one statement, one shard, one Sync, all of it arrived.
//!
//! `[Parse] Bind [Describe] Execute Sync` over unnamed portals goes to its shard without an object
//! being made for any of the messages: Bind gets the server's name of the statement, the rest is
//! copied as it came. Whatever is not exactly this, or fails on the way, is left in the buffer for
//! the general path, which says what is wrong with it.

use std::rc::Rc;

use bytes::Buf;
use pgherd_shard_map::ShardId;

use crate::error::Failure;
use crate::executor::{Conn, Ready, Route};
use crate::session::{BoundParams, Portal, Prepared, Transaction};
use crate::wire::frontend::{self, BindTail};
use crate::wire::reply::Expect;
use crate::wire::{HEADER, whole};

/// Where the messages stand in the client's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// Where Parse ends, which starts at 0; 0 if there is none.
    parse: usize,
    bind: usize,
    /// Where Sync ends.
    end: usize,
}

impl Shape {
    fn of(buf: &[u8]) -> Option<Self> {
        let mut parse = 0;
        let (mut tag, mut at) = whole(buf).ok()??;
        if tag == b'P' {
            parse = at;
            let size;
            (tag, size) = whole(&buf[at..]).ok()??;
            at += size;
        }
        if tag != b'B' {
            return None;
        }
        let bind = at;
        let mut rest = &buf[bind..];
        if rest.starts_with(frontend::DESCRIBE_UNNAMED_PORTAL) {
            rest = &rest[frontend::DESCRIBE_UNNAMED_PORTAL.len()..];
        }
        let rest = rest.strip_prefix(frontend::EXECUTE_UNNAMED)?.strip_prefix(frontend::SYNC)?;
        Some(Self { parse, bind, end: buf.len() - rest.len() })
    }
}

/// What has become of a recognized pipeline.
pub(super) enum Fast {
    Done,
    /// The general path is to look at it.
    Other,
    /// It is in the buffer still, or again: its rows move, or the map is another one.
    Turned,
}

/// Where a recognized pipeline goes.
struct FastRoute {
    statement: Rc<Prepared>,
    unnamed: bool,
    shard: ShardId,
}

impl Conn {
    /// Runs the pipeline at the start of the client's buffer, if it is of the usual shape.
    pub(super) async fn fast_pipeline(&mut self) -> Result<Fast, Failure> {
        let block = self.session.transaction.block();
        if self.session.skip_to_sync || block.is_some_and(|block| block.failed || block.implicit) {
            return Ok(Fast::Other);
        }
        let Some(shape) = Shape::of(&self.client.inbuf) else { return Ok(Fast::Other) };
        self.refresh_planning();
        if self.must_look() {
            return Ok(Fast::Other);
        }
        let Some(route) = self.fast_route(shape) else { return Ok(Fast::Other) };
        let at = match self.server_for(route.shard).await {
            Ok(at) => at,
            Err(failure) => {
                self.client.inbuf.advance(shape.end);
                self.tell(failure)?;
                Box::pin(self.end_pipeline(true)).await?;
                return Ok(Fast::Done);
            }
        };
        if self.is_planned_late() {
            self.release();
            return Ok(Fast::Turned);
        }
        let mut request = std::mem::take(&mut self.request);
        let hidden = self.put_pipeline(at, shape, &route, &mut request);
        if !matches!(self.session.transaction, Transaction::Idle) {
            self.keep_portal(shape, &route);
        }
        self.may_turn(at, hidden, shape.end);
        self.client.inbuf.advance(shape.end);
        let started = self.worker.metrics.start();
        self.session.in_pipeline = true;
        let end = self.relay(at, &request, hidden, Ready::Pass, &route.statement.plan).await;
        self.session.in_pipeline = false;
        self.keep_request(request);
        let server = &mut self.servers[at];
        if self.scanner.parsed > 0 && !route.unnamed {
            server.statements.insert(route.statement.id);
            // Statements are never closed one by one: a server with too many forgets them all.
            server.forget |= !server.has_room();
        }
        if end.is_ok() && self.is_turned() {
            let messages = Box::pin(self.was_turned(at)).await;
            self.client.unread(&messages.unwrap_or_default());
            return Ok(Fast::Turned);
        }
        let FastRoute { statement, shard, .. } = &route;
        self.observe(&statement.plan, *shard, started, statement.sql.as_bytes());
        match end {
            Ok(end) => {
                if end.failed && shape.parse > 0 && self.scanner.parsed == 0 {
                    self.session.statements.remove(&b""[..]);
                }
                self.forget_stale_statements(at, end.failed);
                self.release();
            }
            Err(failure) => {
                self.tell(failure)?;
                Box::pin(self.end_pipeline(true)).await?;
            }
        }
        Ok(Fast::Done)
    }

    /// The statement and the one shard of the pipeline. Nothing but the unnamed statement, which a
    /// Parse replaces, is changed.
    fn fast_route(&mut self, shape: Shape) -> Option<FastRoute> {
        let buf = &self.client.inbuf[..shape.end];
        if self.planning.encoding.is_some() && !buf.is_ascii() {
            return None;
        }
        let bind = frontend::bind(&buf[shape.parse + HEADER..shape.bind]).ok()?;
        if !bind.portal.is_empty() {
            return None;
        }
        let statement = if shape.parse > 0 {
            let parse = frontend::parse(&buf[HEADER..shape.parse]).ok()?;
            if !parse.name.is_empty() || !bind.statement.is_empty() {
                return None;
            }
            self.prepare(parse.query, parse.types).ok()?
        } else {
            let statement = self.session.statements.get(bind.statement)?;
            let seed = self.planning.shared_seed();
            if seed.is_none() || statement.seed != seed {
                return None;
            }
            Rc::clone(statement)
        };
        if statement.user_types().next().is_some() {
            return None;
        }
        let unnamed = bind.statement.is_empty();
        let tail = BindTail::new(bind.tail).ok()?;
        if statement.params.is_some_and(|wanted| usize::from(wanted) != tail.count()) {
            return None;
        }
        let params = BoundParams { tail, types: &statement.types, encoding: None };
        let route = self.route(&statement.plan, &statement.sql, &statement.literals, &params);
        let Ok(Route::One(shard)) = route else { return None };
        if shape.parse > 0 {
            match self.session.statements.get_mut(&b""[..]) {
                Some(slot) => *slot = Rc::clone(&statement),
                None => drop(self.session.statements.insert([].into(), Rc::clone(&statement))),
            }
        }
        Some(FastRoute { statement, unnamed, shard })
    }

    /// What the server gets; how many hidden replies come first.
    fn put_pipeline(
        &mut self,
        at: usize,
        shape: Shape,
        route: &FastRoute,
        request: &mut Vec<u8>,
    ) -> u32 {
        request.clear();
        self.scanner.reset();
        let hidden = self.put_join(at, request);
        let buf = &self.client.inbuf[..shape.end];
        let statement = &*route.statement;
        let known = !route.unnamed && self.servers[at].statements.contains(&statement.id);
        if shape.parse > 0 {
            request.extend_from_slice(&buf[..shape.parse]);
        } else if !known {
            frontend::put_parse(
                request,
                statement.name(route.unnamed),
                &statement.sql,
                &statement.types,
            );
            self.scanner.expects.push_back(Expect::HiddenParse);
        }
        if route.unnamed {
            request.extend_from_slice(&buf[shape.parse..]);
        } else {
            let frame = &buf[shape.parse..shape.bind];
            // After the header: the portal's empty name, the client's name of the statement.
            let names = HEADER + 1;
            let tail = memchr::memchr(0, &frame[names..]).map_or(frame.len(), |n| names + n + 1);
            frontend::put_bind(request, b"", &statement.server_name, &frame[tail..], &[]);
            request.extend_from_slice(&buf[shape.bind..]);
        }
        hidden
    }

    /// In a transaction block the portal outlives the pipeline: the client may describe it.
    fn keep_portal(&mut self, shape: Shape, route: &FastRoute) {
        let frame = &self.client.inbuf[shape.parse..shape.bind];
        let Ok(bind) = frontend::bind(&frame[HEADER..]) else { return };
        let statement = Rc::clone(&route.statement);
        let mut portal = Portal::new(statement, route.unnamed, bind.tail.into())
            .within(&self.session.transaction)
            .encoded(self.planning.encoding);
        portal.shard = Some(route.shard);
        self.session.portals.insert([].into(), Rc::new(portal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(parse: bool, describe: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if parse {
            frontend::put_parse(&mut out, b"", "SELECT 1", &[]);
        }
        frontend::put_bind(&mut out, b"", b"", &[0, 0, 0, 0], &[0, 0]);
        if describe {
            out.extend_from_slice(frontend::DESCRIBE_UNNAMED_PORTAL);
        }
        out.extend_from_slice(frontend::EXECUTE_UNNAMED);
        out.extend_from_slice(frontend::SYNC);
        out
    }

    #[test]
    fn the_usual_pipelines_are_recognized_once_they_are_whole() {
        for (parse, describe) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut bytes = pipeline(parse, describe);
            let size = bytes.len();
            for end in 0..size {
                assert_eq!(Shape::of(&bytes[..end]), None, "cut at {end}");
            }
            bytes.extend_from_slice(b"Q\0\0");
            let shape = Shape::of(&bytes).expect("recognized");
            assert_eq!((shape.end, shape.parse > 0), (size, parse));
        }
    }

    #[test]
    fn other_pipelines_are_not() {
        let mut limited = pipeline(true, true);
        let at = limited.len() - frontend::SYNC.len() - 1;
        limited[at] = 5;
        assert_eq!(Shape::of(&limited), None);
        let mut two = pipeline(true, false);
        two.truncate(two.len() - frontend::SYNC.len());
        two.extend(pipeline(false, false));
        assert_eq!(Shape::of(&two), None);
    }
}
