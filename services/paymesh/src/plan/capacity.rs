//! `paymesh plan capacity`.

use crate::{
    args::Setting,
    exit::{self, Exit},
};

/// `paymesh plan capacity`.
#[derive(Debug, clap::Args)]
pub(crate) struct CapacityArgs {
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Plans.
pub(crate) fn run(_setting: &Setting, args: &CapacityArgs) -> anyhow::Result<Exit> {
    Err(exit::unusable(format!("not there yet (json: {})", args.json)))
}
