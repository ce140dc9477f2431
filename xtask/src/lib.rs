//! The parts of the project's chores that more than one program, or a test, uses.

#![forbid(unsafe_code)]

pub mod bank_trace;
