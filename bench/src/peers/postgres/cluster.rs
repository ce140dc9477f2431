//! A private cluster of the system's PostgreSQL.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command as BlockingCommand, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::process::{Child, Command};

use crate::{lab::Lab, sample::Process, server::free_ports};

/// Where Debian and its kin keep the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Whom the server runs as where this program is root, whom it refuses: the first who is there.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// The superuser of the clusters.
const SUPERUSER: &str = "bench";

/// What is not as it comes: what replication needs, room so that checkpoints are not what is measured, and durability said aloud.
const SETTINGS: [&str; 12] = [
    "listen_addresses=127.0.0.1",
    "fsync=on",
    "synchronous_commit=on",
    "wal_level=logical",
    "shared_buffers=512MB",
    "max_wal_size=8GB",
    "checkpoint_timeout=30min",
    "wal_compression=on",
    "max_connections=20",
    "wal_receiver_status_interval=1s",
    "logging_collector=off",
    "log_checkpoints=off",
];

/// How long a cluster may take until it answers.
const START_MAX: Duration = Duration::from_secs(60);

/// A running cluster. Dropping it kills its first process; the others see that and end.
#[derive(Debug)]
pub(crate) struct Cluster {
    name: String,
    /// Where it listens, on loopback.
    pub(crate) port: u16,
    child: Child,
    log: PathBuf,
}

impl Cluster {
    /// Makes and starts a cluster.
    pub(super) async fn start(lab: &mut Lab, name: &str) -> anyhow::Result<Self> {
        let programs = programs()?;
        let folder = lab.folder(name)?;
        let owner = owner(&folder)?;
        if let Some((user, group)) = owner {
            // Its user must get there, and see nothing else on the way.
            lab.let_through()?;
            chown(&folder, Some(user), Some(group))?;
        }
        let data = folder.join("data");
        let mut initdb = BlockingCommand::new(programs.join("initdb"));
        initdb
            .args(["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions", "--username", SUPERUSER, "--pgdata"])
            .arg(&data);
        become_user(&mut initdb, owner);
        let made = initdb.current_dir(&folder).output().context("cannot run initdb")?;
        ensure!(made.status.success(), "initdb failed ({}): {}", made.status, String::from_utf8_lossy(&made.stderr));

        let port = free_ports(1)?[0];
        let log = folder.with_extension("log");
        let output = fs::File::create(&log)?;
        let mut postgres = BlockingCommand::new(programs.join("postgres"));
        postgres.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k"]).arg(&folder);
        for setting in SETTINGS {
            postgres.args(["-c", setting]);
        }
        become_user(&mut postgres, owner);
        postgres.current_dir(&folder).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = Command::from(postgres).kill_on_drop(true).spawn().context("cannot start postgres")?;
        let mut this = Self { name: name.to_owned(), port, child, log };
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(status) = this.child.try_wait()? {
                bail!("the {name} ended ({status}): {}", this.log());
            }
            match this.connect().await {
                Ok(connection) => {
                    connection.close().await?;
                    return Ok(this);
                }
                Err(error) if Instant::now() >= deadline => return Err(error.context(this.log())),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// A connection over loopback.
    pub(crate) async fn connect(&self) -> anyhow::Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(SUPERUSER)
            .database("postgres")
            .ssl_mode(PgSslMode::Disable);
        PgConnection::connect_with(&options).await.with_context(|| format!("cannot reach the {}", self.name))
    }

    /// For a subscriber, by way of `port`.
    pub(super) fn address(&self, port: u16) -> String {
        format!("host=127.0.0.1 port={port} user={SUPERUSER} dbname=postgres sslmode=disable")
    }

    /// All of its processes now, those that have ended included.
    pub(crate) fn sample(&self) -> anyhow::Result<Process> {
        let pid = self.child.id().with_context(|| format!("the {} has ended: {}", self.name, self.log()))?;
        Process::family(pid)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The folder with the programs of the latest version that is installed. Where there is none, this installs it if it may.
fn programs() -> anyhow::Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    eprintln!("PostgreSQL is not in {VERSIONS}: trying `apt-get install postgresql`");
    let install = BlockingCommand::new("apt-get")
        .args(["install", "--yes", "--no-install-recommends", "postgresql"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output();
    let why = match install {
        Ok(output) if output.status.success() => "it has installed none".to_owned(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    installed().with_context(|| {
        format!(
            "the peer is PostgreSQL, which is not installed here and cannot be: {why}. Install it, or leave it out with --without-postgres"
        )
    })
}

fn installed() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir(VERSIONS).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let latest = versions.filter(|path| path.join("bin/postgres").is_file()).filter_map(|path| Some((version(&path)?, path))).max()?;
    Some(latest.1.join("bin"))
}

/// Whom the server must run as; `None` where it runs as whoever runs this.
fn owner(folder: &Path) -> anyhow::Result<Option<(u32, u32)>> {
    if fs::metadata(folder)?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let ids = |name: &str| {
        let line = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let mut fields = line.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = USERS.into_iter().find_map(ids);
    found.map(Some).with_context(|| format!("PostgreSQL does not run as root, and there is none of the users {USERS:?}"))
}

fn become_user(command: &mut BlockingCommand, owner: Option<(u32, u32)>) {
    use std::os::unix::process::CommandExt as _;
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
}

impl Lab {
    /// Lets other users pass through the folder for data, without reading what is in it.
    fn let_through(&self) -> anyhow::Result<()> {
        Ok(fs::set_permissions(self.data(), fs::Permissions::from_mode(0o711))?)
    }
}
