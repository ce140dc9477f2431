//! The shards of other regions that a node follows: opened, tried again where that may help, fed, and watched for its health.

use std::{sync::Arc, time::Duration};

use paymesh_journal::{Holding, sqlite::Engine};
use paymesh_mesh::Mesh;
use paymesh_replication::{Followed, Following, Replicas};
use paymesh_shard::{Error, Replica};
use paymesh_telemetry::{Component, Health};
use paymesh_topology::Topology;
use tokio::task::JoinSet;

use super::shards::identity;

/// The pause before a replica that could not be opened is tried again; each is twice the one before, up to the last.
const RETRY_PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest such pause.
const RETRY_PAUSE_LAST: Duration = Duration::from_secs(30);

/// What it takes to keep replicas.
pub(super) struct Keeper {
    pub(super) topology: Arc<Topology>,
    pub(super) storage: Engine,
    pub(super) mesh: Mesh,
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
                component.starting();
                if let Some(replica) = keeper.opened(&following, &component).await {
                    component.healthy();
                    component.unhealthy(following.run(replica, &keeper.mesh).await);
                }
                std::future::pending().await
            });
        }
        Replicas::new(all)
    }

    /// Opens a replica, however often it takes; `None` when what is wrong with it does not pass.
    async fn opened(&self, following: &Following, component: &Component) -> Option<Replica> {
        let mut pause = RETRY_PAUSE_FIRST;
        loop {
            let error = match self.open(following.followed()).await {
                Ok(replica) => return Some(replica),
                Err(error) => error,
            };
            let may_pass = matches!(&error, Error::Storage { source, .. } if source.is_retryable());
            tracing::error!(shard = %following.followed().shard, %error, tried_again = may_pass, "a replica does not open");
            component.unhealthy(error.to_string());
            following.refuse(error.to_string());
            if !may_pass {
                return None;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_LAST);
        }
    }

    async fn open(&self, followed: &Followed) -> Result<Replica, Error> {
        let identity = identity(&self.topology, &followed.shard, followed.holding.clone());
        let failed = |source| Error::Storage { shard: followed.shard.clone(), source };
        match followed.holding {
            Holding::Whole => {
                let store = self.storage.store(&identity).await.map_err(failed)?;
                Replica::open(&identity, store.journal, Some(store.tables)).await
            }
            // What concerns this zone is taken in by its inboxes; there is nothing to query.
            Holding::For(_) => Replica::open(&identity, self.storage.journal(&identity).await.map_err(failed)?, None).await,
        }
    }
}
