//! A map of bounded size that keeps what was used lately.

use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Keeps the last `max` keys that were used, and up to as many again: two maps, of which the older is let go of when the newer is full. What was let go
/// of is as if it had never been there.
#[derive(Debug)]
pub(crate) struct Lately<K, V> {
    max: usize,
    newer: FxHashMap<K, V>,
    older: FxHashMap<K, V>,
}

impl<K: Hash + Eq, V> Lately<K, V> {
    /// At most twice `max` keys.
    pub(crate) fn new(max: usize) -> Self {
        Self { max: max.max(1), newer: FxHashMap::default(), older: FxHashMap::default() }
    }

    /// What is under a key; it does not count as used.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.newer.get(key).or_else(|| self.older.get(key))
    }

    /// What is under a key, or a new value: used now.
    pub(crate) fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.newer.contains_key(&key) && self.newer.len() >= self.max {
            self.older = std::mem::take(&mut self.newer);
        }
        let older = &mut self.older;
        self.newer.entry(key).or_insert_with_key(|key| older.remove(key).unwrap_or_else(new))
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.newer.len() + self.older.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_lately_is_there_and_the_rest_is_bounded() {
        let mut lately = Lately::new(10);
        for key in 0..1_000_u32 {
            lately.entry(key, || key);
            // Used again and again, it stays.
            lately.entry(0, || panic!("key 0 was let go of at {key}"));
            assert!(lately.len() <= 20, "{}", lately.len());
            for recent in key.saturating_sub(8)..=key {
                assert_eq!(lately.get(&recent), Some(&recent));
            }
        }
        assert_eq!(lately.get(&5), None);
    }
}
