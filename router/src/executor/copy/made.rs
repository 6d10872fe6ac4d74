//! Values that the router writes before the fields of each row: numbers of sequences, and uuids that
//! must be known or the same everywhere.

use std::collections::VecDeque;

use pgherd_planner::{CopyFormat, CopyIn, Make};

use super::Placing;
use crate::error::Failure;
use crate::executor::Conn;
use crate::executor::insert::{Value, random_uuid};

/// More numbers than a piece of data can need are asked for, so that few are asked for often.
const AHEAD: u32 = 1000;
const AHEAD_MAX: u32 = 65_536;

/// What has been made and not used.
pub(super) struct Made {
    values: Vec<VecDeque<Value>>,
    /// Of the last row.
    last: Vec<Value>,
    ahead: u32,
}

impl Made {
    pub(super) fn new(copy: &CopyIn) -> Self {
        let values = copy.makes.iter().map(|_| VecDeque::new()).collect();
        Self { values, last: Vec::new(), ahead: AHEAD }
    }

    /// The next row's values.
    pub(super) fn next(&mut self) -> Vec<Value> {
        let values: Vec<Value> =
            self.values.iter_mut().map(|values| values.pop_front().flatten()).collect();
        self.last.clone_from(&values);
        values
    }
}

impl Conn {
    /// Makes enough for the rows that these bytes may complete.
    pub(super) async fn make_for(
        &mut self,
        placing: &mut Placing<'_>,
        data: &[u8],
    ) -> Result<(), Failure> {
        let copy = placing.copy;
        if copy.makes.is_empty() {
            return Ok(());
        }
        // The last row may have no line end.
        let rows = 1 + match copy.format {
            CopyFormat::Binary => data.len() / (2 + 4 * usize::from(copy.columns.max(1))) + 1,
            _ => memchr::memchr2_iter(b'\n', b'\r', data).count(),
        };
        for (at, made) in copy.makes.iter().enumerate() {
            let short = rows.saturating_sub(placing.made.values[at].len());
            if short == 0 {
                continue;
            }
            let more: VecDeque<Value> = match &made.make {
                Make::Number { sequence, identity } => {
                    let ahead = placing.made.ahead;
                    placing.made.ahead = (ahead * 2).min(AHEAD_MAX);
                    let (short, identity) = (short as u32, identity.as_ref());
                    let numbers = self.numbers_ahead(sequence, identity, short, ahead).await?;
                    numbers.into_iter().map(|number| Some(number.to_string())).collect()
                }
                Make::RandomUuid => (0..short).map(|_| random_uuid()).collect::<Result<_, _>>()?,
                // Not planned: the home shard is busy with the COPY.
                Make::Default { .. } => VecDeque::new(),
            };
            placing.made.values[at].extend(more);
        }
        Ok(())
    }

    /// Numbers that were asked for and not needed are for the next statement.
    pub(super) fn keep_made(&mut self, placing: &mut Placing<'_>) {
        for (made, last) in placing.copy.makes.iter().zip(&placing.made.last) {
            if let (Make::Number { sequence, .. }, Some(number)) = (&made.make, last)
                && let Ok(number) = number.parse()
            {
                self.note_drawn(sequence, number);
            }
        }
        for (made, values) in placing.copy.makes.iter().zip(&mut placing.made.values) {
            if let Make::Number { sequence, .. } = &made.make {
                let left = values.drain(..).filter_map(|value| value?.parse().ok());
                self.keep_numbers(sequence, left);
            }
        }
    }
}

/// A row with these values before its own.
pub(super) fn put_row(copy: &CopyIn, values: &[Value], row: &[u8], out: &mut Vec<u8>) {
    match &copy.format {
        CopyFormat::Text { delimiter, null, .. } => {
            for value in values {
                match value {
                    None => out.extend_from_slice(null),
                    Some(text) => put_text(text, *delimiter, out),
                }
                out.push(*delimiter);
            }
            out.extend_from_slice(row);
        }
        CopyFormat::Csv { delimiter, quote, escape, null, .. } => {
            for value in values {
                match value {
                    None => out.extend_from_slice(null),
                    Some(text) => put_quoted(text, *quote, *escape, out),
                }
                out.push(*delimiter);
            }
            out.extend_from_slice(row);
        }
        CopyFormat::Binary => put_binary(copy, values, row, out),
    }
}

/// A header line names the columns that are added, too: HEADER MATCH compares them.
pub(super) fn put_header(copy: &CopyIn, head: &[u8], out: &mut Vec<u8>) {
    match copy.format {
        CopyFormat::Binary => out.extend_from_slice(head),
        _ => {
            let made = copy.makes.iter();
            let names: Vec<Value> = made.map(|made| Some(made.column.to_string())).collect();
            put_row(copy, &names, head, out);
        }
    }
}

fn put_text(text: &str, delimiter: u8, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            _ if byte == delimiter => out.extend_from_slice(&[b'\\', byte]),
            _ => out.push(byte),
        }
    }
}

fn put_quoted(text: &str, quote: u8, escape: u8, out: &mut Vec<u8>) {
    out.push(quote);
    for byte in text.bytes() {
        if byte == quote || byte == escape {
            out.push(escape);
        }
        out.push(byte);
    }
    out.push(quote);
}

fn put_binary(copy: &CopyIn, values: &[Value], row: &[u8], out: &mut Vec<u8>) {
    let Some((count, fields)) = row.split_first_chunk() else {
        return out.extend_from_slice(row);
    };
    let count = i16::from_be_bytes(*count).saturating_add(values.len() as i16);
    out.extend_from_slice(&count.to_be_bytes());
    for (made, value) in copy.makes.iter().zip(values) {
        let width = usize::from(made.bytes);
        out.extend_from_slice(&(width as u32).to_be_bytes());
        let text = value.as_deref().unwrap_or_default();
        let number = match made.make {
            Make::RandomUuid => u128::from_str_radix(&text.replace('-', ""), 16).unwrap_or(0),
            _ => text.parse::<i64>().unwrap_or(0) as u128,
        };
        out.extend_from_slice(&number.to_be_bytes()[16 - width..]);
    }
    out.extend_from_slice(fields);
}
