//! The outside of a card payment: whoever moves money between cards and banks for us.
//!
//! [`Acquirer`] is the port: authorize, capture, void, refund, look up. Its connectors ([`connector`]) speak HTTP; each answer is checked against what
//! was asked, and what goes wrong is a [`Failure`] that says one thing above all: whether it is certain that nothing was done. Retries and fall-back look at
//! nothing else. The number of a card goes into one call, [`Acquirer::authorize`], and into no error, log or answer.
//!
//! Around the port: [`Breaker`] and [`Budget`] are pure, [`Gate`] puts both, a bound on calls in flight and a deadline around a gateway, and [`route`] says which
//! gateways a payment may go to, in which order and why. Why it is so: ADR 0018.
//!
//! Left to others: what is recorded of an attempt before and after it (the payment's shard), and who may ask for one (the mesh).

#![forbid(unsafe_code)]

mod answer;
mod breaker;
mod budget;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
mod failure;
mod gate;
mod port;
mod reference;
mod router;
mod simulator;
mod stripe;
mod web;

pub use answer::{Challenge, Charge, ChargeState, Decision, Decline, DeclineReason, Settlement};
pub use breaker::{Breaker, BreakerSettings, BreakerState, Permit, Refusal, Verdict};
pub use budget::{Budget, BudgetSettings};
pub use connect::{Clock, Error, connector};
pub use failure::{Certainty, Class, Failure};
pub use gate::{Attempt, Gate, GateSettings, GateSnapshot, Gates, describe_metrics};
pub use port::{Acquirer, Authentication, Authorization, Capture, Exemption, Refund, Sought, Void};
pub use reference::{ChargeId, REFERENCE_BYTES_MAX, Reference};
pub use router::{Candidate, Health, Left, Payment, Roll, Route, Stage, WhyLeft, route};
