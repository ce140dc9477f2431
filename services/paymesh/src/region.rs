//! `paymesh region`: regions of the configuration, added and retired by an edit of regions.yaml that keeps everything else as it was.
//!
//! The file is the truth here; no node is asked. What is written is sound as a whole, and is written whole: `edit` of crates/topology proves the one, and
//! `file` sees to the other.

mod file;
mod follow;
mod given;

use std::path::Path;

use paymesh_contract::policies;
use paymesh_topology::{
    Access, Compliance, Database, EditError, Fraud, Gateways, NewRegion, Scaling, Service, Topology, add_region, retire_region,
};
use paymesh_types::RegionName;
use serde::Serialize;

use crate::{
    args::{AddArgs, ListArgs, RegionCommand, RetireArgs, Setting},
    client,
    exit::{Exit, unusable},
    note,
    output::{Table, say_json},
    say,
};
use file::ConfigFile;

/// Runs the command.
pub(crate) fn run(setting: &Setting, command: &RegionCommand) -> anyhow::Result<Exit> {
    match command {
        RegionCommand::Add(args) => add(&setting.config, args),
        RegionCommand::Retire(args) => retire(&setting.config, args),
        RegionCommand::List(args) => list(&setting.config, args),
    }
}

fn add(config: &Path, args: &AddArgs) -> anyhow::Result<Exit> {
    let file = ConfigFile::of(config)?;
    let before = Topology::parse(file.name(), file.text()).map_err(unusable)?;
    let given = given::complete(&before, args)?;
    let (text, after) = add_region(file.name(), file.text(), &given.region).map_err(refused)?;
    others_fit(config, &before, &after)?;
    let follows = follow::of_added(config, &after, &given.region)?;
    finish(&file, &text, args.dry_run)?;
    if args.json {
        say_json(&Added {
            region: given.region.name.as_str(),
            file: file.name(),
            written: !args.dry_run,
            chosen: &given.chosen,
            follows: &follows,
        })?;
        return Ok(Exit::Good);
    }
    file.show_difference(&text);
    for chosen in &given.chosen {
        say!("{} is {}: {}", chosen.option, chosen.value, chosen.why);
    }
    say!("{} {} {}", file.name(), if args.dry_run { "would have" } else { "has" }, given.region.name);
    follow::say(&follows);
    Ok(Exit::Good)
}

fn retire(config: &Path, args: &RetireArgs) -> anyhow::Result<Exit> {
    let file = ConfigFile::of(config)?;
    let before = Topology::parse(file.name(), file.text()).map_err(unusable)?;
    may_retire(&before, &args.region)?;
    let (text, after) = retire_region(file.name(), file.text(), &args.region).map_err(refused)?;
    others_fit(config, &before, &after)?;
    let follows = follow::of_retired(&before, &args.region);
    finish(&file, &text, args.dry_run)?;
    if args.json {
        say_json(&Added { region: args.region.as_str(), file: file.name(), written: !args.dry_run, chosen: &[], follows: &follows })?;
        return Ok(Exit::Good);
    }
    file.show_difference(&text);
    say!("{} {} {} any more", file.name(), if args.dry_run { "would not have" } else { "does not have" }, args.region);
    follow::say(&follows);
    Ok(Exit::Good)
}

/// What came of the command, as JSON.
#[derive(Serialize)]
struct Added<'a> {
    region: &'a str,
    file: &'a str,
    /// False with --dry-run.
    written: bool,
    /// What was not given, and was chosen.
    chosen: &'a [given::Chosen],
    #[serde(flatten)]
    follows: &'a follow::Follows,
}

/// Writes the text, unless it is a dry run.
fn finish(file: &ConfigFile, text: &str, dry_run: bool) -> anyhow::Result<()> {
    if dry_run {
        note!("nothing is written, because of --dry-run");
        return Ok(());
    }
    file.replace(text)
}

fn refused(error: EditError) -> anyhow::Error {
    match error {
        EditError::After(errors) => unusable(format!("nothing is written; the file would be refused:\n{errors}")),
        other => unusable(other),
    }
}

/// Whether the files beside regions.yaml, which are read against it, are as sound after an edit as they were before.
fn others_fit(config: &Path, before: &Topology, after: &Topology) -> anyhow::Result<()> {
    let scopes = policies().caller_scopes();
    let problems = |topology: &Topology| {
        [
            ("access.yaml", Access::load(config, topology, &scopes).err()),
            ("gateways.yaml", Gateways::load(config, topology).err()),
            ("fraud.yaml", Fraud::load(config, topology).err()),
            ("scaling.yaml", Scaling::load(config, topology).err()),
        ]
    };
    for ((name, was), (_, is)) in problems(before).into_iter().zip(problems(after)) {
        // What is missing or was wrong before stays for whoever reads it to say.
        if let (None, Some(errors)) = (was, is) {
            return Err(unusable(format!("nothing is written; {name} would be refused:\n{errors}")));
        }
    }
    Ok(())
}

/// Whether the mesh can be without a region: what only that has would be lost.
fn may_retire(topology: &Topology, name: &RegionName) -> anyhow::Result<()> {
    let region = topology.region(name).ok_or_else(|| {
        let known = topology.regions().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
        unusable(format!("there is no region `{name}`; the regions are {known}"))
    })?;
    let led = topology.led_by(name);
    if !led.is_empty() {
        let shards = led.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(unusable(format!(
            "{name} leads {shards}: the money of their users is booked there. Another master of zone {} has to lead them first (`leaders` in regions.yaml), with their journals, \
             which it has once it has followed them to the end and {name} is stopped",
            region.zone
        )));
    }
    if region.runs(Service::Vault) {
        return Err(unusable(format!(
            "{name} keeps the cards of zone {}: move its vault and its keys to another region first (README, \"Cards\")",
            region.zone
        )));
    }
    // What no other region of the zone does would be done no more, and no call would fail that says so.
    let others = || topology.regions().filter(|other| other.zone == region.zone && other.name != *name);
    if region.runs(Service::FraudDetection) && !others().any(|other| other.runs(Service::FraudDetection)) {
        return Err(unusable(format!(
            "{name} alone scores payments of zone {} for fraud: they would be accepted without a score; have another of its regions run fraud_detection first (`services`)",
            region.zone
        )));
    }
    if region.compliance.contains(&Compliance::Psd2) && !others().any(|other| other.compliance.contains(&Compliance::Psd2)) {
        return Err(unusable(format!(
            "zone {} is under PSD2 by {name} alone: its cardholders would not be asked any more; say it of another of its regions first (`compliance`)",
            region.zone
        )));
    }
    let copies = |other: &&paymesh_topology::Region| other.site.as_ref().and_then(|site| site.replica_of.as_ref()) == Some(name);
    if let Some(other) = topology.regions().find(copies) {
        return Err(unusable(format!("the database of {} is a replica of that of {name}: give it another `replica_of` first", other.name)));
    }
    Ok(())
}

/// A region as it is listed.
#[derive(Serialize)]
struct Listed {
    region: String,
    zone: String,
    primary: bool,
    services: Vec<&'static str>,
    database: &'static str,
    compliance: Vec<&'static str>,
    leads: Vec<String>,
    aws_region: Option<String>,
    network: Option<String>,
    replica_of: Option<String>,
}

fn list(config: &Path, args: &ListArgs) -> anyhow::Result<Exit> {
    let topology = client::load(config)?;
    let listed: Vec<Listed> = topology
        .regions()
        .map(|region| Listed {
            region: region.name.to_string(),
            zone: region.zone.to_string(),
            primary: region.primary,
            services: region.services.iter().map(|service| service.as_str()).collect(),
            database: region.database.as_str(),
            compliance: region.compliance.iter().map(|regime| regime.as_str()).collect(),
            leads: topology.led_by(&region.name).iter().map(ToString::to_string).collect(),
            aws_region: region.site.as_ref().map(|site| site.aws_region.clone()),
            network: region.site.as_ref().map(|site| site.network.to_string()),
            replica_of: region.site.as_ref().and_then(|site| site.replica_of.as_ref()).map(ToString::to_string),
        })
        .collect();
    if args.json {
        say_json(&listed)?;
        return Ok(Exit::Good);
    }
    let mut table = Table::new(["region", "zone", "services", "database", "shards led", "AWS region", "network"]);
    for region in &listed {
        let of = region.replica_of.as_ref().map(|source| format!(" of {source}")).unwrap_or_default();
        table.row([
            region.region.clone(),
            region.zone.clone(),
            region.services.join(", "),
            format!("{}{of}", region.database),
            region.leads.len().to_string(),
            region.aws_region.clone().unwrap_or_else(|| "-".to_owned()),
            region.network.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    say!("{table}");
    Ok(Exit::Good)
}

/// Whether a region could ever lead shards.
fn may_lead(region: &NewRegion) -> bool {
    matches!(region.database, Database::PrimaryMaster | Database::RegionalMaster)
}
