//! Rows as a WITH query that every server reads alike, whatever their types: each column is an array
//! of texts, cast where the statement is run.

use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::wire::backend::{self, Field};

/// The most that is sent to a shard with a statement.
pub(super) const COPIES_MAX: usize = 64 << 20;

/// A column as SQL says it.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_name: String,
    /// Where it is not the type's own: quoted, with its schema.
    collation: Option<String>,
}

impl Column {
    pub(super) fn number(name: String) -> Self {
        Self { name, type_name: "bigint".to_owned(), collation: None }
    }

    /// As CREATE TABLE has it.
    pub(super) fn definition(&self) -> String {
        let (name, type_name) = (escape_identifier(&self.name), &self.type_name);
        let collation = self.collation.as_ref();
        let collation = collation.map_or_else(String::new, |name| format!(" COLLATE {name}"));
        format!("{name} {type_name}{collation}")
    }
}

/// The elements of one array literal for each column.
pub(super) struct Rows {
    arrays: Vec<String>,
    count: u64,
    size: usize,
}

impl Conn {
    /// The columns of a relation: `name` is a literal of what the server calls it.
    pub(super) async fn columns_spelled(
        &mut self,
        at: usize,
        name: &str,
    ) -> Result<Vec<Column>, Failure> {
        let sql = format!(
            "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
               CASE WHEN a.attcollation <> t.typcollation THEN pg_catalog.format('%I.%I', \
                 n.nspname, c.collname) END \
             FROM pg_catalog.pg_attribute a \
             JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
             LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace \
             WHERE a.attrelid = {name}::pg_catalog.regclass AND a.attnum > 0 \
               AND NOT a.attisdropped ORDER BY a.attnum"
        );
        self.ask_columns(at, &sql).await
    }

    /// The columns of an answer, by the numbers of this server.
    pub(super) async fn fields_spelled(
        &mut self,
        at: usize,
        fields: &[Field],
    ) -> Result<Vec<Column>, Failure> {
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let rows = fields.iter().enumerate().map(|(place, field)| {
            let Field { name, table, column, oid, modifier } = field;
            let name = escape_literal(name);
            format!("({place}, {name}, {table}::oid, {column}, {oid}::oid, {modifier})")
        });
        let rows: Vec<String> = rows.collect();
        let sql = format!(
            "SELECT f.name, pg_catalog.format_type(f.type, f.modifier), \
               CASE WHEN a.attcollation <> t.typcollation THEN pg_catalog.format('%I.%I', \
                 n.nspname, c.collname) END \
             FROM (VALUES {}) AS f(place, name, relation, number, type, modifier) \
             JOIN pg_catalog.pg_type t ON t.oid = f.type \
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = f.relation \
               AND a.attnum = f.number AND a.atttypid = f.type AND a.attnum > 0 \
             LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace ORDER BY f.place",
            rows.join(", ")
        );
        self.ask_columns(at, &sql).await
    }

    async fn ask_columns(&mut self, at: usize, sql: &str) -> Result<Vec<Column>, Failure> {
        let reply = self.query(at, sql).await?;
        let columns = reply.rows.iter().map(|row| {
            let values = texts(row)?;
            let value = |at: usize| values.get(at).copied().flatten().map(str::to_owned);
            Ok(Column {
                name: value(0).unwrap_or_default(),
                type_name: value(1).unwrap_or_default(),
                collation: value(2),
            })
        });
        columns.collect()
    }
}

/// The values of a DataRow's body.
pub(super) fn texts(row: &[u8]) -> Result<Vec<Option<&str>>, Failure> {
    let values =
        backend::row_values(row).map_err(|error| ErrorInfo::protocol(error.to_string()))?;
    let texts: Result<Vec<_>, _> =
        values.into_iter().map(|value| value.map(std::str::from_utf8).transpose()).collect();
    texts.map_err(|_| not_utf8().into())
}

pub(super) fn not_utf8() -> ErrorInfo {
    ErrorInfo::new("0A000", "the statement needs the client encoding UTF8")
        .detail("Rows that it reads go through the router.")
        .hint("SET client_encoding TO 'UTF8'")
}

impl Rows {
    pub(super) fn new(columns: usize) -> Self {
        Self { arrays: vec![String::new(); columns], count: 0, size: 0 }
    }

    pub(super) fn add<'v>(
        &mut self,
        values: impl Iterator<Item = Option<&'v str>>,
    ) -> Result<(), Failure> {
        for (array, value) in self.arrays.iter_mut().zip(values) {
            let before = array.len();
            if self.count > 0 {
                array.push(',');
            }
            match value {
                None => array.push_str("NULL"),
                Some(text) => put_element(array, text),
            }
            self.size += array.len() - before;
        }
        self.count += 1;
        if self.size > COPIES_MAX {
            return Err(too_much());
        }
        Ok(())
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// One more column, with a value for each row.
    pub(super) fn add_column(
        &mut self,
        values: impl Iterator<Item = Option<String>>,
    ) -> Result<(), Failure> {
        let mut array = String::new();
        for (at, value) in values.enumerate() {
            if at > 0 {
                array.push(',');
            }
            array.push_str(&value.unwrap_or_else(|| "NULL".to_owned()));
        }
        self.size += array.len();
        self.arrays.push(array);
        if self.size > COPIES_MAX { Err(too_much()) } else { Ok(()) }
    }

    /// `name AS (SELECT … FROM unnest('{…}'::text[], …))`
    pub(super) fn with_query(&self, name: &str, columns: &[Column]) -> String {
        if columns.is_empty() {
            return format!(
                "{name} AS (SELECT FROM pg_catalog.generate_series(1, {}))",
                self.count
            );
        }
        let items = columns.iter().enumerate().map(|(at, column)| {
            let collation = column.collation.as_ref();
            let collation = collation.map_or_else(String::new, |name| format!(" COLLATE {name}"));
            let (name, type_name) = (escape_identifier(&column.name), &column.type_name);
            format!("CAST(c{at} AS {type_name}){collation} AS {name}")
        });
        let items: Vec<String> = items.collect();
        let arrays = self
            .arrays
            .iter()
            .map(|array| format!("{}::pg_catalog.text[]", escape_literal(&format!("{{{array}}}"))));
        let arrays: Vec<String> = arrays.collect();
        // With several arguments it is syntax, and always PostgreSQL's own.
        let unnest = if arrays.len() == 1 { "pg_catalog.unnest" } else { "unnest" };
        let names: Vec<String> = (0..columns.len()).map(|at| format!("c{at}")).collect();
        format!(
            "{name} AS (SELECT {} FROM {unnest}({}) AS copies({}))",
            items.join(", "),
            arrays.join(", "),
            names.join(", ")
        )
    }
}

fn put_element(array: &mut String, text: &str) {
    array.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            array.push('\\');
        }
        array.push(c);
    }
    array.push('"');
}

pub(super) fn too_much() -> Failure {
    ErrorInfo::new("54000", "the statement would copy too many rows to each shard")
        .detail(format!("At most {} MB can be sent with a statement.", COPIES_MAX >> 20))
        .hint("Join the tables on their distribution columns, or write in portions.")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_arrays_of_texts() {
        let column = |name: &str, type_name: &str| Column {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            collation: None,
        };
        let mut rows = Rows::new(2);
        rows.add([Some("1"), Some("a\"b,{}")].into_iter()).expect("small");
        rows.add([None, Some("")].into_iter()).expect("small");
        assert_eq!(
            rows.with_query("s", &[column("id", "integer"), column("A", "text")]),
            "s AS (SELECT CAST(c0 AS integer) AS \"id\", CAST(c1 AS text) AS \"A\" FROM \
             unnest('{\"1\",NULL}'::pg_catalog.text[],  \
             E'{\"a\\\\\"b,{}\",\"\"}'::pg_catalog.text[]) AS copies(c0, c1))"
        );
    }
}
