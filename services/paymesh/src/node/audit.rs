//! The node's audit log: opened, watched for the node's health, read and verified for operators, closed when all calls have ended.
//!
//! It is here and in no service's crate because it is the node's own: it knows neither shards nor the mesh, and whatever the region runs, the
//! node has one. What is recorded is left to the layers around the services.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::{StreamExt as _, stream, stream::BoxStream};
use paymesh_audit::{Condition, Log, ReadError, Reader, Report, Retention, Settings, Writer};
use paymesh_contract::{
    Fault,
    audit::v1::{
        AuditDamage, AuditReport, ReadAuditRequest, ReadAuditResponse, VerifyAuditRequest, VerifyAuditResponse,
        audit_service_server::{AuditService, AuditServiceServer},
        verify_audit_response::Step,
    },
};
use paymesh_mesh::{Call, Worded};
use paymesh_telemetry::Component;
use paymesh_topology::{AuditRetention, Topology};
use paymesh_types::{RegionName, Sequence};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
};
use tonic::{Code, Request, Response, Status};

/// The log's directory, in the node's.
const DIRECTORY: &str = "audit";
/// How often the log's health is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the log may take to write its last records. A disk that stands still is not waited for.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often a verification says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// The node's log, and what writes it.
pub(super) fn open(data: &Path, topology: &Topology, region: &RegionName) -> (Log, Writer) {
    let settings = Settings::new(topology.mesh(), region.clone(), env!("CARGO_PKG_VERSION"), Arc::new(super::system_time));
    let AuditRetention { time, bytes } = topology.audit_retention();
    Log::open(data.join(DIRECTORY), Settings { retention: Retention { time: Some(time), bytes: Some(bytes) }, ..settings })
}

/// Writes the log until it is closed, on a thread of its own: it is there for as long as the node, and no runtime's end is to wait for it.
pub(super) async fn write(writer: Writer) -> anyhow::Result<()> {
    let (ended, end) = oneshot::channel();
    let run = move || {
        let written = writer.run().inspect_err(|error| tracing::error!(%error, "the audit log has ended"));
        // The node may be gone.
        let _ = ended.send(written);
    };
    thread::Builder::new().name("audit".to_owned()).spawn(run).context("starting the audit log's thread")?;
    end.await.context("the audit log's writer died")?.context("the audit log")
}

/// Has the log write what there is.
pub(super) async fn close(log: &Log) {
    if tokio::time::timeout(CLOSE_WAIT_MAX, log.close()).await.is_err() {
        tracing::error!("the audit log did not write its last records within {} s", CLOSE_WAIT_MAX.as_secs());
    }
}

/// Keeps the component true, for as long as it is polled; `looked` is told once it says how the log is. What a start does not look at is looked
/// through behind it, once.
pub(super) async fn watch(log: Log, component: Component, looked: oneshot::Sender<()>) -> anyhow::Result<()> {
    component.starting();
    log.settled().await;
    let mut looked = Some(looked);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut looked_through = false;
    loop {
        looks.tick().await;
        let looking = log.clone();
        match spawn_blocking(move || looking.condition()).await? {
            Condition::Opening => continue,
            Condition::Good => component.healthy(),
            Condition::Warns(why) => component.warn(why),
            Condition::Fails(why) => component.unhealthy(why),
        }
        if let Some(looked) = looked.take() {
            // The node may be leaving.
            let _ = looked.send(());
        }
        if !looked_through && log.state().chain > 0 {
            looked_through = true;
            let verifying = log.clone();
            // What it finds shows in the condition.
            let verified = spawn_blocking(move || verifying.verify(Sequence(0), |_, _| {}));
            tokio::spawn(async move {
                if let Ok(Err(error)) = verified.await {
                    tracing::error!(%error, "the audit log could not be looked through");
                }
            });
        }
    }
}

/// AuditService.
#[derive(Debug)]
pub(super) struct Audit {
    log: Log,
    /// One verification at a time; others wait. Each reads the whole log.
    verifications: Arc<Semaphore>,
}

impl Audit {
    pub(super) fn new(log: Log) -> Self {
        Self { log, verifications: Arc::new(Semaphore::new(1)) }
    }

    pub(super) fn server(self) -> Worded<AuditServiceServer<Self>> {
        Worded(AuditServiceServer::new(self))
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    type ReadAuditStream = BoxStream<'static, Result<ReadAuditResponse, Status>>;

    async fn read_audit(&self, request: Request<ReadAuditRequest>) -> Result<Response<Self::ReadAuditStream>, Status> {
        // The log has the ids of users of every zone.
        Call::sees_everybody(&request)?;
        let ReadAuditRequest { from_sequence, follow } = request.into_inner();
        let reader = self.log.read(Sequence(from_sequence)).map_err(Fault::from)?;
        let until = (!follow).then(|| self.log.state().head.sequence);
        Ok(Response::new(stream::unfold(Some(Reading { reader, until }), Reading::step).boxed()))
    }

    type VerifyAuditStream = BoxStream<'static, Result<VerifyAuditResponse, Status>>;

    async fn verify_audit(&self, request: Request<VerifyAuditRequest>) -> Result<Response<Self::VerifyAuditStream>, Status> {
        Call::sees_everybody(&request)?;
        let at = Sequence(request.get_ref().at_sequence);
        Ok(Response::new(verification(self.log.clone(), at, self.verifications.clone()).boxed()))
    }
}

/// A stream of records.
struct Reading {
    reader: Reader,
    /// The record with which it ends; `None`: it follows the log.
    until: Option<Sequence>,
}

impl Reading {
    async fn step(this: Option<Self>) -> Option<(Result<ReadAuditResponse, Status>, Option<Self>)> {
        let Self { mut reader, until } = this?;
        if until.is_some_and(|until| reader.next() > until) || !reader.more().await {
            return None;
        }
        let read = spawn_blocking(move || (reader.batch(), reader)).await;
        let (batch, reader) = match read {
            Ok((Ok(batch), reader)) => (batch, reader),
            Ok((Err(error), _)) => return Some((Err(refused(error)), None)),
            Err(died) => return Some((Err(gone(&died)), None)),
        };
        let last_hash = batch.last_hash.map(|hash| hash.to_vec()).unwrap_or_default();
        let response = ReadAuditResponse { records: batch.records, last_hash, head_sequence: batch.head.0 };
        Some((Ok(response), Some(Self { reader, until })))
    }
}

/// Verifies the log. Who goes away meanwhile is not told, and the next one waits for its end.
fn verification(
    log: Log,
    at: Sequence,
    permits: Arc<Semaphore>,
) -> impl futures::Stream<Item = Result<VerifyAuditResponse, Status>> + Send {
    let (tell, told) = mpsc::channel(1);
    let mut work = JoinSet::new();
    work.spawn(async move {
        // The semaphore is never closed.
        let permit = permits.acquire_owned().await;
        let say = tell.clone();
        let verified = spawn_blocking(move || {
            let _permit = permit;
            let mut said = Instant::now();
            let region = log.region().to_string();
            let report = log.verify(at, |read, head| {
                if said.elapsed() >= PROGRESS_EVERY {
                    said = Instant::now();
                    // A caller that does not read misses a step, nothing else.
                    let _ = say.try_send(Ok(VerifyAuditResponse { step: Some(Step::ReadSequence(read.0)), head_sequence: head.0 }));
                }
            });
            report.map(|report| reported(region, report)).map_err(refused)
        });
        let last = verified.await.unwrap_or_else(|died| Err(gone(&died)));
        // Whoever asked may have gone.
        let _ = tell.send(last).await;
    });
    stream::unfold((told, work), |(mut told, work)| async move { told.recv().await.map(|message| (message, (told, work))) })
}

fn refused(error: ReadError) -> Status {
    if !matches!(error, ReadError::NotKept { .. } | ReadError::InTheFuture { .. }) {
        tracing::error!(%error, "the audit log was to be read");
    }
    Fault::from(error).into()
}

fn gone(died: &tokio::task::JoinError) -> Status {
    tracing::error!(%died, "whoever read the audit log died");
    Fault::new(Code::Internal, "VERIFICATION_DIED", "whoever read the audit log died; the node's log says how").into()
}

fn reported(region: String, report: Report) -> VerifyAuditResponse {
    let Report { chain, first, last, head, hash_at, damages } = report;
    let report = AuditReport {
        region,
        chain,
        first_sequence: first.0,
        last_sequence: last.0,
        records: (last.0 + 1).saturating_sub(first.0),
        head_hash: head.hash.to_vec(),
        hash_at: hash_at.map(|hash| hash.to_vec()).unwrap_or_default(),
        damages: damages.iter().map(AuditDamage::from).collect(),
    };
    VerifyAuditResponse { step: Some(Step::Report(report)), head_sequence: head.sequence.0 }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};
    use paymesh_audit::{Caller, Outcome, Record};
    use paymesh_contract::{DOMAIN, policies};
    use paymesh_types::Timestamp;
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    use tonic::{body::Body, service::Routes};
    use tonic_types::StatusExt as _;
    use tower::ServiceExt as _;

    use super::*;

    struct Node {
        log: Log,
        _directory: tempfile::TempDir,
    }

    impl Node {
        async fn start() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let region = "eu_west".parse().expect("a region");
            let settings = Settings::new("test", region, "1", Arc::new(|| Timestamp(1)));
            let (log, writer) = Log::open(directory.path().join(DIRECTORY), settings);
            tokio::spawn(write(writer));
            log.settled().await;
            Self { log, _directory: directory }
        }

        async fn record(&self) {
            let slot = self.log.reserve(Record::new(Timestamp(1), Caller::PlainText, policies().methods().next())).expect("a slot");
            slot.record_durably(Outcome::new(Code::Ok, "", Duration::ZERO)).await.expect("it is durable");
        }
    }

    #[tokio::test]
    async fn every_method_takes_any_bytes_and_answers_clean() {
        let seed = rand::rng().random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let node = Node::start().await;
        let methods: Vec<_> = policies().methods().filter(|policy| policy.service == "paymesh.audit.v1.AuditService").collect();
        assert_eq!(methods.len(), 2);
        for policy in methods {
            assert_eq!(policy.scopes, ["audit.read"]);
            for _ in 0..60 {
                let mut body = vec![0; random.random_range(0..40)];
                random.fill(&mut body[..]);
                if let Some(length) = body.len().checked_sub(5).filter(|_| random.random()) {
                    body[..5].copy_from_slice(&[0, 0, 0, 0, u8::try_from(length).expect("a short body")]);
                }
                let routes = Routes::new(Audit::new(node.log.clone()).server());
                let mut request = http::Request::post(&policy.path).body(Body::new(Full::new(body.into()))).expect("a request");
                request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
                let response = routes.oneshot(request).await.expect("an answer");
                let mut status = Status::from_header_map(response.headers());
                let mut answer = response.into_body();
                while status.is_none() {
                    // One that follows the log says no more, and is given up.
                    let Ok(Some(frame)) = tokio::time::timeout(Duration::from_millis(300), answer.frame()).await else { break };
                    status = frame.expect("frames").trailers_ref().and_then(Status::from_header_map);
                }
                if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
                    assert!(!matches!(status.code(), Code::Internal | Code::Unknown), "{}: {status:?}", policy.path);
                    assert_eq!(status.get_details_error_info().map(|info| info.domain).as_deref(), Some(DOMAIN), "{status:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_read_has_the_hash_by_which_the_log_is_verified_later() {
        let node = Node::start().await;
        node.record().await;
        let audit = Audit::new(node.log.clone());
        let read = audit.read_audit(Request::new(ReadAuditRequest { from_sequence: 2, follow: true })).await.expect("it is kept");
        let mut read = read.into_inner();
        let first = read.next().await.expect("a message").expect("records");
        assert_eq!((first.records.len(), first.head_sequence), (2, 3));
        node.record().await;
        let second = read.next().await.expect("a message").expect("records");
        assert_eq!(second.records[0].sequence, 4);
        let asked = VerifyAuditRequest { at_sequence: 3 };
        let mut steps = audit.verify_audit(Request::new(asked)).await.expect("it is open").into_inner();
        let mut report = None;
        while let Some(step) = steps.next().await {
            if let Some(Step::Report(found)) = step.expect("a step").step {
                report = Some(found);
            }
        }
        let report = report.expect("the last message has it");
        assert_eq!((report.first_sequence, report.last_sequence, report.records), (1, 4, 4));
        assert_eq!((report.hash_at, report.head_hash), (first.last_hash, second.last_hash));
        // It ends when the log does, and does not hold it.
        close(&node.log).await;
        assert!(read.next().await.is_some_and(|last| last.is_ok_and(|last| last.records[0].note.is_some())), "that it was closed");
        assert!(read.next().await.is_none());
        assert!(node.log.reserve(Record::new(Timestamp(1), Caller::PlainText, None)).is_err());
    }
}
