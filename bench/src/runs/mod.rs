//! The benchmarks: which loads run against which sides, and the bars that they are held against.

pub(crate) mod cards;
pub(crate) mod edge;
pub(crate) mod forward;
mod hop;
pub(crate) mod ledger;
pub(crate) mod naive;
pub(crate) mod node;
pub(crate) mod peers;
pub(crate) mod replication;

use crate::{load::Mode, report::Run};

/// Unary calls in flight where sides are held against a bar.
const BAR_IN_FLIGHT: usize = 64;

/// The unary load of the bars.
const UNARY: Mode = Mode::Unary { in_flight: BAR_IN_FLIGHT };

/// The rate that bars are about: what is left when everything downstream has caught up.
fn sustained(over: &Run, under: &Run) -> f64 {
    over.sustained / under.sustained
}
