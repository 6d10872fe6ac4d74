//! EXPLAIN: where a statement goes and why, with the shards' own plans below.

use pgherd_planner::{Action, Explain};

use super::{Conn, Route, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::wire::backend;

impl Conn {
    pub(super) async fn run_explain(
        &mut self,
        explain: &Explain,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        if explain.json {
            return Err(ErrorInfo::new("0A000", "EXPLAIN (FORMAT JSON) is not supported yet")
                .hint("Leave FORMAT out.")
                .into());
        }
        if statement.portal.is_some() {
            return Err(ErrorInfo::new(
                "0A000",
                "EXPLAIN is not supported in the extended protocol yet",
            )
            .hint("Send it as a simple query.")
            .into());
        }
        let inner =
            &statement.sql[explain.statement.start as usize..explain.statement.end as usize];
        let head = &statement.sql[explain.head.start as usize..explain.head.end as usize];
        let mut lines: Vec<String> = explain.plan.describe().lines().map(str::to_owned).collect();
        let mut scanned = pgherd_planner::Scan::default();
        pgherd_planner::scan(inner.as_bytes(), 0, self.planning.seed, &mut scanned);
        let route =
            self.route(&explain.plan, inner, &scanned.literals, &pgherd_planner::NoParams)?;
        let (shards, sql) = match (&route, &explain.plan.action) {
            (Route::One(shard), _) => (vec![*shard], None),
            (Route::Other, Action::Many(many)) => {
                let set = many.target.resolve(
                    &self.planning.map,
                    inner.as_bytes(),
                    &scanned.literals,
                    &pgherd_planner::NoParams,
                )?;
                (self.shard_list(&set), many.sql.as_deref())
            }
            _ => (Vec::new(), None),
        };
        if explain.analyze && shards.len() != 1 {
            return Err(ErrorInfo::new(
                "0A000",
                "EXPLAIN ANALYZE over several shards is not supported yet",
            )
            .hint("Use EXPLAIN without ANALYZE.")
            .into());
        }
        for shard in shards {
            let at = self.server_for(shard).await?;
            let mut request = Vec::new();
            let joins = self.put_join(at, &mut request);
            if joins > 0 {
                if let Err(error) = self.servers[at].send(&request).await {
                    return Err(self.lost(at, &error));
                }
                for _ in 0..joins {
                    self.collect_ok(at).await?;
                }
            }
            let reply = self.query(at, &format!("{head} {}", sql.unwrap_or(inner))).await?;
            lines.push(format!("Shard {shard}:"));
            for row in &reply.rows {
                let values = backend::row_values(row).unwrap_or_default();
                let text = values.first().copied().flatten().unwrap_or_default();
                lines.push(format!("  {}", String::from_utf8_lossy(text)));
            }
        }
        backend::text_columns(&mut self.client.out, &["QUERY PLAN"]);
        for line in &lines {
            backend::data_row(&mut self.client.out, &[Some(line.as_bytes())]);
        }
        self.client.complete("EXPLAIN");
        Ok(())
    }
}
