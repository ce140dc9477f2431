//! The node's audit log: opened, watched for the node's health, read and verified for operators, closed when all calls have ended.
//!
//! It is here and in no service's crate because it is the node's own: it knows neither shards nor the mesh, and whatever the region runs, the
//! node has one. What is recorded is left to the layers around the services.

use std::{
    path::Path,
    sync::Arc,
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
use paymesh_mesh::Worded;
use paymesh_telemetry::Component;
use paymesh_topology::{AuditRetention, Topology};
use paymesh_types::{RegionName, Sequence};
use tokio::{
    sync::{Semaphore, mpsc},
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

/// Writes the log until it is closed.
pub(super) async fn write(writer: Writer) -> anyhow::Result<()> {
    let run = move || writer.run().inspect_err(|error| tracing::error!(%error, "the audit log has ended"));
    spawn_blocking(run).await.context("the audit log's writer died")?.context("the audit log")
}

/// Has the log write what there is.
pub(super) async fn close(log: &Log) {
    if tokio::time::timeout(CLOSE_WAIT_MAX, log.close()).await.is_err() {
        tracing::error!("the audit log did not write its last records within {} s", CLOSE_WAIT_MAX.as_secs());
    }
}

/// Keeps the component true, for as long as it is polled. What a start does not look at is looked through behind it, once.
pub(super) async fn watch(log: Log, component: Component) -> anyhow::Result<()> {
    component.starting();
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
        let ReadAuditRequest { from_sequence, follow } = request.into_inner();
        let reader = self.log.read(Sequence(from_sequence)).map_err(Fault::from)?;
        let until = (!follow).then(|| self.log.state().head.sequence);
        Ok(Response::new(stream::unfold(Some(Reading { reader, until }), Reading::step).boxed()))
    }

    type VerifyAuditStream = BoxStream<'static, Result<VerifyAuditResponse, Status>>;

    async fn verify_audit(&self, request: Request<VerifyAuditRequest>) -> Result<Response<Self::VerifyAuditStream>, Status> {
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
