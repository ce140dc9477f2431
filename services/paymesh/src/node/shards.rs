//! The shards that a node leads: opened once that is safe, tried again where that may help, and watched for the node's health.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use paymesh_journal::{Holding, Identity, sqlite::Engine};
use paymesh_replication::{Heard, census};
use paymesh_shard::{Clock, Error, Options, Refusal, Retention, Shard, Shards, Unopened};
use paymesh_telemetry::{Component, Health};
use paymesh_topology::{DIRECTORY_SHARDS, DIRECTORY_ZONE, JournalRetention, Topology};
use paymesh_types::ShardRef;
use tokio::{sync::oneshot, task::JoinSet};

/// The pause before a shard that could not be opened is tried again; each is twice the one before, up to the last.
const RETRY_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest such pause.
const RETRY_PAUSE_LAST: Duration = Duration::from_secs(30);

/// What an operator can do where a journal lacks what a copy has.
const WHEN_MISSING: &str = "this node has lost entries that were acknowledged. Put its data directory back as it was last and start it again, or have a \
     region with a whole copy lead the shard; --trust-own-journals goes on without what is missing";
/// And where that is not known.
const WHEN_UNKNOWN: &str = "it is led once they have said; --trust-own-journals does not wait for it";

/// What it takes to open a shard.
pub(super) struct Opener {
    pub(super) topology: Arc<Topology>,
    pub(super) storage: Engine,
    /// Of each shard.
    pub(super) options: Options,
    pub(super) clock: Clock,
    /// What those who follow have said; `None` where they are not asked.
    pub(super) heard: Option<Heard>,
}

/// A shard that is being opened.
struct Opening {
    name: ShardRef,
    component: Component,
    shards: Shards,
    /// Told once it serves, or it is known that it does not, or will not soon.
    settled: Option<oneshot::Sender<()>>,
}

impl Opener {
    /// Opens these shards, each by a task of `tasks`, which then watches what becomes of it. One that cannot be opened is refused, and
    /// the others serve; where what it failed of may pass, it is tried again. What is given back ends once each serves, or it is
    /// known that it does not, or will not soon.
    pub(super) fn open_all(
        self: Arc<Self>,
        names: Vec<ShardRef>,
        health: &Health,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> (Shards, impl Future<Output = ()> + use<>) {
        let refusal = || Refusal { kind: Unopened::Opening, why: "it is being opened".to_owned() };
        let shards = Shards::new(names.iter().map(|name| (name.clone(), Err(refusal()))).collect::<BTreeMap<_, _>>());
        let settled: Vec<_> = names
            .into_iter()
            .map(|name| {
                let component = health.component(format!("shard {name}"));
                let (settle, settled) = oneshot::channel();
                let opening = Opening { name, component, shards: shards.clone(), settled: Some(settle) };
                let opener = self.clone();
                tasks.spawn(async move {
                    // A handle of the node's health that is dropped reads as a death, so it is kept.
                    let _kept = opener.lead(opening).await;
                    std::future::pending().await
                });
                settled
            })
            .collect();
        (shards, async move {
            // One that is dropped belongs to a task that died, which ends the node.
            let _ = join_all(settled).await;
        })
    }

    /// Opens a shard, however often that takes, and watches it until it stops.
    async fn lead(self: Arc<Self>, mut opening: Opening) -> Opening {
        let mut pause = RETRY_PAUSE_FIRST;
        loop {
            match self.open(&mut opening).await {
                Ok(shard) => {
                    let (head, epoch) = (shard.status().head, shard.epoch());
                    opening.shards.admit(shard);
                    tracing::info!(shard = %opening.name, %head, %epoch, "shard serves");
                    opening.component.healthy();
                    opening.settle();
                    break;
                }
                Err(failed) => {
                    let again = failed.may_pass();
                    let Refusal { kind, why } = failed.refusal();
                    tracing::error!(shard = %opening.name, error = %why, tried_again = again, "shard refuses to serve");
                    opening.unopened(kind, why, true);
                    if !again {
                        return opening;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_LAST);
        }
        // What it was opened with is of no use any more: those who follow need not be asked on.
        drop(self);
        if let Ok(shard) = opening.shards.get(&opening.name) {
            watch(shard, &opening.component).await;
        }
        opening
    }

    async fn open(&self, opening: &mut Opening) -> Result<Shard, Failed> {
        let name = opening.name.clone();
        let identity = identity(&self.topology, &name, Holding::Whole);
        let failed = |source| Failed::Shard(Error::Storage { shard: name.clone(), source });
        let store = self.storage.store(&identity).await.map_err(failed)?;
        if let Some(heard) = &self.heard {
            // Its component is starting for as long as it may be over soon.
            let waits = |whom: &str, long: bool| opening.unopened(Unopened::Opening, format!("{whom}; {WHEN_UNKNOWN}"), long);
            heard.clone().may_lead(&name, &*store.journal, waits).await.map_err(|error| match error {
                census::Error::Storage(source) => failed(source),
                census::Error::HistoryMissing(why) => Failed::HistoryMissing(format!("{why}: {WHEN_MISSING}")),
            })?;
        }
        Shard::open(&identity, store, self.options.clone(), self.clock.clone()).await.map_err(Failed::Shard)
    }
}

impl Opening {
    /// Says why it is not open, to callers and, where that does not pass at once, in the node's health.
    fn unopened(&mut self, kind: Unopened, why: String, long: bool) {
        if long {
            self.component.unhealthy(why.clone());
        }
        self.shards.refuse(&self.name, Refusal { kind, why });
        if long {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if let Some(settled) = self.settled.take() {
            // The node may be leaving.
            let _ = settled.send(());
        }
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
enum Failed {
    Shard(Error),
    /// A copy has what its journal lacks.
    HistoryMissing(String),
}

impl Failed {
    /// Whether trying again may help. What is corrupt, another's, led by another or missing stays so.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Shard(Error::Storage { source, .. }) if source.is_retryable())
    }

    fn refusal(self) -> Refusal {
        let again = if self.may_pass() { "; it is tried again" } else { "" };
        match self {
            Self::Shard(error) => Refusal { kind: Unopened::Failed, why: format!("{error}{again}") },
            Self::HistoryMissing(why) => Refusal { kind: Unopened::HistoryMissing, why },
        }
    }
}
