//! `paymesh certs`: credentials for a mesh on one machine. In production an authority of one's own makes the same files.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use paymesh_identity::{AUTHORITIES_FILE, Authority, NodeName};
use paymesh_topology::Topology;
use paymesh_types::RegionName;

use crate::{
    args::CertsArgs,
    client,
    exit::{Exit, unusable},
    output::Table,
    say,
};

/// How long a development certificate holds.
const HOLDS: Duration = Duration::from_secs(90 * 24 * 3600);

/// Runs the command.
pub(crate) fn run(config: &Path, args: &CertsArgs) -> anyhow::Result<Exit> {
    let topology = client::load(config)?;
    let hours = HOLDS.as_secs() / 3600;
    make(&topology, &args.directory, args.hours.map_or(HOLDS, |hours| Duration::from_secs(hours * 3600)))?;
    let mut table = Table::new(["node", "credentials"]);
    for region in topology.regions() {
        table.row([name(&topology, &region.name)?.to_string(), of_region(&args.directory, &region.name).display().to_string()]);
    }
    say!("{table}");
    let hours = args.hours.unwrap_or(hours);
    say!("they hold {hours} hours; nodes that run take new ones into use within seconds");
    say!("callers believe {}", args.directory.join(AUTHORITIES_FILE).display());
    Ok(Exit::Good)
}

/// The directory of a region's node.
pub(crate) fn of_region(directory: &Path, region: &RegionName) -> PathBuf {
    directory.join(region.as_str())
}

/// Makes credentials for every region's node, over what is there, by the authority that is there or a new one.
pub(crate) fn make(topology: &Topology, directory: &Path, holds: Duration) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let authority = Authority::open(directory, topology.mesh(), now).map_err(unusable)?;
    for region in topology.regions() {
        let hosts = [region.grpc.host().to_owned(), "localhost".to_owned()];
        authority.issue_node(&name(topology, &region.name)?, &hosts, &of_region(directory, &region.name), now, holds).map_err(unusable)?;
    }
    Ok(())
}

/// Those of the demo, and of `up` where nobody has made any.
pub(crate) fn make_for_now(topology: &Topology, directory: &Path) -> anyhow::Result<()> {
    make(topology, directory, HOLDS)
}

fn name(topology: &Topology, region: &RegionName) -> anyhow::Result<NodeName> {
    NodeName::new(topology.mesh(), region, NodeName::NODE)
        .ok_or_else(|| unusable(format!("a certificate cannot name the mesh {}", topology.mesh())))
}
