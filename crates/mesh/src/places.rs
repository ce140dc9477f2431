//! So many places and no more: calls, streams and connections take one each, for as long as they last.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A bound on how many of a kind there are at once. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    max: usize,
    taken: Arc<AtomicUsize>,
}

impl Places {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, taken: Arc::default() }
    }

    /// How many there are, free or taken.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// A place. None: all are taken.
    pub(crate) fn take(&self) -> Option<Place> {
        let before = self.taken.fetch_add(1, Relaxed);
        let place = Place(Arc::clone(&self.taken));
        // One too many is given back by being dropped.
        (before < self.max).then_some(place)
    }
}

/// A place, free again once it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A bound on the bytes that are held at once, by all together. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    bytes_max: usize,
    taken: Arc<AtomicUsize>,
}

impl Room {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, taken: Arc::default() }
    }

    /// How many there may be.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Somebody who holds none yet.
    pub(crate) fn holder(&self) -> Held {
        Held { room: self.clone(), bytes: 0 }
    }
}

/// What one holder has, free again once it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    room: Room,
    bytes: usize,
}

impl Held {
    /// Holds so many from now on. False: there is no room for more than before.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            None => {
                self.room.taken.fetch_sub(self.bytes - bytes, Relaxed);
            }
            Some(0) => {}
            Some(more) => {
                if self.room.taken.fetch_add(more, Relaxed).saturating_add(more) > self.room.bytes_max {
                    self.room.taken.fetch_sub(more, Relaxed);
                    return false;
                }
            }
        }
        self.bytes = bytes;
        true
    }

    pub(crate) fn room(&self) -> &Room {
        &self.room
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.taken.fetch_sub(self.bytes, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_hold_together_is_bounded_and_what_one_lets_go_of_is_there_for_others() {
        let room = Room::new(100);
        let (mut one, mut two) = (room.holder(), room.holder());
        assert!(one.hold(60) && two.hold(40));
        assert!(!two.hold(41), "the room is full");
        assert!(one.hold(10) && two.hold(90));
        assert!(!one.hold(11) && one.hold(10));
        drop(two);
        assert!(one.hold(100));
        drop(one);
        assert_eq!(room.taken.load(Relaxed), 0);
    }
}
