//! EXPLAIN: where a statement goes and why, what moves, how the answers become one; and below it the
//! shards' own plans.
//!
//! Every shard is asked with the client's own options, in its protocol, with its parameters, for the
//! plan of what it would be sent to run. With ANALYZE that is the statement's one execution: a
//! writing statement is in the same transaction, and committed the same way, as without EXPLAIN.
//! What comes after the shards (the final statement over their rows, a statement over copies) is
//! explained where it would run. With ANALYZE it needs the rows: statements that only read run once
//! more for them.
//!
//! `shard_plan` reads PostgreSQL's answers, `why` says the reasons, `tree` writes the whole.

mod borrowed;
mod broadcast;
mod many;
mod shard_plan;
mod tree;
mod why;
mod written;

use std::time::Instant;

use pgherd_planner::{
    Access, Action, Explain, ExplainFormat, KeyColumn, Otherwise, Scan, SessionStatement, Target,
    Tier,
};
use pgherd_shard_map::ShardId;

use self::shard_plan::{ShardPlan, Stats};
use self::tree::{Node, Value};
use self::why::Why;
use super::many::Task;
use super::{Conn, Route, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::pool::server::Reply;
use crate::wire::backend;

/// Of a longer text that shards run, this much is shown.
const QUERY_SHOWN: usize = 4000;

/// The types of PostgreSQL's answers to EXPLAIN.
const JSON_OID: u32 = 114;
const XML_OID: u32 = 142;

/// What is to be explained.
#[derive(Clone, Copy)]
struct Asked<'a> {
    explain: &'a Explain,
    /// EXPLAIN with its options, as written.
    head: &'a str,
    /// As the client sent it.
    whole: Statement<'a>,
    /// Behind EXPLAIN.
    inner: Statement<'a>,
    /// The distributed tables whose keys say where it runs.
    tables: &'a [KeyColumn],
}

impl Asked<'_> {
    fn analyze(&self) -> bool {
        self.explain.options.analyze
    }

    /// It runs, and what runs may write.
    fn writes(&self) -> bool {
        self.analyze() && self.inner.plan.access != Access::Read
    }

    /// For a shard, or whoever else runs a part of it.
    fn explaining(&self, sql: &str) -> String {
        format!("{} {sql}", self.head)
    }
}

impl Conn {
    pub(super) async fn run_explain(
        &mut self,
        explain: &Explain,
        whole: Statement<'_>,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let root = match &explain.plan.action {
            Action::Session(SessionStatement::Execute { name, arguments }) => {
                let (head, sql) = (explain.head.of(whole.sql), explain.statement.of(whole.sql));
                let portal = self.explained_execute(name, arguments, head, sql).await?;
                match &portal.statement.plan.action {
                    Action::Explain(explain) => {
                        self.explained(explain, Statement::bound(&portal)).await?
                    }
                    _ => return Err(not_explained()),
                }
            }
            _ => self.explained(explain, whole).await?,
        };
        let options = &explain.options;
        let timed = options.analyze && options.summary != Some(false);
        let time = timed.then(|| started.elapsed().as_secs_f64() * 1000.0);
        let out = &mut self.client.out;
        if whole.portal.is_none() {
            let oid = match options.format {
                ExplainFormat::Json => JSON_OID,
                ExplainFormat::Xml => XML_OID,
                ExplainFormat::Text | ExplainFormat::Yaml => backend::TEXT_OID,
            };
            backend::own_columns(out, &[("QUERY PLAN", oid)]);
        }
        for row in tree::render(options.format, &root, time) {
            backend::data_row(out, &[Some(row.as_bytes())]);
        }
        self.client.complete("EXPLAIN");
        Ok(())
    }

    async fn explained(
        &mut self,
        explain: &Explain,
        whole: Statement<'_>,
    ) -> Result<Node, Failure> {
        let sql = explain.statement.of(whole.sql);
        let mut scanned = Scan::default();
        pgherd_planner::scan(sql.as_bytes(), 0, self.planning.seed, &mut scanned);
        let inner = Statement {
            sql,
            written: None,
            plan: &explain.plan,
            literals: &scanned.literals,
            portal: whole.portal,
            copies: None,
        };
        let (head, tables) = (explain.head.of(whole.sql), &*explain.tables);
        let asked = Asked { explain, head, whole, inner, tables };
        self.take_ticket().await?;
        self.explain_plan(asked).await
    }

    async fn explain_plan(&mut self, asked: Asked<'_>) -> Result<Node, Failure> {
        let inner = asked.inner;
        if let Action::One(one) = &inner.plan.action {
            let route = self.place(inner.plan, inner.sql, inner.literals, &inner.params()?)?;
            match (route, one.otherwise.as_deref()) {
                (Route::One(shard), _) => return self.explain_one(shard, &one.target, asked).await,
                (Route::Other, Some(Otherwise::Many(many))) => {
                    self.parse_explain(asked).await?;
                    return self.explain_many(many, asked).await;
                }
                (Route::Other, _) => {
                    let plan = self.plan_borrowed(inner)?;
                    let asked = Asked { inner: Statement { plan: &plan, ..inner }, ..asked };
                    return Box::pin(self.explain_plan(asked)).await;
                }
            }
        }
        if let Action::Cluster(_) = &inner.plan.action {
            refuse_schema(asked, true)?;
            let title = "Cluster: the router itself changes the shard map";
            return Ok(self.root(Tier::Cluster, "Cluster", title, &[]));
        }
        self.parse_explain(asked).await?;
        match &inner.plan.action {
            Action::Many(many) => {
                refuse_schema(asked, inner.plan.access == Access::Schema)?;
                self.explain_many(many, asked).await
            }
            Action::Insert(insert) => self.explain_insert(insert, asked).await,
            Action::Borrow(borrow) => self.explain_borrowed(borrow, asked).await,
            Action::Gather(gather) => self.explain_gather(gather, asked),
            Action::Informed(informed) => self.explain_informed(informed, asked),
            Action::Carried(carried) => self.explain_carried(carried, asked),
            Action::Steps(steps) => self.explain_steps(steps, asked).await,
            // PostgreSQL has no plan of anything else, and has said so.
            _ => Err(not_explained()),
        }
    }

    /// Syntax, names and types: PostgreSQL says what is wrong with the client's own text.
    async fn parse_explain(&mut self, asked: Asked<'_>) -> Result<(), Failure> {
        let home = self.server_for(self.planning.map.home).await?;
        self.parse_first(home, asked.whole).await
    }

    /// A statement of one shard, which gets the client's text as it is.
    async fn explain_one(
        &mut self,
        shard: ShardId,
        target: &Target,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        let title = format!("Route to {}", self.shard_name(shard));
        let mut root = self.root(Tier::Route, "Route", title, &[shard]);
        root.texts("Why", self.why(target, None, asked)?);
        let at = self.server_for(shard).await?;
        let task = Task::new(at, Some(asked.whole.sql));
        let plans = self.ask(&[task], asked).await?;
        root.stats = plans.first().map_or_else(Stats::default, |plan| plan.stats);
        self.hang_shards(&mut root, &[shard], plans, asked);
        Ok(root)
    }

    /// The topmost node, with what every statement says.
    fn root(
        &self,
        tier: Tier,
        kind: &'static str,
        title: impl Into<String>,
        shards: &[ShardId],
    ) -> Node {
        let mut root = Node::new(kind, title);
        root.hidden("Tier", Value::Text(tier.as_str().to_owned()));
        root.hidden("Shards", Value::Numbers(shards.iter().map(ToString::to_string).collect()));
        root.hidden("Shards Total", Value::Plain(self.planning.map.shards().len().to_string()));
        root
    }

    /// How what several shards write becomes one.
    fn tell_commit(&self, root: &mut Node, shards: &[ShardId], asked: Asked<'_>) {
        if shards.len() < 2 || asked.inner.plan.access == Access::Read {
            return;
        }
        let own = self.session.transaction.block().is_some_and(|block| !block.implicit);
        let words = match (self.planning.one_phase, own) {
            (true, _) => "on one shard after the other (pgherd.multi_shard_commit is 1pc)",
            (false, true) => "with the transaction, on all shards or on none",
            (false, false) => "on all shards or on none, by two-phase commit",
        };
        root.text("Commit", words);
    }

    /// Why these shards; `own` is the table that they are asked for, where it is one.
    fn why(
        &self,
        target: &Target,
        own: Option<&KeyColumn>,
        asked: Asked<'_>,
    ) -> Result<Vec<String>, Failure> {
        let params = asked.inner.params()?;
        let (map, tables) = (&*self.planning.map, asked.tables);
        let why = Why { map, tables, statement: asked.inner, params: &params };
        Ok(why.of(target, own)?)
    }

    /// Sends each shard its EXPLAIN and collects the plans, in the order of `tasks`.
    async fn ask(&mut self, tasks: &[Task], asked: Asked<'_>) -> Result<Vec<ShardPlan>, Failure> {
        let joins = self.send_tasks(tasks, asked.whole).await?;
        let open: Vec<(usize, u32)> = tasks.iter().map(|task| task.at).zip(joins).collect();
        let mut plans = Vec::with_capacity(tasks.len());
        let mut failure = None;
        for (at, joins) in &open {
            let reply = match self.collect_joins(*at, *joins).await {
                Ok(()) => match self.servers[*at].collect().await {
                    Ok(Reply { error: Some(error), .. }) => Err(Failure::Shard(error)),
                    Ok(reply) => Ok(reply),
                    Err(error) => Err(self.lost(*at, &error)),
                },
                Err(failure) => Err(failure),
            };
            match reply {
                Ok(reply) => {
                    self.client.out.extend_from_slice(&reply.notices);
                    plans.push(read_plan(&reply, asked));
                }
                Err(error) if failure.is_none() => {
                    self.cancel_others(*at, &open);
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        failure.map_or(Ok(plans), Err)
    }

    fn shard_name(&self, shard: ShardId) -> String {
        let home = if shard == self.planning.map.home { " (home)" } else { "" };
        format!("shard {shard}{home}")
    }

    /// `all 4 shards`, `2 of 4 shards (1, 3)`, `shard 2`.
    fn shards_name(&self, shards: &[ShardId]) -> String {
        let total = self.planning.map.shards().len();
        match shards {
            [shard] => self.shard_name(*shard),
            _ if shards.len() == total => format!("all {total} shards"),
            _ => {
                let names: Vec<String> = shards.iter().map(ToString::to_string).collect();
                format!("{} of {total} shards ({})", shards.len(), names.join(", "))
            }
        }
    }

    /// A node per shard below `root`. Of plans that have the same shape one is shown, that of the
    /// shard that took longest, where this is known: VERBOSE shows all.
    fn hang_shards(
        &self,
        root: &mut Node,
        shards: &[ShardId],
        plans: Vec<ShardPlan>,
        asked: Asked<'_>,
    ) {
        let shown: Vec<usize> = (0..plans.len())
            .map(|at| if asked.explain.options.verbose { at } else { example(&plans, at) })
            .collect();
        let full = shown.iter().enumerate().filter(|(at, shown)| at == *shown).count();
        let count = plans.len();
        if full < count {
            let text = format!("{full} of {count}, one of each shape (VERBOSE shows all)");
            root.spoken("Plans Shown", text);
        }
        root.hidden("Plans Shown", Value::Plain(full.to_string()));
        let nodes = shards.iter().zip(plans).enumerate().map(|(at, (shard, plan))| {
            let name = self.shard_name(*shard);
            let mut node = Node::new("Shard", format!("S{}", &name[1..]));
            node.hidden("Shard", Value::Plain(shard.to_string()));
            let known = self.planning.map.shard(*shard);
            if let Some((_, address)) = known.and_then(|shard| shard.dsn.split_once("://")) {
                node.title += &format!(" at {address}");
                node.hidden("Address", Value::Text(address.to_owned()));
            }
            if shown[at] == at {
                node.plan = Some(plan);
            } else {
                let like = shards[shown[at]];
                node.title += &format!(": plan as on shard {like}");
                node.hidden("Plan As On Shard", Value::Plain(like.to_string()));
                node.stats = plan.stats;
            }
            node
        });
        root.children.extend(nodes);
    }
}

/// The plan that is shown for the one at `at`.
fn example(plans: &[ShardPlan], at: usize) -> usize {
    let mut best = None;
    for (other, plan) in plans.iter().enumerate().filter(|(_, p)| p.has_shape_of(&plans[at])) {
        let slower = best.is_none_or(|best: usize| plan.time() > plans[best].time());
        if slower {
            best = Some(other);
        }
    }
    best.unwrap_or(at)
}

/// PostgreSQL's answer: one line a row as text, else all in one row.
fn read_plan(reply: &Reply, asked: Asked<'_>) -> ShardPlan {
    let lines: Vec<String> = reply
        .rows
        .iter()
        .map(|row| {
            let values = backend::row_values(row).unwrap_or_default();
            let text = values.first().copied().flatten().unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        })
        .collect();
    ShardPlan::read(asked.explain.options.format, &lines.join("\n"))
}

fn not_explained() -> Failure {
    ErrorInfo::new("0A000", "EXPLAIN of this statement is not supported").into()
}

/// What a shard runs, as it is shown.
fn shown_query(sql: &str) -> String {
    let sql = sql.trim();
    match sql.char_indices().nth(QUERY_SHOWN) {
        Some((end, _)) => format!("{} … ({} bytes)", &sql[..end], sql.len()),
        None => sql.to_owned(),
    }
}

fn refuse_schema(asked: Asked<'_>, changes: bool) -> Result<(), Failure> {
    if !(changes && asked.analyze()) {
        return Ok(());
    }
    Err(ErrorInfo::new("0A000", "EXPLAIN ANALYZE of this statement is not supported")
        .detail("It would change the schema of all shards, as an experiment.")
        .hint("Use EXPLAIN without ANALYZE, or explain the query that it holds.")
        .into())
}

/// Bytes for people.
fn bytes_name(bytes: f64) -> String {
    const UNITS: [&str; 4] = ["bytes", "kB", "MB", "GB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 10_000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.0} {}", UNITS[unit])
}

/// What moves between servers: estimated, or measured by ANALYZE.
#[derive(Debug, Clone, Copy)]
struct Moved {
    rows: f64,
    bytes: Option<f64>,
    /// The bytes are measured, not rows times their estimated width.
    exact: bool,
}

impl Moved {
    /// By what the shards say of their plans.
    fn by(stats: impl Iterator<Item = Stats>, analyze: bool) -> Option<Self> {
        let mut moved = Self { rows: 0.0, bytes: Some(0.0), exact: false };
        for of_one in stats {
            let rows = if analyze { of_one.actual_rows } else { of_one.rows }?;
            moved.rows += rows;
            moved.bytes = moved.bytes.zip(of_one.width).map(|(sum, width)| sum + rows * width);
        }
        Some(moved)
    }

    fn tell(self, node: &mut Node, analyze: bool, from_to: &str) {
        let Self { rows, bytes, exact } = self;
        let about = if analyze { "" } else { "about " };
        let mut text = format!("{about}{rows:.0} rows");
        if let Some(bytes) = bytes {
            let about = if exact || !analyze { "" } else { "about " };
            text += &format!(", {about}{}", bytes_name(bytes));
        }
        node.spoken(if analyze { "Moved" } else { "Moves" }, format!("{text}, {from_to}"));
        let (rows_name, bytes_name) = match (analyze, exact) {
            (true, true) => ("Moved Rows", "Moved Bytes"),
            (true, false) => ("Moved Rows", "Estimated Moved Bytes"),
            (false, _) => ("Estimated Moved Rows", "Estimated Moved Bytes"),
        };
        node.hidden(rows_name, Value::Plain(format!("{rows:.0}")));
        if let Some(bytes) = bytes {
            node.hidden(bytes_name, Value::Plain(format!("{bytes:.0}")));
        }
    }
}
