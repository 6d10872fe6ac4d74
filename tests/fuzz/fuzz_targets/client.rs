//! What a client sends: first packet and messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pgherd_tests::hostile::fuzzed("client", bytes));
