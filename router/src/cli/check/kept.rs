//! What a server keeps for too long: prepared transactions, log for replication slots, indexes that
//! nobody can use, leftovers of a run of `pgherd reshard`.

use pgherd_shard_map::ShardId;
use tokio_postgres::{Client, Error, Row};

use super::report::{Finding, Part, Severity, some};
use crate::cli::reshard::bytes;
use crate::two_phase::Gid;

/// A prepared transaction that nobody has finished for so long: recovery takes a few seconds.
const PREPARED_MAX: f64 = 10.0;

/// What a replication slot may keep.
const SLOT_MAX: u64 = 1 << 30;

const PREPARED_SQL: &str = "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 \
    FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared";

const SLOTS_SQL: &str = "SELECT slot_name::text, active, coalesce(wal_status, ''), \
    greatest(0, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
        ELSE pg_current_wal_lsn() END, restart_lsn))::int8 \
    FROM pg_replication_slots WHERE NOT temporary ORDER BY slot_name";

const INVALID_SQL: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i \
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE NOT i.indisvalid AND n.nspname !~ '^pg_toast' AND NOT EXISTS (SELECT \
        FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) ORDER BY 1";

/// What a run of `pgherd reshard` makes in the database, and takes away when it is over.
const LEFT_SQL: &str = "SELECT 'publication ' || pubname FROM pg_publication \
        WHERE pubname ~ '^pgherd_[0-9]+_[0-9]+_[0-9]+$' \
    UNION ALL SELECT 'subscription ' || subname FROM pg_subscription \
        WHERE subname ~ '^pgherd_[0-9]+_[0-9]+_[0-9]+$' \
        AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    UNION ALL SELECT format('trigger %s on %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t \
        JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace \
        WHERE n.nspname = 'pgherd' AND NOT t.tgisinternal AND t.tgparentid = 0 \
    UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger \
        WHERE evtname ~ '^pgherd_[0-9]+_[0-9]+_[0-9]+_' \
    UNION ALL SELECT format('%s pgherd.%I', CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, \
        c.relname) FROM pg_class c WHERE c.relnamespace = 'pgherd'::regnamespace \
        AND c.relkind IN ('r', 'S') AND c.relname ~ '^pgherd_[0-9]+_[0-9]+_[0-9]+_' \
    UNION ALL SELECT 'function ' || p.oid::regprocedure::text FROM pg_proc p \
        WHERE p.pronamespace = 'pgherd'::regnamespace \
        AND p.proname ~ '^pgherd_[0-9]+_[0-9]+_[0-9]+_' ORDER BY 1";

#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    /// Gids and ages in seconds, the oldest first.
    prepared: Vec<(String, f64)>,
    slots: Vec<Slot>,
    invalid_indexes: Vec<String>,
    /// Objects of a run of `pgherd reshard`.
    moving_objects: Vec<String>,
}

#[derive(Debug, Clone)]
struct Slot {
    name: String,
    active: bool,
    status: String,
    kept: u64,
}

impl Kept {
    /// # Errors
    /// PostgreSQL's; a name that is no text, as a database in SQL_ASCII may have.
    pub(super) async fn read(client: &Client) -> Result<Self, Error> {
        let prepared = client.query(PREPARED_SQL, &[]).await?;
        let slots = client.query(SLOTS_SQL, &[]).await?;
        let names =
            |rows: Vec<Row>| rows.iter().map(|row| row.try_get(0)).collect::<Result<_, Error>>();
        let age = |row: &Row| Ok((row.try_get(0)?, row.get(1)));
        Ok(Self {
            prepared: prepared.iter().map(age).collect::<Result<_, Error>>()?,
            slots: slots.iter().map(Slot::from).collect(),
            invalid_indexes: names(client.query(INVALID_SQL, &[]).await?)?,
            moving_objects: names(client.query(LEFT_SQL, &[]).await?)?,
        })
    }

    /// Prepared transactions, slots, invalid indexes, leftovers.
    pub(super) fn judge(&self, shard: ShardId, moving: bool) -> Vec<Finding> {
        let mut found = Vec::new();
        let old = self.prepared.iter().filter(|(_, age)| *age >= PREPARED_MAX);
        let (ours, others): (Vec<_>, Vec<_>) = old.partition(|(gid, _)| Gid::parse(gid).is_some());
        for (list, severity, whose, hint) in [
            (
                ours,
                Severity::Error,
                "of pgherd",
                "They hold locks, and VACUUM cannot pass them. A running router finishes them within \
                 seconds, if the deciding shard answers; pgherd txn list says what is in the way \
                 (docs/runbooks/in-doubt-transactions.md).",
            ),
            (
                others,
                Severity::Warning,
                "of somebody else",
                "They hold locks, and VACUUM cannot pass them. Whoever prepared them must end them: \
                 COMMIT PREPARED or ROLLBACK PREPARED, on the shard itself.",
            ),
        ] {
            if let Some((gid, age)) = list.first() {
                let text = format!(
                    "shard {shard}: prepared transactions {whose} that nobody has finished: {}; the \
                     oldest, {gid}, is {age:.0} s old",
                    list.len()
                );
                found.push(finding(severity, shard, text, hint));
            }
        }
        found.extend(self.slots.iter().filter_map(|slot| slot_finding(shard, slot, moving)));
        if !self.invalid_indexes.is_empty() {
            let text = format!("shard {shard}: invalid indexes: {}", some(&self.invalid_indexes));
            let hint = "Nobody uses them, every write pays for them, and a unique one does not keep \
                        rows unique: REINDEX INDEX CONCURRENTLY on the shard itself, or DROP INDEX and \
                        make it anew.";
            found.push(finding(Severity::Warning, shard, text, hint));
        }
        if !moving && !self.moving_objects.is_empty() {
            let text = format!(
                "shard {shard}: a run of pgherd reshard has left {}",
                some(&self.moving_objects)
            );
            let hint = "No run is under way: drop it on the shard itself, triggers first.";
            found.push(finding(Severity::Warning, shard, text, hint));
        }
        found
    }
}

impl From<&Row> for Slot {
    fn from(row: &Row) -> Self {
        let kept = row.get::<_, Option<i64>>(3).unwrap_or_default().max(0).cast_unsigned();
        Self { name: row.get(0), active: row.get(1), status: row.get(2), kept }
    }
}

fn finding(
    severity: Severity,
    shard: ShardId,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    Finding::new(severity, Part::Server, &[shard], message, hint)
}

fn slot_finding(shard: ShardId, slot: &Slot, moving: bool) -> Option<Finding> {
    let Slot { name, kept, .. } = slot;
    // A running one is `pgherd reshard status`' to tell of.
    if moving && name.starts_with("pgherd_") && *kept < SLOT_MAX {
        return None;
    }
    let what = format!("shard {shard}: the replication slot {name}");
    let hint = format!(
        "What it keeps fills the disk. Start its reader again; if nobody reads it any more: SELECT \
         pg_drop_replication_slot('{name}') on the shard itself."
    );
    let (severity, message) = match (&*slot.status, slot.active) {
        ("lost", _) => (Severity::Warning, format!("{what} has lost what it needs")),
        (_, false) if *kept >= SLOT_MAX => {
            (Severity::Warning, format!("{what} has no reader and keeps {} of log", bytes(*kept)))
        }
        (_, true) if *kept >= SLOT_MAX => {
            (Severity::Warning, format!("{what}'s reader is {} behind", bytes(*kept)))
        }
        (_, false) => {
            (Severity::Note, format!("{what} has no reader and keeps {} of log", bytes(*kept)))
        }
        (_, true) => return None,
    };
    Some(finding(severity, shard, message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(change: impl FnOnce(&mut Kept)) -> Vec<String> {
        let mut kept = Kept::default();
        change(&mut kept);
        kept.judge(ShardId(1), false).iter().map(Finding::line).collect()
    }

    #[test]
    fn what_is_kept_for_too_long_is_told_of() {
        let gid = "pgherd_app_0_r1_0193a0b0c0d000000000000000000001";
        assert_eq!(
            lines(|kept| kept.prepared = vec![(gid.to_owned(), 70.0), ("x".to_owned(), 11.0)]),
            [
                format!(
                    "error shard 1: prepared transactions of pgherd that nobody has finished: 1; \
                     the oldest, {gid}, is 70 s old"
                ),
                "warning shard 1: prepared transactions of somebody else that nobody has finished: \
                 1; the oldest, x, is 11 s old"
                    .to_owned()
            ]
        );
        assert!(lines(|kept| kept.prepared = vec![(gid.to_owned(), 2.0)]).is_empty());
        let slot = |active, kept| Slot {
            name: "s".to_owned(),
            active,
            status: "reserved".to_owned(),
            kept,
        };
        assert_eq!(
            lines(|kept| kept.slots = vec![slot(false, 2 << 30), slot(true, 5)]),
            ["warning shard 1: the replication slot s has no reader and keeps 2.0 GB of log"]
        );
        let indexes: Vec<String> = (1..=6).map(|n| format!("public.i{n}")).collect();
        assert_eq!(
            lines(|kept| kept.invalid_indexes = indexes),
            ["warning shard 1: invalid indexes: public.i1, public.i2, public.i3, public.i4, \
              public.i5 and 1 more"]
        );
    }
}
