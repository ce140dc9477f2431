//! A token as a stranger might show it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paymesh_fuzz::jwt(bytes));
