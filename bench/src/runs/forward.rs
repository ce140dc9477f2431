//! The hop: the same payments at the payers' home, and by way of another region's node; and the echo server as the floor.

use anyhow::Context as _;

use super::hop;
use crate::{lab::Lab, region::Mesh, server::Server};

/// What forwarding adds to a call, in times of a bare echo call.
const ADDED_ECHOES_MAX: f64 = 1.0;

/// Runs the comparison.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let accounts = lab.common.few().min(hop::ACCOUNTS_MAX);
    let shards = lab.common.shards.first().copied().unwrap_or(1);
    let case = format!("2 regions of {shards} shards, {accounts} accounts");
    let mesh = Mesh::new(2, shards)?;
    let mut nodes = lab.mesh(&mesh).await?;
    lab.enrol(&case, &mut nodes, accounts, mesh.places[0].country).await?;
    let mut nodes: [Server; 2] = nodes.try_into().ok().context("a mesh of two regions has two nodes")?;
    hop::measure(lab, (&case, "forwarded"), accounts, &mut nodes, Some(ADDED_ECHOES_MAX)).await
}
