//! The part of `paymesh status` about copies of shards in other regions.
//!
//! The copies of a region that does not answer are those that it keeps by the configuration; how far they are is what the shards'
//! leaders know.

use std::collections::BTreeMap;

use paymesh_contract::replication::v1::{GetReplicationResponse, Replica, ReplicaState};
use paymesh_journal::Holding;
use paymesh_replication::Followed;
use paymesh_topology::Topology;
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
    /// Absent when neither its region nor its leader answers.
    stored_sequence: Option<u64>,
    projected_sequence: Option<u64>,
    /// Against the leader's head as the leader says it, or as the copy last heard of it. Absent when nobody says.
    lag_entries: Option<u64>,
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

    /// Whether nothing comes, and has not for so long that it is not a leader's restart.
    pub(super) fn is_cut_off(&self) -> bool {
        self.state == state_name(ReplicaState::Connecting) && self.problem.is_some()
    }

    fn state_words(&self) -> String {
        if self.chunks_total > 0 { format!("{} {}/{}", self.state, self.chunks_stored, self.chunks_total) } else { self.state.to_owned() }
    }

    fn trouble(&self) -> &'static str {
        if self.is_cut_off() {
            "does not reach its leader, and goes on trying"
        } else if self.state == state_name(ReplicaState::SetAside) {
            "is set aside and made anew"
        } else {
            "takes in nothing more"
        }
    }
}

/// What the regions say of their copies, and their leaders of those that say nothing, in the order of shards and regions. `heads`: what
/// the leaders said a moment before.
pub(super) fn report(
    topology: &Topology,
    answers: &BTreeMap<RegionName, Result<GetReplicationResponse, Status>>,
    heads: &BTreeMap<ShardRef, u64>,
) -> anyhow::Result<Vec<ReplicaReport>> {
    let mut all = Vec::new();
    let mut known = BTreeMap::new();
    for follower in answers.values().flatten().flat_map(|answer| &answer.followers) {
        known.insert((place::shard(follower.shard.as_ref())?, &*follower.region), follower.stored_sequence);
    }
    for (region, answer) in answers {
        if answer.is_err() {
            for followed in paymesh_replication::plan(topology, region) {
                let stored = known.get(&(followed.shard.clone(), region.as_str())).copied();
                all.push((followed.shard.clone(), region.clone(), unknown(&followed, region, stored, heads.get(&followed.shard).copied())));
            }
        }
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
        stored_sequence: Some(replica.stored_sequence),
        projected_sequence: replica.projected_sequence,
        lag_entries: Some(head.saturating_sub(replica.stored_sequence)),
        age_ms: replica.age_ms,
        chunks_stored: replica.chunks_stored,
        chunks_total: replica.chunks_total,
        set_aside: replica.set_aside,
    })
}

/// The copy of a region that does not answer.
fn unknown(followed: &Followed, region: &RegionName, stored: Option<u64>, head: Option<u64>) -> ReplicaReport {
    ReplicaReport {
        shard: followed.shard.to_string(),
        leader: followed.leader.to_string(),
        region: region.to_string(),
        whole: followed.holding == Holding::Whole,
        state: state_name(ReplicaState::Unspecified),
        problem: None,
        stored_sequence: stored,
        projected_sequence: None,
        lag_entries: head.zip(stored).map(|(head, stored)| head.saturating_sub(stored)),
        age_ms: None,
        chunks_stored: 0,
        chunks_total: 0,
        set_aside: 0,
    }
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
            number(replica.stored_sequence),
            number(replica.projected_sequence),
            number(replica.lag_entries),
            number(replica.age_ms),
        ]);
    }
    let mut text = format!("\n{table}\n");
    if replicas.iter().any(|replica| !replica.whole) {
        text.push_str("  its zone's: the open part of what concerns the region's own zone, and the hashes of everything else\n");
    }
    if replicas.iter().any(|replica| replica.state == state_name(ReplicaState::Unspecified)) {
        text.push_str("  unknown: the region does not answer; what it has stored is what the shard's leader knows\n");
    }
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
    use paymesh_contract::{common::v1 as common, replication::v1::Follower};

    use super::*;

    const YAML: &str = "
mesh: test
regions:
  a: {primary: false, services: [payment_processor], database: read_replica}
  b: {primary: false, services: [payment_processor], database: read_replica}
  c: {primary: false, services: [payment_processor], database: read_replica}
  eu_west: {primary: true, services: [payment_processor], database: primary_master}
zones:
  eu: {shards: 2, regions: [a, b, c, eu_west], countries: [DE]}
endpoints:
  a: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
  b: {grpc: '127.0.0.1:7102', http: '127.0.0.1:7202'}
  c: {grpc: '127.0.0.1:7103', http: '127.0.0.1:7203'}
  eu_west: {grpc: '127.0.0.1:7104', http: '127.0.0.1:7204'}
";

    #[test]
    fn copies_are_listed_by_shard_and_region_with_their_lag_and_those_of_a_silent_region_as_their_leader_knows_them() {
        let topology = Topology::parse("test", YAML).unwrap_or_else(|errors| panic!("{errors}"));
        let name = |index| Some(common::ShardRef { zone: "eu".to_owned(), shard: index });
        let replica = |index, state: ReplicaState, stored_sequence| Replica {
            shard: name(index),
            leader: "eu_west".to_owned(),
            whole: true,
            state: state.into(),
            stored_sequence,
            head_sequence: 10,
            ..Replica::default()
        };
        let answer = |followers, replicas| Ok(GetReplicationResponse { followers, replicas });
        let region = |name: &str| name.parse::<RegionName>().expect("a region's name");
        let follower = Follower { shard: name(0), region: "c".to_owned(), stored_sequence: 9, ..Follower::default() };
        let answers = BTreeMap::from([
            (region("b"), answer(vec![], vec![replica(1, ReplicaState::Stopped, 3), replica(0, ReplicaState::Streaming, 10)])),
            (region("a"), answer(vec![], vec![replica(0, ReplicaState::CatchingUp, 4)])),
            (region("c"), Err(Status::unavailable("down"))),
            (region("eu_west"), answer(vec![follower], vec![])),
        ]);
        let heads = BTreeMap::from([(ShardRef { zone: "eu".parse().expect("a zone's name"), index: 0 }, 12)]);
        let report = report(&topology, &answers, &heads).expect("well formed");
        let found: Vec<_> = report.iter().map(|each| (&*each.shard, &*each.region, each.state, each.lag_entries)).collect();
        assert_eq!(
            found,
            [
                ("directory/0", "c", "unknown", None),
                ("eu/0", "a", "catching up", Some(8)),
                ("eu/0", "b", "streaming", Some(2)),
                ("eu/0", "c", "unknown", Some(3)),
                ("eu/1", "b", "stopped", Some(7)),
                ("eu/1", "c", "unknown", None),
            ]
        );
        assert!(report[4].is_stopped() && report.iter().filter(|each| each.is_stopped()).count() == 1);
        let shown = text(&report);
        assert!(shown.contains("unknown: the region does not answer") && !shown.contains("its zone's"), "{shown}");
    }
}
