//! The journals in SQLite: one file for all shards of a node, one row for each segment.

use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicUsize},
};

use async_trait::async_trait;
use paymesh_contract::events::v1 as pb;
use paymesh_types::{Epoch, Sequence, ShardRef, Timestamp};
use prost::Message as _;
use sqlx::{
    Row as _, SqliteConnection,
    sqlite::{SqliteRow, SqliteSynchronous},
};

use super::{
    File, Purpose,
    group::{Offer, Outcome, Unwritten},
    stored,
    tables::rows::{held_for, holding},
    wanted,
};
use crate::{Corrupt, Error, Hash, Head, Identity, Journal, Origin, Segment};

const PURPOSE: Purpose = Purpose {
    synchronous: SqliteSynchronous::Full,
    // Small commits are most commits: a page of this size is what one costs.
    page_bytes: 4096,
    cache_kib: 8 * 1024,
    // The WAL is folded into the file at about 64 MiB.
    checkpoint_pages: 16_384,
    readers_max: 4,
};
/// Segments that one read returns at most, however small they are.
const READ_SEGMENTS_MAX: i64 = 4_096;
/// Segments that are not kept any more and go in one transaction: commits wait for it.
const SWEPT_SEGMENTS_MAX: i64 = 256;

/// The file of the journals of a node.
#[derive(Debug)]
pub(super) struct Journals {
    pub(super) file: File,
    /// Segments that wait for the next commit.
    pub(super) offers: Mutex<Vec<Offer>>,
    /// How many wait for the turn with segments from elsewhere.
    pub(super) extending: AtomicUsize,
    /// Held by whoever commits: the connection that commits, once it is open.
    pub(super) turn: Arc<tokio::sync::Mutex<Option<SqliteConnection>>>,
}

impl Journals {
    /// Sets what is held of a shard aside: it stays in the file, and the next to open the shard's journal finds it empty.
    pub(super) async fn set_aside(&self, shard: &ShardRef, at: Timestamp, witness: bool) -> Result<(), Error> {
        let failed = |source| self.file.failed(shard, source);
        // Before the turn, which commits wait for: nobody adds to what is set aside.
        let witness = if witness { self.known_end(shard).await? } else { None };
        let _turn = self.turn().await;
        let mut transaction = self.file.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let slot: Option<i64> =
            sqlx::query_scalar("UPDATE shards SET set_aside_at = ? WHERE zone = ? AND shard = ? AND set_aside_at IS NULL RETURNING slot")
                .bind(stored(at.0))
                .bind(shard.zone.as_str())
                .bind(i64::from(shard.index))
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed)?;
        if let (Some(slot), Some((last, hash))) = (slot, witness) {
            let next = sqlx::query(
                "INSERT INTO shards (mesh, zone, shard, shards, held_for, epoch, witness_last, witness_hash)
                 SELECT mesh, zone, shard, shards, held_for, 0, ?2, ?3 FROM shards WHERE slot = ?1",
            );
            let next = next.bind(slot).bind(stored(last.0)).bind(hash.as_slice());
            next.execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// The end of what is held of a shard, as far as that can be told of a copy that may be damaged anywhere: its last segment whose
    /// header is what the leader wrote, or else where it begins. Where its own witness is further, that still is what the next
    /// must pass through.
    async fn known_end(&self, shard: &ShardRef) -> Result<Option<(Sequence, Hash)>, Error> {
        use futures::TryStreamExt as _;
        let failed = |source| self.file.failed(shard, source);
        let held = sqlx::query(
            "SELECT slot, origin_last, origin, witness_last, witness_hash FROM shards WHERE zone = ? AND shard = ? AND set_aside_at IS NULL",
        );
        let held = held.bind(shard.zone.as_str()).bind(i64::from(shard.index)).fetch_optional(&self.file.readers).await.map_err(failed)?;
        let Some(held) = held else { return Ok(None) };
        let slot: i64 = held.try_get("slot").map_err(failed)?;
        let origin_last: i64 = held.try_get("origin_last").map_err(failed)?;
        // What is not swept away yet is of no meaning, and of a payload nothing is read.
        let mut rows = sqlx::query(
            "SELECT first, last, epoch, committed_at, previous, root, hash, zeroblob(32) AS checksum, x'' AS payload
             FROM segments WHERE slot = ? AND first > ? ORDER BY first DESC",
        )
        .bind(slot)
        .bind(origin_last)
        .fetch(&self.file.readers);
        let mut last = None;
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            let whole = segment(shard, &row).ok().filter(|segment| segment.is_header_whole(shard));
            if let Some(segment) = whole {
                last = Some((segment.last(), segment.hash));
                break;
            }
        }
        let begins =
            || origin(shard, &held).ok().filter(|origin| origin.sequence > Sequence(0)).map(|origin| (origin.sequence, origin.hash));
        let witness = || -> Option<(Sequence, Hash)> {
            let last: i64 = held.try_get("witness_last").ok()?;
            let hash: &[u8] = held.try_get("witness_hash").ok()?;
            Some((number(last), hash.try_into().ok()?))
        };
        let end = last.or_else(begins).into_iter().chain(witness()).max_by_key(|(last, _)| *last);
        if end.is_none() {
            tracing::warn!(%shard, "a copy that is set aside has nothing to know its history by");
        }
        Ok(end)
    }

    pub(super) async fn set_aside_count(&self, shard: &ShardRef) -> Result<u32, Error> {
        let count = sqlx::query_scalar("SELECT count(*) FROM shards WHERE zone = ? AND shard = ? AND set_aside_at IS NOT NULL");
        let count = count.bind(shard.zone.as_str()).bind(i64::from(shard.index)).fetch_one(&self.file.writer);
        let count: i64 = count.await.map_err(|source| self.file.failed(shard, source))?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    pub(super) fn new(directory: &Path) -> Self {
        Self {
            file: File::new(&directory.join("journal.sqlite"), PURPOSE),
            offers: Mutex::default(),
            extending: AtomicUsize::new(0),
            turn: Arc::default(),
        }
    }
}

/// The journal of one shard.
#[derive(Debug)]
pub struct SqliteJournal {
    journals: Arc<Journals>,
    shard: ShardRef,
    slot: i64,
}

impl SqliteJournal {
    /// Opens, and makes where it is missing, the journal of a shard.
    ///
    /// # Errors
    /// The file cannot be opened or made, or what it holds of this shard belongs to something else.
    pub(super) async fn open(journals: Arc<Journals>, identity: &Identity) -> Result<Self, Error> {
        static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite-journal");
        let (file, shard) = (&journals.file, &identity.shard);
        file.migrate(shard, &MIGRATIONS).await?;
        let failed = |source| file.failed(shard, source);
        // Also where this shard is new: the zone's users would be looked for at other shards than they were booked at.
        let other = sqlx::query(
            "SELECT mesh, shard, shards FROM shards WHERE set_aside_at IS NULL AND (mesh != ?1 OR (zone = ?2 AND shards != ?3)) LIMIT 1",
        )
        .bind(&identity.mesh)
        .bind(shard.zone.as_str())
        .bind(i64::from(identity.shards))
        .fetch_optional(&file.writer)
        .await
        .map_err(failed)?;
        if let Some(row) = other {
            let (mesh, index, shards): (String, i64, i64) =
                (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?);
            let found = format!("mesh {mesh} shard {}/{index} of {shards}", shard.zone);
            return Err(Error::Identity { place: file.place.clone(), found, wanted: identity.to_string() });
        }
        sqlx::query("INSERT INTO shards (mesh, zone, shard, shards, held_for, epoch) VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING")
            .bind(&identity.mesh)
            .bind(shard.zone.as_str())
            .bind(i64::from(shard.index))
            .bind(i64::from(identity.shards))
            .bind(held_for(&identity.holding))
            .execute(&file.writer)
            .await
            .map_err(failed)?;
        let row = sqlx::query("SELECT slot, mesh, shards, held_for FROM shards WHERE zone = ? AND shard = ? AND set_aside_at IS NULL")
            .bind(shard.zone.as_str())
            .bind(i64::from(shard.index))
            .fetch_one(&file.writer)
            .await
            .map_err(failed)?;
        let shards: i64 = row.try_get("shards").map_err(failed)?;
        let found = Identity {
            mesh: row.try_get("mesh").map_err(failed)?,
            shard: shard.clone(),
            shards: u16::try_from(shards).map_err(|_| file.corrupt(shard, &format!("the shard's zone has {shards} shards")))?,
            holding: holding(row.try_get("held_for").map_err(failed)?).map_err(|bad| file.corrupt(shard, &bad.to_string()))?,
        };
        file.identified(&found, identity)?;
        let slot = row.try_get("slot").map_err(failed)?;
        Ok(Self { shard: shard.clone(), slot, journals })
    }

    fn failed(&self, source: impl Into<Arc<sqlx::Error>>) -> Error {
        self.journals.file.failed(&self.shard, source)
    }

    /// Why a segment that was offered is not in the file.
    async fn refusal(&self, offered: (Epoch, Sequence)) -> Error {
        let (epoch, first) = offered;
        let read = async {
            let end =
                "SELECT epoch, max(origin_last, coalesce((SELECT max(last) FROM segments WHERE slot = ?1), 0)) FROM shards WHERE slot = ?1";
            let row = sqlx::query(end).bind(self.slot).fetch_one(&self.journals.file.writer).await?;
            Ok::<_, sqlx::Error>((Epoch(number(row.try_get(0)?).0), number(row.try_get(1)?)))
        };
        match read.await {
            Ok((held, _)) if held > epoch => Error::Fenced { held, offered: epoch },
            Ok((_, head)) => Error::NotNext { head, offered: first },
            Err(error) => self.failed(error),
        }
    }
}

/// The row as it is, whatever a bad disk made of it: types and ranges are not taken on trust.
fn segment(shard: &ShardRef, row: &SqliteRow) -> Result<Segment, Error> {
    let first = row.try_get("first").unwrap_or(0);
    let corrupt = |what: String| Corrupt::new(shard, number(first), what);
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

/// Where a journal begins, by its row of `shards`.
fn origin(shard: &ShardRef, row: &SqliteRow) -> Result<Origin, Corrupt> {
    let last = number(row.try_get("origin_last").map_err(|error| Corrupt::new(shard, Sequence(0), error.to_string()))?);
    let corrupt = |what: String| Corrupt::new(shard, last, what);
    let Some(bytes) = row.try_get::<Option<&[u8]>, _>("origin").map_err(|error| corrupt(error.to_string()))? else {
        return Ok(Origin::beginning(shard));
    };
    let message = pb::JournalOrigin::decode(bytes).map_err(|error| corrupt(format!("where the journal begins: {error}")))?;
    let origin = Origin::try_from(&message).map_err(|error| corrupt(error.to_string()))?;
    if origin.sequence != last {
        return Err(corrupt(format!("the journal begins after {last} and after {}", origin.sequence)));
    }
    Ok(origin)
}

fn number(column: i64) -> Sequence {
    Sequence(u64::try_from(column).unwrap_or(0))
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn lead(&self) -> Result<Epoch, Error> {
        // Past the journal's last epoch, whatever became of the counter: what a leader of an earlier one added would not
        // follow, and would be lost with the next start.
        let epoch: i64 = sqlx::query_scalar(
            "UPDATE shards SET epoch = 1 + max(epoch, origin_epoch, coalesce((SELECT epoch FROM segments WHERE slot = ?1 ORDER BY first DESC LIMIT 1), 0))
             WHERE slot = ?1 RETURNING epoch",
        )
            .bind(self.slot)
            .fetch_one(&self.journals.file.writer)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(Epoch(number(epoch).0))
    }

    async fn append(&self, segment: &Segment) -> Result<(), Error> {
        match self.journals.append(self.slot, segment.clone()).await {
            Outcome::Written => Ok(()),
            Outcome::Refused => Err(self.refusal((segment.epoch, segment.first)).await),
            Outcome::Failed(source) => Err(self.failed(source)),
        }
    }

    async fn extend(&self, segments: &[Arc<Segment>]) -> Result<(), Error> {
        match self.journals.extend(self.slot, segments).await {
            Ok(()) => Ok(()),
            Err(Unwritten::Refused(segment)) => Err(self.refusal((segment.epoch, segment.first)).await),
            Err(Unwritten::Failed(source)) => Err(self.failed(source)),
        }
    }

    async fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, Error> {
        use futures::TryStreamExt as _;
        let mut rows = sqlx::query(
            // The origin is read with them: what is swept away meanwhile must not look like a gap.
            "SELECT shards.origin_last, first, last, segments.epoch, committed_at, previous, root, hash, checksum, payload
             FROM shards LEFT JOIN segments ON segments.slot = shards.slot
               AND first >= max(origin_last + 1, coalesce((SELECT max(first) FROM segments WHERE slot = ?1 AND first <= ?2), 0))
             WHERE shards.slot = ?1 ORDER BY first LIMIT ?3",
        )
        .bind(self.slot)
        .bind(wanted(from.0))
        // Whoever wants one segment does not pay for those behind it.
        .bind(if bytes_max == 0 { 1 } else { READ_SEGMENTS_MAX })
        .fetch(&self.journals.file.readers);
        let mut segments = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await.map_err(|error| self.failed(error))? {
            let origin = number(row.try_get("origin_last").map_err(|error| self.failed(error))?);
            if from.max(Sequence(1)) <= origin {
                return Err(Error::NotKept { first: origin.next(), wanted: from });
            }
            if row.try_get_raw("first").is_ok_and(|first| sqlx::ValueRef::is_null(&first)) {
                break;
            }
            let segment = segment(&self.shard, &row)?;
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
        let end = "SELECT segments.epoch, last, hash FROM segments JOIN shards USING (slot)
                   WHERE slot = ? AND first > origin_last ORDER BY first DESC LIMIT 1";
        let row = sqlx::query(end).bind(self.slot).fetch_optional(&self.journals.file.readers).await.map_err(|error| self.failed(error))?;
        let Some(row) = row else {
            let Origin { epoch, sequence, hash, .. } = self.origin().await?;
            return Ok(Head { epoch, sequence, hash: (sequence > Sequence(0)).then_some(hash) });
        };
        let read = || -> Result<Head, sqlx::Error> {
            let hash: &[u8] = row.try_get(2)?;
            Ok(Head { epoch: Epoch(number(row.try_get(0)?).0), sequence: number(row.try_get(1)?), hash: hash.try_into().ok() })
        };
        read().map_err(|error| self.failed(error))
    }

    async fn origin(&self) -> Result<Origin, Error> {
        let row = sqlx::query("SELECT origin_last, origin FROM shards WHERE slot = ?").bind(self.slot);
        let row = row.fetch_one(&self.journals.file.readers).await.map_err(|error| self.failed(error))?;
        Ok(origin(&self.shard, &row)?)
    }

    async fn prune(&self, epoch: Epoch, origin: &Origin) -> Result<(), Error> {
        let moved = {
            let _turn = self.journals.turn().await;
            let update = sqlx::query(
                "UPDATE shards SET origin_last = ?2, origin_epoch = ?3, origin = ?4
                 WHERE slot = ?1 AND epoch <= ?5 AND origin_last < ?2 AND EXISTS (
                   SELECT 1 FROM (SELECT last, hash FROM segments WHERE slot = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1) AS ending
                   WHERE ending.last = ?2 AND ending.hash = ?6)",
            );
            let update = bind_origin(update.bind(self.slot), origin).bind(stored(epoch.0)).bind(origin.hash.as_slice());
            update.execute(&self.journals.file.writer).await.map_err(|error| self.failed(error))?
        };
        if moved.rows_affected() != 1 {
            return Err(self.refusal((epoch, origin.sequence)).await);
        }
        self.sweep(origin.sequence).await;
        Ok(())
    }

    async fn witness(&self) -> Result<Option<(Sequence, Hash)>, Error> {
        let row = sqlx::query("SELECT witness_last, witness_hash FROM shards WHERE slot = ? AND witness_last IS NOT NULL").bind(self.slot);
        let row = row.fetch_optional(&self.journals.file.readers).await.map_err(|error| self.failed(error))?;
        let Some(row) = row else { return Ok(None) };
        let last = number(row.try_get(0).map_err(|error| self.failed(error))?);
        let hash: &[u8] = row.try_get(1).map_err(|error| self.failed(error))?;
        // No finding about this copy, which another would be made for: that one would have the same witness.
        let hash = hash.try_into().map_err(|_| Error::Engine {
            place: self.journals.file.place.clone(),
            source: format!("the end {last} of the copy that was set aside has no hash").into(),
        })?;
        Ok(Some((last, hash)))
    }

    async fn vouch(&self) -> Result<(), Error> {
        let _turn = self.journals.turn().await;
        let vouch = sqlx::query("UPDATE shards SET witness_last = NULL, witness_hash = NULL WHERE slot = ?").bind(self.slot);
        vouch.execute(&self.journals.file.writer).await.map(drop).map_err(|error| self.failed(error))
    }

    async fn jump(&self, origin: &Origin) -> Result<(), Error> {
        let moved = {
            let _turn = self.journals.turn().await;
            let update = sqlx::query(
                "UPDATE shards SET origin_last = ?2, origin_epoch = ?3, origin = ?4
                 WHERE slot = ?1 AND origin_last <= ?2
                   AND coalesce((SELECT last FROM segments WHERE slot = ?1 ORDER BY first DESC LIMIT 1), 0) <= ?2",
            );
            let update = bind_origin(update.bind(self.slot), origin);
            update.execute(&self.journals.file.writer).await.map_err(|error| self.failed(error))?
        };
        if moved.rows_affected() != 1 {
            return Err(self.refusal((Epoch(u64::MAX), origin.sequence)).await);
        }
        self.sweep(origin.sequence).await;
        Ok(())
    }
}

impl SqliteJournal {
    /// Gives free what is not kept any more, between the commits of the shards that are led here. What a failure leaves is of no
    /// meaning, and goes the next time.
    async fn sweep(&self, up_to: Sequence) {
        loop {
            let _turn = self.journals.turn().await;
            let swept = sqlx::query(
                "DELETE FROM segments WHERE slot = ?1 AND first IN (
                   SELECT first FROM segments WHERE slot = ?1 AND first <= ?2 ORDER BY first LIMIT ?3)",
            );
            let swept = swept.bind(self.slot).bind(stored(up_to.0)).bind(SWEPT_SEGMENTS_MAX);
            match swept.execute(&self.journals.file.writer).await {
                Ok(done) if done.rows_affected() > 0 => {}
                Ok(_) => return,
                Err(error) => return tracing::warn!(shard = %self.shard, %error, "cannot give free what is not kept any more yet"),
            }
        }
    }
}

fn bind_origin<'q>(
    update: sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    origin: &Origin,
) -> sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    update.bind(stored(origin.sequence.0)).bind(stored(origin.epoch.0)).bind(pb::JournalOrigin::from(origin).encode_to_vec())
}
