//! `paymesh edge`: takes the calls of a region, and keeps no journals. There can be any number of it.
//!
//! It ends TLS, knows callers by their tokens, holds them to their limits, records their calls, and has the mesh carry them: to its own region's node, or straight
//! to another's. It has the parts of a node that a call passes before it comes to a service, and no services. See ADR 0025.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use paymesh_mesh::{Mesh, Security};
use paymesh_telemetry::{Health, Metrics};
use paymesh_topology::Topology;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use super::{
    AUDIT, BUILD_INFO, CALLERS, CREDENTIALS, FILES, LOG_FILTER, audit, credentials, files, limits,
    machine::{self, DataDirectory, Leave, Listeners, Owner},
    reflection, tell_readiness,
};
use crate::{
    args::{ProcessArgs, Setting},
    exit::{Exit, unusable},
};

/// Runs an edge of a region until it is told to leave.
pub(crate) fn run(setting: &Setting, process: &ProcessArgs) -> anyhow::Result<ExitCode> {
    let topology = Topology::load(&setting.config).map_err(unusable)?;
    let region = topology.region(&process.region).ok_or_else(|| super::no_region(&topology, &process.region))?;
    if region.is_vault_alone() {
        return Err(unusable(format!(
            "region {} is a vault alone, and takes no calls to carry on: an edge is of another region",
            process.region
        )));
    }
    let (Some(grpc), Some(http)) = (process.listen_grpc, process.listen_http) else {
        return Err(unusable(
            "--listen-grpc and --listen-http are missing: no configuration says where an edge listens, because there can be many",
        ));
    };
    if setting.credentials.is_none() {
        machine::require_loopback(region)?;
        machine::require_loopback_listeners(process)?;
    }
    machine::without_core_dumps()?;
    let topology = Arc::new(topology);
    let security = credentials::read_edge(setting, topology.clone(), &process.region)?;
    let data = DataDirectory::take(&process.data, &Owner::edge(topology.mesh(), &process.region))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let served = runtime.block_on(async {
        let listeners = Listeners::bind_to(grpc, http).await?;
        serve(process, topology, security, listeners, &data).await
    });
    runtime.shutdown_timeout(Duration::from_millis(500));
    served.map(|()| Exit::Good.into())
}

async fn serve(
    process: &ProcessArgs,
    topology: Arc<Topology>,
    security: Security,
    listeners: Listeners,
    data: &DataDirectory,
) -> anyhow::Result<()> {
    let _telemetry = paymesh_telemetry::init(&paymesh_telemetry::Config {
        service_name: "paymesh-edge".to_owned(),
        region: Some(process.region.to_string()),
        json_logs: process.json_logs,
        otlp_endpoint: process.otlp.clone(),
        filter: std::env::var("RUST_LOG").unwrap_or_else(|_| LOG_FILTER.to_owned()),
    })?;
    let metrics = Metrics::install(process.region.as_str())?;
    paymesh_audit::describe_metrics();
    paymesh_mesh::describe_metrics();
    paymesh_mesh::describe_edge_metrics();
    metrics::describe_gauge!(
        credentials::NOT_AFTER,
        metrics::Unit::Seconds,
        "When this edge's certificate ends, in seconds since 1970 UTC"
    );
    metrics::describe_gauge!(BUILD_INFO, "Always 1; the label says which version runs");
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let leave = Leave::new(process.supervised)?;
    let (grpc, http_at) = (listeners.grpc.local_addr()?, listeners.http.local_addr()?);

    // Ready is who can answer in words. Where the region's node is away, callers are told so, and which of them come again safely: without an edge
    // they would be told nothing.
    let health = Health::new(process.region.as_str());
    let edge = health.component("edge");
    edge.starting();
    let mut tasks = JoinSet::new();
    let (http_stop, http_stopped) = tokio::sync::oneshot::channel::<()>();
    let http = paymesh_telemetry::serve_http(listeners.http, health.clone(), metrics, async move {
        let _ = http_stopped.await;
    });
    tasks.spawn(async move { http.await.context("the http listener") });
    tasks.spawn(files::watch(data.path().to_owned(), health.component(FILES)));

    let (audit_log, writer) = audit::open(data.path(), &topology, &process.region);
    tasks.spawn(audit::write(writer));
    let (looked, audit_looked_at) = tokio::sync::oneshot::channel();
    tasks.spawn(audit::watch(audit_log.clone(), health.component(AUDIT), looked));

    let mesh = Mesh::of_edge(topology.clone(), process.region.clone(), security.clone())?;
    mesh.audit_to(audit_log.clone());
    match security {
        Security::Certificates { identity, callers } => {
            tracing::info!(edge = %identity.name(), "in TLS: callers may do what their tokens are granted");
            tasks.spawn(credentials::watch(mesh.clone(), identity, health.component(CREDENTIALS)));
            tasks.spawn(credentials::watch_callers(callers, health.component(CALLERS)));
        }
        Security::PlainText => tracing::warn!("in plain text: whoever reaches this machine's loopback is believed, and may do everything"),
    }

    let (reporter, grpc_health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    tasks.spawn(tell_readiness(health.clone(), reporter.clone()));
    let (reflection_v1, reflection_v1alpha) = reflection()?;
    let routes = Routes::new(grpc_health).add_service(reflection_v1).add_service(reflection_v1alpha);

    let limits = limits(&topology);
    let leaving = {
        let (health, reporter) = (health.clone(), reporter.clone());
        async move {
            let wanted = leave.wanted();
            tokio::pin!(wanted);
            let why = tokio::select! {
                why = &mut wanted => why,
                _ = audit_looked_at => {
                    tracing::info!(region = %process.region, %grpc, http = %http_at, connections_max = limits.connections_max, "serving");
                    edge.healthy();
                    wanted.await
                }
            };
            tracing::info!(why, "leaving: no new calls are taken, those in hand are finished");
            health.drain();
            reporter.set_service_status("", ServingStatus::NotServing).await;
        }
    };
    let served = tokio::select! {
        served = mesh.serve(routes, listeners.grpc, limits.clone(), leaving) => served.context("the gRPC listener"),
        Some(ended) = tasks.join_next() => super::ended(ended),
    };
    let _ = http_stop.send(());
    tasks.shutdown().await;
    audit::close(&audit_log).await;
    tracing::info!("left");
    served
}
