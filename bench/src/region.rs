//! The region-config of a mesh made for measuring: ports that the system has free, zones as the benchmark wants them.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;

use crate::server::free_ports;

/// What the client is called, where it shows a token.
pub(crate) const CALLER: &str = "payer";

/// Calls of a region to the acquirer in flight at most: more than any load has.
const CALLS_IN_FLIGHT: u32 = 4_096;

/// A mesh to start.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// Its regions; the first is the primary and leads the directory.
    pub(crate) places: Vec<Place>,
    /// How many shards each of its zones has.
    pub(crate) shards: u16,
    /// The URL of the simulator of an acquirer that charges cards. Where there is one, each region has the vault of its zone.
    acquirer: Option<String>,
}

/// A region.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its name.
    pub(crate) region: String,
    /// Its zone's name.
    pub(crate) zone: String,
    /// The country whose residents have their home in its zone.
    pub(crate) country: &'static str,
    /// The port of gRPC.
    pub(crate) grpc_port: u16,
    http_port: u16,
    /// Whether it leads its zone's shards; it follows them if not.
    leads: bool,
}

/// Countries of residence, one for each zone: as many zones as a mesh for measuring can have.
const COUNTRIES: [&str; 2] = ["DE", "US"];

impl Mesh {
    /// One or two regions with a zone of their own, `shards` in each.
    pub(crate) fn new(regions: usize, shards: u16) -> anyhow::Result<Self> {
        Self::of((0..regions).map(|zone| (zone, true)), shards)
    }

    /// One zone: a region that leads its `shards`, and so many that follow it.
    pub(crate) fn followed(followers: usize, shards: u16) -> anyhow::Result<Self> {
        Self::of((0..followers + 1).map(|index| (0, index == 0)), shards)
    }

    /// One region, with a vault, whose users' cards an acquirer charges.
    pub(crate) fn charging(acquirer: &str, shards: u16) -> anyhow::Result<Self> {
        Ok(Self { acquirer: Some(acquirer.to_owned()), ..Self::new(1, shards)? })
    }

    fn of(regions: impl ExactSizeIterator<Item = (usize, bool)>, shards: u16) -> anyhow::Result<Self> {
        let ports = free_ports(regions.len() * 2)?;
        let place = |(index, ((zone, leads), ports)): (usize, ((usize, bool), &[u16]))| {
            let country = COUNTRIES.get(zone).context("a mesh for measuring has no more zones")?;
            let (region, zone) = (format!("bench_{index}"), format!("zone{zone}"));
            Ok(Place { region, zone, country, grpc_port: ports[0], http_port: ports[1], leads })
        };
        let places = regions.zip(ports.chunks_exact(2)).enumerate().map(place).collect::<anyhow::Result<_>>()?;
        Ok(Self { places, shards, acquirer: None })
    }

    /// Writes `regions.yaml` into a folder, and `gateways.yaml` where there is an acquirer.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        if let Some(url) = &self.acquirer {
            let text = format!(
                "gateways:\n  acquirer: {{connector: simulator, url: '{url}', zones: any, calls_in_flight: {CALLS_IN_FLIGHT}}}\nrules:\n  - {{name: all, use: {{acquirer: 1}}}}\n"
            );
            write("gateways.yaml", text)?;
        }
        write("regions.yaml", self.yaml()?)
    }

    /// Writes `access.yaml` into a folder: the operator by a certificate, and [`CALLER`] by tokens, may do everything.
    pub(crate) fn write_access(folder: &Path) -> anyhow::Result<()> {
        let path = folder.join("access.yaml");
        let scopes = "[payments.read, payments.write, wallets.read, wallets.write, users.read, users.write, events.read, mesh.read, audit.read, vault.read, vault.write]";
        let text = format!(
            "issuers:\n  development: {{issuer: bench, audience: bench, keys: {{file: issuer/jwks.json}}}}\nprincipals:\n  \
             operator: {{certificate: true, scopes: {scopes}, zones: any, users: any}}\n  \
             {CALLER}: {{tokens: {{issuer: development, claims: {{sub: {CALLER}}}}}, scopes: {scopes}, zones: any, users: any}}\n"
        );
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The same mesh, as a node sees it that reaches the first region by way of another port.
    pub(crate) fn by_way_of(&self, port: u16) -> Self {
        let mut places = self.places.clone();
        places[0].grpc_port = port;
        Self { places, shards: self.shards, acquirer: self.acquirer.clone() }
    }

    fn yaml(&self) -> anyhow::Result<String> {
        let services = if self.acquirer.is_some() { "payment_processor, vault" } else { "payment_processor" };
        let (mut regions, mut zones, mut endpoints) = (String::new(), String::new(), String::new());
        for (index, Place { region, zone, country, grpc_port, http_port, leads }) in self.places.iter().enumerate() {
            let database = match (index, leads) {
                (0, _) => "primary_master",
                (_, true) => "regional_master",
                (_, false) => "read_replica",
            };
            writeln!(regions, "  {region}: {{primary: {}, services: [{services}], database: {database}}}", index == 0)?;
            if *leads {
                let members: Vec<&str> =
                    self.places.iter().filter(|place| place.zone == *zone).map(|place| place.region.as_str()).collect();
                writeln!(zones, "  {zone}: {{shards: {}, regions: [{}], countries: [{country}]}}", self.shards, members.join(", "))?;
            }
            writeln!(endpoints, "  {region}: {{grpc: '127.0.0.1:{grpc_port}', http: '127.0.0.1:{http_port}'}}")?;
        }
        Ok(format!("mesh: bench\nregions:\n{regions}zones:\n{zones}endpoints:\n{endpoints}"))
    }
}
