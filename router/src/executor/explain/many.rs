//! EXPLAIN of statements that run on several shards by themselves, and of what makes one answer.

use pgherd_planner::{
    Access, KeyColumn, Limit, ManyShards, Merge, RowCount, SplitInsert, Target, Tier,
};
use pgherd_shard_map::ShardId;

use super::shard_plan::{ShardPlan, Stats};
use super::tree::{Node, Value};
use super::{Asked, Moved, read_plan, shown_query};
use crate::error::{ErrorInfo, Failure};
use crate::executor::combine::{Finish, arrays, final_request};
use crate::executor::many::{Task, param_count, piece_types, split_rows};
use crate::executor::{Conn, Statement};
use crate::session::Portal;
use crate::wire::frontend;

impl Conn {
    pub(super) async fn explain_many(
        &mut self,
        many: &ManyShards,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        let shards = self.shards_of(&many.target, asked.inner)?;
        let sql = many.sql.as_deref().unwrap_or(asked.inner.sql);
        let title = format!("Scatter to {}", self.shards_name(&shards));
        let mut root = self.root(Tier::Scatter, "Scatter", title, &shards);
        root.texts("Why", self.why_many(many, asked)?);
        self.tell_commit(&mut root, &shards, asked);
        if many.sql.is_some() {
            root.text("Shard Query", shown_query(sql));
        } else {
            root.spoken("Shard Query", "the statement, as it is written");
            root.hidden("Shard Query", Value::Text(shown_query(sql)));
        }
        if asked.writes() {
            self.open_implicit();
        }
        let finish = match &many.merge {
            Merge::Ordered(ordered) => Finish::Sort(ordered),
            Merge::Combine(combine) => Finish::Combine(combine),
            merge => {
                let tasks = self.tasks(&shards, Some(&asked.explaining(sql)), "").await?;
                let plans = self.ask(&tasks, asked).await?;
                root.text("Merge", merge_words(merge, asked.inner.portal)?);
                root.stats = together(&plans);
                if let Merge::Concat { limit } = merge {
                    limited(&mut root.stats, limit, asked.inner.portal)?;
                    tell_moved(&mut root, &plans, asked, "from the shards to the router");
                }
                if matches!(merge, Merge::Same | Merge::EachAlone) {
                    let first = plans.first().map(|plan| plan.stats);
                    root.stats.rows = first.and_then(|first| first.rows);
                    root.stats.actual_rows = first.and_then(|first| first.actual_rows);
                }
                self.hang_shards(&mut root, &shards, plans, asked);
                return Ok(root);
            }
        };
        self.explain_finished(root, &shards, sql, finish, asked).await
    }

    /// Shards, and a final statement over their rows.
    async fn explain_finished(
        &mut self,
        mut root: Node,
        shards: &[ShardId],
        sql: &str,
        finish: Finish<'_>,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        let inner = asked.inner;
        let tasks = self.tasks(shards, Some(sql), "").await?;
        let at = tasks[0].at;
        self.join(at).await?;
        let types = inner
            .portal
            .map(|portal| piece_types(sql, portal, self.servers[at].shard))
            .transpose()?;
        let mut request = Vec::new();
        frontend::put_parse(&mut request, b"", sql, types.as_deref().unwrap_or_default());
        request.extend_from_slice(frontend::DESCRIBE_UNNAMED_STATEMENT);
        request.extend_from_slice(frontend::SYNC);
        let partial = self.request(at, &request).await?;
        let (_, types) = self.describe_original(at, inner, &partial).await?;
        if types.iter().any(crate::executor::combine::PartialType::is_nested) {
            let plan = self.plan_borrowed(inner.sql)?;
            let asked = Asked { inner: Statement { plan: &plan, ..inner }, ..asked };
            return Box::pin(self.explain_plan(asked)).await;
        }
        let explained: Vec<Task> = tasks
            .iter()
            .map(|task| Task { at: task.at, sql: Some(asked.explaining(sql)) })
            .collect();
        let plans = self.ask(&explained, asked).await?;
        let home = self.shard_name(shards[0]);
        root.text("Merge", format!("PostgreSQL on {home} makes one answer of the shards' rows"));

        let mut last = Node::new("Finish", format!("Finish on {home}"));
        last.hidden("Shard", Value::Plain(shards[0].to_string()));
        let final_sql = finish.render(&types, inner.portal)?;
        last.text("Query", shown_query(&final_sql));
        let runs_again = asked.analyze() && inner.plan.access == Access::Read;
        let replies = match runs_again {
            true => self.collect_partials(&tasks, inner).await?,
            false => Vec::new(),
        };
        let values = arrays(&replies, &types)?;
        let to = format!("from the shards to {home}");
        if runs_again {
            let rows = replies.iter().flat_map(|reply| &reply.rows);
            let (count, bytes) = rows.fold((0, 0), |(n, size), row| (n + 1, size + row.len()));
            let moved = Moved { rows: f64::from(count), bytes: Some(bytes as f64), exact: true };
            moved.tell(&mut root, true, &to);
        } else {
            tell_moved(&mut root, &plans, asked, &to);
        }
        root.stats = together(&plans);
        if asked.analyze() && !runs_again {
            // Its rows were not kept, and to get them the statement would have to run again.
            last.text("Note", "not run: the statement may write, and so it ran once");
            root.stats.rows = None;
            root.stats.actual_rows = None;
        } else {
            let request = final_request(&asked.explaining(&final_sql), &values, &[0, 0]);
            let reply = self.request(at, &request).await?;
            let plan = read_plan(&reply, asked);
            root.stats = after(root.stats, plan.stats);
            last.plan = Some(plan);
        }
        root.children.push(last);
        self.hang_shards(&mut root, shards, plans, asked);
        Ok(root)
    }

    pub(super) async fn explain_insert(
        &mut self,
        insert: &SplitInsert,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        let params = asked.inner.params()?;
        let mut texts = split_rows(insert, &self.planning.map, asked.inner, &params)?;
        texts.sort_by_key(|(shard, _)| *shard);
        let shards: Vec<ShardId> = texts.iter().map(|(shard, _)| *shard).collect();
        let title = format!("Split INSERT over {}", self.shards_name(&shards));
        let mut root = self.root(Tier::Scatter, "Split Insert", title, &shards);
        let key = asked.explain.tables.iter().find(|table| table.table == insert.table);
        let key = key.map_or_else(|| "the distribution column".to_owned(), KeyColumn::to_string);
        let count = insert.rows.len();
        root.texts("Why", vec![format!("{key} of each of the {count} rows says its shard")]);
        self.tell_commit(&mut root, &shards, asked);
        root.text("Merge", "counts are added, RETURNING's rows follow each other");
        if asked.writes() {
            self.open_implicit();
        }
        let mut tasks = Vec::with_capacity(texts.len());
        for (shard, sql) in &texts {
            let at = self.server_for(*shard).await?;
            tasks.push(Task { at, sql: Some(asked.explaining(sql)) });
        }
        let plans = self.ask(&tasks, asked).await?;
        root.stats = together(&plans);
        self.hang_shards(&mut root, &shards, plans, asked);
        for (node, (_, sql)) in root.children.iter_mut().zip(&texts) {
            node.text("Query", shown_query(sql));
        }
        Ok(root)
    }

    fn why_many(&self, many: &ManyShards, asked: Asked<'_>) -> Result<Vec<String>, Failure> {
        match &many.merge {
            Merge::Same | Merge::EachAlone if many.target == Target::All => {
                let schema = asked.inner.plan.access == Access::Schema;
                Ok(vec![match schema {
                    true => "the schema is the same on every shard".to_owned(),
                    false => "every shard has a copy of a reference table".to_owned(),
                }])
            }
            _ => self.why(&many.target, None, asked),
        }
    }
}

/// What moves, if the shards say enough for that.
fn tell_moved(root: &mut Node, plans: &[ShardPlan], asked: Asked<'_>, from_to: &str) {
    if let Some(moved) = Moved::by(plans.iter().map(|plan| plan.stats), asked.analyze()) {
        moved.tell(root, asked.analyze(), from_to);
    }
}

fn merge_words(merge: &Merge, portal: Option<&Portal>) -> Result<String, Failure> {
    let Merge::Concat { limit } = merge else {
        return Ok(match merge {
            Merge::Sum => "counts are added, RETURNING's rows follow each other",
            _ => "every shard does the same, and the client gets one answer",
        }
        .to_owned());
    };
    let mut words = "rows are passed on in any order, as they arrive".to_owned();
    if let Some(rows) = row_count(limit.offset.as_ref(), portal)? {
        words += &format!("; the first {rows} are left out");
    }
    if let Some(rows) = row_count(limit.count.as_ref(), portal)? {
        words += &format!("; {rows} at most");
    }
    Ok(words)
}

fn row_count(count: Option<&RowCount>, portal: Option<&Portal>) -> Result<Option<u64>, ErrorInfo> {
    match count {
        None => Ok(None),
        Some(RowCount::Rows(rows)) => Ok(Some(*rows)),
        Some(RowCount::Param(number)) => match param_count(portal, *number) {
            Ok(rows) => Ok(rows),
            Err(Failure::Statement(error)) => Err(error),
            Err(_) => Ok(None),
        },
    }
}

/// LIMIT and OFFSET of the router.
fn limited(stats: &mut Stats, limit: &Limit, portal: Option<&Portal>) -> Result<(), Failure> {
    let skip = row_count(limit.offset.as_ref(), portal)?.unwrap_or(0) as f64;
    let most = row_count(limit.count.as_ref(), portal)?.map_or(f64::MAX, |rows| rows as f64);
    for rows in [&mut stats.rows, &mut stats.actual_rows] {
        *rows = rows.map(|rows| (rows - skip).clamp(0.0, most));
    }
    Ok(())
}

/// All shards' work: costs and rows are added, the first row comes from the quickest.
pub(super) fn together(plans: &[ShardPlan]) -> Stats {
    let sum = |get: fn(&Stats) -> Option<f64>| -> Option<f64> {
        plans.iter().map(|plan| get(&plan.stats)).sum()
    };
    let each = |get: fn(&Stats) -> Option<f64>| plans.iter().filter_map(move |p| get(&p.stats));
    Stats {
        startup_cost: each(|stats| stats.startup_cost).reduce(f64::min),
        total_cost: sum(|stats| stats.total_cost),
        rows: sum(|stats| stats.rows),
        width: each(|stats| stats.width).reduce(f64::max),
        actual_rows: sum(|stats| stats.actual_rows),
        actual_time: None,
        execution_time: None,
    }
}

/// A statement that runs when others have ended.
pub(super) fn after(before: Stats, last: Stats) -> Stats {
    let add = |cost: Option<f64>| Some(before.total_cost? + cost?);
    Stats {
        startup_cost: add(last.startup_cost),
        total_cost: add(last.total_cost),
        actual_time: None,
        execution_time: None,
        ..last
    }
}
