//! The edge: the same payments at the node, and by way of an edge of its region, in TLS and with tokens; and the echo server as the floor.

use anyhow::Context as _;

use super::hop;
use crate::{lab::Lab, region::Mesh};

/// Runs the comparison. What the edge does by itself is what `paymesh plan simulate --edge-tps` wants to know.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let accounts = lab.common.few().min(hop::ACCOUNTS_MAX);
    let shards = lab.common.shards.first().copied().unwrap_or(1);
    let case = format!("an edge and a node of {shards} shards, {accounts} accounts");
    let mesh = Mesh::new(1, shards)?;
    let mut nodes = lab.secured_mesh(&mesh).await?;
    lab.enrol(&case, &mut nodes, accounts, mesh.places[0].country).await?;
    let node = nodes.pop().context("a mesh of one region has a node")?;
    // Beside the node from the start, so that both sides leave the same processes running.
    let edge = lab.edge(&mesh, &node).await?;
    hop::measure(lab, (&case, "edge"), accounts, &mut [node, edge], None).await
}
