//! What may stand in a segment as an entry.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paymesh_fuzz::entry_codec(bytes));
