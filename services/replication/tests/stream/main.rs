//! Streams between two nodes over loopback: what a follower gets, what it is refused, and leaders that lie.

#![forbid(unsafe_code)]

mod beginning;
mod following;
mod liars;
mod support;
mod witness;
