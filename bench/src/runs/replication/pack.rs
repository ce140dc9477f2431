//! A leader and its followers: nodes of one zone, each a process with a folder of its own.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::{
    lab::Lab,
    proxy::Proxy,
    region::Mesh,
    server::{Server, drained},
    watch::Watch,
};

/// Nodes of one zone.
pub(super) struct Pack {
    mesh: Mesh,
    program: PathBuf,
    /// What followers read; the leader's is beside it.
    config: PathBuf,
    folders: Vec<PathBuf>,
    /// The leader, alone: what loads are run against.
    pub(super) leader: Vec<Server>,
    /// Those that run.
    pub(super) followers: Vec<Server>,
}

impl Pack {
    /// Starts them with fresh data, enrols the users, and waits until every follower has everything.
    pub(super) async fn start(lab: &mut Lab, case: &str, followers: usize, accounts: u64) -> anyhow::Result<Self> {
        let mesh = Self::mesh(lab, followers)?;
        Self::of(lab, case, mesh, None, accounts).await
    }

    /// The same with one follower, which reaches the leader through a proxy that counts.
    pub(super) async fn counted(lab: &mut Lab, case: &str, accounts: u64) -> anyhow::Result<(Self, Proxy)> {
        let mesh = Self::mesh(lab, 1)?;
        let proxy = Proxy::start(mesh.places[0].grpc_port).await?;
        Ok((Self::of(lab, case, mesh, Some(proxy.port), accounts).await?, proxy))
    }

    fn mesh(lab: &Lab, followers: usize) -> anyhow::Result<Mesh> {
        Mesh::followed(followers, lab.common.shards.first().copied().unwrap_or(1))
    }

    async fn of(lab: &mut Lab, case: &str, mesh: Mesh, by_way_of: Option<u16>, accounts: u64) -> anyhow::Result<Self> {
        let program = lab.program()?;
        let config = lab.folder("region-config")?;
        mesh.write(&config)?;
        let folders = mesh.places.iter().map(|place| lab.folder(&place.region)).collect::<anyhow::Result<Vec<_>>>()?;
        let first = &mesh.places[0];
        let mut leader = Server::node(&first.region, &program, first.grpc_port, &config, &folders[0], None)?;
        leader.serving().await?;
        let config = match by_way_of {
            Some(port) => {
                let folder = lab.folder("region-config")?;
                mesh.by_way_of(port).write(&folder)?;
                folder
            }
            None => config,
        };
        let mut this = Self { mesh, program, config, folders, leader: vec![leader], followers: Vec::new() };
        for index in 1..this.mesh.places.len() {
            this.start_follower(index)?;
        }
        let country = this.mesh.places[0].country;
        lab.enrol(case, &mut this.leader, accounts, country).await?;
        this.current().await?;
        Ok(this)
    }

    /// Starts a follower over what it has.
    pub(super) fn start_follower(&mut self, index: usize) -> anyhow::Result<()> {
        let place = &self.mesh.places[index];
        self.followers.push(Server::node(&place.region, &self.program, place.grpc_port, &self.config, &self.folders[index], None)?);
        Ok(())
    }

    /// Ends a follower as a crash would.
    pub(super) async fn kill_follower(&mut self) -> anyhow::Result<()> {
        self.followers.pop().context("no follower runs")?.kill().await
    }

    /// Waits until the leader's tables, and every follower's, hold everything.
    pub(super) async fn current(&mut self) -> anyhow::Result<()> {
        drained(&mut self.leader).await?;
        let entries = self.entries().await?;
        for follower in &mut self.followers {
            follower.following(self.mesh.shards, entries).await?;
        }
        Ok(())
    }

    /// Entries of the leader's shards.
    pub(super) async fn entries(&mut self) -> anyhow::Result<u64> {
        self.leader[0].entries(&self.mesh.places[0].zone).await
    }

    /// Watches the first follower.
    pub(super) async fn watch(&self) -> anyhow::Result<Watch> {
        Watch::open(&self.folders[0], &self.folders[1], &self.mesh.places[0].zone, self.mesh.shards).await
    }
}
