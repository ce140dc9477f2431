//! Which zone a user belongs to.
//!
//! A zone never changes once claimed, so what was learnt is kept, in bounded memory; that a user is unknown is never kept,
//! because the user may be enrolled the next moment. A hit costs a few nanoseconds and waits for nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use paymesh_contract::Fault;
use paymesh_topology::Topology;
use paymesh_types::{ShardRef, UserId, ZoneName};

use crate::zone_cache::ZoneCache;

/// The cache's entries, as a power of two: 4,194,304 of 8 bytes, 32 MiB.
const CACHE_ENTRIES_LOG2: u32 = 22;

/// Users of one question at most: the contract's bound of LookUpUsers.
const USERS_MAX: usize = 8_192;

pub(crate) const MISSES: &str = "paymesh_directory_misses_total";
pub(crate) const ASKED: &str = "paymesh_directory_asked_total";

/// Who knows the zones that are not in memory here. The mesh's own asks a copy of the directory, if this node keeps one, and of
/// what that does not know `DirectoryService.LookUpUsers` at the directory's home.
#[tonic::async_trait]
pub trait ZoneSource: Send + Sync {
    /// The zones of those users that exist, in any order. All are of one shard of the directory, and 8,192 at most.
    async fn look_up(&self, users: &[UserId]) -> Result<Vec<(UserId, ZoneName)>, Fault>;
}

/// User to zone. Cheap to clone; all clones share what they learn.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    topology: Arc<Topology>,
    source: Arc<dyn ZoneSource>,
    cache: ZoneCache,
}

impl Directory {
    /// A directory that knows nothing yet.
    pub fn new(topology: Arc<Topology>, source: Arc<dyn ZoneSource>) -> Self {
        Self { inner: Arc::new(Inner { topology, source, cache: ZoneCache::new(CACHE_ENTRIES_LOG2) }) }
    }

    /// The user's zone, if it is known here. None says nothing about whether the user exists.
    pub fn cached(&self, user: UserId) -> Option<ZoneName> {
        let zone = self.inner.cache.get(user.get())?;
        self.inner.topology.zones().nth(usize::from(zone)).map(|zone| zone.name.clone())
    }

    /// The user's zone. None: the user is not enrolled.
    ///
    /// # Errors
    /// Those of the directory's home when it has to be asked, UNAVAILABLE among them.
    pub async fn zone_of(&self, user: UserId) -> Result<Option<ZoneName>, Fault> {
        if let Some(zone) = self.cached(user) {
            return Ok(Some(zone));
        }
        metrics::counter!(MISSES).increment(1);
        let found = self.inner.source.look_up(&[user]).await?;
        let zone = found.into_iter().find(|(found, _)| *found == user).map(|(_, zone)| zone);
        if let Some(zone) = &zone {
            self.learn(user, zone);
        }
        Ok(zone)
    }

    /// The users' zones, in their order. None: that user is not enrolled. Those that are not known here are asked for together.
    ///
    /// # Errors
    /// As of [`Self::zone_of`]; then nothing is said of any user.
    pub async fn zones_of(&self, users: &[UserId]) -> Result<Vec<Option<ZoneName>>, Fault> {
        let mut zones: Vec<_> = users.iter().map(|user| self.cached(*user)).collect();
        let mut missing: BTreeMap<ShardRef, BTreeSet<UserId>> = BTreeMap::new();
        for (user, _) in users.iter().zip(&zones).filter(|(_, zone)| zone.is_none()) {
            missing.entry(self.inner.topology.directory_shard(*user)).or_default().insert(*user);
        }
        if missing.is_empty() {
            return Ok(zones);
        }
        let mut found: BTreeMap<UserId, ZoneName> = BTreeMap::new();
        for users in missing.into_values() {
            metrics::counter!(MISSES).increment(users.len() as u64);
            let users: Vec<_> = users.into_iter().collect();
            for users in users.chunks(USERS_MAX) {
                found.extend(self.inner.source.look_up(users).await?);
            }
        }
        for (user, zone) in &found {
            self.learn(*user, zone);
        }
        for (user, zone) in users.iter().zip(&mut zones).filter(|(_, zone)| zone.is_none()) {
            *zone = found.get(user).cloned();
        }
        Ok(zones)
    }

    /// Takes note of a user's zone, for example when it has just been claimed here. It must be the one that the directory has.
    pub fn learn(&self, user: UserId, zone: &ZoneName) {
        // A zone that region-config does not have is not worth a place: the call will be refused anyway.
        let index = self.inner.topology.zones().position(|known| known.name == *zone);
        if let Some(index) = index.and_then(|index| u16::try_from(index).ok()).filter(|index| *index < u16::MAX) {
            self.inner.cache.insert(user.get(), index);
        }
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Directory")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tonic::Code;

    use super::*;

    /// Users 1 to 10,000 are of zone eu; the others do not exist.
    #[derive(Default)]
    struct Source {
        questions: AtomicUsize,
        down: bool,
    }

    #[tonic::async_trait]
    impl ZoneSource for Source {
        async fn look_up(&self, users: &[UserId]) -> Result<Vec<(UserId, ZoneName)>, Fault> {
            self.questions.fetch_add(1, Relaxed);
            assert!(users.len() <= USERS_MAX);
            if self.down {
                return Err(Fault::new(Code::Unavailable, "PEER_UNAVAILABLE", "down"));
            }
            Ok(users.iter().filter(|user| user.get() <= 10_000).map(|user| (*user, "eu".parse().expect("a zone"))).collect())
        }
    }

    fn user(number: u64) -> UserId {
        UserId::try_from(number).expect("a user")
    }

    fn directory(source: Source) -> (Directory, Arc<Source>) {
        let topology = crate::mesh::tests::topology(&[1, 2]);
        let source = Arc::new(source);
        (Directory::new(Arc::new(topology), Arc::clone(&source) as Arc<dyn ZoneSource>), source)
    }

    #[tokio::test]
    async fn a_known_user_is_asked_for_once_and_an_unknown_one_each_time() {
        let (directory, source) = directory(Source::default());
        assert_eq!(directory.cached(user(7)), None);
        for _ in 0..3 {
            assert_eq!(directory.zone_of(user(7)).await.expect("found").expect("enrolled").as_str(), "eu");
        }
        assert_eq!(source.questions.load(Relaxed), 1);
        for _ in 0..3 {
            assert_eq!(directory.zone_of(user(10_001)).await, Ok(None));
        }
        assert_eq!(source.questions.load(Relaxed), 4, "an unknown user may be enrolled the next moment");
    }

    #[tokio::test]
    async fn a_batch_is_asked_for_together_and_answered_in_order() {
        let (directory, source) = directory(Source::default());
        directory.learn(user(1), &"eu".parse().expect("a zone"));
        let zones = directory.zones_of(&[user(10_001), user(1), user(2), user(2)]).await.expect("found");
        assert_eq!(zones.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true, true]);
        assert_eq!(source.questions.load(Relaxed), 1);
        let many: Vec<_> = (1..=10_000).map(user).collect();
        assert!(directory.zones_of(&many).await.expect("found").iter().all(Option::is_some));
        assert_eq!(source.questions.load(Relaxed), 3, "9,998 users are two questions");
        assert_eq!(directory.zones_of(&[]).await, Ok(vec![]));
    }

    #[tokio::test]
    async fn a_directory_that_is_down_is_an_error_and_not_an_unknown_user() {
        let (directory, _) = directory(Source { down: true, ..Source::default() });
        assert_eq!(directory.zone_of(user(7)).await.expect_err("down").reason, "PEER_UNAVAILABLE");
        assert!(directory.zones_of(&[user(7)]).await.is_err());
    }
}
