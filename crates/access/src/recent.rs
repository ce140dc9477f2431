//! What was seen lately: bounded, and what is asked for stays.
//!
//! Two generations: what is put in or found is of the new one; when that is full it becomes the old one, and what was old and not
//! asked for since is gone. So memory holds at most twice its size, and nothing is kept in order.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// A bounded map by 256-bit hashes, which nobody can make collide.
pub(crate) struct Recent<T> {
    max: usize,
    generations: Mutex<[HashMap<[u8; 32], T>; 2]>,
}

impl<T: Clone> Recent<T> {
    /// With at most twice so many entries.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, generations: Mutex::default() }
    }

    pub(crate) fn get(&self, key: &[u8; 32]) -> Option<T> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let [new, old] = &mut *generations;
        if let Some(found) = new.get(key) {
            return Some(found.clone());
        }
        let found = old.remove(key)?;
        Self::add(&mut generations, self.max, *key, found.clone());
        Some(found)
    }

    pub(crate) fn put(&self, key: [u8; 32], value: T) {
        Self::add(&mut self.generations.lock().unwrap_or_else(PoisonError::into_inner), self.max, key, value);
    }

    fn add(generations: &mut [HashMap<[u8; 32], T>; 2], max: usize, key: [u8; 32], value: T) {
        if generations[0].len() >= max {
            generations.swap(0, 1);
            generations[0].clear();
        }
        generations[0].insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn it_never_holds_more_than_twice_its_size_and_keeps_what_is_asked_for() {
        let recent = Recent::new(8);
        recent.put(key(0), 0);
        for number in 1..1_000 {
            recent.put(key(number), number);
            assert_eq!(recent.get(&key(0)), Some(0), "it was asked for after each other");
            let generations = recent.generations.lock().expect("no panic");
            assert!(generations[0].len() + generations[1].len() <= 16);
        }
        assert_eq!(recent.get(&key(1)), None);
    }
}
