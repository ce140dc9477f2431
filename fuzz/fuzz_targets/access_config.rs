//! access.yaml as an operator might write it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| paymesh_fuzz::access_config(bytes));
