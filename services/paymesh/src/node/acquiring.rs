//! The acquirers of a node: what gateways.yaml says, and a connector for each gateway.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use paymesh_payment_processor::Acquiring;
use paymesh_topology::{Gateways, Topology};
use paymesh_types::RegionName;
use paymesh_vault::Acquirers;

use super::fraud::Rules;
use crate::{args::Setting, exit::unusable};

/// What the node's services need of acquirers.
#[derive(Default)]
pub(super) struct Outside {
    /// For payments by card; none where the configuration has no gateways.
    pub(super) payments: Option<Acquiring>,
    /// Those that the node's vault sends cards to; none where the region has no vault.
    pub(super) vault: Acquirers,
}

/// Reads it all. Files that gateways name are in the directory of credentials.
///
/// # Errors
/// gateways.yaml has mistakes, or a gateway's files cannot be used. Every node reads it, so that a mistake is found before anything starts.
pub(super) fn outside(setting: &Setting, topology: &Topology, region: &RegionName, rules: &Rules) -> anyhow::Result<Outside> {
    let Some(gateways) = Gateways::load(&setting.config, topology).map_err(unusable)? else { return Ok(Outside::default()) };
    let credentials = setting.credentials.as_deref().unwrap_or(Path::new(""));
    let zone = topology.region(region).map(|region| &region.zone);
    let vault = match zone.is_some_and(|zone| topology.vault(zone) == Some(region)) {
        true => Acquirers::new(&gateways, credentials, &(Arc::new(super::system_time) as paymesh_vault::Clock)).map_err(unusable)?,
        false => Acquirers::default(),
    };
    if topology.region(region).is_some_and(|region| region.is_vault_alone()) {
        return Ok(Outside { payments: None, vault });
    }
    let mut connectors = BTreeMap::new();
    for gateway in gateways.gateways() {
        let connector = paymesh_acquirers::connector(gateway, credentials, Arc::new(super::system_time)).map_err(unusable)?;
        connectors.insert(gateway.name.parse()?, connector);
    }
    Ok(Outside { payments: Some(Acquiring { gateways, connectors, rules: rules.subscribe(), clock: Arc::new(super::system_time) }), vault })
}
