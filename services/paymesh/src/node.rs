//! The composition root: one region's node, put together from its parts and taken apart again.
//!
//! Order matters. Everything that can be wrong about the configuration and the machine is found before a port is bound;
//! ports are bound before shards are opened, so that a second node on the same machine fails at once. Calls are answered while shards
//! are opened, because nodes that start together ask each other what they have before they lead anything; a shard takes calls once it
//! is checked and brought up to date, and the node says that it is ready once that is so of all, or is not to be waited for.

mod acquiring;
mod audit;
mod credentials;
pub(crate) mod edge;
mod files;
mod frame;
mod fraud;
mod machine;
mod replicas;
mod shards;
mod vault;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use paymesh_cache::InProcess;
use paymesh_contract::mesh::v1::ComponentProblem;
use paymesh_journal::{Holding, sqlite::Engine};
use paymesh_mesh::{Limits, Mesh, Security};
use paymesh_payment_processor::{Problems, Services};
use paymesh_replication::{Census, Heard, Replicas, Replication};
use paymesh_shard::{Clock, Copies, Options, Shards, Unopened};
use paymesh_telemetry::{Component, Health};
use paymesh_topology::{DIRECTORY_ZONE, Topology};
use paymesh_types::{RegionName, ShardRef, Timestamp};
use tokio::{sync::watch, task::JoinSet};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    args::{NodeArgs, ProcessArgs, Setting},
    exit::Exit,
    exit::unusable,
};
use acquiring::Outside;
use frame::Frame;
use machine::{DataDirectory, Listeners, Owner};
use replicas::{Keeper, SET_ASIDE};
use shards::Opener;

/// Entries that the tables may be behind at most, for all shards of the node together. Each is about a kilobyte in memory.
const PROJECTION_LAG_MAX: u64 = 262_144;

/// How long gRPC's health service may say something else than `/ready`.
const READY_EVERY: Duration = Duration::from_millis(250);

/// The node's own parts, beside its shards, as its health calls them.
const FILES: &str = "files";
const AUDIT: &str = "audit";
const CREDENTIALS: &str = "credentials";
const CALLERS: &str = "callers";
pub(crate) const VAULT: &str = "vault";
const FRAUD: &str = "fraud detection";
const FRAUD_RULES: &str = "fraud rules";
const COMPONENTS: [&str; 7] = [FILES, AUDIT, CREDENTIALS, CALLERS, VAULT, FRAUD, FRAUD_RULES];

/// Bytes of memory for what cards of payment methods look like: some hundred thousand of them.
const CARDS_BYTES_MAX: u64 = 32 << 20;

/// Records in memory at most, of each kind and for all shards of the node together. A million accounts are about 150 MB.
const RECORDS_MAX: usize = 2_000_000;

/// Runs the node of one region until it is told to leave.
pub(crate) fn run(setting: &Setting, args: &NodeArgs) -> anyhow::Result<ExitCode> {
    let topology = Topology::load(&setting.config).map_err(unusable)?;
    start(setting, topology, args)
}

/// The same, of a region that is a vault alone.
pub(crate) fn run_vault(setting: &Setting, process: ProcessArgs) -> anyhow::Result<ExitCode> {
    let topology = Topology::load(&setting.config).map_err(unusable)?;
    if topology.region(&process.region).is_some_and(|region| !region.is_vault_alone()) {
        return Err(unusable(format!(
            "region {} is more than a vault: `paymesh node` runs it; a vault alone is a region with `services: [vault]` and `database: none`",
            process.region
        )));
    }
    start(setting, topology, &NodeArgs { process, trust_own_journals: false })
}

fn start(setting: &Setting, topology: Topology, args: &NodeArgs) -> anyhow::Result<ExitCode> {
    let process = &args.process;
    let region = topology.region(&process.region).ok_or_else(|| no_region(&topology, &process.region))?;
    if setting.credentials.is_none() {
        machine::require_loopback(region)?;
        machine::require_loopback_listeners(process)?;
    }
    machine::without_core_dumps()?;
    let shared = Arc::new(topology.clone());
    let security = credentials::read(setting, shared.clone(), &process.region)?;
    let rules = fraud::read(&setting.config, &topology)?;
    let outside = acquiring::outside(setting, &topology, &process.region, &rules)?;
    let vault = vault::Place::of(&topology, setting, process)?;
    let data = DataDirectory::take(&process.data, &Owner::node(topology.mesh(), &process.region))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let served = runtime.block_on(serve(setting, args, shared.clone(), Parts { security, outside, rules, vault }, &data));
    // What still runs has nothing to lose: everything that was answered is durable.
    runtime.shutdown_timeout(Duration::from_millis(500));
    served.map(|()| Exit::Good.into())
}

fn no_region(topology: &Topology, named: &RegionName) -> anyhow::Error {
    let known = topology.regions().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
    unusable(format!("region `{named}` is not in the configuration; its regions are {known}"))
}

/// What can be wrong with a node before it starts.
struct Parts {
    security: Security,
    outside: Outside,
    rules: fraud::Rules,
    vault: Option<vault::Place>,
}

async fn serve(setting: &Setting, args: &NodeArgs, topology: Arc<Topology>, parts: Parts, data: &DataDirectory) -> anyhow::Result<()> {
    let NodeArgs { process, trust_own_journals } = args;
    let Parts { security, outside, rules, vault } = parts;
    let (_telemetry, metrics) = frame::observe(process, "paymesh")?;
    paymesh_acquirers::describe_metrics();
    paymesh_payment_processor::describe_metrics();
    paymesh_shard::describe_metrics();
    paymesh_replication::describe_metrics();
    paymesh_fraud_detection::describe_metrics();
    metrics::describe_counter!(fraud::RULES_REFUSED, "Times that a new fraud.yaml could not be used");
    metrics::counter!(fraud::RULES_REFUSED).increment(0);
    metrics::describe_counter!(SET_ASIDE, "Copies of other regions' shards that were damaged or had diverged, and are made anew");
    let region = topology.region(&process.region).context("the region was found before")?;
    let listeners = Listeners::bind(region, process).await?;
    let mut frame = Frame::raise("node", process, data.path(), &topology, listeners.http, metrics)?;
    let mesh = Mesh::new(topology.clone(), process.region.clone(), security.clone())?;
    frame.guard(&mesh, security);
    let Frame { health, mut tasks, audit_log, leaving, http_stop } = frame;

    let led = topology.led_by(&process.region);
    let shards = led.len().max(1);
    let heard = (!trust_own_journals).then(|| ask_followers(&mesh, &mut tasks));
    let storage = Engine::new(data.path());
    let opener = Opener {
        topology: topology.clone(),
        storage: storage.clone(),
        options: Options {
            outcome_retention: topology.outcome_retention(),
            retention: shards::retention(&topology),
            records_max: RECORDS_MAX / shards,
            projection_lag_entries_max: PROJECTION_LAG_MAX / shards as u64,
            ..Options::default()
        },
        clock: Arc::new(system_time),
        heard,
    };
    let (shards, settled) = Arc::new(opener).open_all(led, &health, &mut tasks);
    health.ready_if({
        let shards = shards.clone();
        move || serves_any(&shards)
    });
    let clock: Clock = Arc::new(system_time);
    let takes_money = topology.led_by(&process.region).iter().any(|shard| shard.zone.as_str() != DIRECTORY_ZONE);
    let keeper = Keeper { topology: topology.clone(), storage, directory: process.data.clone(), mesh: mesh.clone(), takes_money, clock };
    let replicas = keeper.keep(paymesh_replication::plan(&topology, &process.region), &health, &mut tasks);
    let mut inboxes = shards.follow_each_other();
    follow_others(&shards, &replicas, &mut inboxes);
    tasks.spawn(watch_inboxes(inboxes));
    for (shard, _) in shards.iter() {
        tasks.spawn(tell_inboxes(shards.clone(), shard.clone(), health.clone()));
    }

    let vault = vault.map(|place| {
        let (opened, vault) = watch::channel(None);
        tasks.spawn(vault::keep(place, opened, health.component(VAULT)));
        paymesh_vault::service(vault, mesh.clone(), outside.vault)
    });

    // A zone whose payments nobody scores needs no rules, and a vault alone decides upon none.
    if topology.scores_fraud(&region.zone) && !region.is_vault_alone() {
        tasks.spawn(fraud::watch_rules(setting.config.clone(), topology.clone(), rules.clone(), health.component(FRAUD_RULES)));
    }
    let fraud = fraud::Place::of(&topology, &process.region, data.path()).map(|place| {
        let (opened, detector) = watch::channel(None);
        tasks.spawn(fraud::keep(place, rules.subscribe(), opened, health.component(FRAUD)));
        detector
    });

    let (reporter, grpc_health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    tasks.spawn(tell_readiness(health.clone(), reporter.clone()));
    let (reflection_v1, reflection_v1alpha) = frame::reflection()?;
    let problems = problems(&health);
    let routes = if region.is_vault_alone() {
        paymesh_payment_processor::operations(mesh.clone(), problems)
    } else {
        let Services { routes, sweep } = paymesh_payment_processor::services(
            shards.clone(),
            copies(&replicas),
            mesh.clone(),
            problems,
            outside.payments,
            Arc::new(InProcess::new(CARDS_BYTES_MAX)),
        );
        tasks.spawn(async move { match sweep.await {} });
        routes
    };
    let mut routes: Routes = routes
        .add_service(Replication::new(mesh.clone(), shards.clone(), replicas).server())
        .add_service(audit::Audit::new(audit_log.clone()).server())
        .add_service(grpc_health)
        .add_service(reflection_v1)
        .add_service(reflection_v1alpha);
    if let Some(vault) = vault {
        routes = routes.add_service(vault);
    }
    if let Some(detector) = &fraud {
        routes = routes.add_service(paymesh_fraud_detection::service(detector.clone(), mesh.clone()));
    }

    let limits = limits(&topology);
    let connections_max = limits.connections_max;
    let leaving = leaving.when(reporter.clone(), settled, || {
        tracing::info!(region = %region.name, grpc = %region.grpc, http = %region.http, connections_max, "serving");
    });
    let served = tokio::select! {
        served = mesh.serve(routes, listeners.grpc, limits, leaving) => served.context("the gRPC listener"),
        Some(task) = tasks.join_next() => frame::ended(task),
    };
    // What was scored last is recorded by a task that is about to end.
    let detector = fraud.and_then(|detector| detector.borrow().clone());
    if let Some(detector) = detector
        && !detector.flush().await
    {
        tracing::warn!("what was scored last is not recorded");
    }
    // First those who would take the closing of a shard for its failure.
    let _ = http_stop.send(());
    tasks.shutdown().await;
    for (_, shard) in shards.iter() {
        if let Ok(shard) = shard {
            shard.close().await;
        }
    }
    // Last: whatever was done until now is in it.
    audit::close(&audit_log).await;
    tracing::info!("left");
    served
}

/// What is wrong with the node itself: its shards, copies and inboxes say it in statuses of their own.
fn problems(health: &Health) -> Problems {
    let health = health.clone();
    Arc::new(move || {
        let own = health.report().checks.into_iter().filter(|(component, _)| COMPONENTS.contains(&component.as_str()));
        let said = own.filter_map(|(component, check)| {
            let works = check.error.is_none();
            check.error.or(check.warning).map(|problem| ComponentProblem { component, works, problem })
        });
        said.collect()
    })
}

/// Has the regions that follow the node's shards asked what they have of them.
fn ask_followers(mesh: &Mesh, tasks: &mut JoinSet<anyhow::Result<()>>) -> Heard {
    let (census, heard) = Census::new(mesh.clone());
    tasks.spawn(async move {
        census.take().await;
        std::future::pending().await
    });
    heard
}

/// The listener's bounds. At least half of the files that the process may open are left to its journals and its health.
fn limits(topology: &Topology) -> Limits {
    let limits = Limits::from(topology.limits());
    let connections_max = machine::open_files_max().map_or(limits.connections_max, |files| limits.connections_max.min(files / 2));
    Limits { connections_max, ..limits }
}

/// The replicas that can be read: the whole ones.
fn copies(replicas: &Replicas) -> Copies {
    let whole = replicas.iter().filter(|following| following.followed().holding == Holding::Whole);
    Copies::new(whole.map(|following| (following.followed().shard.clone(), following.watch())).collect())
}

/// Whether any of the shards led here serves, or may yet: who waits for other regions is not to hold them up. A region that leads none
/// forwards, and is there for that.
fn serves_any(shards: &Shards) -> bool {
    let mut all = shards.iter().peekable();
    all.peek().is_none()
        || all.any(|(_, shard)| match shard {
            Ok(shard) => shard.status().problem.is_none(),
            Err(refusal) => refusal.kind == Unopened::Opening,
        })
}

fn serving(ready: bool) -> ServingStatus {
    if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

/// Says by gRPC's health service what `/ready` says.
async fn tell_readiness(health: Health, reporter: HealthReporter) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(READY_EVERY);
    let mut told = None;
    loop {
        looks.tick().await;
        let ready = health.report().ready;
        if told.replace(ready) != Some(ready) {
            reporter.set_service_status("", serving(ready)).await;
        }
    }
}

/// Starts the inboxes of the led shards for the shards of other regions.
fn follow_others(shards: &Shards, replicas: &Replicas, inboxes: &mut JoinSet<(ShardRef, ShardRef, String)>) {
    // The directory pays nobody.
    for following in replicas.iter().filter(|following| following.followed().shard.zone.as_str() != DIRECTORY_ZONE) {
        for (to, _) in shards.iter().filter(|(name, _)| name.zone.as_str() != DIRECTORY_ZONE) {
            let (shards, following, to) = (shards.clone(), following.clone(), to.clone());
            inboxes.spawn(async move {
                loop {
                    let replica = following.opened().await;
                    tokio::select! {
                        why = shards.follow(replica.clone(), &to) => return (following.followed().shard.clone(), to, why),
                        // Another is made in its place, and the inbox goes on with that.
                        () = following.replaced(&replica) => {}
                    }
                }
            });
        }
    }
}

/// An inbox that cannot go on ends, and says so to its shard.
async fn watch_inboxes(mut inboxes: JoinSet<(ShardRef, ShardRef, String)>) -> anyhow::Result<()> {
    while let Some(ended) = inboxes.join_next().await {
        ended.context("an inbox died")?;
    }
    std::future::pending().await
}

/// A shard that gets no money from another, or does not believe what that says, shows in the node's health.
async fn tell_inboxes(shards: Shards, to: ShardRef, health: Health) -> anyhow::Result<()> {
    let mut told: BTreeMap<ShardRef, Component> = BTreeMap::new();
    if let Some(shard) = shards.opened(&to).await {
        let mut problems = shard.inbox_problems();
        loop {
            let now = problems.borrow_and_update().clone();
            told.iter().filter(|(from, _)| !now.contains_key(from)).for_each(|(_, component)| component.healthy());
            for (from, why) in now {
                told.entry(from).or_insert_with_key(|from| health.component(format!("inbox {to} from {from}"))).unhealthy(why);
            }
            // The shard, which has the sender, is one of the node's for as long as that runs.
            if problems.changed().await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}

/// The one place where the system's clock is read for the books.
fn system_time() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX))
}
