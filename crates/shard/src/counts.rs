//! What shards count, for `/metrics`.

use metrics::Unit::Seconds;

pub(crate) const DECIDE_SECONDS: &str = "paymesh_shard_decide_seconds";
pub(crate) const COMMIT_SECONDS: &str = "paymesh_shard_commit_seconds";
pub(crate) const BATCH_ENTRIES: &str = "paymesh_shard_batch_entries";
pub(crate) const PROJECT_SECONDS: &str = "paymesh_shard_project_seconds";
pub(crate) const INBOX_POISONED: &str = "paymesh_inbox_poisoned_total";
pub(crate) const INBOX_DISBELIEVED: &str = "paymesh_inbox_disbelieved_total";
pub(crate) const IN_TRANSIT_AGE: &str = "paymesh_in_transit_age_seconds";
pub(crate) const CLEARING_SENT: &str = "paymesh_clearing_sent_minor_units";
pub(crate) const CLEARING_RECEIVED: &str = "paymesh_clearing_received_minor_units";
pub(crate) const JOURNAL_BYTES: &str = "paymesh_journal_bytes";
pub(crate) const FIRST_SEQUENCE: &str = "paymesh_journal_first_sequence";
pub(crate) const PRUNED_SEGMENTS: &str = "paymesh_journal_pruned_segments_total";
pub(crate) const HELD_BACK: &str = "paymesh_journal_held_back";
pub(crate) const RETENTION_FAILED: &str = "paymesh_journal_retention_failed_total";
pub(crate) const CHECKPOINT_SECONDS: &str = "paymesh_checkpoint_seconds";
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
    metrics::describe_counter!(
        INBOX_DISBELIEVED,
        "Acknowledgements of another shard that are of another history than this shard's: no payment is completed by them"
    );
    // There from the start: what goes from nothing to one is no increase to who watches.
    for counter in [INBOX_POISONED, INBOX_DISBELIEVED] {
        metrics::counter!(counter).increment(0);
    }
    metrics::describe_gauge!(
        IN_TRANSIT_AGE,
        Seconds,
        "How long the oldest payment, return or refund from one shard to another waits to be acknowledged, to about a second; 0 when none does"
    );
    metrics::describe_gauge!(CLEARING_SENT, "Sent to another shard since the beginning; less what that received from here is in transit");
    metrics::describe_gauge!(CLEARING_RECEIVED, "Received from another shard since the beginning");
    metrics::describe_gauge!(JOURNAL_BYTES, metrics::Unit::Bytes, "Payloads of the segments that a journal keeps");
    metrics::describe_gauge!(FIRST_SEQUENCE, "The first entry that a journal keeps, once it is not the first of all");
    metrics::describe_counter!(PRUNED_SEGMENTS, "Segments past the retention that are not kept any more");
    metrics::describe_gauge!(HELD_BACK, "1 where a journal is kept beyond its retention, for money that another shard has not taken in");
    metrics::describe_counter!(RETENTION_FAILED, "Turns in which what is past the retention could not be let go of");
    metrics::describe_histogram!(CHECKPOINT_SECONDS, Seconds, "Making a checkpoint of a shard's tables");
    metrics::describe_gauge!(QUEUE_LENGTH, "Commands that wait, by shard");
}
