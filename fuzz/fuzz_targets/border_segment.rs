//! What a region of another zone may send as a segment.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paymesh_fuzz::border_segment(bytes));
