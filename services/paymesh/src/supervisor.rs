//! A node as a child process: how it is started, watched and stopped.
//!
//! The node holds the read end of a pipe as its standard input and leaves when that closes (`node --supervised`), so it
//! ends with this process however this process ends, and closing the pipe is also how it is asked to drain. It has a process group of
//! its own: Ctrl-C on the terminal reaches only the supervisor, which then drains the nodes in order.

use std::{
    fs::File,
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use paymesh_topology::{Endpoint, Region, Topology};
use paymesh_types::RegionName;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    time::{sleep, timeout},
};

use crate::{args::Setting, output::Terminal};

/// How long a node may take to drain before it is killed. Longer than the node gives itself: 10 s for its calls
/// (`paymesh_mesh::Limits::drain_wait`), 1 s for streams that are cut off, 2 s for the last traces, 1 s for the last lines of
/// its log, and half a second for what still runs.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);
/// Between two looks at whether a node is ready.
const READY_POLL: Duration = Duration::from_millis(50);
/// How long one such look may take.
const READY_LOOK_MAX: Duration = Duration::from_secs(1);
/// Bytes of a log line at most; what is longer is continued on the next.
const LOG_LINE_BYTES_MAX: u64 = 64 * 1024;

/// How to start a node.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) region: RegionName,
    /// Where it says that it is ready.
    pub(crate) http: Endpoint,
    /// What it goes by.
    pub(crate) setting: Setting,
    /// The node's own storage.
    pub(crate) data: PathBuf,
    pub(crate) json_logs: bool,
    pub(crate) otlp: Option<String>,
    pub(crate) trust_own_journals: bool,
    pub(crate) logs: Logs,
}

/// Where a node's logs go.
#[derive(Debug, Clone)]
pub(crate) enum Logs {
    /// To this program's standard output, each line after a prefix.
    Terminal { terminal: Terminal, prefix: String },
    /// To a file.
    File(PathBuf),
}

/// A running node.
pub(crate) struct Node {
    pub(crate) region: RegionName,
    http: Endpoint,
    child: Child,
    /// Closing it asks the node to drain.
    lifeline: Option<ChildStdin>,
}

impl Spec {
    /// Starts the node.
    pub(crate) fn start(&self) -> anyhow::Result<Node> {
        let program = std::env::current_exe().context("cannot find this program's own file to start nodes from")?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&self.setting.config);
        match &self.setting.credentials {
            Some(credentials) => command.arg("--credentials").arg(credentials),
            None => command.arg("--plain-text"),
        };
        command.args(["node", "--supervised", "--region", self.region.as_str()]);
        command.arg("--data").arg(&self.data);
        if self.json_logs {
            command.arg("--json-logs");
        }
        if let Some(otlp) = &self.otlp {
            command.args(["--otlp", otlp]);
        }
        if self.trust_own_journals {
            command.arg("--trust-own-journals");
        }
        command.stdin(Stdio::piped()).kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        match &self.logs {
            Logs::Terminal { .. } => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
            Logs::File(path) => {
                let file =
                    File::options().create(true).append(true).open(path).with_context(|| format!("cannot write {}", path.display()))?;
                command.stdout(file.try_clone()?).stderr(file);
            }
        }
        let mut child = command.spawn().with_context(|| format!("cannot start the node of {}", self.region))?;
        if let Logs::Terminal { terminal, prefix } = &self.logs {
            // These end with the pipes, that is with the node.
            if let Some(pipe) = child.stdout.take() {
                tokio::spawn(relay(pipe, terminal.clone(), prefix.clone()));
            }
            if let Some(pipe) = child.stderr.take() {
                tokio::spawn(relay(pipe, terminal.clone(), prefix.clone()));
            }
        }
        let lifeline = child.stdin.take();
        Ok(Node { region: self.region.clone(), http: self.http.clone(), child, lifeline })
    }
}

impl Node {
    /// Waits until the node is ready, or says how it ended instead.
    pub(crate) async fn ready(&mut self) -> Result<(), ExitStatus> {
        loop {
            if is_ready(&self.http).await {
                return Ok(());
            }
            tokio::select! {
                ended = self.ended() => return Err(ended),
                () = sleep(READY_POLL) => {}
            }
        }
    }

    /// Waits until the node has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.expect("a child process of ours can be waited for")
    }

    /// Whether the node has ended.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child process of ours can be waited for")
    }

    /// Stops the process where it is (SIGSTOP) until the guard is dropped: its peers see a node that says nothing and takes nothing.
    pub(crate) fn freeze(&self) -> io::Result<Frozen<'_>> {
        self.signal(Signal::STOP)?;
        Ok(Frozen(self))
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let id = id.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process has ended"))?;
        Ok(kill_process(id, signal)?)
    }

    /// Asks the node to drain, and kills it when it takes longer than [`DRAIN_TIME_MAX`]. The error says how it ended instead.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        self.lifeline = None;
        match timeout(DRAIN_TIME_MAX, self.ended()).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("it ended with {status}")),
            Err(_) => {
                // It fails only when the node has ended meanwhile.
                let _ = self.child.start_kill();
                self.ended().await;
                Err(format!("it was still running after {} s and was killed", DRAIN_TIME_MAX.as_secs()))
            }
        }
    }
}

/// A node that goes on when this is dropped: one that is frozen could not drain.
pub(crate) struct Frozen<'a>(&'a Node);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // It fails only when the node has ended meanwhile.
        let _ = self.0.signal(Signal::CONT);
    }
}

/// Copies a node's log, line by line. The node is read whether or not this program is.
async fn relay(pipe: impl AsyncRead + Unpin, terminal: Terminal, prefix: String) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LOG_LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = line.strip_suffix(b"\n").unwrap_or(&line);
                terminal.say(format_args!("{prefix}{}", String::from_utf8_lossy(text)));
            }
        }
    }
}

/// Whether a node says that it takes calls.
async fn is_ready(http: &Endpoint) -> bool {
    let look = async {
        let mut stream = TcpStream::connect((http.host(), http.port())).await?;
        let request = format!("GET /ready HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer.ends_with(b" 200"))
    };
    timeout(READY_LOOK_MAX, look).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// Says which port of the configuration is taken, before anything is started.
pub(crate) fn check_ports(topology: &Topology) -> anyhow::Result<()> {
    for region in topology.regions() {
        for (key, endpoint) in [("grpc", &region.grpc), ("http", &region.http)] {
            // A name that is no address is left to the node, which refuses it: it listens on loopback only.
            let Some(address) = endpoint.socket_addr() else { continue };
            if let Err(error) = TcpListener::bind(address) {
                anyhow::bail!("{}", port_taken(region, key, endpoint, &error));
            }
        }
    }
    Ok(())
}

/// Says of a port that cannot be listened on whose it was to be, and where to ask who has it.
pub(crate) fn port_taken(region: &Region, key: &str, endpoint: &Endpoint, error: &io::Error) -> String {
    let told = format!("{}: cannot listen on {endpoint}, its endpoints.{}.{key}: {error}", region.name, region.name);
    if error.kind() != io::ErrorKind::AddrInUse {
        return told;
    }
    let port = endpoint.port();
    format!(
        "{told}; another process listens there, perhaps another `paymesh up`: `ss -ltnp 'sport = :{port}'` says which. Stop it, or give the \
         region another port in the configuration"
    )
}

/// Waits until every node is ready; an error when one ends, or when it takes longer than `limit`.
pub(crate) async fn all_ready(nodes: &mut [Node], limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    for node in nodes {
        match timeout(deadline.saturating_duration_since(Instant::now()), node.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => anyhow::bail!("the node of {} ended before it was ready ({status})", node.region),
            Err(_) => anyhow::bail!("the node of {} is not ready after {} s", node.region, limit.as_secs()),
        }
    }
    Ok(())
}

/// Where the storage of a region's node is, in a directory for all of them.
pub(crate) fn data_of(region: &Region, data: &Path) -> PathBuf {
    data.join(region.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_not_killed_while_it_drains_within_its_own_bounds() {
        let others = Duration::from_secs(1 + 2 + 1) + Duration::from_millis(500);
        assert!(DRAIN_TIME_MAX > paymesh_mesh::Limits::default().drain_wait + others);
    }
}
