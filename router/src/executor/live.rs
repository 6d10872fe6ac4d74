//! Views of what is in no table: the router's own figures, and transactions over several shards
//! while they are between the phases of their commit; `pgherd_transaction_outcome()`.

use std::sync::Arc;
use std::time::SystemTime;

use pgherd_planner::{Limit, Live, LiveView, ManyShards, Merge, Target};
use pgherd_shard_map::ShardId;
use postgres_protocol::escape::escape_literal;

use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::recovery::{self, MARKERS_KEPT};
use crate::two_phase::{Gid, Verdict};

impl Conn {
    /// A query of such views: their rows, and the statement over them on the home shard.
    pub(super) async fn run_live(
        &mut self,
        live: &Live,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let mut rows = Vec::with_capacity(live.views.len());
        for view in &live.views {
            let shared = &self.worker.shared;
            rows.push(match view {
                LiveView::Transactions => self.transactions().await?,
                LiveView::Pools => shared.pool_rows().await,
                LiveView::Clients => shared.client_rows().await,
                LiveView::Servers => shared.server_rows().await,
                LiveView::Statements => shared.statement_rows().await,
            });
        }
        let sql = with_rows(live, statement.sql, &rows);
        let limit = Limit { count: None, offset: None };
        let many = ManyShards {
            target: Target::Home,
            sql: Some(sql.into()),
            merge: Merge::Concat { limit },
        };
        self.run_many(&many, statement).await
    }

    /// The prepared transactions of all shards. A shard that cannot be asked is a warning.
    async fn transactions(&mut self) -> Result<String, Failure> {
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
            self.notice("WARNING", &notice);
        }
        let rows = serde_json::to_string(&lines);
        Ok(rows.map_err(|error| ErrorInfo::new("XX000", error.to_string()))?)
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

/// What a view selects from its rows, and the rows' columns.
const fn columns(view: LiveView) -> (&'static str, &'static str) {
    match view {
        LiveView::Clients => (
            "id, user_name, address, port, connected, state, messages, servers",
            "id bigint, user_name name, address inet, port integer, connected timestamptz, \
             state text, messages bigint, servers integer[]",
        ),
        LiveView::Pools => (
            "shard, user_name, active, idle, opening, waiting, \
             pg_catalog.make_interval(secs => longest_wait) AS longest_wait, size, paused",
            "shard integer, user_name name, active integer, idle integer, opening integer, \
             waiting integer, longest_wait double precision, size integer, paused boolean",
        ),
        LiveView::Servers => (
            "shard, user_name, state, address, port, pid, client",
            "shard integer, user_name name, state text, address inet, port integer, pid integer, \
             client bigint",
        ),
        LiveView::Statements => (
            "user_name, query, tier, calls, total_ms, mean_ms, max_ms",
            "user_name name, query text, tier text, calls bigint, total_ms double precision, \
             mean_ms double precision, max_ms double precision",
        ),
        LiveView::Transactions => (
            "gid, shard, decider, router, owner, prepared, \
             pg_catalog.make_interval(secs => age_seconds) AS age, state",
            "gid text, shard integer, decider integer, router text, owner text, \
             prepared timestamptz, age_seconds double precision, state text",
        ),
    }
}

/// Whose rows a role sees: as in `pg_stat_activity`, what others do is not for everybody.
const fn condition(view: LiveView) -> &'static str {
    match view {
        LiveView::Clients | LiveView::Servers | LiveView::Statements => {
            " WHERE user_name = CURRENT_USER OR \
             pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')"
        }
        LiveView::Pools | LiveView::Transactions => "",
    }
}

/// The statement with the rows of each view as a part of its WITH.
fn with_rows(live: &Live, sql: &str, rows: &[String]) -> String {
    let head = live.head as usize;
    let ctes = live.views.iter().zip(rows).map(|(view, rows)| {
        let (name, (select, columns)) = (view.name(), columns(*view));
        let (rows, condition) = (escape_literal(rows), condition(*view));
        format!(
            "{name} AS (SELECT {select} FROM pg_catalog.json_to_recordset({rows}) \
             AS lines ({columns}){condition})"
        )
    });
    let ctes: Vec<String> = ctes.collect();
    let (before, after) = if live.extends_with { (" ", ",") } else { ("WITH ", " ") };
    let mut text = format!("{}{before}{}{after}", &sql[..head], ctes.join(", "));
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
        let views = Box::from([LiveView::Transactions]);
        let live = Live { views, head: 0, extends_with: false, schemas };
        let text = with_rows(&live, sql, &["[]".to_owned()]);
        assert!(text.starts_with("WITH transactions AS (SELECT"), "{text}");
        assert!(text.ends_with(") SELECT gid FROM transactions"), "{text}");
        let sql = "WITH a AS (SELECT 1) SELECT gid FROM pgherd.transactions, a";
        let schemas = Box::from([Span { start: 37, end: 44 }]);
        let live = Live { head: 4, extends_with: true, schemas, ..live };
        let text = with_rows(&live, sql, &["[]".to_owned()]);
        assert!(text.starts_with("WITH transactions AS (SELECT"), "{text}");
        assert!(text.ends_with("), a AS (SELECT 1) SELECT gid FROM transactions, a"), "{text}");
    }
}
