//! The part of `paymesh status` about copies of shards in other regions.

use std::collections::BTreeMap;

use paymesh_contract::replication::v1::{GetReplicationResponse, Replica, ReplicaState};
use paymesh_types::{RegionName, ShardRef};
use serde::Serialize;
use tonic::Status;

use crate::{output::Table, place};

/// A region's copy of a shard that another leads.
#[derive(Debug, Serialize)]
pub(super) struct ReplicaReport {
    shard: String,
    leader: String,
    region: String,
    /// Whether it holds whole entries, or what concerns the region's zone.
    whole: bool,
    state: &'static str,
    problem: Option<String>,
    stored_sequence: u64,
    projected_sequence: Option<u64>,
    /// Against the leader's head as the leader says it, or as the copy last heard of it.
    lag_entries: u64,
    /// How long ago it was known to hold everything.
    age_ms: Option<u64>,
    /// Chunks of a checkpoint that have come, and that there are, while it begins with one.
    chunks_stored: u32,
    chunks_total: u32,
    /// Earlier copies that are set aside there.
    set_aside: u32,
}

impl ReplicaReport {
    pub(super) fn is_stopped(&self) -> bool {
        self.state == state_name(ReplicaState::Stopped)
    }

    fn state_words(&self) -> String {
        if self.chunks_total > 0 { format!("{} {}/{}", self.state, self.chunks_stored, self.chunks_total) } else { self.state.to_owned() }
    }

    fn trouble(&self) -> &'static str {
        if self.state == state_name(ReplicaState::SetAside) { "is set aside and made anew" } else { "takes in nothing more" }
    }
}

/// What the regions say of their copies, in the order of shards and regions. `heads`: what the leaders said a moment before.
pub(super) fn report(
    answers: &BTreeMap<RegionName, Result<GetReplicationResponse, Status>>,
    heads: &BTreeMap<ShardRef, u64>,
) -> anyhow::Result<Vec<ReplicaReport>> {
    let mut all = Vec::new();
    for (region, answer) in answers {
        for replica in answer.iter().flat_map(|answer| &answer.replicas) {
            let shard = place::shard(replica.shard.as_ref())?;
            let head = heads.get(&shard).copied().unwrap_or(replica.head_sequence);
            all.push((shard, region.clone(), one(replica, region, head)?));
        }
    }
    all.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
    Ok(all.into_iter().map(|(.., report)| report).collect())
}

fn one(replica: &Replica, region: &RegionName, head: u64) -> anyhow::Result<ReplicaReport> {
    Ok(ReplicaReport {
        shard: place::shard(replica.shard.as_ref())?.to_string(),
        leader: replica.leader.clone(),
        region: region.to_string(),
        whole: replica.whole,
        state: state_name(replica.state()),
        problem: (!replica.problem.is_empty()).then(|| replica.problem.clone()),
        stored_sequence: replica.stored_sequence,
        projected_sequence: replica.projected_sequence,
        lag_entries: head.saturating_sub(replica.stored_sequence),
        age_ms: replica.age_ms,
        chunks_stored: replica.chunks_stored,
        chunks_total: replica.chunks_total,
        set_aside: replica.set_aside,
    })
}

pub(super) fn text(replicas: &[ReplicaReport]) -> String {
    if replicas.is_empty() {
        return String::new();
    }
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut table = Table::new(["copy of", "in", "holds", "state", "stored", "projected", "lag", "age ms"]);
    for replica in replicas {
        table.row([
            replica.shard.clone(),
            replica.region.clone(),
            if replica.whole { "all" } else { "its zone's" }.to_owned(),
            replica.state_words(),
            replica.stored_sequence.to_string(),
            number(replica.projected_sequence),
            replica.lag_entries.to_string(),
            number(replica.age_ms),
        ]);
    }
    let mut text = format!("\n{table}\n");
    for replica in replicas {
        if let Some(problem) = &replica.problem {
            text.push_str(&format!("  {}'s copy of {} {}: {problem}\n", replica.region, replica.shard, replica.trouble()));
        }
    }
    text
}

fn state_name(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Unspecified => "unknown",
        ReplicaState::Connecting => "connecting",
        ReplicaState::CatchingUp => "catching up",
        ReplicaState::Streaming => "streaming",
        ReplicaState::Stopped => "stopped",
        ReplicaState::Bootstrapping => "bootstrapping",
        ReplicaState::SetAside => "set aside",
    }
}

#[cfg(test)]
mod tests {
    use paymesh_contract::common::v1 as common;

    use super::*;

    #[test]
    fn copies_are_listed_by_shard_and_region_with_their_lag_behind_the_leaders_word() {
        let replica = |index, state: ReplicaState, stored_sequence| Replica {
            shard: Some(common::ShardRef { zone: "eu".to_owned(), shard: index }),
            leader: "eu_west".to_owned(),
            state: state.into(),
            stored_sequence,
            head_sequence: 10,
            ..Replica::default()
        };
        let answer = |replicas| Ok(GetReplicationResponse { followers: Vec::new(), replicas });
        let region = |name: &str| name.parse::<RegionName>().expect("a region's name");
        let answers = BTreeMap::from([
            (region("b"), answer(vec![replica(1, ReplicaState::Stopped, 3), replica(0, ReplicaState::Streaming, 10)])),
            (region("a"), answer(vec![replica(0, ReplicaState::CatchingUp, 4)])),
            (region("c"), Err(Status::unavailable("down"))),
        ]);
        let heads = BTreeMap::from([(ShardRef { zone: "eu".parse().expect("a zone's name"), index: 0 }, 12)]);
        let report = report(&answers, &heads).expect("well formed");
        let found: Vec<_> = report.iter().map(|each| (&*each.shard, &*each.region, each.state, each.lag_entries)).collect();
        assert_eq!(found, [("eu/0", "a", "catching up", 8), ("eu/0", "b", "streaming", 2), ("eu/1", "b", "stopped", 7)]);
        assert!(report[2].is_stopped() && !report[0].is_stopped());
    }
}
