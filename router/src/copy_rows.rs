//! Splits the data of COPY FROM STDIN into rows and finds each row's key, without changing a byte.
//!
//! Text format only: a row ends at a newline that no backslash precedes, fields at the delimiter.
//! Data arrives in pieces cut anywhere; a row that is not whole yet is kept until the rest comes.

use std::borrow::Cow;

use pgherd_planner::CopyFormat;

/// The longest row that is buffered.
const ROW_MAX: usize = 256 << 20;

#[derive(Debug)]
pub struct CopySplitter {
    delimiter: u8,
    null: Box<[u8]>,
    key_field: usize,
    pending: Vec<u8>,
    line: u64,
    ended: bool,
}

/// Why the data cannot be split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitError {
    RowTooLong { line: u64 },
    MissingField { line: u64 },
}

impl CopySplitter {
    /// `None` for a format that is not split.
    #[must_use]
    pub fn new(format: &CopyFormat, key_field: u16) -> Option<Self> {
        match format {
            CopyFormat::Text { delimiter, null } => Some(Self {
                delimiter: *delimiter,
                null: null.clone(),
                key_field: key_field.into(),
                pending: Vec::new(),
                line: 0,
                ended: false,
            }),
            _ => None,
        }
    }

    /// The line that was read last, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Calls `row` with each whole row (its newline included) and its key; `None` is NULL.
    ///
    /// # Errors
    /// [`SplitError`], or what `row` answers.
    pub fn feed<E: From<SplitError>>(
        &mut self,
        data: &[u8],
        mut row: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.pending.is_empty() {
            let used = self.rows(data, &mut row)?;
            self.pending.extend_from_slice(&data[used..]);
        } else {
            let mut pending = std::mem::take(&mut self.pending);
            pending.extend_from_slice(data);
            let used = self.rows(&pending, &mut row)?;
            pending.drain(..used);
            self.pending = pending;
        }
        if self.pending.len() > ROW_MAX {
            return Err(SplitError::RowTooLong { line: self.line + 1 }.into());
        }
        Ok(())
    }

    /// The data has ended: what is left is the last row, without a newline.
    ///
    /// # Errors
    /// As [`Self::feed`].
    pub fn finish<E: From<SplitError>>(
        &mut self,
        mut row: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut last = std::mem::take(&mut self.pending);
        last.push(b'\n');
        self.rows(&last, &mut row).map(drop)
    }

    fn rows<E: From<SplitError>>(
        &mut self,
        data: &[u8],
        row: &mut impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut from = 0;
        let mut search = 0;
        while let Some(at) = memchr::memchr(b'\n', &data[search..]) {
            let end = search + at;
            search = end + 1;
            let slashes = data[from..end].iter().rev().take_while(|b| **b == b'\\').count();
            if slashes % 2 == 1 {
                continue;
            }
            let bytes = &data[from..=end];
            from = end + 1;
            let body = &bytes[..bytes.len() - 1];
            let body = body.strip_suffix(b"\r").unwrap_or(body);
            if self.ended || body == b"\\." {
                self.ended = true;
                continue;
            }
            self.line += 1;
            let field = self.field(body).ok_or(SplitError::MissingField { line: self.line })?;
            if *field == *self.null {
                row(bytes, None)?;
            } else {
                row(bytes, Some(&unescape(field)))?;
            }
        }
        Ok(from)
    }

    fn field<'a>(&self, row: &'a [u8]) -> Option<&'a [u8]> {
        let mut start = 0;
        let mut number = 0;
        let mut at = 0;
        while at <= row.len() {
            if at == row.len() || row[at] == self.delimiter {
                if number == self.key_field {
                    return Some(&row[start..at]);
                }
                number += 1;
                start = at + 1;
            } else if row[at] == b'\\' {
                at += 1;
            }
            at += 1;
        }
        None
    }
}

/// COPY's backslash escapes.
fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', field).is_none() {
        return Cow::Borrowed(field);
    }
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let Some((escaped, after)) = rest.split_first() else { break };
        rest = after;
        match escaped {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'0'..=b'7' => {
                let mut value = u32::from(escaped - b'0');
                let more = rest.iter().take(2).take_while(|d| matches!(d, b'0'..=b'7')).count();
                for digit in &rest[..more] {
                    value = value * 8 + u32::from(digit - b'0');
                }
                rest = &rest[more..];
                out.push(value as u8);
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                let more = rest.iter().take(2).take_while(|d| d.is_ascii_hexdigit()).count();
                let digits = std::str::from_utf8(&rest[..more]).unwrap_or("0");
                out.push(u8::from_str_radix(digits, 16).unwrap_or(0));
                rest = &rest[more..];
            }
            other => out.push(*other),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(data: &[u8], chunk: usize) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let format = CopyFormat::Text { delimiter: b'\t', null: (*b"\\N").into() };
        let mut splitter = CopySplitter::new(&format, 1).expect("text is split");
        let mut rows = Vec::new();
        let mut take = |row: &[u8], key: Option<&[u8]>| {
            rows.push((row.to_vec(), key.map(<[u8]>::to_vec)));
            Ok::<(), SplitError>(())
        };
        for piece in data.chunks(chunk) {
            splitter.feed(piece, &mut take).expect("well formed");
        }
        splitter.finish(&mut take).expect("well formed");
        rows
    }

    #[test]
    fn rows_are_the_same_however_the_data_is_cut() {
        let data = b"a\t1\tx\nb\\\nc\t2\\t\ty\nd\t\\N\tz\ne\t\\x41\\101\t\r\n\\.\n";
        let whole = split(data, data.len());
        let keys: Vec<_> = whole.iter().map(|(_, key)| key.clone()).collect();
        assert_eq!(keys, [Some(b"1".to_vec()), Some(b"2\t".to_vec()), None, Some(b"AA".to_vec())]);
        assert_eq!(whole.iter().map(|(row, _)| row.len()).sum::<usize>(), data.len() - 3);
        for chunk in 1..data.len() {
            assert_eq!(split(data, chunk), whole, "in chunks of {chunk}");
        }
    }

    #[test]
    fn a_row_without_the_key_is_an_error() {
        let format = CopyFormat::Text { delimiter: b'\t', null: (*b"\\N").into() };
        let mut splitter = CopySplitter::new(&format, 1).expect("text is split");
        let result = splitter.feed(b"1\t2\nonly\n", |_, _| Ok::<(), SplitError>(()));
        assert_eq!(result, Err(SplitError::MissingField { line: 2 }));
    }
}
