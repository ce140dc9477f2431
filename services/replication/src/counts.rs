//! What is counted.

pub(crate) const LAG_ENTRIES: &str = "paymesh_replica_lag_entries";
pub(crate) const TABLES_LAG_ENTRIES: &str = "paymesh_replica_tables_lag_entries";
pub(crate) const LAG_SECONDS: &str = "paymesh_replica_lag_seconds";
pub(crate) const SEGMENTS: &str = "paymesh_replica_segments_total";
pub(crate) const BYTES: &str = "paymesh_replica_payload_bytes_total";
pub(crate) const STOPPED: &str = "paymesh_replica_stopped";
pub(crate) const AGE_SECONDS: &str = "paymesh_replica_age_seconds";
pub(crate) const RECONNECTS: &str = "paymesh_replica_reconnects_total";

pub(crate) const BOOTSTRAPS: &str = "paymesh_replica_bootstraps_total";

pub(crate) const HISTORY_MISSING: &str = "paymesh_shard_history_missing";
pub(crate) const AWAITS_COPIES: &str = "paymesh_shard_awaits_copies";

/// Says in `/metrics` what this crate counts. To be called once the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_gauge!(LAG_ENTRIES, "Entries that the leader had when it sent what was stored last, and this replica has not");
    metrics::describe_gauge!(TABLES_LAG_ENTRIES, "Entries that this replica has stored, and its tables do not hold yet");
    metrics::describe_histogram!(
        LAG_SECONDS,
        metrics::Unit::Seconds,
        "From a segment's commit, by the leader's clock, to its being stored here, by this node's; of segments that came as they were committed"
    );
    metrics::describe_gauge!(
        AGE_SECONDS,
        metrics::Unit::Seconds,
        "How long ago the copy was last known to hold everything that its leader had, as `paymesh status` says; since the node's start where it never was. \
         Below a second while it streams"
    );
    metrics::describe_counter!(SEGMENTS, "Segments stored");
    metrics::describe_counter!(BYTES, metrics::Unit::Bytes, "Payload of segments stored, as it came");
    metrics::describe_gauge!(STOPPED, "1 where a replica takes in nothing more and an operator must look");
    metrics::describe_counter!(
        BOOTSTRAPS,
        "Times that a replica began with a checkpoint, because its leader's journal does not reach back to its end"
    );
    metrics::describe_gauge!(
        HISTORY_MISSING,
        "1 where a shard is not led because a copy in another region has entries that its journal lacks"
    );
    metrics::describe_gauge!(
        AWAITS_COPIES,
        "1 while a shard is not led because its journal is empty and not all who follow it have said what they have"
    );
    metrics::describe_counter!(RECONNECTS, "Streams that ended and were made again");
}
