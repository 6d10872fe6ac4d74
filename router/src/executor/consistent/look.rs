//! What a shard is asked of its markers, and how the answer is read.

use pgherd_shard_map::ShardId;

use crate::consistent_read::Marker;
use crate::pool::Server;
use crate::pool::server::Reply;
use crate::two_phase::Gid;
use crate::wire::{backend, frontend};

/// So many markers are told at a time.
const MARKERS_MAX: usize = 5000;

/// The statement's name on servers. Those of clients have 32 digits there.
const NAME: &[u8] = b"pgherd_look";
const ID: u128 = 1;

/// What a snapshot sees and the older one, `$1`, does not: those that were under way then, and
/// those that came later. `xid` is that of the whole transaction, savepoints or not.
fn statement() -> String {
    let markers = |condition: &str| {
        format!(
            "(SELECT pg_catalog.string_agg(gid || ':' || participants, ' ') FROM (\
             SELECT gid, participants FROM pgherd.tx WHERE {condition} \
             AND state = 'committed' AND participants IS NOT NULL \
             ORDER BY xid LIMIT {MARKERS_MAX}) AS marker)"
        )
    };
    let new = markers("xid >= pg_catalog.pg_snapshot_xmax($1)");
    let old = markers("xid = ANY (ARRAY(SELECT pg_catalog.pg_snapshot_xip($1)))");
    format!(
        "SELECT pg_catalog.pg_current_snapshot(), \
         (SELECT pg_catalog.string_agg(gid, ' ') FROM pg_catalog.pg_prepared_xact() \
         WHERE gid LIKE 'pgherd\\_%'), {new}, {old}"
    )
}

/// What one look has seen.
pub(super) struct Look {
    pub(super) snapshot: Box<str>,
    pub(super) prepared: Vec<Gid>,
    pub(super) markers: Vec<Marker<Gid>>,
    /// There may be more of them.
    pub(super) full: bool,
}

/// Appends a look from a server's earlier snapshot on, without its Sync.
pub(super) fn put(server: &Server, request: &mut Vec<u8>) {
    let earlier = server.earlier.as_ref().map_or("1:1:", |(snapshot, _)| snapshot);
    let known = server.statements.contains(&ID);
    // One that is about to forget its statements gets no more.
    let name = if server.forget { b"" } else { NAME };
    if !known || server.forget {
        if !server.forget {
            frontend::put_close(request, b'S', NAME);
        }
        frontend::put_parse(request, name, &statement(), &[]);
    }
    let mut parameters = vec![0, 0, 0, 1];
    parameters.extend_from_slice(&(earlier.len() as i32).to_be_bytes());
    parameters.extend_from_slice(earlier.as_bytes());
    frontend::put_bind(request, b"", name, &parameters, &[0, 0]);
    request.extend_from_slice(frontend::EXECUTE_UNNAMED);
}

/// It has answered a look, and keeps the statement unless it was about to forget.
pub(super) fn keep(server: &mut Server) {
    if !server.forget {
        server.statements.insert(ID);
        server.forget = !server.has_room();
    }
}

impl Look {
    pub(super) fn read(row: &[u8]) -> Option<Self> {
        let values = backend::row_values(row).ok()?;
        let text = |at: usize| -> Option<&str> {
            Some(std::str::from_utf8(values.get(at).copied()?.unwrap_or_default()).unwrap_or(""))
        };
        let (new, old) = (markers(text(2)?), markers(text(3)?));
        Some(Self {
            snapshot: text(0)?.into(),
            prepared: text(1)?.split(' ').filter_map(Gid::parse).collect(),
            full: new.len() >= MARKERS_MAX || old.len() >= MARKERS_MAX,
            markers: new.into_iter().chain(old).collect(),
        })
    }
}

/// Which of these does the snapshot show? A gid needs no quoting.
pub(super) fn question(gids: &[Gid]) -> String {
    let list: Vec<String> = gids.iter().map(|gid| format!("'{gid}'")).collect();
    format!(
        "SELECT pg_catalog.string_agg(gid || ':' || participants, ' ') FROM pgherd.tx \
         WHERE gid IN ({}) AND state = 'committed'",
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
