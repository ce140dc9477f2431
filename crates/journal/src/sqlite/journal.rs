//! The journal in SQLite: one row for each segment.

use std::path::Path;

use async_trait::async_trait;
use paymesh_types::{Epoch, Sequence, Timestamp};
use sqlx::{
    Row as _,
    sqlite::{SqliteRow, SqliteSynchronous},
};

use super::{File, file_name, stored, wanted};
use crate::{Corrupt, Error, Hash, Head, Identity, Journal, Segment};

/// Small commits are most commits: a page of this size is what one costs.
const PAGE_BYTES: u32 = 4096;
const CACHE_KIB: u32 = 4096;
/// The WAL is folded into the file at about 64 MiB.
const CHECKPOINT_PAGES: u32 = 16_384;
/// Segments that one read returns at most, however small they are.
const READ_SEGMENTS_MAX: i64 = 4_096;

/// A journal in a file of its own.
#[derive(Debug)]
pub struct SqliteJournal {
    file: File,
}

impl SqliteJournal {
    /// Opens, and makes where it is missing, the journal of a shard in `directory`.
    ///
    /// # Errors
    /// The file cannot be opened or made, or belongs to something else.
    pub async fn open(directory: &Path, identity: &Identity) -> Result<Self, Error> {
        static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite-journal");
        let path = directory.join(file_name(&identity.shard, "journal"));
        let file = File::open(&path, identity, SqliteSynchronous::Full, PAGE_BYTES, CACHE_KIB, CHECKPOINT_PAGES, &MIGRATIONS).await?;
        Ok(Self { file })
    }

    /// The row as it is, whatever a bad disk made of it: types and ranges are not taken on trust.
    fn segment(&self, row: &SqliteRow) -> Result<Segment, Error> {
        let first = row.try_get("first").unwrap_or(0);
        let corrupt = |what: String| Corrupt { shard: self.file.shard.clone(), sequence: number(first), what };
        let column = |name: &str| row.try_get::<i64, _>(name).map_err(|error| corrupt(error.to_string()));
        let hash = |name: &str| -> Result<Hash, Corrupt> {
            let bytes: &[u8] = row.try_get(name).map_err(|error| corrupt(error.to_string()))?;
            bytes.try_into().map_err(|_| corrupt(format!("the segment's {name} is not 32 bytes")))
        };
        let count = column("last")?.checked_sub(first).and_then(|more| u32::try_from(more).ok()?.checked_add(1));
        Ok(Segment {
            epoch: Epoch(number(column("epoch")?).0),
            first: number(first),
            count: count.ok_or_else(|| corrupt("the segment's last entry is out of range".to_owned()))?,
            committed_at: Timestamp(number(column("committed_at")?).0),
            previous: hash("previous")?,
            root: hash("root")?,
            hash: hash("hash")?,
            checksum: hash("checksum")?,
            payload: row.try_get("payload").map_err(|error| corrupt(error.to_string()))?,
        })
    }
}

fn number(column: i64) -> Sequence {
    Sequence(u64::try_from(column).unwrap_or(0))
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn lead(&self) -> Result<Epoch, Error> {
        let epoch: i64 = sqlx::query_scalar("UPDATE leadership SET epoch = epoch + 1 RETURNING epoch")
            .fetch_one(&self.file.writer)
            .await
            .map_err(|error| self.file.failed(error))?;
        Ok(Epoch(number(epoch).0))
    }

    async fn append(&self, segment: &Segment) -> Result<(), Error> {
        // One statement is one transaction: the fence, the place and the row are checked and written together.
        let written = sqlx::query(
            "INSERT INTO segments (first, last, epoch, committed_at, previous, root, hash, checksum, payload)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9
             WHERE (SELECT epoch FROM leadership) <= ?3
               AND coalesce((SELECT last FROM segments ORDER BY first DESC LIMIT 1), 0) = ?1 - 1",
        )
        .bind(stored(segment.first.0))
        .bind(stored(segment.last().0))
        .bind(stored(segment.epoch.0))
        .bind(stored(segment.committed_at.0))
        .bind(segment.previous.as_slice())
        .bind(segment.root.as_slice())
        .bind(segment.hash.as_slice())
        .bind(segment.checksum.as_slice())
        .bind(segment.payload.as_slice())
        .execute(&self.file.writer)
        .await
        .map_err(|error| self.file.failed(error))?;
        if written.rows_affected() == 1 {
            return Ok(());
        }
        let row = sqlx::query("SELECT epoch, coalesce((SELECT max(last) FROM segments), 0) FROM leadership")
            .fetch_one(&self.file.writer)
            .await
            .map_err(|error| self.file.failed(error))?;
        let column = |index: usize| row.try_get(index).map(number).map_err(|error| self.file.failed(error));
        let (held, head) = (Epoch(column(0)?.0), column(1)?);
        if held > segment.epoch {
            return Err(Error::Fenced { held, offered: segment.epoch });
        }
        Err(Error::NotNext { head, offered: segment.first })
    }

    async fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, Error> {
        use futures::TryStreamExt as _;
        let mut rows = sqlx::query(
            "SELECT first, last, epoch, committed_at, previous, root, hash, checksum, payload FROM segments
             WHERE first >= coalesce((SELECT max(first) FROM segments WHERE first <= ?1), 0)
             ORDER BY first LIMIT ?2",
        )
        .bind(wanted(from.0))
        // Whoever wants one segment does not pay for those behind it.
        .bind(if bytes_max == 0 { 1 } else { READ_SEGMENTS_MAX })
        .fetch(&self.file.readers);
        let mut segments = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await.map_err(|error| self.file.failed(error))? {
            let segment = self.segment(&row)?;
            if segment.last() < from {
                continue;
            }
            bytes += segment.payload.len();
            segments.push(segment);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(segments)
    }

    async fn head(&self) -> Result<Head, Error> {
        let row = sqlx::query("SELECT epoch, last, hash FROM segments ORDER BY first DESC LIMIT 1")
            .fetch_optional(&self.file.readers)
            .await
            .map_err(|error| self.file.failed(error))?;
        Ok(match row {
            None => Head { epoch: Epoch(0), sequence: Sequence(0), hash: None },
            Some(row) => {
                let failed = |error| self.file.failed(error);
                let hash: &[u8] = row.try_get(2).map_err(failed)?;
                Head {
                    epoch: Epoch(number(row.try_get(0).map_err(failed)?).0),
                    sequence: number(row.try_get(1).map_err(failed)?),
                    hash: hash.try_into().ok(),
                }
            }
        })
    }
}
