//! What a node takes of its machine: a directory, two ports, and the signals that tell it to leave.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use paymesh_topology::{Endpoint, Region};
use paymesh_types::RegionName;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{args::ProcessArgs, exit::unusable, supervisor};

/// In plain text whoever reaches a node may move money, so nobody but this machine may.
pub(super) fn require_loopback(region: &Region) -> anyhow::Result<()> {
    for (key, endpoint) in [("grpc", &region.grpc), ("http", &region.http)] {
        if !endpoint.is_loopback() {
            return Err(unusable(format!(
                "endpoints.{}.{key} is {endpoint}: in plain text everybody may do everything, so a node listens on loopback only; use an address \
                 such as 127.0.0.1, or credentials",
                region.name
            )));
        }
    }
    Ok(())
}

/// The same, of where it listens because it was told to.
pub(super) fn require_loopback_listeners(process: &ProcessArgs) -> anyhow::Result<()> {
    for (option, address) in [("--listen-grpc", process.listen_grpc), ("--listen-http", process.listen_http)] {
        if let Some(address) = address.filter(|address| !address.ip().to_canonical().is_loopback()) {
            return Err(unusable(format!(
                "{option} is {address}: in plain text everybody may do everything, so a process listens on loopback only; use an address such as 127.0.0.1, or \
                 credentials"
            )));
        }
    }
    Ok(())
}

/// Has no memory of this process written anywhere when it crashes: its keys and its callers' tokens are in it.
pub(super) fn without_core_dumps() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("switching core files off")?;
    // A core that is handed to a program knows no such limit.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).context("switching core dumps off")?;
    Ok(())
}

/// Whose a data directory is: what is in it is nobody else's to go on with.
#[derive(Debug)]
pub(super) struct Owner(String);

impl Owner {
    /// A region's node.
    pub(super) fn node(mesh: &str, region: &RegionName) -> Self {
        Self(format!("mesh {mesh} region {region}\n"))
    }

    /// One of its edges.
    pub(super) fn edge(mesh: &str, region: &RegionName) -> Self {
        Self(format!("mesh {mesh} edge of region {region}\n"))
    }
}

/// The node's directory, held by this process alone.
pub(super) struct DataDirectory {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory where it is missing, and keeps other nodes out of it: those that run, and those of other regions,
    /// whose books it would mix.
    pub(super) fn take(path: &Path, Owner(owner): &Owner) -> anyhow::Result<Self> {
        let cannot = |what: &str, error: io::Error| unusable(format!("the data directory {}: {what}: {error}", path.display()));
        fs::create_dir_all(path).map_err(|error| cannot("cannot be made", error))?;
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("node.lock"))
            .map_err(|error| cannot("cannot be written to", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(unusable(format!("the data directory {} is in use by another process of paymesh", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(cannot("cannot be locked", error)),
        }
        let owner_file = path.join("owner");
        let found = match fs::read_to_string(&owner_file) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(cannot("cannot be read", error)),
        };
        // A name ends with its line. One that does not was being written when its node ended; the journals say whose they are too.
        if !owner.starts_with(&found) {
            let (found, wanted) = (found.trim_end(), owner.trim_end());
            return Err(unusable(format!("the data directory {} belongs to {found}, not to {wanted}", path.display())));
        }
        if found != *owner {
            // Whole or not at all: half a name would be another's.
            let new = path.join("owner.new");
            let written = File::create(&new).and_then(|mut file| file.write_all(owner.as_bytes()).and_then(|()| file.sync_all()));
            written.and_then(|()| fs::rename(&new, &owner_file)).map_err(|error| cannot("cannot be written to", error))?;
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(|error| cannot("cannot be written to", error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Files and sockets that this process may have open at once. None: the system does not say.
pub(super) fn open_files_max() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    // The soft limit; the hard one comes after it.
    line.split_whitespace().next()?.parse().ok()
}

/// The node's two ports.
pub(super) struct Listeners {
    pub(super) grpc: TcpListener,
    pub(super) http: TcpListener,
}

impl Listeners {
    /// Where the process was told to, or else where region-config says that others find it.
    pub(super) async fn bind(region: &Region, process: &ProcessArgs) -> anyhow::Result<Self> {
        let grpc = match process.listen_grpc {
            Some(address) => bind_to("--listen-grpc", address).await?,
            None => bind(region, "grpc", &region.grpc).await?,
        };
        let http = match process.listen_http {
            Some(address) => bind_to("--listen-http", address).await?,
            None => bind(region, "http", &region.http).await?,
        };
        Ok(Self { grpc, http })
    }

    pub(super) async fn bind_to(grpc: SocketAddr, http: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { grpc: bind_to("--listen-grpc", grpc).await?, http: bind_to("--listen-http", http).await? })
    }
}

async fn bind_to(option: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| unusable(format!("{option}: cannot listen on {address}: {error}")))
}

async fn bind(region: &Region, key: &str, endpoint: &Endpoint) -> anyhow::Result<TcpListener> {
    let address = endpoint.socket_addr().ok_or_else(|| {
        unusable(format!(
            "endpoints.{}.{key}: {endpoint} is a name, by which others find it: say where to listen, such as --listen-{key} 0.0.0.0:{}",
            region.name,
            endpoint.port()
        ))
    })?;
    TcpListener::bind(address).await.map_err(|error| unusable(supervisor::port_taken(region, key, endpoint, &error)))
}

/// What tells a node to leave: SIGTERM, Ctrl-C, or, supervised, the end of standard input.
pub(super) struct Leave {
    terminate: Signal,
    interrupt: Signal,
    supervised: bool,
}

impl Leave {
    pub(super) fn new(supervised: bool) -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("watching for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("watching for SIGINT")?,
            supervised,
        })
    }

    /// Waits for it, and says which it was.
    pub(super) async fn wanted(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            // A supervisor's Ctrl-C reaches its nodes too; it tells them itself when it is their time.
            _ = self.interrupt.recv(), if !self.supervised => "SIGINT",
            () = end_of_input(), if self.supervised => "the supervisor is gone",
        }
    }
}

/// On a thread of its own: a read of standard input cannot be cancelled, and must not hold the runtime when the node leaves.
async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // An error is an end as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_was_not_written_to_its_end_is_written_again_and_another_is_refused() {
        let region: RegionName = "eu_west".parse().expect("a region's name");
        for (found, taken) in [
            (None, true),
            (Some(""), true),
            (Some("mesh test reg"), true),
            (Some("mesh test region eu_west"), true),
            (Some("mesh test region eu_west\n"), true),
            // Whole, and the beginning of ours only by its letters.
            (Some("mesh test region eu\n"), false),
            (Some("mesh other region eu_west\n"), false),
            (Some("mesh othe"), false),
        ] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let owner = directory.path().join("owner");
            if let Some(found) = found {
                fs::write(&owner, found).expect("it can be written");
            }
            let took = DataDirectory::take(directory.path(), &Owner::node("test", &region));
            assert_eq!(took.is_ok(), taken, "{found:?}: {:?}", took.err());
            let left = fs::read_to_string(&owner).expect("there is an owner");
            assert_eq!(left, if taken { "mesh test region eu_west\n" } else { found.unwrap_or_default() }, "{found:?}");
        }
    }
}
