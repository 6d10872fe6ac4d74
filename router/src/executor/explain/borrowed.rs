//! EXPLAIN of a statement that PostgreSQL runs over copies of rows.
//!
//! The scratch tables are made as for the statement itself, so that its plan over them can be asked
//! for. Without ANALYZE they stay empty, and the plan's estimates are those of empty tables. With
//! ANALYZE rows are copied, and measured.

use pgherd_planner::{Borrow, Tier};
use pgherd_shard_map::ShardId;

use super::many::{after, together};
use super::shard_plan::Stats;
use super::tree::{Node, Value};
use super::{Asked, Moved, shown_query};
use crate::error::Failure;
use crate::executor::borrow::Source;
use crate::executor::many::Task;
use crate::executor::pulled::pull_query;
use crate::executor::{Conn, Statement};

impl Conn {
    pub(super) async fn explain_borrowed(
        &mut self,
        borrow: &Borrow,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        let home = self.planning.map.home;
        let at = self.server_for(home).await?;
        let broadcast = !borrow.broadcasts.is_empty() && asked.inner.copies.is_none();
        let without = |statement| Statement { copies: None, ..statement };
        let asked = Asked { whole: without(asked.whole), inner: without(asked.inner), ..asked };
        if !broadcast {
            self.refuse_unseen(borrow, at)?;
        }
        if asked.analyze() {
            self.read_copies_together(borrow, asked.inner).await?;
        }
        if broadcast {
            if let Some(node) = Box::pin(self.explain_broadcast(borrow, asked)).await? {
                return Ok(node);
            }
            self.refuse_unseen(borrow, at)?;
        }
        let sources = self.sources(borrow, asked.inner).await?;
        let scratch = self.open_scratch(at, borrow.local).await?;
        let result = self.explain_over(scratch, &sources, borrow, asked).await;
        self.close_scratch();
        result
    }

    async fn explain_over(
        &mut self,
        scratch: usize,
        sources: &[Source<'_>],
        borrow: &Borrow,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        let home = self.shard_name(self.planning.map.home);
        let mut shards: Vec<ShardId> = sources
            .iter()
            .flat_map(|source| source.servers.iter().map(|at| self.servers[*at].shard))
            .collect();
        shards.sort_unstable();
        shards.dedup();
        let title =
            format!("Borrow PostgreSQL on {home} for rows of {}", self.shards_name(&shards));
        let mut root = self.root(Tier::Borrow, "Borrow", title, &shards);
        let why = format!("no shard can answer it by itself: {}", borrow.why);
        root.texts("Why", vec![why]);
        root.text(
            "Merge",
            format!("rows are copied to {home}, where PostgreSQL runs the statement over them"),
        );
        let mut left = self.worker.live.borrow().borrow_max;
        let mut copies = Vec::with_capacity(sources.len());
        self.copy_own(scratch, &borrow.own, &mut left).await?;
        let mut before = Stats { total_cost: Some(0.0), ..Stats::default() };
        for source in sources {
            self.make_scratch_table(scratch, source.pull).await?;
            let (node, stats) = self.explain_copy(scratch, source, &mut left, asked).await?;
            copies.push(node);
            before = after(before, stats);
            if borrow.grouped {
                self.add_primary_key(scratch, source.pull).await?;
            }
        }
        let mut last = Node::new("Finish", format!("Finish on {home}"));
        last.hidden("Shard", Value::Plain(self.planning.map.home.to_string()));
        last.text("Query", shown_query(&borrow.sql));
        if !asked.analyze() && asked.explain.options.costs {
            last.text("Note", "nothing is copied yet: the estimates are those of empty tables");
        }
        self.hold_to_reading(scratch, borrow).await?;
        let task = Task::new(scratch, Some(&asked.explaining(&borrow.sql)));
        let plan = self.ask(&[task], asked).await?.pop();
        root.stats = after(before, plan.as_ref().map_or_else(Stats::default, |plan| plan.stats));
        last.plan = plan;
        root.children.push(last);
        root.children.extend(copies);
        Ok(root)
    }

    /// One table: what each shard reads of it, and what of that moves.
    async fn explain_copy(
        &mut self,
        scratch: usize,
        source: &Source<'_>,
        left: &mut u64,
        asked: Asked<'_>,
    ) -> Result<(Node, Stats), Failure> {
        let pull = source.pull;
        let shards: Vec<ShardId> =
            source.servers.iter().map(|at| self.servers[*at].shard).collect();
        let title = format!("Copy {} of {}", pull.table, self.shards_name(&shards));
        let mut node = Node::new("Copy", format!("{title} into {}", pull.scratch));
        node.hidden("Relation", Value::Text(pull.table.to_string()));
        node.hidden("Scratch Table", Value::Text(pull.scratch.to_string()));
        node.hidden("Shards", Value::Numbers(shards.iter().map(ToString::to_string).collect()));
        let own = asked.tables.iter().find(|table| table.table == pull.table);
        node.texts("Why", self.why(&pull.target, own, asked)?);
        let sql = pull_query(pull, asked.inner.portal);
        node.text("Shard Query", shown_query(&sql));
        let explained = asked.explaining(&sql);
        let tasks: Vec<Task> =
            source.servers.iter().map(|at| Task::new(*at, Some(&explained))).collect();
        let plans = self.ask(&tasks, asked).await?;
        let mut moved = Moved::by(plans.iter().map(|plan| plan.stats), asked.analyze());
        if asked.analyze() {
            let had = *left;
            let rows = self.copy(scratch, source, left).await?;
            let bytes = Some((had - *left) as f64);
            moved = Some(Moved { rows: rows as f64, bytes, exact: true });
        }
        let home = self.shard_name(self.planning.map.home);
        if let Some(moved) = moved {
            moved.tell(&mut node, asked.analyze(), &format!("from the shards to {home}"));
        }
        let stats = together(&plans);
        node.stats = stats;
        self.hang_shards(&mut node, &shards, plans, asked);
        Ok((node, stats))
    }
}
