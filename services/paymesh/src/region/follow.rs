//! What follows from a region that is added or retired: what it leads, copies and holds, and what is to be done next.

use std::path::Path;

use paymesh_journal::Holding;
use paymesh_planning::HOURS_PER_MONTH;
use paymesh_replication::plan;
use paymesh_topology::{Compliance, Database, NewRegion, PRICES_FILE_NAME, Prices, Region, Service, Topology};
use paymesh_types::RegionName;
use rust_decimal::Decimal;
use serde::Serialize;

use crate::{exit::unusable, say};

use super::may_lead;

/// What follows, in sentences, and what to do, in commands.
#[derive(Debug, Serialize)]
pub(super) struct Follows {
    /// What is so once it is done.
    facts: Vec<String>,
    /// What to do next, in this order; each a command, or a sentence in parentheses.
    next: Vec<String>,
}

/// What a month of one of each of the region's machines costs, by prices.yaml; how many there are is Terraform's to say, and the autoscaler's.
fn cost(config: &Path, topology: &Topology, new: &NewRegion) -> anyhow::Result<Option<String>> {
    let Some(cloud) = topology.cloud() else { return Ok(None) };
    let folder = if config.is_dir() { config } else { config.parent().unwrap_or(Path::new("")) };
    if !folder.join(PRICES_FILE_NAME).exists() {
        return Ok(Some(format!("what it costs is not known: there is no {PRICES_FILE_NAME}")));
    }
    let prices = Prices::load(config).map_err(unusable)?;
    let vault = new.services.contains(&Service::Vault).then_some(("its vault", &cloud.machines.vault));
    let others = [("its node", &cloud.machines.node), ("an edge", &cloud.machines.edge), ("its database", &cloud.machines.database)];
    let alone = new.database == Database::None;
    let machines = others.into_iter().filter(|_| !alone).chain(vault);
    let mut each = Vec::new();
    for (what, kind) in machines {
        let month = prices.instance_type(kind).map(|kind| kind.per_hour * Decimal::from(HOURS_PER_MONTH));
        let price = month.map_or_else(|| "no price".to_owned(), |month| format!("{} {}", month.round_dp(2), prices.currency()));
        each.push(format!("{what} ({kind}) {price}"));
    }
    let each = each.join(", ");
    Ok(Some(format!("a month of {HOURS_PER_MONTH} hours costs, by {PRICES_FILE_NAME}: {each}; `paymesh plan` says what traffic needs")))
}

pub(super) fn of_added(config: &Path, topology: &Topology, new: &NewRegion) -> anyhow::Result<Follows> {
    let (name, zone) = (&new.name, &new.zone);
    let label = name.as_str().replace('_', "-");
    let followed = plan(topology, name);
    let whole = followed.iter().filter(|followed| followed.holding == Holding::Whole).count();
    let reduced = followed.len() - whole;
    let mut facts = Vec::new();
    if may_lead(new) {
        let led = topology.led_by(name).len();
        facts.push(format!("it may lead shards of zone {zone}, and leads {led} as the file is (`zones.{zone}.leaders`)"));
    } else if new.database == Database::None {
        facts.push(format!(
            "it is the vault of zone {zone}, and nothing else: it takes the calls for a vault, and no others. Cards do not move there by themselves (README, \"Cards\")"
        ));
    } else {
        facts.push("it leads no shard: it takes every call, and carries writes to their home".to_owned());
    }
    if new.services.contains(&Service::Vault) {
        facts.push(format!("its node signs the key that cards of zone {zone} are sealed to: tell callers who seal (`Vaults` of crates/client) of region {name} before"));
    }
    if !followed.is_empty() {
        let border = if reduced == 0 { String::new() } else { format!(", and of {reduced} others what concerns its zone") };
        facts.push(format!("it copies {whole} journals whole ({zone}'s and the directory's){border}"));
        let countries = topology.zone(zone).map_or(0, |zone| zone.countries.len());
        facts
            .push(format!("it will hold personal data of the users of zone {zone}, who live in {countries} countries, and of nobody else"));
    }
    if !new.compliance.is_empty() {
        let regimes = new.compliance.iter().map(|regime| regime.as_str()).collect::<Vec<_>>().join(" and ");
        facts.push(format!("it is under {regimes}"));
    }
    let others_are =
        topology.regions().any(|region| region.zone == *zone && region.name != *name && region.compliance.contains(&Compliance::Psd2));
    if new.compliance.contains(&Compliance::Psd2) && !others_are {
        facts.push(format!("zone {zone} comes under PSD2 by it: payments by card of all its users are under strong authentication from then on, in every region"));
    }
    facts.extend(cost(config, topology, new)?);
    let mut next = vec![
        "(every node of the mesh reads the file when it starts: give it to all of them, and restart them one after the other)".to_owned(),
        "paymesh certs ./credentials   (or your own authority: a certificate for the new node)".to_owned(),
    ];
    if let Some(site) = &new.site {
        if let Some(source) = topology.region(name).and_then(|region| region.site.as_ref()).and_then(|site| site.replica_of.as_ref()) {
            facts.push(format!("its database, in {}, is a replica of that of {source}", site.aws_region));
        }
        next.push(format!(
            "terraform -chdir=deploy/terraform/region init -reconfigure -backend-config=key=region/{name}.tfstate   (after backend.tf.example)"
        ));
        next.push(format!("terraform -chdir=deploy/terraform/region apply -var region={name} -var zone_id=ZONE_ID   (ZONE_ID: terraform -chdir=deploy/terraform/global output -raw zone_id)"));
        if new.database != Database::None {
            next.push("terraform -chdir=deploy/terraform/global apply   (names lead to it from then on, once it is healthy)".to_owned());
        }
        next.push(format!("paymesh render kubernetes, and kubectl apply -k deploy/kubernetes/overlays/{name}, in cluster paymesh-{label}"));
    }
    let process = if new.database == Database::None { "vault" } else { "node" };
    next.push(format!("paymesh {process} --region {name} --data ./data/{name}   (or `paymesh up`: on this machine)"));
    Ok(Follows { facts, next })
}

pub(super) fn of_retired(topology: &Topology, name: &RegionName) -> Follows {
    let followed = plan(topology, name).len();
    let mut facts = vec!["it led nothing: no money was booked there, and none is lost with it".to_owned()];
    if followed > 0 {
        facts.push(format!(
            "its {followed} copies of other regions' journals stay on its disks, with personal data, until these are erased"
        ));
    }
    if let Some(zone) = topology.region(name).map(|region| &region.zone) {
        let keeps = |region: &&Region| region.zone == *zone && region.name != *name && region.database != Database::None;
        let left: Vec<&Region> = topology.regions().filter(keeps).collect();
        if let [only] = left[..] {
            facts.push(format!("{} alone has the journals of zone {zone} then: no region has a copy of them", only.name));
        }
    }
    let mut next =
        vec!["(give the file to all nodes, and restart them one after the other: until then they go on feeding its copies)".to_owned()];
    if topology.cloud().is_some() {
        next.push("terraform -chdir=deploy/terraform/global apply   (no name leads to it any more; wait for a minute, the time that names are kept)".to_owned());
        next.push(format!(
            "kubectl delete -k deploy/kubernetes/overlays/{name}, then paymesh render kubernetes, which removes the overlay"
        ));
        next.push(format!(
            "terraform -chdir=deploy/terraform/region init -reconfigure -backend-config=key=region/{name}.tfstate   (first: the state is the one that was chosen last, perhaps another region's)"
        ));
        next.push(format!(
            "terraform -chdir=deploy/terraform/region destroy -var region={name} -var protected=false -var region_config=OLD   (OLD: a directory with the regions.yaml of before, which still has it; `apply` with the same first, where it was protected)"
        ));
    }
    next.push(format!("(stop the node of {name}, and erase its data directory)"));
    Follows { facts, next }
}

pub(super) fn say(follows: &Follows) {
    for fact in &follows.facts {
        say!("  {fact}");
    }
    say!("next:");
    for step in &follows.next {
        say!("  {step}");
    }
}
