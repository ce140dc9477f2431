//! `paymesh edge`: takes the calls of a region, and keeps no journals. There can be any number of it.
//!
//! It ends TLS, knows callers by their tokens, holds them to their limits, records their calls, and has the mesh carry them: to its own region's node, or straight
//! to another's. It has the parts of a node that a call passes before it comes to a service, and no services. See ADR 0025.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use paymesh_mesh::{Mesh, Security};
use paymesh_topology::Topology;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use super::{
    audit, credentials,
    frame::{self, Frame},
    limits,
    machine::{self, DataDirectory, Listeners, Owner},
    tell_readiness,
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
    if process.vault_keys.is_some() {
        return Err(unusable("--vault-keys: an edge has no vault"));
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
    let (_telemetry, metrics) = frame::observe(process, "paymesh-edge")?;
    paymesh_mesh::describe_edge_metrics();
    let (grpc, http) = (listeners.grpc.local_addr()?, listeners.http.local_addr()?);
    let mut frame = Frame::raise("edge", process, data.path(), &topology, listeners.http, metrics)?;
    let mesh = Mesh::of_edge(topology.clone(), process.region.clone(), security.clone())?;
    frame.guard(&mesh, security);
    let Frame { health, mut tasks, audit_log, leaving, http_stop } = frame;

    // Ready is who can answer in words. Where the region's node is away, callers are told so, and which of them come again safely: without an edge
    // they would be told nothing.
    let (reporter, grpc_health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", ServingStatus::NotServing).await;
    tasks.spawn(tell_readiness(health, reporter.clone()));
    let (reflection_v1, reflection_v1alpha) = frame::reflection()?;
    let routes = Routes::new(grpc_health).add_service(reflection_v1).add_service(reflection_v1alpha);
    let limits = limits(&topology);
    let connections_max = limits.connections_max;
    let leaving = leaving.when(reporter, std::future::ready(()), || {
        tracing::info!(region = %process.region, %grpc, %http, connections_max, "serving");
    });
    let served = tokio::select! {
        served = mesh.serve(routes, listeners.grpc, limits, leaving) => served.context("the gRPC listener"),
        Some(task) = tasks.join_next() => frame::ended(task),
    };
    let _ = http_stop.send(());
    tasks.shutdown().await;
    audit::close(&audit_log).await;
    tracing::info!("left");
    served
}
