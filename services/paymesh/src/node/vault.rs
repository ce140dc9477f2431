//! The vault of the node's zone, at the node of the region that has it: opened, tended, and watched for the node's health.
//!
//! Its data is in the node's directory. The keys that its own are wrapped under are elsewhere: with the node's credentials, where no backup of the data has
//! them too.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use paymesh_telemetry::Component;
use paymesh_topology::Topology;
use paymesh_types::{RegionName, ZoneName};
use paymesh_vault::{RotationPlan, Vault, keys::FileKeys, store::SqliteStore};
use tokio::{sync::watch, time::MissedTickBehavior};

use crate::{
    args::{NodeArgs, Setting},
    certs,
};

/// The vault's directory, in the node's.
const DIRECTORY: &str = "vault";
/// The directory of its keys, in that of the node's credentials.
const KEYS_DIRECTORY: &str = "vault-keys";
/// How long to wait before a vault that did not open is tried again.
const OPEN_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether something is due.
const TEND_EVERY: Duration = Duration::from_secs(60);

/// Where the vault of a node is, and whose cards it keeps.
pub(super) struct Place {
    mesh: String,
    zone: ZoneName,
    data: PathBuf,
    keys: PathBuf,
}

impl Place {
    /// None: another region has the vault of the zone, or none has.
    pub(super) fn of(topology: &Topology, region: &RegionName, setting: &Setting, args: &NodeArgs, data: &Path) -> Option<Self> {
        let zone = topology.region(region)?.zone.clone();
        if topology.vault(&zone) != Some(region) {
            return None;
        }
        // In plain text there are no credentials, and nothing on the machine is kept from anybody.
        let beside = setting.credentials.as_deref().map_or_else(|| data.to_owned(), |directory| certs::of_region(directory, region));
        let keys = args.vault_keys.clone().unwrap_or_else(|| beside.join(KEYS_DIRECTORY));
        Some(Self { mesh: topology.mesh().to_owned(), zone, data: data.join(DIRECTORY), keys })
    }

    async fn open(&self) -> anyhow::Result<Vault> {
        let keys = FileKeys::open(&self.keys, &self.mesh, &self.zone)?;
        let store = SqliteStore::open(&self.data, &self.mesh, &self.zone).await?;
        Ok(Vault::open(self.zone.clone(), Arc::new(store), Arc::new(keys), Arc::new(super::system_time)).await?)
    }
}

/// Opens the vault, tells `opened`, and does what is due, for as long as it is polled. Cards wait for a vault that does not open; nothing else does.
pub(super) async fn keep(place: Place, opened: watch::Sender<Option<Vault>>, component: Component) -> anyhow::Result<()> {
    let vault = loop {
        match place.open().await {
            Ok(vault) => break vault,
            Err(why) => component.unhealthy(format!("the vault of zone {} does not open: {why:#}", place.zone)),
        }
        tokio::time::sleep(OPEN_EVERY).await;
    };
    opened.send_replace(Some(vault.clone()));
    let mut looks = tokio::time::interval(TEND_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            // One that was asked for is not waited with.
            () = vault.rotation_begun() => {}
        }
        // Also the first time: a rotation that a crash broke off is gone on with, while the vault serves.
        match vault.tend(RotationPlan::default()).await {
            Ok(_) => component.healthy(),
            Err(why) => component.unhealthy(format!("the keys of the vault of zone {} do not rotate: {why}", place.zone)),
        }
    }
}
