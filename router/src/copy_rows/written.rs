//! Rows as COPY … TO writes them: from DataRow messages in text or, for the binary format, in binary.

use pgherd_planner::{CopyFormat, Encoding};

use crate::error::ErrorInfo;
use crate::wire::{HEADER, Malformed, Reader, encoding, put_frame};

/// How COPY writes a row.
#[derive(Debug)]
pub struct RowWriter<'a> {
    format: &'a CopyFormat,
    /// Columns whose values are always quoted.
    quoted: Vec<bool>,
    /// Of single bytes; `None` is UTF-8.
    single: Option<&'static encoding::Encoding>,
}

impl<'a> RowWriter<'a> {
    /// The encoding is UTF-8, or one of single bytes.
    #[must_use]
    pub fn new(format: &'a CopyFormat, encoding: Encoding, quoted: Vec<bool>) -> Self {
        Self { format, quoted, single: encoding::of(encoding) }
    }

    /// Appends the CopyData message of a DataRow's body.
    ///
    /// # Errors
    /// The body is none, or has a character that cannot be written.
    pub fn put(&self, row: &[u8], out: &mut Vec<u8>) -> Result<(), ErrorInfo> {
        let malformed = || ErrorInfo::new("XX000", "a shard sent a row of another shape");
        let start = out.len();
        self.put_utf8(row, out).map_err(|_| malformed())?;
        let Some(single) = self.single else { return Ok(()) };
        let frame = out.split_off(start);
        let text = std::str::from_utf8(&frame[HEADER..]).map_err(|_| malformed())?;
        let encoded = single.encode(text)?;
        put_frame(out, b'd', |out| out.extend_from_slice(&encoded));
        Ok(())
    }

    fn put_utf8(&self, row: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut result = Ok(());
        put_frame(out, b'd', |out| match self.format {
            // A row has the same form there.
            CopyFormat::Binary => out.extend_from_slice(row),
            CopyFormat::Text { delimiter, null, .. } => {
                result = each_value(row, *delimiter, out, |_, value, out| match value {
                    None => out.extend_from_slice(null),
                    Some(value) => put_text(value, *delimiter, out),
                });
            }
            CopyFormat::Csv { delimiter, quote, escape, null, .. } => {
                let alone = self.quoted.len() == 1;
                result = each_value(row, *delimiter, out, |column, value, out| {
                    let Some(value) = value else { return out.extend_from_slice(null) };
                    let special = |byte: &u8| [*delimiter, *quote, b'\n', b'\r'].contains(byte);
                    let quoted = self.quoted.get(column).is_some_and(|quoted| *quoted)
                        || *value == **null
                        || alone && value == b"\\."
                        || value.iter().any(special);
                    if !quoted {
                        return out.extend_from_slice(value);
                    }
                    out.push(*quote);
                    for byte in value {
                        if byte == quote || byte == escape {
                            out.push(*escape);
                        }
                        out.push(*byte);
                    }
                    out.push(*quote);
                });
            }
        });
        result
    }
}

fn each_value(
    row: &[u8],
    delimiter: u8,
    out: &mut Vec<u8>,
    put: impl Fn(usize, Option<&[u8]>, &mut Vec<u8>),
) -> Result<(), Malformed> {
    let mut reader = Reader::new(row);
    for column in 0..reader.count()? {
        if column > 0 {
            out.push(delimiter);
        }
        put(column, reader.value()?, out);
    }
    out.push(b'\n');
    reader.end()
}

fn put_text(value: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    for byte in value {
        let escaped = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b'\\' => b'\\',
            byte if *byte == delimiter => *byte,
            byte => {
                out.push(*byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', escaped]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: &CopyFormat, quoted: &[bool], values: &[Option<&str>]) -> String {
        let mut row = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            row.extend_from_slice(&value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            row.extend_from_slice(value.unwrap_or_default().as_bytes());
        }
        let mut out = Vec::new();
        RowWriter::new(format, Encoding::UTF8, quoted.to_vec()).put(&row, &mut out).expect("a row");
        String::from_utf8(out.split_off(5)).expect("text")
    }

    #[test]
    fn text_escapes_what_it_must() {
        let format = CopyFormat::Text { delimiter: b'|', null: (*b"\\N").into(), header: false };
        let row = written(&format, &[], &[Some("a|b\\c\n"), None, Some("")]);
        assert_eq!(row, "a\\|b\\\\c\\n|\\N|\n");
    }

    #[test]
    fn csv_quotes_what_it_must() {
        let format = CopyFormat::Csv {
            delimiter: b',',
            quote: b'"',
            escape: b'"',
            null: Box::default(),
            header: false,
            force_not_null_key: false,
            force_null_key: false,
        };
        let row = written(&format, &[false; 4], &[Some("a,\"b\""), None, Some(""), Some("x")]);
        assert_eq!(row, "\"a,\"\"b\"\"\",,\"\",x\n");
        assert_eq!(written(&format, &[true], &[Some("x")]), "\"x\"\n");
        assert_eq!(written(&format, &[false], &[Some("\\.")]), "\"\\.\"\n");
        assert_eq!(written(&format, &[false; 2], &[Some("\\."), None]), "\\.,\n");
    }
}
