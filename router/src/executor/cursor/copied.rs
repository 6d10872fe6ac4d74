//! COPY of a query whose rows several shards make together: sorted, limited, aggregated, joined.
//!
//! The query runs as a cursor does, so that its rows stay on their shards until they are wanted, or
//! are set aside; the router takes them a portion at a time and writes them as COPY does. What the
//! options mean, and the line of names, PostgreSQL itself says: it is asked for a COPY of no rows.

use pgherd_planner::{Access, CopyFormat, CopyQuery, ForceQuote, Plan, Step};

use super::super::spelled::not_utf8;
use super::{Conn, Statement};
use crate::copy_rows::RowWriter;
use crate::error::{ErrorInfo, Failure};
use crate::session::Run;
use crate::spool::{Aside, Trouble};
use crate::wire::backend::ColumnShape;
use crate::wire::{HEADER, backend, frontend, put_frame};

/// The cursor's name: no client's begins so.
const NAME: &[u8] = b"\0copy";

/// Rows that are taken at a time.
const PORTION: u64 = 1000;

/// A query of columns with these names.
fn no_rows(columns: &[ColumnShape<'_>]) -> Result<String, ErrorInfo> {
    let columns = columns.iter().map(|column| {
        let name = std::str::from_utf8(column.name).map_err(|_| not_utf8())?;
        Ok(format!("NULL AS {}", pgherd_shard_map::quoted(name)))
    });
    let columns: Result<Vec<String>, ErrorInfo> = columns.collect();
    Ok(format!("SELECT {} LIMIT 0", columns?.join(", ")))
}

impl Conn {
    pub(in super::super) async fn copy_query(
        &mut self,
        copy: &CopyQuery,
        statement: Statement<'_>,
    ) -> Result<(), Failure> {
        self.take_ticket().await?;
        if statement.plan.access != Access::Read {
            self.open_implicit();
        }
        let home = self.server_for(self.planning.map.home).await?;
        let inner = copy.query.of(statement.sql);
        // Errors have their place in the client's text.
        let before = statement.sql[..copy.query.start as usize].chars().count();
        let padded = format!("{}{inner}", " ".repeat(before));
        let format: &[u8] =
            if copy.format == CopyFormat::Binary { &[0, 1, 0, 1] } else { &[0, 1, 0, 0] };
        let plan = Plan { consistency: statement.plan.consistency, ..copy.plan.clone() };
        let portal = self.portal_of(&padded, &plan, &[], &[&[0, 0, 0, 0], format].concat());
        self.learn_types(&portal.statement).await;
        let told = self.client.out.len();
        let described = self.describe_at_home(&portal, backend::NO_DATA).await;
        let columns = self.client.out.split_off(told);
        described?;
        if columns == backend::NO_DATA {
            return Err(ErrorInfo::new("0A000", "COPY query must have a RETURNING clause").into());
        }
        let columns = backend::column_shapes(&columns)
            .map_err(|_| ErrorInfo::new("XX000", "a shard described its rows wrongly"))?;
        let quoted = columns.iter().map(|column| match &copy.force_quote {
            ForceQuote::All => true,
            ForceQuote::Columns(names) => names.iter().any(|name| name.as_bytes() == column.name),
        });
        let writer = RowWriter::new(&copy.format, copy.encoding, quoted.collect());
        let tail = &statement.sql[copy.tail.start as usize..copy.tail.end as usize];
        let rows = match plan.access {
            Access::Read => format!("SELECT * FROM (\n{inner}\n) AS pgherd_rows LIMIT 0"),
            // What writes runs once.
            _ => no_rows(&columns)?,
        };
        let empty = format!("COPY ({rows}) {tail}");
        let begun = self.copy_of_nothing(home, &empty).await?;
        // As PostgreSQL does, before the query runs.
        self.client.out.extend_from_slice(&begun);
        portal.run.set(Run::InPortions);
        self.close_cursor(NAME).await?;
        let cursor = self.open_cursor(&portal, false).await?;
        self.keep_cursor(NAME, cursor);
        let copied = self.copy_portions(&writer).await;
        let closed = self.close_cursor(NAME).await;
        let rows = copied?;
        closed?;
        if copy.format == CopyFormat::Binary {
            put_frame(&mut self.client.out, b'd', |out| out.extend_from_slice(&[0xff, 0xff]));
        }
        self.client.out.extend_from_slice(frontend::COPY_DONE);
        self.client.complete(&format!("COPY {rows}"));
        Ok(())
    }

    /// What COPY sends before its first row.
    async fn copy_of_nothing(&mut self, home: usize, sql: &str) -> Result<Vec<u8>, Failure> {
        self.join(home).await?;
        let mut request = Vec::new();
        frontend::put_query(&mut request, sql);
        if let Err(error) = self.servers[home].send(&request).await {
            return Err(self.lost(home, &error));
        }
        let mut begun = Vec::new();
        let mut failure = None;
        loop {
            match self.servers[home].frame().await {
                Ok((b'Z', frame)) => {
                    self.servers[home].ready(&frame);
                    return failure.map_or(Ok(begun), Err);
                }
                Ok((b'E', error)) => failure = Some(Failure::Shard(error)),
                // Binary: the header and the trailer come in one message.
                Ok((b'd', frame)) if frame.ends_with(&[0xff, 0xff]) => {
                    let header = &frame[HEADER..frame.len() - 2];
                    if !header.is_empty() {
                        put_frame(&mut begun, b'd', |out| out.extend_from_slice(header));
                    }
                }
                Ok((b'H' | b'd', frame)) => begun.extend_from_slice(&frame),
                Ok(_) => {}
                Err(error) => return Err(self.lost(home, &error)),
            }
        }
    }

    async fn copy_portions(&mut self, writer: &RowWriter<'_>) -> Result<u64, Failure> {
        let mut rows = 0;
        loop {
            // A portion is in memory, however long its rows are.
            let before = std::mem::take(&mut self.client.out);
            let outer = self.client.aside.replace(Box::new(Aside::new(u64::MAX)));
            let taken = self.take_step(NAME, Step::Forward(Some(PORTION)), true).await;
            let rest = std::mem::replace(&mut self.client.out, before);
            let aside = std::mem::replace(&mut self.client.aside, outer);
            let Some(mut aside) = aside else { return Err(Failure::Torn) };
            aside.take(&rest).await;
            self.client.out.append(&mut aside.passed);
            let taken = taken?;
            if let Some(Trouble::File(error)) = aside.trouble {
                return Err(super::file_failed(&error).into());
            }
            for number in 0..aside.spool.rows() {
                let row = aside.spool.row(number).await;
                let row = row.map_err(|error| super::file_failed(&error))?.unwrap_or_default();
                writer.put(row.get(HEADER..).unwrap_or_default(), &mut self.client.out)?;
                self.client.flush_if_high().await?;
            }
            rows += taken;
            if taken < PORTION {
                return Ok(rows);
            }
        }
    }
}
