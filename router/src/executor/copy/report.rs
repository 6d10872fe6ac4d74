//! Error messages of a COPY: with the line that the client knows.

use bytes::Bytes;

use crate::error::ErrorInfo;
use crate::wire::{HEADER, Reader, backend, put_cstr, put_frame};

/// An ErrorResponse of the router's own with a CONTEXT.
pub(super) fn error_frame(error: &ErrorInfo, context: &str) -> Bytes {
    let mut frame = Vec::new();
    backend::error_response(&mut frame, "ERROR", error);
    let mut out = Vec::new();
    put_frame(&mut out, b'E', |out| {
        // Before the zero that ends the fields.
        out.extend_from_slice(&frame[HEADER..frame.len() - 1]);
        out.push(b'W');
        put_cstr(out, context.as_bytes());
        out.push(0);
    });
    out.into()
}

/// A shard's ErrorResponse, the line of its CONTEXT replaced by the client's, or left out where
/// that is not known. Gives the line, too.
pub(super) fn with_client_line(
    frame: Bytes,
    table: &str,
    client_line: impl Fn(u64) -> Option<u64>,
) -> (Option<u64>, Bytes) {
    let Some(context) = backend::report_field(&frame[HEADER..], b'W') else {
        return (None, frame);
    };
    let Some(place) = find_line(context, table) else { return (None, frame) };
    let line = client_line(place.line);
    let mut changed = context[..place.start].to_owned();
    if let Some(line) = line {
        changed.push_str(&format!(", line {line}"));
    }
    changed.push_str(&context[place.end..]);
    let mut out = Vec::with_capacity(frame.len() + 8);
    put_frame(&mut out, b'E', |out| {
        let mut reader = Reader::new(&frame[HEADER..]);
        while let Ok(code) = reader.u8() {
            let Ok(text) = (if code == 0 { break } else { reader.cstr() }) else { break };
            out.push(code);
            put_cstr(out, if code == b'W' { changed.as_bytes() } else { text });
        }
        out.push(0);
    });
    (line, out.into())
}

/// Where in a CONTEXT `, line 3` stands after `COPY table`.
struct Place {
    start: usize,
    end: usize,
    line: u64,
}

fn find_line(context: &str, table: &str) -> Option<Place> {
    // The outermost of the contexts comes last.
    let head = format!("COPY {table}, line ");
    let found = context
        .match_indices(&head)
        .filter(|(at, _)| *at == 0 || context.as_bytes()[at - 1] == b'\n')
        .last()?;
    let digits = found.0 + head.len();
    let count = context[digits..].bytes().take_while(u8::is_ascii_digit).count();
    let end = digits + count;
    let line = context[digits..end].parse().ok()?;
    Some(Place { start: found.0 + head.len() - ", line ".len(), end, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(context: &str, line: Option<u64>) -> (Option<u64>, String) {
        let frame = error_frame(&ErrorInfo::new("22P02", "bad"), context);
        let (line, frame) = with_client_line(frame, "t", |_| line);
        assert_eq!(backend::report_field(&frame[HEADER..], b'C'), Some("22P02"));
        assert_eq!(backend::report_field(&frame[HEADER..], b'M'), Some("bad"));
        let context = backend::report_field(&frame[HEADER..], b'W').expect("a context");
        (line, context.to_owned())
    }

    #[test]
    fn the_line_of_the_outermost_context_becomes_the_clients() {
        let (line, context) = rewritten("COPY t, line 3, column k: \"x\"", Some(70));
        assert_eq!((line, &*context), (Some(70), "COPY t, line 70, column k: \"x\""));
        let (_, context) = rewritten("COPY u, line 1\nCOPY t, line 12: \"x\"", Some(5));
        assert_eq!(context, "COPY u, line 1\nCOPY t, line 5: \"x\"");
    }

    #[test]
    fn a_line_that_is_not_known_is_not_named() {
        let (line, context) = rewritten("COPY t, line 3, column k: \"x\"", None);
        assert_eq!((line, &*context), (None, "COPY t, column k: \"x\""));
        assert_eq!(rewritten("somewhere else", Some(1)).1, "somewhere else");
    }
}
