//! Logs, traces, metrics and health of a node.
//!
//! One call sets up logs and traces ([`init`]), one the metrics ([`Metrics::install`]), and [`serve_http`] shows what a
//! region's load balancer, Prometheus and an operator look at. What is logged, traced and counted is left to the crates that
//! do the work; that none of it is personal data is their promise, and tests hold them to it.

#![forbid(unsafe_code)]

mod health;
mod http;
mod lines;
mod logs;
mod metrics;

pub use crate::{
    health::{Component, Health, Report, Status},
    http::serve_http,
    lines::Lines,
    logs::{Config, Guard, init},
    metrics::Metrics,
};

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter does not parse.
    #[error("the log filter `{filter}` is not understood: {source}; write for example `info` or `info,paymesh_shard=debug`")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The exporter of traces refused its configuration.
    #[error("traces cannot be exported to `{endpoint}`: {source}; the endpoint is a URL such as http://127.0.0.1:4317")]
    Exporter {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// Traces are exported by tasks of a tokio runtime, and there is none.
    #[error("traces can only be exported from within a tokio runtime")]
    NoRuntime,
    /// The thread that writes the logs could not be started.
    #[error("logs cannot be written: {0}")]
    Logs(std::io::Error),
    /// Something else in this process has set up logs or metrics before.
    #[error("{what} are set up already in this process")]
    AlreadySetUp {
        /// Which of them.
        what: &'static str,
    },
    /// The recorder of metrics refused its configuration.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The listener of `/health` and `/metrics` failed.
    #[error("the http listener failed: {0}")]
    Listener(#[from] std::io::Error),
}
