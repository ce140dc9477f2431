//! The parts of the project's chores that more than one program, or a test, uses.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks through its output")]

pub mod bank_trace;
#[cfg(feature = "play")]
pub mod mesh;
