//! Plays a bank's trace through a fresh mesh and compares every balance; `cargo xtask play-trace` builds and runs it.
//!
//! Promises: whatever it starts is stopped before it ends, its data is removed unless it is to be kept, and it exits with 0
//! only if every line of every statement, the second submission and the proof of the books agree.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks through its output")]

#[path = "play_trace/compare.rs"]
mod compare;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use paymesh_contract::{
    common::v1::ShardRef,
    mesh::v1::{GetStatusRequest, ShardState, ShardStatus, mesh_service_client::MeshServiceClient},
};
use paymesh_topology::Topology;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};
use xtask::bank_trace::Trace;

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

/// Plays a bank's trace through a fresh mesh and compares every balance
///
/// `cargo xtask play-trace` builds what this needs and runs it.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Arguments {
    /// The trace
    trace: PathBuf,
    /// The paymesh binary
    #[arg(long)]
    paymesh: PathBuf,
    /// The configuration to take regions and zones from; the ports are replaced with free ones
    #[arg(long)]
    config: PathBuf,
    /// Keep data and logs in this folder, which must not exist yet
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("play-trace: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let begun = Instant::now();
    let file = File::open(&arguments.trace).with_context(|| format!("{} cannot be opened", arguments.trace.display()))?;
    let trace = Trace::read(file).with_context(|| arguments.trace.display().to_string())?;
    println!("{}", trace.summary());

    // Dropped last, after the mesh: what a node still writes has a place to go to.
    let temporary = tempfile::tempdir().context("no temporary folder")?;
    let folder = match &arguments.keep {
        Some(keep) => {
            fs::create_dir(keep).with_context(|| format!("{} cannot be created", keep.display()))?;
            keep.clone()
        }
        None => temporary.path().to_owned(),
    };
    let mut submit_files = Vec::new();
    for wave in 0..trace.waves() {
        submit_files.push(folder.join(format!("trace-{wave}.submit.csv")));
        trace.write_wave(wave, File::create(&submit_files[wave])?)?;
    }

    let mut mesh = Mesh::start(&arguments.paymesh, &arguments.config, &folder)?;
    let outcome = play(&mut mesh, &trace, &submit_files).await;
    let stopped = mesh.stop().await;
    if outcome.is_err() || stopped.is_err() {
        mesh.show_log();
    }
    outcome?;
    stopped?;
    ensure!(
        trace.contradictions.is_empty(),
        "the mesh agrees with the trace's amounts, but the trace contradicts itself at {} lines, listed above",
        trace.contradictions.len()
    );
    println!("the mesh agrees with the bank: {} rows of {} accounts in {:.1?}", trace.rows, trace.accounts.len(), begun.elapsed());
    Ok(())
}

async fn play(mesh: &mut Mesh, trace: &Trace, submit_files: &[PathBuf]) -> Result<()> {
    mesh.wait_until_ready().await?;

    let begun = Instant::now();
    submit(mesh, submit_files).await.context("the files were not accepted whole")?;
    let transfers: usize = trace.counters().values().map(|counter| counter.transfers).sum();
    println!(
        "submitted in {} waves in {:.1?}: among them {transfers} transfers, each to or from one of {} users in the other zone",
        submit_files.len(),
        begun.elapsed(),
        trace.counters().len()
    );
    compare::homes(mesh, trace).await?;

    let before = mesh.settled().await?;
    submit(mesh, submit_files).await.context("the second submission of the same files failed")?;
    let after = mesh.settled().await?;
    let grown: Vec<_> = after.iter().filter(|(shard, head)| before.get(*shard) != Some(head)).map(|(shard, _)| shard.as_str()).collect();
    ensure!(grown.is_empty() && before.len() == after.len(), "the same files changed something the second time: {}", grown.join(", "));
    println!("submitted again: none of {} journals grew", after.len());
    compare::homes(mesh, trace).await?;
    compare::copies(mesh, trace).await?;

    // Which proves the copies in other regions too.
    mesh.paymesh(["verify"], None, Shown::Always).await.context("the books do not add up")
}

/// Submits the waves, each when everything of the one before has arrived.
async fn submit(mesh: &Mesh, submit_files: &[PathBuf]) -> Result<()> {
    for (wave, file) in submit_files.iter().enumerate() {
        // The first is most of it: what is said of the others is shown only if they fail.
        let shown = if wave == 0 { Shown::Always } else { Shown::OnFailure };
        let submitted = mesh.paymesh(["submit", "--strict", "--no-progress-file"], Some(file), shown).await;
        submitted.with_context(|| file.display().to_string())?;
        mesh.settled().await?;
    }
    Ok(())
}

fn timed<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIME_MAX);
    request
}

fn refused(status: tonic::Status) -> anyhow::Error {
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

/// When what a command says goes through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Always,
    OnFailure,
}

/// A mesh that this program started.
struct Mesh {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Child,
    channels: BTreeMap<String, Channel>,
}

impl Mesh {
    fn start(program: &Path, config: &Path, folder: &Path) -> Result<Self> {
        let own_config = folder.join("region-config");
        fs::create_dir(&own_config)?;
        let topology = with_free_ports(config, &own_config.join(paymesh_topology::FILE_NAME))?;
        let mut channels = BTreeMap::new();
        for region in topology.regions() {
            let endpoint = Endpoint::from_shared(format!("http://{}", region.grpc))?.connect_timeout(CALL_TIME_MAX).timeout(CALL_TIME_MAX);
            channels.insert(region.name.to_string(), endpoint.connect_lazy());
        }
        let log = folder.join("mesh.log");
        let output = File::create(&log)?;
        let child = Command::new(program)
            .arg("--config")
            .arg(&own_config)
            .args(["--plain-text", "up", "--data"])
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { program: program.to_owned(), config: own_config, log, child, channels })
    }

    /// Waits until every shard of every region serves.
    async fn wait_until_ready(&mut self) -> Result<()> {
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
    async fn settled(&self) -> Result<BTreeMap<String, u64>> {
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
    async fn paymesh<const N: usize>(&self, arguments: [&str; N], file: Option<&Path>, shown: Shown) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("--plain-text").arg("--config").arg(&self.config).args(arguments).args(file).stdin(Stdio::null());
        if shown == Shown::Always {
            println!("$ paymesh {}", arguments.join(" "));
            command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
        }
        let ended = tokio::task::spawn_blocking(move || command.output()).await.context("the command was not waited for")?;
        let Output { status, stdout, stderr } = ended.with_context(|| format!("{} cannot be started", self.program.display()))?;
        if !status.success() {
            let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            bail!("`paymesh {}` ended with {status}\n{stdout}{stderr}", arguments.first().copied().unwrap_or_default());
        }
        Ok(())
    }

    /// Lets the mesh drain, and kills it if it does not end.
    async fn stop(&mut self) -> Result<()> {
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

    fn show_log(&self) {
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
