//! A bounded map of user to zone that never waits.
//!
//! Every call and every item of a batch asks it, some sixty thousand times a second, so a general cache's bookkeeping
//! (some 200 bytes and a lock for each of its entries) is more than it is worth here: a zone never changes once claimed, and an entry
//! that was pushed out costs one question to the directory. This one is an array of 64-bit words in sets of eight, one cache line each.
//! A word holds all that tells one user from another in its set, so that an answer is never another user's.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Words of a set: one cache line.
const WAYS: usize = 8;

/// Low bits of a word that hold the zone's number plus one; zero is an empty word.
const ZONE_BITS: u32 = 16;

/// User to zone number. Lossy: an entry may be pushed out by another of its set.
pub(crate) struct ZoneCache {
    words: Box<[AtomicU64]>,
    set_bits: u32,
    victim: AtomicU32,
}

impl ZoneCache {
    /// A cache of `2^bits` entries of 8 bytes each.
    ///
    /// # Panics
    /// With fewer than 2^19 entries: the set must say at least 16 bits of a user, or the rest would not fit in a word.
    pub(crate) fn new(bits: u32) -> Self {
        assert!((19..32).contains(&bits), "2^19 to 2^31 entries, not 2^{bits}");
        let words = (0..1_usize << bits).map(|_| AtomicU64::new(0)).collect();
        Self { words, set_bits: bits - WAYS.ilog2(), victim: AtomicU32::new(0) }
    }

    /// The user's zone, if it is known.
    pub(crate) fn get(&self, user: u64) -> Option<u16> {
        let (set, tag) = self.place(user);
        let word = set.iter().map(|word| word.load(Relaxed)).find(|word| is_of(*word, tag))?;
        Some(u16::try_from((word & ZONE_MASK) - 1).expect("the mask leaves 16 bits"))
    }

    /// Remembers a user's zone, and may forget another user's.
    ///
    /// # Panics
    /// If `zone` is 65,535.
    pub(crate) fn insert(&self, user: u64, zone: u16) {
        assert!(zone < u16::MAX, "65,535 stands for no zone");
        let (set, tag) = self.place(user);
        let words = || set.iter().map(|word| word.load(Relaxed));
        let way = words()
            .position(|word| is_of(word, tag))
            .or_else(|| words().position(|word| word == EMPTY))
            .unwrap_or_else(|| self.victim.fetch_add(1, Relaxed) as usize % WAYS);
        // Two writers may take the same word; one entry is then forgotten, which is a miss and nothing worse.
        set[way].store(tag | (u64::from(zone) + 1), Relaxed);
    }

    /// The set that a user belongs to, and the high bits of its word. Mixing is a bijection: set and tag together are the user.
    fn place(&self, user: u64) -> (&[AtomicU64], u64) {
        let mixed = mix(user);
        let set = (mixed >> (u64::BITS - self.set_bits)) as usize * WAYS;
        (&self.words[set..set + WAYS], (mixed & (u64::MAX >> self.set_bits)) << ZONE_BITS)
    }
}

fn is_of(word: u64, tag: u64) -> bool {
    word != EMPTY && word & !ZONE_MASK == tag
}

const EMPTY: u64 = 0;

const ZONE_MASK: u64 = (1 << ZONE_BITS) - 1;

/// The finalizer of SplitMix64: each step can be undone, so different users stay different.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_user_is_remembered_and_another_is_not_taken_for_it() {
        let cache = ZoneCache::new(19);
        assert_eq!(cache.get(7), None);
        cache.insert(7, 3);
        assert_eq!((cache.get(7), cache.get(8)), (Some(3), None));
        cache.insert(0, 65_534);
        assert_eq!(cache.get(0), Some(65_534));
    }

    #[test]
    fn a_full_cache_forgets_and_never_mixes_up() {
        let cache = ZoneCache::new(19);
        let zone = |user: u64| u16::try_from(user % 1_000).expect("below 1,000");
        for user in 1..=1_000_000 {
            cache.insert(user, zone(user));
        }
        let known = (1..=1_000_000).filter(|user| cache.get(*user).inspect(|found| assert_eq!(*found, zone(*user))).is_some()).count();
        assert!((400_000..=1 << 19).contains(&known), "{known} of 2^19 words are in use");
    }

    proptest! {
        #[test]
        fn what_was_put_in_last_comes_out(users in proptest::collection::vec((any::<u64>(), 0..u16::MAX), 1..100)) {
            let cache = ZoneCache::new(19);
            for (user, zone) in users {
                cache.insert(user, zone);
                prop_assert_eq!(cache.get(user), Some(zone));
            }
        }
    }
}
