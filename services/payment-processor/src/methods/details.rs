//! What cards look like: asked for at their vault, and kept in the cache for an hour.
//!
//! The cache decides nothing: what is listed are the books' methods, each under the entry that added it, so that what is cached of one that was removed is of no
//! use to anybody. It is let go of all the same, as the card is its user's.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use paymesh_cache::Cache;
use paymesh_contract::wallet::v1::KeptCard;
use paymesh_ledger::PaymentMethod;
use paymesh_types::{Position, Sequence, ShardRef, UserId};
use prost::Message as _;
use tokio::{sync::SetOnce, time::Instant};

use super::{ASKED_AT_ONCE, PLACES, place};
use crate::{
    cards::vaults::{self, Vaults},
    homes::Homes,
};

/// How long what a card looks like is kept. An expiry that changed at the vault is told so late at most.
const KEPT: Duration = Duration::from_secs(3_600);

/// How long a list waits for the vault.
const VAULT_WAIT_MAX: Duration = Duration::from_secs(1);

/// Cards told, by where that is from.
const TOLD: &str = "paymesh_payment_method_cards_total";

pub(super) fn describe_metrics() {
    metrics::describe_counter!(
        TOLD,
        "Cards of payment methods that were listed, by where it was known from what they look like: cache or vault; gone where the vault had them no \
         more, and missing where it could not be asked"
    );
    for from in ["cache", "vault", "gone", "missing"] {
        metrics::counter!(TOLD, "from" => from).increment(0);
    }
}

/// What is known of how a card looks.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shown {
    /// It.
    Card(KeptCard),
    /// The vault has it no more.
    Gone,
    /// The vault could not be asked in time.
    Unknown,
}

/// The cards' looks.
#[derive(Debug)]
pub(super) struct Details {
    cache: Arc<dyn Cache>,
    vaults: Vaults,
    /// By the places of users: how often something was let go of.
    forgotten: Vec<AtomicU64>,
    /// From where on a shard's entries say what to let go of: set once something is kept of it.
    kept_since: BTreeMap<ShardRef, SetOnce<Sequence>>,
}

/// A list that has begun: it has not read yet what the user keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    user: UserId,
    forgotten: u64,
}

impl Details {
    pub(super) fn new(homes: &Homes, cache: Arc<dyn Cache>, vaults: Vaults) -> Self {
        let shards = homes.shards().iter().map(|(shard, _)| shard).chain(homes.copies().shards());
        let kept_since = shards.map(|shard| (shard.clone(), SetOnce::new())).collect();
        Self { cache, vaults, forgotten: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), kept_since }
    }

    pub(super) fn begin(&self, user: UserId) -> Begun {
        Begun { user, forgotten: self.forgotten[place(user)].load(Ordering::SeqCst) }
    }

    /// What the cards of methods, which the books have at `position`, look like.
    pub(super) async fn of(
        &self,
        begun: Begun,
        position: &Position,
        methods: Vec<PaymentMethod>,
        until: Instant,
    ) -> Vec<(PaymentMethod, Shown)> {
        let until = until.min(Instant::now() + VAULT_WAIT_MAX);
        let told = stream::iter(methods).map(|method| async move {
            let shown = self.one(begun, position, &method, until).await;
            (method, shown)
        });
        told.buffered(ASKED_AT_ONCE).collect().await
    }

    async fn one(&self, begun: Begun, position: &Position, method: &PaymentMethod, until: Instant) -> Shown {
        let told = |from: &'static str| metrics::counter!(TOLD, "from" => from).increment(1);
        let key = key(&position.shard, begun.user, method);
        // What cannot be had or read is asked for.
        if let Ok(Some(cached)) = self.cache.get(&key).await
            && let Ok(card) = KeptCard::decode(cached)
        {
            told("cache");
            return Shown::Card(card);
        }
        match self.vaults.describe(&method.token, begun.user, until).await {
            Ok(described) => {
                told("vault");
                self.keep(begun, position, &key, &described.kept).await;
                Shown::Card(described.kept)
            }
            Err(fault) if fault.reason == vaults::TOKEN_NOT_FOUND => {
                told("gone");
                Shown::Gone
            }
            Err(fault) => {
                told("missing");
                tracing::debug!(%fault, "a card is listed without what it looks like");
                Shown::Unknown
            }
        }
    }

    /// Keeps what a card looks like, unless something of the user's was let go of since the list began: this may be that.
    async fn keep(&self, begun: Begun, position: &Position, key: &[u8], card: &KeptCard) {
        let Some(kept_since) = self.kept_since.get(&position.shard) else { return };
        // Another list may have been first. What this one saw may be removed by an entry that is not looked at, where it saw less.
        let _ = kept_since.set(position.sequence);
        if kept_since.get().is_none_or(|kept_since| position.sequence < *kept_since) {
            return;
        }
        if self.cache.insert(key, card.encode_to_vec().into(), KEPT).await.is_ok()
            && self.forgotten[place(begun.user)].load(Ordering::SeqCst) != begun.forgotten
        {
            self.invalidate(key).await;
        }
    }

    /// A method was removed, and no table that is read from now on has it.
    pub(super) async fn forget(&self, shard: &ShardRef, user: UserId, method: &PaymentMethod) {
        // First, so that a list that keeps it meanwhile sees one of the two.
        self.forgotten[place(user)].fetch_add(1, Ordering::SeqCst);
        self.invalidate(&key(shard, user, method)).await;
    }

    async fn invalidate(&self, key: &[u8]) {
        if let Err(error) = self.cache.invalidate(key).await {
            tracing::warn!(%error, "what is cached of a card that was removed ends by its time");
        }
    }

    /// The entry after which those of a shard say what to let go of, once there is one.
    pub(super) async fn kept_since(&self, shard: &ShardRef) -> Sequence {
        match self.kept_since.get(shard) {
            Some(kept_since) => *kept_since.wait().await,
            None => std::future::pending().await,
        }
    }
}

/// Names a user's method for as long as it is one: added again, it is another. With its token: a home that was put back gives numbers of entries again.
fn key(shard: &ShardRef, user: UserId, method: &PaymentMethod) -> Vec<u8> {
    format!("paymesh/method/1/{shard}/{user}/{}/{}", method.added, method.token).into_bytes()
}
