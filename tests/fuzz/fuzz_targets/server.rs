//! What a server sends: fields, and replies in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pgherd_tests::hostile::fuzzed("server", bytes));
