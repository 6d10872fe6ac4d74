//! Numbers of user-defined types and of tables in what the client is told of its columns: each shard
//! numbers them itself, and a client must be told those of one server, the home shard's.
//!
//! A number is translated by its name, which is the same on every shard, once: after that it is
//! looked up here. Numbers that PostgreSQL itself gives are the same everywhere.

use std::cell::RefCell;
use std::time::Duration;

use foldhash::HashMap;
use pgherd_shard_map::ShardId;
use smallvec::SmallVec;
use thiserror::Error;
use tokio_postgres::Client;

use crate::dial::{DialError, Dialer};
use crate::session::foreign::Found;
use crate::wire::backend::{self, FIRST_USER_OID, Numbered};

/// How long a client waits for names; without them it is told the shard's own numbers.
const WAIT: Duration = Duration::from_secs(5);

/// More than any schema has.
const KNOWN_MAX: usize = 1 << 20;

#[derive(Debug, Error)]
pub enum FindError {
    #[error("the shards did not answer in time")]
    Timeout,
    #[error(transparent)]
    Dial(#[from] DialError),
}

impl From<tokio_postgres::Error> for FindError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Dial(error.into())
    }
}

/// What a worker knows. A number is never given twice, so nothing here grows old.
#[derive(Debug, Default)]
pub struct Oids {
    /// The home shard's number for a shard's.
    known: RefCell<HashMap<(ShardId, Numbered, u32), u32>>,
}

/// What must be asked for.
pub type Unknown = SmallVec<[(Numbered, u32); 8]>;

impl Oids {
    /// Puts the home shard's numbers into a RowDescription of another shard. What is not known is
    /// returned, and stays as it is.
    pub fn translate(&self, shard: ShardId, frame: &mut [u8]) -> Unknown {
        let known = self.known.borrow();
        let mut unknown = Unknown::new();
        backend::renumber_columns(frame, |what, oid| {
            if oid < FIRST_USER_OID {
                return oid;
            }
            known.get(&(shard, what, oid)).copied().unwrap_or_else(|| {
                if !unknown.contains(&(what, oid)) {
                    unknown.push((what, oid));
                }
                oid
            })
        });
        unknown
    }

    /// Remembers what [`find`] said.
    pub fn learn(&self, shard: ShardId, found: &[Found]) {
        let mut known = self.known.borrow_mut();
        if known.len() > KNOWN_MAX {
            known.clear();
        }
        known.extend(found.iter().map(|found| ((shard, found.what, found.from), found.to)));
    }
}

/// Asks one server for names and another for its numbers of them; what has no such name there, or
/// was made by a transaction that is still open, is left out. Over connections of its own, since the
/// session's are in the middle of a reply.
///
/// # Errors
/// One of them cannot be asked in time.
pub async fn find(
    dialer: &Dialer,
    from: &str,
    to: &str,
    wanted: &Unknown,
) -> Result<Vec<Found>, FindError> {
    let work = async {
        let (from, to) = (dialer.client(from).await?, dialer.client(to).await?);
        let mut found = Vec::new();
        for what in [Numbered::Type, Numbered::Table] {
            let oids = wanted.iter().filter(|(kind, _)| *kind == what).map(|(_, oid)| *oid);
            find_kind(&from, &to, what, oids.collect(), &mut found).await?;
        }
        Ok(found)
    };
    tokio::time::timeout(WAIT, work).await.map_err(|_| FindError::Timeout)?
}

async fn find_kind(
    from: &Client,
    to: &Client,
    what: Numbered,
    oids: Vec<u32>,
    found: &mut Vec<Found>,
) -> Result<(), FindError> {
    if oids.is_empty() {
        return Ok(());
    }
    let (catalog, name, schema, element) = match what {
        Numbered::Type => (
            "pg_type",
            "typname",
            "typnamespace",
            "CASE o.typcategory WHEN 'A' THEN o.typelem ELSE 0 END",
        ),
        Numbered::Table => ("pg_class", "relname", "relnamespace", "0::oid"),
    };
    let select = format!(
        "SELECT o.oid, {element}, n.nspname, o.{name} FROM pg_catalog.{catalog} o \
         JOIN pg_catalog.pg_namespace n ON n.oid = o.{schema}"
    );
    let by_name = format!("{select} WHERE n.nspname = $1 AND o.{name} = $2");
    for row in from.query(&format!("{select} WHERE o.oid = ANY($1)"), &[&oids]).await? {
        let (oid, element): (u32, u32) = (row.try_get(0)?, row.try_get(1)?);
        let (schema, name): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        if let Some(row) = to.query_opt(&by_name, &[&schema, &name]).await? {
            let (to, there): (u32, u32) = (row.try_get(0)?, row.try_get(1)?);
            let elements = (element >= FIRST_USER_OID).then_some((element, there));
            found.push(Found { what, from: oid, to, elements });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::HEADER;

    #[test]
    fn known_numbers_become_the_home_shards_and_the_others_are_asked_for() {
        let mut frame = Vec::new();
        backend::own_columns(&mut frame, &[("a", 25), ("b", 20_000), ("c", 20_001), ("d", 20_000)]);
        let oids = Oids::default();
        let unknown = oids.translate(ShardId(1), &mut frame);
        assert_eq!(unknown.as_slice(), [(Numbered::Type, 20_000), (Numbered::Type, 20_001)]);
        let found = Found { what: Numbered::Type, from: 20_000, to: 30_000, elements: None };
        oids.learn(ShardId(1), &[found]);
        let unknown = oids.translate(ShardId(1), &mut frame);
        assert_eq!(unknown.as_slice(), [(Numbered::Type, 20_001)]);
        let columns = backend::columns(&frame).expect("well formed");
        let types: Vec<u32> = columns.iter().map(|column| column.type_oid).collect();
        assert_eq!(types, [25, 30_000, 20_001, 30_000]);
        // Another shard has numbers of its own.
        assert_eq!(oids.translate(ShardId(2), &mut frame).len(), 2);
        // What is cut off is left alone.
        oids.translate(ShardId(1), &mut frame[..HEADER + 9]);
    }
}
