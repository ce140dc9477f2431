//! `paymesh certs`: credentials for a mesh on one machine. In production an authority of one's own makes the same files.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use paymesh_access::{ISSUER_DIRECTORY, TokenIssuer};
use paymesh_contract::policies;
use paymesh_identity::{AUTHORITIES_FILE, Authority, CERTIFICATE_FILE, CallerName, NodeName};
use paymesh_topology::{ACCESS_FILE_NAME, Access, Topology};
use paymesh_types::RegionName;

use crate::{
    args::CertsArgs,
    client,
    exit::{Exit, unusable},
    output::Table,
    say,
};

/// What the operators' principal is called, and the directory of its certificate.
const OPERATOR: &str = "operator";

/// What the directory of a region's edges ends in, after the region's name.
const EDGE_ENDING: &str = "-edge";

/// How long a development certificate holds.
const HOLDS: Duration = Duration::from_secs(90 * 24 * 3600);

/// Runs the command.
pub(crate) fn run(config: &Path, args: &CertsArgs) -> anyhow::Result<Exit> {
    let topology = client::load(config)?;
    let hours = HOLDS.as_secs() / 3600;
    let holds = args.hours.map_or(HOLDS, |hours| Duration::from_secs(hours * 3600));
    make(&topology, &args.directory, &args.callers, holds)?;
    let mut table = Table::new(["who", "credentials"]);
    for region in topology.regions() {
        table.row([name(&topology, &region.name)?.to_string(), of_region(&args.directory, &region.name).display().to_string()]);
    }
    for region in topology.entries() {
        table.row([edge_name(&topology, &region.name)?.to_string(), of_edge(&args.directory, &region.name).display().to_string()]);
    }
    for caller in all_callers(&args.callers) {
        table.row([caller_name(&topology, caller)?.to_string(), args.directory.join(caller).display().to_string()]);
    }
    table.row(["an issuer of tokens, for `paymesh token`".to_owned(), args.directory.join(ISSUER_DIRECTORY).display().to_string()]);
    say!("{table}");
    let hours = args.hours.unwrap_or(hours);
    say!("they hold {hours} hours; nodes that run take new ones into use within seconds");
    say!("callers believe {}", args.directory.join(AUTHORITIES_FILE).display());
    for caller in unknown_callers(config, &topology, &args.callers)? {
        say!("nodes do not know {caller} yet: {ACCESS_FILE_NAME} has no principal of that name with `certificate: true`");
    }
    for caller in earlier_callers(&args.directory, &topology, &args.callers) {
        say!("the certificate of {caller} is as it was; --caller {caller} makes another");
    }
    Ok(Exit::Good)
}

/// Those of the callers whom access.yaml does not let in by a certificate.
fn unknown_callers<'a>(config: &Path, topology: &Topology, callers: &'a [String]) -> anyhow::Result<Vec<&'a str>> {
    let access = Access::load(config, topology, &policies().caller_scopes()).map_err(unusable)?.unwrap_or_default();
    let known = |caller: &&str| access.principals().iter().any(|principal| principal.certificate && principal.name == *caller);
    Ok(callers.iter().map(String::as_str).filter(|caller| !known(caller)).collect())
}

/// Callers whose certificates were made another time, by name.
fn earlier_callers(directory: &Path, topology: &Topology, callers: &[String]) -> Vec<String> {
    let made_now = |name: &str| all_callers(callers).any(|caller| caller == name) || is_taken(topology, name);
    // Of a region that is in the configuration no more: no caller is called like an edge, or has edges.
    let of_a_region = |name: &str| name.ends_with(EDGE_ENDING) || directory.join(format!("{name}{EDGE_ENDING}")).exists();
    let there = std::fs::read_dir(directory).into_iter().flatten().flatten().filter(|entry| entry.path().join(CERTIFICATE_FILE).exists());
    let mut earlier: Vec<String> =
        there.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !made_now(name) && !of_a_region(name)).collect();
    earlier.sort_unstable();
    earlier
}

/// The directory of a region's node.
pub(crate) fn of_region(directory: &Path, region: &RegionName) -> PathBuf {
    directory.join(region.as_str())
}

/// The directory of a region's edges. No region's name has a `-`.
pub(crate) fn of_edge(directory: &Path, region: &RegionName) -> PathBuf {
    directory.join(format!("{region}{EDGE_ENDING}"))
}

/// Whether a directory is that of a region's node or edges.
fn is_taken(topology: &Topology, directory: &str) -> bool {
    let region = directory.strip_suffix(EDGE_ENDING).unwrap_or(directory);
    topology.regions().any(|known| known.name.as_str() == region)
}

/// The directory of the operator's own certificate, where there is one.
pub(crate) fn of_operator(directory: &Path) -> Option<PathBuf> {
    Some(directory.join(OPERATOR)).filter(|own| own.exists())
}

fn all_callers(callers: &[String]) -> impl Iterator<Item = &str> {
    std::iter::once(OPERATOR).chain(callers.iter().map(String::as_str))
}

/// Makes credentials for every region's node, the operator and these callers, over what is there, by the authority that is there or a new one; and an
/// issuer of tokens, where there is none.
fn make(topology: &Topology, directory: &Path, callers: &[String], holds: Duration) -> anyhow::Result<()> {
    for caller in callers {
        let taken = is_taken(topology, caller) || caller == ISSUER_DIRECTORY;
        if taken {
            return Err(unusable(format!("a caller cannot be called {caller}: the directory of that name is another's")));
        }
    }
    let now = SystemTime::now();
    let authority = Authority::open(directory, topology.mesh(), now).map_err(unusable)?;
    for region in topology.regions() {
        let hosts = [region.grpc.host().to_owned(), "localhost".to_owned()];
        authority.issue_node(&name(topology, &region.name)?, &hosts, &of_region(directory, &region.name), now, holds).map_err(unusable)?;
    }
    for region in topology.entries() {
        let hosts = [region.grpc.host().to_owned(), "localhost".to_owned()];
        authority
            .issue_node(&edge_name(topology, &region.name)?, &hosts, &of_edge(directory, &region.name), now, holds)
            .map_err(unusable)?;
    }
    for caller in all_callers(callers) {
        authority.issue_caller(&caller_name(topology, caller)?, &directory.join(caller), now, holds).map_err(unusable)?;
    }
    TokenIssuer::open_or_make(directory).map_err(unusable)?;
    Ok(())
}

/// Those of the demo, and of `up` where nobody has made any.
pub(crate) fn make_for_now(topology: &Topology, directory: &Path) -> anyhow::Result<()> {
    make(topology, directory, &[], HOLDS)
}

fn caller_name(topology: &Topology, caller: &str) -> anyhow::Result<CallerName> {
    CallerName::new(topology.mesh(), caller)
        .ok_or_else(|| unusable(format!("a certificate cannot name the caller {caller}: 1 to 63 of a-z, 0-9, - and _")))
}

fn edge_name(topology: &Topology, region: &RegionName) -> anyhow::Result<NodeName> {
    named(topology, region, NodeName::EDGE)
}

fn name(topology: &Topology, region: &RegionName) -> anyhow::Result<NodeName> {
    named(topology, region, NodeName::NODE)
}

fn named(topology: &Topology, region: &RegionName, service: &str) -> anyhow::Result<NodeName> {
    NodeName::new(topology.mesh(), region, service)
        .ok_or_else(|| unusable(format!("a certificate cannot name the mesh {}", topology.mesh())))
}
