//! Logs to standard error, and traces to an OpenTelemetry collector when one is configured.
//!
//! Logs go to standard error so that a command's answer on standard output stays clean; a reader of it that is slow or hangs
//! costs lines (see `lines`). Spans are exported in batches in the background; a collector that is slow or gone costs spans.
//! Neither ever costs a payment.

use std::{io::IsTerminal, sync::mpsc, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::Targets, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use crate::{Error, Lines};

/// How long the end of the process waits for the last spans to reach the collector.
const FLUSH_WAIT_MAX_MS: u64 = 2_000;

/// How long one export may take.
const EXPORT_WAIT_MAX_MS: u64 = 5_000;

/// The environment variable that OpenTelemetry defines for the collector's address.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// How to log and where to send traces.
#[derive(Debug, Clone)]
pub struct Config {
    /// The program's name in traces, such as `paymesh`.
    pub service_name: String,
    /// The node's region in traces; none for a command that is no node.
    pub region: Option<String>,
    /// Logs as one JSON object a line instead of text.
    pub json_logs: bool,
    /// The collector's OTLP/gRPC endpoint, such as `http://127.0.0.1:4317`. None: `OTEL_EXPORTER_OTLP_ENDPOINT` if it is
    /// set, or else no traces. `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` choose how many are kept; all by default.
    pub otlp_endpoint: Option<String>,
    /// What to log, in the form of `RUST_LOG`: `info`, or `info,paymesh_shard=debug`.
    pub filter: String,
}

/// Keeps the export of traces going. Dropping it sends the traces that are left, for two seconds at most, and writes the
/// lines of the log that are left, for one.
#[derive(Debug)]
#[must_use = "traces are exported until the guard is dropped"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
    lines: Option<Lines>,
}

impl Guard {
    /// Whether traces are exported.
    pub fn exports_traces(&self) -> bool {
        self.provider.is_some()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            shut_down(provider);
        }
        if let Some(lines) = &self.lines {
            lines.flush();
        }
    }
}

fn shut_down(provider: SdkTracerProvider) {
    let wait = Duration::from_millis(FLUSH_WAIT_MAX_MS);
    let (done, ended) = mpsc::sync_channel(1);
    // On a thread of its own: an exporter that hangs must not hold the process past the wait.
    std::thread::spawn(move || {
        let _ = done.send(provider.shutdown_with_timeout(wait));
    });
    if !matches!(ended.recv_timeout(wait), Ok(Ok(()))) {
        tracing::warn!("the last traces may not have reached the collector");
    }
}

/// Sets up logs and traces for this process, and W3C trace context as the way to carry a trace to other nodes.
///
/// # Errors
/// When the filter or the endpoint is not understood, when there is no tokio runtime to export from, when no thread can be
/// started, or the second time.
pub fn init(config: &Config) -> Result<Guard, Error> {
    let tell = |_: &Lines, dropped| tracing::warn!(dropped, "lines of the log were dropped so far: nobody read them");
    let lines = Lines::to(std::io::stderr(), tell).map_err(Error::Logs)?;
    let writer = lines.clone();
    let (subscriber, mut guard) = subscriber(config, move || writer.clone(), colours())?;
    guard.lines = Some(lines);
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    subscriber.try_init().map_err(|_| Error::AlreadySetUp { what: "logs" })?;
    Ok(guard)
}

fn colours() -> bool {
    // https://no-color.org: any value, unless empty.
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !unwanted && std::io::stderr().is_terminal()
}

/// What [`init`] installs, without installing it: for tests.
fn subscriber<W>(config: &Config, writer: W, colours: bool) -> Result<(impl Subscriber + Send + Sync + use<W>, Guard), Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(&config.filter)
        .map_err(|source| Error::Filter { filter: config.filter.clone(), source })?;
    let (traces, guard) = traces(config)?;
    Ok((Registry::default().with(traces).with(logs(config.json_logs, writer, colours).with_filter(filter)), guard))
}

fn logs<S, W>(json: bool, writer: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    if json { layer.json().flatten_event(true).boxed() } else { layer.boxed() }
}

/// A layer that exports spans, when an endpoint is configured.
fn traces<S>(config: &Config) -> Result<(Option<impl Layer<S> + use<S>>, Guard), Error>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let from_environment = || std::env::var(ENDPOINT_VARIABLE).ok().filter(|endpoint| !endpoint.is_empty());
    let Some(endpoint) = config.otlp_endpoint.clone().or_else(from_environment) else {
        return Ok((None, Guard { provider: None, lines: None }));
    };
    tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&endpoint)
        .with_timeout(Duration::from_millis(EXPORT_WAIT_MAX_MS))
        .build()
        .map_err(|source| Error::Exporter { endpoint, source })?;
    let mut resource = Resource::builder().with_service_name(config.service_name.clone());
    if let Some(region) = &config.region {
        resource = resource.with_attribute(KeyValue::new("paymesh.region", region.clone()));
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("paymesh"))
        // Source lines, threads and idle times cost more than they tell on a path of microseconds.
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        // Our own spans only: the exporter's transport makes spans too, and exporting those would never end.
        .with_filter(Targets::new().with_target("paymesh", LevelFilter::DEBUG));
    Ok((Some(layer), Guard { provider: Some(provider), lines: None }))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use opentelemetry_proto::tonic::{
        collector::trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
        trace::v1::Span,
    };
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;

    use super::*;

    fn config() -> Config {
        Config {
            service_name: "paymesh".to_owned(),
            region: Some("eu_west".to_owned()),
            json_logs: false,
            otlp_endpoint: None,
            filter: "info".to_owned(),
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("the lock").clone()).expect("logs are UTF-8")
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("the lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A collector that keeps what it gets.
    #[derive(Clone, Default)]
    struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

    impl Collector {
        async fn start(&self) -> String {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
            let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(self.clone()));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            endpoint
        }

        fn spans(&self) -> Vec<Span> {
            let requests = self.0.lock().expect("the lock").clone();
            requests
                .into_iter()
                .flat_map(|request| request.resource_spans)
                .flat_map(|resource| resource.scope_spans)
                .flat_map(|scope| scope.spans)
                .collect()
        }
    }

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: tonic::Request<ExportTraceServiceRequest>,
        ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
            self.0.lock().expect("the lock").push(request.into_inner());
            Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
        }
    }

    #[test]
    fn logs_have_no_colour_codes_off_a_terminal() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, _guard) = subscriber(&config(), move || writer.clone(), false).expect("a subscriber");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(shard = "eu/1", "shard serves");
            tracing::debug!("not wanted");
        });
        let text = lines.text();
        assert!(text.contains("shard serves") && text.contains("eu/1"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("not wanted"), "{text}");
    }

    #[test]
    fn json_logs_are_one_object_a_line() {
        let lines = Lines::default();
        let writer = lines.clone();
        let config = Config { json_logs: true, ..config() };
        let (subscriber, _guard) = subscriber(&config, move || writer.clone(), false).expect("a subscriber");
        tracing::subscriber::with_default(subscriber, || tracing::info!(shard = "eu/1", "shard serves"));
        let line: serde_json::Value = serde_json::from_str(lines.text().trim()).expect("one JSON object");
        assert_eq!((&line["shard"], &line["message"]), (&"eu/1".into(), &"shard serves".into()));
    }

    #[test]
    fn a_filter_that_does_not_parse_is_named() {
        let error = subscriber(&Config { filter: "paymesh=loud".to_owned(), ..config() }, std::io::sink, false).err();
        assert!(error.expect("an error").to_string().contains("`paymesh=loud`"));
    }

    #[test]
    fn exporting_outside_a_runtime_is_an_error() {
        let config = Config { otlp_endpoint: Some("http://127.0.0.1:1".to_owned()), ..config() };
        assert!(matches!(subscriber(&config, std::io::sink, false).err(), Some(Error::NoRuntime)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn spans_reach_the_collector_before_the_guard_is_gone() {
        let collector = Collector::default();
        let config = Config { otlp_endpoint: Some(collector.start().await), ..config() };
        let (subscriber, guard) = subscriber(&config, std::io::sink, false).expect("a subscriber");
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug_span!(target: "paymesh::call", "call", rpc.method = "CreatePayment").in_scope(|| ());
            tracing::info_span!(target: "h2", "not ours").in_scope(|| ());
        });
        drop(guard);
        let names: Vec<_> = collector.spans().into_iter().map(|span| span.name).collect();
        assert_eq!(names, ["call"]);
        let resource = collector.0.lock().expect("the lock")[0].resource_spans[0].resource.clone().expect("a resource");
        assert!(resource.attributes.iter().any(|attribute| attribute.key == "paymesh.region"), "{resource:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_collector_that_does_not_answer_holds_the_end_for_two_seconds_at_most() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let (subscriber, guard) =
            subscriber(&Config { otlp_endpoint: Some(endpoint), ..config() }, std::io::sink, false).expect("a subscriber");
        tracing::subscriber::with_default(subscriber, || tracing::info_span!(target: "paymesh::call", "call").in_scope(|| ()));
        let began = std::time::Instant::now();
        drop(guard);
        assert!(began.elapsed() < Duration::from_millis(2 * FLUSH_WAIT_MAX_MS), "{:?}", began.elapsed());
    }
}
