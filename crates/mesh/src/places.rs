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
