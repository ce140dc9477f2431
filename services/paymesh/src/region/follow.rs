//! What follows from a region that is added or retired: what it leads, copies and holds, and what is to be done next.

use paymesh_journal::Holding;
use paymesh_replication::plan;
use paymesh_topology::{NewRegion, Topology};
use paymesh_types::RegionName;
use serde::Serialize;

use crate::say;

use super::may_lead;

/// What follows, in sentences, and what to do, in commands.
#[derive(Debug, Serialize)]
pub(super) struct Follows {
    /// What is so once it is done.
    facts: Vec<String>,
    /// What to do next, in this order; each a command, or a sentence in parentheses.
    next: Vec<String>,
}

pub(super) fn of_added(topology: &Topology, new: &NewRegion) -> Follows {
    let (name, zone) = (&new.name, &new.zone);
    let label = name.as_str().replace('_', "-");
    let followed = plan(topology, name);
    let whole = followed.iter().filter(|followed| followed.holding == Holding::Whole).count();
    let reduced = followed.len() - whole;
    let mut facts = Vec::new();
    if may_lead(new) {
        let led = topology.led_by(name).len();
        facts.push(format!("it may lead shards of zone {zone}, and leads {led} as the file is (`zones.{zone}.leaders`)"));
    } else {
        facts.push("it leads no shard: it takes every call, and carries writes to their home".to_owned());
    }
    if !followed.is_empty() {
        facts.push(format!(
            "it copies {whole} journals whole ({zone}'s and the directory's), and of {reduced} others what concerns its zone"
        ));
        let countries = topology.zone(zone).map_or(0, |zone| zone.countries.len());
        facts
            .push(format!("it will hold personal data of the users of zone {zone}, who live in {countries} countries, and of nobody else"));
    }
    if !new.compliance.is_empty() {
        let regimes = new.compliance.iter().map(|regime| regime.as_str()).collect::<Vec<_>>().join(" and ");
        facts.push(format!("it is under {regimes}"));
    }
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
        next.push(format!("terraform -chdir=deploy/terraform/region apply -var region={name} -var zone_id=ZONE_ID"));
        next.push("terraform -chdir=deploy/terraform/global apply   (names lead to it from then on, once it is healthy)".to_owned());
        next.push(format!("paymesh render kubernetes, and kubectl apply -k deploy/kubernetes/overlays/{name}, in cluster paymesh-{label}"));
    }
    next.push(format!("paymesh node --region {name} --data ./data/{name}   (or `paymesh up`: on this machine)"));
    Follows { facts, next }
}

pub(super) fn of_retired(topology: &Topology, name: &RegionName) -> Follows {
    let followed = plan(topology, name).len();
    let mut facts = vec!["it led nothing: no money was booked there, and none is lost with it".to_owned()];
    if followed > 0 {
        facts.push(format!(
            "its {followed} copies of other regions' journals stay on its disks, with personal data, until these are erased"
        ));
    }
    let mut next =
        vec!["(give the file to all nodes, and restart them one after the other: until then they go on feeding its copies)".to_owned()];
    if topology.cloud().is_some() {
        next.push("terraform -chdir=deploy/terraform/global apply   (no name leads to it any more; wait for a minute, the time that names are kept)".to_owned());
        next.push(format!(
            "kubectl delete -k deploy/kubernetes/overlays/{name}, then paymesh render kubernetes, which removes the overlay"
        ));
        next.push(format!(
            "terraform -chdir=deploy/terraform/region destroy -var region={name} -var protected=false   (with the regions.yaml of before, which still has it; apply that first where it was protected)"
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
