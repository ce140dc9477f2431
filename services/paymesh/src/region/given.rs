//! What was given of a region to add, and what is chosen where it was not: as the other regions of its zone have it.

use std::net::IpAddr;

use paymesh_topology::{Compliance, Database, Endpoint, Network, NewRegion, NewSite, Region, Service, Topology};
use serde::Serialize;

use crate::{args::AddArgs, exit::unusable, render::DEPLOYED_NAME_BYTES_MAX};

/// A region that is complete.
pub(super) struct Given {
    pub(super) region: NewRegion,
    pub(super) chosen: Vec<Chosen>,
}

/// What was chosen for the caller.
#[derive(Debug, Serialize)]
pub(super) struct Chosen {
    /// The option that would have given it.
    pub(super) option: &'static str,
    pub(super) value: String,
    pub(super) why: String,
}

/// Completes what was given. That it fits the others is found by whoever adds it.
pub(super) fn complete(topology: &Topology, args: &AddArgs) -> anyhow::Result<Given> {
    if topology.region(&args.name).is_some() {
        return Err(unusable(format!("there is a region {} already", args.name)));
    }
    let Some(zone) = topology.zone(&args.zone) else {
        let known = topology.zones().map(|zone| zone.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(unusable(format!("--zone: there is no zone `{}`; the zones are {known}", args.zone)));
    };
    let others: Vec<&Region> = topology.regions().filter(|region| region.zone == zone.name && !region.is_vault_alone()).collect();
    let mut chosen = Vec::new();
    let mut choose = |option, value: String, why: String| chosen.push(Chosen { option, value, why });

    let database = match &args.database {
        Some(word) => known(word, Database::from_word, Database::WORDS, "--database")?,
        None => {
            choose("--database", Database::ReadReplica.to_string(), "it takes every call, and leads nothing".to_owned());
            Database::ReadReplica
        }
    };
    let services = if args.services.is_empty() {
        // The cards of a zone are in one place.
        let last = others.last().map(|region| region.services.clone()).unwrap_or_else(|| vec![Service::PaymentProcessor]);
        let services: Vec<Service> = last.into_iter().filter(|service| *service != Service::Vault).collect();
        let words = services.iter().map(|service| service.as_str()).collect::<Vec<_>>().join(",");
        choose("--services", words, format!("what zone {} runs elsewhere, but for the vault, of which a zone has one", zone.name));
        services
    } else {
        args.services.iter().map(|word| known(word, Service::from_word, Service::WORDS, "--services")).collect::<anyhow::Result<_>>()?
    };
    let compliance = if args.compliance.is_empty() {
        let regimes = others.first().map(|region| region.compliance.clone()).unwrap_or_default();
        if !regimes.is_empty() {
            let words = regimes.iter().map(|regime| regime.as_str()).collect::<Vec<_>>().join(",");
            choose("--compliance", words, format!("as the other regions of zone {}", zone.name));
        }
        regimes
    } else {
        args.compliance
            .iter()
            .map(|word| known(word, Compliance::from_word, Compliance::WORDS, "--compliance"))
            .collect::<anyhow::Result<_>>()?
    };
    let grpc = match &args.grpc {
        Some(endpoint) => endpoint.clone(),
        None => {
            let endpoint = free(topology, |region| &region.grpc, None)?;
            choose("--grpc", endpoint.to_string(), "the next port that no other region has, for a mesh on one machine".to_owned());
            endpoint
        }
    };
    let http = match &args.http {
        Some(endpoint) => endpoint.clone(),
        None => {
            let endpoint = free(topology, |region| &region.http, Some(&grpc))?;
            choose("--http", endpoint.to_string(), "the next port that no other region has, for a mesh on one machine".to_owned());
            endpoint
        }
    };
    let site = match (topology.cloud(), &args.aws_region) {
        (None, None) => None,
        (None, Some(_)) => {
            return Err(unusable("--aws-region: regions.yaml has no `cloud`, so no region has a place there: add the block first"));
        }
        (Some(_), None) => {
            return Err(unusable(
                "--aws-region is missing: regions.yaml has `cloud`, so every region has a place there, such as --aws-region eu-central-1",
            ));
        }
        (Some(_), Some(aws_region)) => {
            let there =
                |region: &&Region| !region.is_vault_alone() && region.site.as_ref().is_some_and(|site| site.aws_region == *aws_region);
            // A vault alone takes no calls, and no name leads to it.
            if let (Some(other), true) = (topology.regions().find(there), database != Database::None) {
                return Err(unusable(format!(
                    "--aws-region: {} is in {aws_region} already, and names by latency could not tell the two apart",
                    other.name
                )));
            }
            let name = args.name.as_str();
            if name.len() > DEPLOYED_NAME_BYTES_MAX || name.ends_with('_') {
                return Err(unusable(format!(
                    "{name}: the name of a region that is deployed has {DEPLOYED_NAME_BYTES_MAX} bytes at most and ends in no `_`: names of hosts and balancers are made of it"
                )));
            }
            let network = match args.network {
                Some(network) => network,
                None => {
                    let network = free_network(topology)?;
                    choose("--network", network.to_string(), "the next that no other region has".to_owned());
                    network
                }
            };
            Some(NewSite { aws_region: aws_region.clone(), network, replica_of: args.replica_of.clone() })
        }
    };
    let region = NewRegion { name: args.name.clone(), zone: zone.name.clone(), services, database, compliance, grpc, http, site };
    Ok(Given { region, chosen })
}

fn known<T>(word: &str, read: fn(&str) -> Option<T>, words: &[&str], option: &str) -> anyhow::Result<T> {
    read(word).ok_or_else(|| unusable(format!("{option}: `{word}` is not known; known are {}", words.join(", "))))
}

/// The endpoint after the last that is like it, and not the region's own other one.
fn free(topology: &Topology, of: impl Fn(&Region) -> &Endpoint, own: Option<&Endpoint>) -> anyhow::Result<Endpoint> {
    let last = topology.regions().map(&of).max_by_key(|endpoint| endpoint.port());
    let (host, after) = last.map_or(("127.0.0.1", 7101), |endpoint| (endpoint.host(), endpoint.port()));
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let of_others = |endpoint: &Endpoint| topology.regions().any(|region| region.grpc.overlaps(endpoint) || region.http.overlaps(endpoint));
    let taken = |endpoint: &Endpoint| of_others(endpoint) || own.is_some_and(|own| own.overlaps(endpoint));
    let found = (after..=u16::MAX).skip(1).find_map(|port| format!("{host}:{port}").parse::<Endpoint>().ok().filter(|one| !taken(one)));
    found.ok_or_else(|| unusable("no port is left: say --grpc and --http"))
}

/// The /16 after the last network.
fn free_network(topology: &Topology) -> anyhow::Result<Network> {
    let networks: Vec<Network> = topology.regions().filter_map(|region| region.site.as_ref().map(|site| site.network)).collect();
    let second = |network: &Network| match network.first() {
        IpAddr::V4(first) => first.octets()[1],
        IpAddr::V6(_) => 0,
    };
    let after = networks.iter().map(second).max().unwrap_or(15);
    let all = (after..=u8::MAX).skip(1).chain(0..=after);
    let free = all.filter_map(|byte| format!("10.{byte}.0.0/16").parse::<Network>().ok());
    let mut free = free.filter(|network| networks.iter().all(|other| !other.overlaps(network)));
    free.next().ok_or_else(|| unusable("no network is left within 10.0.0.0/8: say --network"))
}
