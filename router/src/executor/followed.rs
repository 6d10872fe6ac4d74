//! Changes of the schema that the catalog must hear of, in their own transaction: tables that are
//! distributed as they are made, partitions and children that come and go, enum values that get another name.

use pgherd_planner::{FamilyChange, ManyShards, Merge, Then};
use pgherd_shard_map::TableName;
use postgres_protocol::escape::escape_literal;

use super::{Conn, Statement};
use crate::error::Failure;

impl Conn {
    pub(super) async fn run_followed(
        &mut self,
        many: &ManyShards,
        then: &Then,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let before: Vec<String> = match then {
            Then::Distribute(call) => {
                self.run_many(many, statement).await?;
                return self.run_cluster_quietly(call).await;
            }
            Then::Families(changes) => changes.iter().map(before).collect(),
            Then::Labels(name) => {
                vec![format!("SELECT pgherd.check_labels({})", escape_literal(name))]
            }
        };
        // By itself (DETACH … CONCURRENTLY) it says the same again when it is resumed.
        let alone = matches!(many.merge, Merge::EachAlone(_));
        if !alone {
            self.open_for(statement.plan);
        }
        if !(alone && self.session.transaction.block().is_some()) {
            self.tell_catalog(&before).await?;
        }
        self.run_many(many, statement).await
    }

    async fn tell_catalog(&mut self, questions: &[String]) -> Result<(), Failure> {
        let home = self.server_for(self.planning.map.home).await?;
        if self.session.transaction.block().is_some() {
            self.join(home).await?;
            self.servers[home].wrote = true;
        }
        for sql in questions {
            self.quietly(home, sql).await?;
        }
        Ok(())
    }
}

fn before(change: &FamilyChange) -> String {
    let call = if change.joins { "join_family" } else { "leave_family" };
    format!("SELECT pgherd.{call}({}, {})", regclass(&change.child), regclass(&change.parent))
}

fn regclass(table: &TableName) -> String {
    format!("{}::pg_catalog.regclass", escape_literal(&table.quoted()))
}
