//! The journals' word on what is removed, at a node: of the shards that are led here and of the copies that are kept here.
//!
//! A shard's journal is read once the first card of its users is cached, and as far as the tables are: before that, a list may still find the method in them.

use std::{convert::Infallible, time::Duration};

use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use paymesh_ledger::Body;
use paymesh_shard::{Error, Reader};
use paymesh_types::{Sequence, ShardRef};

use super::details::Details;
use crate::homes::Homes;

/// Between tries where a journal cannot be read.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Follows all shards of the node.
pub(super) async fn all(homes: &Homes, details: &Details) -> Infallible {
    let mut following = FuturesUnordered::new();
    following.extend(homes.shards().iter().map(|(shard, _)| led(homes, details, shard).boxed()));
    following.extend(homes.copies().shards().map(|shard| copied(homes, details, shard).boxed()));
    following.for_each(|()| async {}).await;
    // There is none, or each has ended with its node.
    std::future::pending().await
}

async fn led(homes: &Homes, details: &Details, shard: &ShardRef) {
    let mut next = details.kept_since(shard).await.next();
    if let Some(led) = homes.shards().opened(shard).await {
        follow(details, &Reader::Led(led.clone()), &mut next).await;
    }
}

async fn copied(homes: &Homes, details: &Details, shard: &ShardRef) {
    let mut next = details.kept_since(shard).await.next();
    let Some(mut place) = homes.copies().place(shard) else { return };
    loop {
        let replica = place.borrow_and_update().clone();
        let reading = async {
            match replica {
                Some(replica) => follow(details, &Reader::Copied(replica), &mut next).await,
                None => std::future::pending().await,
            }
        };
        // Another is made in its place, and goes on where this one ended.
        let replaced = async {
            if place.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = reading => {}
            () = replaced => {}
        }
    }
}

/// Reads a journal from `next` on, and lets go of what it says was removed, without end.
async fn follow(details: &Details, reader: &Reader, next: &mut Sequence) {
    loop {
        let run = match reader.tail().next(*next).await {
            Ok(run) => run,
            Err(Error::NotKept { first, .. }) => {
                // What was removed in between is in no table, and what is cached of it ends by its time.
                *next = first;
                continue;
            }
            Err(error) => {
                tracing::warn!(shard = %reader.reference(), %error, "what is cached of cards that are removed ends by its time");
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
        };
        reader.projected(run.last).await;
        for (_, entry) in run.entries.iter() {
            if let Body::MethodRemoved { user, method } = &entry.body {
                details.forget(reader.reference(), *user, method).await;
            }
        }
        *next = run.last.next();
    }
}
