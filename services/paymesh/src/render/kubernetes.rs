//! `paymesh render kubernetes`: a Kustomize overlay for each region, over deploy/kubernetes/base.
//!
//! An overlay is everything of a region that follows from region-config: the configuration that its processes read, its names, its addresses. What is the same in all
//! regions is in base, what is a company's own in site. Nothing is written unless all of it could be made and its readers take it.

mod deployed;
mod documents;
mod scaling;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use paymesh_contract::policies;
use paymesh_topology::{
    ACCESS_FILE_NAME, Access, Cloud, Entry, FILE_NAME, FRAUD_FILE_NAME, Fraud, GATEWAYS_FILE_NAME, Gateways, KeySource, Region, Scaling,
    Topology, Zone,
};
use paymesh_types::{RegionName, ZoneName};
use serde_json::{Value, json};

use self::{
    deployed::{Deployed, label},
    documents::Place,
};
use super::{
    folders::{self, Files, MARK, MARKED_FILE},
    yaml,
};
use crate::{
    args::RenderKubernetesArgs,
    exit::{Exit, unusable},
    note, say,
};

const NAMESPACE: &str = "paymesh";
/// gRPC of every process.
const EDGE_PORT: u16 = 7100;
/// `/health`, `/ready` and `/metrics` of every process.
const HTTP_PORT: u16 = 7200;

/// Bytes that the cloud allows the name of a target group.
const TARGET_GROUP_BYTES_MAX: usize = 32;
/// The longest of those names around a region's.
const TARGET_GROUP_FRAME: &str = "pm--vnode";
/// Bytes of a region's name at most, where the region is deployed.
pub(crate) const DEPLOYED_NAME_BYTES_MAX: usize = TARGET_GROUP_BYTES_MAX - TARGET_GROUP_FRAME.len();

/// Files of the configuration that are read at the start only, and those that are read again when they change.
const AT_THE_START: [&str; 2] = [FILE_NAME, GATEWAYS_FILE_NAME];
const AT_ANY_TIME: [&str; 2] = [ACCESS_FILE_NAME, FRAUD_FILE_NAME];

/// Runs the command.
pub(super) fn run(config: &Path, args: &RenderKubernetesArgs) -> anyhow::Result<Exit> {
    let Rendered { overlays, vaults } = render(config)?;
    if args.check {
        let found = folders::differences(&args.out, &overlays)?;
        if found.is_empty() {
            say!("{} is what the configuration makes: {}", args.out.display(), names(&overlays));
            return Ok(Exit::Good);
        }
        found.iter().for_each(|difference| note!("{difference}"));
        note!("run `paymesh render kubernetes --out {}`", args.out.display());
        return Ok(Exit::Failed);
    }
    let removed = folders::write(&args.out, &overlays)?;
    say!("{}: {}", args.out.display(), names(&overlays));
    removed.iter().for_each(|folder| say!("{} is removed: its region is not in the configuration", folder.display()));
    for (zone, region) in vaults {
        say!("cards of zone {zone} are in the vault of region {region}: who seals cards believes what that node signs");
    }
    Ok(Exit::Good)
}

fn names(overlays: &BTreeMap<String, Files>) -> String {
    overlays.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What is made of a configuration.
struct Rendered {
    /// The overlay of every region, by its name.
    overlays: BTreeMap<String, Files>,
    /// Each zone's vault, by the regions as they are deployed.
    vaults: Vec<(ZoneName, RegionName)>,
}

fn render(config: &Path) -> anyhow::Result<Rendered> {
    let file = if config.is_dir() { config.join(FILE_NAME) } else { config.to_owned() };
    let source = file.display().to_string();
    let topology = Topology::load(config).map_err(unusable)?;
    let cloud = topology.cloud().ok_or_else(|| {
        unusable(format!(
            "{source}: cloud: is missing: it says where the regions run, and by which names they are found; the shipped file has one"
        ))
    })?;
    let text = fs::read_to_string(&file).with_context(|| format!("{source} cannot be read"))?;
    let deployed = deployed::derive(&source, &text, &topology, &cloud.domain)?;
    // By the regions as they are deployed: that is what their readers will hold them against.
    let access = Access::load(config, &deployed.topology, &policies().caller_scopes()).map_err(unusable)?;
    let gateways = Gateways::load(config, &deployed.topology).map_err(unusable)?;
    reachable(access.as_ref(), gateways.as_ref())?;
    Fraud::load(config, &deployed.topology).map_err(unusable)?;
    let scaling = Scaling::load(config, &topology).map_err(unusable)?;
    let mut configuration = BTreeMap::from([(FILE_NAME, deployed.text.clone())]);
    let folder = file.parent().unwrap_or(Path::new(""));
    for name in [GATEWAYS_FILE_NAME, ACCESS_FILE_NAME, FRAUD_FILE_NAME] {
        let file = folder.join(name);
        if file.exists() {
            configuration.insert(name, fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?);
        }
    }
    let mut overlays = BTreeMap::new();
    for region in topology.regions() {
        let place = place(&source, &topology, cloud, &deployed, region)?;
        let files = overlay(&place, &deployed.topology, access.as_ref(), &scaling, &configuration)
            .with_context(|| format!("{source}: regions.{}", region.name))?;
        overlays.insert(region.name.to_string(), files);
    }
    let vault = |zone: &Zone| Some((zone.name.clone(), deployed.topology.vault(&zone.name)?.clone()));
    let vaults = deployed.topology.zones().filter_map(vault).collect();
    Ok(Rendered { overlays, vaults })
}

/// Issuers and acquirers are reached at HTTPS' own port: that is what policies and security groups of a region let out.
fn reachable(access: Option<&Access>, gateways: Option<&Gateways>) -> anyhow::Result<()> {
    let issuers = access.into_iter().flat_map(Access::issuers).filter_map(|issuer| match &issuer.keys {
        KeySource::Url { url, .. } => Some((format!("{ACCESS_FILE_NAME}: issuers.{}", issuer.name), url)),
        KeySource::File(_) => None,
    });
    let gateways = gateways
        .into_iter()
        .flat_map(Gateways::gateways)
        .map(|gateway| (format!("{GATEWAYS_FILE_NAME}: gateways.{}", gateway.name), &gateway.url));
    for (who, url) in issuers.chain(gateways) {
        // What is not in TLS is on loopback, where nothing listens in a pod: for development.
        let Some(rest) = url.strip_prefix("https://") else { continue };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let port = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())).map(|(_, port)| port);
        if let Some(port) = port.filter(|port| *port != "443") {
            return Err(unusable(format!(
                "{who}: {url}: deployed regions reach nothing outside but at port 443, which their network policies and security groups let out; this is at {port}"
            )));
        }
    }
    Ok(())
}

fn place<'a>(
    source: &str,
    topology: &'a Topology,
    cloud: &'a Cloud,
    deployed: &'a Deployed,
    region: &'a Region,
) -> anyhow::Result<Place<'a>> {
    let Some(site) = &region.site else {
        return Err(unusable(format!("{source}: cloud.regions.{}: is missing", region.name)));
    };
    if region.name.as_str().len() > DEPLOYED_NAME_BYTES_MAX {
        return Err(unusable(format!(
            "{source}: regions.{}: the names of its target groups would be longer than the {TARGET_GROUP_BYTES_MAX} bytes that the cloud allows: a region's name \
             has {DEPLOYED_NAME_BYTES_MAX} at most",
            region.name
        )));
    }
    Ok(Place {
        mesh: topology.mesh(),
        domain: &cloud.domain,
        region: &region.name,
        label: label(&region.name),
        zone: &region.zone,
        entered_by: topology
            .zones()
            .filter(|zone| zone.entry == Entry::Any || zone.regions.contains(&region.name))
            .map(|zone| &zone.name)
            .collect(),
        has_node: !region.is_vault_alone(),
        vault: deployed.vaults.get(&region.name),
        network: site.network,
    })
}

/// A region's files.
fn overlay(
    place: &Place<'_>,
    deployed: &Topology,
    access: Option<&Access>,
    scaling: &Scaling,
    configuration: &BTreeMap<&str, String>,
) -> anyhow::Result<Files> {
    let mut files = Files::new();
    let mut resources = place.bases();
    let mut lists = vec![
        ("certificates.yaml", "Who the region's processes are, to each other and to callers.", place.certificates()?),
        ("load-balancers.yaml", "Which pods are behind which load balancers.", place.balancers()),
        ("network.yaml", "Who may come from outside of the cluster, and where its pods may go.", place.network(access)),
        ("storage.yaml", "Where volumes are made, and under which keys.", place.storage()),
    ];
    if place.has_node {
        let documents = scaling::documents(scaling, place.region, place.network);
        lists.push(("scaling.yaml", "How many edges there are, and when.", documents));
    }
    for (name, what, documents) in lists {
        files.insert(PathBuf::from(name), yaml::documents(&comment(what), &documents)?);
        resources.push(name.to_owned());
    }
    let mut patches = Vec::new();
    for (name, patch) in place.patches(deployed) {
        let path = format!("patches/{name}.yaml");
        let what = "What the region's name and region-config change in base.";
        files.insert(PathBuf::from(&path), yaml::document(&comment(what), &patch)?);
        patches.push(json!({"path": path}));
    }
    for (name, text) in configuration {
        files.insert(Path::new("config").join(name), text.clone());
    }
    let in_map = |names: [&str; 2]| -> Vec<String> {
        names.iter().filter(|name| configuration.contains_key(**name)).map(|name| format!("config/{name}")).collect()
    };
    let kustomization: Value = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": resources,
        "components": ["../../site"],
        "configMapGenerator": [
            {"name": "topology", "files": in_map(AT_THE_START)},
            {"name": "rules", "files": in_map(AT_ANY_TIME), "options": {"disableNameSuffixHash": true}},
        ],
        "patches": patches,
    });
    let what = format!("Region {}. Put what is yours into ../../site: this folder is made anew each time.", place.region);
    files.insert(PathBuf::from(MARKED_FILE), yaml::document(&comment(&what), &kustomization)?);
    Ok(files)
}

/// What every made file begins with.
fn comment(what: &str) -> String {
    format!("{} from region-config: change that, and render again.\n{what}", MARK.trim_start_matches("# "))
}
