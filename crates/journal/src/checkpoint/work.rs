//! Making a checkpoint of tables, and tables of a checkpoint.

use std::{collections::BTreeMap, sync::Arc};

use paymesh_types::{Currency, ShardRef};

use super::{CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, CHUNKS_MAX, Checkpoints, Manifest, chunk_hash, codec, ordered};
use crate::{Corrupt, Digest, Error, Hash, Row, Segment, Snapshot, Tables};

/// Bytes of rows after which a chunk takes no more: one row has far fewer than are left.
const CHUNK_BYTES_WANTED: usize = CHUNK_BYTES_MAX / 4;

/// Makes a checkpoint of all rows of a snapshot, whose last entry is the last of `ending`, and gives back what it is. It is the
/// latest from its return on.
///
/// # Errors
/// As of [`draft`].
pub async fn make(
    shard: &ShardRef,
    snapshot: Box<dyn Snapshot>,
    ending: &Segment,
    checkpoints: &Arc<dyn Checkpoints>,
) -> Result<Manifest, Error> {
    let manifest = draft(shard, snapshot, ending, checkpoints).await?;
    checkpoints.finish(&manifest).await?;
    Ok(manifest)
}

/// The same, up to where [`Checkpoints::finish`] makes it the latest.
///
/// # Errors
/// The storage failed; what was made so far is then no checkpoint. [`Error::NotNext`] when the snapshot is not as of the segment's end.
pub async fn draft(
    shard: &ShardRef,
    mut snapshot: Box<dyn Snapshot>,
    ending: &Segment,
    checkpoints: &Arc<dyn Checkpoints>,
) -> Result<Manifest, Error> {
    if snapshot.cursor() != ending.last() {
        return Err(Error::NotNext { head: snapshot.cursor(), offered: ending.last() });
    }
    checkpoints.begin(None).await?;
    let mut chunks = Chunks { checkpoints, digest: Digest::default(), hashes: Vec::new(), rows: Vec::new(), bytes: 0 };
    loop {
        let page = snapshot.next().await?;
        if page.is_empty() {
            break;
        }
        for row in page {
            chunks.add(row).await?;
        }
        tokio::task::yield_now().await;
    }
    chunks.flush().await?;
    Ok(Manifest {
        shard: shard.clone(),
        epoch: ending.epoch,
        sequence: ending.last(),
        hash: ending.hash,
        committed_at: ending.committed_at,
        books: ordered(snapshot.books().clone()),
        digest: chunks.digest,
        chunks: chunks.hashes,
    })
}

struct Chunks<'a> {
    checkpoints: &'a Arc<dyn Checkpoints>,
    digest: Digest,
    hashes: Vec<Hash>,
    rows: Vec<Row>,
    bytes: usize,
}

impl Chunks<'_> {
    async fn add(&mut self, row: Row) -> Result<(), Error> {
        let bytes = codec::bytes(&row);
        self.digest.add_bytes(&bytes);
        self.bytes += bytes.len();
        self.rows.push(row);
        if self.rows.len() == CHUNK_ROWS_MAX || self.bytes >= CHUNK_BYTES_WANTED { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        assert!(self.hashes.len() < CHUNKS_MAX, "a checkpoint has {CHUNKS_MAX} chunks at most");
        let chunk = codec::pack(&self.rows);
        let index = u32::try_from(self.hashes.len()).expect("a checkpoint has no more chunks than that");
        self.checkpoints.add(index, &chunk).await?;
        self.hashes.push(chunk_hash(&chunk));
        self.rows.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Reads a checkpoint's rows, each chunk checked, and at the end that they are all, and that the books sum to zero.
#[derive(Debug)]
pub struct Reader<'a> {
    checkpoints: &'a Arc<dyn Checkpoints>,
    manifest: &'a Manifest,
    root: Hash,
    next: usize,
    digest: Digest,
    wallets: BTreeMap<Currency, i128>,
}

impl<'a> Reader<'a> {
    /// From its first row.
    pub fn new(checkpoints: &'a Arc<dyn Checkpoints>, manifest: &'a Manifest) -> Self {
        Self { checkpoints, manifest, root: manifest.root(), next: 0, digest: Digest::default(), wallets: BTreeMap::new() }
    }

    /// The rows after those given before, of one chunk; none at the end.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they are not what was written; the storage failed.
    pub async fn next(&mut self) -> Result<Vec<Row>, Error> {
        let Manifest { shard, sequence, .. } = self.manifest;
        let corrupt = |what: String| Corrupt::new(shard, *sequence, what);
        if self.next == self.manifest.chunks.len() {
            if self.digest != self.manifest.digest {
                return Err(corrupt("the checkpoint's rows are not what it says that they come to".to_owned()).into());
            }
            self.manifest.check_sums(&self.wallets)?;
            return Ok(Vec::new());
        }
        let index = u32::try_from(self.next).expect("a checkpoint has no more chunks than that");
        let chunk = self.checkpoints.chunk(&self.root, index).await?;
        let chunk = chunk.ok_or_else(|| corrupt(format!("the checkpoint has lost its chunk {index}")))?;
        let rows = self.manifest.rows(self.next, &chunk)?;
        for row in &rows {
            self.digest.add_bytes(&codec::bytes(row));
            if let Row::Wallet((_, currency), wallet) = row {
                *self.wallets.entry(*currency).or_default() += i128::from(wallet.balance);
            }
        }
        self.next += 1;
        // An empty page would be taken for the end.
        if rows.is_empty() { Err(corrupt(format!("the checkpoint's chunk {index} is empty")).into()) } else { Ok(rows) }
    }
}

/// Makes tables anew from the latest checkpoint. Until that is done they are of no use to anybody: their cursor is 0.
///
/// # Errors
/// [`Error::Corrupt`] when the checkpoint is not what was written; the storage failed.
pub async fn restore(checkpoints: &Arc<dyn Checkpoints>, manifest: &Manifest, tables: &Arc<dyn Tables>) -> Result<(), Error> {
    tables.clear().await?;
    let mut reader = Reader::new(checkpoints, manifest);
    loop {
        let rows = reader.next().await?;
        if rows.is_empty() {
            break;
        }
        tables.restore(&rows).await?;
    }
    tables.restored(manifest.sequence, &manifest.books).await
}
