//! The region-config of a mesh made for measuring: a zone for each region, ports that the system has free.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;

use crate::server::free_ports;

/// A mesh to start.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// Its regions; the first is the primary and leads the directory.
    pub(crate) places: Vec<Place>,
    shards: u16,
}

/// A region with a zone of its own.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its name.
    pub(crate) region: String,
    /// The country whose residents have their home there.
    pub(crate) country: &'static str,
    /// The port of gRPC.
    pub(crate) grpc_port: u16,
    http_port: u16,
}

/// Countries of residence, one for each zone: as many regions as a mesh for measuring can have.
const COUNTRIES: [&str; 2] = ["DE", "US"];

impl Mesh {
    /// One or two regions, `shards` in the zone of each.
    pub(crate) fn new(regions: usize, shards: u16) -> anyhow::Result<Self> {
        let ports = free_ports(regions * 2)?;
        let places = COUNTRIES
            .iter()
            .zip(ports.chunks_exact(2))
            .enumerate()
            .map(|(index, (country, ports))| Place { region: format!("bench_{index}"), country, grpc_port: ports[0], http_port: ports[1] })
            .collect();
        Ok(Self { places, shards })
    }

    /// Writes `regions.yaml` into a folder.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join("regions.yaml");
        fs::write(&path, self.yaml()?).with_context(|| format!("cannot write {}", path.display()))
    }

    fn yaml(&self) -> anyhow::Result<String> {
        let (mut regions, mut zones, mut endpoints) = (String::new(), String::new(), String::new());
        for (index, Place { region, country, grpc_port, http_port }) in self.places.iter().enumerate() {
            let database = if index == 0 { "primary_master" } else { "regional_master" };
            writeln!(regions, "  {region}: {{primary: {}, services: [payment_processor], database: {database}}}", index == 0)?;
            writeln!(zones, "  zone{index}: {{shards: {}, regions: [{region}], countries: [{country}]}}", self.shards)?;
            writeln!(endpoints, "  {region}: {{grpc: '127.0.0.1:{grpc_port}', http: '127.0.0.1:{http_port}'}}")?;
        }
        Ok(format!("mesh: bench\nregions:\n{regions}zones:\n{zones}endpoints:\n{endpoints}"))
    }
}
