//! Fraud detection at the node of a region that runs it: opened, tended, and watched for the node's health; and the rules that every node has read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use paymesh_cache::InProcess;
use paymesh_fraud_detection::{Detector, Parts, Store};
use paymesh_telemetry::Component;
use paymesh_topology::{FRAUD_FILE_NAME, Fraud, Service, Topology};
use paymesh_types::{RegionName, ZoneName};
use tokio::{sync::watch, time::MissedTickBehavior};

use crate::exit::unusable;

pub(super) const RULES_REFUSED: &str = "paymesh_fraud_rules_refused_total";

/// The directory of what was scored, in the node's.
const DIRECTORY: &str = "fraud";
/// How long to wait before fraud detection that did not open is tried again.
const OPEN_EVERY: Duration = Duration::from_secs(5);
/// How often the file of the rules is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes of memory for scores that are asked for again: some hundred thousand of them.
const CACHE_BYTES_MAX: u64 = 64 << 20;

/// The rules as they were read last.
pub(super) type Rules = watch::Sender<Option<Arc<Fraud>>>;

/// Reads the rules, as everything else of the configuration: a node with a file that is wrong does not start.
pub(super) fn read(config: &Path, topology: &Topology) -> anyhow::Result<Rules> {
    let rules = Fraud::load(config, topology).map_err(unusable)?;
    Ok(watch::Sender::new(rules.map(Arc::new)))
}

/// Takes a new file into use, for as long as it is polled. What cannot be used is said, and what was read before stays in use.
pub(super) async fn watch_rules(config: PathBuf, topology: Arc<Topology>, rules: Rules, component: Component) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = None;
    loop {
        looks.tick().await;
        let (config, topology) = (config.clone(), topology.clone());
        let read = tokio::task::spawn_blocking(move || Fraud::load(&config, &topology).map_err(|errors| errors.to_string())).await?;
        let before = rules.borrow().clone();
        let why = match (read, before) {
            (Ok(Some(new)), before) => {
                if before.is_none_or(|before| *before != new) {
                    tracing::info!(version = new.version(), "payments are scored by new rules");
                    rules.send_replace(Some(Arc::new(new)));
                }
                None
            }
            // Nobody is let through by a file that is moved away.
            (Ok(None), Some(_)) => Some(format!("{FRAUD_FILE_NAME} is gone")),
            (Ok(None), None) => {
                component.warn(format!("there is no {FRAUD_FILE_NAME}, so no payment is scored"));
                continue;
            }
            (Err(why), _) => Some(why),
        };
        match &why {
            Some(why) => {
                if refused.as_ref() != Some(why) {
                    metrics::counter!(RULES_REFUSED).increment(1);
                    tracing::error!(%why, "new rules cannot be used, and payments are scored by those read before");
                }
                component.warn(format!("payments are scored by rules that were read before: {why}"));
            }
            None => match warning(rules.borrow().as_deref()) {
                Some(warning) => component.warn(warning),
                None => component.healthy(),
            },
        }
        refused = why;
    }
}

/// What operators are to know of rules that can be used.
fn warning(rules: Option<&Fraud>) -> Option<String> {
    let said = rules?.policies().filter_map(|(zone, policy)| Some(format!("in zone {zone} {}", policy.transaction_risk.warning()?)));
    Some(said.collect::<Vec<_>>().join("; ")).filter(|said| !said.is_empty())
}

/// Where a node keeps what it has scored, and for whom it scores.
pub(super) struct Place {
    mesh: String,
    zone: ZoneName,
    region: RegionName,
    data: PathBuf,
}

impl Place {
    /// None: the region does not run fraud detection.
    pub(super) fn of(topology: &Topology, region: &RegionName, data: &Path) -> Option<Self> {
        let own = topology.region(region).filter(|own| own.runs(Service::FraudDetection))?;
        Some(Self { mesh: topology.mesh().to_owned(), zone: own.zone.clone(), region: region.clone(), data: data.join(DIRECTORY) })
    }
}

/// Opens fraud detection, tells `opened`, and records what is scored, for as long as it is polled. Payments are decided by their zone's policy while it does not open.
pub(super) async fn keep(
    place: Place,
    rules: watch::Receiver<Option<Arc<Fraud>>>,
    opened: watch::Sender<Option<Detector>>,
    component: Component,
) -> anyhow::Result<()> {
    let cache = Arc::new(InProcess::new(CACHE_BYTES_MAX));
    loop {
        let open = async {
            let store = Store::open(&place.data, &place.mesh, &place.zone, &place.region).await?;
            let clock = Arc::new(super::system_time);
            Detector::open(Parts { zone: place.zone.clone(), store, cache: cache.clone(), rules: rules.clone(), clock }).await
        };
        match open.await {
            Ok((detector, tending)) => {
                opened.send_replace(Some(detector));
                component.healthy();
                let tell = |problem| match problem {
                    Some(why) => component.warn(why),
                    None => component.healthy(),
                };
                tending.tend(tell).await;
                opened.send_replace(None);
                component.unhealthy(format!("the thread that scores the payments of zone {} has died, and is started again", place.zone));
            }
            Err(why) => component.unhealthy(format!("fraud detection of zone {} does not open: {why}", place.zone)),
        }
        tokio::time::sleep(OPEN_EVERY).await;
    }
}
