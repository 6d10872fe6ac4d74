//! What all tables hold after a statement that changes rows: the same on both sides.
//!
//! Read through connections of their own, so only what is committed, and never in the way of the
//! script's session.

use super::{Sides, Unit};
use crate::wire::Client;

/// Each table, and what is read of it: not the columns that are numbered or drawn, which PostgreSQL
/// promises to be of no row in particular.
const TABLES: &str = "SELECT c.oid::regclass, coalesce(string_agg(quote_ident(a.attname), ', ' \
    ORDER BY a.attnum) FILTER (WHERE a.attidentity = '' AND (a.attgenerated <> '' OR \
        coalesce(pg_get_expr(d.adbin, d.adrelid), '') !~ 'nextval|random|now|current|clock')), '1') \
    FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 \
        AND NOT a.attisdropped \
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum \
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace \
        AND NOT c.relispartition GROUP BY c.oid ORDER BY 1";

#[derive(Debug)]
pub struct Contents {
    plain: Client,
    router: Client,
    /// Tables that may differ, as the script says.
    apart: Vec<String>,
    /// After how many statements that change rows they were compared.
    pub compared: u32,
}

impl Contents {
    /// # Errors
    /// A side that lets nobody in.
    pub fn open(sides: &Sides) -> std::io::Result<Self> {
        let (plain, router) = (sides.plain.connect()?, sides.router.connect()?);
        Ok(Self { plain, router, apart: Vec::new(), compared: 0 })
    }

    /// For the next script.
    pub fn forget(&mut self) {
        self.apart.clear();
    }

    /// What the script says before this statement.
    pub(super) fn meet(&mut self, unit: &Unit) {
        self.apart.extend(unit.apart.iter().cloned());
    }

    /// After a statement that has left both sides outside of transactions: what differs.
    pub(super) fn compare(&mut self, unit: &Unit) -> Option<String> {
        let changes = changes_rows(&unit.sql);
        if !changes && !unit.sql.to_ascii_lowercase().starts_with("commit") {
            return None;
        }
        self.compared += u32::from(changes);
        let tables = match self.plain.simple(TABLES, "") {
            Ok(answer) => answer.rows,
            Err(error) => return Some(format!("PostgreSQL: {error}")),
        };
        for row in &tables {
            let row = row.trim_start_matches("row: '").trim_end_matches('\'');
            let (table, columns) = row.split_once("' '").unwrap_or((row, "*"));
            if self.apart.iter().any(|apart| apart == table) {
                continue;
            }
            let sql = format!("SELECT {columns} FROM {table}");
            let read = |client: &mut Client| {
                client.simple(&sql, "").map(|mut answer| {
                    answer.rows.sort_unstable();
                    (answer.rows, answer.error)
                })
            };
            let (want, got) = match (read(&mut self.plain), read(&mut self.router)) {
                (Ok(want), Ok(got)) => (want, got),
                (Err(error), _) | (_, Err(error)) => return Some(format!("{table}: {error}")),
            };
            if want != got {
                // Told once.
                self.apart.push(table.to_owned());
                let only = |of: &[String], not: &[String]| {
                    let rows = of.iter().filter(|row| !not.contains(row)).take(5);
                    rows.map(|row| format!("    {row}\n")).collect::<String>()
                };
                return Some(format!(
                    "the table {table} holds on PostgreSQL only:\n{}and through the router only:\n{}{}",
                    only(&want.0, &got.0),
                    only(&got.0, &want.0),
                    got.1.map_or_else(String::new, |code| format!("    error {code}\n"))
                ));
            }
        }
        None
    }
}

/// INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY … FROM, by themselves or in a WITH.
fn changes_rows(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    let mut words = sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let writes = |word: &str| ["insert", "update", "delete", "merge"].contains(&word);
    match words.next() {
        Some("truncate") => true,
        Some("copy") => words.any(|word| word == "stdin"),
        Some("with") => words.any(writes),
        Some(word) => writes(word),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::changes_rows;

    #[test]
    fn statements_that_change_rows_are_told_from_others() {
        assert!(changes_rows("INSERT INTO t VALUES (1)"));
        assert!(changes_rows("WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a"));
        assert!(changes_rows("COPY t (k) FROM STDIN"));
        assert!(!changes_rows("COPY t TO STDOUT"));
        assert!(!changes_rows("WITH a AS (SELECT 1) SELECT * FROM a"));
        assert!(!changes_rows("SELECT 'update'"));
    }
}
