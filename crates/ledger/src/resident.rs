//! Records in memory: a bounded working set over tables that may lag behind the journal.

use std::hash::Hash;

use paymesh_types::Sequence;
use rustc_hash::FxHashMap;

/// Records by key. A record that changed after the projected position is pinned: the tables do not have it yet. That a
/// key has no record is remembered as well, so that a look-up in the tables is not repeated.
#[derive(Debug)]
pub(crate) struct Resident<K, V> {
    slots: FxHashMap<K, Slot<V>>,
    /// Grows with each eviction; a record touched since the last one survives the next.
    generation: u32,
}

#[derive(Debug)]
struct Slot<V> {
    /// `None`: there is no such record.
    value: Option<V>,
    /// The entry that changed it last; 0 when it is as the tables had it.
    changed: Sequence,
    generation: u32,
}

impl<K, V> Default for Resident<K, V> {
    fn default() -> Self {
        Self { slots: FxHashMap::default(), generation: 0 }
    }
}

impl<K: Copy + Eq + Hash + std::fmt::Debug, V> Resident<K, V> {
    /// Marks the key as in use. False when the tables must be asked.
    pub(crate) fn touch(&mut self, key: K) -> bool {
        match self.slots.get_mut(&key) {
            Some(slot) => {
                slot.generation = self.generation;
                true
            }
            None => false,
        }
    }

    /// The record, or `None` where there is none.
    ///
    /// # Panics
    /// When the key was not made resident first: deciding on it would take an unread record for an absent one.
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        match self.slots.get(&key) {
            Some(slot) => slot.value.as_ref(),
            None => panic!("the record {key:?} was not prefetched"),
        }
    }

    /// The record, where it is resident and there is one.
    pub(crate) fn peek(&self, key: K) -> Option<&V> {
        self.slots.get(&key).and_then(|slot| slot.value.as_ref())
    }

    /// Takes in what the tables say. A record that is already resident is newer, and stays.
    pub(crate) fn load(&mut self, key: K, value: Option<V>) {
        let generation = self.generation;
        self.slots.entry(key).or_insert(Slot { value, changed: Sequence(0), generation });
    }

    /// Sets the record as an entry left it.
    pub(crate) fn put(&mut self, key: K, value: V, changed: Sequence) {
        self.slots.insert(key, Slot { value: Some(value), changed, generation: self.generation });
    }

    /// Brings the count down towards `keep`: lets go of what is projected and was not used since the last call.
    pub(crate) fn evict(&mut self, projected: Sequence, keep: usize) {
        self.evict_each(projected, keep, |_, _| {});
    }

    /// As [`Self::evict`], and says of each record that goes what it was.
    pub(crate) fn evict_each(&mut self, projected: Sequence, keep: usize, mut goes: impl FnMut(&K, Option<&V>)) {
        if self.slots.len() <= keep {
            return;
        }
        let generation = self.generation;
        self.slots.retain(|key, slot| {
            let stays = slot.changed > projected || slot.generation == generation;
            if !stays {
                goes(key, slot.value.as_ref());
            }
            stays
        });
        self.generation = generation.wrapping_add(1);
        if self.slots.len() > keep {
            // More was used since the last eviction than may stay: the bound wins over recency, in no order.
            let mut excess = self.slots.len() - keep;
            self.slots.retain(|key, slot| {
                let stays = slot.changed > projected || excess == 0;
                if !stays {
                    excess -= 1;
                    goes(key, slot.value.as_ref());
                }
                stays
            });
        }
        if self.slots.capacity() > 4 * self.slots.len().max(1024) {
            self.slots.shrink_to(2 * self.slots.len());
        }
    }

    /// Lets go of records that `stays` says no of, projected or not.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&K, Option<&V>) -> bool) {
        self.slots.retain(|key, slot| stays(key, slot.value.as_ref()));
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// All records that there are, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().filter_map(|(key, slot)| slot.value.as_ref().map(|value| (key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_projected_is_never_evicted() {
        let mut records = Resident::<u64, u64>::default();
        for key in 1..=100 {
            records.put(key, key, Sequence(key));
        }
        records.evict(Sequence(60), 10);
        records.evict(Sequence(60), 10);
        assert_eq!(records.len(), 40);
        assert!((61..=100).all(|key| records.get(key) == Some(&key)));
    }

    #[test]
    fn what_is_in_use_outlives_what_is_not() {
        let mut records = Resident::<u64, u64>::default();
        for key in 1..=100 {
            records.load(key, Some(key));
        }
        records.evict(Sequence(0), 99);
        for key in 1..=30 {
            records.load(key, Some(key));
        }
        for key in 101..=200 {
            records.load(key, None);
        }
        assert!(records.touch(1));
        records.evict(Sequence(0), 120);
        assert!(records.len() <= 130);
        assert!(records.touch(1));
    }

    #[test]
    fn a_loaded_record_does_not_replace_a_newer_one() {
        let mut records = Resident::<u64, u64>::default();
        records.put(1, 10, Sequence(5));
        records.load(1, Some(9));
        assert_eq!(records.get(1), Some(&10));
    }

    #[test]
    #[should_panic(expected = "was not prefetched")]
    fn reading_what_was_not_prefetched_is_a_bug_and_not_an_absence() {
        Resident::<u64, u64>::default().get(1);
    }
}
