//! Messages from server to client: those the router makes itself, and the few it reads.

use super::{HEADER, Malformed, Reader, put_cstr, put_frame};
use crate::error::{ErrorInfo, Routine};

pub const PARSE_COMPLETE: &[u8] = &[b'1', 0, 0, 0, 4];
pub const BIND_COMPLETE: &[u8] = &[b'2', 0, 0, 0, 4];
pub const PORTAL_SUSPENDED: &[u8] = &[b's', 0, 0, 0, 4];
pub const CLOSE_COMPLETE: &[u8] = &[b'3', 0, 0, 0, 4];
pub const NO_DATA: &[u8] = &[b'n', 0, 0, 0, 4];
pub const EMPTY_QUERY: &[u8] = &[b'I', 0, 0, 0, 4];
/// A ParameterDescription without parameters.
pub const NO_PARAMETERS: &[u8] = &[b't', 0, 0, 0, 6, 0, 0];
pub const AUTHENTICATION_OK: &[u8] = &[b'R', 0, 0, 0, 8, 0, 0, 0, 0];

/// The type OID of `text`.
pub const TEXT_OID: u32 = 25;

/// The type OID of `bytea`.
pub const BYTEA_OID: u32 = 17;

/// `status` is `I`, `T` or `E`.
pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, status]);
}

pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    put_frame(out, b'C', |out| put_cstr(out, tag.as_bytes()));
}

pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    put_frame(out, b'S', |out| {
        put_cstr(out, name.as_bytes());
        put_cstr(out, value.as_bytes());
    });
}

pub fn error_response(out: &mut Vec<u8>, severity: &str, error: &ErrorInfo) {
    report(out, b'E', severity, error);
}

pub fn notice_response(out: &mut Vec<u8>, severity: &str, notice: &ErrorInfo) {
    report(out, b'N', severity, notice);
}

fn report(out: &mut Vec<u8>, tag: u8, severity: &str, error: &ErrorInfo) {
    put_frame(out, tag, |out| {
        let mut field = |code: u8, text: &str| {
            out.push(code);
            put_cstr(out, text.as_bytes());
        };
        field(b'S', severity);
        field(b'V', severity);
        field(b'C', &error.sqlstate);
        field(b'M', &error.message);
        if let Some(detail) = &error.detail {
            field(b'D', detail);
        }
        if let Some(hint) = &error.hint {
            field(b'H', hint);
        }
        if let Some(position) = error.position {
            field(b'P', &position.to_string());
        }
        if let Some(Routine::RevalidateCachedQuery) = error.routine {
            field(b'R', "RevalidateCachedQuery");
        }
        out.push(0);
    });
}

/// An ErrorResponse or NoticeResponse whose position is counted in a text of which the statement
/// is a part that begins after `by` characters; `None`: it is no part of it, and has no place there.
/// What a function of the catalog refuses is said without the place in its source, and what is wrong
/// with a value without the parameter that it was bound to: the client has not called the one and
/// not bound the other.
pub fn put_moved_report(out: &mut Vec<u8>, frame: &[u8], by: Option<u32>) {
    let body = &frame[HEADER.min(frame.len())..];
    let position = report_field(body, b'P').and_then(|text| text.parse::<u32>().ok());
    let position = position.filter(|_| by != Some(0));
    let begins = |text: &str| report_field(body, b'W').is_some_and(|at| at.starts_with(text));
    let ours = begins("PL/pgSQL function pgherd.");
    let bound = by.is_none() && begins("unnamed portal parameter");
    if position.is_none() && !ours && !bound {
        out.extend_from_slice(frame);
        return;
    }
    put_frame(out, frame[0], |out| {
        let mut reader = Reader::new(body);
        while let Ok(code) = reader.u8() {
            let Ok(text) = (if code == 0 { break } else { reader.cstr() }) else { break };
            match (code, position) {
                (b'W' | b'F' | b'L' | b'R', _) if ours => {}
                (b'W', _) if bound => {}
                (b'P', Some(position)) => {
                    if let Some(by) = by {
                        out.push(code);
                        put_cstr(out, position.saturating_add(by).to_string().as_bytes());
                    }
                }
                _ => {
                    out.push(code);
                    put_cstr(out, text);
                }
            }
        }
        out.push(0);
    });
}

/// A RowDescription of `text` columns that belong to no table.
pub fn text_columns(out: &mut Vec<u8>, names: &[&str]) {
    let columns: Vec<(&str, u32)> = names.iter().map(|name| (*name, TEXT_OID)).collect();
    own_columns(out, &columns);
}

/// A RowDescription of columns that belong to no table: names, and types of any length.
pub fn own_columns(out: &mut Vec<u8>, columns: &[(&str, u32)]) {
    put_frame(out, b'T', |out| {
        out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for (name, oid) in columns {
            put_cstr(out, name.as_bytes());
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&oid.to_be_bytes());
            out.extend_from_slice(&(-1i16).to_be_bytes());
            out.extend_from_slice(&(-1i32).to_be_bytes());
            out.extend_from_slice(&[0; 2]);
        }
    });
}

pub fn data_row(out: &mut Vec<u8>, values: &[Option<&[u8]>]) {
    put_frame(out, b'D', |out| {
        out.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            match value {
                Some(value) => {
                    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
                    out.extend_from_slice(value);
                }
                None => out.extend_from_slice(&(-1i32).to_be_bytes()),
            }
        }
    });
}

/// One column of a RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDescription {
    pub type_oid: u32,
    pub binary: bool,
}

/// Types and formats of a whole RowDescription frame.
pub fn columns(frame: &[u8]) -> Result<Vec<ColumnDescription>, Malformed> {
    let mut reader = Reader::new(&frame[HEADER.min(frame.len())..]);
    let count = reader.count()?;
    (0..count)
        .map(|_| {
            reader.cstr()?;
            reader.bytes(6)?;
            let type_oid = reader.i32()? as u32;
            reader.bytes(6)?;
            Ok(ColumnDescription { type_oid, binary: reader.i16()? == 1 })
        })
        .collect()
}

/// What a RowDescription says of a column beside its format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// The table and its column that it is, or zeros.
    pub table: u32,
    pub column: i16,
    pub oid: u32,
    pub modifier: i32,
}

/// The fields of a whole RowDescription frame.
pub fn fields(frame: &[u8]) -> Result<Vec<Field>, Malformed> {
    let mut reader = Reader::new(&frame[HEADER.min(frame.len())..]);
    let count = reader.count()?;
    (0..count)
        .map(|_| {
            let name = String::from_utf8_lossy(reader.cstr()?).into_owned();
            let (table, column) = (reader.i32()? as u32, reader.i16()?);
            let oid = reader.i32()? as u32;
            reader.i16()?;
            let modifier = reader.i32()?;
            reader.i16()?;
            Ok(Field { name, table, column, oid, modifier })
        })
        .collect()
}

/// What a client sees of a column, whatever table it is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColumnShape<'a> {
    pub name: &'a [u8],
    pub type_oid: i32,
    /// What the type has in parentheses.
    pub modifier: i32,
}

/// The columns of a whole RowDescription frame.
pub fn column_shapes(frame: &[u8]) -> Result<Vec<ColumnShape<'_>>, Malformed> {
    let mut reader = Reader::new(&frame[HEADER.min(frame.len())..]);
    let count = reader.count()?;
    (0..count)
        .map(|_| {
            let name = reader.cstr()?;
            reader.bytes(6)?;
            let type_oid = reader.i32()?;
            reader.bytes(2)?;
            let modifier = reader.i32()?;
            reader.bytes(2)?;
            Ok(ColumnShape { name, type_oid, modifier })
        })
        .collect()
}

/// Below this, numbers of types and tables are PostgreSQL's own (`FirstNormalObjectId`).
pub const FIRST_USER_OID: u32 = 16384;

/// What a number in a RowDescription stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Numbered {
    Type,
    Table,
}

/// Changes the numbers of types and tables in a whole RowDescription frame, as far as it is well
/// formed.
pub fn renumber_columns(frame: &mut [u8], mut number: impl FnMut(Numbered, u32) -> u32) {
    each_column(frame, |field| {
        for (what, at) in [(Numbered::Table, 0), (Numbered::Type, 6)] {
            if let Some(bytes) = field[at..].first_chunk_mut::<4>() {
                *bytes = number(what, u32::from_be_bytes(*bytes)).to_be_bytes();
            }
        }
    });
}

/// Says of each column in turn whether it is binary, in a whole RowDescription frame.
pub fn set_formats(frame: &mut [u8], binary: &[bool]) {
    let mut formats = binary.iter();
    each_column(frame, |field| {
        let binary = formats.next().copied().unwrap_or_default();
        field[16..].copy_from_slice(&[0, u8::from(binary)]);
    });
}

/// What is said of each column behind its name: table, column, type, length, modifier, format.
fn each_column(frame: &mut [u8], mut change: impl FnMut(&mut [u8; 18])) {
    let mut rest = frame.get_mut(HEADER + 2..).unwrap_or_default();
    while let Some(end) = memchr::memchr(0, rest) {
        let Some((field, after)) = rest[end + 1..].split_first_chunk_mut() else { return };
        change(field);
        rest = after;
    }
}

/// A RowDescription frame without its first `hidden` columns.
pub fn cut_first_columns(frame: &[u8], hidden: u16, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut reader = Reader::new(&frame[HEADER.min(frame.len())..]);
    let kept = reader.count()?.saturating_sub(usize::from(hidden));
    for _ in 0..hidden {
        reader.cstr()?;
        reader.bytes(18)?;
    }
    put_frame(out, b'T', |out| {
        out.extend_from_slice(&(kept as u16).to_be_bytes());
        out.extend_from_slice(reader.rest());
    });
    Ok(())
}

/// The values of a DataRow's body.
pub fn row_values(body: &[u8]) -> Result<Vec<Option<&[u8]>>, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.count()?;
    (0..count).map(|_| reader.value()).collect()
}

/// One field of an ErrorResponse or NoticeResponse body: `C` is the SQLSTATE, `M` the message.
pub fn report_field(body: &[u8], wanted: u8) -> Option<&str> {
    let mut reader = Reader::new(body);
    loop {
        match reader.u8().ok()? {
            0 => return None,
            code => {
                let text = reader.cstr().ok()?;
                if code == wanted {
                    return std::str::from_utf8(text).ok();
                }
            }
        }
    }
}

/// The SQLSTATE of a whole ErrorResponse; `XX000` if it has none.
#[must_use]
pub fn sqlstate(frame: &[u8]) -> [u8; 5] {
    let body = &frame[HEADER.min(frame.len())..];
    report_field(body, b'C').and_then(|code| code.as_bytes().try_into().ok()).unwrap_or(*b"XX000")
}

/// The number at the end of a command tag: `UPDATE 3`, `INSERT 0 3`.
pub fn tag_count(tag: &str) -> Option<u64> {
    tag.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(fields: &[(u8, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        put_frame(&mut out, b'E', |out| {
            for (code, text) in fields {
                out.push(*code);
                put_cstr(out, text.as_bytes());
            }
            out.push(0);
        });
        out
    }

    #[test]
    fn the_place_in_our_own_functions_is_left_out() {
        let said = [(b'S', "ERROR"), (b'C', "0A000"), (b'M', "no"), (b'H', "do")];
        let place = [(b'F', "pl_exec.c"), (b'L', "3907"), (b'R', "exec_stmt_raise")];
        let of = |function: &str| {
            let context = format!("PL/pgSQL function {function}(text) line 7 at RAISE");
            report(&[&said[..], &[(b'W', &context)], &place[..]].concat())
        };
        let told = |frame: &[u8]| {
            let mut out = Vec::new();
            put_moved_report(&mut out, frame, Some(0));
            out
        };
        assert_eq!(told(&of("pgherd.check_unique")), report(&said));
        let theirs = of("app.check");
        assert_eq!(told(&theirs), theirs);
    }
}
