//! The cache in this process: the suite, and its bound.

#![forbid(unsafe_code)]

use std::time::Duration;

use bytes::Bytes;
use paymesh_cache::{Cache as _, InProcess, conformance};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn it_keeps_what_every_cache_promises() {
    conformance::all(&InProcess::new(1 << 20)).await;
}

#[tokio::test]
async fn it_does_not_grow_past_its_bytes() {
    let cache = InProcess::new(64 << 10);
    for key in 0..10_000_u32 {
        cache.insert(&key.to_be_bytes(), Bytes::from(vec![7; 100]), HOUR).await.expect("it can be had");
    }
    let bytes = cache.bytes();
    assert!((1..=64 << 10).contains(&bytes), "{bytes}");
    cache.insert(b"heavy", Bytes::from(vec![7; 65 << 10]), HOUR).await.expect("it can be had");
    assert!(cache.bytes() <= 64 << 10);
    assert_eq!(cache.get(b"heavy").await.expect("it can be had"), None, "what is heavier than all of it is not kept");
}
