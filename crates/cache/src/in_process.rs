//! A cache in this process: moka, bounded by the weight of keys and values.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use moka::{Expiry, sync::Cache as Moka};

use crate::{Cache, Error};

/// Bytes that an entry takes beside its key and its value, about.
const ENTRY_BYTES: u32 = 160;

type Key = Box<[u8]>;

#[derive(Clone)]
struct Entry {
    value: Bytes,
    time_to_live: Duration,
}

/// Each entry ends by its own time, whether it is asked for or not.
struct ByEntry;

impl Expiry<Key, Entry> for ByEntry {
    fn expire_after_create(&self, _: &Key, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.time_to_live)
    }

    fn expire_after_update(&self, _: &Key, entry: &Entry, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(entry.time_to_live)
    }
}

/// A cache in this process. What does not fit goes by how often and how lately it was asked for (TinyLFU). Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct InProcess {
    entries: Moka<Key, Entry>,
}

impl InProcess {
    /// A cache of at most `bytes_max` bytes, counting keys, values and what it takes to keep them.
    pub fn new(bytes_max: u64) -> Self {
        let weight = |key: &Key, entry: &Entry| {
            let bytes = key.len().saturating_add(entry.value.len());
            u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(ENTRY_BYTES)
        };
        Self { entries: Moka::builder().max_capacity(bytes_max).weigher(weight).expire_after(ByEntry).build() }
    }

    /// Bytes that it takes, once what is due has been let go.
    pub fn bytes(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.weighted_size()
    }
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InProcess")
    }
}

/// Nothing here waits for anything.
#[async_trait]
impl Cache for InProcess {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.entries.get(key).map(|entry| entry.value))
    }

    async fn insert(&self, key: &[u8], value: Bytes, time_to_live: Duration) -> Result<(), Error> {
        self.entries.insert(key.into(), Entry { value, time_to_live });
        Ok(())
    }

    async fn invalidate(&self, key: &[u8]) -> Result<(), Error> {
        self.entries.invalidate(key);
        Ok(())
    }
}
