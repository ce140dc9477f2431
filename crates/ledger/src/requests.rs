//! Which request ids were recorded, and by which entry.
//!
//! The tables hold every id within its retention, and asking them costs a query for each batch. Most ids need no query:
//! a UUID of version 7 begins with the time at which it was made, so an id later than every recorded one that is not in
//! memory was never recorded. Times are the callers' and are not trusted: a clock that is ahead only makes this shard ask
//! its tables more often, until the time has come.

use paymesh_types::{RequestId, Sequence};

use crate::resident::Resident;

#[derive(Debug)]
pub(crate) struct Requests {
    resident: Resident<RequestId, Sequence>,
    /// Every recorded id of version 7 that is later than this is resident.
    complete_after_ms: u64,
}

impl Default for Requests {
    fn default() -> Self {
        Self { resident: Resident::default(), complete_after_ms: u64::MAX }
    }
}

impl Requests {
    /// Starts from tables in which no recorded id of version 7 is later than this.
    pub(crate) fn load_newest(&mut self, newest_ms: u64) {
        if self.resident.len() == 0 {
            self.complete_after_ms = newest_ms;
        }
    }

    /// Marks the id as in use. False when the tables must be asked.
    pub(crate) fn touch(&mut self, id: RequestId) -> bool {
        if self.resident.touch(id) {
            return true;
        }
        let new = id.named_at_ms().is_some_and(|ms| ms > self.complete_after_ms);
        if new {
            self.resident.load(id, None);
        }
        new
    }

    pub(crate) fn get(&self, id: RequestId) -> Option<&Sequence> {
        self.resident.get(id)
    }

    pub(crate) fn load(&mut self, id: RequestId, sequence: Option<Sequence>) {
        self.resident.load(id, sequence);
    }

    pub(crate) fn put(&mut self, id: RequestId, sequence: Sequence) {
        self.resident.put(id, sequence, sequence);
    }

    pub(crate) fn evict(&mut self, projected: Sequence, keep: usize) {
        let complete_after_ms = &mut self.complete_after_ms;
        self.resident.evict_each(projected, keep, |id, recorded| {
            if let (Some(_), Some(ms)) = (recorded, id.named_at_ms()) {
                *complete_after_ms = ms.max(*complete_after_ms);
            }
        });
    }

    /// Lets go of the ids that entries up to `up_to` recorded: the tables have forgotten them.
    pub(crate) fn forget(&mut self, up_to: Sequence) {
        let complete_after_ms = &mut self.complete_after_ms;
        self.resident.retain(|id, recorded| {
            let stays = recorded.is_none_or(|sequence| *sequence > up_to);
            if let (false, Some(ms)) = (stays, id.named_at_ms()) {
                *complete_after_ms = ms.max(*complete_after_ms);
            }
            stays
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.resident.len()
    }

    pub(crate) fn peek(&self, id: RequestId) -> Option<&Sequence> {
        self.resident.peek(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RequestId, &Sequence)> {
        self.resident.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn id(version: u8, ms: u64, tail: u8) -> RequestId {
        let mut bytes = [tail; 16];
        bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        bytes[6] = version << 4;
        bytes[8] = 0x80;
        RequestId::from_slice(&bytes).expect("16 bytes")
    }

    #[test]
    fn without_tables_nothing_is_known_to_be_new() {
        let mut requests = Requests::default();
        assert!(!requests.touch(id(7, u64::MAX >> 16, 1)));
        requests.load_newest(100);
        assert!(requests.touch(id(7, 101, 1)), "later than all that was recorded");
        assert!(!requests.touch(id(7, 100, 1)), "the same millisecond");
        assert!(!requests.touch(id(4, 101, 1)), "not a time");
    }

    /// Whatever clocks say and whatever is evicted, an id that was recorded is never taken for a new one.
    #[test]
    fn what_was_recorded_is_never_taken_for_new() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut dice = move |sides: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % sides
        };
        let (mut saved, mut asked) = (0, 0);
        for round in 0..50 {
            let mut tables: HashMap<RequestId, Sequence> = HashMap::new();
            let mut requests = Requests::default();
            requests.load_newest(0);
            for sequence in 1..=2_000u64 {
                // Most callers' clocks agree within a few milliseconds; some are far ahead, some are behind or make version 4.
                let ms = match dice(40) {
                    0 => sequence + dice(500),
                    1 => sequence.saturating_sub(dice(500)),
                    _ => sequence + dice(4),
                };
                let id = id(if dice(20) == 0 { 4 } else { 7 }, ms, dice(3) as u8);
                let recorded = tables.get(&id).copied();
                if requests.touch(id) {
                    assert_eq!(requests.get(id).copied(), recorded, "round {round}, {id:?}");
                    saved += 1;
                } else {
                    requests.load(id, recorded);
                    asked += 1;
                }
                // Some are refused, and leave no record.
                if recorded.is_none() && dice(10) > 0 {
                    requests.put(id, Sequence(sequence));
                    tables.insert(id, Sequence(sequence));
                }
                if dice(30) == 0 {
                    requests.evict(Sequence(sequence.saturating_sub(dice(40))), 50 + dice(100) as usize);
                }
                if dice(500) == 0 {
                    requests = Requests::default();
                    requests.load_newest(tables.keys().filter_map(RequestId::named_at_ms).max().unwrap_or(0));
                }
            }
        }
        assert!(saved > 10_000 && asked > 1_000, "{saved} and {asked}");
    }
}
