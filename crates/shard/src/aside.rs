//! Work on many entries, off the threads that everything else runs on.

use paymesh_types::ShardRef;

use crate::Error;

/// So many entries take about half a millisecond: from there on others are not to wait for them.
const ASIDE_ENTRIES: u64 = 256;

/// Does `work` on so many entries of a shard.
///
/// # Errors
/// [`Error::NotServing`]: the work panicked.
pub(crate) async fn aside<T: Send + 'static>(
    shard: &ShardRef,
    entries: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    if entries < ASIDE_ENTRIES {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|died| Error::NotServing { shard: shard.clone(), why: format!("work on {entries} entries died: {died}") })
}
