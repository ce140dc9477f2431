//! What takes more than one key of `cloud` to see: that every region has a place, that no two have the same addresses, and that no zone's data is
//! put where the zone's data may not be.

use std::collections::BTreeMap;

use crate::{
    Cloud, Compliance, Database, Network, Site,
    cloud::EEA_AWS_REGIONS,
    problem::quote,
    read::{
        At, Draft, DraftZone,
        cloud::{DraftCloud, DraftSite},
    },
};

use super::{Check, Checked, on_line};

/// The cloud and the place of each region in it, by the region's index; without one, no region has a place.
pub(super) type Placed = (Option<Cloud>, BTreeMap<usize, Site>);

impl Check<'_, '_> {
    /// Makes the sites of parts that agree. `None` when a part is missing, for which there is a problem already.
    pub(super) fn cloud(&mut self, draft: &Draft, zones: &[DraftZone], checked: &Checked) -> Option<Placed> {
        for zone in zones {
            self.storage(zone, draft.cloud.is_some());
        }
        let Some(cloud) = &draft.cloud else { return Some((None, BTreeMap::new())) };
        self.names_below(zones);
        let mut placed = BTreeMap::new();
        for (region, site) in self.sites(cloud)? {
            let zone = checked.of_region[region].map(|zone| &zones[zone]);
            if let (Some(zone), Some(aws_region)) = (zone, &site.aws_region) {
                self.allowed(zone, aws_region);
            }
            let source = self.source(region, site, zone);
            let (Some(aws_region), Some(network), Some(source)) = (&site.aws_region, &site.network, source) else { continue };
            let replica_of = match source {
                Some(source) => Some(self.regions[source].valid_name.clone()?),
                None => None,
            };
            placed.insert(region, Site { aws_region: aws_region.value.clone(), network: network.value, replica_of });
        }
        let (domain, machines, kafka) = (cloud.domain.clone()?, cloud.machines.clone()?, cloud.kafka.clone()?);
        let whole = Cloud { domain, machines, kafka, protected: cloud.protected? };
        Some((Some(whole), placed))
    }

    /// Every region has one place, and no two have an address in common.
    fn sites<'d>(&mut self, cloud: &'d DraftCloud) -> Option<BTreeMap<usize, &'d DraftSite>> {
        let block = cloud.regions.as_ref()?;
        let mut of_region = BTreeMap::new();
        let mut taken: Vec<(&At<Network>, &str)> = Vec::new();
        for site in &block.value {
            if let Some(region) = self.known(&site.region) {
                of_region.insert(region, site);
            }
            let Some(network) = &site.network else { continue };
            match taken.iter().find(|(other, _)| other.value.overlaps(&network.value)) {
                Some((other, whose)) => {
                    let message = format!("{} overlaps {}, the network of {whose}{}", network.value, other.value, on_line(other.place));
                    self.say(network, message);
                }
                None => taken.push((network, &site.region.value)),
            }
        }
        for (index, region) in self.regions.iter().enumerate() {
            if !of_region.contains_key(&index) {
                let message = format!("has no place in the cloud: add `cloud.regions.{}`", region.name.value);
                self.problems.add(region.name.place, &region.name.key, message);
            }
        }
        Some(of_region)
    }

    /// What is deployed has names in the DNS and of databases, with `-` for `_`.
    fn names_below(&mut self, zones: &[DraftZone]) {
        for region in self.regions {
            let name = &region.name.value;
            let label = name.replace('_', "-");
            if zones.iter().any(|zone| zone.name.value == label) {
                let message = format!("there is a zone {label}, and {label}.api of the domain would lead to both: choose another name");
                self.problems.add(region.name.place, &region.name.key, message);
            }
            if name.contains("__") || name.ends_with('_') {
                let message = "a region that is deployed has no two _ in a row and none at the end of its name: names of databases have no such hyphens";
                self.problems.add(region.name.place, &region.name.key, message);
            }
        }
    }

    /// Data of people under the GDPR is stored where the GDPR holds, and the zone says where that is.
    fn storage(&mut self, zone: &DraftZone, deployed: bool) {
        let of_zone = zone.regions.iter().flat_map(|names| &names.value).filter_map(|name| self.region(&name.value));
        let gdpr = of_zone.filter_map(|region| self.regions[region].compliance.as_ref()).any(|regimes| regimes.contains(&Compliance::Gdpr));
        if !gdpr {
            return;
        }
        match &zone.aws_regions {
            Some(allowed) => {
                for aws_region in allowed.iter().flatten() {
                    if !EEA_AWS_REGIONS.contains(&aws_region.value.as_str()) {
                        let message = format!(
                            "{} is outside of the European Economic Area, and zone {} is under the GDPR: its data may be in {}",
                            aws_region.value,
                            zone.name.value,
                            EEA_AWS_REGIONS.join(", ")
                        );
                        self.say(aws_region, message);
                    }
                }
            }
            None if deployed => {
                let message = "is under the GDPR: say where its data may be stored, such as aws_regions: [eu-west-1, eu-central-1]";
                self.say(&zone.name, message);
            }
            None => {}
        }
    }

    /// A region is where its zone's data may be.
    fn allowed(&mut self, zone: &DraftZone, aws_region: &At<String>) {
        let Some(Some(allowed)) = &zone.aws_regions else { return };
        if !allowed.iter().any(|allowed| allowed.value == aws_region.value) {
            let names: Vec<&str> = allowed.iter().map(|allowed| allowed.value.as_str()).collect();
            let (zone, names) = (&zone.name.value, names.join(", "));
            self.say(aws_region, format!("data of zone {zone} may not be in {}: its aws_regions are {names}", aws_region.value));
        }
    }

    /// The region whose database a region's is a replica of, where it is one: a master of its zone. `None` when that cannot be said.
    fn source(&mut self, region: usize, site: &DraftSite, zone: Option<&DraftZone>) -> Option<Option<usize>> {
        let (name, database) = (&self.regions[region].name.value, self.regions[region].database.as_ref()?.value);
        let is_replica = database == Database::ReadReplica;
        let of_zone: Vec<usize> = zone?.regions.as_ref()?.value.iter().filter_map(|name| self.region(&name.value)).collect();
        let zone = &zone?.name.value;
        if let Some(named) = &site.replica_of {
            if !is_replica {
                self.say(named, format!("{name} has no replica: its database is {database}"));
                return None;
            }
            let source = self.known(named)?;
            if !of_zone.contains(&source) {
                let message = format!(
                    "{} is not of zone {zone}: a replica in {name} would be a copy of another zone's data, which may not leave it",
                    quote(&named.value)
                );
                self.say(named, message);
                return None;
            }
            if !self.is_master(source) {
                self.say(named, format!("{} is no master: a replica copies a master's database", quote(&named.value)));
                return None;
            }
            return Some(Some(source));
        }
        if !is_replica {
            return Some(None);
        }
        let masters: Vec<usize> = of_zone.into_iter().filter(|region| self.is_master(*region)).collect();
        match masters.as_slice() {
            // A zone without a master is a problem of its own.
            [] => None,
            [only] => Some(Some(*only)),
            several => {
                let names: Vec<&str> = several.iter().map(|master| self.regions[*master].name.value.as_str()).collect();
                let (masters, first) = (names.join(" and "), names[0]);
                let message =
                    format!("{masters} are masters of zone {zone}: say which one's database {name} has, such as replica_of: {first}");
                self.say(&site.region, message);
                None
            }
        }
    }
}
