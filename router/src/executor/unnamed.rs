//! `CREATE INDEX CONCURRENTLY ON table …`: the index gets the name that PostgreSQL would choose, before
//! it is made, so that it is the same on all shards and can be told from others where it has failed.
//!
//! PostgreSQL itself is asked: it makes the index of an empty copy of the table, in a transaction that
//! is rolled back. A name that is taken where the real one would be is passed over as PostgreSQL does.

use pgherd_planner::UnnamedIndex;
use pgherd_shard_map::quoted;
use postgres_protocol::escape::escape_literal;

use super::Conn;
use super::prepared::without_place;
use crate::error::{ErrorInfo, Failure};
use crate::wire::{HEADER, backend};

/// Says of a statement in `pgherd.unfinished` that its index was unnamed.
const CHOSEN: &str = "/* name chosen */";

/// So many names are tried.
const NAMES_MAX: usize = 1000;

impl Conn {
    /// The index's name, quoted, and the statement with it.
    pub(super) async fn named_index(
        &mut self,
        home: usize,
        index: &UnnamedIndex,
        sql: &str,
    ) -> Result<(String, String), Failure> {
        let with_name = |name: String| {
            let sql = format!("{} {CHOSEN} {name} {}", index.head, index.tail);
            (name, sql)
        };
        if let Some(name) = self.begun_index(home, index).await? {
            return Ok(with_name(name));
        }
        self.query(home, "BEGIN READ WRITE").await?;
        let chosen = self.choose_name(home, index, sql).await;
        self.query(home, "ROLLBACK").await?;
        chosen.map(|name| with_name(quoted(&name)))
    }

    /// The name that this statement has had, where it has not run on all shards.
    async fn begun_index(
        &mut self,
        home: usize,
        index: &UnnamedIndex,
    ) -> Result<Option<String>, Failure> {
        let before = format!("{} {CHOSEN} ", index.head);
        let behind = format!(" {}", index.tail);
        let sql = format!(
            "SELECT u.statement FROM pgherd.unfinished u \
             WHERE pg_catalog.starts_with(u.statement, {}) \
               AND pg_catalog.right(u.statement, {}) = {} \
               AND u.search_path = pg_catalog.current_setting('search_path') \
             ORDER BY u.began LIMIT 1",
            escape_literal(&before),
            behind.chars().count(),
            escape_literal(&behind)
        );
        let statement = self.query(home, &sql).await?.scalar();
        let name = statement.as_deref().and_then(|text| text.strip_prefix(&*before));
        Ok(name.and_then(|name| name.strip_suffix(&*behind)).map(str::to_owned))
    }

    async fn choose_name(
        &mut self,
        home: usize,
        index: &UnnamedIndex,
        sql: &str,
    ) -> Result<String, Failure> {
        let UnnamedIndex { verb, table, name, rest, .. } = index;
        let schema = format!(
            "SELECT c.relnamespace FROM pg_catalog.pg_class c \
             WHERE c.oid = pg_catalog.to_regclass({})",
            escape_literal(table)
        );
        // Before a temporary table hides it.
        let schema = self.query(home, &schema).await?.scalar().unwrap_or_else(|| "0".into());
        let copy = quoted(name);
        let made = self.query(home, &format!("CREATE TEMPORARY TABLE {copy} (LIKE {table})")).await;
        made.map_err(not_copied)?;
        let copy = format!("pg_temp.{copy}");
        // Errors have their place in the client's text.
        let before = sql.rfind(&**rest).map_or(0, |at| sql[..at].chars().count());
        let made = format!("{verb} ON {copy} ");
        let made = format!("{made:before$}{rest}");
        let newest = format!(
            "SELECT c.relname, EXISTS (SELECT FROM pg_catalog.pg_class o \
               WHERE o.relname = c.relname AND o.relnamespace = {schema}) \
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
             WHERE i.indrelid = pg_catalog.to_regclass({}) ORDER BY c.oid DESC LIMIT 1",
            escape_literal(&copy)
        );
        for _ in 0..NAMES_MAX {
            self.query(home, &made).await?;
            match self.query(home, &newest).await?.first_row().as_slice() {
                [Some(name), Some(taken)] if taken == "f" => return Ok(name.clone()),
                _ => {}
            }
        }
        Err(ErrorInfo::new("0A000", "no name was found for the index")
            .detail("Those that PostgreSQL would choose are taken.")
            .hint("Give the index a name.")
            .into())
    }
}

/// Who may make the index may not be allowed to copy its table.
fn not_copied(failure: Failure) -> Failure {
    let Failure::Shard(frame) = &failure else { return failure };
    let field = |code| backend::report_field(&frame[HEADER.min(frame.len())..], code);
    match (field(b'C'), field(b'M')) {
        (Some("42501"), Some(message)) => ErrorInfo::new("42501", message.to_owned())
            .detail("PostgreSQL is asked for the index's name by a temporary copy of the table.")
            .hint("Give the index a name.")
            .into(),
        _ => without_place(failure),
    }
}
