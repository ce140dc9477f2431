//! The copies that regions keep of the shards of others: each proven by its region, and compared with its leader at an entry
//! that the leader was proven at.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use paymesh_contract::{
    common::v1 as common,
    replication::v1::{
        ReplicaReport, VerifyReplicaRequest, replication_service_client::ReplicationServiceClient, verify_replica_response::Step,
    },
};
use paymesh_types::{RegionName, ShardRef};
use serde::Serialize;

use super::{SHARDS_AT_ONCE_MAX, Trouble, books::Reports, said};
use crate::{
    client::{self, Mesh},
    place,
    progress::Progress,
};

/// A copy that was compared.
#[derive(Debug, Serialize)]
pub(crate) struct CopySummary {
    pub(crate) shard: String,
    pub(crate) region: String,
    /// The last entry that was checked.
    pub(crate) sequence: u64,
    /// Whether it is what its leader has.
    pub(crate) good: bool,
}

/// What became of the copies.
#[derive(Debug, Default)]
pub(super) struct Copies {
    pub(super) all: Vec<CopySummary>,
    pub(super) problems: Vec<String>,
    /// Copies that could not be compared, because nobody answered or they have not come so far, and why.
    pub(super) unreachable: BTreeMap<String, String>,
}

/// Has every region prove its copies of the shards that were proven at their leaders.
pub(super) async fn compare(mesh: &Mesh, leaders: &Reports) -> anyhow::Result<Copies> {
    let mut copies = Copies::default();
    let mut wanted = Vec::new();
    for (region, answer) in mesh.replications().await {
        match answer {
            Ok(answer) => {
                for replica in &answer.replicas {
                    wanted.push((place::shard(replica.shard.as_ref())?, region.clone()));
                }
            }
            Err(status) => {
                copies.unreachable.insert(format!("copies in {region}"), client::explain(&status));
            }
        }
    }
    let proofs = wanted.into_iter().filter_map(|(shard, region)| {
        let leader = leaders.get(&shard)?;
        let at = leader.position.as_ref().map_or(0, |position| position.sequence);
        Some(async move { (prove(mesh, &shard, &region, at).await, shard, region, at, leader.chain_hash.clone()) })
    });
    let proofs: Vec<_> = proofs.collect();
    let mut progress = Progress::new("proving copies  ", proofs.len() as u64);
    let mut proofs = std::pin::pin!(futures::stream::iter(proofs).buffer_unordered(SHARDS_AT_ONCE_MAX));
    while let Some((proof, shard, region, at, leaders_hash)) = proofs.next().await {
        let copy = format!("copy of {shard} in {region}");
        let mut problems = Vec::new();
        let mut sequence = 0;
        match proof {
            Ok(report) => {
                sequence = report.sequence;
                if sequence < at {
                    copies.unreachable.insert(copy.clone(), format!("it is at entry {sequence}, and did not come to {at} in time"));
                }
                if at > 0 && !report.hash_at.is_empty() && report.hash_at != leaders_hash {
                    problems.push(format!("it has another history than its leader at entry {at}"));
                }
                problems.extend(report.problems);
            }
            Err(Trouble::Refused(why)) => problems.push(why),
            Err(Trouble::Unreachable(why)) => {
                copies.unreachable.insert(copy.clone(), why);
            }
        }
        let good = problems.is_empty() && !copies.unreachable.contains_key(&copy);
        copies.problems.extend(problems.into_iter().map(|problem| format!("{copy}: {problem}")));
        progress.set_done(copies.all.len() as u64 + 1, "copies");
        copies.all.push(CopySummary { shard: shard.to_string(), region: region.to_string(), sequence, good });
    }
    progress.finish();
    copies.all.sort_by(|one, other| (&one.shard, &one.region).cmp(&(&other.shard, &other.region)));
    Ok(copies)
}

async fn prove(mesh: &Mesh, shard: &ShardRef, region: &RegionName, at_sequence: u64) -> Result<ReplicaReport, Trouble> {
    let mut node = ReplicationServiceClient::new(mesh.channel(region));
    let request = VerifyReplicaRequest { shard: Some(common::ShardRef::from(shard)), at_sequence };
    let mut steps = said(mesh, region, node.verify_replica(request)).await?.into_inner();
    while let Some(step) = said(mesh, region, steps.message()).await? {
        if let Some(Step::Report(report)) = step.step {
            return Ok(report);
        }
    }
    Err(Trouble::Unreachable("the answer ended before its result".to_owned()))
}
