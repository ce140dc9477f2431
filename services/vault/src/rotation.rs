//! Rotation of key-encryption keys, while the vault serves.
//!
//! The next key is made; from then on new keys are wrapped under it; those that are there are wrapped anew, batch by batch; and when none is left under
//! an older key-encryption key, that one is destroyed. Each step can be told from what is there, so that a rotation that was broken off is gone on with
//! where it was, however often. No card is touched.
//!
//! The destruction is what makes old backups of an erased user unreadable, and with them old backups of everybody: a backup is of use as long as
//! the key-encryption key of its time (ADR 0017).

use std::time::{Duration, Instant};

use paymesh_types::{RequestId, Timestamp};

use crate::{
    Error, Vault, keys,
    keys::KekId,
    store::{BegunRotation, Outcome, WrappedKey},
    vault::key_context,
};

/// Keys that are wrapped anew in one transaction: other writes wait for it.
pub const REWRAPPED_AT_ONCE_MAX: u32 = 256;
/// For how many times as long as a batch took the next one waits: other writes have the store for so much of the time.
const PAUSE_TIMES: u32 = 24;
/// But no longer than this: what a batch took was mostly waiting then, and a million keys are to be done within minutes.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// When a rotation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPlan {
    /// Seconds that a key-encryption key is used at most.
    pub every_seconds: u64,
    /// Seconds that an erasure waits at most until older backups cannot be read any more.
    pub after_erasure_seconds: u64,
}

impl Default for RotationPlan {
    /// Every 90 days, and a day after an erasure.
    fn default() -> Self {
        const DAY_SECONDS: u64 = 24 * 3600;
        Self { every_seconds: 90 * DAY_SECONDS, after_erasure_seconds: DAY_SECONDS }
    }
}

/// What a rotation has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The key-encryption key that is used now.
    pub kek: KekId,
    /// How many keys were wrapped anew.
    pub rewrapped: u64,
    /// The key-encryption keys that were destroyed.
    pub destroyed: Vec<KekId>,
}

/// How a rotation that a request asked for stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The key-encryption key that everything is brought under.
    pub kek: KekId,
    /// Whether the request began it; otherwise one was in progress already, and no other was begun.
    pub begun: bool,
    /// How many keys are wrapped under an older one still. None: the rotation is over, and those are destroyed.
    pub left: Option<u64>,
}

impl Vault {
    /// Begins a rotation, if none is in progress, and says how it stands: whoever waits for [`Self::rotation_begun`] is to bring it to its end. The same request again
    /// begins no other.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`]; store or keys cannot be had: there may be a next key all the same, and with it a rotation in progress.
    pub async fn begin_rotation(&self, request: RequestId) -> Result<Standing, Error> {
        let inner = &*self.inner;
        let _beginning = inner.beginning.lock().await;
        if let Some(outcome) = inner.store.outcome(request).await? {
            return self.standing_of(outcome).await;
        }
        let known = inner.keys.ids().await?;
        if let (Some(last), true) = (known.last(), known.len() > 1) {
            return self.standing(*last, false).await;
        }
        let next = inner.keys.make().await?;
        let begun = inner.store.begin_rotation(request, next, (inner.clock)()).await?;
        inner.begun.notify_one();
        match begun {
            BegunRotation::Begun => {
                tracing::info!(zone = %self.zone(), kek = %next, "a rotation of the vault's keys was asked for, and has begun");
                self.standing(next, true).await
            }
            BegunRotation::Replayed(outcome) => self.standing_of(outcome).await,
        }
    }

    /// Waits until [`Self::begin_rotation`] has begun one since the last time.
    pub async fn rotation_begun(&self) {
        self.inner.begun.notified().await;
    }

    async fn standing_of(&self, outcome: Outcome) -> Result<Standing, Error> {
        let Outcome::Rotating { kek } = outcome else { return Err(Error::RequestIdReused { field: "request_id" }) };
        self.standing(kek, true).await
    }

    async fn standing(&self, kek: KekId, begun: bool) -> Result<Standing, Error> {
        // Older ones are destroyed last.
        let is_over = self.inner.keys.ids().await?.into_iter().all(|known| known >= kek);
        let left = if is_over { None } else { Some(self.inner.store.count_not_under(kek).await?) };
        Ok(Standing { kek, begun, left })
    }

    /// Makes the next key-encryption key and brings everything under it. Where a rotation was broken off, it is gone on with instead.
    ///
    /// # Errors
    /// Store or keys cannot be had. What was done stays done, and the next call goes on there.
    pub async fn rotate(&self) -> Result<Rotated, Error> {
        let _rotating = self.inner.rotating.lock().await;
        if let Some(rotated) = self.resume().await? {
            return Ok(rotated);
        }
        let next = self.next_kek().await?;
        self.bring_under(next).await
    }

    /// Makes the next key-encryption key, where nobody else just has.
    async fn next_kek(&self) -> Result<KekId, Error> {
        let _beginning = self.inner.beginning.lock().await;
        let known = self.inner.keys.ids().await?;
        match known.last() {
            Some(last) if known.len() > 1 => Ok(*last),
            _ => Ok(self.inner.keys.make().await?),
        }
    }

    /// Goes on with a rotation that was broken off, if one was. To be called after [`Vault::open`].
    ///
    /// # Errors
    /// As [`Self::rotate`].
    pub async fn resume_rotation(&self) -> Result<Option<Rotated>, Error> {
        let _rotating = self.inner.rotating.lock().await;
        self.resume().await
    }

    async fn resume(&self) -> Result<Option<Rotated>, Error> {
        let known = self.inner.keys.ids().await?;
        // The first thing that a rotation does, and what it ends with.
        let (Some(last), true) = (known.last(), known.len() > 1) else { return Ok(None) };
        self.bring_under(*last).await.map(Some)
    }

    /// Does what is due: a rotation that was broken off, or that age or an erasure calls for; and removes sealing keys that have ended.
    ///
    /// # Errors
    /// As [`Self::rotate`].
    pub async fn tend(&self, plan: RotationPlan) -> Result<Option<Rotated>, Error> {
        self.remove_ended_sealing_keys().await?;
        if let Some(rotated) = self.resume_rotation().await? {
            return Ok(Some(rotated));
        }
        let (now, state) = ((self.inner.clock)(), self.inner.store.state().await?);
        let is_over = |since: Option<Timestamp>, seconds: u64| since.is_some_and(|since| now >= since.plus_seconds(seconds));
        if is_over(state.kek.map(|(_, since)| since), plan.every_seconds) || is_over(state.erased_at, plan.after_erasure_seconds) {
            return self.rotate().await.map(Some);
        }
        Ok(None)
    }

    async fn bring_under(&self, kek: KekId) -> Result<Rotated, Error> {
        let store = &self.inner.store;
        // Before anything is looked for: from here on nothing is added under an older one.
        store.use_kek(kek, (self.inner.clock)()).await?;
        let mut rewrapped = 0;
        loop {
            let began = Instant::now();
            let batch = store.not_under(kek, REWRAPPED_AT_ONCE_MAX).await?;
            if batch.is_empty() {
                break;
            }
            let mut anew = Vec::with_capacity(batch.len());
            for key in batch {
                anew.push(self.wrapped_anew(key, kek).await?);
            }
            store.rewrap(&anew).await?;
            rewrapped += anew.len() as u64;
            // Cards are taken in meanwhile, by the same connection.
            tokio::time::sleep((began.elapsed() * PAUSE_TIMES).min(PAUSE_MAX)).await;
        }
        // Durable by now.
        let mut destroyed = Vec::new();
        for older in self.inner.keys.ids().await?.into_iter().filter(|known| *known < kek) {
            self.inner.keys.destroy(older).await?;
            destroyed.push(older);
        }
        tracing::info!(zone = %self.zone(), %kek, rewrapped, destroyed = destroyed.len(), "the vault's keys are under the next key-encryption key");
        Ok(Rotated { kek, rewrapped, destroyed })
    }

    /// It is to replace the only copy that opens, so it is looked at whether it opens too.
    async fn wrapped_anew(&self, key: WrappedKey, kek: KekId) -> Result<(WrappedKey, KekId), keys::Error> {
        let secret = self.unwrap(&key).await?;
        let before = key.kek;
        let mut anew = WrappedKey { kek, ..key };
        anew.wrapped = self.inner.keys.wrap(kek, &key_context(self.zone(), &anew), &secret).await?;
        if self.unwrap(&anew).await?.expose() != secret.expose() {
            return Err(keys::Error::NotWrapped { kek });
        }
        Ok((anew, before))
    }
}
