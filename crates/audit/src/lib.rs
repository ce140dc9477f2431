//! A node's audit log: who called what, with which scopes, from where, about whose money or data, and what came of it.
//!
//! A call takes a [`Slot`] of the [`Log`] before it does anything, and leaves its [`Record`] there when it ends. Where the log cannot take a
//! record, there is no slot, and the call is refused: nothing is done of which no record could be kept. Records are chained by hashes and
//! written by the [`Writer`], many with one `fdatasync`, at most 50 ms after they were handed over; nobody waits for that who does not ask to.
//!
//! Promised: a record that was said to be durable is there after a crash, or its absence is named; a record that was not whole when the node
//! crashed is cut, and the log says how much; whatever else is not what was written is named by file and sequence number, kept, and never cut
//! (`open`, `verify`); a reader is given nothing that was not checked. What the hash chain cannot show is a log that was written anew
//! as a whole by somebody who may write to its files: that shows to whoever has kept a hash of it elsewhere.
//!
//! Left to others: what is recorded, and which calls; shipping records elsewhere ([`Reader`]); the clock.

#![forbid(unsafe_code)]

mod anonymous;
mod error;
mod files;
mod format;
mod log;
mod mark;
mod open;
mod queue;
mod reader;
mod record;
mod retention;
mod store;
mod verify;
mod walk;
mod writer;

pub use crate::{
    error::{Damage, ReadError, Unavailable, Unwritten},
    format::{Hash, Link},
    log::{Clock, Condition, Log, Retention, Settings, Slot, Standing, State},
    reader::{Batch, Reader},
    record::{Caller, Outcome, Record, SUBJECTS_MAX, Subjects, Token},
    verify::Report,
    writer::Writer,
};

const RECORDS: &str = "paymesh_audit_records_total";
const BYTES: &str = "paymesh_audit_bytes_total";
const REFUSED: &str = "paymesh_audit_calls_refused_total";
const UNRECORDED: &str = "paymesh_audit_anonymous_unrecorded_total";
const LOST: &str = "paymesh_audit_records_lost_total";
const SYNC_SECONDS: &str = "paymesh_audit_sync_seconds";
const UNSYNCED_SECONDS: &str = "paymesh_audit_unsynced_age_seconds";
const KEPT_BYTES: &str = "paymesh_audit_kept_bytes";
const SET_ASIDE: &str = "paymesh_audit_chains_set_aside";

/// Says in `/metrics` what this crate counts. To be called once the recorder is installed.
pub fn describe_metrics() {
    use metrics::Unit;
    metrics::describe_counter!(RECORDS, "Records that are durable in this node's audit log");
    metrics::describe_counter!(BYTES, Unit::Bytes, "Bytes written to the audit log");
    metrics::describe_counter!(REFUSED, "Calls that were refused because the audit log could not take their records, by why");
    metrics::describe_counter!(UNRECORDED, "Calls of callers whom nobody knows that left no record of their own, because so many came");
    metrics::describe_counter!(LOST, "Records that were handed over after the log had closed, or when it could not be written any more");
    // There from the start: what goes from nothing to one is no increase to who watches.
    for why in Unavailable::ALL {
        metrics::counter!(REFUSED, "why" => why.label()).increment(0);
    }
    for counter in [UNRECORDED, LOST] {
        metrics::counter!(counter).increment(0);
    }
    metrics::describe_histogram!(SYNC_SECONDS, Unit::Seconds, "Writing and syncing the records that had queued up together");
    metrics::describe_gauge!(UNSYNCED_SECONDS, Unit::Seconds, "How long the oldest record that is not durable yet has waited");
    metrics::describe_gauge!(KEPT_BYTES, Unit::Bytes, "Bytes of the chain that is written now");
    metrics::describe_gauge!(SET_ASIDE, "Damaged chains that are kept, until an operator moves them away");
}
