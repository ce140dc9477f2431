//! `paymesh up`: every region of the configuration on this machine, supervised, in one terminal.
//!
//! One task owns each node: it starts it, says when it is ready, notices its death and starts it again after a pause that
//! grows, until it has died too often. A region that is given up does not take the others with it. Nothing here waits for
//! whoever reads this program's output.

use std::{
    io::{IsTerminal as _, stdout},
    time::{Duration, Instant},
};

use paymesh_contract::policies;
use paymesh_topology::{Access, Fraud, Gateways};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use crate::{
    acquirer,
    args::{Setting, UpArgs},
    certs, client,
    exit::{Exit, unusable},
    note,
    output::Terminal,
    supervisor::{self, Logs, Node, Spec},
};

/// The pause before the first restart; each is twice the one before, up to the last.
const RESTART_PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause before a restart.
const RESTART_PAUSE_LAST: Duration = Duration::from_secs(30);
/// Deaths in a row, without a steady run between, after which a node is given up.
const DEATHS_MAX: u32 = 5;
/// A run of that length is steady: the deaths before it no longer count.
const STEADY_RUN: Duration = Duration::from_secs(60);
/// What a node leaves with when its configuration or command line is wrong: starting it again cannot help.
const EXIT_UNUSABLE: i32 = Exit::Unusable as i32;
/// ANSI colours of the regions' prefixes: all but black, white and red.
const COLOURS: [u8; 10] = [36, 33, 35, 32, 34, 96, 93, 95, 92, 94];

/// Where simulated acquirers keep their charges, in the directory of the nodes' storage.
const ACQUIRERS: &str = "acquirers";

/// Runs the command.
pub(crate) async fn run(setting: &Setting, args: UpArgs) -> anyhow::Result<Exit> {
    let topology = client::load(&setting.config)?;
    supervisor::check_ports(&topology)?;
    if let Some(directory) = setting.credentials.as_deref().filter(|directory| !directory.exists()) {
        certs::make_for_now(&topology, directory)?;
        note!(
            "made credentials in {}: other commands find them there when they are run in this directory, or with --credentials",
            directory.display()
        );
    }
    if setting.credentials.is_some() {
        // Once, and not by each node again.
        Access::load(&setting.config, &topology, &policies().caller_scopes()).map_err(unusable)?;
    }
    let gateways = Gateways::load(&setting.config, &topology).map_err(unusable)?;
    Fraud::load(&setting.config, &topology).map_err(unusable)?;
    let terminal = Terminal::new()?;
    let (stop, stopping) = watch::channel(false);
    // What is outside of the mesh, as far as it is simulated on this machine.
    let mut simulators = match &gateways {
        Some(gateways) => {
            let (started, simulators) = acquirer::stand_in(gateways, &args.data.join(ACQUIRERS)).await?;
            for gateway in started {
                terminal.note(format_args!("paymesh: simulates the acquirer behind gateway {gateway}: no money moves"));
            }
            simulators
        }
        None => JoinSet::new(),
    };
    let (ready, mut all_ready) = watch::channel(0_usize);
    let width = topology.regions().map(|region| region.name.as_str().len()).max().unwrap_or(0);
    let mut nodes = JoinSet::new();
    for (index, region) in topology.regions().enumerate() {
        let prefix = if args.json_logs { String::new() } else { prefix(region.name.as_str(), width, index) };
        let spec = Spec {
            region: region.name.clone(),
            http: region.http.clone(),
            setting: setting.clone(),
            data: supervisor::data_of(region, &args.data),
            json_logs: args.json_logs,
            otlp: args.otlp.clone(),
            trust_own_journals: args.trust_own_journals,
            logs: Logs::Terminal { terminal: terminal.clone(), prefix },
        };
        nodes.spawn(supervise(spec, terminal.clone(), stopping.clone(), ready.clone()));
    }
    drop(ready);

    let mut good = true;
    let mut announced = false;
    let mut interrupts = Interrupts::new();
    loop {
        tokio::select! {
            Some(ended) = nodes.join_next() => good &= ended?,
            Ok(()) = all_ready.changed(), if !announced => if *all_ready.borrow_and_update() == topology.regions().len() {
                announced = true;
                terminal.say(format_args!("mesh `{}` is up; call any region:", topology.mesh()));
                for region in topology.entries() {
                    terminal.say(format_args!("  {:<width$}  grpc {}   http://{}/metrics", region.name.as_str(), region.grpc, region.http));
                }
                terminal.say("Ctrl-C drains and stops it");
            },
            Some(ended) = simulators.join_next(), if !*stop.borrow() => {
                if let Err(why) = ended? {
                    terminal.note(format_args!("paymesh: {why:#}; cards are not charged there any more"));
                }
            },
            () = interrupts.next(), if !*stop.borrow() => {
                terminal.note("paymesh: draining");
                stop.send_replace(true);
            }
            else => break,
        }
        if nodes.is_empty() {
            break;
        }
    }
    terminal.flush();
    Ok(if good { Exit::Good } else { Exit::Failed })
}

/// Keeps one node running until `stopping`. The result says whether it ended well.
async fn supervise(spec: Spec, terminal: Terminal, mut stopping: watch::Receiver<bool>, ready: watch::Sender<usize>) -> bool {
    let mut deaths = 0;
    let mut counted = false;
    loop {
        let started = Instant::now();
        let mut node = match spec.start() {
            Ok(node) => node,
            Err(error) => {
                terminal.note(format_args!("paymesh: {error:#}"));
                return false;
            }
        };
        let on_ready = || {
            terminal.note(format_args!("paymesh: {} is ready after {} ms", spec.region, started.elapsed().as_millis()));
            if !std::mem::replace(&mut counted, true) {
                ready.send_modify(|count| *count += 1);
            }
        };
        // The guard that `wait_for` gives must not be held across an await.
        let asked_to_stop = async {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let ended = tokio::select! {
            ended = watch_node(&mut node, on_ready) => Some(ended),
            () = asked_to_stop => None,
        };
        let Some(ended) = ended else {
            let stopped = node.stop().await;
            if let Err(why) = &stopped {
                terminal.note(format_args!("paymesh: {} did not drain: {why}", spec.region));
            }
            return stopped.is_ok();
        };
        if started.elapsed() >= STEADY_RUN {
            deaths = 0;
        }
        deaths += 1;
        if ended.code() == Some(EXIT_UNUSABLE) {
            terminal.note(format_args!("paymesh: {} cannot run with this configuration and is not started again", spec.region));
            return false;
        }
        if deaths >= DEATHS_MAX {
            terminal.note(format_args!(
                "paymesh: {} ended ({ended}) for the {deaths}th time in a row and is given up; the other regions go on",
                spec.region
            ));
            return false;
        }
        let pause = RESTART_PAUSE_FIRST.saturating_mul(1 << (deaths - 1).min(16)).min(RESTART_PAUSE_LAST);
        terminal.note(format_args!("paymesh: {} ended ({ended}); it is started again in {} ms", spec.region, pause.as_millis()));
        tokio::select! {
            () = sleep(pause) => {}
            _ = stopping.wait_for(|stop| *stop) => return true,
        }
    }
}

/// Waits until the node ends; calls `on_ready` when it is ready.
async fn watch_node(node: &mut Node, on_ready: impl FnOnce()) -> std::process::ExitStatus {
    match node.ready().await {
        Ok(()) => {
            on_ready();
            node.ended().await
        }
        Err(ended) => ended,
    }
}

/// Each Ctrl-C of the operator, and each request to terminate.
pub(crate) struct Interrupts {
    /// Without handlers the default action stands: the process ends at once.
    signals: Option<(Signal, Signal)>,
}

impl Interrupts {
    /// From now on.
    pub(crate) fn new() -> Self {
        Self { signals: signal(SignalKind::interrupt()).ok().zip(signal(SignalKind::terminate()).ok()) }
    }

    /// Waits for the next.
    pub(crate) async fn next(&mut self) {
        let Some((interrupt, terminate)) = &mut self.signals else { return std::future::pending().await };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// What stands before each line of a region's log.
fn prefix(region: &str, width: usize, index: usize) -> String {
    let coloured = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match coloured {
        true => format!("\u{1b}[{}m{region:<width$}\u{1b}[0m | ", COLOURS[index % COLOURS.len()]),
        false => format!("{region:<width$} | "),
    }
}
