//! How many calls entered the mesh at this node, and which region served them: what `MeshService.GetStatus` shows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use paymesh_topology::Topology;
use paymesh_types::RegionName;

/// Calls since the node started, of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCount {
    /// The region that they were served by, or forwarded to.
    pub served_by: RegionName,
    /// Whether another region's node sent them, rather than a caller.
    pub from_peer: bool,
    /// How many.
    pub calls: u64,
}

/// One line per region of the topology.
#[derive(Debug)]
pub(crate) struct RouteCounts {
    regions: Vec<(RegionName, AtomicU64, AtomicU64)>,
}

impl RouteCounts {
    pub(crate) fn new(topology: &Topology) -> Self {
        Self { regions: topology.regions().map(|region| (region.name.clone(), AtomicU64::new(0), AtomicU64::new(0))).collect() }
    }

    pub(crate) fn add(&self, served_by: &RegionName, from_peer: bool) {
        if let Some((_, callers, peers)) = self.regions.iter().find(|(region, ..)| region == served_by) {
            (if from_peer { peers } else { callers }).fetch_add(1, Relaxed);
        }
    }

    /// Every count that is not zero.
    pub(crate) fn snapshot(&self) -> Vec<RouteCount> {
        self.regions
            .iter()
            .flat_map(|(region, callers, peers)| [(region, false, callers), (region, true, peers)])
            .map(|(region, from_peer, calls)| RouteCount { served_by: region.clone(), from_peer, calls: calls.load(Relaxed) })
            .filter(|count| count.calls > 0)
            .collect()
    }
}
