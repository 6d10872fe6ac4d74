//! EXPLAIN of a statement that runs on the shards of its large table, with copies of the small ones.
//!
//! Without ANALYZE nothing is copied, and the shards' plans are those of empty copies.

use pgherd_planner::{Borrow, Broadcast, CopiedTable, KeyColumn, Tier};
use pgherd_shard_map::{ShardId, TableName};

use super::many::{after, together};
use super::shard_plan::Stats;
use super::tree::{Node, Value};
use super::{Asked, Moved, shown_query};
use crate::error::Failure;
use crate::executor::broadcast::with_clause;
use crate::executor::many::Task;
use crate::executor::pulled::pull_query;
use crate::executor::{Conn, Copies, Statement};

impl Conn {
    /// `None`: it goes another way.
    pub(super) async fn explain_broadcast(
        &mut self,
        borrow: &Borrow,
        asked: Asked<'_>,
    ) -> Result<Option<Node>, Failure> {
        let way = self.smallest_way(borrow, asked.inner).await?;
        let Some(way) = way else { return Ok(None) };
        let copies = match asked.analyze() {
            true => self.read_copied(way, asked.inner).await?,
            false => Some(Copies::none(way)),
        };
        let Some(copies) = copies else { return Ok(None) };
        let many = way.many.with(&with_clause(way, &copies));
        let shards = self.shards_of(&many.target, asked.inner)?;
        let to = self.shards_name(&shards);
        let title = format!("Broadcast to {to}");
        let mut root = self.root(Tier::Borrow, "Broadcast", title, &shards);
        let why = format!("no shard can answer it by itself: {}", borrow.why);
        root.texts("Why", vec![why]);
        root.text("Merge", "rows of small tables go to each shard with the statement");
        if !asked.analyze() && asked.explain.options.costs {
            root.text("Note", "nothing is copied yet: the estimates are those of empty copies");
        }
        let mut nodes = Vec::with_capacity(way.tables.len());
        let mut before = Stats { total_cost: Some(0.0), ..Stats::default() };
        for (number, table) in way.tables.iter().enumerate() {
            let size = asked.analyze().then(|| copies.size(way, number));
            let (node, stats) = self.explain_copied(table, size, &to, asked).await?;
            nodes.push(node);
            before = after(before, stats);
        }
        // One that is copied and stays, too, says where.
        let copied = |name: &TableName| way.tables.iter().any(|table| table.pull.table == *name);
        let stay = asked.tables.iter().filter(|known| !copied(&known.table));
        let stay: Vec<KeyColumn> = stay.cloned().collect();
        let tables = if stay.is_empty() { asked.tables } else { &stay };
        let with = |statement| Statement { copies: Some(&copies), ..statement };
        let (whole, inner) = (with(asked.whole), with(asked.inner));
        let asked = Asked { whole, inner, tables, ..asked };
        let last = Box::pin(self.explain_many(&many, asked)).await?;
        root.stats = after(before, last.stats);
        root.children.push(last);
        root.children.extend(nodes);
        Ok(Some(root))
    }

    /// One table: what each shard reads of it, and how much goes to the others.
    async fn explain_copied(
        &mut self,
        table: &CopiedTable,
        size: Option<(usize, usize)>,
        to: &str,
        asked: Asked<'_>,
    ) -> Result<(Node, Stats), Failure> {
        let pull = &table.pull;
        let shards: Vec<ShardId> = self.shards_of(&pull.target, asked.inner)?;
        let title = format!("Copy {} of {}", pull.table, self.shards_name(&shards));
        let mut node = Node::new("Copy", format!("{title} as {}", pull.scratch));
        node.hidden("Relation", Value::Text(pull.table.to_string()));
        node.hidden("Shards", Value::Numbers(shards.iter().map(ToString::to_string).collect()));
        let own = asked.tables.iter().find(|known| known.table == pull.table);
        node.texts("Why", self.why(&pull.target, own, asked)?);
        let sql = pull_query(pull, asked.inner.portal);
        node.text("Shard Query", shown_query(&sql));
        let mut tasks = Vec::with_capacity(shards.len());
        for shard in &shards {
            let at = self.server_for(*shard).await?;
            tasks.push(Task::new(at, Some(&asked.explaining(&sql))));
        }
        let plans = self.ask(&tasks, asked).await?;
        let moved = match size {
            None => Moved::by(plans.iter().map(|plan| plan.stats), false),
            Some((rows, bytes)) => {
                Some(Moved { rows: rows as f64, bytes: Some(bytes as f64), exact: true })
            }
        };
        if let Some(moved) = moved {
            moved.tell(&mut node, size.is_some(), &format!("to {to}"));
        }
        let stats = together(&plans);
        node.stats = stats;
        self.hang_shards(&mut node, &shards, plans, asked);
        Ok((node, stats))
    }
}

impl Copies {
    /// Rows and bytes of one table.
    fn size(&self, way: &Broadcast, number: usize) -> (usize, usize) {
        let start: usize = way.tables[..number].iter().map(|table| table.columns.len()).sum();
        self.size_of(start..start + way.tables[number].columns.len())
    }
}
