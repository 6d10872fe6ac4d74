//! The columns of prepared statements: whoever has prepared one goes on to read its rows by them.
//!
//! Where a change of the schema has given a statement other columns, PostgreSQL refuses to run it
//! until it is prepared anew. Over pooled servers none of them could say that: most have got the
//! statement after the change, if at all. So the router asks for a statement's columns when it is
//! prepared, together with its Parse, and compares when it is planned again since the map or the
//! search path is another one. The answer is shared by all clients of a worker, as the statement is.

use std::hash::BuildHasher;
use std::rc::Rc;

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::session::Prepared;
use crate::wire::backend;

impl Conn {
    /// Whether a statement was planned for another map or search path, and its columns then are known.
    #[must_use]
    pub fn may_have_new_columns(&self, name: &[u8]) -> bool {
        let Some(statement) = self.session.statements.get(name) else { return false };
        let seed = self.planning.shared_seed();
        let same = match seed {
            Some(_) => statement.seed == seed,
            // In a transaction that has changed the schema each change is an epoch.
            None => statement.seed.is_none() && statement.plan.epoch == self.planning.map.epoch,
        };
        !same && statement.columns.get().is_some() && !self.session.transaction.failed()
    }

    /// Plans such a statement anew, if its columns are still the same.
    ///
    /// # Errors
    /// 0A000 where they are not, as PostgreSQL has it; what the home shard finds wrong with it now.
    pub async fn keep_to_columns(&mut self, name: &[u8]) -> Result<(), Failure> {
        if !self.may_have_new_columns(name) {
            return Ok(());
        }
        let Some(old) = self.session.statements.get(name).cloned() else { return Ok(()) };
        let new = self.planned_anew(&old)?;
        self.learn_columns(&new).await?;
        if new.columns.get() != old.columns.get() {
            return Err(ErrorInfo::changed_columns().into());
        }
        self.session.statements.insert(name.into(), new);
        Ok(())
    }

    /// Asks the home shard for a statement's columns, unless they are known.
    ///
    /// # Errors
    /// What the home shard finds wrong with the statement.
    pub async fn learn_columns(&mut self, statement: &Rc<Prepared>) -> Result<(), Failure> {
        if !statement.lacks_columns() {
            return Ok(());
        }
        self.take_ticket().await?;
        let at = self.server_for(self.planning.map.home).await?;
        self.join(at).await?;
        let reply = self.describe_at(at, &statement.sql, &statement.types).await?;
        self.note_columns(at, statement, reply.description.unwrap_or_default()).await;
        Ok(())
    }

    /// Keeps what a server has said of a statement's columns: a RowDescription, or nothing.
    pub async fn note_columns(&self, at: usize, statement: &Prepared, frame: Bytes) {
        let frame = self.with_home_oids(at, frame).await;
        let columns = match frame.first() {
            Some(b'T') => backend::column_shapes(&frame).unwrap_or_default(),
            _ => Vec::new(),
        };
        let name = |name: &[u8]| match self.servers[at].encoding {
            None => String::from_utf8_lossy(name).into_owned(),
            Some(encoding) => encoding.decode_lossy(name),
        };
        let columns = columns.iter().map(|of| (name(of.name), of.type_oid, of.modifier));
        let columns: Vec<(String, i32, i32)> = columns.collect();
        // Another session may have been quicker.
        let _ = statement.columns.set(FixedState::default().hash_one(columns));
    }
}
