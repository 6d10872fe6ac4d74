//! Messages that no single shard can answer: the router does.

use std::rc::Rc;

use pgherd_planner::{Action, CursorStatement, Plan, SessionStatement};

use super::Op;
use crate::error::{ErrorInfo, Failure};
use crate::executor::{Conn, Statement, runs_in_block};
use crate::session::Run;
use crate::wire::backend;

impl Conn {
    /// One message that no single shard can answer.
    pub(super) async fn run_op(&mut self, op: &Op, alone: bool) -> Result<(), Failure> {
        match op {
            Op::Parse { statement, unnamed, .. } => {
                if !unnamed {
                    Box::pin(self.learn_columns(statement)).await?;
                }
                self.client.out.extend_from_slice(backend::PARSE_COMPLETE);
            }
            Op::Bind { name, .. } => {
                Box::pin(self.close_cursor(name)).await?;
                self.client.out.extend_from_slice(backend::BIND_COMPLETE);
            }
            Op::CloseStatement { .. } => {
                self.client.out.extend_from_slice(backend::CLOSE_COMPLETE);
            }
            Op::ClosePortal { name } => {
                Box::pin(self.close_cursor(name)).await?;
                self.client.out.extend_from_slice(backend::CLOSE_COMPLETE);
            }
            Op::DescribeCursor { name } => Box::pin(self.describe_cursor(name, None)).await?,
            Op::DescribeStatement { statement, .. } => {
                self.client.out.extend_from_slice(backend::NO_PARAMETERS);
                match &statement.plan.action {
                    Action::Session(SessionStatement::Execute { name, .. }) => {
                        self.describe_executed(name, &[0, 0]).await?;
                    }
                    Action::Cursor(cursor) => {
                        Box::pin(self.describe_moved(cursor, &[0, 0])).await?;
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
                            | Action::CopyQuery(_)
                    ),
                };
                if let Action::Session(SessionStatement::Execute { name, .. }) =
                    &portal.statement.plan.action
                {
                    let results = portal.params()?.tail.results.to_vec();
                    self.describe_executed(name, &results).await?;
                } else if let Action::Cursor(cursor) = &portal.statement.plan.action
                    && !matches!(cursor, CursorStatement::Declare(_))
                {
                    let results = portal.params()?.tail.results;
                    Box::pin(self.describe_moved(cursor, results)).await?;
                } else if own {
                    let plan = Rc::clone(&portal.statement.plan);
                    self.describe_own(&plan);
                } else {
                    // Bound on the home shard for its description only: nothing runs.
                    self.describe_at_home(portal, backend::NO_DATA).await?;
                }
            }
            Op::Execute { portal, limit, name } => {
                let statement = Rc::clone(&portal.statement);
                let plan = Rc::clone(&statement.plan);
                self.refuse_if_failed(&plan.action)?;
                if self.session.transaction.failed()
                    && !portal.after_failure
                    && !matches!(plan.action, Action::Empty)
                {
                    return Err(ErrorInfo::failed_block().into());
                }
                if !alone && runs_in_block(&plan.action) {
                    self.open_implicit();
                }
                self.start_run();
                // PostgreSQL ignores the limit for what is no query.
                let limited = *limit > 0 && statement.returns_rows();
                let begun = portal.run.get();
                let ran = if begun == Run::InPortions || limited && begun == Run::NotYet {
                    Box::pin(self.run_in_portions(name, portal, *limit)).await
                } else if portal.run.replace(Run::Whole) == Run::Whole {
                    self.run_to_nothing(name, portal, statement.returns_rows())
                } else {
                    Box::pin(self.run_statement(Statement {
                        sql: &statement.sql,
                        written: None,
                        plan: &plan,
                        literals: &statement.literals,
                        portal: Some(portal),
                        copies: None,
                    }))
                    .await
                };
                // One that has failed too: it may have been slow.
                self.observe_run(&plan, statement.sql.as_bytes());
                ran?;
            }
        }
        Ok(())
    }

    /// The columns of a FETCH; other statements about cursors have none.
    async fn describe_moved(
        &mut self,
        cursor: &CursorStatement,
        results: &[u8],
    ) -> Result<(), Failure> {
        match cursor {
            CursorStatement::Move(moved)
                if moved.shows && self.has_cursor(moved.name.as_bytes()) =>
            {
                self.describe_cursor(moved.name.as_bytes(), Some(results)).await
            }
            _ => {
                self.client.out.extend_from_slice(backend::NO_DATA);
                Ok(())
            }
        }
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
