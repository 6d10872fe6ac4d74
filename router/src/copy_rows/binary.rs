//! The binary format: a header, rows of counted fields with their lengths, a trailer.

use super::{Found, Key, Kind, Scan};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Signature, flags, length of the header's extension.
const HEAD: usize = 19;

#[derive(Debug)]
pub(super) struct Binary {
    columns: u16,
    headed: bool,
    ended: bool,
    /// Fields of the row at hand that have been passed over.
    fields: u16,
}

impl Binary {
    pub(super) fn new(columns: u16) -> Self {
        Self { columns, headed: false, ended: false, fields: 0 }
    }

    /// The end of the part at the start of `data`, which is not empty. `at` is where its next
    /// field starts, even beyond what has arrived.
    pub(super) fn scan(&mut self, data: &[u8], at: usize, eof: bool) -> Scan {
        if self.ended {
            // PostgreSQL refuses whatever follows the trailer: one byte is enough.
            return Scan::Found(Found { last: true, ..part(Kind::Broken, 1) });
        }
        let scan = if self.headed { self.row(data, at) } else { self.head(data) };
        match scan {
            // Cut short: PostgreSQL says so.
            Scan::More(_) if eof => Scan::Found(part(Kind::Broken, data.len())),
            scan => scan,
        }
    }

    fn head(&mut self, data: &[u8]) -> Scan {
        let Some(head) = data.get(..HEAD) else { return Scan::More(0) };
        let extension = usize::try_from(i32_at(head, 15));
        let (true, 0, Ok(extension)) =
            (head.starts_with(SIGNATURE), i32_at(head, 11) >> 16, extension)
        else {
            return Scan::Found(part(Kind::Broken, HEAD));
        };
        if data.len() < HEAD + extension {
            return Scan::More(0);
        }
        self.headed = true;
        Scan::Found(Found { height: 0, ..part(Kind::Head, HEAD + extension) })
    }

    fn row(&mut self, data: &[u8], mut at: usize) -> Scan {
        if at == 0 {
            let [high, low, ..] = *data else { return Scan::More(0) };
            match u16::from_be_bytes([high, low]) {
                u16::MAX => {
                    self.ended = true;
                    return Scan::Found(Found { height: 0, ..part(Kind::Tail, 2) });
                }
                count if count != self.columns => return Scan::Found(part(Kind::Broken, 2)),
                _ => {}
            }
            self.fields = 0;
            at = 2;
        }
        while self.fields < self.columns {
            if data.len() < at + 4 {
                return Scan::More(at);
            }
            let length = i32_at(data, at);
            if length < -1 {
                return Scan::Found(part(Kind::Broken, at + 4));
            }
            at += 4 + usize::try_from(length).unwrap_or(0);
            self.fields += 1;
        }
        if data.len() < at { Scan::More(at) } else { Scan::Found(part(Kind::Row, at)) }
    }
}

fn part(kind: Kind, size: usize) -> Found {
    Found { kind, ..Found::row(size, size) }
}

fn i32_at(data: &[u8], at: usize) -> i32 {
    data[at..at + 4].iter().fold(0, |value, byte| value << 8 | i32::from(*byte))
}

/// The field with the number, from 0, of a whole row.
pub(super) fn field(row: &[u8], number: usize) -> Key<'_> {
    let mut at = 2;
    for left in (0..=number).rev() {
        if row.len() < at + 4 {
            return Key::Unreadable;
        }
        let length = usize::try_from(i32_at(row, at));
        at += 4;
        let size = length.unwrap_or(0);
        if left == 0 {
            return match (length, row.get(at..at + size)) {
                (Err(_), _) => Key::Null,
                (Ok(_), Some(value)) => Key::Binary(value),
                (Ok(_), None) => Key::Unreadable,
            };
        }
        at += size;
    }
    Key::Unreadable
}
