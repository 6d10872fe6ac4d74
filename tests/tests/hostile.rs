//! Decoders and scanners hold against any bytes: made up here, and those that fuzzing has kept.

use std::path::Path;

use pgherd::wire::reply::Expect;
use pgherd::wire::{frontend, put_frame};
use pgherd_tests::hostile;
use proptest::collection::vec;
use proptest::prelude::*;

/// Messages with a proper length and any content.
fn frames(tags: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let frame = (prop::sample::select(tags), vec(any::<u8>(), 0..40));
    vec(frame, 0..12).prop_map(|frames| {
        let mut out = Vec::new();
        for (tag, body) in frames {
            put_frame(&mut out, tag, |out| out.extend_from_slice(&body));
        }
        out
    })
}

fn expects() -> impl Strategy<Value = Vec<Expect>> {
    let expect = prop::sample::select(vec![
        Expect::Parse,
        Expect::HiddenParse,
        Expect::HiddenBind,
        Expect::KnownParse,
        Expect::Bind,
        Expect::Describe,
        Expect::Execute,
        Expect::KnownClose,
        Expect::Close,
    ]);
    vec(expect, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_of_a_client(bytes in vec(any::<u8>(), 0..300)) {
        hostile::client(&bytes);
    }

    #[test]
    fn messages_of_a_client_with_any_content(bytes in frames(b"QPBDECHSdcfFXp")) {
        hostile::client(&bytes);
    }

    #[test]
    fn a_bind_with_any_values(
        values in vec(prop::option::of(vec(any::<u8>(), 0..20)), 0..20),
        formats in vec(0_u8..2, 0..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut tail = (formats.len() as u16).to_be_bytes().to_vec();
        formats.iter().for_each(|format| tail.extend_from_slice(&[0, *format]));
        tail.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in &values {
            let length = value.as_ref().map_or(-1, |value| value.len() as i32);
            tail.extend_from_slice(&length.to_be_bytes());
            tail.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        let mut frame = Vec::new();
        frontend::put_bind(&mut frame, b"p", b"s", &tail, &[0, 0]);
        hostile::client(&frame);
        let fits = formats.len() < 2 || formats.len() == values.len();
        let bind = frontend::bind(&frame[5..]);
        prop_assert_eq!(bind.is_ok(), fits);
        if fits {
            let read = frontend::BindTail::new(bind.expect("it fits").tail).expect("it fits");
            for (number, value) in (1..).zip(&values) {
                let bytes = read.value(number).expect("it is there").0;
                prop_assert_eq!(bytes, value.as_deref());
            }
        }
        let cut = 5 + cut.index(frame.len() - 5);
        prop_assert!(frontend::bind(&frame[5..cut]).is_err());
    }

    #[test]
    fn any_fields_of_a_server(bytes in vec(any::<u8>(), 0..200)) {
        hostile::server_messages(&bytes);
    }

    #[test]
    fn a_reply_of_any_messages_in_any_pieces(
        bytes in frames(b"123TtDCInsZESANGHdcVRK"),
        cuts in vec(any::<u8>(), 1..6),
        hidden in 0_u32..3,
        expects in expects(),
    ) {
        hostile::reply(&bytes, &cuts, hidden, &expects);
    }

    #[test]
    fn a_reply_of_any_bytes_in_any_pieces(
        bytes in vec(any::<u8>(), 0..200),
        cuts in vec(any::<u8>(), 1..6),
        hidden in 0_u32..3,
    ) {
        hostile::reply(&bytes, &cuts, hidden, &[]);
    }

    #[test]
    fn any_text_as_sql(text in any::<String>()) {
        hostile::sql(&text);
    }

    #[test]
    fn text_that_looks_like_sql(
        text in "(select|insert|into|values|begin|end|create|function|'|\"|\\$\\$|\\$a\\$|e'|--|/\\*|\\*/|;|\\(|\\)|\\\\|ä|[ \na-c0-9=,.:$]){0,40}"
    ) {
        hostile::sql(&text);
    }
}

#[test]
fn what_fuzzing_has_kept() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut count = 0;
    for target in std::fs::read_dir(&corpus).expect("a corpus") {
        let target = target.expect("a directory").path();
        let name = target.file_name().expect("a name").to_string_lossy().into_owned();
        for input in std::fs::read_dir(&target).expect("inputs") {
            let bytes = std::fs::read(input.expect("a file").path()).expect("bytes");
            hostile::fuzzed(&name, &bytes);
            count += 1;
        }
    }
    assert!(count > 20, "{count} inputs");
}
