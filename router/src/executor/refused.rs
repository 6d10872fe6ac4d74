//! A statement that the planner refuses may be wrong in PostgreSQL's eyes, too: a syntax error, a
//! column that does not exist. Then the client is told that, as it would be without a router.
//!
//! The home shard knows every object and parses the statement without running it.

use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure, Refused};
use crate::wire::frontend;

impl Conn {
    /// What the client is told of a failure: of a refusal PostgreSQL's own error, if it has one.
    pub async fn ask_postgres(&mut self, failure: Failure) -> Failure {
        let Failure::Refused(refused) = failure else { return failure };
        if self.session.transaction.failed() {
            return ErrorInfo::new(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            )
            .into();
        }
        match self.parse_at_home(&refused).await {
            Err(failure) => failure,
            Ok(()) => Failure::Statement(refused.error),
        }
    }

    /// Parses on the home shard, in the client's transaction: it may have made the tables.
    async fn parse_at_home(&mut self, refused: &Refused) -> Result<(), Failure> {
        let Ok(at) = self.server_for(self.planning.map.home).await else { return Ok(()) };
        self.parse_as_written(at, &refused.sql, &refused.types).await
    }

    /// Has PostgreSQL read the client's own text before anything is made of it: what is wrong with
    /// it is told with its place there.
    pub(super) async fn parse_first(
        &mut self,
        at: usize,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let types = statement.portal.map_or(&[][..], |portal| &portal.statement.types);
        self.parse_as_written(at, statement.sql, types).await
    }

    async fn parse_as_written(
        &mut self,
        at: usize,
        sql: &str,
        types: &[u8],
    ) -> Result<(), Failure> {
        let mut request = Vec::new();
        let hidden = self.put_join(at, &mut request);
        frontend::put_parse(&mut request, b"", sql, types);
        request.extend_from_slice(frontend::SYNC);
        if let Err(error) = self.servers[at].send(&request).await {
            return Err(self.lost(at, &error));
        }
        self.collect_joins(at, hidden).await?;
        self.collect_ok(at).await
    }
}
