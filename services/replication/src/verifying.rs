//! The proof of a copy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use paymesh_contract::{
    Fault,
    replication::v1::{ReplicaReport, VerifyReplicaResponse, verify_replica_response::Step},
};
use paymesh_shard::{Error, Replica, verify_replica};
use paymesh_types::Sequence;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tonic::{Code, Status};

use crate::Following;

/// Copies of a node that are verified at the same time; others wait.
pub(crate) const AT_ONCE_MAX: usize = 2;
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// How long a copy has to come to the entry that is asked for.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Verifies a copy. It ends with the stream.
pub(crate) fn verification(
    following: Following,
    replica: Replica,
    at: Sequence,
    permits: Arc<Semaphore>,
) -> impl Stream<Item = Result<VerifyReplicaResponse, Status>> + Send {
    let (tell, told) = mpsc::channel(1);
    let mut work = JoinSet::new();
    work.spawn(async move {
        // The semaphore is never closed.
        let _permit = permits.acquire().await;
        let replica = caught_up(&following, replica, at).await;
        let last = match verified(&replica, at, &tell).await {
            Ok(report) => {
                let head_sequence = report.sequence.0;
                let report = ReplicaReport {
                    sequence: report.sequence.0,
                    hash_at: report.hash_at.map(|hash| hash.to_vec()).unwrap_or_default(),
                    problems: report.problems,
                };
                Ok(VerifyReplicaResponse { step: Some(Step::Report(report)), head_sequence })
            }
            Err(error) => {
                tracing::error!(shard = %replica.reference(), %error, "a copy cannot be verified");
                Err(Fault::new(Code::DataLoss, "REPLICA_UNREADABLE", error.to_string()).into())
            }
        };
        // Whoever asked may have gone.
        let _ = tell.send(last).await;
    });
    stream::unfold((told, work), |(mut told, work)| async move { told.recv().await.map(|message| (message, (told, work))) })
}

/// The copy once it has come to `at`, or as it is when its time is up: what it lacks then shows in the report. Another may be made
/// in its place meanwhile.
async fn caught_up(following: &Following, mut replica: Replica, at: Sequence) -> Replica {
    let deadline = Instant::now() + CATCH_UP_MAX;
    while replica.tail().head() < at && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        replica = following.replica().unwrap_or(replica);
    }
    replica
}

async fn verified(
    replica: &Replica,
    at: Sequence,
    tell: &mpsc::Sender<Result<VerifyReplicaResponse, Status>>,
) -> Result<paymesh_shard::ReplicaReport, Error> {
    let mut told = Instant::now();
    let progress = move |read: Sequence, head: Sequence| {
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            // A caller that does not read misses a step, nothing else.
            let _ = tell.try_send(Ok(VerifyReplicaResponse { step: Some(Step::ReadSequence(read.0)), head_sequence: head.0 }));
        }
    };
    let mut report = verify_replica(replica, at, progress).await?;
    if let Some(why) = replica.problem() {
        report.problems.push(format!("it takes in nothing more: {why}"));
    }
    Ok(report)
}
