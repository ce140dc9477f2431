//! Fraud detection of a zone, at one of its regions: how likely a payment is to be fraud, by what was seen before it.
//!
//! A request becomes domain types once, at the `door`; a [`Detector`] answers. What it knows of users, cards, devices and payees ([`memory`]) is read and
//! changed by one thread of its own, which makes the scores ([`score`]) apart from the threads that calls are served by; what was scored is recorded a moment later
//! ([`Store`]), and a start learns from these records again. What counts and how much is configuration (`paymesh_topology::Fraud`), looked at anew for each payment.
//! What goes wrong becomes the contract's words in one place (`error`). Why a score is made as it is: ADR 0019.
//!
//! Left to others: routing, deadlines, who may call, and the record of each call (`paymesh-mesh`); what is done where no score comes in time (the payment
//! processor). Nothing here trusts the routing: a user of another zone is refused.

#![forbid(unsafe_code)]

mod answer;
mod detector;
mod door;
mod error;
mod lately;
pub mod memory;
pub mod score;
mod service;
mod store;
pub mod windows;

pub use detector::{Clock, Detector, Parts, Tending, describe_metrics};
pub use error::Error;
pub use memory::device_hash;
pub use service::service;
pub use store::{Error as StoreError, Record, Store};
