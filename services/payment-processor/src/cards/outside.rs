//! How acquirers are reached from here: authorizations through the vault of the card's zone, which alone has its number; all else straight.

use std::{collections::BTreeMap, sync::Arc};

use paymesh_acquirers::{
    Acquirer, Attempt, Authorization, Capture, Charge, Class, Failure, Gate, GateSnapshot, Gates, Health, Payment, Refund, Route,
    Settlement, Sought, Void, route,
};
use paymesh_topology::Gateways;
use paymesh_types::GatewayName;
use tokio::time::Instant;

use super::vaults::{Authorized, CardOf, Vaults};

/// The gateways of a region: their connectors, and what is around them.
pub(crate) struct Outside {
    gateways: Gateways,
    gates: Gates,
    connectors: BTreeMap<GatewayName, Arc<dyn Acquirer>>,
    vaults: Vaults,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("gateways", &self.connectors.keys()).finish_non_exhaustive()
    }
}

impl Outside {
    /// Gateways as the configuration has them, with a connector for each.
    pub(super) fn new(gateways: Gateways, connectors: BTreeMap<GatewayName, Arc<dyn Acquirer>>, vaults: Vaults) -> Self {
        let gates = Gates::new(&gateways);
        Self { gateways, gates, connectors, vaults }
    }

    /// How each gateway is.
    pub(super) fn snapshots(&self) -> Vec<GateSnapshot> {
        self.gates.snapshots()
    }

    /// The gateways that a payment may go to, in order, and why.
    pub(super) fn route(&self, payment: &Payment) -> Route {
        let mut roll = |bound: u64| rand::random_range(0..bound.max(1));
        route(&self.gateways, payment, |gateway| self.gates.health(gateway), &mut roll)
    }

    /// Whether a gateway's breaker lets calls through.
    pub(super) fn takes_calls(&self, gateway: &GatewayName) -> bool {
        self.gates.health(gateway.as_str()) != Health::Open
    }

    fn gate(&self, gateway: &GatewayName) -> Result<(&Gate, &Arc<dyn Acquirer>), Failure> {
        match (self.gates.gate(gateway.as_str()), self.connectors.get(gateway)) {
            (Some(gate), Some(connector)) => Ok((gate, connector)),
            // A payment of before an edit: its gateway has to stay in the file for as long as there are such.
            _ => Err(Failure::not_done(Class::Ours, format!("gateway {gateway} is not in gateways.yaml"))),
        }
    }

    pub(super) async fn authorize(
        &self,
        gateway: &GatewayName,
        card: &CardOf,
        authorization: &Authorization,
        attempt: Attempt,
        deadline: Instant,
    ) -> Result<Authorized, Failure> {
        let (gate, _) = self.gate(gateway)?;
        gate.call(attempt, deadline, |deadline| self.vaults.authorize(gateway, card, authorization, deadline)).await
    }

    pub(super) async fn capture(
        &self,
        gateway: &GatewayName,
        capture: &Capture,
        attempt: Attempt,
        deadline: Instant,
    ) -> Result<Settlement, Failure> {
        let (gate, acquirer) = self.gate(gateway)?;
        gate.call(attempt, deadline, |deadline| acquirer.capture(capture, deadline)).await
    }

    pub(super) async fn void(
        &self,
        gateway: &GatewayName,
        void: &Void,
        attempt: Attempt,
        deadline: Instant,
    ) -> Result<Settlement, Failure> {
        let (gate, acquirer) = self.gate(gateway)?;
        gate.call(attempt, deadline, |deadline| acquirer.void(void, deadline)).await
    }

    pub(super) async fn refund(
        &self,
        gateway: &GatewayName,
        refund: &Refund,
        attempt: Attempt,
        deadline: Instant,
    ) -> Result<Settlement, Failure> {
        let (gate, acquirer) = self.gate(gateway)?;
        gate.call(attempt, deadline, |deadline| acquirer.refund(refund, deadline)).await
    }

    pub(super) async fn look_up(
        &self,
        gateway: &GatewayName,
        sought: &Sought,
        attempt: Attempt,
        deadline: Instant,
    ) -> Result<Option<Charge>, Failure> {
        let (gate, acquirer) = self.gate(gateway)?;
        gate.call(attempt, deadline, |deadline| acquirer.look_up(sought, deadline)).await
    }
}
