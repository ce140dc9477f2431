//! The gateways that the vault sends cards to: those of its own configuration, and no others.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use paymesh_acquirers::{Acquirer, connector};
use paymesh_topology::{Gateways, ZoneGrant};
use paymesh_types::ZoneName;
use tokio::time::Instant;

use crate::{Clock, Error};

/// The gateways by their names. Cheap to clone.
#[derive(Clone, Default)]
pub struct Acquirers {
    known: Arc<BTreeMap<String, Known>>,
}

struct Known {
    acquirer: Arc<dyn Acquirer>,
    zones: ZoneGrant,
    timeout: Duration,
}

/// A gateway that may be given a card of the zone.
pub(crate) struct Chosen {
    pub(crate) acquirer: Arc<dyn Acquirer>,
    timeout: Duration,
}

impl Acquirers {
    /// Those of a configuration, with the keys that it names in this directory. Nothing is connected to yet.
    ///
    /// # Errors
    /// A gateway's files cannot be used.
    pub fn new(gateways: &Gateways, credentials: &Path, clock: &Clock) -> Result<Self, paymesh_acquirers::Error> {
        let known = gateways.gateways().iter().map(|gateway| {
            let acquirer = connector(gateway, credentials, Arc::clone(clock))?;
            Ok((gateway.name.clone(), Known { acquirer, zones: gateway.zones.clone(), timeout: gateway.timeout }))
        });
        Ok(Self { known: Arc::new(known.collect::<Result<_, _>>()?) })
    }

    /// A gateway for a card of a zone.
    ///
    /// # Errors
    /// [`Error::GatewayNotFound`], [`Error::GatewayNotInZone`].
    pub(crate) fn choose(&self, name: &str, zone: &ZoneName) -> Result<Chosen, Error> {
        let known = self.known.get(name).ok_or_else(|| Error::GatewayNotFound(name.to_owned()))?;
        if !known.zones.has(zone) {
            return Err(Error::GatewayNotInZone(name.to_owned()));
        }
        Ok(Chosen { acquirer: Arc::clone(&known.acquirer), timeout: known.timeout })
    }
}

impl Chosen {
    /// Until when the gateway is waited for: so that what became of the call gets back before the caller has gone.
    pub(crate) fn deadline(&self, now: Instant, call: Option<Instant>) -> Instant {
        /// The part of what is left that the way back has.
        const WAY_BACK: u32 = 8;
        const WAY_BACK_MAX: Duration = Duration::from_millis(500);

        let own = now + self.timeout;
        let Some(call) = call else { return own };
        let left = call.saturating_duration_since(now);
        own.min(now + (left - (left / WAY_BACK).min(WAY_BACK_MAX)))
    }
}
