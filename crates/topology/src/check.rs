//! What takes more than one key to see: that regions, zones, leaders, countries and addresses agree with each other.

mod cloud;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use paymesh_types::Country;

use crate::{
    AUDIT_RETENTION_BYTES_DEFAULT, AUDIT_RETENTION_HOURS_DEFAULT, AuditRetention, Compliance, DIRECTORY_ZONE, Database, Endpoint,
    JournalRetention, Region, Service, Topology, Zone,
    problem::{Problems, quote, suggest},
    read::{At, Draft, DraftEndpoints, DraftLeader, DraftRegion, DraftZone},
    tree::Place,
};

/// Checks the draft and makes the topology. `None` when a part is missing, for which there is a problem already.
pub(crate) fn check(draft: &Draft, problems: &mut Problems) -> Option<Topology> {
    let regions = draft.regions.as_ref()?;
    let mut check = Check { regions: &regions.value, leading: BTreeSet::new(), problems };
    let primary = check.primary(regions);
    let zones = draft.zones.as_ref().map(|zones| Checked {
        of_region: check.zones_of_regions(&zones.value),
        leaders: zones.value.iter().map(|zone| check.zone(zone)).collect(),
        countries: check.countries(&zones.value),
    });
    let endpoints = draft.endpoints.as_ref().map(|endpoints| check.endpoints(&endpoints.value));
    check.services();
    check.journal(draft);
    let placed = match (&draft.zones, &zones) {
        (Some(drafts), Some(checked)) => check.cloud(draft, &drafts.value, checked),
        _ => None,
    };
    if !check.problems.is_empty() {
        return None;
    }
    assemble(draft, primary?, &zones?, &endpoints?, placed?)
}

/// What the checks of the zones found out.
struct Checked {
    /// The index of a region's zone, by the region's index.
    of_region: Vec<Option<usize>>,
    /// The index of each shard's leader, by the zone's index and the shard's number.
    leaders: Vec<Option<Vec<usize>>>,
    /// The index of a country's zone.
    countries: BTreeMap<Country, usize>,
}

/// Makes the topology of parts that agree.
fn assemble(
    draft: &Draft,
    primary: usize,
    checked: &Checked,
    endpoints: &[Option<&DraftEndpoints>],
    placed: cloud::Placed,
) -> Option<Topology> {
    let (cloud, mut sites) = placed;
    let drafts = &draft.regions.as_ref()?.value;
    let zones = &draft.zones.as_ref()?.value;
    let mut regions = Vec::new();
    for (index, region) in drafts.iter().enumerate() {
        let endpoints = endpoints.get(index).copied()??;
        regions.push(Region {
            name: region.valid_name.clone()?,
            zone: zones[checked.of_region[index]?].valid_name.clone()?,
            primary: index == primary,
            services: region.services.as_ref()?.value.clone(),
            database: region.database.as_ref()?.value,
            compliance: region.compliance.clone()?,
            grpc: endpoints.grpc.as_ref()?.value.clone(),
            http: endpoints.http.as_ref()?.value.clone(),
            vault_token: region.vault_keys.as_ref().map(|token| token.value.clone()),
            site: sites.remove(&index),
        });
    }
    let name = |index: &usize| regions[*index].name.clone();
    let mut assembled = Vec::new();
    for (index, zone) in zones.iter().enumerate() {
        assembled.push(Zone {
            name: zone.valid_name.clone()?,
            shards: zone.shards?,
            regions: (0..regions.len()).filter(|region| checked.of_region[*region] == Some(index)).map(|region| name(&region)).collect(),
            countries: zone.countries.as_ref()?.iter().map(|country| country.value).collect::<BTreeSet<_>>(),
            sealed_cards: zone.sealed_cards.as_ref().is_some_and(|sealed| sealed.value),
            leaders: checked.leaders[index].as_ref()?.iter().map(name).collect(),
            entry: zone.entry?,
        });
    }
    let journal = draft.journal.as_ref()?;
    let audit = draft.audit.as_ref()?;
    Some(Topology {
        mesh: draft.mesh.clone()?,
        regions,
        primary,
        zones: assembled,
        countries: checked.countries.clone(),
        directory: DIRECTORY_ZONE.parse().expect("the directory's name keeps to the rule of zone names"),
        outcome_retention: Duration::from_secs(draft.outcome_retention_hours? * 3600),
        journal_retention: JournalRetention {
            time: journal.retention_hours.as_ref().map(|hours| Duration::from_secs(hours.value * 3600)),
            bytes: journal.retention_bytes,
        },
        limits: draft.limits.clone()?,
        cloud,
        audit_retention: AuditRetention {
            time: Duration::from_secs(audit.retention_hours.as_ref().map_or(AUDIT_RETENTION_HOURS_DEFAULT, |hours| hours.value) * 3600),
            bytes: audit.retention_bytes.unwrap_or(AUDIT_RETENTION_BYTES_DEFAULT),
        },
    })
}

struct Check<'a, 'p> {
    regions: &'a [DraftRegion],
    /// The regions that lead something.
    leading: BTreeSet<usize>,
    problems: &'p mut Problems,
}

impl Check<'_, '_> {
    fn say<T>(&mut self, at: &At<T>, message: impl AsRef<str>) {
        self.problems.add(at.place, &at.key, message);
    }

    fn region(&self, name: &str) -> Option<usize> {
        self.regions.iter().position(|region| region.name.value == name)
    }

    /// The region that a name stands for.
    fn known(&mut self, name: &At<String>) -> Option<usize> {
        let found = self.region(&name.value);
        if found.is_none() {
            let known = self.regions.iter().map(|region| region.name.value.as_str());
            let message = format!("no region is called {}{}", quote(&name.value), suggest(&name.value, known, "the regions are"));
            self.say(name, message);
        }
        found
    }

    fn is_master(&self, region: usize) -> bool {
        self.regions[region].database.as_ref().is_some_and(|database| database.value.is_master())
    }

    /// One region is the primary, and it is a master.
    fn primary(&mut self, block: &At<Vec<DraftRegion>>) -> Option<usize> {
        let said = |region: &DraftRegion| region.primary.as_ref().is_some_and(|primary| primary.value);
        let all: Vec<usize> = (0..self.regions.len()).filter(|region| said(&self.regions[*region])).collect();
        let Some((first, others)) = all.split_first() else {
            if self.regions.iter().all(|region| region.primary.is_some()) {
                self.say(block, "no region is the primary: set `primary: true` at one");
            }
            return None;
        };
        let primary = &self.regions[*first];
        for other in others {
            let at = self.regions[*other].primary.as_ref().map_or((Place::NOWHERE, ""), |at| (at.place, &at.key));
            let message = format!("{} is the primary already{}: a mesh has one", primary.name.value, on_line(primary.name.place));
            self.problems.add(at.0, at.1, message);
        }
        if let Some(database) = primary.database.as_ref().filter(|database| !database.value.is_master()) {
            let message = format!("the primary region leads the directory, so its database must be a master, not {}", database.value);
            self.say(database, message);
        }
        self.leading.insert(*first);
        Some(*first)
    }

    /// Every region is in one zone.
    fn zones_of_regions(&mut self, zones: &[DraftZone]) -> Vec<Option<usize>> {
        let mut of_region: Vec<Option<(usize, Place)>> = vec![None; self.regions.len()];
        for (index, zone) in zones.iter().enumerate() {
            for name in zone.regions.iter().flat_map(|regions| &regions.value) {
                let Some(region) = self.known(name) else { continue };
                match of_region[region] {
                    Some((other, place)) => {
                        let other = &zones[other].name.value;
                        self.say(name, format!("{} is in zone {other} already{}: a region is in one zone", name.value, on_line(place)));
                    }
                    None => of_region[region] = Some((index, name.place)),
                }
            }
        }
        // A zone that could not be read may be the one that a region is in.
        if zones.iter().all(|zone| zone.regions.is_some()) {
            for (region, zone) in self.regions.iter().zip(&of_region) {
                if zone.is_none() {
                    let message = "is in no zone: list it in the `regions` of one";
                    self.problems.add(region.name.place, &region.name.key, message);
                }
            }
        }
        of_region.into_iter().map(|zone| zone.map(|(zone, _)| zone)).collect()
    }

    /// One zone by itself: its regimes, and a leader for each of its shards.
    fn zone(&mut self, zone: &DraftZone) -> Option<Vec<usize>> {
        let names = zone.regions.as_ref()?;
        let regions: Vec<usize> = names.value.iter().filter_map(|name| self.region(&name.value)).collect();
        self.regimes(names, &regions);
        self.vaults(&regions);

        let masters: Vec<usize> = regions.iter().copied().filter(|region| self.is_master(*region)).collect();
        // A region that is unknown, or whose database is, may have been the master.
        let all_known = regions.len() == names.value.len() && regions.iter().all(|region| self.regions[*region].database.is_some());
        if masters.is_empty() && all_known {
            let message = "no region of the zone is a master: give one the database primary_master or regional_master";
            self.say(&zone.name, message);
        }
        let leaders = match (&zone.leaders, masters.as_slice()) {
            (Some(leaders), _) => self.leaders(zone, leaders, &regions),
            (None, []) => None,
            (None, [only]) => Some(vec![*only; usize::from(zone.shards?)]),
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|master| self.regions[*master].name.value.as_str()).collect();
                let message = format!(
                    "{} are masters: say which shards each leads, such as leaders: {{{}: \"0-1\", {}: \"2-3\"}}",
                    names.join(" and "),
                    names[0],
                    names[1]
                );
                self.say(&zone.name, message);
                None
            }
        }?;
        self.leading.extend(&leaders);
        Some(leaders)
    }

    /// Request ids are answered from the journal.
    fn journal(&mut self, draft: &Draft) {
        let hours = draft.journal.as_ref().and_then(|journal| journal.retention_hours.as_ref());
        if let (Some(hours), Some(outcomes)) = (hours, draft.outcome_retention_hours)
            && hours.value < outcomes
        {
            let message = format!(
                "must be {outcomes} or more, as outcomes.retention_hours is, not {}: outcomes are read from the journal",
                hours.value
            );
            self.say(hours, message);
        }
    }

    /// A region that leads shards serves the payments of their users; one without a database is a vault, and nothing else; and keys of a vault are where one is.
    fn services(&mut self) {
        for region in self.regions {
            let (Some(services), Some(database)) = (&region.services, &region.database) else { continue };
            if database.value == Database::None && services.value != [Service::Vault] {
                let message = format!("{} has no database, so it must run {} and nothing else", region.name.value, Service::Vault);
                self.problems.add(services.place, &services.key, message);
            }
            if let Some(keys) = region.vault_keys.as_ref().filter(|_| !services.value.contains(&Service::Vault)) {
                self.problems.add(keys.place, &keys.key, format!("{} does not run {}", region.name.value, Service::Vault));
            }
        }
        for region in self.leading.iter().map(|region| &self.regions[*region]) {
            let Some(services) = region.services.as_ref() else { continue };
            if !services.value.contains(&Service::PaymentProcessor) {
                let message = format!("{} leads shards, so it must run {}", region.name.value, Service::PaymentProcessor);
                self.problems.add(services.place, &services.key, message);
            }
        }
    }

    /// Personal data moves among the regions of a zone, so all of them are under the GDPR or none is.
    fn regimes(&mut self, names: &At<Vec<At<String>>>, regions: &[usize]) {
        let under = |region: &&usize| self.regions[**region].compliance.as_ref().map(|regimes| regimes.contains(&Compliance::Gdpr));
        let inside = regions.iter().find(|region| under(region) == Some(true));
        let outside = regions.iter().find(|region| under(region) == Some(false));
        if let (Some(inside), Some(outside)) = (inside, outside) {
            let name = |region: &usize| self.regions[*region].name.value.clone();
            let message = format!(
                "{} is under the GDPR and {} is not: personal data would leave it, so put them in zones of their own",
                name(inside),
                name(outside)
            );
            self.say(names, message);
        }
    }

    /// The cards of a zone's users are in one place: of two vaults, each would have some of them, and the other would be asked.
    fn vaults(&mut self, regions: &[usize]) {
        let runs =
            |region: &usize| self.regions[*region].services.as_ref().is_some_and(|services| services.value.contains(&Service::Vault));
        // In the order of the file, so that the later line is the one that is said to be wrong.
        let mut vaults: Vec<usize> = regions.iter().copied().filter(runs).collect();
        vaults.sort_unstable();
        vaults.dedup();
        let Some((first, others)) = vaults.split_first() else { return };
        let first = &self.regions[*first].name;
        for other in others {
            let Some(services) = &self.regions[*other].services else { continue };
            let message = format!("{} is the vault of the zone already{}: a zone has one", first.value, on_line(first.place));
            self.problems.add(services.place, &services.key, message);
        }
    }

    /// Every shard of the zone has one leader, a master of the zone.
    fn leaders(&mut self, zone: &DraftZone, leaders: &At<Option<Vec<DraftLeader>>>, regions: &[usize]) -> Option<Vec<usize>> {
        let shards = usize::from(zone.shards?);
        let mut of_shard: Vec<Option<usize>> = vec![None; shards];
        let mut all_read = true;
        for leader in leaders.value.as_ref()? {
            let region = self.leader(zone, &leader.region, regions);
            let (Some(region), Some(ranges)) = (region, &leader.shards) else {
                all_read = false;
                continue;
            };
            for range in &ranges.value {
                if usize::from(*range.end()) >= shards {
                    let message = format!("there is no shard {}: zone {} has 0 to {}", range.end(), zone.name.value, shards - 1);
                    self.say(ranges, message);
                    all_read = false;
                    continue;
                }
                let span = usize::from(*range.start())..=usize::from(*range.end());
                let taken = span.clone().find_map(|shard| of_shard[shard].map(|other| (shard, other)));
                if let Some((shard, other)) = taken {
                    let message = format!("shard {shard} has a leader already, {}", self.regions[other].name.value);
                    self.say(ranges, message);
                    all_read = false;
                    continue;
                }
                of_shard[span].fill(Some(region));
            }
        }
        let led: Option<Vec<usize>> = of_shard.iter().copied().collect();
        // A part that could not be read may lead what is missing.
        if let (None, true) = (&led, all_read) {
            let missing = of_shard.iter().filter(|leader| leader.is_none()).count();
            let first = of_shard.iter().position(Option::is_none).unwrap_or_default();
            let message = match missing {
                1 => format!("no region leads shard {first}"),
                _ => format!("no region leads {missing} of the shards, {first} the first of them"),
            };
            self.say(leaders, message);
        }
        led
    }

    /// A region that may lead shards of the zone.
    fn leader(&mut self, zone: &DraftZone, name: &At<String>, regions: &[usize]) -> Option<usize> {
        let region = self.known(name)?;
        if !regions.contains(&region) {
            self.say(name, format!("{} is not in zone {}", name.value, zone.name.value));
            return None;
        }
        let database = self.regions[region].database.as_ref()?.value;
        if !database.is_master() {
            let what = if database == Database::None { "has no database".to_owned() } else { format!("is a {database}") };
            self.say(name, format!("{} {what}: only a master leads shards", name.value));
            return None;
        }
        Some(region)
    }

    /// A country is in one zone at most.
    fn countries(&mut self, zones: &[DraftZone]) -> BTreeMap<Country, usize> {
        let mut of_country: BTreeMap<Country, (usize, Place)> = BTreeMap::new();
        for (index, zone) in zones.iter().enumerate() {
            for country in zone.countries.iter().flatten() {
                if let Some((other, place)) = of_country.get(&country.value) {
                    let (code, other, line) = (country.value.code(), &zones[*other].name.value, on_line(*place));
                    self.say(country, format!("{code} is in zone {other} already{line}: a country is in one zone"));
                } else {
                    of_country.insert(country.value, (index, country.place));
                }
            }
        }
        of_country.into_iter().map(|(country, (zone, _))| (country, zone)).collect()
    }

    /// Every region has endpoints, and no two listeners would take the same address. Returns them by the region's index.
    fn endpoints<'d>(&mut self, endpoints: &'d [DraftEndpoints]) -> Vec<Option<&'d DraftEndpoints>> {
        let mut of_region: Vec<Option<&DraftEndpoints>> = vec![None; self.regions.len()];
        let mut taken: Vec<(&At<Endpoint>, String)> = Vec::new();
        for endpoint in endpoints {
            if let Some(region) = self.known(&endpoint.region) {
                of_region[region] = Some(endpoint);
            }
            for (at, kind) in [(&endpoint.grpc, "grpc"), (&endpoint.http, "http")] {
                let Some(at) = at else { continue };
                match taken.iter().find(|(other, _)| other.value.overlaps(&at.value)) {
                    Some((other, whose)) => {
                        let message = format!("{} overlaps {}, the {whose}{}", at.value, other.value, on_line(other.place));
                        self.say(at, message);
                    }
                    None => taken.push((at, format!("{kind} endpoint of {}", endpoint.region.value))),
                }
            }
        }
        for (region, endpoint) in self.regions.iter().zip(&of_region) {
            if endpoint.is_none() {
                let message = format!("has no endpoints: add `endpoints.{}`", region.name.value);
                self.problems.add(region.name.place, &region.name.key, message);
            }
        }
        of_region
    }
}

/// ` (line N)`, where the line is known.
fn on_line(place: Place) -> String {
    place.line().map(|line| format!(" (line {line})")).unwrap_or_default()
}
