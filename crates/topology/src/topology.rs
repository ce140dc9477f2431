//! The topology in use: what the mesh asks of region-config once it is known to be sound.
//!
//! Every answer is a look-up in memory. Users are placed by `user_id % shards` within the zone of their country of residence.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
    time::Duration,
};

use paymesh_types::{Country, RegionName, ShardRef, UserId, ZoneName};

use crate::{
    Cloud, Compliance, Entry, Errors, FILE_BYTES_MAX, FILE_NAME, Limits, Region, Service, check,
    problem::Problems,
    read,
    tree::{self, Place, Value},
};

/// The zone name that is the directory's (user to zone): no zone of region-config can have it, and no user lives there.
pub const DIRECTORY_ZONE: &str = "directory";
/// Shards of the directory. The primary region leads them.
pub const DIRECTORY_SHARDS: u16 = 1;

/// A mesh: its regions, its zones and who leads what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    pub(crate) mesh: String,
    /// In the order of the file.
    pub(crate) regions: Vec<Region>,
    /// The primary's index in `regions`.
    pub(crate) primary: usize,
    /// In the order of the file.
    pub(crate) zones: Vec<Zone>,
    /// The index in `zones` that serves a country.
    pub(crate) countries: BTreeMap<Country, usize>,
    pub(crate) directory: ZoneName,
    pub(crate) outcome_retention: Duration,
    pub(crate) journal_retention: JournalRetention,
    pub(crate) limits: Limits,
    pub(crate) audit_retention: AuditRetention,
    pub(crate) cloud: Option<Cloud>,
}

/// How much of each shard's journal is kept. What outcomes of requests are read from and what holds money in transit is kept in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalRetention {
    /// How long an entry is kept: not less than the outcomes of requests. `None`: for ever.
    pub time: Option<Duration>,
    /// Bytes of the journal's compressed entries past which the oldest go. `None`: none goes for that.
    pub bytes: Option<u64>,
}

/// How much of each node's audit log is kept: what is past either bound goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditRetention {
    /// How long a record is kept.
    pub time: Duration,
    /// Bytes of the log.
    pub bytes: u64,
}

/// A compliance zone: the regions among which its users' personal data may move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub name: ZoneName,
    /// Shards that its users are spread over: 1 to [`ZONE_SHARDS_MAX`](crate::ZONE_SHARDS_MAX), fixed when the zone is made.
    pub shards: u16,
    /// Its regions, in the order of the file.
    pub regions: Vec<RegionName>,
    /// The countries whose residents it serves.
    pub countries: BTreeSet<Country>,
    /// Whether its vault takes cards sealed only: no node on their way has a number then.
    pub sealed_cards: bool,
    /// Which regions its names lead to, once it is deployed.
    pub entry: Entry,
    /// The leader of each shard, by the shard's number.
    pub(crate) leaders: Vec<RegionName>,
}

impl Topology {
    /// Reads and validates a configuration: a file, or the folder that holds `regions.yaml`.
    ///
    /// # Errors
    /// Every problem of the file; or one, without a line, when it cannot be read.
    pub fn load(dir_or_file: &Path) -> Result<Self, Errors> {
        let file = if dir_or_file.is_dir() { dir_or_file.join(FILE_NAME) } else { dir_or_file.to_owned() };
        let name = file.display().to_string();
        Self::parse(&name, &read_text(&file, &name)?)
    }

    /// Validates the text of a configuration. `file_name` is what the errors call it.
    ///
    /// # Errors
    /// Every problem of the text, in the order of the file. A text that is not YAML has one: the first place where it is not.
    pub fn parse(file_name: &str, yaml: &str) -> Result<Self, Errors> {
        let root = parse_tree(file_name, yaml)?;
        let mut problems = Problems::new(file_name);
        let draft = read::read(&root, &mut problems);
        match check::check(&draft, &mut problems) {
            Some(topology) if problems.is_empty() => Ok(topology),
            _ => Err(problems.into_errors()),
        }
    }

    /// The mesh's name.
    pub fn mesh(&self) -> &str {
        &self.mesh
    }

    /// Every region, in the order of the file.
    pub fn regions(&self) -> impl ExactSizeIterator<Item = &Region> {
        self.regions.iter()
    }

    /// The regions whose nodes take every call, in the order of the file: all but vaults alone.
    pub fn entries(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().filter(|region| !region.is_vault_alone())
    }

    /// A region by its name.
    pub fn region(&self, name: &RegionName) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == *name)
    }

    /// The primary region: the directory's home.
    pub fn primary(&self) -> &Region {
        &self.regions[self.primary]
    }

    /// Every zone, in the order of the file. The directory is not one.
    pub fn zones(&self) -> impl ExactSizeIterator<Item = &Zone> {
        self.zones.iter()
    }

    /// A zone by its name.
    pub fn zone(&self, name: &ZoneName) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.name == *name)
    }

    /// The zone that serves residents of a country. `None`: no zone does, and such a user cannot be enrolled.
    pub fn zone_of_country(&self, country: Country) -> Option<&ZoneName> {
        self.countries.get(&country).map(|zone| &self.zones[*zone].name)
    }

    /// The shard that a user of a zone belongs to. `None` when there is no such zone.
    pub fn home(&self, zone: &ZoneName, user: UserId) -> Option<ShardRef> {
        self.zone(zone).map(|zone| ShardRef { zone: zone.name.clone(), index: user.shard(zone.shards) })
    }

    /// The region that leads a shard, the directory's included. `None` when there is no such shard.
    pub fn leader(&self, shard: &ShardRef) -> Option<&RegionName> {
        if shard.zone == self.directory {
            return (shard.index < DIRECTORY_SHARDS).then(|| &self.primary().name);
        }
        self.zone(&shard.zone)?.leaders.get(usize::from(shard.index))
    }

    /// Whether a region is one of the zone's.
    pub fn is_of(&self, region: &RegionName, zone: &ZoneName) -> bool {
        self.zone(zone).is_some_and(|zone| zone.regions.contains(region))
    }

    /// The region whose nodes keep the cards of a zone's users: the one of its regions that runs a vault. `None`: the zone takes no cards,
    /// or there is no such zone.
    pub fn vault(&self, zone: &ZoneName) -> Option<&RegionName> {
        let runs = |region: &&RegionName| self.region(region).is_some_and(|region| region.runs(Service::Vault));
        self.zone(zone)?.regions.iter().find(runs)
    }

    /// The region that scores the payments of a zone's user: the one that leads the user's shard, where it runs fraud detection, and otherwise the first
    /// of the zone's regions that does. `None`: the zone's payments are not scored, or there is no such zone.
    pub fn fraud(&self, zone: &ZoneName, user: UserId) -> Option<&RegionName> {
        let runs = |region: &&RegionName| self.region(region).is_some_and(|region| region.runs(Service::FraudDetection));
        let home = self.home(zone, user).and_then(|shard| self.leader(&shard));
        home.filter(runs).or_else(|| self.zone(zone)?.regions.iter().find(runs))
    }

    /// Whether any region of a zone runs fraud detection.
    pub fn scores_fraud(&self, zone: &ZoneName) -> bool {
        let runs = |region: &RegionName| self.region(region).is_some_and(|region| region.runs(Service::FraudDetection));
        self.zone(zone).is_some_and(|zone| zone.regions.iter().any(runs))
    }

    /// Whether payments of a zone's users are under PSD2: it has a region that is. False where there is no such zone.
    pub fn is_under_psd2(&self, zone: &ZoneName) -> bool {
        let under = |region: &RegionName| self.region(region).is_some_and(|region| region.compliance.contains(&Compliance::Psd2));
        self.zone(zone).is_some_and(|zone| zone.regions.iter().any(under))
    }

    /// The directory's shard that knows a user's zone.
    pub fn directory_shard(&self, user: UserId) -> ShardRef {
        ShardRef { zone: self.directory.clone(), index: user.shard(DIRECTORY_SHARDS) }
    }

    /// Every shard: the directory's, then zone by zone.
    pub fn shards(&self) -> Vec<ShardRef> {
        let zones = self.zones.iter().map(|zone| (&zone.name, zone.shards));
        std::iter::once((&self.directory, DIRECTORY_SHARDS))
            .chain(zones)
            .flat_map(|(zone, shards)| (0..shards).map(|index| ShardRef { zone: zone.clone(), index }))
            .collect()
    }

    /// The shards that a region leads, the directory's included.
    pub fn led_by(&self, region: &RegionName) -> Vec<ShardRef> {
        self.shards().into_iter().filter(|shard| self.leader(shard) == Some(region)).collect()
    }

    /// How long the outcome of a request is kept, by the time of its entry: 24 hours at least.
    pub fn outcome_retention(&self) -> Duration {
        self.outcome_retention
    }

    /// How much of each shard's journal is kept.
    pub fn journal_retention(&self) -> JournalRetention {
        self.journal_retention
    }

    /// The deployment. `None`: the file has none, and no region has a site.
    pub fn cloud(&self) -> Option<&Cloud> {
        self.cloud.as_ref()
    }

    /// What each node bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How much of each node's audit log is kept.
    pub fn audit_retention(&self) -> AuditRetention {
        self.audit_retention
    }
}

/// A configuration file's text, which `name` is what the errors call it.
pub(crate) fn read_text(file: &Path, name: &str) -> Result<String, Errors> {
    let one = |place: Place, message: String| {
        let mut problems = Problems::new(name);
        problems.add(place, "", message);
        problems.into_errors()
    };
    let mut bytes = Vec::new();
    // One byte past the bound is read, so that a file that is too large is known to be.
    File::open(file).and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(|error| {
        let hint = if error.kind() == ErrorKind::NotFound { "; where the configuration is, `--config` and PAYMESH_CONFIG say" } else { "" };
        one(Place::NOWHERE, format!("cannot be read: {error}{hint}"))
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let (valid, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let line = bytes[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        one(Place::at(line as u64, 0), "is not UTF-8".to_owned())
    })
}

/// A configuration file's text as a tree.
pub(crate) fn parse_tree(file_name: &str, yaml: &str) -> Result<Value, Errors> {
    let mut problems = Problems::new(file_name);
    if yaml.len() as u64 > FILE_BYTES_MAX {
        problems.add(Place::NOWHERE, "", format!("is larger than {FILE_BYTES_MAX} bytes"));
        return Err(problems.into_errors());
    }
    tree::parse(yaml).map_err(|(place, message)| {
        problems.add(place, "", message);
        problems.into_errors()
    })
}
