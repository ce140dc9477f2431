//! The store: one SQLite file of the region's own, with what was scored.
//!
//! In WAL mode with `synchronous=FULL`: what is recorded survives a power cut. Many payments share a commit (`detector.rs`).

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc, time::Duration};

use paymesh_types::{RegionName, RequestId, Timestamp, UserId, ZoneName};
use sqlx::{
    Row as _, Sqlite, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use crate::memory::{Hash, Seen};

/// The file's name in its directory.
const FILE_NAME: &str = "fraud.sqlite";
/// How long a connection waits for another's lock, and a caller for a connection.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Connections that reads share.
const READERS_MAX: u32 = 4;
/// Records that are let go of in one transaction at most: others write between two of them.
const FORGOTTEN_AT_ONCE_MAX: i64 = 2_000;

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read or written. May pass.
    #[error("{place}: {source}")]
    Engine {
        /// The file.
        place: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is in it is not what was written. Final.
    #[error("{place} is damaged: {what}")]
    Damaged {
        /// The file.
        place: String,
        /// What does not fit.
        what: String,
    },
    /// It is another's.
    #[error("{place} is fraud detection of {found}, and not of {wanted}")]
    Identity {
        /// The file.
        place: String,
        /// Whose it is.
        found: String,
        /// Whose it was to be.
        wanted: String,
    },
}

/// A payment that was scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What its caller called it.
    pub request: RequestId,
    /// A hash of what was asked.
    pub body: [u8; 32],
    /// What was answered: `paymesh.fraud.v1.Assessment`, encoded.
    pub answer: Vec<u8>,
    /// What is remembered of it.
    pub seen: Seen,
}

/// A store's file. Cheap to clone; all clones share their connections.
#[derive(Debug, Clone)]
pub struct Store {
    place: Arc<str>,
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Store {
    /// Opens the store in a directory, and makes it where it is missing: of this mesh, zone and region, or refused.
    ///
    /// # Errors
    /// It cannot be opened or made, or belongs to something else.
    pub async fn open(directory: &Path, mesh: &str, zone: &ZoneName, region: &RegionName) -> Result<Self, Error> {
        let path = directory.join(FILE_NAME);
        let place: Arc<str> = path.display().to_string().into();
        let engine = |source: std::io::Error| Error::Engine { place: place.to_string(), source: Box::new(source) };
        fs::create_dir_all(directory).map_err(engine)?;
        // SQLite gives the files beside it the permissions that this one has.
        fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(engine)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(WAIT_MAX)
            .pragma("temp_store", "MEMORY");
        let pool = |connections: u32, options: SqliteConnectOptions| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(WAIT_MAX)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .connect_lazy_with(options)
        };
        let store = Self { place, writer: pool(1, options.clone()), readers: pool(READERS_MAX, options.read_only(true)) };
        // What is no database is told apart from one whose migration fails.
        sqlx::query("PRAGMA schema_version").execute(&store.writer).await.map_err(|error| store.failed(error))?;
        static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");
        MIGRATIONS.run(&store.writer).await.map_err(|error| store.failed(sqlx::Error::Migrate(Box::new(error))))?;
        store.identify(mesh, zone, region).await?;
        Ok(store)
    }

    /// Closes every connection, and waits for those that are in use.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn identify(&self, mesh: &str, zone: &ZoneName, region: &RegionName) -> Result<(), Error> {
        let new = sqlx::query("INSERT INTO fraud (id, mesh, zone, region) VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING");
        let new = new.bind(mesh).bind(zone.as_str()).bind(region.as_str());
        new.execute(&self.writer).await.map_err(|error| self.failed(error))?;
        let row = sqlx::query("SELECT mesh, zone, region FROM fraud").fetch_one(&self.writer).await.map_err(|error| self.failed(error))?;
        let told = |mesh: &str, zone: &str, region: &str| format!("zone {zone} in region {region} of mesh {mesh}");
        let found = told(self.get(&row, 0)?, self.get(&row, 1)?, self.get(&row, 2)?);
        let wanted = told(mesh, zone.as_str(), region.as_str());
        if found != wanted {
            return Err(Error::Identity { place: self.place.to_string(), found, wanted });
        }
        Ok(())
    }

    /// Records what was scored, all of it or nothing. One whose request is recorded already is left out.
    ///
    /// # Errors
    /// The store cannot be had.
    pub async fn record(&self, records: &[Record]) -> Result<(), Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.failed(error))?;
        for Record { request, body, answer, seen } in records {
            let insert = sqlx::query(
                "INSERT INTO scored (request, body, answer, at, payer, payee, reference, card, device, region, accepted) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            );
            let insert = insert.bind(&request.as_bytes()[..]).bind(&body[..]).bind(answer.as_slice()).bind(seen.at.0.cast_signed());
            let insert = insert.bind(seen.payer.get().cast_signed()).bind(seen.payee.get().cast_signed());
            let insert = insert.bind(seen.reference.map(u64::cast_signed)).bind(seen.card.as_ref().map(|card| &card[..]));
            let insert = insert.bind(seen.device.as_ref().map(|device| &device[..])).bind(seen.region.as_str()).bind(seen.accepted);
            insert.execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
        }
        transaction.commit().await.map_err(|error| self.failed(error))
    }

    /// What was asked and answered under a request's id: the hash and the assessment.
    ///
    /// # Errors
    /// The store cannot be had.
    pub async fn answer(&self, request: RequestId) -> Result<Option<([u8; 32], Vec<u8>)>, Error> {
        let row = sqlx::query("SELECT body, answer FROM scored WHERE request = ?").bind(&request.as_bytes()[..]);
        let row = row.fetch_optional(&self.readers).await.map_err(|error| self.failed(error))?;
        row.map(|row| Ok((self.bytes(self.get(&row, 0)?)?, self.get(&row, 1)?))).transpose()
    }

    /// The number after which the last `records` are.
    ///
    /// # Errors
    /// The store cannot be had.
    pub async fn before_last(&self, records: u64) -> Result<i64, Error> {
        let last: i64 = {
            let row = sqlx::query("SELECT coalesce(max(number), 0) FROM scored").fetch_one(&self.readers).await;
            self.get(&row.map_err(|error| self.failed(error))?, 0)?
        };
        Ok(last.saturating_sub(i64::try_from(records).unwrap_or(i64::MAX)).max(0))
    }

    /// What was seen after a number, in order, `limit` of them at most; each with its number.
    ///
    /// # Errors
    /// The store cannot be had, or is damaged.
    pub async fn seen_after(&self, number: i64, limit: u32) -> Result<Vec<(i64, Seen)>, Error> {
        let rows = sqlx::query(
            "SELECT number, at, payer, payee, reference, card, device, region, accepted FROM scored WHERE number > ? ORDER BY number LIMIT ?",
        );
        let rows = rows.bind(number).bind(limit).fetch_all(&self.readers).await.map_err(|error| self.failed(error))?;
        rows.iter().map(|row| Ok((self.get(row, 0)?, self.seen(row)?))).collect()
    }

    fn seen(&self, row: &SqliteRow) -> Result<Seen, Error> {
        let user = |number: i64| UserId::try_from(number.cast_unsigned()).map_err(|error| self.damaged(&error.to_string()));
        let hash = |bytes: Option<Vec<u8>>| bytes.map(|bytes| self.bytes::<16>(bytes)).transpose();
        let (card, device): (Option<Hash>, Option<Hash>) = (hash(self.get(row, 5)?)?, hash(self.get(row, 6)?)?);
        let region: &str = self.get(row, 7)?;
        Ok(Seen {
            at: Timestamp(self.get::<i64>(row, 1)?.unsigned_abs()),
            payer: user(self.get(row, 2)?)?,
            payee: user(self.get(row, 3)?)?,
            reference: self.get::<Option<i64>>(row, 4)?.map(i64::cast_unsigned),
            card,
            device,
            region: region.parse().map_err(|_| self.damaged("a region has no name that one can have"))?,
            accepted: self.get(row, 8)?,
        })
    }

    /// Lets go of the oldest records, some at once: those before `always_before`, and past the last `records_max` those before `if_many_before`. Returns whether
    /// there may be more.
    ///
    /// # Errors
    /// The store cannot be had.
    pub async fn forget(&self, always_before: Timestamp, if_many_before: Timestamp, records_max: u64) -> Result<bool, Error> {
        let many = self.before_last(records_max).await?;
        let delete = sqlx::query(
            "DELETE FROM scored WHERE number IN (SELECT number FROM scored ORDER BY number LIMIT ?) AND (at < ? OR (at < ? AND number <= ?))",
        );
        let delete = delete.bind(FORGOTTEN_AT_ONCE_MAX).bind(always_before.0.cast_signed()).bind(if_many_before.0.cast_signed()).bind(many);
        let deleted = delete.execute(&self.writer).await.map_err(|error| self.failed(error))?.rows_affected();
        Ok(deleted == FORGOTTEN_AT_ONCE_MAX.unsigned_abs())
    }

    fn failed(&self, source: sqlx::Error) -> Error {
        const SQLITE_CORRUPT: i32 = 11;
        const SQLITE_NOTADB: i32 = 26;
        let code = source.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
        let unreadable = matches!(source, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_));
        if unreadable || matches!(code.map(|code| code & 0xff), Some(SQLITE_CORRUPT | SQLITE_NOTADB)) {
            return self.damaged(&source.to_string());
        }
        Error::Engine { place: self.place.to_string(), source: Box::new(source) }
    }

    /// What is recorded as an answer is none.
    pub(crate) fn no_assessment(&self, error: &prost::DecodeError) -> Error {
        self.damaged(&format!("an answer is none: {error}"))
    }

    fn damaged(&self, what: &str) -> Error {
        Error::Damaged { place: self.place.to_string(), what: what.to_owned() }
    }

    fn get<'r, T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>>(&self, row: &'r SqliteRow, column: usize) -> Result<T, Error> {
        row.try_get(column).map_err(|error| self.failed(error))
    }

    fn bytes<const N: usize>(&self, bytes: Vec<u8>) -> Result<[u8; N], Error> {
        bytes.try_into().map_err(|_| self.damaged("a hash has the wrong length"))
    }
}
