//! What is known of transactions over several shards while they are between the phases of their
//! commit: `pgherd.transactions` and `pgherd_transaction_outcome()`.

use std::sync::Arc;
use std::time::SystemTime;

use pgherd_planner::{Limit, Live, ManyShards, Merge, Target};
use pgherd_shard_map::ShardId;
use postgres_protocol::escape::escape_literal;

use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::recovery::{self, MARKERS_KEPT};
use crate::two_phase::{Gid, Verdict};
use crate::wire::backend;

/// The view's columns, as the shards' own view has them.
const COLUMNS: &str = "gid text, shard integer, decider integer, router text, owner text, \
                       prepared timestamptz, age_seconds double precision, state text";

impl Conn {
    /// A query of `pgherd.transactions`: the rows of all shards, and the statement over them on the
    /// home shard. A shard that cannot be asked is a warning.
    pub(super) async fn run_live(
        &mut self,
        live: &Live,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let shared = &self.worker.shared;
        let catalog = &shared.settings.catalog;
        let shards: Vec<(ShardId, String)> = self
            .planning
            .map
            .shards()
            .map(|shard| (shard.id, catalog.login_for(&shard.dsn)))
            .collect();
        let dialer = Arc::clone(&shared.dialer);
        let looking = shared.control.spawn(async move {
            let (clients, mut silent) = recovery::connect_all(&dialer, &shards).await;
            let (lines, later) = recovery::in_doubt(&clients).await;
            silent.extend(later);
            (lines, silent.into_iter().map(|(shard, why)| (shard, why.to_string())).collect())
        });
        let (lines, silent): (_, Vec<(ShardId, String)>) =
            looking.await.map_err(|_| ErrorInfo::new("XX000", "the shards could not be asked"))?;
        for (shard, why) in silent {
            let notice = ErrorInfo::new("01000", format!("shard {shard} cannot be asked: {why}"))
                .detail("Its transactions are missing here.");
            backend::notice_response(&mut self.client.out, "WARNING", &notice);
        }
        let rows = serde_json::to_string(&lines)
            .map_err(|error| ErrorInfo::new("XX000", error.to_string()))?;
        let sql = with_rows(live, statement.sql, &rows);
        let limit = Limit { count: None, offset: None };
        let many = ManyShards {
            target: Target::Home,
            sql: Some(sql.into()),
            merge: Merge::Concat { limit },
        };
        self.run_many(&many, statement).await
    }

    /// What became of a transaction. Asking decides: one that has not been decided and whose owner
    /// does not hold the decision is rolled back.
    pub(super) async fn transaction_outcome(&self, gid: &str) -> Result<&'static str, Failure> {
        let not_ours = || {
            ErrorInfo::new("22023", "this is not the gid of a transaction over several shards")
                .hint("The error 08007 of its COMMIT has it; so has pgherd.transactions.")
        };
        let gid = Gid::parse(gid).ok_or_else(not_ours)?;
        let decider = gid.decider().ok_or_else(not_ours)?;
        self.planning.map.shard(decider).ok_or_else(not_ours)?;
        let age = SystemTime::now().duration_since(gid.made()).unwrap_or_default();
        if age >= MARKERS_KEPT {
            return Err(ErrorInfo::new("55000", "the transaction is too old to tell its outcome")
                .detail("Shards keep outcomes for one day.")
                .into());
        }
        match self.look_up(decider, &gid).await {
            Verdict::Committed => Ok("committed"),
            Verdict::Aborted => Ok("rolled back"),
            Verdict::Undecided => Ok("undecided"),
            Verdict::Unreachable => {
                Err(crate::pool::unreachable(decider, "it decides this transaction").into())
            }
        }
    }
}

/// The statement with the rows as a part of its WITH.
fn with_rows(live: &Live, sql: &str, rows: &str) -> String {
    let head = live.head as usize;
    let rows = escape_literal(rows);
    let (before, after) = if live.extends_with { (" ", ",") } else { ("WITH ", " ") };
    let mut text = format!(
        "{}{before}transactions AS (SELECT gid, shard, decider, router, owner, prepared, \
         pg_catalog.make_interval(secs => age_seconds) AS age, state \
         FROM pg_catalog.json_to_recordset({rows}) AS lines ({COLUMNS})){after}",
        &sql[..head]
    );
    let mut from = head;
    for schema in &live.schemas {
        text.push_str(&sql[from..schema.start as usize]);
        from = schema.end as usize;
    }
    text.push_str(&sql[from..]);
    text
}

#[cfg(test)]
mod tests {
    use pgherd_planner::Span;

    use super::*;

    #[test]
    fn rows_stand_before_the_statement_or_in_its_own_with() {
        let sql = "SELECT gid FROM pgherd.transactions";
        let schemas = Box::from([Span { start: 16, end: 23 }]);
        let text = with_rows(&Live { head: 0, extends_with: false, schemas }, sql, "[]");
        assert!(text.starts_with("WITH transactions AS (SELECT"), "{text}");
        assert!(text.ends_with(") SELECT gid FROM transactions"), "{text}");
        let sql = "WITH a AS (SELECT 1) SELECT gid FROM pgherd.transactions, a";
        let schemas = Box::from([Span { start: 37, end: 44 }]);
        let text = with_rows(&Live { head: 4, extends_with: true, schemas }, sql, "[]");
        assert!(text.starts_with("WITH transactions AS (SELECT"), "{text}");
        assert!(text.ends_with("), a AS (SELECT 1) SELECT gid FROM transactions, a"), "{text}");
    }
}
