//! The configuration as the deployed processes read it: endpoints by the DNS, vaults apart, and nothing of the cloud, which they have no use for.
//!
//! A region that has `vault` beside other services becomes two: itself without it, and `REGION_vault` with nothing else, in the same zone under the same regimes. What
//! comes out is read by the same reader as what went in.

use std::collections::BTreeMap;

use anyhow::Context as _;
use paymesh_topology::{Service, Topology};
use paymesh_types::RegionName;

use super::{EDGE_PORT, HTTP_PORT};
use crate::{
    exit::unusable,
    render::yaml::{self, Tree, map},
};

const COMMENT: &str = "Made by `paymesh render kubernetes` from region-config/regions.yaml: change that, and render again.";

/// What the processes read.
pub(super) struct Deployed {
    /// regions.yaml.
    pub(super) text: String,
    /// The same, validated.
    pub(super) topology: Topology,
    /// The vault of each region that has one, as the deployed configuration calls it.
    pub(super) vaults: BTreeMap<RegionName, RegionName>,
}

/// Makes it of regions.yaml. `source` is what errors call that file.
///
/// # Errors
/// The name of a vault is too long or taken, or what was made is refused.
pub(super) fn derive(source: &str, yaml: &str, topology: &Topology, domain: &str) -> anyhow::Result<Deployed> {
    let mut vaults = BTreeMap::new();
    for region in topology.regions().filter(|region| region.runs(Service::Vault)) {
        let vault = if region.is_vault_alone() { region.name.clone() } else { vault_name(source, topology, &region.name)? };
        vaults.insert(region.name.clone(), vault);
    }
    let mut root = Tree::parse(yaml).with_context(|| source.to_owned())?;
    let split =
        |name: &str| vaults.iter().find(|(region, vault)| region.as_str() == name && region != vault).map(|(_, vault)| vault.as_str());
    part_regions(&mut root, split);
    part_zones(&mut root, split);
    let endpoints = topology.regions().flat_map(|region| {
        let own = Some(&region.name).filter(|name| vaults.get(*name) != Some(*name));
        own.map(|name| (name.as_str(), label(name)))
            .into_iter()
            .chain(vaults.get(&region.name).map(|vault| (vault.as_str(), label(&region.name) + "-vault")))
    });
    let endpoints = endpoints.map(|(name, host)| (name.to_owned(), endpoint(&host, domain))).collect();
    if let Some(entries) = root.entries_mut() {
        entries.retain(|(key, _)| key != "cloud");
        entries.iter_mut().filter(|(key, _)| key == "endpoints").for_each(|(_, value)| *value = Tree::Map(Vec::clone(&endpoints)));
    }
    let text = yaml::document(COMMENT, &root)?;
    let topology = Topology::parse("the deployed regions.yaml", &text).map_err(unusable)?;
    Ok(Deployed { text, topology, vaults })
}

/// A region's part of the names of the DNS and of the cloud: `us-east`.
pub(super) fn label(region: &RegionName) -> String {
    region.as_str().replace('_', "-")
}

/// Where peers find a process.
fn endpoint(host: &str, domain: &str) -> Tree {
    let at = |port| Tree::Text(format!("{host}.nodes.{domain}:{port}"));
    map([("grpc", at(EDGE_PORT)), ("http", at(HTTP_PORT))])
}

fn vault_name(source: &str, topology: &Topology, region: &RegionName) -> anyhow::Result<RegionName> {
    let name = format!("{region}_vault");
    let vault: RegionName = name.parse().map_err(|why| {
        unusable(format!(
            "{source}: regions.{region}: its vault is deployed apart, as {name}, which is no region's name ({why}): choose a shorter name"
        ))
    })?;
    if topology.region(&vault).is_some() {
        return Err(unusable(format!(
            "{source}: regions.{region}: its vault is deployed apart, as {name}, and there is a region of that name: rename one of the two"
        )));
    }
    Ok(vault)
}

/// Puts each vault that is apart behind its region.
fn part_regions<'a>(root: &mut Tree, split: impl Fn(&str) -> Option<&'a str>) {
    let Some(regions) = root.get_mut("regions").and_then(Tree::entries_mut) else { return };
    let whole = std::mem::take(regions);
    for (name, mut region) in whole {
        let Some(vault) = split(&name) else {
            regions.push((name, region));
            continue;
        };
        let mut alone = vec![
            ("primary".to_owned(), Tree::Flag(false)),
            ("services".to_owned(), Tree::List(vec![Tree::from(Service::Vault.as_str())])),
            ("database".to_owned(), Tree::from("none")),
        ];
        alone.extend(region.get("compliance").map(|regimes| ("compliance".to_owned(), regimes.clone())));
        if let Some(entries) = region.entries_mut() {
            let keys = entries.iter().position(|(key, _)| key == "vault_keys").map(|keys| entries.remove(keys));
            alone.extend(keys);
        }
        if let Some(services) = region.get_mut("services").and_then(Tree::items_mut) {
            services.retain(|service| *service != Tree::from(Service::Vault.as_str()));
        }
        regions.push((name, region));
        regions.push((vault.to_owned(), Tree::Map(alone)));
    }
}

/// Puts each vault that is apart into its region's zone.
fn part_zones<'a>(root: &mut Tree, split: impl Fn(&str) -> Option<&'a str>) {
    let Some(zones) = root.get_mut("zones").and_then(Tree::entries_mut) else { return };
    for (_, zone) in zones {
        let Some(regions) = zone.get_mut("regions").and_then(Tree::items_mut) else { continue };
        let whole = std::mem::take(regions);
        for region in whole {
            let vault = if let Tree::Text(name) = &region { split(name) } else { None };
            regions.push(region);
            regions.extend(vault.map(Tree::from));
        }
    }
}
