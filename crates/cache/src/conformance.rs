//! What every cache must do. Run against each kind, with one that is empty.
//!
//! Whether something stays is no promise of a cache; these put so little into it that nothing has to go.

use std::time::Duration;

use bytes::Bytes;

use crate::Cache;

/// How long something that is to end lives.
const SHORT: Duration = Duration::from_millis(200);
/// And how long it may take until it is gone, where time is kept elsewhere.
const GONE_AFTER: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(3_600);

/// Every promise, one after the other.
///
/// # Panics
/// Where one does not hold.
pub async fn all(cache: &dyn Cache) {
    what_was_put_is_there(cache).await;
    keys_and_values_are_any_bytes(cache).await;
    another_value_takes_the_place(cache).await;
    what_is_invalidated_is_gone(cache).await;
    each_ends_by_its_own_time(cache).await;
}

async fn get(cache: &dyn Cache, key: &[u8]) -> Option<Bytes> {
    cache.get(key).await.expect("the cache can be had")
}

async fn put(cache: &dyn Cache, key: &[u8], value: &'static [u8], time_to_live: Duration) {
    cache.insert(key, Bytes::from_static(value), time_to_live).await.expect("the cache can be had");
}

async fn what_was_put_is_there(cache: &dyn Cache) {
    assert_eq!(get(cache, b"a").await, None, "an empty cache has nothing");
    put(cache, b"a", b"1", LONG).await;
    put(cache, b"b", b"2", LONG).await;
    assert_eq!(get(cache, b"a").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(get(cache, b"b").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(get(cache, b"a").await.as_deref(), Some(&b"1"[..]), "to read is not to take");
}

async fn keys_and_values_are_any_bytes(cache: &dyn Cache) {
    put(cache, b"\0\xff key", b"", LONG).await;
    put(cache, b"\0\xff", b"\0\n\xff", LONG).await;
    assert_eq!(get(cache, b"\0\xff key").await.as_deref(), Some(&b""[..]), "an empty value is not none");
    assert_eq!(get(cache, b"\0\xff").await.as_deref(), Some(&b"\0\n\xff"[..]));
    assert_eq!(get(cache, b"\0").await, None);
}

async fn another_value_takes_the_place(cache: &dyn Cache) {
    put(cache, b"c", b"short", SHORT).await;
    put(cache, b"c", b"long", LONG).await;
    tokio::time::sleep(GONE_AFTER).await;
    assert_eq!(get(cache, b"c").await.as_deref(), Some(&b"long"[..]), "with its own time to live");
    put(cache, b"c", b"short again", SHORT).await;
    tokio::time::sleep(GONE_AFTER).await;
    assert_eq!(get(cache, b"c").await, None);
}

async fn what_is_invalidated_is_gone(cache: &dyn Cache) {
    put(cache, b"d", b"1", LONG).await;
    put(cache, b"e", b"2", LONG).await;
    cache.invalidate(b"d").await.expect("the cache can be had");
    cache.invalidate(b"was never there").await.expect("that is no error");
    assert_eq!(get(cache, b"d").await, None);
    assert_eq!(get(cache, b"e").await.as_deref(), Some(&b"2"[..]));
    put(cache, b"d", b"3", LONG).await;
    assert_eq!(get(cache, b"d").await.as_deref(), Some(&b"3"[..]));
}

async fn each_ends_by_its_own_time(cache: &dyn Cache) {
    put(cache, b"ends", b"1", SHORT).await;
    put(cache, b"stays", b"2", LONG).await;
    assert_eq!(get(cache, b"ends").await.as_deref(), Some(&b"1"[..]));
    tokio::time::sleep(GONE_AFTER).await;
    assert_eq!(get(cache, b"ends").await, None);
    assert_eq!(get(cache, b"stays").await.as_deref(), Some(&b"2"[..]));
}
