//! Statements that read the router's own figures (`pgherd.pools`, `pgherd.transactions`).
//!
//! The views stand on the home shard and read one setting, which the router sets just before the
//! statement and resets after it, or when its transaction ends. The statement itself runs as it is, so its
//! WHERE, ORDER BY and joins are PostgreSQL's own.

use postgres_protocol::escape::escape_literal;

use super::{Conn, Statement};
use crate::error::Failure;
use crate::session::Transaction;

impl Conn {
    pub(super) async fn run_with_figures(
        &mut self,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        let views = self.worker.shared.views().await;
        // Outside a transaction it stays outside: such a statement needs no ticket, so that a
        // router can be looked at that admits no more.
        let local = !matches!(self.session.transaction, Transaction::Idle);
        let home = self.planning.map.home;
        let at = self.server_for(home).await?;
        self.join(at).await?;
        let views = escape_literal(&views);
        let sql = format!("SELECT pg_catalog.set_config('pgherd.figures', {views}, {local})");
        self.query(at, &sql).await?;
        let ran = self.run_one(home, statement).await;
        if !local && self.servers[at].status == b'I' {
            self.query(at, "RESET pgherd.figures").await?;
        } else {
            self.servers[at].spoiled |= !local;
        }
        ran
    }
}
