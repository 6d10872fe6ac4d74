//! What to do with the bytes that a server sends back: pass them on, drop them, or put a message
//! of our own between them.
//!
//! A [`ReplyScanner`] reads frame headers only. Rows pass through in pieces of any size, so memory
//! does not grow with a row. Small frames that carry a decision (ReadyForQuery, ErrorResponse,
//! ParameterStatus) are waited for whole.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{HEADER, Malformed, peek};

/// The largest frame that is waited for whole; errors and notices are far smaller.
const WHOLE_MAX: usize = 1 << 20;

/// The reply to one message of a pipeline, in order. Needed only where the router added a Parse
/// or answers one itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Parse,
    /// The router's own Parse: the client did not ask.
    HiddenParse,
    /// The router's own Bind: the client did not ask, or was answered already.
    HiddenBind,
    /// The server has the statement already and was not asked: answer in its place.
    KnownParse,
    Bind,
    Describe,
    /// The router's own Describe of a statement, whose columns it wants to know.
    HiddenDescribe,
    /// The router's own Describe: the client takes columns, but not the word that there are none.
    Columns,
    Execute,
    /// Close of a statement is answered by the router: the server keeps it for others.
    KnownClose,
    Close,
}

/// What to do with the first bytes of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing can be said before more bytes arrive.
    More,
    Pass(usize),
    Drop(usize),
    /// Send this, then go on with the same bytes.
    Insert(&'static [u8]),
    /// ReadyForQuery of the reply that the client waits for.
    Ready {
        size: usize,
        status: u8,
    },
    /// ReadyForQuery of a reply that the router asked for itself.
    HiddenReady {
        size: usize,
        status: u8,
    },
    /// ParameterStatus, to be passed on.
    Parameter(usize),
    /// ParameterStatus within a reply that the router asked for itself.
    HiddenParameter(usize),
    /// ErrorResponse, to be passed on.
    Error(usize),
    /// ErrorResponse within a reply that the router asked for itself.
    HiddenError(usize),
    /// NotificationResponse: for a client that listens.
    News(usize),
    /// RowDescription, to be passed on with the home shard's numbers.
    Columns(usize),
    /// RowDescription that the router asked for itself.
    HiddenColumns(usize),
    /// CopyInResponse: pass it on, then it is the client's turn.
    CopyIn(usize),
}

#[derive(Debug, Default)]
pub struct ReplyScanner {
    /// Replies, each up to its ReadyForQuery, that come first and are not for the client.
    pub hidden: u32,
    pub expects: VecDeque<Expect>,
    /// The server is not the home shard: RowDescriptions are waited for whole.
    pub foreign: bool,
    /// How many ParseComplete the server has sent since [`Self::reset`].
    pub parsed: usize,
    /// How many of the client's messages have been answered since then, as far as they are
    /// expected; the last answer may still be on its way.
    pub done: usize,
    /// What the router's own Describes were answered: RowDescriptions, or nothing.
    pub described: Vec<Bytes>,
    /// Bytes of the current frame still to come, and whether they are passed on.
    rest: usize,
    passing: bool,
}

impl ReplyScanner {
    pub fn reset(&mut self) {
        self.hidden = 0;
        self.expects.clear();
        self.parsed = 0;
        self.done = 0;
        self.described.clear();
        self.rest = 0;
    }

    /// Whether a frame has been passed on in part: the client's stream cannot be left here.
    #[must_use]
    pub fn in_frame(&self) -> bool {
        self.rest > 0 && self.passing
    }

    /// Whether the last frame has been taken to its end.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.rest == 0
    }

    /// What the start of `buf` is. Call again with what follows the bytes of the answer.
    ///
    /// # Errors
    /// [`Malformed`] when the server breaks the protocol: its connection must be closed.
    pub fn step(&mut self, buf: &[u8]) -> Result<Step, Malformed> {
        if self.rest > 0 {
            let size = self.rest.min(buf.len());
            if size == 0 {
                return Ok(Step::More);
            }
            self.rest -= size;
            return Ok(if self.passing { Step::Pass(size) } else { Step::Drop(size) });
        }
        if self.hidden == 0 {
            match self.expects.front() {
                Some(Expect::KnownParse) => {
                    self.expects.pop_front();
                    self.done += 1;
                    return Ok(Step::Insert(super::backend::PARSE_COMPLETE));
                }
                Some(Expect::KnownClose) => {
                    self.expects.pop_front();
                    self.done += 1;
                    return Ok(Step::Insert(super::backend::CLOSE_COMPLETE));
                }
                _ => {}
            }
        }
        let Some((tag, size)) = peek(buf)? else { return Ok(Step::More) };
        match tag {
            b'Z' | b'E' | b'S' | b'A' | b'G' => {
                if size > WHOLE_MAX {
                    return Err(Malformed::Rule("a status message of the server is too long"));
                }
                if buf.len() < size {
                    return Ok(Step::More);
                }
                self.status_frame(tag, size, buf)
            }
            b'W' => Err(Malformed::Rule("unexpected CopyBothResponse")),
            b'T' | b'n' if self.asks_for_columns() && size <= WHOLE_MAX => {
                if buf.len() < size {
                    return Ok(Step::More);
                }
                self.reply_frame(tag, size, size);
                Ok(Step::HiddenColumns(size))
            }
            b'T' if self.foreign && size <= WHOLE_MAX => {
                if buf.len() < size {
                    return Ok(Step::More);
                }
                Ok(match self.reply_frame(tag, size, size) {
                    Step::Pass(size) => Step::Columns(size),
                    step => step,
                })
            }
            _ => Ok(self.reply_frame(tag, size, buf.len())),
        }
    }

    /// Whether the next description is that of the router's own Describe.
    fn asks_for_columns(&self) -> bool {
        self.hidden == 0 && self.expects.front() == Some(&Expect::HiddenDescribe)
    }

    fn status_frame(&mut self, tag: u8, size: usize, buf: &[u8]) -> Result<Step, Malformed> {
        let hidden = self.hidden > 0;
        Ok(match tag {
            b'Z' => {
                let status = *buf[..size]
                    .get(HEADER)
                    .ok_or(Malformed::Rule("ReadyForQuery without a status"))?;
                if hidden {
                    self.hidden -= 1;
                    Step::HiddenReady { size, status }
                } else {
                    self.expects.clear();
                    Step::Ready { size, status }
                }
            }
            b'E' if hidden => Step::HiddenError(size),
            b'E' => {
                self.expects.clear();
                Step::Error(size)
            }
            b'A' => Step::News(size),
            // Hidden replies are nobody's news.
            b'S' if hidden => Step::HiddenParameter(size),
            b'S' => Step::Parameter(size),
            b'G' if hidden => return Err(Malformed::Rule("unexpected CopyInResponse")),
            b'G' => Step::CopyIn(size),
            _ => Step::Pass(size),
        })
    }

    fn reply_frame(&mut self, tag: u8, size: usize, arrived: usize) -> Step {
        self.passing = self.hidden == 0;
        if self.passing {
            if tag == b'1' {
                self.parsed += 1;
                self.passing = self.expects.front() != Some(&Expect::HiddenParse);
            }
            self.passing &= !matches!(
                (tag, self.expects.front()),
                (b'2', Some(Expect::HiddenBind))
                    | (b'n', Some(Expect::Columns))
                    | (b't' | b'T' | b'n', Some(Expect::HiddenDescribe))
            );
            if matches!(tag, b'1' | b'2' | b'3' | b'T' | b'n' | b'C' | b'I' | b's') {
                let answered = self.expects.pop_front();
                let own = matches!(
                    answered,
                    Some(Expect::HiddenParse | Expect::HiddenBind | Expect::HiddenDescribe)
                );
                self.done += usize::from(!own);
            }
        }
        let taken = size.min(arrived);
        self.rest = size - taken;
        if self.passing { Step::Pass(taken) } else { Step::Drop(taken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(scanner: &mut ReplyScanner, mut bytes: &[u8], chunk: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut have = 0;
        loop {
            match scanner.step(&bytes[..have.min(bytes.len())]).expect("well formed") {
                Step::More if have >= bytes.len() => return out,
                Step::More => have += chunk,
                Step::Insert(message) => out.extend_from_slice(message),
                Step::Pass(n)
                | Step::Parameter(n)
                | Step::Error(n)
                | Step::CopyIn(n)
                | Step::Columns(n)
                | Step::Ready { size: n, .. } => {
                    out.extend_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                    have -= n;
                }
                Step::Drop(n)
                | Step::HiddenColumns(n)
                | Step::News(n)
                | Step::HiddenParameter(n)
                | Step::HiddenError(n)
                | Step::HiddenReady { size: n, .. } => {
                    bytes = &bytes[n..];
                    have -= n;
                }
            }
        }
    }

    const READY: &[u8] = &[b'Z', 0, 0, 0, 5, b'I'];
    const ROW: &[u8] = &[b'D', 0, 0, 0, 10, 0, 1, 0, 0, 0, 0];

    #[test]
    fn hidden_replies_and_parses_are_dropped_and_known_ones_answered() {
        let mut bytes = b"C\0\0\0\x0aBEGIN\0".to_vec();
        bytes.extend_from_slice(&[b'Z', 0, 0, 0, 5, b'T']);
        for tag in [b'1', b'2'] {
            bytes.extend_from_slice(&[tag, 0, 0, 0, 4]);
        }
        bytes.extend_from_slice(ROW);
        bytes.extend_from_slice(READY);
        for chunk in 1..bytes.len() + 1 {
            let mut scanner = ReplyScanner { hidden: 1, ..ReplyScanner::default() };
            scanner.expects = [Expect::KnownParse, Expect::HiddenParse, Expect::Bind].into();
            let out = passed(&mut scanner, &bytes, chunk);
            let wanted = [&[b'1', 0, 0, 0, 4][..], &[b'2', 0, 0, 0, 4], ROW, READY].concat();
            assert_eq!(out, wanted, "in chunks of {chunk}");
            assert_eq!(scanner.parsed, 1);
        }
    }

    #[test]
    fn an_error_ends_what_was_expected() {
        let expects = [Expect::Parse, Expect::KnownParse].into();
        let mut scanner = ReplyScanner { expects, ..ReplyScanner::default() };
        assert_eq!(scanner.step(b"E\0\0\0\x05\0").expect("well formed"), Step::Error(6));
        assert!(scanner.expects.is_empty());
    }
}
