//! The vault over its SQLite store and keys in files, in a temporary folder.

#![forbid(unsafe_code)]

mod bytes;
mod cards;
mod erasing;
mod killed;
mod rotating;
mod sealed;
mod service;
mod support;
mod together;
