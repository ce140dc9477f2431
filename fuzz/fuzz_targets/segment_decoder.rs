//! What a disk may hand back as a segment.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paymesh_fuzz::segment_decoder(bytes));
