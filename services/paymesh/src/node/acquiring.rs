//! The acquirers of a node: what gateways.yaml says, and a connector for each gateway.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use paymesh_payment_processor::Acquiring;
use paymesh_topology::{Gateways, Topology};

use crate::{args::Setting, exit::unusable};

/// What payments by card need of the node; none where the configuration has no gateways. Files that gateways name are in the directory of credentials.
///
/// # Errors
/// gateways.yaml has mistakes, or a gateway's files cannot be used. Every node reads it, so that a mistake is found before anything starts.
pub(super) fn acquiring(setting: &Setting, topology: &Topology) -> anyhow::Result<Option<Acquiring>> {
    let Some(gateways) = Gateways::load(&setting.config, topology).map_err(unusable)? else { return Ok(None) };
    let credentials = setting.credentials.as_deref().unwrap_or(Path::new(""));
    let mut connectors = BTreeMap::new();
    for gateway in gateways.gateways() {
        let connector = paymesh_acquirers::connector(gateway, credentials, Arc::new(super::system_time)).map_err(unusable)?;
        connectors.insert(gateway.name.parse()?, connector);
    }
    Ok(Some(Acquiring { gateways, connectors, clock: Arc::new(super::system_time) }))
}
