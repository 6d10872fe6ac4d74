//! SQL text: cut into statements, scanned, planned.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pgherd_tests::hostile::fuzzed("sql", bytes));
