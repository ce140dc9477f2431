//! The embedded engine: two SQLite files for each shard.
//!
//! The journal's file is in WAL mode with `synchronous=FULL`: a commit is one `fdatasync`. The tables' file is
//! `synchronous=NORMAL`: it may lose its last transactions in a power cut, but never its consistency, and the journal has
//! them. Two files, so that projecting never holds the write lock that a commit waits for.

mod journal;
mod tables;

use std::{path::Path, sync::Arc, time::Duration};

use paymesh_types::ShardRef;
use sqlx::{
    Row as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{Corrupt, Error, Identity, Store};
pub use journal::SqliteJournal;
pub use tables::SqliteTables;

/// How long a connection waits for another's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long opening a file may take. A damaged schema can end the driver's thread, which then answers nobody.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that read, for each file.
const READERS_MAX: u32 = 2;

/// Opens, and makes where it is missing, the storage of a shard in `directory`.
///
/// # Errors
/// The files cannot be opened or made, or belong to something else.
pub async fn open(directory: &Path, identity: &Identity) -> Result<Store, Error> {
    Ok(Store {
        journal: Arc::new(SqliteJournal::open(directory, identity).await?),
        tables: Arc::new(SqliteTables::open(directory, identity).await?),
    })
}

/// A file of a shard, and the connections to it.
#[derive(Debug)]
struct File {
    place: String,
    shard: ShardRef,
    writer: SqlitePool,
    readers: SqlitePool,
}

impl File {
    async fn open(
        path: &Path,
        identity: &Identity,
        synchronous: SqliteSynchronous,
        page_bytes: u32,
        cache_kib: u32,
        checkpoint_pages: u32,
        migrator: &sqlx::migrate::Migrator,
    ) -> Result<Self, Error> {
        let place = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .page_size(page_bytes)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", checkpoint_pages.to_string())
            .pragma("cache_size", format!("-{cache_kib}"))
            .pragma("temp_store", "MEMORY");
        let pool = |connections: u32, options: SqliteConnectOptions| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .connect_lazy_with(options)
        };
        let file = Self {
            place,
            shard: identity.shard.clone(),
            writer: pool(1, options.clone()),
            readers: pool(READERS_MAX, options.read_only(true).create_if_missing(false)),
        };
        match tokio::time::timeout(OPEN_TIMEOUT, file.prepare(identity, migrator)).await {
            Ok(prepared) => prepared.map(|()| file),
            Err(_) => {
                let why = format!("it did not open within {OPEN_TIMEOUT:?}; it may be damaged");
                Err(Error::Engine { place: file.place, source: why.into() })
            }
        }
    }

    async fn prepare(&self, identity: &Identity, migrator: &sqlx::migrate::Migrator) -> Result<(), Error> {
        migrator.run(&self.writer).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(source) | sqlx::migrate::MigrateError::ExecuteMigration(source, _) => self.failed(source),
            other => self.failed(sqlx::Error::Migrate(Box::new(other))),
        })?;
        self.identify(identity).await
    }

    async fn identify(&self, wanted: &Identity) -> Result<(), Error> {
        let failed = |source| self.failed(source);
        sqlx::query("INSERT INTO identity (id, mesh, zone, shard, shards) VALUES (1, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(&wanted.mesh)
            .bind(wanted.shard.zone.as_str())
            .bind(i64::from(wanted.shard.index))
            .bind(i64::from(wanted.shards))
            .execute(&self.writer)
            .await
            .map_err(failed)?;
        let row = sqlx::query("SELECT mesh, zone, shard, shards FROM identity").fetch_one(&self.writer).await.map_err(failed)?;
        let read = || -> Result<(String, String, i64, i64), sqlx::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
        };
        let (mesh, zone, shard, shards) = read().map_err(failed)?;
        let found = format!("mesh {mesh} shard {zone}/{shard} of {shards}");
        if found != wanted.to_string() {
            return Err(Error::Identity { place: self.place.clone(), found, wanted: wanted.to_string() });
        }
        Ok(())
    }

    /// What an error of the engine means.
    fn failed(&self, source: sqlx::Error) -> Error {
        const SQLITE_CORRUPT: i32 = 11;
        const SQLITE_FULL: i32 = 13;
        const SQLITE_NOTADB: i32 = 26;
        let primary =
            source.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff);
        // A column of another type than the table has: the file is not what was written.
        let unreadable = matches!(&source, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_));
        match primary {
            Some(SQLITE_FULL) => Error::Full { place: self.place.clone() },
            Some(SQLITE_CORRUPT | SQLITE_NOTADB) => self.corrupt(&source),
            None if unreadable => self.corrupt(&source),
            _ => Error::Engine { place: self.place.clone(), source: source.into() },
        }
    }

    fn corrupt(&self, source: &sqlx::Error) -> Error {
        let what = format!("{}: {source}", self.place);
        Error::Corrupt(Corrupt { shard: self.shard.clone(), sequence: paymesh_types::Sequence(0), what })
    }
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).expect("sequence numbers, epochs and instants stay below 2^63")
}

/// A number to look up, which a caller may have made up: none is stored past 2^63, so none is found there.
fn wanted(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn file_name(shard: &ShardRef, kind: &str) -> String {
    format!("{}-{}.{kind}.sqlite", shard.zone, shard.index)
}
