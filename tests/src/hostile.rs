//! What must hold for any bytes: the decoders end in an answer or an error, and whoever follows a
//! stream of messages is never led out of step. Property tests feed these functions in every run of
//! the tests; the fuzzer of `tests/fuzz` feeds them for as long as it is let.

use pgherd::wire::reply::{Expect, ReplyScanner, Step};
use pgherd::wire::{self, HEADER, backend, encoding, frontend, startup};
use pgherd_planner::{Context, Scan};
use pgherd_shard_map::{Epoch, Shard, ShardId, ShardMap};

/// What a client may send: a first packet, then messages.
///
/// # Panics
/// A decoder accepts what it cannot have read.
pub fn client(bytes: &[u8]) {
    if let Ok(Some((_, size))) = startup::packet(bytes) {
        assert!(size <= bytes.len() && size <= startup::STARTUP_MAX);
    }
    let mut rest = bytes;
    while let Ok(Some((tag, size))) = wire::whole(rest) {
        assert!(size <= rest.len() && size >= HEADER);
        client_message(tag, &rest[HEADER..size]);
        rest = &rest[size..];
    }
}

/// What a server gets is what a client of another encoding has sent.
fn other_encodings(tag: u8, body: &[u8]) {
    let framed = |body: &[u8]| {
        let mut out = Vec::new();
        wire::put_frame(&mut out, tag, |out| out.extend_from_slice(body));
        out
    };
    for encoding in encoding::all() {
        if let Ok(decoded) = encoding.decode_message(tag, body) {
            let sent = framed(&decoded);
            let encoded = encoding.encode_messages(&sent).expect("it was decoded");
            assert_eq!(*encoded, *framed(body), "{}", encoding.name);
        }
    }
}

fn client_message(tag: u8, body: &[u8]) {
    other_encodings(tag, body);
    match tag {
        b'Q' => {
            if let Ok(sql) = frontend::query(body) {
                let mut again = Vec::new();
                frontend::put_query(&mut again, sql);
                assert_eq!(&again[HEADER..], body);
            }
        }
        b'P' => {
            if let Ok(parse) = frontend::parse(body) {
                let mut again = Vec::new();
                frontend::put_parse(&mut again, parse.name, parse.query, parse.types);
                assert_eq!(&again[HEADER..], body);
            }
        }
        b'B' => {
            if let Ok(bind) = frontend::bind(body) {
                let tail = frontend::BindTail::new(bind.tail).expect("it was checked");
                for number in 0..=tail.count() as u16 {
                    assert_eq!(tail.value(number).is_some(), number > 0);
                }
                assert_eq!(tail.value(tail.count() as u16 + 1), None);
                let mut again = Vec::new();
                let (parameters, results) = (tail.parameters, tail.results);
                frontend::put_bind(&mut again, bind.portal, bind.statement, parameters, results);
                assert_eq!(&again[HEADER..], body);
            }
        }
        b'E' => _ = frontend::execute(body),
        b'D' => _ = frontend::named("DESCRIBE", body),
        b'C' => _ = frontend::named("CLOSE", body),
        _ => _ = frontend::empty(body),
    }
}

/// What a server may send: the fields of its messages.
pub fn server_messages(bytes: &[u8]) {
    drop(backend::columns(bytes));
    drop(backend::row_values(bytes));
    for code in *b"CMDHPW" {
        let _ = backend::report_field(bytes, code);
    }
    let mut out = Vec::new();
    let _ = backend::cut_first_columns(bytes, 1, &mut out);
    out.clear();
    if !bytes.is_empty() {
        backend::put_moved_report(&mut out, bytes, Some(7));
        backend::put_moved_report(&mut out, bytes, None);
        let _ = backend::sqlstate(&out);
    }
}

/// A server's bytes are passed on alike however they are cut: once all at once, once in pieces of
/// the sizes `cuts`. `hidden` replies come first; messages are answered as `expects` says.
///
/// # Panics
/// The two differ.
pub fn reply(bytes: &[u8], cuts: &[u8], hidden: u32, expects: &[Expect]) {
    let scanner = || {
        let mut scanner = ReplyScanner::default();
        scanner.hidden = hidden;
        scanner.foreign = bytes.len() % 2 == 1;
        scanner.expects.extend(expects);
        scanner
    };
    let whole = follow(scanner(), bytes, &[]);
    let pieces = follow(scanner(), bytes, cuts);
    assert_eq!(pieces, whole);
}

/// The bytes that the client gets, and whether the server was found to break the protocol.
fn follow(mut scanner: ReplyScanner, bytes: &[u8], cuts: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let whole = cuts.is_empty();
    let mut cuts = cuts.iter().cycle();
    let (mut at, mut arrived) = (0, if whole { bytes.len() } else { 0 });
    loop {
        let (size, passed) = match scanner.step(&bytes[at..arrived]) {
            Err(_) => return (out, true),
            Ok(Step::More) if arrived == bytes.len() => return (out, false),
            Ok(Step::More) => {
                let more = cuts.next().map_or(1, |cut| usize::from(*cut).max(1));
                arrived = bytes.len().min(arrived + more);
                continue;
            }
            Ok(Step::Insert(message)) => {
                out.extend_from_slice(message);
                continue;
            }
            Ok(Step::Pass(size) | Step::Parameter(size) | Step::Error(size) | Step::News(size)) => {
                (size, true)
            }
            Ok(Step::CopyIn(size) | Step::Columns(size) | Step::Ready { size, .. }) => (size, true),
            Ok(Step::Drop(size) | Step::HiddenParameter(size) | Step::HiddenError(size)) => {
                (size, false)
            }
            Ok(Step::HiddenReady { size, .. } | Step::HiddenColumns(size)) => (size, false),
        };
        assert!(size > 0 && at + size <= arrived, "{size} of {} bytes", arrived - at);
        if passed {
            out.extend_from_slice(&bytes[at..at + size]);
        }
        at += size;
    }
}

/// SQL is cut into statements that together are the text, and each has a plan or an error.
///
/// # Panics
/// A statement is lost, or a literal stands outside of it.
pub fn sql(text: &str) {
    let shard = Shard { id: ShardId(0), dsn: "postgres://localhost/app".into() };
    let map = ShardMap::try_new(Epoch::FIRST, ShardId(0), true, vec![shard], vec![], vec![]);
    let map = map.expect("one shard");
    let context = Context {
        map: &map,
        search_path: &["public".into()],
        temporary: &[],
        scatter: true,
        pinned: None,
        auto_distribute: &[],
        copies: &[],
    };
    let mut scanned = Scan::default();
    let mut at = 0;
    while at < text.len() {
        let next = pgherd_planner::scan(text.as_bytes(), at, 0, &mut scanned);
        assert!(next > at && next <= text.len());
        let statement = text.get(at..next).expect("cut between characters");
        for literal in &scanned.literals {
            let literal = statement.get(literal.start as usize..literal.end as usize);
            assert!(literal.is_some_and(|text| !text.is_empty()));
        }
        drop(pgherd_planner::plan(statement, &context));
        at = next;
    }
}

/// One input of the fuzzer for the target of this name.
///
/// # Panics
/// What must hold does not, or there is no such target.
pub fn fuzzed(target: &str, bytes: &[u8]) {
    match target {
        "client" => client(bytes),
        "server" => {
            server_messages(bytes);
            // The first bytes say how the rest is cut and what is expected of it.
            if let Some(([hidden, cut, asked], rest)) = bytes.split_first_chunk() {
                let kinds = [
                    Expect::Parse,
                    Expect::HiddenParse,
                    Expect::HiddenBind,
                    Expect::KnownParse,
                    Expect::Execute,
                    Expect::KnownClose,
                ];
                let expects: Vec<Expect> =
                    (0..6).filter(|bit| asked >> bit & 1 == 1).map(|bit| kinds[bit]).collect();
                reply(rest, &[*cut], u32::from(hidden % 4), &expects);
            }
        }
        "sql" => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                sql(text);
            }
        }
        other => panic!("no target is called {other}"),
    }
}
