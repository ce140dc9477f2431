//! Opening: the same act as following. The journal is read and checked, and what the tables lack is projected.

use std::sync::Arc;

use paymesh_journal::{Chain, Committed, Corrupt, Error as JournalError, Hash, Projection, Store};
use paymesh_ledger::State;
use paymesh_types::{Epoch, Sequence, ShardRef, Timestamp};

use crate::Error;

/// Payload bytes read at once.
const READ_BYTES: usize = 4 << 20;

/// A shard as its storage has it.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) head: Sequence,
    pub(crate) hash: Hash,
    pub(crate) epoch: Epoch,
    /// The time of the last entry: the next is not older.
    pub(crate) last_at: Timestamp,
}

/// Takes the next epoch, checks the whole journal, brings the tables up to its end, and loads the books.
///
/// The epoch comes first: from then on no earlier leader can add to what is being read.
pub(crate) async fn recover(shard: &ShardRef, store: &Store) -> Result<Recovered, Error> {
    let failed = |source| Error::Storage { shard: shard.clone(), source };
    let epoch = store.journal.lead().await.map_err(failed)?;
    let mut projected = store.tables.cursor().await.map_err(failed)?;
    let mut chain = Chain::start(shard.clone());
    let mut last_at = Timestamp(0);
    loop {
        let segments =
            store.journal.read(chain.last().next(), READ_BYTES).await.map_err(|error| failed(placed(error, chain.last().next())))?;
        if segments.is_empty() {
            break;
        }
        for segment in &segments {
            chain.link(segment).map_err(|corrupt| failed(corrupt.into()))?;
            last_at = segment.committed_at;
            if segment.last() <= projected {
                continue;
            }
            let entries = segment.entries(shard).map_err(|corrupt| failed(corrupt.into()))?;
            let entries: Vec<Committed> = entries.into_iter().map(|(position, entry)| (position, Arc::new(entry))).collect();
            while projected < segment.last() {
                let rest = entries.iter().filter(|(position, _)| position.sequence > projected);
                match store.tables.project(&Projection::of(rest)).await {
                    Ok(()) => projected = segment.last(),
                    // The leader before may be projecting still. It cannot get past the journal's end, and we will.
                    Err(JournalError::NotNext { head, .. }) if head > projected => projected = head,
                    Err(error) => return Err(failed(error)),
                }
            }
        }
    }
    if projected > chain.last() {
        let what = format!("the tables hold entries up to {projected}, the journal ends at {}", chain.last());
        return Err(failed(Corrupt { shard: shard.clone(), sequence: chain.last().next(), what }.into()));
    }
    let mut state = State::new(shard.clone());
    state.load(&Default::default(), store.tables.books().await.map_err(failed)?);
    Ok(Recovered { state, head: chain.last(), hash: chain.hash(), epoch, last_at })
}

/// An engine that finds its file corrupt cannot say at which entry; the reader knows where it was.
fn placed(error: paymesh_journal::Error, at: Sequence) -> paymesh_journal::Error {
    match error {
        paymesh_journal::Error::Corrupt(corrupt) if corrupt.sequence == Sequence(0) => Corrupt { sequence: at, ..corrupt }.into(),
        other => other,
    }
}
