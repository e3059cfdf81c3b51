//! See `agentsecrets::fuzzing::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agentsecrets::fuzzing::run("decode", bytes));
