//! What every key provider must do, as a suite that runs against any of them.
//!
//! A provider takes part by saying how an empty one is made and found again by another process ([`Providers`]). Each check panics with what did
//! not hold.

use std::{collections::BTreeSet, future::Future};

use crate::{
    crypto,
    keys::{Error, KekId, KeyProvider},
};

/// A kind of provider under test.
pub trait Providers: Sync {
    /// Where one provider's keys are.
    type Place: Send + Sync;

    /// An empty place.
    fn place(&self) -> impl Future<Output = Self::Place> + Send;

    /// Opens what is there, as another process would after the last one ended without a word.
    fn open(&self, place: &Self::Place) -> impl Future<Output = Box<dyn KeyProvider>> + Send;
}

/// Runs the checks of [`KeyProvider`].
///
/// # Panics
/// When the provider does not do as the port says.
pub async fn provider<P: Providers>(providers: &P) {
    keys_have_numbers_that_grow(providers).await;
    what_was_wrapped_is_unwrapped_under_the_same_key_and_context_only(providers).await;
    keys_are_the_same_when_they_are_opened_again(providers).await;
    what_is_destroyed_unwraps_nothing_any_more(providers).await;
    the_current_key_is_not_destroyed(providers).await;
    no_two_nonces_are_the_same(providers).await;
}

async fn keys_have_numbers_that_grow<P: Providers>(providers: &P) {
    let place = providers.place().await;
    let keys = providers.open(&place).await;
    assert_eq!(keys.ids().await.expect("it answers"), []);
    let (first, second) = (keys.make().await.expect("a key"), keys.make().await.expect("a key"));
    assert!(first < second, "{first} {second}");
    assert_eq!(keys.ids().await.expect("it answers"), [first, second]);
    keys.destroy(first).await.expect("it is not the current one");
    let third = keys.make().await.expect("a key");
    assert!(third > second, "{third} after {second}");
}

async fn what_was_wrapped_is_unwrapped_under_the_same_key_and_context_only<P: Providers>(providers: &P) {
    let place = providers.place().await;
    let keys = providers.open(&place).await;
    let (one, other) = (keys.make().await.expect("a key"), keys.make().await.expect("a key"));
    let secret = crypto::random_secret();
    let wrapped = keys.wrap(one, b"context", &secret).await.expect("wrapped");
    assert_eq!(keys.unwrap(one, b"context", &wrapped).await.expect("unwrapped").expose(), secret.expose());
    assert!(!wrapped.windows(secret.expose().len()).any(|part| part == secret.expose()), "the key can be seen in what wraps it");
    assert!(!format!("{keys:?} {secret:?}").contains(&format!("{:?}", secret.expose())));
    for wrong in [
        keys.unwrap(other, b"context", &wrapped).await,
        keys.unwrap(one, b"another", &wrapped).await,
        keys.unwrap(one, b"", &wrapped).await,
        keys.unwrap(one, b"context", &wrapped[1..]).await,
        keys.unwrap(one, b"context", &[]).await,
    ] {
        assert!(matches!(wrong, Err(Error::NotWrapped { .. })), "{wrong:?}");
    }
    for place in 0..wrapped.len() {
        let mut changed = wrapped.clone();
        changed[place] ^= 1;
        let unwrapped = keys.unwrap(one, b"context", &changed).await;
        assert!(matches!(unwrapped, Err(Error::NotWrapped { .. })), "byte {place} was changed: {unwrapped:?}");
    }
    let wrapped: BTreeSet<_> = [wrapped, keys.wrap(one, b"context", &secret).await.expect("wrapped")].into();
    assert_eq!(wrapped.len(), 2, "the same key is wrapped in the same bytes");
}

async fn keys_are_the_same_when_they_are_opened_again<P: Providers>(providers: &P) {
    let place = providers.place().await;
    let keys = providers.open(&place).await;
    let (_, kek) = (keys.make().await.expect("a key"), keys.make().await.expect("a key"));
    let secret = crypto::random_secret();
    let wrapped = keys.wrap(kek, b"context", &secret).await.expect("wrapped");
    let ids = keys.ids().await.expect("it answers");
    drop(keys);
    let keys = providers.open(&place).await;
    assert_eq!(keys.ids().await.expect("it answers"), ids);
    assert_eq!(keys.unwrap(kek, b"context", &wrapped).await.expect("unwrapped").expose(), secret.expose());
}

async fn what_is_destroyed_unwraps_nothing_any_more<P: Providers>(providers: &P) {
    let place = providers.place().await;
    let keys = providers.open(&place).await;
    let first = keys.make().await.expect("a key");
    let wrapped = keys.wrap(first, b"context", &crypto::random_secret()).await.expect("wrapped");
    let second = keys.make().await.expect("a key");
    keys.destroy(first).await.expect("destroyed");
    keys.destroy(first).await.expect("it stays destroyed");
    for opened in [keys, providers.open(&place).await] {
        assert_eq!(opened.ids().await.expect("it answers"), [second]);
        assert!(matches!(opened.unwrap(first, b"context", &wrapped).await, Err(Error::Missing { kek }) if kek == first));
        let wrapping = opened.wrap(first, b"context", &crypto::random_secret()).await;
        assert!(matches!(wrapping, Err(Error::Missing { kek }) if kek == first), "{wrapping:?}");
    }
}

/// Keys are wrapped by AES-GCM with random nonces, which stand first: two that are the same give both keys away.
async fn no_two_nonces_are_the_same<P: Providers>(providers: &P) {
    const WRAPS: usize = 4096;
    const NONCE_BYTES: usize = 12;
    let place = providers.place().await;
    let keys = providers.open(&place).await;
    let kek = keys.make().await.expect("a key");
    let secret = crypto::random_secret();
    let mut nonces = BTreeSet::new();
    // Of each byte, the values that it has had: 4096 random ones are nearly all of 256.
    let mut values = vec![BTreeSet::new(); NONCE_BYTES];
    for _ in 0..WRAPS {
        let wrapped = keys.wrap(kek, b"context", &secret).await.expect("wrapped");
        let nonce = wrapped[..NONCE_BYTES].to_vec();
        for (values, byte) in values.iter_mut().zip(&nonce) {
            values.insert(*byte);
        }
        assert!(nonces.insert(nonce), "a nonce was used twice");
    }
    for (place, values) in values.iter().enumerate() {
        assert!(values.len() > 200, "byte {place} of nonces has {} values only", values.len());
    }
}

async fn the_current_key_is_not_destroyed<P: Providers>(providers: &P) {
    let place = providers.place().await;
    let keys = providers.open(&place).await;
    let kek = keys.make().await.expect("a key");
    assert!(matches!(keys.destroy(kek).await, Err(Error::Current { kek: told }) if told == kek));
    assert_eq!(keys.ids().await.expect("it answers"), [kek]);
    // One that never was is as one that was destroyed.
    keys.destroy(KekId::new(4_000_000).expect("more than 0")).await.expect("it is not there");
}
