//! What a shard does by the clock: holds run out, request ids are forgotten.

use std::{sync::atomic::Ordering, time::Duration};

use paymesh_ledger::{Command, Request};
use paymesh_types::Timestamp;

use crate::{Shard, base::Base, counts};

/// How often holds are looked at: an expired one is released at most about this much late.
const EXPIRE_EVERY: Duration = Duration::from_millis(500);
const EXPIRED_MAX: u32 = 1_000;
/// How often request ids are purged, in turns of the above.
const PURGE_EVERY_TURNS: u64 = 120;
pub(crate) const PURGED_MAX: u32 = 50_000;

/// Runs until the shard is gone, and says why.
pub(crate) async fn run(shard: &Shard) -> String {
    let mut turns = tokio::time::interval(EXPIRE_EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turn: u64 = 0;
    loop {
        turns.tick().await;
        metrics::gauge!(counts::QUEUE_LENGTH, "shard" => shard.reference().to_string()).set(shard.status().queued as f64);
        // Storage that fails here fails the leader as well, which says so; the next turn tries again.
        if let Err(error) = expire(shard).await {
            tracing::debug!(shard = %shard.reference(), %error, "cannot release expired holds yet");
        }
        turn += 1;
        if turn.is_multiple_of(PURGE_EVERY_TURNS)
            && let Err(error) = purge(shard).await
        {
            tracing::warn!(shard = %shard.reference(), %error, "cannot purge request ids yet");
        }
    }
}

async fn expire(shard: &Shard) -> Result<(), crate::Error> {
    let now = (shard.inner.clock)();
    let failed = |source| crate::Error::Storage { shard: shard.reference().clone(), source };
    let due = shard.inner.base.store.tables.expired(now, EXPIRED_MAX).await.map_err(failed)?;
    let requests = due.into_iter().map(|payment| Request { id: None, command: Command::ExpirePayment { payment } }).collect();
    // Captured or voided meanwhile: then the ledger says no, and that is that.
    shard.submit_internal(requests).await.map(drop)
}

async fn purge(shard: &Shard) -> Result<(), crate::Error> {
    // By the shard's own time: a clock that leaps ahead while nothing happens forgets nothing.
    let now = (shard.inner.clock)().min(Timestamp(shard.inner.last_at.load(Ordering::Relaxed)));
    purge_tables(&shard.inner.base, now, shard.inner.options.outcome_retention).await
}

/// Forgets request ids that are older than was promised, as of `now`.
async fn purge_tables(base: &Base, now: Timestamp, retention: Duration) -> Result<(), crate::Error> {
    match base.checks.try_write() {
        Ok(_alone) => forget_requests(base, now, retention).await,
        Err(_) => Ok(()),
    }
}

/// The same, for who has seen to it that nobody compares the tables.
pub(crate) async fn forget_requests(base: &Base, now: Timestamp, retention: Duration) -> Result<(), crate::Error> {
    let retention = u64::try_from(retention.as_micros()).unwrap_or(u64::MAX);
    let before = Timestamp(now.0.saturating_sub(retention));
    let failed = |source| crate::Error::Storage { shard: base.shard.clone(), source };
    while base.store.tables.purge_requests(before, PURGED_MAX).await.map_err(failed)? >= u64::from(PURGED_MAX) {}
    Ok(())
}

/// What a replica's tables need by the clock: `now` is the time of its last entry. Runs until it is dropped.
pub(crate) async fn run_replica(base: &Base, retention: Duration, now: impl Fn() -> Timestamp) -> String {
    let mut turns = tokio::time::interval(EXPIRE_EVERY * u32::try_from(PURGE_EVERY_TURNS).unwrap_or(u32::MAX));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if let Err(error) = purge_tables(base, now(), retention).await {
            tracing::warn!(shard = %base.shard, %error, "cannot purge a replica's request ids yet");
        }
    }
}
