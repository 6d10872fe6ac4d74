//! `currval()` and `lastval()` of numbers that the router has written into rows: no server knows
//! them, the session does.

use pgherd_planner::{Access, Action, OneShard, Plan, Target, number_calls};
use pgherd_shard_map::TableName;

use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};

impl Conn {
    /// A sequence's number went into a row.
    pub(super) fn note_drawn(&mut self, sequence: &TableName, number: i64) {
        let drawn = self.session.drawn.get_or_insert_default();
        drawn.numbers.retain(|(known, _)| known != sequence);
        drawn.numbers.push((sequence.clone(), number));
    }

    /// A write on the home shard may have called `nextval()` there: whose number is the last is not
    /// known any more.
    pub(super) fn note_home_write(&mut self, plan: &Plan) {
        let home = match &plan.action {
            Action::One(OneShard { target, .. }) => *target == Target::Home,
            Action::Many(many) => many.target == Target::Home,
            _ => false,
        };
        if home && plan.access != Access::Read {
            self.forget_drawn();
        }
    }

    /// Some server has called `nextval()` for the session, or may have.
    pub(super) fn forget_drawn(&mut self) {
        self.session.drawn = Some(Box::default());
    }

    /// A statement that asks for the session's own numbers, some of which were drawn.
    pub(super) async fn run_drawn(&mut self, statement: Statement<'_>) -> Result<(), Failure> {
        let home = self.planning.map.home;
        let calls = number_calls(statement.sql);
        let mut native = !calls.is_empty();
        for call in &calls {
            let Some(argument) = &call.sequence else {
                native = false;
                break;
            };
            let name = self.sequence_named(&statement.sql[argument.clone()]).await?;
            native &= !self.planning.map.feeds_sharded(&name);
        }
        if native {
            return self.run_on_sequences(statement).await;
        }
        let mut sql = String::with_capacity(statement.sql.len() + 32);
        let mut from = 0;
        for call in calls {
            let number = match &call.sequence {
                None => self.session.drawn.as_ref().and_then(|drawn| drawn.numbers.last()).cloned(),
                Some(argument) => {
                    let name = self.sequence_named(&statement.sql[argument.clone()]).await?;
                    let drawn = self.session.drawn.as_ref();
                    drawn.and_then(|drawn| {
                        drawn.numbers.iter().find(|(known, _)| *known == name).cloned()
                    })
                }
            };
            let Some((_, number)) = number else { return Err(unknown()) };
            let function = if call.sequence.is_some() { "currval" } else { "lastval" };
            sql.push_str(&statement.sql[from..call.whole.start]);
            sql.push_str(&format!("pgherd.{function}({number}::pg_catalog.int8)"));
            from = call.whole.end;
        }
        sql.push_str(&statement.sql[from..]);
        self.run_one(home, Statement { sql: &sql, written: None, ..statement }).await
    }

    /// The sequence that an expression names.
    async fn sequence_named(&mut self, argument: &str) -> Result<TableName, Failure> {
        let at = self.server_for(self.planning.map.home).await?;
        self.join(at).await?;
        let sql = format!(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = ({argument})::pg_catalog.regclass"
        );
        let reply = self.query(at, &sql).await?;
        match reply.first_row().as_slice() {
            [Some(schema), Some(name)] => Ok(TableName::new(schema, name)),
            _ => Err(unknown()),
        }
    }
}

fn unknown() -> Failure {
    ErrorInfo::new("0A000", "currval() and lastval() are not known here")
        .detail("Numbers of sharded tables are drawn by the router, those of others by the home shard's server.")
        .hint("Use INSERT … RETURNING.")
        .into()
}
