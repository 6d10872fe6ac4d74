//! What a shard is asked of its markers, and how the answer is read.

use pgherd_shard_map::ShardId;

use crate::consistent_read::Marker;
use crate::pool::Server;
use crate::pool::server::Reply;
use crate::two_phase::Gid;
use crate::wire::{backend, frontend};

/// So many markers are told at a time.
const MARKERS_MAX: usize = 1000;

/// A statement of the router's own, prepared on each server that needs it.
struct Own {
    /// Its name; those of clients' statements have 32 digits there.
    name: &'static [u8],
    /// Among `Server::statements`, where clients' are hashes.
    id: u128,
}

const LIST: Own = Own { name: b"pgherd_list", id: 1 };
const LOOK: Own = Own { name: b"pgherd_look", id: 2 };

/// What one look has seen.
#[derive(Default)]
pub(super) struct Look {
    pub(super) snapshot: Box<str>,
    pub(super) prepared: Vec<Gid>,
    pub(super) markers: Vec<Marker<Gid>>,
    /// There may be more of them.
    pub(super) full: bool,
}

/// Shared memory, and no snapshot, says what is prepared.
const PREPARED: &str = "(SELECT pg_catalog.string_agg(gid, ' ') \
                        FROM pg_catalog.pg_prepared_xact() WHERE gid LIKE 'pgherd\\_%')";

/// What a snapshot sees and the older one, `$1`, does not: transactions that were under way then, and
/// those that came later. `xid` is that of the whole transaction, savepoints or not. The value hides
/// in a subquery, so that one plan does for all.
fn look_sql() -> String {
    let markers = |condition: &str| {
        format!(
            "(SELECT pg_catalog.string_agg(gid || ':' || participants, ' ') FROM (\
             SELECT gid, participants FROM pgherd.tx WHERE {condition} \
             AND state = 'committed' AND participants IS NOT NULL \
             ORDER BY xid LIMIT {MARKERS_MAX}) AS marker)"
        )
    };
    let new = markers("xid >= (SELECT pg_catalog.pg_snapshot_xmax($1))");
    let old = markers("xid = ANY (ARRAY(SELECT pg_catalog.pg_snapshot_xip($1)))");
    format!("SELECT {PREPARED}, pg_catalog.pg_current_snapshot(), {new}, {old}")
}

/// Appends a list of what is prepared, without its Sync.
pub(super) fn put_list(server: &Server, request: &mut Vec<u8>) {
    put(&LIST, server, request, || format!("SELECT {PREPARED}"), &[0, 0, 0, 0]);
}

/// Appends a look from a server's earlier snapshot on, without its Sync.
pub(super) fn put_look(server: &Server, request: &mut Vec<u8>) {
    let earlier = server.earlier.as_ref().map_or("1:1:", |(snapshot, _)| snapshot);
    let mut parameters = vec![0, 0, 0, 1];
    parameters.extend_from_slice(&(earlier.len() as i32).to_be_bytes());
    parameters.extend_from_slice(earlier.as_bytes());
    put(&LOOK, server, request, look_sql, &parameters);
}

fn put(
    own: &Own,
    server: &Server,
    request: &mut Vec<u8>,
    sql: impl FnOnce() -> String,
    parameters: &[u8],
) {
    // One that is about to forget its statements gets no more.
    let name = if server.forget { b"" } else { own.name };
    if server.forget || !server.statements.contains(&own.id) {
        // Within one request it may be prepared twice.
        if !server.forget {
            frontend::put_close(request, b'S', name);
        }
        frontend::put_parse(request, name, &sql(), &[]);
    }
    frontend::put_bind(request, b"", name, parameters, &[0, 0]);
    request.extend_from_slice(frontend::EXECUTE_UNNAMED);
}

/// It has answered a list and a look, or two looks, and keeps these statements.
pub(super) fn keep(server: &mut Server, listed: bool) {
    if !server.forget {
        server.statements.insert(LOOK.id);
        if listed {
            server.statements.insert(LIST.id);
        }
        server.forget = !server.has_room();
    }
}

impl Look {
    pub(super) fn read(row: &[u8]) -> Option<Self> {
        let values = backend::row_values(row).ok()?;
        let text = |at: usize| -> Option<&str> {
            Some(std::str::from_utf8(values.get(at).copied()?.unwrap_or_default()).unwrap_or(""))
        };
        let prepared = text(0)?.split(' ').filter_map(Gid::parse).collect();
        if values.len() == 1 {
            return Some(Self { prepared, ..Self::default() });
        }
        let (new, old) = (markers(text(2)?), markers(text(3)?));
        Some(Self {
            snapshot: text(1)?.into(),
            prepared,
            full: new.len() >= MARKERS_MAX || old.len() >= MARKERS_MAX,
            markers: new.into_iter().chain(old).collect(),
        })
    }
}

/// Which of these does that snapshot show? In a READ COMMITTED block it is not that of the question.
/// Gids and snapshots need no quoting.
pub(super) fn question(gids: &[Gid], snapshot: &str) -> String {
    let list: Vec<String> = gids.iter().map(|gid| format!("'{gid}'")).collect();
    format!(
        "SELECT pg_catalog.string_agg(gid || ':' || participants, ' ') FROM pgherd.tx \
         WHERE gid IN ({}) AND state = 'committed' \
         AND pg_catalog.pg_visible_in_snapshot(xid, '{snapshot}')",
        list.join(", ")
    )
}

/// The answer to [`question`].
pub(super) fn answer(reply: &Reply) -> Vec<Marker<Gid>> {
    markers(&reply.scalar().unwrap_or_default())
}

/// `gid:0,2 gid:1,3`
fn markers(text: &str) -> Vec<Marker<Gid>> {
    let marker = |text: &str| {
        let (gid, shards) = text.split_once(':')?;
        let shards = shards.split(',').map(|shard| shard.parse().map(ShardId));
        Some(Marker { gid: Gid::parse(gid)?, participants: shards.collect::<Result<_, _>>().ok()? })
    };
    text.split(' ').filter_map(marker).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_read_and_what_is_none_is_left_out() {
        let gid = format!("pgherd_app_1_r_{}", "0".repeat(32));
        let read = markers(&format!("{gid}:1,3 other:1,2 {gid}:x"));
        let participants = vec![ShardId(1), ShardId(3)];
        assert_eq!(read, [Marker { gid: Gid::parse(&gid).expect("a gid"), participants }]);
    }
}
