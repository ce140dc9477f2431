//! The node's credentials: read at the start, read again when their files change, and watched as their end comes nearer.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use paymesh_access::{Callers, Settings, Watched};
use paymesh_identity::Identity;
use paymesh_mesh::{Mesh, Security};
use paymesh_telemetry::Component;
use paymesh_topology::{ACCESS_FILE_NAME, Topology};
use paymesh_types::RegionName;
use tokio::time::Instant;

use crate::{args::Setting, certs, exit::unusable};

pub(super) const NOT_AFTER: &str = "paymesh_certificate_not_after_seconds";

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// From when on before its end a certificate is warned about: whoever renews it has failed to by then.
const WARN_BEFORE: Duration = Duration::from_secs(24 * 3600);

/// How this node knows its peers and its callers.
pub(super) fn read(setting: &Setting, topology: Arc<Topology>, region: &RegionName) -> anyhow::Result<Security> {
    read_from(setting, topology, region, certs::of_region, Identity::load)
}

/// The same of an edge.
pub(super) fn read_edge(setting: &Setting, topology: Arc<Topology>, region: &RegionName) -> anyhow::Result<Security> {
    read_from(setting, topology, region, certs::of_edge, Identity::load_edge)
}

fn read_from(
    setting: &Setting,
    topology: Arc<Topology>,
    region: &RegionName,
    place: fn(&Path, &RegionName) -> PathBuf,
    load: fn(&Path, &str, &RegionName, SystemTime) -> Result<Identity, paymesh_identity::Error>,
) -> anyhow::Result<Security> {
    let Some(directory) = &setting.credentials else { return Ok(Security::PlainText) };
    if !directory.exists() {
        return Err(unusable(format!(
            "there are no credentials in {}: `paymesh certs` makes some for development, --credentials names another directory, and \
             --plain-text does without, on loopback",
            directory.display()
        )));
    }
    let own = place(directory, region);
    let identity = load(&own, topology.mesh(), region, SystemTime::now()).map_err(unusable)?;
    let callers = Callers::load(Settings::new(&setting.config, directory, topology), Instant::now()).map_err(unusable)?;
    Ok(Security::Certificates { identity, callers })
}

/// Keeps what callers are known by up to date, for as long as it is polled.
pub(super) async fn watch_callers(callers: Callers, component: Component) -> anyhow::Result<()> {
    let nobody = callers.clone();
    let never = callers.watch(|watched| match watched {
        Watched::Problem(why) => component.warn(format!("callers are still known by what was read before: {why}")),
        Watched::Good if nobody.is_empty() => component.warn(format!("there is no {ACCESS_FILE_NAME}, so nobody but nodes may call")),
        Watched::Good => component.healthy(),
    });
    match never.await {}
}

/// Takes new files into use, for as long as it is polled. What cannot be used is said, and what was read before stays in use.
pub(super) async fn watch(mesh: Mesh, identity: Identity, component: Component) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut refused = None;
    loop {
        looks.tick().await;
        let now = SystemTime::now();
        // Small files, and the handshakes of a renewed connection wait for nothing here.
        let reading = identity.clone();
        let read = tokio::task::spawn_blocking(move || reading.reload(now).map_err(|error| error.to_string())).await?;
        match read {
            Ok(true) => {
                mesh.credentials_changed();
                tracing::info!(directory = %identity.directory().display(), "new credentials are in use");
                refused = None;
            }
            Ok(false) => refused = None,
            Err(why) => {
                if refused.as_ref() != Some(&why) {
                    tracing::error!(%why, "new credentials cannot be used, and those read before stay in use");
                }
                refused = Some(why);
            }
        }
        let not_after = identity.not_after();
        metrics::gauge!(NOT_AFTER).set(not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        match (not_after.duration_since(now), &refused) {
            (Err(_), _) => component.unhealthy("this node's certificate has ended: others refuse its connections"),
            (Ok(_), Some(why)) => component.warn(format!("new credentials cannot be used, and those read before stay in use: {why}")),
            (Ok(left), None) if left < WARN_BEFORE => {
                component.warn(format!("this node's certificate ends within {} hours", left.as_secs().div_ceil(3600)));
            }
            (Ok(_), None) => component.healthy(),
        }
    }
}
