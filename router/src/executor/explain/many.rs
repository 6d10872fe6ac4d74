//! EXPLAIN of statements that run on several shards by themselves, and of what makes one answer.

use pgherd_planner::{
    Access, Combine, KeyColumn, Limit, ManyShards, Merge, Ordered, SplitInsert, Target, Tier,
};
use pgherd_shard_map::ShardId;

use super::shard_plan::{ShardPlan, Stats};
use super::tree::{Node, Value};
use super::{Asked, Moved, read_plan, shown_query};
use crate::error::{ErrorInfo, Failure};
use crate::executor::combine::{arrays, final_request, final_statement};
use crate::executor::grouped::Grouped;
use crate::executor::insert::{Made, split_rows};
use crate::executor::many::{Task, row_counts};
use crate::executor::ordered::Compare;
use crate::executor::{Conn, Statement};
use crate::session::Portal;

impl Conn {
    pub(super) async fn explain_many(
        &mut self,
        many: &ManyShards,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        if matches!(many.merge, Merge::Rekeyed(_)) && asked.analyze() {
            return Err(ErrorInfo::new(
                "0A000",
                "EXPLAIN ANALYZE does not move rows between shards",
            )
            .detail("The statement sets the distribution column.")
            .hint("Use EXPLAIN without ANALYZE.")
            .into());
        }
        let shards = self.shards_of(&many.target, asked.inner)?;
        let sql = many.sql.as_deref().unwrap_or(asked.inner.sql);
        let title = format!("Scatter to {}", self.shards_name(&shards));
        let mut root = self.root(Tier::Scatter, "Scatter", title, &shards);
        root.texts("Why", self.why_many(many, asked)?);
        self.tell_commit(&mut root, &shards, asked);
        if let Merge::Ordered(ordered) = &many.merge {
            return self.explain_ordered(root, &shards, sql, ordered, asked).await;
        }
        if matches!(many.merge, Merge::Combine(_)) {
            // It is chosen by the types.
        } else if many.sql.is_some() {
            root.text("Shard Query", shown_query(sql));
        } else {
            root.spoken("Shard Query", "the statement, as it is written");
            root.hidden("Shard Query", Value::Text(shown_query(sql)));
        }
        if asked.writes() {
            self.open_implicit();
        }
        if asked.analyze() && asked.inner.copies.is_none() {
            self.read_together(&shards, asked.inner.plan).await?;
        }
        let combine = match &many.merge {
            Merge::Combine(combine) => combine,
            merge => {
                let tasks = self.tasks(&shards, Some(&asked.explaining(sql))).await?;
                let plans = self.ask(&tasks, asked).await?;
                root.text("Merge", merge_words(merge, asked.inner.portal)?);
                root.stats = together(&plans);
                if let Merge::Concat { limit } = merge {
                    limited(&mut root.stats, limit, asked.inner.portal)?;
                    tell_moved(&mut root, &plans, asked, "from the shards to the router");
                }
                if matches!(merge, Merge::Same | Merge::EachAlone(_) | Merge::Numbered(_)) {
                    let first = plans.first().map(|plan| plan.stats);
                    root.stats.rows = first.and_then(|first| first.rows);
                    root.stats.actual_rows = first.and_then(|first| first.actual_rows);
                }
                self.hang_shards(&mut root, &shards, plans, asked);
                return Ok(root);
            }
        };
        self.explain_finished(root, &shards, sql, combine, asked).await
    }

    /// Shards whose rows are sorted, and how they are merged.
    async fn explain_ordered(
        &mut self,
        mut root: Node,
        shards: &[ShardId],
        sql: &str,
        ordered: &Ordered,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        if asked.writes() {
            self.open_implicit();
        }
        let tasks = self.tasks(shards, None).await?;
        let prepared = self.prepare_sorted(tasks[0].at, sql, ordered, asked.inner).await?;
        let Some(sorted) = prepared else {
            let plan = self.plan_borrowed(asked.inner)?;
            let asked = Asked { inner: Statement { plan: &plan, ..asked.inner }, ..asked };
            return Box::pin(self.explain_plan(asked)).await;
        };
        root.text("Shard Query", shown_query(&sorted.sql));
        let portal = asked.inner.portal;
        let mut words = "the shards sort, and their rows are merged as they arrive".to_owned();
        if let Compare::Ranked(_) = sorted.compare {
            words += &format!("; PostgreSQL on {} compares them", self.shard_name(shards[0]));
        }
        match usize::from(ordered.distinct) {
            0 => {}
            all if all == ordered.keys.len() => words += "; of equal rows the first one is kept",
            some => words += &format!("; of rows equal in {some} keys the first one is kept"),
        }
        words += &limit_words(&ordered.limit, portal)?;
        if ordered.ties {
            words += " and those equal to the last";
        }
        root.text("Merge", words);
        let keys = ordered.keys.iter().map(|key| {
            let direction = if key.descending { " DESC" } else { "" };
            format!("{}{direction}", key.expression)
        });
        root.texts("Merge Key", keys.collect());
        let tasks = self.tasks(shards, Some(&asked.explaining(&sorted.sql))).await?;
        let plans = self.ask(&tasks, asked).await?;
        root.stats = together(&plans);
        limited(&mut root.stats, &ordered.limit, portal)?;
        tell_moved(&mut root, &plans, asked, "from the shards to the router");
        self.hang_shards(&mut root, shards, plans, asked);
        Ok(root)
    }

    /// Shards, and a final statement over their rows.
    async fn explain_finished(
        &mut self,
        mut root: Node,
        shards: &[ShardId],
        sql: &str,
        combine: &Combine,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        let inner = asked.inner;
        let tasks = self.tasks(shards, Some(sql)).await?;
        let at = tasks[0].at;
        let partial = self.describe_one(at, sql, inner).await?;
        let types = self.types_of(at, &partial).await?;
        if types.iter().any(crate::executor::combine::PartialType::stays_apart) {
            let plan = self.plan_borrowed(inner)?;
            let asked = Asked { inner: Statement { plan: &plan, ..inner }, ..asked };
            return Box::pin(self.explain_plan(asked)).await;
        }
        let bytewise = self.planning.map.bytewise_collation;
        let unconverted = self.sends_texts_as_they_are(at);
        let grouped = Grouped::of(combine, &types, bytewise, unconverted);
        let direct = grouped.is_some() && Grouped::are_shown_directly(combine, &types);
        root.text("Shard Query", shown_query(sql));
        let explained: Vec<Task> =
            tasks.iter().map(|task| Task::new(task.at, Some(&asked.explaining(sql)))).collect();
        let plans = self.ask(&explained, asked).await?;
        let home = self.shard_name(shards[0]);
        root.text(
            "Merge",
            match (&grouped, combine.whole) {
                (None, _) => format!("PostgreSQL on {home} makes one answer of the shards' rows"),
                (Some(_), _) if direct => "groups that meet are added up".to_owned(),
                (Some(_), true) => {
                    format!("groups that meet are added up, and PostgreSQL on {home} finishes them")
                }
                (Some(_), false) => format!(
                    "groups that meet are added up, and PostgreSQL on {home} finishes them part by \
                     part"
                ),
            },
        );
        if direct {
            tell_moved(&mut root, &plans, asked, "from the shards to the router");
            root.stats = together(&plans);
            self.hang_shards(&mut root, shards, plans, asked);
            return Ok(root);
        }

        let mut last = Node::new("Finish", format!("Finish on {home}"));
        last.hidden("Shard", Value::Plain(shards[0].to_string()));
        let final_sql = final_statement(combine, &types, inner.portal)?;
        last.text("Query", shown_query(&final_sql));
        let runs_again = asked.analyze() && inner.plan.access == Access::Read;
        let replies = match runs_again {
            true => self.collect_partials(&tasks, inner, &mut false).await?,
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
        let mut made = Made::new();
        if asked.analyze() {
            made = self.make_values(insert).await?;
        }
        let params = asked.inner.params()?;
        let mut texts = split_rows(insert, &self.planning.map, asked.inner, &params, made)?;
        if insert.group.is_none()
            && let Some((_, text)) = texts.pop()
        {
            let shards = self.shard_list(&pgherd_planner::ShardSet::All);
            texts = shards.into_iter().map(|shard| (shard, text.clone())).collect();
        }
        texts.sort_by_key(|(shard, _)| *shard);
        let shards: Vec<ShardId> = texts.iter().map(|(shard, _)| *shard).collect();
        let title = format!("Split INSERT over {}", self.shards_name(&shards));
        let mut root = self.root(Tier::Scatter, "Split Insert", title, &shards);
        let key = asked.tables.iter().find(|table| table.table == insert.table);
        let key = key.map_or_else(|| "the distribution column".to_owned(), KeyColumn::to_string);
        let count = insert.rows.len();
        root.texts(
            "Why",
            vec![match insert.group {
                Some(_) => format!("{key} of each of the {count} rows says its shard"),
                None => "every shard has a copy of a reference table".to_owned(),
            }],
        );
        self.tell_commit(&mut root, &shards, asked);
        let merge = if insert.group.is_some() { Merge::Sum } else { Merge::Same };
        root.text("Merge", merge_words(&merge, asked.inner.portal)?);
        if asked.writes() {
            self.open_implicit();
        }
        let mut tasks = Vec::with_capacity(texts.len());
        for (shard, sql) in &texts {
            let at = self.server_for(*shard).await?;
            tasks.push(Task::new(at, Some(&asked.explaining(sql))));
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
            Merge::Same | Merge::EachAlone(_) | Merge::Numbered(_)
                if many.target == Target::All =>
            {
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
            Merge::Rekeyed(_) => {
                "counts are added; then rows go to the shards of their new keys, in the same transaction"
            }
            _ => "every shard does the same, and the client gets one answer",
        }
        .to_owned());
    };
    let words = "rows are passed on in any order, as they arrive";
    Ok(format!("{words}{}", limit_words(limit, portal)?))
}

/// LIMIT and OFFSET, after other words.
fn limit_words(limit: &Limit, portal: Option<&Portal>) -> Result<String, Failure> {
    let (offset, count) = row_counts(limit, portal)?;
    let mut words = String::new();
    if let Some(rows) = offset {
        words += &format!("; the first {rows} are left out");
    }
    if let Some(rows) = count {
        words += &format!("; {rows} at most");
    }
    Ok(words)
}

/// LIMIT and OFFSET of the router.
fn limited(stats: &mut Stats, limit: &Limit, portal: Option<&Portal>) -> Result<(), Failure> {
    let (offset, count) = row_counts(limit, portal)?;
    let skip = offset.unwrap_or(0) as f64;
    let most = count.map_or(f64::MAX, |rows| rows as f64);
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
