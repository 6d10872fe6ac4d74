//! MERGE whose source rows are not where the target's are: PostgreSQL makes them on the home shard,
//! in a scratch table, and they go to the shards with the statement.
//!
//! Where the statement makes rows, each source row goes to one shard: that of the key which it is
//! joined by, and which the new row gets.

use pgherd_planner::{Carried, CarriedTo, Make, NUMBER, SOURCE, ShardSet};
use pgherd_shard_map::{KeyError, KeyInput, ShardId};
use postgres_protocol::escape::escape_literal;

use super::cursor::file_failed;
use super::gather::{PLAIN_FORMS, SCRATCH, read_row};
use super::insert::{no_key, regclass};
use super::many::Task;
use super::spelled::{Column, Rows, texts};
use super::{Conn, Statement};
use crate::error::{ErrorInfo, Failure};
use crate::wire::{HEADER, frontend};

/// Source rows on their way.
struct Source {
    columns: Vec<Column>,
    /// Those of one shard, or of all if there is none.
    rows: Vec<(Option<ShardId>, Rows)>,
}

impl Conn {
    pub(super) async fn run_carried(
        &mut self,
        carried: &Carried,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.take_ticket().await?;
        self.open_implicit();
        let home = self.planning.map.home;
        let at = self.server_for(home).await?;
        self.parse_first(at, statement).await?;
        self.refuse_odd_forms(at)?;
        self.check_views(&carried.borrow, at).await?;
        let shards = match &carried.to {
            CarriedTo::Home => vec![home],
            CarriedTo::Keys(target) => {
                let shards = self.shards_of(target, statement)?;
                if carried.inserts && shards.len() > 1 {
                    return Err(several_keys().into());
                }
                shards
            }
            _ => self.shard_list(&ShardSet::All),
        };
        // All that the rows may need, before the connection that must be the last.
        for shard in &shards {
            self.server_for(*shard).await?;
        }
        let copied = !carried.borrow.pulls.is_empty() || !carried.borrow.own.is_empty();
        let (mut source, keyless) = match copied {
            false => self.source_of_home(at, carried, statement).await?,
            true => self.source_over_copies(at, carried, statement).await?,
        };
        if keyless && self.takes_null(at, carried).await? {
            return Err(no_key(KeyError::Null));
        }
        for (place, make) in carried.numbers.iter().enumerate() {
            self.number_source(at, &mut source, place, make).await?;
        }
        if carried.to == CarriedTo::Home || !carried.numbers.is_empty() {
            self.forget_drawn();
        }
        let mut tasks = Vec::new();
        for shard in shards {
            if let Some(sql) = source.text_for(shard, carried, home) {
                tasks.push(Task::new(self.server_for(shard).await?, Some(&sql)));
            }
        }
        match carried.to {
            CarriedTo::Same => self.run_same(tasks, statement).await,
            _ => self.stream(tasks, statement, None).await,
        }
    }

    /// One number for every row, whatever becomes of it.
    async fn number_source(
        &mut self,
        home: usize,
        source: &mut Source,
        place: usize,
        make: &Make,
    ) -> Result<(), Failure> {
        let Make::Number { sequence, identity } = make else { return Ok(()) };
        let next = match identity {
            None => format!("pg_catalog.nextval({})", regclass(sequence)),
            Some((table, column)) => {
                format!("pgherd.identity_number({}, {})", regclass(table), escape_literal(column))
            }
        };
        for (_, rows) in &mut source.rows {
            let count = rows.count();
            let sql = format!("SELECT {next} FROM pg_catalog.generate_series(1, {count})");
            let reply = self.query(home, &sql).await?;
            rows.add_column(super::insert::texts(&reply))?;
        }
        source.columns.push(Column::number(format!("{NUMBER}{place}")));
        Ok(())
    }

    /// Nothing of other shards is in it: the home shard's server of the session makes the rows.
    async fn source_of_home(
        &mut self,
        home: usize,
        carried: &Carried,
        statement: Statement<'_>,
    ) -> Result<(Source, bool), Failure> {
        let part = self.part(&carried.borrow.sql, statement)?;
        let columns = self.columns_returned(home, &part).await?;
        let field = self.key_field(carried, &columns)?;
        let mut source = Source { columns, rows: Vec::new() };
        let mut keyless = false;
        let portal = part.portal(statement, true)?;
        let (mut spool, _) = self.set_aside(part.bound(portal.as_ref())).await?;
        for number in 0..spool.rows() {
            let row = spool.row(number).await.map_err(|error| file_failed(&error))?;
            let row = texts(row.and_then(|row| row.get(HEADER..)).unwrap_or_default())?;
            let key = field.map(|at| row.get(at).copied().flatten());
            let shard = self.shard_of_source(carried, key, &mut keyless)?;
            source.add(shard, row.into_iter())?;
        }
        Ok((source, keyless))
    }

    async fn source_over_copies(
        &mut self,
        home: usize,
        carried: &Carried,
        statement: Statement<'_>,
    ) -> Result<(Source, bool), Failure> {
        self.refuse_unseen(&carried.borrow, home)?;
        let sources = self.sources(&carried.borrow, statement).await?;
        let scratch = self.open_scratch(home, carried.borrow.local).await?;
        let made = format!("CREATE TABLE {SCRATCH} AS {}", carried.borrow.sql);
        let filled = self.fill_scratch(scratch, &carried.borrow, &made, &sources, statement).await;
        let source = match filled {
            Ok(()) => self.read_source(scratch, carried).await,
            Err(failure) => Err(failure),
        };
        self.close_scratch();
        source
    }

    async fn read_source(
        &mut self,
        scratch: usize,
        carried: &Carried,
    ) -> Result<(Source, bool), Failure> {
        self.query(scratch, PLAIN_FORMS).await?;
        let columns = self.columns_spelled(scratch, &escape_literal(SCRATCH)).await?;
        let field = self.key_field(carried, &columns)?;
        let mut source = Source { columns, rows: Vec::new() };
        let mut request = Vec::new();
        frontend::put_query(&mut request, &format!("COPY {SCRATCH} TO STDOUT"));
        if let Err(error) = self.servers[scratch].send(&request).await {
            return Err(self.lost(scratch, &error));
        }
        let mut failure = None;
        let mut keyless = false;
        loop {
            let (tag, frame) = match self.servers[scratch].frame().await {
                Ok(frame) => frame,
                Err(error) => return Err(self.lost(scratch, &error)),
            };
            match tag {
                b'd' if failure.is_none() => {
                    let line = &frame[HEADER..];
                    let line = line.strip_suffix(b"\n").unwrap_or(line);
                    let added = match source.columns.is_empty() {
                        true => Ok(Vec::new()),
                        false => read_row(line),
                    };
                    let added = added.and_then(|values| {
                        let key = field.map(|at| values.get(at).and_then(Option::as_deref));
                        let shard = self.shard_of_source(carried, key, &mut keyless)?;
                        source.add(shard, values.iter().map(Option::as_deref))
                    });
                    failure = added.err();
                }
                b'E' => {
                    failure.get_or_insert(Failure::Shard(frame));
                }
                b'Z' => break,
                _ => {}
            }
        }
        failure.map_or(Ok((source, keyless)), Err)
    }

    /// The column that says which shard gets a row; `None` where all get all.
    fn key_field(&self, carried: &Carried, columns: &[Column]) -> Result<Option<usize>, Failure> {
        let CarriedTo::ByKey { column, type_name, .. } = &carried.to else { return Ok(None) };
        let field = columns.iter().position(|known| *known.name == **column);
        match field {
            Some(at) if hashes_alike(type_name, &columns[at].type_name) => Ok(Some(at)),
            _ if !carried.inserts => Ok(None),
            Some(at) => Err(ErrorInfo::new(
                "0A000",
                "the shard of this MERGE's new rows cannot be told from its source",
            )
            .detail(format!(
                "\"{column}\" of the source has the type {}, and the distribution column {type_name}.",
                columns[at].type_name
            ))
            .hint(format!("Cast it in the source: USING (SELECT …::{type_name} AS {column} …)."))
            .into()),
            None => Err(ErrorInfo::new("42703", format!("column \"{column}\" does not exist")).into()),
        }
    }

    /// A row that can match nothing goes to the home shard, which says what is wrong with it if it
    /// becomes a new row.
    fn shard_of_source(
        &self,
        carried: &Carried,
        key: Option<Option<&str>>,
        keyless: &mut bool,
    ) -> Result<Option<ShardId>, Failure> {
        let (CarriedTo::ByKey { group, .. }, Some(key)) = (&carried.to, key) else {
            return Ok(None);
        };
        let map = &self.planning.map;
        let Some(key) = key else {
            *keyless = true;
            return Ok(Some(map.home));
        };
        match map.shard_for(*group, KeyInput::Text(key.as_bytes())) {
            Ok(shard) => Ok(Some(shard)),
            Err(KeyError::Invalid { .. }) => Ok(Some(map.home)),
            Err(KeyError::Uncovered) if !carried.inserts => Ok(Some(map.home)),
            Err(error) => Err(no_key(error)),
        }
    }

    /// Whether the home shard would take a new row without a key.
    async fn takes_null(&mut self, home: usize, carried: &Carried) -> Result<bool, Failure> {
        let CarriedTo::ByKey { table, key, .. } = &carried.to else { return Ok(false) };
        if !carried.inserts {
            return Ok(false);
        }
        let sql = format!(
            "SELECT NOT attnotnull FROM pg_catalog.pg_attribute WHERE attrelid = {} \
             AND attname = {}",
            regclass(table),
            escape_literal(key)
        );
        Ok(self.query(home, &sql).await?.scalar().as_deref() == Some("t"))
    }
}

impl Source {
    fn add<'v>(
        &mut self,
        shard: Option<ShardId>,
        values: impl Iterator<Item = Option<&'v str>>,
    ) -> Result<(), Failure> {
        let at = self.rows.iter().position(|(known, _)| *known == shard).unwrap_or_else(|| {
            self.rows.push((shard, Rows::new(self.columns.len())));
            self.rows.len() - 1
        });
        self.rows[at].1.add(values)
    }

    /// The statement of one shard, if it has anything to do there.
    fn text_for(&self, shard: ShardId, carried: &Carried, home: ShardId) -> Option<String> {
        let known = self.rows.iter().find(|(of, _)| of.is_none_or(|of| of == shard));
        let none = Rows::new(self.columns.len());
        let by_key = matches!(carried.to, CarriedTo::ByKey { .. });
        let rows = match known {
            Some((_, rows)) => rows,
            // One shard at least says what PostgreSQL has to say.
            None if !by_key || carried.everywhere => &none,
            None if self.rows.is_empty() && shard == home => &none,
            None => return None,
        };
        Some(format!("WITH {} {}", rows.with_query(SOURCE, &self.columns), carried.sql))
    }
}

fn several_keys() -> ErrorInfo {
    ErrorInfo::new("0A000", "the statement names keys of several shards")
        .detail(
            "A match of this MERGE would be looked for on another shard than its new rows' own.",
        )
        .hint("Compare the distribution column with the value that new rows get.")
}

/// Whether equal values of both types have one text, or one that is read as the same key.
fn hashes_alike(key: &str, source: &str) -> bool {
    let integers = ["smallint", "integer", "bigint"];
    let plain = |name: &str| name.split('(').next().map(str::to_owned).unwrap_or_default();
    match key {
        "smallint" | "integer" | "bigint" => integers.contains(&source),
        "numeric" => integers.contains(&source) || plain(source) == "numeric",
        "text" | "character varying" => ["text", "character varying"].contains(&&*plain(source)),
        key => key == source,
    }
}

#[cfg(test)]
mod tests {
    use super::hashes_alike;

    #[test]
    fn keys_of_other_types_are_placed_only_where_their_text_is_one() {
        assert!(hashes_alike("integer", "bigint"));
        assert!(hashes_alike("text", "character varying(20)"));
        assert!(hashes_alike("numeric", "numeric(10,2)"));
        assert!(!hashes_alike("integer", "numeric"));
        assert!(!hashes_alike("character varying(4)", "text"));
        assert!(!hashes_alike("text", "character(4)"));
    }
}
