//! The shards of other regions that a node follows: opened, tried again where that may help, fed, and watched for its health.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use paymesh_journal::{Error as JournalError, Holding, Identity, Journal, sqlite::Engine};
use paymesh_mesh::Mesh;
use paymesh_replication::{Ended, Followed, Following, Remaking, Replicas};
use paymesh_shard::{Clock, Error, Replica, ReplicaOptions};
use paymesh_telemetry::{Component, Health};
use paymesh_topology::{DIRECTORY_ZONE, Topology};
use tokio::task::JoinSet;

use super::shards::{identity, retention};

#[cfg(test)]
mod tests;

/// Replicas that were set aside.
pub(super) const SET_ASIDE: &str = "paymesh_replica_set_aside_total";

/// The pause before what could not be done with a replica is tried again; each is twice the one before, up to the last.
const RETRY_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest such pause.
const RETRY_PAUSE_LAST: Duration = Duration::from_secs(30);

/// The time between tries.
struct Pause(Duration);

impl Pause {
    fn first() -> Self {
        Self(RETRY_PAUSE_FIRST)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(RETRY_PAUSE_LAST);
    }
}

/// What it takes to keep replicas.
pub(super) struct Keeper {
    pub(super) topology: Arc<Topology>,
    pub(super) storage: Engine,
    /// The node's own.
    pub(super) directory: PathBuf,
    pub(super) mesh: Mesh,
    /// Whether shards that this region leads take money from what it follows.
    pub(super) takes_money: bool,
    pub(super) clock: Clock,
}

impl Keeper {
    /// Keeps a replica of each of these shards, by tasks of `tasks`. They are opened by and by: who serves does not wait for
    /// who follows.
    pub(super) fn keep(self, followed: Vec<Followed>, health: &Health, tasks: &mut JoinSet<anyhow::Result<()>>) -> Replicas {
        let keeper = Arc::new(self);
        let all: Vec<Following> = followed.into_iter().map(Following::new).collect();
        for following in &all {
            let (keeper, following) = (keeper.clone(), following.clone());
            let component = health.component(format!("replica {}", following.followed().shard));
            tasks.spawn(async move {
                // Its age is told whatever becomes of it.
                let (_, never) = tokio::join!(keeper.keep_one(&following, &component), following.tell_age());
                match never {}
            });
        }
        Replicas::new(all)
    }

    /// Keeps a replica until that is no longer possible.
    async fn keep_one(&self, following: &Following, component: &Component) {
        component.starting();
        // Also after a restart, and however much its leader has let go of since: time does not make two histories one.
        let verdict = self.verdict(following.followed());
        let found = match fs::read_to_string(&verdict) {
            Ok(why) => Some(why),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // What cannot be read may say that it is closed.
            Err(error) => Some(format!("whether this copy has diverged cannot be read: {error}")),
        };
        if let Some(why) = found {
            let why =
                format!("{}; once the leader has its history again, remove {} and start this node again", why.trim(), verdict.display());
            tracing::error!(shard = %following.followed().shard, %why, "a replica stays closed");
            following.refuse(why.clone());
            return component.unhealthy(why);
        }
        while let Some(replica) = self.opened(following, component).await {
            component.healthy();
            let why = match following.run(replica.clone(), &self.mesh).await {
                // Who has taken money from one history must not go on with another. A copy that nobody takes money from is
                // made anew, and so is one that nobody was given yet: what the next is measured by is kept.
                Ended::Diverged(why) if !self.takes_money_from(following.followed()) || replica.witness().is_some() => why,
                Ended::Outrun(why) => {
                    following.withdraw(Remaking::Bootstrapping(0, 0), String::new());
                    tracing::info!(shard = %following.followed().shard, %why, "a replica is older than what its leader keeps");
                    replica.close().await;
                    match self.bootstrap(following, component).await {
                        Ok(()) => continue,
                        Err(ended) => return self.end(following, component, &ended),
                    }
                }
                ended => return self.end(following, component, &ended),
            };
            component.unhealthy(why.clone());
            following.withdraw(Remaking::SetAside, why);
            replica.close().await;
            if !self.set_aside(following, component).await {
                return;
            }
        }
    }

    /// What a replica has ended of does not pass. That it has another history than its leader is noted for the next start.
    fn end(&self, following: &Following, component: &Component, ended: &Ended) {
        let (Ended::Diverged(why) | Ended::Outrun(why) | Ended::Stopped(why)) = ended;
        component.unhealthy(why.clone());
        let verdict = self.verdict(following.followed());
        if matches!(ended, Ended::Diverged(_))
            && let Err(error) = write_durably(&verdict, why)
        {
            tracing::error!(file = %verdict.display(), %error, "cannot note that a replica has diverged: a restart would not know");
        }
    }

    /// Opens a replica, however often it takes; `None` when what is wrong with it does not pass. One that is damaged is set
    /// aside, and made anew from its leader; where money was taken from it, nobody has the new one before that is shown to have
    /// the same history.
    async fn opened(&self, following: &Following, component: &Component) -> Option<Replica> {
        let mut pause = Pause::first();
        loop {
            let error = match self.open(following).await {
                Ok(replica) => return Some(replica),
                Err(error) => error,
            };
            let shard = &following.followed().shard;
            // What its leader wrote so is what would come again.
            if matches!(&error, Error::Storage { source: JournalError::Corrupt(corrupt), .. } if !corrupt.as_written) {
                tracing::error!(%shard, %error, "a replica is damaged");
                following.withdraw(Remaking::SetAside, error.to_string());
                if !self.set_aside(following, component).await {
                    return None;
                }
                continue;
            }
            let may_pass = matches!(&error, Error::Storage { source, .. } if source.is_retryable());
            tracing::error!(%shard, %error, tried_again = may_pass, "a replica does not open");
            component.unhealthy(error.to_string());
            following.refuse(error.to_string());
            if !may_pass {
                return None;
            }
            pause.wait().await;
        }
    }

    /// Where it is noted that a copy which money was taken from has diverged from its leader.
    fn verdict(&self, followed: &Followed) -> PathBuf {
        self.directory.join(format!("{}-{}.diverged", followed.shard.zone, followed.shard.index))
    }

    /// Whether money was taken from the shard by those that this region leads. The directory has none.
    fn takes_money_from(&self, followed: &Followed) -> bool {
        self.takes_money && followed.shard.zone.as_str() != DIRECTORY_ZONE
    }

    /// Sets a replica that nobody has open aside, however often it takes; says whether another can be made.
    async fn set_aside(&self, following: &Following, component: &Component) -> bool {
        let followed = following.followed();
        let shard = &followed.shard;
        let mut pause = Pause::first();
        loop {
            let error = match self.storage.set_aside(shard, (self.clock)(), self.takes_money_from(followed)).await {
                Ok(()) => break,
                Err(error) => error,
            };
            let may_pass = error.is_retryable();
            tracing::error!(%shard, %error, tried_again = may_pass, "a replica cannot be set aside");
            let why = format!("it cannot be set aside: {error}");
            component.unhealthy(why.clone());
            following.refuse(why);
            if !may_pass {
                return false;
            }
            pause.wait().await;
        }
        tracing::warn!(%shard, leader = %followed.leader, "a replica was set aside, and is made anew from its leader");
        metrics::counter!(SET_ASIDE, "shard" => shard.to_string()).increment(1);
        true
    }

    /// Has a copy that is older than what its leader keeps begin where that does, however often it takes.
    async fn bootstrap(&self, following: &Following, component: &Component) -> Result<(), Ended> {
        component.unhealthy("it begins with a checkpoint");
        let followed = following.followed();
        let identity = self.identity(followed);
        let mut pause = Pause::first();
        loop {
            let opened = match followed.holding {
                Holding::Whole => self.storage.store(&identity).await.map(|store| (store.journal.clone(), Some(store))),
                Holding::For(_) => self.storage.journal(&identity).await.map(|journal| (journal, None)),
            };
            match opened {
                Ok((journal, store)) => {
                    let (checkpoints, taken) = (store.as_ref().map(|store| &store.checkpoints), self.takes_money_from(followed));
                    let begun = following.bootstrap(&journal, checkpoints, &self.mesh, taken).await;
                    if let Some(store) = store {
                        store.tables.close().await;
                        store.checkpoints.close().await;
                    }
                    return begun;
                }
                Err(error) if error.is_retryable() => following.refuse(error.to_string()),
                Err(error) => {
                    following.refuse(error.to_string());
                    return Err(Ended::Stopped(error.to_string()));
                }
            }
            pause.wait().await;
        }
    }

    fn identity(&self, followed: &Followed) -> Identity {
        identity(&self.topology, &followed.shard, followed.holding.clone())
    }

    /// Has the node say what it has of the shard, before the whole of it is read and checked: its leader may wait for that.
    async fn look(&self, following: &Following, journal: &Arc<dyn Journal>) -> Result<(), JournalError> {
        following.note_set_aside(self.storage.set_aside_count(&following.followed().shard).await?);
        following.look_at(&**journal).await
    }

    async fn open(&self, following: &Following) -> Result<Replica, Error> {
        let followed = following.followed();
        let identity = self.identity(followed);
        let failed = |source| Error::Storage { shard: followed.shard.clone(), source };
        let options = ReplicaOptions { outcome_retention: self.topology.outcome_retention(), retention: retention(&self.topology) };
        match followed.holding {
            Holding::Whole => {
                let store = self.storage.store(&identity).await.map_err(failed)?;
                let opened = match self.look(following, &store.journal).await {
                    Ok(()) => Replica::open(&identity, store.journal.clone(), Some(store.clone()), options).await,
                    Err(source) => Err(failed(source)),
                };
                if opened.is_err() {
                    // What is set aside must not be open any more.
                    store.tables.close().await;
                    store.checkpoints.close().await;
                }
                opened
            }
            // What concerns this zone is taken in by its inboxes; there is nothing to query.
            Holding::For(_) => {
                let journal = self.storage.journal(&identity).await.map_err(failed)?;
                self.look(following, &journal).await.map_err(failed)?;
                Replica::open(&identity, journal, None, options).await
            }
        }
    }
}

/// Writes a file that is there after a crash.
fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
