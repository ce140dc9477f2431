//! A mesh of the built binary, for programs that look at it from outside: every region of a configuration, on free ports of this machine,
//! with fresh storage.
//!
//! Promises: what [`Mesh::start`] starts has ended when the [`Mesh`] is gone. Left to others: the folder that all of its files are in.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use paymesh_contract::{
    common::v1::ShardRef,
    mesh::v1::{GetStatusRequest, ShardState, ShardStatus, mesh_service_client::MeshServiceClient},
};
use paymesh_identity::Trust;
use paymesh_topology::{ACCESS_FILE_NAME, FRAUD_FILE_NAME, Region, Topology};
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

/// How long the mesh may take until every shard serves.
const READY_TIME_MAX: Duration = Duration::from_secs(120);
/// How long the mesh may take to drain before it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
/// How long money may take to arrive.
const SETTLED_TIME_MAX: Duration = Duration::from_secs(60);
/// The deadline of every call.
const CALL_TIME_MAX: Duration = Duration::from_secs(20);
/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(100);
/// Lines of the mesh's log that are printed when something failed.
const LOG_LINES_SHOWN_MAX: usize = 40;

/// The directory of the operator's certificate, in that of the credentials.
const OPERATOR: &str = "operator";

/// How the mesh's nodes and their callers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// In TLS, with credentials that are made for this mesh and the access.yaml beside the configuration.
    Tls,
    /// In plain text.
    PlainText,
}

/// When what a command says goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As it is said.
    Always,
    /// When the command has failed.
    OnFailure,
}

/// A mesh that this program started.
pub struct Mesh {
    program: PathBuf,
    config: PathBuf,
    credentials: Option<PathBuf>,
    topology: Topology,
    log: PathBuf,
    child: Child,
    channels: BTreeMap<String, Channel>,
}

impl Mesh {
    /// Starts every region of a configuration's file with this binary. All files of the mesh go to `folder`.
    ///
    /// # Errors
    /// The configuration cannot be used, or the program cannot be started.
    pub fn start(program: &Path, config: &Path, folder: &Path, connections: Connections) -> Result<Self> {
        let own_config = folder.join("region-config");
        fs::create_dir(&own_config)?;
        let topology = with_free_ports(config, &own_config.join(paymesh_topology::FILE_NAME))?;
        let fraud = config.with_file_name(FRAUD_FILE_NAME);
        if fraud.exists() {
            fs::copy(&fraud, own_config.join(FRAUD_FILE_NAME)).with_context(|| fraud.display().to_string())?;
        }
        let credentials = match connections {
            Connections::PlainText => None,
            Connections::Tls => {
                let access = config.with_file_name(ACCESS_FILE_NAME);
                fs::copy(&access, own_config.join(ACCESS_FILE_NAME)).with_context(|| access.display().to_string())?;
                let credentials = folder.join("credentials");
                read(Command::new(program).arg("--config").arg(&own_config).arg("certs").arg(&credentials))?;
                Some(credentials)
            }
        };
        let trust = credentials.as_deref().map(|own| Trust::load_with_certificate(own, &own.join(OPERATOR))).transpose()?;
        let mut channels = BTreeMap::new();
        for region in topology.regions() {
            let endpoint = Endpoint::from_shared(format!("http://{}", region.grpc))?.connect_timeout(CALL_TIME_MAX).timeout(CALL_TIME_MAX);
            let channel = match &trust {
                None => endpoint.connect_lazy(),
                Some(trust) => endpoint.connect_with_connector_lazy(trust.connector(region.grpc.host(), region.grpc.port(), CALL_TIME_MAX)),
            };
            channels.insert(region.name.to_string(), channel);
        }
        let log = folder.join("mesh.log");
        let output = File::create(&log)?;
        let child = command(program, &own_config, credentials.as_deref())
            .args(["up", "--data"])
            .arg(folder.join("data"))
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { program: program.to_owned(), config: own_config, credentials, topology, log, child, channels })
    }

    /// A connection to each region, by its name: as the operator, in TLS.
    pub fn channels(&self) -> &BTreeMap<String, Channel> {
        &self.channels
    }

    /// A region of the mesh, with the ports that it listens on.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn region(&self, name: &str) -> Result<&Region> {
        self.topology.regions().find(|region| region.name.as_str() == name).with_context(|| format!("the mesh has no region {name}"))
    }

    /// The directory of the mesh's credentials.
    ///
    /// # Errors
    /// It speaks plain text.
    pub fn credentials(&self) -> Result<&Path> {
        self.credentials.as_deref().context("the mesh speaks plain text")
    }

    /// Waits until every shard of every region serves.
    ///
    /// # Errors
    /// The mesh has ended, or takes too long.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the mesh ended before it was ready: {status}");
            }
            let waiting_for = match self.statuses().await {
                Ok(shards) => match shards.iter().find(|(_, shard)| shard.state() != ShardState::Serving) {
                    None if !shards.is_empty() => {
                        println!("{} regions with {} shards are ready after {:.1?}", self.channels.len(), shards.len(), begun.elapsed());
                        return Ok(());
                    }
                    None => "there are no shards".to_owned(),
                    Some((name, shard)) => format!("{name} is {}", shard.state().as_str_name()),
                },
                Err(error) => format!("{error:#}"),
            };
            ensure!(begun.elapsed() < READY_TIME_MAX, "the mesh is not ready after {READY_TIME_MAX:?}: {waiting_for}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until everything that was sent has arrived and nothing follows from it any more, and says what each shard's last
    /// sequence number is then.
    ///
    /// # Errors
    /// A region does not answer, or it takes too long.
    pub async fn settled(&self) -> Result<BTreeMap<String, u64>> {
        let begun = Instant::now();
        let mut last = None;
        loop {
            let shards = self.statuses().await?;
            let heads: BTreeMap<String, u64> = shards.iter().map(|(name, shard)| (name.clone(), shard.head_sequence)).collect();
            let at_rest = nothing_in_transit(&shards);
            if at_rest && last.as_ref() == Some(&heads) {
                return Ok(heads);
            }
            ensure!(begun.elapsed() < SETTLED_TIME_MAX, "not everything has arrived after {SETTLED_TIME_MAX:?}: {shards:?}");
            last = Some(heads);
            // Longer than shards gather what they tell each other.
            tokio::time::sleep(POLL * 3).await;
        }
    }

    /// Each shard, as its leader says.
    async fn statuses(&self) -> Result<BTreeMap<String, ShardStatus>> {
        let mut shards = BTreeMap::new();
        for (region, channel) in &self.channels {
            let mut client = MeshServiceClient::new(channel.clone());
            let status = client.get_status(timed(GetStatusRequest {})).await.map_err(refused).with_context(|| region.clone())?;
            for shard in status.into_inner().shards {
                let name = shard.shard.as_ref().map(shard_name).context("a shard without a name")?;
                ensure!(shards.insert(name.clone(), shard).is_none(), "shard {name} has two leaders");
            }
        }
        Ok(shards)
    }

    /// Runs a command of the binary against this mesh. The connections to the mesh live on meanwhile.
    ///
    /// # Errors
    /// It cannot be started, or does not end with 0.
    pub async fn paymesh<const N: usize>(&self, arguments: [&str; N], file: Option<&Path>, shown: Shown) -> Result<()> {
        let mut command = self.command();
        command.args(arguments).args(file);
        if shown == Shown::Always {
            println!("$ paymesh {}", arguments.join(" "));
            command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
        }
        tokio::task::spawn_blocking(move || read(&mut command)).await.context("the command was not waited for")??;
        Ok(())
    }

    /// Issues a token by the development issuer: what `paymesh token` prints.
    ///
    /// # Errors
    /// It issues none.
    pub fn token<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        read(self.command().arg("token").args(arguments))
    }

    /// A command of the binary against this mesh, without its words.
    fn command(&self) -> Command {
        command(&self.program, &self.config, self.credentials.as_deref())
    }

    /// Lets the mesh drain, and kills it if it does not end.
    ///
    /// # Errors
    /// It did not end well.
    pub async fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            // The standard library can only kill. The pid is ours: the child has not been waited for yet.
            Command::new("sh")
                .args(["-c", "kill -TERM \"$0\"", &self.child.id().to_string()])
                .status()
                .context("no shell to send SIGTERM by")?;
        }
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the mesh ended with {status}");
                return Ok(());
            }
            if begun.elapsed() > STOP_TIME_MAX {
                self.child.kill()?;
                self.child.wait()?;
                bail!("the mesh did not end within {STOP_TIME_MAX:?} of SIGTERM and was killed");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Prints the end of what the nodes have logged.
    pub fn show_log(&self) {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        eprintln!("--- the end of the mesh's log ---");
        for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES_SHOWN_MAX)) {
            eprintln!("{line}");
        }
        eprintln!("---");
    }
}

impl Drop for Mesh {
    /// Only when `stop` was not reached.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Copies a configuration with every endpoint on a free port of this machine.
fn with_free_ports(from: &Path, to: &Path) -> Result<Topology> {
    let original = Topology::load(from)?;
    let mut text = fs::read_to_string(from).with_context(|| from.display().to_string())?;
    // All are held until all are chosen, so that none is chosen twice.
    let mut held = Vec::new();
    for region in original.regions() {
        for endpoint in [&region.grpc, &region.http] {
            let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
            let endpoint = endpoint.to_string();
            ensure!(text.contains(&endpoint), "{}: {endpoint} of {} is written in another way", from.display(), region.name);
            text = text.replace(&endpoint, &listener.local_addr()?.to_string());
            held.push(listener);
        }
    }
    fs::write(to, &text).with_context(|| to.display().to_string())?;
    Ok(Topology::load(to)?)
}

/// The binary, by whom it is to be known.
fn command(program: &Path, config: &Path, credentials: Option<&Path>) -> Command {
    let mut command = Command::new(program);
    command.arg("--config").arg(config).stdin(Stdio::null());
    match credentials {
        Some(credentials) => command.arg("--credentials").arg(credentials),
        None => command.arg("--plain-text"),
    };
    command
}

/// Runs a command to its end and returns what it said on standard output, trimmed.
fn read(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let ended = command.output().with_context(|| format!("{} cannot be started", Path::new(&program).display()))?;
    let Output { status, stdout, stderr } = ended;
    let stdout = String::from_utf8_lossy(&stdout);
    if !status.success() {
        let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        bail!("`paymesh {}` ended with {status}\n{stdout}{}", words.join(" "), String::from_utf8_lossy(&stderr));
    }
    Ok(stdout.trim().to_owned())
}

/// A request that ends in time.
pub fn timed<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIME_MAX);
    request
}

/// What a region answered instead.
pub fn refused(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", status.code(), status.message())
}

fn shard_name(shard: &ShardRef) -> String {
    format!("{}/{}", shard.zone, shard.shard)
}

/// Whether every shard has received what the others sent it, by tables that hold all of their journals.
fn nothing_in_transit(shards: &BTreeMap<String, ShardStatus>) -> bool {
    // From, to, currency: what was sent less what was received.
    let mut ways: BTreeMap<(String, String, &str), i64> = BTreeMap::new();
    for (name, shard) in shards {
        for line in &shard.clearing {
            let peer = line.peer.as_ref().map(shard_name).unwrap_or_default();
            *ways.entry((name.clone(), peer.clone(), &line.currency_code)).or_default() += line.sent_minor_units;
            *ways.entry((peer, name.clone(), &line.currency_code)).or_default() -= line.received_minor_units;
        }
    }
    ways.values().all(|minor| *minor == 0) && shards.values().all(|shard| shard.projected_sequence == shard.head_sequence)
}
