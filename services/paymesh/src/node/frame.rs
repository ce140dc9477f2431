//! What every process of a region has, whatever it does besides: logs, traces and metrics; health over HTTP and gRPC; an audit log; credentials that are taken into
//! use when they change; and the order in which it leaves. Nodes, vaults and edges are put together around it.

use std::{future::Future, path::Path};

use anyhow::Context as _;
use paymesh_audit::Log;
use paymesh_mesh::{Mesh, Security};
use paymesh_telemetry::{Component, Guard, Health, Metrics};
use paymesh_topology::Topology;
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinError, JoinSet},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::{
    v1::{ServerReflection, ServerReflectionServer},
    v1alpha::{ServerReflection as AlphaReflection, ServerReflectionServer as AlphaReflectionServer},
};

use super::{AUDIT, CALLERS, CREDENTIALS, FILES, audit, credentials, files, machine::Leave, serving};
use crate::args::ProcessArgs;

/// Where `RUST_LOG` is not set. HTTP/2 warns of each frame that it does not like, and who sends those would write the log.
const LOG_FILTER: &str = "info,h2=error";
const BUILD_INFO: &str = "paymesh_build_info";

/// Begins to log and to count. The service is what traces call the process.
pub(super) fn observe(process: &ProcessArgs, service_name: &str) -> anyhow::Result<(Guard, Metrics)> {
    let guard = paymesh_telemetry::init(&paymesh_telemetry::Config {
        service_name: service_name.to_owned(),
        region: Some(process.region.to_string()),
        json_logs: process.json_logs,
        otlp_endpoint: process.otlp.clone(),
        filter: std::env::var("RUST_LOG").unwrap_or_else(|_| LOG_FILTER.to_owned()),
    })?;
    let metrics = Metrics::install(process.region.as_str())?;
    paymesh_audit::describe_metrics();
    paymesh_mesh::describe_metrics();
    metrics::describe_gauge!(
        credentials::NOT_AFTER,
        metrics::Unit::Seconds,
        "When this process's certificate ends, in seconds since 1970 UTC"
    );
    metrics::describe_gauge!(BUILD_INFO, "Always 1; the label says which version runs");
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok((guard, metrics))
}

/// The frame of a process that runs.
pub(super) struct Frame {
    pub(super) health: Health,
    /// What runs beside the services, and ends the process when it ends.
    pub(super) tasks: JoinSet<anyhow::Result<()>>,
    pub(super) audit_log: Log,
    pub(super) leaving: Leaving,
    /// Ends the listener of HTTP.
    pub(super) http_stop: oneshot::Sender<()>,
}

/// What tells a process to leave, and whom it tells.
pub(super) struct Leaving {
    leave: Leave,
    audit_looked_at: oneshot::Receiver<()>,
    health: Health,
    own: Component,
}

impl Frame {
    /// Serves HTTP, watches the files and opens the audit log. `what` is what health calls the process itself, which is starting until it settles.
    pub(super) fn raise(
        what: &str,
        process: &ProcessArgs,
        data: &Path,
        topology: &Topology,
        http: TcpListener,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let leave = Leave::new(process.supervised)?;
        let health = Health::new(process.region.as_str());
        let own = health.component(what.to_owned());
        own.starting();
        let mut tasks = JoinSet::new();
        let (http_stop, http_stopped) = oneshot::channel::<()>();
        let http = paymesh_telemetry::serve_http(http, health.clone(), metrics, async move {
            let _ = http_stopped.await;
        });
        tasks.spawn(async move { http.await.context("the http listener") });
        tasks.spawn(files::watch(data.to_owned(), health.component(FILES)));

        // Before anything is answered: what cannot be recorded is not done.
        let (audit_log, writer) = audit::open(data, topology, &process.region);
        tasks.spawn(audit::write(writer));
        let (looked, audit_looked_at) = oneshot::channel();
        tasks.spawn(audit::watch(audit_log.clone(), health.component(AUDIT), looked));
        let leaving = Leaving { leave, audit_looked_at, health: health.clone(), own };
        Ok(Self { health, tasks, audit_log, leaving, http_stop })
    }

    /// Has the mesh's calls recorded, and new credentials taken into use.
    pub(super) fn guard(&mut self, mesh: &Mesh, security: Security) {
        mesh.audit_to(self.audit_log.clone());
        match security {
            Security::Certificates { identity, callers } => {
                tracing::info!(name = %identity.name(), "in TLS: nodes are believed by their certificates, and callers may do what they are granted");
                self.tasks.spawn(credentials::watch(mesh.clone(), identity, self.health.component(CREDENTIALS)));
                self.tasks.spawn(credentials::watch_callers(callers, self.health.component(CALLERS)));
            }
            Security::PlainText => {
                tracing::warn!("in plain text: whoever reaches this machine's loopback is believed, and may do everything");
            }
        }
    }
}

impl Leaving {
    /// Waits until the process is told to leave, and takes it out of its balancers. It says that it serves once the audit log was looked at and `settled` has ended.
    pub(super) async fn when(self, reporter: HealthReporter, settled: impl Future<Output = ()>, say_serving: impl FnOnce()) {
        let Self { leave, audit_looked_at, health, own } = self;
        let settled = async {
            // One that is dropped belongs to a task that died, which ends the process.
            let _ = audit_looked_at.await;
            settled.await;
        };
        let wanted = leave.wanted();
        tokio::pin!(wanted);
        let why = tokio::select! {
            why = &mut wanted => why,
            () = settled => {
                say_serving();
                own.healthy();
                reporter.set_service_status("", serving(health.report().ready)).await;
                wanted.await
            }
        };
        tracing::info!(why, "leaving: no new calls are taken, those in hand are finished");
        health.drain();
        reporter.set_service_status("", ServingStatus::NotServing).await;
    }
}

/// gRPC's reflection, in its words and in the older ones, which many stock clients ask in only.
pub(super) fn reflection() -> anyhow::Result<(ServerReflectionServer<impl ServerReflection>, AlphaReflectionServer<impl AlphaReflection>)> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(paymesh_contract::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let what = "the contract's descriptor set";
    Ok((builder().build_v1().context(what)?, builder().build_v1alpha().context(what)?))
}

/// A task that ends before its process is a failure of that.
pub(super) fn ended(task: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    match task {
        Ok(Ok(())) => Err(anyhow::anyhow!("a task of the process ended before that")),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(error).context("a task of the process died"),
    }
}
