//! The vault of the node's zone, at the node of the region that has it: opened, tended, and watched for the node's health.
//!
//! Its data is in the node's directory. The keys that its own are wrapped under are elsewhere: in a token, or with the node's credentials, where no backup of the data
//! has them too.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use paymesh_telemetry::Component;
use paymesh_topology::{KeyToken, Topology};
use paymesh_types::ZoneName;
use paymesh_vault::{
    RotationPlan, Vault,
    keys::{FileKeys, KeyProvider},
    store::SqliteStore,
};
use tokio::{sync::watch, time::MissedTickBehavior};

use crate::{
    args::{ProcessArgs, Setting},
    certs,
};

/// The vault's directory, in the node's.
const DIRECTORY: &str = "vault";
/// The directory of its keys, in that of the node's credentials.
const KEYS_DIRECTORY: &str = "vault-keys";
/// The file with the PIN of the token that its keys are in, beside the node's certificate.
#[cfg(feature = "pkcs11")]
const PIN_FILE: &str = "vault-pin";
/// How long to wait before a vault that did not open is tried again.
const OPEN_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether something is due.
const TEND_EVERY: Duration = Duration::from_secs(60);

/// Where the vault of a node is, and whose cards it keeps.
pub(super) struct Place {
    mesh: String,
    zone: ZoneName,
    data: PathBuf,
    keys: Keys,
}

/// Where its keys are.
enum Keys {
    Files(PathBuf),
    /// One for all tries: it remembers a PIN that was refused.
    #[cfg(feature = "pkcs11")]
    Token(paymesh_vault::keys::TokenKeys),
}

impl Place {
    /// None: another region has the vault of the zone, or none has.
    ///
    /// # Errors
    /// Its keys are to be in a token, and this program knows of none.
    pub(super) fn of(topology: &Topology, setting: &Setting, process: &ProcessArgs) -> anyhow::Result<Option<Self>> {
        let Some(region) = topology.region(&process.region).filter(|region| topology.vault(&region.zone) == Some(&region.name)) else {
            return Ok(None);
        };
        // In plain text there are no credentials, and nothing on the machine is kept from anybody.
        let beside =
            setting.credentials.as_deref().map_or_else(|| process.data.clone(), |directory| certs::of_region(directory, &region.name));
        let keys = match &region.vault_token {
            None => Keys::Files(process.vault_keys.clone().unwrap_or_else(|| beside.join(KEYS_DIRECTORY))),
            Some(token) => in_token(token, topology.mesh(), &region.zone, &beside)?,
        };
        Ok(Some(Self { mesh: topology.mesh().to_owned(), zone: region.zone.clone(), data: process.data.join(DIRECTORY), keys }))
    }

    async fn open(&self) -> anyhow::Result<Vault> {
        let keys: Arc<dyn KeyProvider> = match &self.keys {
            Keys::Files(directory) => Arc::new(FileKeys::open(directory, &self.mesh, &self.zone)?),
            #[cfg(feature = "pkcs11")]
            Keys::Token(keys) => Arc::new(keys.clone()),
        };
        let store = SqliteStore::open(&self.data, &self.mesh, &self.zone).await?;
        Ok(Vault::open(self.zone.clone(), Arc::new(store), keys, Arc::new(super::system_time)).await?)
    }
}

#[cfg(feature = "pkcs11")]
fn in_token(token: &KeyToken, mesh: &str, zone: &ZoneName, beside: &Path) -> anyhow::Result<Keys> {
    use paymesh_vault::keys::{Token, TokenKeys};

    let token = Token { module: token.module.clone(), label: token.label.clone(), pin: beside.join(PIN_FILE) };
    Ok(Keys::Token(TokenKeys::new(token, mesh, zone)))
}

#[cfg(not(feature = "pkcs11"))]
fn in_token(token: &KeyToken, _: &str, zone: &ZoneName, _: &Path) -> anyhow::Result<Keys> {
    Err(crate::exit::unusable(format!(
        "the keys of the vault of zone {zone} are to be in token {}, and this program was built without the feature `pkcs11`",
        token.label
    )))
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
