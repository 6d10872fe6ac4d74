//! Messages that no single shard can answer: the router does.

use std::rc::Rc;

use pgherd_planner::{Action, Plan, SessionStatement, StatementKind};

use super::Op;
use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Statement, runs_in_block};
use crate::session::Prepared;
use crate::wire::backend;

impl Conn {
    /// One message that no single shard can answer.
    pub(super) async fn run_op(&mut self, op: &Op, alone: bool) -> Result<(), Failure> {
        match op {
            Op::Parse { .. } => self.client.out.extend_from_slice(backend::PARSE_COMPLETE),
            Op::Bind { .. } => self.client.out.extend_from_slice(backend::BIND_COMPLETE),
            Op::CloseStatement { .. } | Op::ClosePortal { .. } => {
                self.client.out.extend_from_slice(backend::CLOSE_COMPLETE);
            }
            Op::DescribeStatement { statement, .. } => {
                self.client.out.extend_from_slice(backend::NO_PARAMETERS);
                match &statement.plan.action {
                    Action::Session(SessionStatement::Execute { name, .. }) => {
                        self.describe_executed(name, &[0, 0]).await?;
                    }
                    _ => self.describe_own(&statement.plan),
                }
            }
            Op::DescribePortal { portal, .. } => {
                let own = match &portal.statement.plan.action {
                    Action::Session(SessionStatement::Show(name)) => name.starts_with("pgherd."),
                    action => matches!(
                        action,
                        Action::Session(_)
                            | Action::Cluster(_)
                            | Action::Empty
                            | Action::CopyIn(_)
                            | Action::CopyOut(_)
                    ),
                };
                if let Action::Session(SessionStatement::Execute { name, .. }) =
                    &portal.statement.plan.action
                {
                    let results = portal.params()?.tail.results.to_vec();
                    self.describe_executed(name, &results).await?;
                } else if own {
                    let plan = Rc::clone(&portal.statement.plan);
                    self.describe_own(&plan);
                } else {
                    // Bound on the home shard for its description only: nothing runs.
                    self.describe_at_home(portal, backend::NO_DATA).await?;
                }
            }
            Op::Execute { portal, limit, .. } => {
                // PostgreSQL ignores it for what is no query.
                if *limit > 0 && returns_rows(&portal.statement) {
                    return Err(ErrorInfo::new(
                        "0A000",
                        "row limits are not supported for statements that touch several shards",
                    )
                    .hint("Execute the portal without a row limit.")
                    .into());
                }
                let statement = Rc::clone(&portal.statement);
                let plan = Rc::clone(&statement.plan);
                self.refuse_if_failed(&plan.action)?;
                if !alone && runs_in_block(&plan.action) {
                    self.open_implicit();
                }
                let started = self.worker.metrics.start();
                Box::pin(self.run_statement(Statement {
                    sql: &statement.sql,
                    plan: &plan,
                    literals: &statement.literals,
                    portal: Some(portal),
                }))
                .await?;
                self.observe(&plan, None, started, statement.sql.as_bytes());
            }
        }
        Ok(())
    }

    /// The columns of what the router answers itself.
    fn describe_own(&mut self, plan: &Plan) {
        let out = &mut self.client.out;
        match &plan.action {
            Action::Session(SessionStatement::Show(name)) => backend::text_columns(out, &[name]),
            Action::Cluster(call) => {
                backend::text_columns(out, &[crate::executor::cluster_column(call)]);
            }
            _ => out.extend_from_slice(backend::NO_DATA),
        }
    }
}

/// Whether the statement may return more than the one row that the router makes itself. Drivers
/// send a row limit with every statement whose rows they do not want.
fn returns_rows(statement: &Prepared) -> bool {
    match statement.plan.kind {
        StatementKind::Select | StatementKind::Explain => {
            !matches!(statement.plan.action, Action::Cluster(_))
        }
        StatementKind::Insert | StatementKind::Update | StatementKind::Delete => {
            let word = "returning".as_bytes();
            let mut windows = statement.sql.as_bytes().windows(word.len());
            windows.any(|window| window.eq_ignore_ascii_case(word))
        }
        _ => false,
    }
}
