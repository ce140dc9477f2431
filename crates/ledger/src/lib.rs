//! The ledger of one shard: double entry as a pure state machine.
//!
//! [`decide`] says what a command means against the state as it is: an [`Entry`], or a [`Rejection`] that changes nothing.
//! [`State::apply`] makes the entry's effect. Neither does I/O, reads a clock or draws a random number: time and numbers
//! are arguments, so the same commands always give the same books, and replaying entries needs no decisions.
//!
//! Every entry's postings sum to zero in each currency, and carry what each account held after them: a reader of the
//! journal can project tables without any state, and can prove the books by adding up.
//!
//! What is in memory is the shard's business (`paymesh-shard`): [`State::missing`] names the records that commands need,
//! [`State::load`] takes them in, [`State::evict`] lets go of what has been projected.

#![forbid(unsafe_code)]

mod audit;
mod charge;
mod command;
mod decide;
mod entry;
mod mandate;
mod method;
mod monitoring;
mod requests;
mod resident;
mod sca;
mod state;

pub use audit::{Audit, Problem, Sums};
pub use charge::{
    CHALLENGE_SECONDS, CardStep, Challenge, Charge, GATEWAYS_ASKED_MAX, Left, LeftBecause, Operation, OperationKind, Outcome, REFUNDS_MAX,
    Risk,
};
pub use command::{ByCard, Command, CreatePayment, Message, Request};
pub use decide::{Context, Decision, HOLD_SECONDS_MAX, Rejection, decide, differing_field};
pub use entry::{Account, Body, Credit, Effect, Entry, LineId, NewCharge, NewPayment, Phase, Posting, Reason};
pub use mandate::{Agreement, Mandate, MandateKind, MandateStanding, MandateState, MandateUse};
pub use method::{PAYMENT_METHODS_MAX, PaymentMethod};
pub use monitoring::{Counted, Day, Means, Monitored, REFERENCE_RATES, RiskAnalysis, Totals, WINDOW_DAYS};
pub use sca::{Authentication, EXEMPTED_MINOR_MAX, EXEMPTED_PAYMENTS_MAX, Exempted, Exemption, LOW_VALUE_MINOR_MAX};
pub use state::{Inconsistent, Missing, Payment, Records, State, Wallet};
