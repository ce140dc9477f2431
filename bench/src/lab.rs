//! One invocation at work: settings, the folder for the servers' data, and the runs so far.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use crate::{
    load::{self, Mode, Payees, Plan, Security, Work},
    options::Common,
    region::{CALLER, Mesh, Place},
    report::{Program, Report, Run, Setup},
    sample::{Machine, Process, Stored, load_average},
    server::{Server, drained},
};

/// Enrolments in flight.
const ENROL_IN_FLIGHT: usize = 512;

/// HTTP/2 connections of an enrolment.
const ENROL_CONNECTIONS: usize = 2;

/// What the subcommands share.
#[derive(Debug)]
pub(crate) struct Lab {
    /// The settings.
    pub(crate) common: Common,
    /// The outcome so far.
    pub(crate) report: Report,
    data: TempDir,
    folders: usize,
    plans: u64,
}

/// What is measured in one run, and under which names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'a> {
    /// What is the same for all sides.
    pub(crate) case: &'a str,
    /// The side.
    pub(crate) side: &'a str,
    /// How payments are sent.
    pub(crate) mode: Mode,
    /// Who is paid.
    pub(crate) payees: Payees,
    /// Users to pay and be paid.
    pub(crate) accounts: u64,
    /// From 1.
    pub(crate) round: usize,
}

impl Lab {
    /// Makes the folder for data and looks at the machine.
    pub(crate) fn new(bench: &str, common: Common) -> anyhow::Result<Self> {
        ensure!(common.rounds > 0, "--rounds must be one at least");
        let parent = common.data.clone().unwrap_or_else(std::env::temp_dir);
        fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let data = TempDir::with_prefix_in("paymesh-bench-", &parent).with_context(|| format!("cannot write into {}", parent.display()))?;
        let report = Report {
            bench: bench.to_owned(),
            arguments: std::env::args().skip(1).collect(),
            seed: common.seed,
            optimised: !cfg!(debug_assertions),
            program: None,
            machine: Machine::look(data.path())?,
            runs: Vec::new(),
            setups: Vec::new(),
            figures: Vec::new(),
            ratios: Vec::new(),
            bars: Vec::new(),
        };
        eprintln!("seed {}; {}", report.seed, report.machine.line());
        Ok(Self { common, report, data, folders: 0, plans: 0 })
    }

    /// The folder for all data.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// A fresh folder for a server's data.
    pub(crate) fn folder(&mut self, name: &str) -> anyhow::Result<PathBuf> {
        self.folders += 1;
        let path = self.data.path().join(format!("{:02}-{name}", self.folders));
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// The node's program, which the report names from then on.
    pub(crate) fn program(&mut self) -> anyhow::Result<PathBuf> {
        let program = self.common.paymesh()?;
        if self.report.program.is_none() {
            self.report.program = Some(Program::look(&program)?);
        }
        Ok(program)
    }

    /// Starts a peer, this program's own subcommand.
    pub(crate) async fn peer(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<Server> {
        let folder = self.folder(name)?;
        Server::peer(name, &folder, arguments).await
    }

    /// Starts the simulator of an acquirer.
    pub(crate) async fn acquirer(&mut self, latency_ms: u64) -> anyhow::Result<Server> {
        let (program, folder) = (self.program()?, self.folder("acquirer")?);
        Server::acquirer(&program, &folder, latency_ms).await
    }

    /// Starts a node for each place of a mesh, with fresh data, and waits until all serve.
    pub(crate) async fn mesh(&mut self, mesh: &Mesh) -> anyhow::Result<Vec<Server>> {
        self.start(mesh, false).await
    }

    /// The same in TLS, with a token for the client to show.
    pub(crate) async fn secured_mesh(&mut self, mesh: &Mesh) -> anyhow::Result<Vec<Server>> {
        self.start(mesh, true).await
    }

    async fn start(&mut self, mesh: &Mesh, secured: bool) -> anyhow::Result<Vec<Server>> {
        let program = self.program()?;
        let config = self.folder("region-config")?;
        mesh.write(&config)?;
        let security = if secured { Some(self.security(&program, &config)?) } else { None };
        let mut nodes = Vec::new();
        for Place { region, grpc_port, .. } in &mesh.places {
            let folder = self.folder(region)?;
            nodes.push(Server::node(region, &program, *grpc_port, &config, &folder, security.as_ref())?);
        }
        for node in &mut nodes {
            node.serving().await?;
        }
        Ok(nodes)
    }

    /// Starts an edge of the first region of a secured mesh that runs, called as its node is.
    pub(crate) async fn edge(&mut self, mesh: &Mesh, node: &Server) -> anyhow::Result<Server> {
        let security = node.security.clone().context("an edge is in TLS, and so is its mesh")?;
        let (program, config, folder) = (self.program()?, self.folder("region-config")?, self.folder("edge")?);
        mesh.write(&config)?;
        Mesh::write_access(&config)?;
        Server::edge(&mesh.places[0].region, &program, &config, &folder, &security).await
    }

    /// Credentials of a mesh, and a token.
    fn security(&mut self, program: &Path, config: &Path) -> anyhow::Result<Security> {
        Mesh::write_access(config)?;
        let credentials = self.folder("credentials")?;
        let run = |arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            command.arg("--config").arg(config).arg("--credentials").arg(&credentials).args(arguments);
            let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
            ensure!(output.status.success(), "paymesh {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr));
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let directory = credentials.to_str().context("the folder for data has a plain name")?;
        run(&["certs", directory])?;
        let token = run(&["token", CALLER, "--minutes", "1440"])?;
        Ok(Security { credentials, token })
    }

    /// Enrols users with accounts and deposits at `nodes[0]`, and waits until everything has caught up.
    pub(crate) async fn enrol(&mut self, case: &str, nodes: &mut [Server], accounts: u64, country: &str) -> anyhow::Result<()> {
        let work = Work::Enrol { in_flight: ENROL_IN_FLIGHT, country: country.to_owned() };
        let plan = Plan { connections: ENROL_CONNECTIONS, ..self.plan(&nodes[0], accounts, work) };
        let bar = ProgressBar::new(accounts);
        bar.set_style(ProgressStyle::with_template("{msg}: enrolling {human_pos}/{human_len} {wide_bar} {per_sec} {eta}")?);
        bar.set_message(case.to_owned());
        let outcome = load::run(&plan, |done| bar.set_position(done)).await;
        bar.finish_and_clear();
        let report = outcome.with_context(|| format!("{case}: {}", nodes[0].log_tail()))?;
        drained(nodes).await?;
        let seconds = (report.ended_us - report.began_us) as f64 / 1e6;
        let peak_bytes = nodes[0].sample()?.peak_bytes;
        self.report.setups.push(Setup {
            case: case.to_owned(),
            users: report.answered,
            rate: report.answered as f64 / seconds,
            peak_bytes,
        });
        Ok(())
    }

    /// Runs one load against `servers[0]`; the processor time of all of them counts, and all must catch up.
    pub(crate) async fn measure(&mut self, task: Task<'_>, servers: &mut [Server]) -> anyhow::Result<Run> {
        let Task { case, side, mode, payees, accounts, round } = task;
        let work = Work::Pay { mode, payees, warm_up_ms: self.common.warm_up_ms(), measure_ms: self.common.measure_ms() };
        let plan = self.plan(&servers[0], accounts, work);
        eprint!("{case}, {side}, {}, {payees:?}, round {round}: ", mode.name());
        let load_before = load_average();
        let (before, files_before) = (samples(servers)?, stored(servers)?);
        let report = load::run(&plan, |_| ()).await.with_context(|| format!("{case}, {side}: {}", servers[0].log_tail()))?;
        let drained_us = drained(servers).await?;
        let (after, files_after) = (samples(servers)?, stored(servers)?);
        let grown = |before: u64, after: u64| after.saturating_sub(before) as f64 / report.answered as f64;
        let seconds = (drained_us.unwrap_or(report.ended_us).max(report.ended_us) - report.began_us) as f64 / 1e6;
        let cpu = |samples: &[Process]| samples.iter().map(|sample| sample.cpu_seconds).sum::<f64>();
        let cpu_seconds = cpu(&after) - cpu(&before);
        let run = Run {
            case: case.to_owned(),
            side: side.to_owned(),
            load: mode.name(),
            payees,
            round,
            answered: report.answered,
            rate: report.rate,
            sustained: report.answered as f64 / seconds,
            p50_us: report.p50_us,
            p99_us: report.p99_us,
            max_us: report.max_us,
            drain_ms: drained_us.map(|at| at.saturating_sub(report.ended_us) as f64 / 1e3),
            cpu_seconds,
            cpu_seconds_per_million: cpu_seconds * 1e6 / report.answered as f64,
            client_cpu_seconds: report.client_cpu_seconds,
            peak_bytes: after.iter().map(|sample| sample.peak_bytes).max().unwrap_or_default(),
            threads: after.iter().map(|sample| sample.threads).sum(),
            journal_bytes_per_payment: grown(files_before.journals, files_after.journals),
            disk_bytes_per_payment: grown(files_before.all, files_after.all),
            load_before,
            load_after: load_average(),
        };
        eprintln!("{:.0}/s, sustained {:.0}/s, p50 {} us", run.rate, run.sustained, run.p50_us);
        if report.preparation_us > 0.0 {
            self.report.figure(case, &format!("client CPU us before the run for each call, {}", mode.name()), report.preparation_us);
        }
        self.report.runs.push(run.clone());
        Ok(run)
    }

    /// Pays at a server for some time, without measuring anything else.
    pub(crate) async fn pay(&mut self, server: &Server, accounts: u64, mode: Mode, time: Duration) -> anyhow::Result<load::Report> {
        let measure_ms = u64::try_from(time.as_millis())?;
        let work = Work::Pay { mode, payees: Payees::Uniform, warm_up_ms: 0, measure_ms };
        let plan = self.plan(server, accounts, work);
        load::run(&plan, |_| ()).await.with_context(|| server.log_tail())
    }

    /// Seeds what is not a client process.
    pub(crate) fn seed(&mut self) -> u64 {
        self.plans += 1;
        self.common.seed.wrapping_add(self.plans)
    }

    fn plan(&mut self, server: &Server, accounts: u64, work: Work) -> Plan {
        // Each run has its own payments, and the same number its own again with the same seed.
        let seed = self.seed();
        let (endpoint, security) = (server.endpoint.clone(), server.security.clone());
        Plan { endpoint, security, connections: self.common.connections, accounts, seed, work }
    }
}

/// The files of all of them together.
fn stored(servers: &[Server]) -> anyhow::Result<Stored> {
    servers.iter().try_fold(Stored::default(), |sum, server| {
        let Stored { journals, all } = server.stored()?;
        Ok(Stored { journals: sum.journals + journals, all: sum.all + all })
    })
}

fn samples(servers: &[Server]) -> anyhow::Result<Vec<Process>> {
    servers.iter().map(Server::sample).collect()
}
