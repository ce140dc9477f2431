//! Server processes: started on loopback with fresh data, watched, and ended with this program.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use paymesh_identity::Trust;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::sleep,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    load::Security,
    proto::{
        mesh::{GetStatusRequest, GetStatusResponse, ShardState, mesh_service_client::MeshServiceClient},
        replication::{GetReplicationRequest, Replica, ReplicaState, replication_service_client::ReplicationServiceClient},
    },
    sample::{Process, Stored},
};

/// Time that a server may take until it serves, in seconds.
const START_SECONDS: u64 = 60;

/// Time that a node may take until its query tables and inboxes have caught up, in seconds.
const DRAIN_SECONDS: u64 = 600;

/// Time between two looks at a server that is starting or catching up, in milliseconds.
const LOOK_MS: u64 = 5;

/// Bytes of a server's log that are shown when it fails.
const LOG_TAIL_BYTES: usize = 4_000;

/// A running server process. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    /// The name in tables.
    pub(crate) name: String,
    /// `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    child: Child,
    data: PathBuf,
    log: PathBuf,
    /// How it is called, where that is in TLS.
    pub(crate) security: Option<Security>,
    /// For asking a node about itself; peers have no such service.
    status: Option<MeshServiceClient<Channel>>,
}

impl Server {
    /// Starts a peer: this program's own subcommand `arguments`, listening at a free port.
    pub(crate) async fn peer(name: &str, data: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let port = free_ports(1)?[0];
        let mut command = Command::new(program);
        command.args(arguments).arg("--listen").arg(format!("127.0.0.1:{port}"));
        let mut server = Self::start(name, port, data, command)?;
        server
            .wait_until(async |server| {
                let endpoint = Endpoint::from_shared(server.endpoint.clone())?;
                Ok(endpoint.connect().await.is_ok())
            })
            .await?;
        Ok(server)
    }

    /// Starts `paymesh acquirer`, whose calls all take so many milliseconds at least. What it does is kept in memory: its disk would be none of ours.
    pub(crate) async fn acquirer(program: &Path, data: &Path, latency_ms: u64) -> anyhow::Result<Self> {
        let port = free_ports(1)?[0];
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(program);
        command.args(["acquirer", "--listen", &address, "--latency-ms", &latency_ms.to_string()]);
        let mut server = Self::start("acquirer", port, data, command)?;
        server.wait_until(async |_| Ok(TcpStream::connect(&address).await.is_ok())).await?;
        Ok(server)
    }

    /// Starts `paymesh node`, in TLS where there is a way to call it so. It serves when [`Server::serving`] returns.
    pub(crate) fn node(
        region: &str,
        program: &Path,
        port: u16,
        config: &Path,
        data: &Path,
        security: Option<&Security>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        match security {
            None => command.arg("--plain-text"),
            Some(security) => command.arg("--credentials").arg(&security.credentials),
        };
        command.args(["node", "--supervised", "--region", region]).arg("--config").arg(config).arg("--data").arg(data);
        // Fresh data, and followers that come later.
        command.arg("--trust-own-journals");
        let server = Self::start(region, port, data, command)?;
        Ok(Self { security: security.cloned(), ..server })
    }

    /// Starts `paymesh edge` of a region whose node serves, in TLS.
    pub(crate) async fn edge(region: &str, program: &Path, config: &Path, data: &Path, security: &Security) -> anyhow::Result<Self> {
        let ports = free_ports(2)?;
        let [grpc, http] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
        let mut command = Command::new(program);
        command.arg("--credentials").arg(&security.credentials).args(["edge", "--supervised", "--region", region]);
        command.arg("--config").arg(config).arg("--data").arg(data);
        command.args(["--listen-grpc", &grpc, "--listen-http", &http]);
        let mut server = Self::start("edge", ports[0], data, command)?;
        server.wait_until(async |_| Ok(TcpStream::connect(&grpc).await.is_ok())).await?;
        Ok(Self { security: Some(security.clone()), ..server })
    }

    fn start(name: &str, port: u16, data: &Path, mut command: Command) -> anyhow::Result<Self> {
        fs::create_dir_all(data)?;
        let log = data.with_extension("log");
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            // Closes when this program ends, however it ends, and the server ends with it.
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.as_std().get_program()))?;
        Ok(Self {
            name: name.to_owned(),
            endpoint: format!("http://127.0.0.1:{port}"),
            child,
            data: data.to_owned(),
            log,
            security: None,
            status: None,
        })
    }

    /// Waits until every shard that the node leads serves.
    pub(crate) async fn serving(&mut self) -> anyhow::Result<()> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone())?;
        let channel = match &self.security {
            None => endpoint.connect_lazy(),
            Some(Security { credentials, .. }) => {
                let trust = Trust::load_with_certificate(credentials, &credentials.join("operator"))?;
                let port = endpoint.uri().port_u16().context("an endpoint has a port")?;
                endpoint.connect_with_connector_lazy(trust.connector("127.0.0.1", port, Duration::from_secs(START_SECONDS)))
            }
        };
        self.status = Some(MeshServiceClient::new(channel));
        self.wait_until(async |server| {
            let Some(client) = &mut server.status else { return Ok(true) };
            let Ok(status) = client.get_status(GetStatusRequest {}).await else { return Ok(false) };
            let status = status.into_inner();
            if let Some(shard) = status.shards.iter().find(|shard| shard.state() == ShardState::Refusing) {
                bail!("a shard refuses to serve: {}", shard.problem);
            }
            Ok(!status.shards.is_empty() && status.shards.iter().all(|shard| shard.state() == ShardState::Serving))
        })
        .await
    }

    async fn wait_until(&mut self, ready: impl AsyncFn(&mut Self) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended while starting ({status}):\n{}", self.name, self.log_tail());
            }
            if ready(self).await.with_context(|| format!("{}:\n{}", self.name, self.log_tail()))? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{} does not serve after {START_SECONDS} s:\n{}", self.name, self.log_tail());
            }
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// Waits until the node's copies of `shards` shards have `entries` entries together, in their tables too.
    pub(crate) async fn following(&mut self, shards: u16, entries: u64) -> anyhow::Result<()> {
        let mut client = ReplicationServiceClient::new(Endpoint::from_shared(self.endpoint.clone())?.connect_lazy());
        let deadline = Instant::now() + Duration::from_secs(DRAIN_SECONDS);
        loop {
            // A node that has just been started does not answer yet.
            let replicas = match client.get_replication(GetReplicationRequest {}).await {
                Ok(said) => said.into_inner().replicas,
                Err(_) => Vec::new(),
            };
            // Every region has copies of the directory as well, which nobody writes to here.
            let is_users = |replica: &Replica| replica.shard.as_ref().is_some_and(|shard| shard.zone != "directory");
            let replicas: Vec<Replica> = replicas.into_iter().filter(is_users).collect();
            if let Some(stopped) = replicas.iter().find(|replica| replica.state() == ReplicaState::Stopped) {
                bail!("{}: a copy takes in nothing more: {}\n{}", self.name, stopped.problem, self.log_tail());
            }
            let readable: u64 = replicas.iter().filter_map(|replica| replica.projected_sequence).sum();
            if replicas.len() == usize::from(shards) && readable >= entries {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{} has {readable} of {entries} entries after {DRAIN_SECONDS} s\n{}", self.name, self.log_tail());
            }
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// Entries of the zone's shards that the node leads.
    pub(crate) async fn entries(&mut self, zone: &str) -> anyhow::Result<u64> {
        let client = self.status.as_mut().context("a peer has no journals")?;
        let status = client.get_status(GetStatusRequest {}).await?.into_inner();
        let of_zone = status.shards.iter().filter(|shard| shard.shard.as_ref().is_some_and(|name| name.zone == zone));
        Ok(of_zone.map(|shard| shard.head_sequence).sum())
    }

    /// Kills the process, as a crash would, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// The process now.
    pub(crate) fn sample(&self) -> anyhow::Result<Process> {
        let pid = self.child.id().with_context(|| format!("{} has ended:\n{}", self.name, self.log_tail()))?;
        Process::of(&pid.to_string()).with_context(|| format!("{}:\n{}", self.name, self.log_tail()))
    }

    /// What it keeps on its disk now.
    pub(crate) fn stored(&self) -> anyhow::Result<Stored> {
        Stored::in_folder(&self.data)
    }

    /// The end of what the server wrote.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
    }
}

/// Waits until everything acknowledged by the nodes among `servers` has reached their query tables, and all money on its
/// way its payee; says when that was, in microseconds since 1970. `None` when none of them is a node.
pub(crate) async fn drained(servers: &mut [Server]) -> anyhow::Result<Option<u64>> {
    let deadline = Instant::now() + Duration::from_secs(DRAIN_SECONDS);
    loop {
        let mut states = Vec::new();
        for server in &mut *servers {
            if let Some(client) = &mut server.status {
                states.push(client.get_status(GetStatusRequest {}).await?.into_inner());
            }
        }
        if states.is_empty() {
            return Ok(None);
        }
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
        let Some(behind) = behind(&states) else { return Ok(Some(now)) };
        if Instant::now() >= deadline {
            bail!("a node has not caught up after {DRAIN_SECONDS} s: {behind}\n{}", servers[0].log_tail());
        }
        sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

/// What has not caught up yet, if anything.
fn behind(states: &[GetStatusResponse]) -> Option<String> {
    let shards = || states.iter().flat_map(|state| &state.shards);
    if let Some(shard) = shards().find(|shard| shard.projected_sequence < shard.head_sequence || shard.queued_commands > 0) {
        return Some(format!(
            "shard {:?} has projected {} of {}, {} commands wait",
            shard.shard, shard.projected_sequence, shard.head_sequence, shard.queued_commands
        ));
    }
    // What one shard sent to another must have been received there.
    for shard in shards() {
        for sent in &shard.clearing {
            let Some(peer) = shards().find(|other| other.shard == sent.peer) else { continue };
            let received = peer.clearing.iter().find(|back| back.peer == shard.shard && back.currency_code == sent.currency_code);
            let received = received.map_or(0, |back| back.received_minor_units);
            if sent.sent_minor_units != received {
                return Some(format!(
                    "{:?} has sent {} to {:?}, which has received {received}",
                    shard.shard, sent.sent_minor_units, sent.peer
                ));
            }
        }
    }
    None
}

/// Ports of loopback that nobody listens at now. Another program may take one before it is used; that shows at the start.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(listeners.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect::<Result<_, _>>()?)
}
