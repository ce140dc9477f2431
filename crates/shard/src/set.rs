//! The shards that a region leads, by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use paymesh_types::ShardRef;
use tokio::{sync::SetOnce, task::JoinSet};

use crate::{Error, Replica, Shard, Source, inbox};

/// Why a shard that this region leads does not serve: it is not open.
#[derive(Debug, Clone, Default)]
pub struct Refusal {
    /// What kind of reason it is.
    pub kind: Unopened,
    /// Why.
    pub why: String,
}

/// What became of opening a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unopened {
    /// It is being opened, or waits to be.
    #[default]
    Opening,
    /// It failed.
    Failed,
    /// A copy in another region has more of the shard's history than its journal here: an operator must act.
    HistoryMissing,
}

/// The shards that a region leads. Cheap to clone; all clones are the same set.
#[derive(Debug, Clone, Default)]
pub struct Shards {
    places: Arc<BTreeMap<ShardRef, Place>>,
}

/// A shard's place in the set: empty until the shard is open.
#[derive(Debug)]
struct Place {
    open: SetOnce<Shard>,
    /// Why it is empty, while it is.
    refusal: Mutex<Refusal>,
}

impl Place {
    fn shard(&self) -> Result<&Shard, Refusal> {
        self.open.get().ok_or_else(|| self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Shards {
    /// The set, with those that are not open and why.
    pub fn new(shards: BTreeMap<ShardRef, Result<Shard, Refusal>>) -> Self {
        let places = shards.into_iter().map(|(name, shard)| {
            let place = match shard {
                Ok(shard) => Place { open: SetOnce::new_with(Some(shard)), refusal: Mutex::default() },
                Err(refusal) => Place { open: SetOnce::new(), refusal: Mutex::new(refusal) },
            };
            (name, place)
        });
        Self { places: Arc::new(places.collect()) }
    }

    /// Puts a shard of the set that was not open before in its place: it serves, and inboxes begin to follow it.
    pub fn admit(&self, shard: Shard) {
        let admitted = self.places.get(shard.reference()).is_some_and(|place| place.open.set(shard).is_ok());
        debug_assert!(admitted, "a shard is admitted once, and to the set that it was left out of");
    }

    /// Says anew why a shard of the set that is not open does not serve.
    pub fn refuse(&self, shard: &ShardRef, refusal: Refusal) {
        if let Some(place) = self.places.get(shard) {
            *place.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        }
    }

    /// The shard, where it serves.
    ///
    /// # Errors
    /// [`Error::NotServing`]: it does not, or is not led here. [`Error::Opening`]. [`Error::HistoryMissing`].
    pub fn get(&self, shard: &ShardRef) -> Result<&Shard, Error> {
        let refused = |why| Error::NotServing { shard: shard.clone(), why };
        let place = self.places.get(shard).ok_or_else(|| refused("this region does not lead it".to_owned()))?;
        place.shard().map_err(|Refusal { kind, why }| match kind {
            Unopened::Opening => Error::Opening { shard: shard.clone(), why },
            Unopened::Failed => refused(why),
            Unopened::HistoryMissing => Error::HistoryMissing { shard: shard.clone(), why },
        })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&ShardRef, Result<&Shard, Refusal>)> {
        self.places.iter().map(|(name, place)| (name, place.shard()))
    }

    /// The shard, once it is open; `None` where this region does not lead it.
    pub async fn opened(&self, shard: &ShardRef) -> Option<&Shard> {
        match self.places.get(shard) {
            Some(place) => Some(place.open.wait().await),
            None => None,
        }
    }

    /// The inbox of a shard of the set, once that is open, for a shard that another region leads. Ends by itself when it cannot go
    /// on, and says why.
    pub async fn follow(&self, replica: Replica, to: &ShardRef) -> String {
        match self.opened(to).await {
            Some(shard) => inbox::follow(Source::Followed(replica.tail().clone()), shard.clone()).await,
            None => "this region does not lead it".to_owned(),
        }
    }

    /// Starts the inboxes between all pairs of the set; those of a shard that is not open wait until it is. They end with the
    /// set of tasks; a task that ends by itself says why.
    pub fn follow_each_other(&self) -> JoinSet<(ShardRef, ShardRef, String)> {
        let mut tasks = JoinSet::new();
        for to in self.places.keys() {
            for from in self.places.keys().filter(|from| *from != to) {
                let (places, from, to) = (self.places.clone(), from.clone(), to.clone());
                tasks.spawn(async move {
                    let source = Source::Led(places[&from].open.wait().await.tail().clone());
                    let shard = places[&to].open.wait().await.clone();
                    let why = inbox::follow(source, shard).await;
                    (from, to, why)
                });
            }
        }
        tasks
    }
}
