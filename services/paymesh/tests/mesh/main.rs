//! Whole-process tests: the real binary, real sockets, real files, nothing replaced.
//!
//! Every test has a mesh of its own, with ports and storage of its own; nodes end with the test that started them.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "in a test, what cannot be had ends it")]

mod acquirers;
mod attacks;
mod audit;
mod authentication;
mod by_card;
mod callers;
mod canary;
mod cards;
mod certificates;
mod collector;
mod corruption;
mod crowd;
mod demo;
mod disk;
mod diverged;
mod edge;
mod forwarding;
mod fraud;
mod kill;
mod logs;
mod lost;
mod methods;
mod oceans;
mod reads;
mod refusals;
mod regions;
mod remains;
mod replicas;
mod retention;
mod stock;
mod strangers;
mod submit;
mod support;
mod tokens;
mod vault_alone;
