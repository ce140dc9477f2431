//! The record that a call leaves in the node's audit log, while the call is under way.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use paymesh_audit::{Outcome, Record, Slot};

/// A call's place in the audit log. Cheap to clone; all clones are of the same call, and the first end is the record's.
#[derive(Clone)]
pub(crate) struct Trail {
    slot: Arc<Mutex<Option<Slot>>>,
}

impl Trail {
    pub(crate) fn new(slot: Slot) -> Self {
        Self { slot: Arc::new(Mutex::new(Some(slot))) }
    }

    /// Notes what becomes known of the call. Past its end there is nothing to note it in.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Record)) {
        if let Some(slot) = &mut *self.slot.lock().unwrap_or_else(PoisonError::into_inner) {
            note(slot.record_mut());
        }
    }

    /// The call has ended so.
    pub(crate) fn end(&self, outcome: Outcome) {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(slot) = slot {
            slot.record(outcome);
        }
    }
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trail")
    }
}
