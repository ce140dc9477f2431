//! Opening: the same act as following. The journal is read and checked, and what the tables lack is projected.

use std::sync::Arc;

use paymesh_journal::{Chain, Committed, Corrupt, Error as JournalError, Hash, Holding, Journal, Projection, Segment, Store, Tables};
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
    let epoch = store.journal.lead().await.map_err(|source| Error::Storage { shard: shard.clone(), source })?;
    let (chain, last_at) = catch_up(shard, &Holding::Whole, &store.journal, Some(&store.tables)).await?;
    let mut state = State::new(shard.clone());
    let books = store.tables.books().await.map_err(|source| Error::Storage { shard: shard.clone(), source })?;
    state.load(&Default::default(), books);
    Ok(Recovered { state, head: chain.last(), hash: chain.hash(), epoch, last_at })
}

/// Checks the whole journal and brings the tables, where there are any, up to its end. Says where it ends, and when its last
/// entry was committed.
pub(crate) async fn catch_up(
    shard: &ShardRef,
    holding: &Holding,
    journal: &Arc<dyn Journal>,
    tables: Option<&Arc<dyn Tables>>,
) -> Result<(Chain, Timestamp), Error> {
    let failed = |source| Error::Storage { shard: shard.clone(), source };
    let mut projected = match tables {
        Some(tables) => tables.cursor().await.map_err(failed)?,
        None => Sequence(0),
    };
    let mut chain = Chain::start(shard.clone());
    let mut last_at = Timestamp(0);
    loop {
        let segments = journal.read(chain.last().next(), READ_BYTES).await.map_err(|error| failed(placed(error, chain.last().next())))?;
        if segments.is_empty() {
            break;
        }
        for segment in &segments {
            chain.link(segment).map_err(|corrupt| failed(corrupt.into()))?;
            last_at = segment.committed_at;
            if let Some(tables) = tables.filter(|_| segment.last() > projected) {
                projected = project(shard, holding, segment, projected, tables).await?;
            }
        }
    }
    if projected > chain.last() {
        let what = format!("the tables hold entries up to {projected}, the journal ends at {}", chain.last());
        return Err(failed(Corrupt { shard: shard.clone(), sequence: chain.last().next(), what }.into()));
    }
    Ok((chain, last_at))
}

/// Projects what the tables lack of a segment, and says how far they are then.
async fn project(
    shard: &ShardRef,
    holding: &Holding,
    segment: &Segment,
    mut projected: Sequence,
    tables: &Arc<dyn Tables>,
) -> Result<Sequence, Error> {
    let failed = |source| Error::Storage { shard: shard.clone(), source };
    let entries = holding.entries(segment, shard).map_err(|corrupt| failed(corrupt.into()))?;
    let entries: Vec<Committed> = entries.into_iter().map(|(position, entry)| (position, Arc::new(entry))).collect();
    while projected < segment.last() {
        let rest = entries.iter().filter(|(position, _)| position.sequence > projected);
        match tables.project(&Projection::of(rest)).await {
            Ok(()) => projected = segment.last(),
            // The leader before may be projecting still. It cannot get past the journal's end, and we will.
            Err(JournalError::NotNext { head, .. }) if head > projected => projected = head,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(projected)
}

/// An engine that finds its file corrupt cannot say at which entry; the reader knows where it was.
fn placed(error: paymesh_journal::Error, at: Sequence) -> paymesh_journal::Error {
    match error {
        paymesh_journal::Error::Corrupt(corrupt) if corrupt.sequence == Sequence(0) => Corrupt { sequence: at, ..corrupt }.into(),
        other => other,
    }
}
