//! Opening: the same act as following. The journal is read and checked, and what the tables lack is projected.

use std::sync::Arc;

use paymesh_journal::{
    Chain, Checkpoints, Committed, Corrupt, Error as JournalError, Hash, Holding, Journal, Manifest, Origin, Projection, Segment, Store,
    Tables, checkpoint,
};
use paymesh_ledger::State;
use paymesh_types::{Epoch, Sequence, ShardRef, Timestamp};

use crate::{Error, timers::PURGED_MAX};

/// Payload bytes read at once.
const READ_BYTES: usize = 4 << 20;
/// Entries from which on what the tables lack is projected before more is read: the more at once, the less is written.
const PROJECTED_ENTRIES: usize = 16_384;

/// A shard as its storage has it.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) head: Sequence,
    pub(crate) hash: Hash,
    pub(crate) epoch: Epoch,
    /// The time of the last entry: the next is not older.
    pub(crate) last_at: Timestamp,
    /// Payload bytes of its journal.
    pub(crate) bytes: u64,
    /// The entry that its journal begins after.
    pub(crate) kept_after: Sequence,
}

/// A journal that was read to its end.
pub(crate) struct Read {
    pub(crate) chain: Chain,
    /// When its last entry was committed.
    pub(crate) last_at: Timestamp,
    /// Payload bytes of its segments.
    pub(crate) bytes: u64,
    /// The entry that it begins after.
    pub(crate) kept_after: Sequence,
    /// How far the tables are, where there are any.
    pub(crate) projected: Sequence,
    /// The checkpoint that stands for what it does not keep.
    pub(crate) checkpoint: Option<Manifest>,
}

/// The tables of a shard, and what they are made of where the journal does not reach back far enough.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub(crate) tables: Arc<dyn Tables>,
    pub(crate) checkpoints: Arc<dyn Checkpoints>,
}

/// Takes the next epoch, checks the whole journal, brings the tables up to its end, and loads the books.
///
/// The epoch comes first: from then on no earlier leader can add to what is being read.
pub(crate) async fn recover(shard: &ShardRef, store: &Store) -> Result<Recovered, Error> {
    let epoch = store.journal.lead().await.map_err(|source| Error::Storage { shard: shard.clone(), source })?;
    let rows = Rows { tables: store.tables.clone(), checkpoints: store.checkpoints.clone() };
    let Read { chain, last_at, bytes, kept_after, projected, checkpoint } =
        catch_up(shard, &Holding::Whole, &store.journal, Some(&rows)).await?;
    // Whoever follows another may have begun with a later checkpoint. Whoever leads has lost the end of the journal.
    let ahead = projected.max(checkpoint.map_or(Sequence(0), |manifest| manifest.sequence));
    if ahead > chain.last() {
        return Err(Error::Storage { shard: shard.clone(), source: lost(shard, ahead, chain.last()).into() });
    }
    let mut state = State::new(shard.clone());
    let books = store.tables.books().await.map_err(|source| Error::Storage { shard: shard.clone(), source })?;
    state.load(&Default::default(), books);
    Ok(Recovered { state, head: chain.last(), hash: chain.hash(), epoch, last_at, bytes, kept_after })
}

fn lost(shard: &ShardRef, ahead: Sequence, last: Sequence) -> Corrupt {
    let what = format!("the tables hold entries up to {ahead}, the journal ends at {last}");
    Corrupt::new(shard, last.next(), what)
}

/// Checks the whole journal and brings the tables, where there are any, up to its end. Tables that are older than the journal's
/// beginning are made of the latest checkpoint, and may be ahead of the journal then.
pub(crate) async fn catch_up(shard: &ShardRef, holding: &Holding, journal: &Arc<dyn Journal>, rows: Option<&Rows>) -> Result<Read, Error> {
    let failed = |source| Error::Storage { shard: shard.clone(), source };
    let origin = journal.origin().await.map_err(failed)?;
    let (mut projected, checkpoint) = match rows {
        Some(rows) => begin(shard, &origin, rows).await.map_err(failed)?,
        None => (Sequence(0), None),
    };
    let mut chain = Chain::after(shard.clone(), &origin);
    let (mut last_at, mut bytes) = (origin.committed_at, 0);
    let mut lacking = Vec::new();
    loop {
        let segments = journal.read(chain.last().next(), READ_BYTES).await.map_err(|error| failed(placed(error, chain.last().next())))?;
        if segments.is_empty() {
            break;
        }
        for segment in &segments {
            chain.link(segment).map_err(|corrupt| failed(corrupt.into()))?;
            agrees(shard, checkpoint.as_ref(), segment).map_err(|corrupt| failed(corrupt.into()))?;
            last_at = segment.committed_at;
            bytes += segment.payload.len() as u64;
            if let Some(rows) = rows.filter(|_| segment.last() > projected) {
                lacking.extend(holding.entries(segment, shard).map_err(|corrupt| failed(corrupt.into()))?);
                if lacking.len() >= PROJECTED_ENTRIES {
                    projected = project(shard, &std::mem::take(&mut lacking), projected, &rows.tables).await?;
                }
            }
        }
    }
    if let Some(rows) = rows {
        projected = project(shard, &lacking, projected, &rows.tables).await?;
    }
    let known = checkpoint.as_ref().map_or(Sequence(0), |manifest| manifest.sequence);
    if projected > chain.last() && projected != known {
        return Err(failed(lost(shard, projected, chain.last()).into()));
    }
    Ok(Read { chain, last_at, bytes, kept_after: origin.sequence, projected, checkpoint })
}

/// Where the tables begin: as they are, or made of a checkpoint.
async fn begin(shard: &ShardRef, origin: &Origin, rows: &Rows) -> Result<(Sequence, Option<Manifest>), JournalError> {
    let corrupt = |what: String| Corrupt::new(shard, origin.sequence, what);
    let checkpoint = rows.checkpoints.latest().await?;
    if origin.sequence == Sequence(0) {
        return Ok((rows.tables.cursor().await?, checkpoint));
    }
    let Some(manifest) = checkpoint.filter(|manifest| manifest.sequence >= origin.sequence) else {
        return Err(corrupt(format!("the journal begins after {}, and there is no checkpoint of what came before", origin.sequence)).into());
    };
    let mut projected = rows.tables.cursor().await?;
    if projected < origin.sequence {
        tracing::info!(%shard, sequence = %manifest.sequence, rows = manifest.digest.rows, "tables are made of a checkpoint");
        checkpoint::restore(&rows.checkpoints, &manifest, &rows.tables).await?;
        projected = manifest.sequence;
    }
    // Ids of entries that are gone: they cannot be answered any more, and are past the time for which they had to be.
    let gone = Timestamp(origin.committed_at.0.saturating_add(1));
    while rows.tables.purge_requests(gone, PURGED_MAX).await? >= u64::from(PURGED_MAX) {}
    Ok((projected, Some(manifest)))
}

/// A checkpoint is of the journal that it stands beside.
pub(crate) fn agrees(shard: &ShardRef, checkpoint: Option<&Manifest>, segment: &Segment) -> Result<(), Corrupt> {
    let Some(manifest) = checkpoint else { return Ok(()) };
    let within = (segment.first..=segment.last()).contains(&manifest.sequence);
    if !within || (segment.last() == manifest.sequence && segment.hash == manifest.hash) {
        return Ok(());
    }
    let what = format!("the checkpoint as of {} is of another journal", manifest.sequence);
    Err(Corrupt::new(shard, manifest.sequence, what))
}

/// Projects what the tables lack of entries that follow each other, and says how far they are then.
async fn project(shard: &ShardRef, entries: &[Committed], mut projected: Sequence, tables: &Arc<dyn Tables>) -> Result<Sequence, Error> {
    let failed = |source| Error::Storage { shard: shard.clone(), source };
    let Some((last, _)) = entries.last() else { return Ok(projected) };
    while projected < last.sequence {
        let rest = entries.iter().filter(|(position, _)| position.sequence > projected);
        match tables.project(&Projection::of(rest)).await {
            Ok(()) => projected = last.sequence,
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
