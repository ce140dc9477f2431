//! The peers alone: what they reach on this machine, without a node to compare them with.

use super::naive::{start as start_naive, stream as naive_stream};
use crate::{
    lab::{Lab, Task},
    load::{Mode, Payees},
};

/// Runs each peer at the loads that others are held against.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let accounts = lab.common.few();
    let case = format!("{accounts} accounts");
    let mut naive = vec![start_naive(lab, accounts).await?];
    let mut echo = vec![lab.peer("echo", &["echo-server"]).await?];
    let unary = lab.common.in_flight.iter().map(|in_flight| Mode::Unary { in_flight: *in_flight });
    let modes: Vec<Mode> = unary.chain([naive_stream(lab)]).collect();
    for mode in modes {
        for round in 1..=lab.common.rounds {
            let task = |side| Task { case: &case, side, mode, payees: Payees::Uniform, accounts, round };
            lab.measure(task("naive"), &mut naive).await?;
            lab.measure(task("echo"), &mut echo).await?;
        }
    }
    Ok(())
}
