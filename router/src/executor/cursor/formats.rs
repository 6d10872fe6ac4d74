//! FETCH in other formats than the cursor's. PostgreSQL writes a cursor's rows when they are fetched,
//! in the formats that FETCH was bound with; here they were written before. So PostgreSQL is given
//! the values in the one format, and returns them in the other.

use bytes::Bytes;
use pgherd_planner::Step;

use super::super::Conn;
use crate::error::{ErrorInfo, Failure};
use crate::spool::Aside;
use crate::wire::backend::{self, ColumnDescription};
use crate::wire::{HEADER, frontend, put_frame};

/// So many rows are converted at a time.
const BATCH: u64 = 100;

/// record, void, cstring, anyarray, record[]: what a server writes and does not read.
const UNREADABLE: [u32; 5] = [2249, 2278, 2275, 2277, 2287];

/// How rows are, and how they are wanted.
pub(super) struct Formats {
    columns: Vec<ColumnDescription>,
    /// Of each column: binary.
    wanted: Vec<bool>,
}

impl Formats {
    /// `None`: as they are. `columns` is a RowDescription, `results` the end of a Bind.
    pub(super) fn wanted(columns: &[u8], results: &[u8]) -> Result<Option<Self>, ErrorInfo> {
        let columns = backend::columns(columns)?;
        let wanted = each_format(results, columns.len())?;
        if columns.iter().zip(&wanted).all(|(column, wanted)| column.binary == *wanted) {
            return Ok(None);
        }
        if columns.iter().any(|column| UNREADABLE.contains(&column.type_oid)) {
            return Err(ErrorInfo::new(
                "0A000",
                "rows of a cursor over several shards cannot be written in another format",
            )
            .detail("PostgreSQL cannot read a value of a pseudo-type, such as a row, again.")
            .hint("Fetch in the cursor's own format: text, or binary if it is BINARY."));
        }
        Ok(Some(Self { columns, wanted }))
    }

    /// A statement that returns its parameters.
    fn put_parse(&self, request: &mut Vec<u8>) {
        let list: Vec<String> = (1..=self.columns.len()).map(|n| format!("${n}")).collect();
        let types: Vec<u8> =
            self.columns.iter().flat_map(|column| column.type_oid.to_be_bytes()).collect();
        frontend::put_parse(request, b"", &format!("SELECT {}", list.join(", ")), &types);
    }

    /// Runs it with a row's values. `row` is a whole DataRow: from the count on it is as in Bind.
    fn put_row(&self, request: &mut Vec<u8>, row: &[u8]) {
        let mut parameters = Vec::new();
        put_formats(&mut parameters, self.columns.iter().map(|column| column.binary));
        parameters.extend_from_slice(row.get(HEADER..).unwrap_or_default());
        let mut results = Vec::new();
        put_formats(&mut results, self.wanted.iter().copied());
        frontend::put_bind(request, b"", b"", &parameters, &results);
        frontend::put_execute(request, b"", 0);
    }
}

/// A cursor's columns as a FETCH that is bound so returns them.
pub(super) fn described(mut columns: Vec<u8>, results: &[u8]) -> Result<Vec<u8>, ErrorInfo> {
    let count = backend::columns(&columns)?.len();
    backend::set_formats(&mut columns, &each_format(results, count)?);
    Ok(columns)
}

/// What the end of a Bind says of each column: binary.
fn each_format(results: &[u8], columns: usize) -> Result<Vec<bool>, ErrorInfo> {
    let (formats, _) = results.get(2..).unwrap_or_default().as_chunks::<2>();
    match formats {
        [] => Ok(vec![false; columns]),
        [all] => Ok(vec![*all == [0, 1]; columns]),
        each if each.len() == columns => Ok(each.iter().map(|one| *one == [0, 1]).collect()),
        each => Err(ErrorInfo::protocol(format!(
            "bind message has {} result formats but query has {columns} columns",
            each.len()
        ))),
    }
}

fn put_formats(out: &mut Vec<u8>, formats: impl ExactSizeIterator<Item = bool>) {
    out.extend_from_slice(&(formats.len() as u16).to_be_bytes());
    out.extend(formats.flat_map(|binary| [0, u8::from(binary)]));
}

impl Conn {
    /// As `take_step`, with rows in these formats.
    pub(super) async fn step_in_formats(
        &mut self,
        name: &[u8],
        step: Step,
        formats: &Formats,
    ) -> Result<u64, Failure> {
        let mut sent = 0;
        loop {
            let left = |rows: Option<u64>| rows.map_or(BATCH, |rows| (rows - sent).min(BATCH));
            // Nothing at all means the row that the cursor is on.
            let (piece, size) = match step {
                Step::Forward(rows) if rows != Some(0) => {
                    (Step::Forward(Some(left(rows))), left(rows))
                }
                Step::Backward(rows) if rows != Some(0) => {
                    (Step::Backward(Some(left(rows))), left(rows))
                }
                other => (other, u64::MAX),
            };
            let rows = self.rows_of(name, piece).await?;
            sent += rows.len() as u64;
            self.convert(&rows, formats).await?;
            let wanted = match step {
                Step::Forward(rows) | Step::Backward(rows) => rows,
                _ => None,
            };
            if (rows.len() as u64) < size || wanted == Some(sent) {
                return Ok(sent);
            }
        }
    }

    /// What a step would send to the client.
    async fn rows_of(&mut self, name: &[u8], step: Step) -> Result<Vec<Bytes>, Failure> {
        let before = std::mem::take(&mut self.client.out);
        let outer = self.client.aside.replace(Box::new(Aside::new(u64::MAX)));
        let stepped = self.take_step(name, step, true).await;
        let rest = std::mem::replace(&mut self.client.out, before);
        let aside = std::mem::replace(&mut self.client.aside, outer);
        let Some(mut aside) = aside else { return Err(Failure::Torn) };
        aside.take(&rest).await;
        self.client.out.append(&mut aside.passed);
        stepped?;
        let mut rows = Vec::new();
        for number in 0..aside.spool.rows() {
            let row = aside.spool.row(number).await.map_err(|error| super::file_failed(&error))?;
            rows.push(Bytes::copy_from_slice(row.unwrap_or_default()));
        }
        Ok(rows)
    }

    async fn convert(&mut self, rows: &[Bytes], formats: &Formats) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let at = self.server_for(self.planning.map.home).await?;
        self.join(at).await?;
        let mut request = Vec::new();
        formats.put_parse(&mut request);
        for row in rows {
            formats.put_row(&mut request, row);
        }
        request.extend_from_slice(frontend::SYNC);
        let reply = self.request(at, &request).await?;
        for row in &reply.rows {
            put_frame(&mut self.client.out, b'D', |out| out.extend_from_slice(row));
        }
        self.client.flush_if_high().await?;
        Ok(())
    }
}
