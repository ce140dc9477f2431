//! Checkpoints in SQLite: a file for each shard, so that making or fetching one holds no lock that a commit or a projection
//! waits for. It is `synchronous=FULL`: what stands for entries that are gone must be there after a power cut.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use paymesh_contract::events::v1 as pb;
use paymesh_types::{Sequence, ShardRef};
use prost::Message as _;
use sqlx::{Row as _, sqlite::SqliteSynchronous};

use super::{File, Purpose};
use crate::{Checkpoints, Corrupt, Error, Hash, Identity, Manifest, checkpoint::Draft};

const PURPOSE: Purpose = Purpose {
    synchronous: SqliteSynchronous::Full,
    // Chunks are large.
    page_bytes: 16_384,
    cache_kib: 2 * 1024,
    // The WAL is folded into the file at about 32 MiB.
    checkpoint_pages: 2_048,
    readers_max: 2,
};
/// Chunks of an older checkpoint that go in one transaction.
const SWEPT_CHUNKS_MAX: i64 = 64;

/// Checkpoints in a file of their own.
#[derive(Debug)]
pub struct SqliteCheckpoints {
    shard: ShardRef,
    file: File,
}

impl SqliteCheckpoints {
    /// Opens, and makes where it is missing, the checkpoints of a shard in `directory`.
    ///
    /// # Errors
    /// The file cannot be opened or made, or belongs to something else.
    pub(super) async fn open(directory: &Path, identity: &Identity) -> Result<Self, Error> {
        static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite-checkpoints");
        let shard = identity.shard.clone();
        let this = Self { file: File::new(&Self::path(directory, &shard), PURPOSE), shard };
        this.file.migrate(&this.shard, &MIGRATIONS).await?;
        Ok(this)
    }

    /// The file of a shard's checkpoints.
    pub(super) fn path(directory: &Path, shard: &ShardRef) -> PathBuf {
        directory.join(format!("{}-{}.checkpoints.sqlite", shard.zone, shard.index))
    }

    fn failed(&self, source: sqlx::Error) -> Error {
        self.file.failed(&self.shard, source)
    }

    fn manifest(&self, bytes: &[u8]) -> Result<Manifest, Error> {
        let corrupt = |what: String| Corrupt::new(&self.shard, Sequence(0), format!("a checkpoint: {what}"));
        let message = pb::Checkpoint::decode(bytes).map_err(|error| corrupt(error.to_string()))?;
        let manifest = Manifest::try_from(&message).map_err(|error| corrupt(error.to_string()))?;
        if manifest.shard != self.shard {
            let (found, wanted) = (manifest.shard.to_string(), self.shard.to_string());
            return Err(Error::Identity { place: self.file.place.clone(), found, wanted });
        }
        Ok(manifest)
    }

    /// The one that is being made, and how many chunks it has.
    async fn making(&self) -> Result<Option<(i64, u32)>, Error> {
        let row = sqlx::query(
            "SELECT id, (SELECT coalesce(max(number) + 1, 0) FROM chunks WHERE checkpoint = id) FROM checkpoints
             WHERE finished = 0 ORDER BY id DESC LIMIT 1",
        );
        let row = row.fetch_optional(&self.file.writer).await.map_err(|error| self.failed(error))?;
        let Some(row) = row else { return Ok(None) };
        let chunks = u32::try_from(row.try_get::<i64, _>(1).map_err(|error| self.failed(error))?).unwrap_or(u32::MAX);
        Ok(Some((row.try_get(0).map_err(|error| self.failed(error))?, chunks)))
    }

    /// Gives free what is neither the latest nor being made. What a failure leaves goes the next time.
    async fn sweep(&self) {
        let chunks = format!(
            "DELETE FROM chunks WHERE (checkpoint, number) IN (
               SELECT checkpoint, number FROM chunks
               WHERE checkpoint NOT IN (SELECT coalesce(max(id), 0) FROM checkpoints WHERE finished = 1
                 UNION SELECT coalesce(max(id), 0) FROM checkpoints WHERE finished = 0)
               LIMIT {SWEPT_CHUNKS_MAX})"
        );
        loop {
            // Safe: the text is made of constants.
            match sqlx::query(sqlx::AssertSqlSafe(chunks.clone())).execute(&self.file.writer).await {
                Ok(done) if done.rows_affected() > 0 => {}
                Ok(_) => break,
                Err(error) => return tracing::warn!(shard = %self.shard, %error, "cannot give an older checkpoint free yet"),
            }
        }
    }
}

/// As [`Error::NotNext`] has it: the chunks there are, and the one offered.
fn not_next(chunks: u32, offered: usize) -> Error {
    Error::NotNext { head: Sequence(chunks.into()), offered: Sequence(offered as u64) }
}

#[async_trait]
impl Checkpoints for SqliteCheckpoints {
    async fn latest(&self) -> Result<Option<Manifest>, Error> {
        let row = sqlx::query("SELECT manifest FROM checkpoints WHERE finished = 1 ORDER BY id DESC LIMIT 1");
        let row = row.fetch_optional(&self.file.readers).await.map_err(|error| self.failed(error))?;
        row.map(|row| self.manifest(row.try_get(0).map_err(|error| self.failed(error))?)).transpose()
    }

    async fn chunk(&self, root: &Hash, index: u32) -> Result<Option<Vec<u8>>, Error> {
        let chunk = sqlx::query_scalar(
            "SELECT payload FROM chunks JOIN checkpoints ON checkpoints.id = checkpoint
             WHERE number = ?2 AND root = ?1 AND id = (SELECT max(id) FROM checkpoints WHERE finished = 1)",
        );
        let chunk = chunk.bind(root.as_slice()).bind(i64::from(index));
        chunk.fetch_optional(&self.file.readers).await.map_err(|error| self.failed(error))
    }

    async fn draft(&self) -> Result<Option<Draft>, Error> {
        let Some((id, chunks)) = self.making().await? else { return Ok(None) };
        let row = sqlx::query("SELECT manifest FROM checkpoints WHERE id = ?").bind(id);
        let row = row.fetch_one(&self.file.writer).await.map_err(|error| self.failed(error))?;
        let bytes: Option<&[u8]> = row.try_get(0).map_err(|error| self.failed(error))?;
        Ok(Some(Draft { announced: bytes.map(|bytes| self.manifest(bytes)).transpose()?, chunks }))
    }

    async fn begin(&self, announced: Option<&Manifest>) -> Result<(), Error> {
        let bytes = announced.map(|manifest| pb::Checkpoint::from(manifest).encode_to_vec());
        // The ids of those that are gone are not given again: chunks that were not swept are of no other.
        let insert = sqlx::query(
            "INSERT INTO checkpoints (id, finished, manifest)
             VALUES (1 + max(coalesce((SELECT max(id) FROM checkpoints), 0), coalesce((SELECT max(checkpoint) FROM chunks), 0)), 0, ?)",
        );
        insert.bind(bytes).execute(&self.file.writer).await.map_err(|error| self.failed(error))?;
        self.sweep().await;
        Ok(())
    }

    async fn add(&self, index: u32, chunk: &[u8]) -> Result<(), Error> {
        let (id, chunks) = self.making().await?.ok_or_else(|| not_next(0, index as usize))?;
        if index != chunks && index + 1 != chunks {
            return Err(not_next(chunks, index as usize));
        }
        let insert = sqlx::query("INSERT OR REPLACE INTO chunks (checkpoint, number, payload) VALUES (?, ?, ?)");
        let insert = insert.bind(id).bind(i64::from(index)).bind(chunk);
        insert.execute(&self.file.writer).await.map(drop).map_err(|error| self.failed(error))
    }

    async fn finish(&self, manifest: &Manifest) -> Result<(), Error> {
        let (id, chunks) = self.making().await?.ok_or_else(|| not_next(0, manifest.chunks.len()))?;
        if chunks as usize != manifest.chunks.len() {
            return Err(not_next(chunks, manifest.chunks.len()));
        }
        // One statement: there is always one latest, and drafts from before it are none any more.
        let finish = sqlx::query("UPDATE checkpoints SET finished = 1, root = ?, manifest = ? WHERE id = ?");
        let finish = finish.bind(manifest.root().as_slice().to_vec()).bind(pb::Checkpoint::from(manifest).encode_to_vec()).bind(id);
        finish.execute(&self.file.writer).await.map_err(|error| self.failed(error))?;
        let older = sqlx::query("DELETE FROM checkpoints WHERE id < ?").bind(id);
        if let Err(error) = older.execute(&self.file.writer).await {
            tracing::warn!(shard = %self.shard, %error, "cannot give an older checkpoint free yet");
        }
        self.sweep().await;
        Ok(())
    }

    async fn close(&self) {
        self.file.close().await;
    }
}
