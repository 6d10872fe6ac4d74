//! EXPLAIN of writes that read other shards: what is copied, and what runs where. The shards' own
//! plans would be of rows that are not there yet.

use pgherd_planner::{
    Carried, CarriedTo, Gather, GatherPlace, Informed, Pull, ShardSet, StepPart, Steps, Target,
    Tier,
};

use super::tree::Node;
use super::{Asked, shown_query};
use crate::error::{ErrorInfo, Failure};
use crate::executor::pulled::pull_query;
use crate::executor::spelled::Rows;
use crate::executor::steps::{Part, joined};
use crate::executor::{Conn, Statement};

impl Conn {
    pub(super) fn explain_gather(
        &mut self,
        gather: &Gather,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        refuse_analyze(asked)?;
        let home = self.planning.map.home;
        let title = format!("Gather rows on {}", self.shard_name(home));
        let mut root = self.root(Tier::Borrow, "Gather", title, &[home]);
        root.texts("Why", vec![gather.borrow.why.to_string()]);
        root.text("Query", shown_query(&gather.borrow.sql));
        root.text(
            "Rows Go To",
            match gather.place {
                GatherPlace::Split { .. } => "the shards of their keys",
                GatherPlace::Everywhere => {
                    "all shards: every shard has a copy of a reference table"
                }
                GatherPlace::Home => "the home shard",
            },
        );
        self.hang_copies(&mut root, &gather.borrow.pulls, asked)?;
        Ok(root)
    }

    pub(super) fn explain_informed(
        &mut self,
        informed: &Informed,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        refuse_analyze(asked)?;
        let shards = match &informed.target {
            Target::All => self.shard_list(&ShardSet::All),
            target => self.shards_of(target, asked.inner)?,
        };
        let with = if informed.moment { "the time" } else { "copies" };
        let title = format!("Write on {}, with {with}", self.shards_name(&shards));
        let mut root = self.root(Tier::Borrow, "Write With Copies", title, &shards);
        root.texts(
            "Why",
            vec![
                match informed.moment {
                    true => "all shards must write the same time, which the home shard says",
                    false => "it reads rows that the shards that it writes on do not have",
                }
                .into(),
            ],
        );
        self.tell_commit(&mut root, &shards, asked);
        root.text("Shard Query", shown_query(&informed.sql));
        self.hang_copies(&mut root, &informed.pulls, asked)?;
        let home = self.shard_name(self.planning.map.home);
        for copy in &informed.home {
            let mut node = Node::new("Copy", format!("Copy {} from {home}", copy.name));
            node.text("Query", format!("SELECT * FROM {}", copy.name));
            root.children.push(node);
        }
        Ok(root)
    }

    pub(super) fn explain_carried(
        &mut self,
        carried: &Carried,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        refuse_analyze(asked)?;
        let shards = match &carried.to {
            CarriedTo::Home => vec![self.planning.map.home],
            CarriedTo::Keys(target) => self.shards_of(target, asked.inner)?,
            _ => self.shard_list(&ShardSet::All),
        };
        let title = format!("Merge on {}, with rows of the source", self.shards_name(&shards));
        let mut root = self.root(Tier::Borrow, "Merge With Rows", title, &shards);
        root.texts("Why", vec!["the source's rows are not where the target's are".into()]);
        self.tell_commit(&mut root, &shards, asked);
        root.text("Source Query", shown_query(&carried.borrow.sql));
        let to = match &carried.to {
            CarriedTo::ByKey { column, .. } if carried.inserts => {
                format!("the shard of their \"{column}\"")
            }
            CarriedTo::ByKey { column, .. } => {
                format!(
                    "the shard of their \"{column}\"; all shards if it has another type than the key"
                )
            }
            CarriedTo::All | CarriedTo::Same => "all shards".to_owned(),
            CarriedTo::Keys(_) => "the shard of the key".to_owned(),
            CarriedTo::Home => "the home shard".to_owned(),
        };
        root.text("Rows Go To", &to);
        root.text("Shard Query", shown_query(&carried.sql));
        self.hang_copies(&mut root, &carried.borrow.pulls, asked)?;
        Ok(root)
    }

    /// Each part in its turn, as it would run if those before it had returned nothing.
    pub(super) async fn explain_steps(
        &mut self,
        steps: &Steps,
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        refuse_analyze(asked)?;
        let home = self.server_for(self.planning.map.home).await?;
        let shards = self.shard_list(&ShardSet::All);
        let title = format!("{} statements, one after another", steps.steps.len() + 1);
        let mut root = self.root(Tier::Borrow, "Steps", title, &shards);
        root.texts("Why", vec!["its parts do not run on one shard together".into()]);
        self.tell_commit(&mut root, &shards, asked);
        let mut done = Vec::with_capacity(steps.steps.len());
        for step in &steps.steps {
            let part = self.part(&joined(&step.text, &done), asked.whole)?;
            let columns = self.columns_returned(home, &part).await?;
            root.children.push(self.explain_part(&part, steps, &step.text, asked).await?);
            done.push(Rows::new(columns.len()).with_query(&step.name, &columns));
        }
        let part = self.part(&joined(&steps.last, &done), asked.whole)?;
        root.children.push(self.explain_part(&part, steps, &steps.last, asked).await?);
        Ok(root)
    }

    async fn explain_part(
        &mut self,
        part: &Part,
        steps: &Steps,
        text: &[StepPart],
        asked: Asked<'_>,
    ) -> Result<Node, Failure> {
        let portal = part.portal(asked.whole, false)?;
        let inner = part.bound(portal.as_ref());
        let sql = asked.explaining(inner.sql);
        let whole = Statement { sql: &sql, written: None, ..asked.whole };
        let mut node = Box::pin(self.explain_plan(Asked { whole, inner, ..asked })).await?;
        let shown = text.iter().map(|part| match part {
            StepPart::Text(text) => text.to_string(),
            StepPart::Rows(number) => {
                let name = steps.steps.get(usize::from(*number)).map(|step| &*step.name);
                format!("{} AS (its rows)", name.unwrap_or_default())
            }
        });
        node.text("Statement", shown_query(&shown.collect::<String>()));
        Ok(node)
    }

    fn hang_copies(
        &mut self,
        root: &mut Node,
        pulls: &[Pull],
        asked: Asked<'_>,
    ) -> Result<(), Failure> {
        for pull in pulls {
            let shards = self.shards_of(&pull.target, asked.inner)?;
            let title = format!("Copy {} from {}", pull.table.name, self.shards_name(&shards));
            let mut node = Node::new("Copy", title);
            node.text("Query", shown_query(&pull_query(pull, asked.inner.portal)));
            root.children.push(node);
        }
        Ok(())
    }
}

fn refuse_analyze(asked: Asked<'_>) -> Result<(), Failure> {
    if !asked.analyze() {
        return Ok(());
    }
    Err(ErrorInfo::new("0A000", "EXPLAIN ANALYZE of this statement is not supported")
        .detail("It writes with rows of other shards, and no shard could say what that took.")
        .hint("Use EXPLAIN, or run the statement itself.")
        .into())
}
