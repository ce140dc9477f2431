//! What a caller may send: framing, keys, routing.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paymesh_fuzz::request_path(bytes));
