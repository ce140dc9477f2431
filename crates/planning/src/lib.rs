//! How much a mesh needs, what that costs, and what scaling policies make of traffic. Pure: no files, no clock, no randomness; figures are
//! decimals and whole numbers, never floats.

#![forbid(unsafe_code)]

pub mod capacity;
pub mod chart;
pub mod cost;
pub mod simulation;

mod figure;

pub use figure::{Error, Figure, HOURS_PER_MONTH, decimal_within};
