//! The leader's side of a stream, and the service.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream, stream::BoxStream};
use paymesh_contract::{
    Fault,
    common::v1 as common,
    events::v1::JournalOrigin,
    replication::v1::{
        FollowRequest, FollowResponse, FollowStart, Follower, GetReplicationRequest, GetReplicationResponse, ReadCheckpointRequest,
        ReadCheckpointResponse, VerifyReplicaRequest, VerifyReplicaResponse,
        follow_request::Message,
        replication_service_server::{ReplicationService, ReplicationServiceServer},
    },
};
use paymesh_journal::{Corrupt, Holding, Segment};
use paymesh_mesh::{Call, Mesh, Worded, unreadable};
use paymesh_shard::{Error, Shard, Shards};
use paymesh_types::{RegionName, Sequence, ShardRef};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    Replicas, checkpoints,
    clock::now_us,
    followers::{Connection, Followers},
    plan::{holding, is_directory},
    verifying::{AT_ONCE_MAX, verification},
    wire,
};

/// Payload bytes of a message, unless one segment has more: some ten thousand payments.
const MESSAGE_PAYLOAD_BYTES: usize = 1 << 18;
/// Segments of a message at most.
const MESSAGE_SEGMENTS_MAX: usize = 1_024;
/// Entries from which on a segment is reduced on a thread of its own.
const REDUCED_ASIDE_ENTRIES: u32 = 256;
/// A stream says at least this often that there is nothing new: so long may a replica not know how old it is.
pub(crate) const IDLE_EVERY: Duration = Duration::from_millis(500);
/// How long the first message of a stream may take.
const START_WAIT_MAX: Duration = Duration::from_secs(10);
/// When to try again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The service.
#[derive(Debug, Clone)]
pub struct Replication {
    mesh: Mesh,
    shards: Shards,
    replicas: Replicas,
    followers: Followers,
    verifications: Arc<Semaphore>,
}

impl Replication {
    /// The service over the shards that a region leads and the replicas that it keeps.
    pub fn new(mesh: Mesh, shards: Shards, replicas: Replicas) -> Self {
        Self { mesh, shards, replicas, followers: Followers::default(), verifications: Arc::new(Semaphore::new(AT_ONCE_MAX)) }
    }

    /// For the node's listener.
    pub fn server(self) -> Worded<ReplicationServiceServer<Self>> {
        Worded(ReplicationServiceServer::new(self))
    }

    /// The stream that a first message asks for.
    async fn begin(&self, start: FollowStart, said: Streaming<FollowRequest>, call: Option<&Call>) -> Result<Feed, Fault> {
        let (shard, region, holding) = self.wanted(start.shard.as_ref(), &start.region, call).map_err(|fault| fault.under("start"))?;
        let name = shard.reference().clone();
        let after = Sequence(start.after_sequence);
        agreed(&shard, after, &start.after_hash).await?;
        tracing::info!(shard = %name, follower = %region, %after, "a follower has come");
        let connection = self.followers.connect(name, region, after);
        Ok(Feed { shard, holding, said, connection, next: after.next(), question: 0, origin_told: Sequence(0), ended: false })
    }

    /// The shard that a follower wants, and what of it that may hold.
    fn wanted(&self, name: Option<&common::ShardRef>, region: &str, call: Option<&Call>) -> Result<(Shard, RegionName, Holding), Fault> {
        let name = name.ok_or_else(|| Fault::invalid_field("shard", "a shard is needed"))?;
        let name = ShardRef::try_from(name).map_err(|fault| fault.under("shard"))?;
        let region: RegionName = region.parse().map_err(|error| Fault::invalid_field("region", format!("{error}")))?;
        let follower = self.mesh.topology().entries().find(|other| other.name == region && region != *self.mesh.region());
        let not_one = || {
            Fault::invalid_field(
                "region",
                format!(
                    "{region} is not another region of the mesh that keeps copies, by the regions.yaml that {own} has read: if it was added since, restart {own} with the new one",
                    own = self.mesh.region()
                ),
            )
        };
        let follower = follower.ok_or_else(not_one)?;
        // What a region may hold follows from which it is, so it is the one whose node asks, whatever the message says.
        if let Some(node) = call.and_then(Call::node).filter(|node| **node != region) {
            let message = format!("a node of {node} asks for what is {region}'s");
            return Err(Fault::new(Code::PermissionDenied, "NOT_THAT_NODE", message));
        }
        if self.mesh.topology().leader(&name) != Some(self.mesh.region()) {
            return Err(Fault::not_found("SHARD_NOT_FOUND", format!("this node does not lead shard {name}")));
        }
        let shard = self.shards.get(&name).map_err(|error| unavailable(error.to_string()))?.clone();
        let holding = holding(&name, &follower.zone);
        Ok((shard, region, holding))
    }
}

/// The follower's copy must end where a segment of ours does, the same one.
async fn agreed(shard: &Shard, after: Sequence, hash: &[u8]) -> Result<(), Fault> {
    if after == Sequence(0) {
        let kept_after = shard.tail().kept_after();
        return if kept_after == Sequence(0) { Ok(()) } else { Err(not_kept(shard, kept_after.next())) };
    }
    let diverged = |what: String| {
        let message =
            format!("the copy of shard {} ends at entry {after}, and {what}: it is not a copy of this journal", shard.reference());
        Fault::new(Code::FailedPrecondition, "REPLICA_DIVERGED", message)
    };
    let head = shard.tail().head();
    if after > head {
        return Err(diverged(format!("the leader's journal ends at {head}")));
    }
    let found = match shard.tail().segments(after, 0).await {
        Ok(found) => found,
        Err(Error::NotKept { first, .. }) => {
            let origin = shard.tail().origin().await.map_err(|error| unavailable(error.to_string()))?;
            return match origin.sequence == after {
                true if origin.hash.as_slice() == hash => Ok(()),
                true => Err(diverged("the leader's segment that ended there had another hash".to_owned())),
                false => Err(not_kept(shard, first)),
            };
        }
        Err(error) => return Err(unavailable(error.to_string())),
    };
    match found.first() {
        Some(segment) if segment.last() == after && segment.hash.as_slice() == hash => Ok(()),
        Some(segment) if segment.last() == after => Err(diverged("the leader's segment that ends there has another hash".to_owned())),
        _ => Err(diverged("no segment of the leader's ends there".to_owned())),
    }
}

fn damaged(corrupt: Corrupt) -> Status {
    tracing::error!(%corrupt, "a journal is damaged: its followers get nothing from there on");
    unavailable(corrupt.to_string()).into()
}

fn not_kept(shard: &Shard, first: Sequence) -> Fault {
    let message = format!("the journal of shard {} is kept from entry {first} on: begin with a checkpoint", shard.reference());
    Fault::new(Code::OutOfRange, "POSITION_NOT_KEPT", message).with_metadata("first_sequence", first.to_string())
}

pub(crate) fn unavailable(message: String) -> Fault {
    Fault::unavailable("SHARD_NOT_SERVING", message, RETRY_AFTER)
}

#[tonic::async_trait]
impl ReplicationService for Replication {
    type VerifyReplicaStream = BoxStream<'static, Result<VerifyReplicaResponse, Status>>;

    async fn verify_replica(&self, request: Request<VerifyReplicaRequest>) -> Result<Response<Self::VerifyReplicaStream>, Status> {
        Call::sees_everybody(&request)?;
        let VerifyReplicaRequest { shard, at_sequence } = request.into_inner();
        let name = shard.as_ref().ok_or_else(|| Fault::invalid_field("shard", "a shard is needed"))?;
        let name = ShardRef::try_from(name).map_err(|fault| fault.under("shard"))?;
        let following = self.replicas.iter().find(|following| following.followed().shard == name);
        let following =
            following.ok_or_else(|| Fault::not_found("REPLICA_NOT_FOUND", format!("this node keeps no copy of shard {name}")))?;
        let replica = following
            .replica()
            .ok_or_else(|| Fault::unavailable("REPLICA_NOT_OPEN", format!("the copy of shard {name} is not open"), RETRY_AFTER))?;
        let verification = verification(following.clone(), replica, Sequence(at_sequence), self.verifications.clone());
        Ok(Response::new(verification.boxed()))
    }

    type ReadCheckpointStream = BoxStream<'static, Result<ReadCheckpointResponse, Status>>;

    async fn read_checkpoint(&self, request: Request<ReadCheckpointRequest>) -> Result<Response<Self::ReadCheckpointStream>, Status> {
        let call = Call::of(&request).cloned();
        let ReadCheckpointRequest { shard, region, root_hash, chunks } = request.into_inner();
        let (shard, region, holding) = self.wanted(shard.as_ref(), &region, call.as_ref())?;
        tracing::info!(shard = %shard.reference(), follower = %region, chunks, "a follower begins with a checkpoint");
        Ok(Response::new(checkpoints::read(&shard, &holding, &root_hash, chunks).await?))
    }

    type FollowStream = BoxStream<'static, Result<FollowResponse, Status>>;

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        let call = Call::of(&request).cloned();
        let mut said = request.into_inner();
        let first = tokio::time::timeout(START_WAIT_MAX, said.message()).await;
        let first = first.map_err(|_| Status::from(Fault::invalid_field("start", "nothing was said")))?;
        let first = first.map_err(|status| unreadable(&status))?;
        let Some(FollowRequest { message: Some(Message::Start(start)) }) = first else {
            return Err(Fault::invalid_field("start", "the first message says what is followed").into());
        };
        let feed = self.begin(start, said, call.as_ref()).await?;
        Ok(Response::new(stream::unfold(feed, Feed::step).boxed()))
    }

    async fn get_replication(&self, request: Request<GetReplicationRequest>) -> Result<Response<GetReplicationResponse>, Status> {
        Call::sees_everybody(&request)?;
        let followers = self.followers.snapshot().into_iter().map(|((shard, region), progress)| Follower {
            shard: Some(common::ShardRef::from(&shard)),
            region: region.to_string(),
            connected: progress.streams > 0,
            sent_sequence: progress.sent.0,
            stored_sequence: progress.stored.0,
        });
        Ok(Response::new(GetReplicationResponse { followers: followers.collect(), replicas: self.replicas.messages() }))
    }
}

/// What one follower is sent.
struct Feed {
    shard: Shard,
    holding: Holding,
    said: Streaming<FollowRequest>,
    connection: Connection,
    next: Sequence,
    /// The last question that came.
    question: u64,
    /// The entry after which the follower was told that the journal begins.
    origin_told: Sequence,
    ended: bool,
}

impl Feed {
    async fn step(mut self) -> Option<(Result<FollowResponse, Status>, Self)> {
        if self.ended {
            return None;
        }
        let message = self.message().await.transpose()?;
        self.ended = message.is_err();
        Some((message, self))
    }

    /// The next message; `None` when the follower has gone.
    async fn message(&mut self) -> Result<Option<FollowResponse>, Status> {
        let idle = tokio::time::sleep(IDLE_EVERY);
        tokio::pin!(idle);
        loop {
            tokio::select! {
                biased;
                said = self.said.message() => match said {
                    Ok(Some(FollowRequest { message: Some(Message::Acknowledgement(said)) })) => {
                        self.connection.note(|progress| progress.stored = progress.stored.max(Sequence(said.stored_sequence)));
                        if said.question > 0 {
                            self.question = said.question;
                            return self.say(Vec::new()).await.map(Some);
                        }
                    }
                    Ok(Some(_)) => return Err(Fault::invalid_field("acknowledgement", "a stream is started once").into()),
                    // Gone, or gone wrong: it comes again.
                    Ok(None) | Err(_) => return Ok(None),
                },
                why = self.shard.stopped() => return Err(unavailable(format!("shard {} stopped: {why}", self.shard.reference())).into()),
                segments = self.shard.tail().segments(self.next, MESSAGE_PAYLOAD_BYTES) => {
                    let segments = segments.map_err(|error| match error {
                        Error::NotKept { first, .. } => not_kept(&self.shard, first),
                        error => unavailable(error.to_string()),
                    })?;
                    return self.say(segments).await.map(Some);
                }
                () = &mut idle => return self.say(Vec::new()).await.map(Some),
            }
        }
    }

    async fn say(&mut self, mut segments: Vec<Arc<Segment>>) -> Result<FollowResponse, Status> {
        segments.truncate(MESSAGE_SEGMENTS_MAX);
        let mut said = Vec::with_capacity(segments.len());
        for segment in &segments {
            said.push(match &self.holding {
                Holding::Whole => {
                    if is_directory(self.shard.reference()) {
                        segment.check_all_open(self.shard.reference()).map_err(damaged)?;
                    }
                    wire::message(segment, &self.holding)
                }
                Holding::For(_) => wire::message(&self.reduced(segment).await?, &self.holding),
            });
        }
        if let Some(last) = segments.last() {
            self.next = last.last().next();
            self.connection.note(|progress| progress.sent = last.last());
        }
        let origin = self.origin().await?;
        // The head is read after the question came: nothing committed before that is behind it.
        Ok(FollowResponse {
            segments: said,
            head_sequence: self.shard.tail().head().0,
            sent_at_us: now_us(),
            origin,
            answered_question: self.question,
            leader_epoch: self.shard.epoch().0,
        })
    }

    /// Where the journal begins, if the follower has not been told.
    async fn origin(&mut self) -> Result<Option<JournalOrigin>, Status> {
        if self.shard.tail().kept_after() == self.origin_told {
            return Ok(None);
        }
        let origin = self.shard.tail().origin().await.map_err(|error| Status::from(unavailable(error.to_string())))?;
        self.origin_told = origin.sequence;
        Ok(Some(wire::origin_message(&origin, &self.holding)))
    }

    async fn reduced(&self, segment: &Arc<Segment>) -> Result<Segment, Status> {
        let Holding::For(zone) = self.holding.clone() else { return Ok(segment.as_ref().clone()) };
        let (segment, shard) = (segment.clone(), self.shard.reference().clone());
        let aside = segment.count >= REDUCED_ASIDE_ENTRIES;
        let reduce = move || segment.reduced_for(&zone, &shard);
        let reduced = if aside { tokio::task::spawn_blocking(reduce).await } else { Ok(reduce()) };
        match reduced {
            Ok(Ok(reduced)) => Ok(reduced),
            Ok(Err(corrupt)) => Err(damaged(corrupt)),
            Err(died) => Err(unavailable(format!("reducing a segment died: {died}")).into()),
        }
    }
}
