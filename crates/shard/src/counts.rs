//! What shards count, for `/metrics`.

use metrics::Unit::Seconds;

pub(crate) const DECIDE_SECONDS: &str = "paymesh_shard_decide_seconds";
pub(crate) const COMMIT_SECONDS: &str = "paymesh_shard_commit_seconds";
pub(crate) const BATCH_ENTRIES: &str = "paymesh_shard_batch_entries";
pub(crate) const PROJECT_SECONDS: &str = "paymesh_shard_project_seconds";
pub(crate) const INBOX_POISONED: &str = "paymesh_inbox_poisoned_total";
pub(crate) const IN_TRANSIT_AGE: &str = "paymesh_in_transit_age_seconds";
pub(crate) const CLEARING_SENT: &str = "paymesh_clearing_sent_minor_units";
pub(crate) const CLEARING_RECEIVED: &str = "paymesh_clearing_received_minor_units";
/// The autoscaler's signal (source document, "Auto-Scaling Configuration").
pub(crate) const QUEUE_LENGTH: &str = "payment_queue_length";

/// Says in `/metrics` what this crate and the journal count. To be called once the recorder is installed.
pub fn describe_metrics() {
    paymesh_journal::describe_metrics();
    metrics::describe_histogram!(DECIDE_SECONDS, Seconds, "Loading what a batch of commands needs and deciding it");
    metrics::describe_histogram!(COMMIT_SECONDS, Seconds, "From a batch of commands to its durable entries, deciding included");
    metrics::describe_histogram!(BATCH_ENTRIES, "Entries of a shard's batch");
    metrics::describe_histogram!(PROJECT_SECONDS, Seconds, "Bringing the tables up to date by a run of entries");
    metrics::describe_counter!(INBOX_POISONED, "Entries of another shard that could not be taken in; each stops its inbox");
    metrics::describe_gauge!(
        IN_TRANSIT_AGE,
        Seconds,
        "How long the oldest payment, return or refund from one shard to another waits to be acknowledged, to about a second; 0 when none does"
    );
    metrics::describe_gauge!(CLEARING_SENT, "Sent to another shard since the beginning; less what that received from here is in transit");
    metrics::describe_gauge!(CLEARING_RECEIVED, "Received from another shard since the beginning");
    metrics::describe_gauge!(QUEUE_LENGTH, "Commands that wait, by shard");
}
