//! Following a reply to its end without keeping it: bytes in, "complete" out.

/// Of an ErrorResponse no more is kept.
const ERROR_LIMIT: usize = 16 * 1024;

/// Where in the stream of messages we are. Messages may be cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Replies {
    header: [u8; 5],
    /// Bytes of the header that have arrived.
    have: usize,
    /// Bytes of the body still to come.
    body: usize,
    error: Option<Vec<u8>>,
    /// CopyInResponse has come.
    copy: bool,
}

impl Replies {
    /// Whether the last message in `bytes` is complete and a ReadyForQuery.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut ready = false;
        while !bytes.is_empty() {
            if self.have < self.header.len() {
                let taken = bytes.len().min(self.header.len() - self.have);
                self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
                self.have += taken;
                bytes = &bytes[taken..];
                if self.have < self.header.len() {
                    return false;
                }
                self.begin_body();
            }
            let taken = bytes.len().min(self.body);
            self.keep_error(&bytes[..taken]);
            self.body -= taken;
            bytes = &bytes[taken..];
            if self.body > 0 {
                return false;
            }
            self.have = 0;
            ready = self.header[0] == b'Z';
        }
        ready
    }

    fn begin_body(&mut self) {
        let [tag, length @ ..] = self.header;
        // The length counts itself; a smaller one is a server's mistake, read as an empty body.
        self.body = usize::try_from(u32::from_be_bytes(length)).unwrap_or(0).saturating_sub(4);
        self.copy |= tag == b'G';
        if tag == b'E' {
            self.error = Some(Vec::new());
        }
    }

    fn keep_error(&mut self, part: &[u8]) {
        if self.header[0] != b'E' {
            return;
        }
        if let Some(kept) = &mut self.error {
            let room = ERROR_LIMIT.saturating_sub(kept.len());
            kept.extend_from_slice(&part[..part.len().min(room)]);
        }
    }

    /// Whether the server has asked for COPY's data since this was asked.
    pub(super) fn take_copy(&mut self) -> bool {
        std::mem::take(&mut self.copy)
    }

    /// The last error's text, once, and only when `ended`: before that it may be cut.
    pub(super) fn take_error_if(&mut self, ended: bool) -> Option<String> {
        if !ended {
            return None;
        }
        self.error.take().map(|fields| error_text(&fields))
    }
}

/// Severity-free text of an ErrorResponse's fields: `message (SQLSTATE)`.
pub(super) fn error_text(fields: &[u8]) -> String {
    let field = |code: u8| {
        fields
            .split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&code))
            .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    };
    let message = field(b'M').unwrap_or_else(|| "an error without a message".to_owned());
    match field(b'C') {
        Some(code) => format!("{message} ({code})"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("a short body");
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn a_reply_is_complete_at_ready_for_query_wherever_it_is_cut() {
        let reply =
            [message(b'D', &[7; 300]), message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
        for cut in 1..reply.len() {
            let mut replies = Replies::default();
            assert!(!replies.feed(&reply[..cut]), "cut at {cut}");
            assert!(replies.feed(&reply[cut..]), "cut at {cut}");
        }
    }

    #[test]
    fn a_z_within_a_row_completes_nothing() {
        let mut replies = Replies::default();
        assert!(!replies.feed(&message(b'D', b"Z\0\0\0\x05I")));
    }

    #[test]
    fn an_error_is_kept_wherever_it_is_cut() {
        let reply = [
            message(b'E', b"SERROR\0C42P01\0Mrelation \"x\" does not exist\0\0"),
            message(b'Z', b"I"),
        ]
        .concat();
        for cut in 1..reply.len() {
            let mut replies = Replies::default();
            replies.feed(&reply[..cut]);
            assert!(replies.feed(&reply[cut..]));
            let error = replies.take_error_if(true);
            assert_eq!(error.as_deref(), Some("relation \"x\" does not exist (42P01)"));
            assert_eq!(replies.take_error_if(true), None);
        }
    }

    #[test]
    fn a_huge_error_is_cut() {
        let mut replies = Replies::default();
        replies.feed(&message(b'E', &[b'x'; ERROR_LIMIT * 2]));
        assert!(replies.error.is_some_and(|kept| kept.len() == ERROR_LIMIT));
    }
}
