//! ReplicationService: a region's journals to those who follow them, and copies of the journals that other regions lead.
//!
//! One stream for each followed shard, opened by the follower, which says where its copy ends ([`following`]). The leader
//! sends segments as they are committed (`serving`), no faster than HTTP/2's windows let it: neither side holds more than a
//! message, and no stream waits for another. What a follower may hold follows from its zone ([`plan`]); it checks that it got
//! no more before it stores anything (`paymesh_shard::Replica`). Whoever comes later than what the leader keeps begins with a checkpoint
//! (`bootstrap`, `checkpoints`). Before a shard is led, those who follow it are asked how far they know its history to have gone
//! ([`census`]).

#![forbid(unsafe_code)]

mod bootstrap;
pub mod census;
mod checkpoints;
mod clock;
mod counts;
mod followers;
pub mod following;
mod plan;
mod serving;
mod verifying;
mod wire;

pub use census::{Census, Heard};
pub use counts::describe_metrics;
pub use following::{Ended, Following, Remaking, Replicas};
pub use plan::{Followed, plan};
pub use serving::Replication;
