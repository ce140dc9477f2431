//! A shard at work, leading: commands queue up, are decided in memory, committed together, and answered after the commit.
//!
//! Around the one writer stand readers of its journal, each with its own cursor: the projector (`projector`) brings the
//! query tables up to date, [`inbox`] carries money to other shards, [`Tail`] serves subscribers. Any of them may lag, stop
//! and resume. What a shard does not do: routing, authorization, and words to callers.

#![forbid(unsafe_code)]

mod aside;
mod base;
mod cards;
mod copies;
mod counts;
mod error;
mod freshness;
pub mod inbox;
mod leader;
mod marks;
mod projector;
mod read;
mod recovery;
mod replica;
mod retention;
mod set;
mod shard;
mod tail;
mod timers;
mod transit;
mod verify;
mod view;

pub use copies::Copies;
pub use counts::describe_metrics;
pub use error::Error;
pub use inbox::Source;
pub use read::{Bounds, Reader};
pub use replica::{AddError, End, Replica, ReplicaOptions};
pub use retention::Retention;
pub use set::{Refusal, Shards, Unopened};
pub use shard::{Answer, Clock, Options, Shard, Status};
pub use tail::{Run, Tail};
pub use verify::{ReplicaReport, Report, verify, verify_replica};
pub use view::{Page, PaymentView, View};
