//! `paymesh plan`: what traffic needs and what that costs. The arithmetic is in `crates/planning`; here the options and files become its input, and
//! its answers tables or JSON. No node is called, and nothing is written but what an option names.

mod capacity;
mod cost;
mod measured;
mod simulate;

use clap::Subcommand;

use crate::{args::Setting, exit::Exit};

/// What to plan.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// How many instances, connections, partitions and bytes a traffic needs, and what they cost
    Capacity(capacity::CapacityArgs),

    /// Which instances meet a requirement, the cheapest for each payment first, and what to reserve
    Cost(cost::CostArgs),

    /// What the scaling policies make of a day's traffic: instances, how busy they are, and what is dropped
    Simulate(simulate::SimulateArgs),
}

/// Plans.
pub(crate) fn run(setting: &Setting, what: &PlanCommand) -> anyhow::Result<Exit> {
    match what {
        PlanCommand::Capacity(args) => capacity::run(setting, args),
        PlanCommand::Cost(args) => cost::run(setting, args),
        PlanCommand::Simulate(args) => simulate::run(setting, args),
    }
}
