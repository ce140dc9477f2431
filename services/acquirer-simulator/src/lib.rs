//! A simulator of an acquirer, for development, tests and demonstrations. It stands for what is outside of the mesh: no money moves.
//!
//! Promises what a real one does, and can be held to it: the same reference is the same operation, done once; what was answered is there after the process was
//! killed; no capture above the authorization, no refund above the capture; what was voided is never authorized later. And it misbehaves on request: by the number of the
//! card ([`TEST_CARDS`]), or at random ([`Settings::fail_permille`]).
//!
//! JSON over HTTP/1.1:
//! - `POST /charges` authorizes; the same reference again answers the same, and with another body 409
//! - `POST /captures`, `POST /voids`, `POST /refunds` go by the charge's reference and one of their own
//! - `GET /charges?reference=R`: the charge with the reference, or none; `GET /charges?after=N&limit=M`: all of them, in pages
//! - `POST /challenges/ID` with `{"answer": "123456"}` is the cardholder's approval; any other answer is none
//! - `GET /health`
//!
//! Left to others: who may call. It listens where it is told to and believes everybody, so that is loopback.

#![forbid(unsafe_code)]

mod book;
mod cards;
mod log;
mod server;

pub use cards::{Behavior, CHALLENGE_ANSWER, TEST_CARDS, TestCard};
pub use log::Error;
pub use server::{Settings, serve};
