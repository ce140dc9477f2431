//! `paymesh plan cost`.

use crate::{
    args::Setting,
    exit::{self, Exit},
};

/// `paymesh plan cost`.
#[derive(Debug, clap::Args)]
pub(crate) struct CostArgs {
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Plans.
pub(crate) fn run(_setting: &Setting, args: &CostArgs) -> anyhow::Result<Exit> {
    Err(exit::unusable(format!("not there yet (json: {})", args.json)))
}
