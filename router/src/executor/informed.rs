//! UPDATE and DELETE that read rows of other shards: these are copied first, and each shard gets
//! them with the statement, as a WITH query in the place of the table.
//!
//! So every row is changed once, by the shard that has it, which sees all that the statement reads.
//! The copies are rows of the table's own type, as text, so that each server reads them with its
//! own OIDs.

use pgherd_planner::{HomeCopy, Informed, MOMENT, Pull, ShardSet, Target};
use pgherd_shard_map::RelationKind;
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::prepared::without_place;
use super::pulled::pull_query;
use super::spelled::{COPIES_MAX, Rows, not_utf8, texts, too_much};
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::pool::server::Reply;
use crate::wire::{backend, frontend};

impl Conn {
    pub(super) async fn run_informed(
        &mut self,
        informed: &Informed,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.take_ticket().await?;
        self.open_implicit();
        let home = self.server_for(self.planning.map.home).await?;
        self.parse_first(home, statement).await?;
        self.refuse_odd_forms(home)?;
        let mut sql = String::from(if informed.recursive { "WITH RECURSIVE " } else { "WITH " });
        for (at, pull) in informed.pulls.iter().enumerate() {
            if at > 0 {
                sql.push_str(", ");
            }
            self.put_copy(pull, statement, &mut sql).await?;
        }
        for (at, copy) in informed.home.iter().enumerate() {
            if at + informed.pulls.len() > 0 {
                sql.push_str(", ");
            }
            self.put_home_copy(home, copy, &mut sql).await?;
        }
        if informed.moment {
            self.put_moment(home, &mut sql).await?;
        }
        sql.push(' ');
        sql.push_str(&informed.sql);
        let shards = match &informed.target {
            Target::All => self.shard_list(&ShardSet::All),
            target => self.shards_of(target, statement)?,
        };
        let tasks = self.tasks(&shards, Some(&sql)).await?;
        match informed.same {
            true => self.run_same(tasks, statement).await,
            false => self.stream(tasks, statement, None).await,
        }
    }

    /// `name AS (SELECT … FROM unnest('{…}'::table[]))`
    async fn put_copy(
        &mut self,
        pull: &Pull,
        statement: Statement<'_>,
        sql: &mut String,
    ) -> Result<(), Failure> {
        let columns = match self.planning.map.relation(&pull.table) {
            Some(RelationKind::Sharded(table)) => &*table.columns,
            Some(RelationKind::View(view)) => &view.columns,
            _ => &[],
        };
        let columns: Vec<Box<str>> = columns.iter().map(|column| column.name.clone()).collect();
        // Where each of the table's columns stands in the copied rows.
        let places: Vec<Option<usize>> = columns
            .iter()
            .map(|name| pull.columns.iter().position(|column| column == name))
            .collect();
        let mut rows = String::from("{");
        for reply in self.pull_rows(pull, statement).await.map_err(without_place)? {
            for row in &reply.rows {
                let values = backend::row_values(row).unwrap_or_default();
                if rows.len() > 1 {
                    rows.push(',');
                }
                put_row(&mut rows, &values, &places)?;
                if rows.len() > COPIES_MAX {
                    return Err(too_much());
                }
            }
        }
        rows.push('}');
        let wanted: Vec<String> = pull.columns.iter().map(|name| escape_identifier(name)).collect();
        sql.push_str(&format!(
            "{} AS (SELECT {} FROM pg_catalog.unnest({}::{}[]) AS copies)",
            pull.scratch,
            wanted.join(", "),
            escape_literal(&rows),
            pull.table.quoted(),
        ));
        Ok(())
    }

    /// What time the home shard's part of the transaction has.
    async fn put_moment(&mut self, home: usize, sql: &mut String) -> Result<(), Failure> {
        self.join(home).await?;
        let asked = "SELECT pg_catalog.now(), pg_catalog.statement_timestamp()";
        let row = self.query(home, asked).await?.first_row();
        let [Some(now), Some(stated)] = row.as_slice() else {
            return Err(ErrorInfo::new("XX000", "the home shard has not said the time").into());
        };
        sql.push_str(&format!(
            "{MOMENT} (now, stated) AS (VALUES (CAST({} AS pg_catalog.timestamptz), \
             CAST({} AS pg_catalog.timestamptz)))",
            escape_literal(now),
            escape_literal(stated),
        ));
        Ok(())
    }

    /// The same of a relation that the other shards know nothing of.
    async fn put_home_copy(
        &mut self,
        home: usize,
        copy: &HomeCopy,
        sql: &mut String,
    ) -> Result<(), Failure> {
        self.join(home).await?;
        let columns = self.columns_spelled(home, &escape_literal(&copy.name)).await?;
        let names = columns.iter().map(|column| escape_identifier(&column.name));
        let names = names.collect::<Vec<_>>().join(", ");
        let reply = self.query(home, &format!("SELECT {names} FROM {}", copy.name)).await?;
        let mut rows = Rows::new(columns.len());
        for row in &reply.rows {
            rows.add(texts(row)?.into_iter())?;
        }
        sql.push_str(&rows.with_query(&copy.scratch, &columns));
        Ok(())
    }

    async fn pull_rows(
        &mut self,
        pull: &Pull,
        statement: Statement<'_>,
    ) -> Result<Vec<Reply>, Failure> {
        let shards = self.shards_of(&pull.target, statement)?;
        let tasks = self.tasks(&shards, None).await?;
        let query = pull_query(pull, statement.portal);
        let mut joins = Vec::with_capacity(tasks.len());
        for task in &tasks {
            let mut request = Vec::new();
            let own = self.own_rows(&query, self.servers[task.at].shard)?;
            joins.push(self.put_join(task.at, &mut request));
            frontend::put_query(&mut request, own.as_deref().unwrap_or(&query));
            if let Err(error) = self.servers[task.at].send(&request).await {
                return Err(self.lost(task.at, &error));
            }
        }
        let mut replies = Vec::with_capacity(tasks.len());
        let mut failure = None;
        for (task, joins) in tasks.iter().zip(joins) {
            if let Err(error) = self.collect_joins(task.at, joins).await {
                failure.get_or_insert(error);
                continue;
            }
            match self.servers[task.at].collect().await {
                Ok(Reply { error: Some(error), .. }) => {
                    failure.get_or_insert(Failure::Shard(error));
                }
                Ok(reply) => replies.push(reply),
                Err(error) => {
                    let lost = self.lost(task.at, &error);
                    failure.get_or_insert(lost);
                }
            }
        }
        failure.map_or(Ok(replies), Err)
    }
}

/// A row as an element of an array of rows: quoted twice.
fn put_row(
    out: &mut String,
    values: &[Option<&[u8]>],
    places: &[Option<usize>],
) -> Result<(), Failure> {
    out.push_str("\"(");
    for (at, place) in places.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        let value = place.and_then(|place| values.get(place).copied().flatten());
        let Some(value) = value else { continue };
        let text = std::str::from_utf8(value).map_err(|_| not_utf8())?;
        out.push_str("\\\"");
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\\\\\"),
                '"' => out.push_str("\\\\\\\""),
                _ => out.push(c),
            }
        }
        out.push_str("\\\"");
    }
    out.push_str(")\"");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_quoted_for_the_array_and_for_the_row() {
        let mut out = String::new();
        let values = [Some(&b"a\"b"[..]), None, Some(b"c\\d")];
        put_row(&mut out, &values, &[Some(0), None, Some(1), Some(2)]).expect("UTF-8");
        assert_eq!(out, r#""(\"a\\\"b\",,,\"c\\\\d\")""#);
    }
}
