//! Line ends as PostgreSQL sees them: `\n`, `\r\n` or `\r`, whichever the first line has, and then
//! no other. And the end-of-data marker `\.`, which must be followed by the same.

use super::Fault;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineEnd {
    #[default]
    Unknown,
    Newline,
    Return,
    ReturnNewline,
}

/// What a `\.` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// Nothing can be said before more bytes arrive.
    More,
    End,
    /// Something else follows than a line end.
    Corrupt,
    /// A newline follows where a carriage return was due.
    Early,
    /// Another line end follows than those before.
    Style,
}

impl LineEnd {
    /// Where the next line starts, given the carriage return or newline at `at`; `None` before the
    /// byte after it is known.
    pub(super) fn after(
        &mut self,
        data: &[u8],
        at: usize,
        eof: bool,
        csv: bool,
    ) -> Result<Option<usize>, Fault> {
        if data[at] == b'\n' {
            if matches!(self, Self::Return | Self::ReturnNewline) {
                return Err(Fault::Newline { csv });
            }
            *self = Self::Newline;
            return Ok(Some(at + 1));
        }
        match (&self, data.get(at + 1)) {
            (Self::Newline, _) => return Err(Fault::Return { csv }),
            (Self::Return, _) => {}
            (_, None) if !eof => return Ok(None),
            (_, Some(b'\n')) => {
                *self = Self::ReturnNewline;
                return Ok(Some(at + 2));
            }
            (Self::ReturnNewline, _) => return Err(Fault::Return { csv }),
            (Self::Unknown, _) => *self = Self::Return,
        }
        Ok(Some(at + 1))
    }

    /// What the bytes after a `\.` make of it.
    pub(super) fn marker(self, after: &[u8], eof: bool) -> Marker {
        let mut bytes = after.iter().copied();
        let mut next = || bytes.next().or_else(|| eof.then_some(0));
        if self == Self::ReturnNewline {
            match next() {
                None => return Marker::More,
                Some(b'\r') => {}
                Some(b'\n') => return Marker::Early,
                Some(_) => return Marker::Corrupt,
            }
        }
        match (next(), self) {
            (None, _) => Marker::More,
            (Some(b'\n'), Self::Return) => Marker::Style,
            (Some(b'\r'), Self::Newline | Self::ReturnNewline) => Marker::Style,
            (Some(b'\n' | b'\r'), _) => Marker::End,
            (Some(_), _) => Marker::Corrupt,
        }
    }
}
