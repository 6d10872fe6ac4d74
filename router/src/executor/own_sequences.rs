//! Sequences that the open transaction has made: no other connection sees them. The scratch
//! connection counts on in one of its own, and the transaction's goes on from there.

use pgherd_shard_map::TableName;

use super::Conn;
use super::insert::regclass;
use crate::error::{ErrorInfo, Failure};

/// A sequence of the transaction, and what the scratch connection has in its place.
pub(super) struct OwnSequence {
    sequence: TableName,
    counted: String,
}

impl Conn {
    /// One that gives what this sequence would, if the scratch connection does not see it.
    pub(super) async fn count_apart(
        &mut self,
        home: usize,
        scratch: usize,
        sequence: &TableName,
        number: usize,
    ) -> Result<Option<OwnSequence>, Failure> {
        let changed = self.session.transaction.block().is_some_and(|block| block.schema_changed);
        let name = sequence.quoted();
        let seen = format!(
            "SELECT pg_catalog.to_regclass({})",
            postgres_protocol::escape::escape_literal(&name)
        );
        if !changed || self.query(scratch, &seen).await?.scalar().is_some() {
            return Ok(None);
        }
        let sql = format!(
            "SELECT pg_catalog.format('AS %s INCREMENT %s MINVALUE %s MAXVALUE %s START %s %s', \
               pg_catalog.format_type(p.seqtypid, NULL), p.seqincrement, p.seqmin, p.seqmax, \
               s.last_value, CASE WHEN p.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END), \
             s.last_value, s.is_called FROM pg_catalog.pg_sequence p, {name} s \
             WHERE p.seqrelid = {}",
            regclass(sequence)
        );
        let row = self.query(home, &sql).await?.first_row();
        let [Some(options), Some(last), Some(called)] = row.as_slice() else {
            return Err(ErrorInfo::new("XX000", format!("the sequence {name} has no row")).into());
        };
        let counted = format!("pg_temp.pgherd_numbers_{number}");
        self.quietly(scratch, &format!("CREATE TEMP SEQUENCE {} {options}", &counted[8..])).await?;
        let set = format!("SELECT pg_catalog.setval('{counted}', {last}, '{called}')");
        self.quietly(scratch, &set).await?;
        Ok(Some(OwnSequence { sequence: sequence.clone(), counted }))
    }

    /// After the rows were made.
    pub(super) async fn count_on(
        &mut self,
        home: usize,
        scratch: usize,
        own: &[OwnSequence],
    ) -> Result<(), Failure> {
        for OwnSequence { sequence, counted } in own {
            let state = format!("SELECT last_value, is_called FROM {counted}");
            let row = self.query(scratch, &state).await?.first_row();
            let [Some(last), Some(called)] = row.as_slice() else { continue };
            let sequence = regclass(sequence);
            let set = format!("SELECT pg_catalog.setval({sequence}, {last}, '{called}')");
            self.quietly(home, &set).await?;
        }
        Ok(())
    }
}

impl OwnSequence {
    pub(super) fn next(&self) -> String {
        format!("pg_catalog.nextval('{}')", self.counted)
    }
}
