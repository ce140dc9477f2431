//! The shards that a node leads: opened at the start, tried again where that may help, and watched for the node's health.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use paymesh_journal::{Holding, Identity, sqlite::Engine};
use paymesh_shard::{Clock, Error, Options, Refusal, Retention, Shard, Shards};
use paymesh_telemetry::{Component, Health};
use paymesh_topology::{DIRECTORY_SHARDS, DIRECTORY_ZONE, JournalRetention, Topology};
use paymesh_types::ShardRef;
use tokio::task::JoinSet;

/// The pause before a shard that could not be opened is tried again; each is twice the one before, up to the last.
const RETRY_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest such pause.
const RETRY_PAUSE_LAST: Duration = Duration::from_secs(30);

/// What it takes to open a shard.
pub(super) struct Opener {
    pub(super) topology: Arc<Topology>,
    pub(super) storage: Engine,
    /// Of each shard.
    pub(super) options: Options,
    pub(super) clock: Clock,
}

impl Opener {
    /// Opens these shards, all at once. One that cannot be opened is refused, and the others serve; where what it failed of
    /// may pass, it is tried again by a task of `tasks`. So is watched what becomes of each.
    pub(super) async fn open_all(
        self: Arc<Self>,
        names: Vec<ShardRef>,
        health: &Health,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> Shards {
        let opening = names.into_iter().map(|name| {
            let component = health.component(format!("shard {name}"));
            let opener = &self;
            async move {
                component.starting();
                (opener.open(&name, &component).await, name, component)
            }
        });
        let (mut shards, mut watches) = (BTreeMap::new(), Vec::new());
        for (opened, name, component) in join_all(opening).await {
            let again = opened.as_ref().is_err_and(Failed::may_pass);
            shards.insert(name.clone(), opened.map_err(Refusal::from));
            watches.push((name, component, again));
        }
        let shards = Shards::new(shards);
        for (name, component, again) in watches {
            let (opener, shards) = (self.clone(), shards.clone());
            tasks.spawn(async move {
                if again {
                    opener.try_again(&shards, &name, &component).await;
                }
                if let Ok(shard) = shards.get(&name) {
                    watch(shard, &component).await;
                }
                // A handle that is dropped reads as a death, so it is kept.
                std::future::pending().await
            });
        }
        shards
    }

    /// Tries to open a shard until it is open, or what is wrong with it does not pass.
    async fn try_again(&self, shards: &Shards, name: &ShardRef, component: &Component) {
        let mut pause = RETRY_PAUSE_FIRST;
        loop {
            tokio::time::sleep(pause).await;
            match self.open(name, component).await {
                Ok(shard) => return shards.admit(shard),
                Err(failed) => {
                    let again = failed.may_pass();
                    shards.refuse(name, failed.into());
                    if !again {
                        return;
                    }
                }
            }
            pause = (pause * 2).min(RETRY_PAUSE_LAST);
        }
    }

    /// Opens a shard, and says in the log and in its component of the node's health what came of it.
    async fn open(&self, name: &ShardRef, component: &Component) -> Result<Shard, Failed> {
        let opened = self.try_open(name).await.map_err(Failed);
        match &opened {
            Ok(shard) => {
                tracing::info!(shard = %name, head = %shard.status().head, epoch = %shard.epoch(), "shard serves");
                component.healthy();
            }
            Err(failed) => {
                tracing::error!(shard = %name, error = %failed.0, tried_again = failed.may_pass(), "shard refuses to serve");
                component.unhealthy(failed.why());
            }
        }
        opened
    }

    async fn try_open(&self, name: &ShardRef) -> Result<Shard, Error> {
        let identity = identity(&self.topology, name, Holding::Whole);
        let failed = |source| Error::Storage { shard: name.clone(), source };
        let store = self.storage.store(&identity).await.map_err(failed)?;
        Shard::open(&identity, store, self.options.clone(), self.clock.clone()).await
    }
}

/// Whose storage a shard's is.
pub(super) fn identity(topology: &Topology, name: &ShardRef, holding: Holding) -> Identity {
    let shards = match topology.zone(&name.zone) {
        Some(zone) => zone.shards,
        None => {
            debug_assert_eq!(name.zone.as_str(), DIRECTORY_ZONE);
            DIRECTORY_SHARDS
        }
    };
    Identity { mesh: topology.mesh().to_string(), shard: name.clone(), shards, holding }
}

/// How much of a journal is kept.
pub(super) fn retention(topology: &Topology) -> Retention {
    let JournalRetention { time, bytes } = topology.journal_retention();
    Retention { time, bytes }
}

/// Keeps the health of an open shard's component true until the shard stops.
async fn watch(shard: &Shard, component: &Component) {
    let mut degraded = shard.degraded();
    loop {
        match &*degraded.borrow_and_update() {
            Some(why) => component.unhealthy(why.as_str()),
            None => component.healthy(),
        }
        tokio::select! {
            // The shard holds the sender, so this cannot fail.
            _ = degraded.changed() => {}
            why = shard.stopped() => return component.unhealthy(why),
        }
    }
}

/// Why a shard could not be opened.
struct Failed(Error);

impl Failed {
    /// Whether trying again may help. What is corrupt, another's or led by another stays so.
    fn may_pass(&self) -> bool {
        matches!(&self.0, Error::Storage { source, .. } if source.is_retryable())
    }

    fn why(&self) -> String {
        let again = if self.may_pass() { "; it is tried again" } else { "" };
        format!("{}{again}", self.0)
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        Self { why: failed.why() }
    }
}
