//! The embedded engine: one SQLite file for the journals of a node, and one for the tables of each shard.
//!
//! The journals' file is in WAL mode with `synchronous=FULL`: a commit is one `fdatasync`, shared by every shard that has a
//! segment ready (`sqlite/group.rs`). The tables' files are `synchronous=NORMAL`: they may lose their last transactions in a
//! power cut, but never their consistency, and the journal has them. Files apart, so that projecting never holds the write
//! lock that a commit waits for.

mod checkpoints;
mod group;
mod journal;
mod tables;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use paymesh_types::{ShardRef, Timestamp};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{Corrupt, Error, Identity, Journal, Store};
pub use checkpoints::SqliteCheckpoints;
use journal::Journals;
pub use journal::SqliteJournal;
pub use tables::SqliteTables;

/// How long a connection waits for another's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long opening a file may take. A damaged schema can end the driver's thread, which then answers nobody.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The storage of a node in one directory. Cheap to clone; what it has open is shared.
#[derive(Debug, Clone)]
pub struct Engine {
    directory: PathBuf,
    journals: Arc<Journals>,
}

impl Engine {
    /// Storage in `directory`. Nothing is opened yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), journals: Arc::new(Journals::new(directory)) }
    }

    /// Opens, and makes where it is missing, the journal of a shard whose tables are not kept here.
    ///
    /// # Errors
    /// The file cannot be opened or made, or belongs to something else.
    pub async fn journal(&self, identity: &Identity) -> Result<Arc<dyn Journal>, Error> {
        Ok(Arc::new(SqliteJournal::open(self.journals.clone(), identity).await?))
    }

    /// Opens, and makes where it is missing, the storage of a shard.
    ///
    /// # Errors
    /// The files cannot be opened or made, or belong to something else.
    pub async fn store(&self, identity: &Identity) -> Result<Store, Error> {
        Ok(Store {
            journal: Arc::new(SqliteJournal::open(self.journals.clone(), identity).await?),
            tables: Arc::new(SqliteTables::open(&self.directory, identity).await?),
            checkpoints: Arc::new(SqliteCheckpoints::open(&self.directory, identity).await?),
        })
    }
}

impl Engine {
    /// How many copies of a shard are set aside.
    ///
    /// # Errors
    /// The journals' file cannot be read.
    pub async fn set_aside_count(&self, shard: &ShardRef) -> Result<u32, Error> {
        self.journals.set_aside_count(shard).await
    }

    /// Sets a copy of a shard's storage aside, which nobody has open: it is kept, the files of tables and checkpoints under names
    /// that say when, and the next to open the shard's storage begins anew. With `witness`, the next must come to have the same
    /// history as this one ([`Journal::witness`]).
    ///
    /// # Errors
    /// The journals' file cannot be written, or the tables' file not renamed. It may be done in part, and can be done again.
    pub async fn set_aside(&self, shard: &ShardRef, at: Timestamp, witness: bool) -> Result<(), Error> {
        // The files first, and so that a power cut does not bring them back: whoever stops in between leaves a journal whose tables are
        // made of it again. Tables beside a journal that they are not of would be taken for its own.
        rename_aside(&SqliteTables::path(&self.directory, shard), at)?;
        rename_aside(&SqliteCheckpoints::path(&self.directory, shard), at)?;
        sync(&self.directory)?;
        self.journals.set_aside(shard, at, witness).await
    }
}

/// Renames a file and what SQLite keeps beside it, as far as they are there.
fn rename_aside(file: &Path, at: Timestamp) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm"] {
        let with = |middle: &str| PathBuf::from(format!("{}{middle}{suffix}", file.display()));
        let (from, to) = (with(""), with(&format!(".aside-{}", at.0)));
        match std::fs::rename(&from, &to) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Engine { place: from.display().to_string(), source: Box::new(source) });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Has what was renamed in a directory be so after a power cut too.
fn sync(directory: &Path) -> Result<(), Error> {
    let synced = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| Error::Engine { place: directory.display().to_string(), source: Box::new(source) })
}

/// Opens, and makes where it is missing, the storage of a shard in `directory`, sharing nothing with others there.
///
/// # Errors
/// The files cannot be opened or made, or belong to something else.
pub async fn open(directory: &Path, identity: &Identity) -> Result<Store, Error> {
    Engine::new(directory).store(identity).await
}

/// What a file is for.
#[derive(Debug, Clone, Copy)]
struct Purpose {
    synchronous: SqliteSynchronous,
    page_bytes: u32,
    cache_kib: u32,
    checkpoint_pages: u32,
    /// Connections that callers' reads share.
    readers_max: u32,
}

/// What part of the writer's cache a connection that reads has.
const READING_CACHE_DIVISOR: u32 = 4;

/// A file, and the connections to it. Cheap to clone.
#[derive(Debug, Clone)]
struct File {
    place: String,
    writer: SqlitePool,
    readers: SqlitePool,
    /// One more that reads, for the leader: what callers read must not keep it from deciding.
    look_ups: SqlitePool,
}

impl File {
    /// Nothing is opened before it is used.
    fn new(path: &Path, purpose: Purpose) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .page_size(purpose.page_bytes)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(purpose.synchronous)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", purpose.checkpoint_pages.to_string())
            .pragma("cache_size", format!("-{}", purpose.cache_kib))
            .pragma("temp_store", "MEMORY");
        // Each connection has a cache of its own. What is read is resident, or in the system's cache.
        let reading_kib = purpose.cache_kib / READING_CACHE_DIVISOR;
        let reading = options.clone().read_only(true).create_if_missing(false).pragma("cache_size", format!("-{reading_kib}"));
        let pool = |connections: u32, options: SqliteConnectOptions| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .connect_lazy_with(options)
        };
        Self {
            place: path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned()),
            writer: pool(1, options),
            readers: pool(purpose.readers_max, reading.clone()),
            look_ups: pool(1, reading),
        }
    }

    /// Closes every connection, and waits for those that are in use.
    async fn close(&self) {
        for pool in [&self.writer, &self.readers, &self.look_ups] {
            pool.close().await;
        }
    }

    /// Brings the file to the schema of this version.
    async fn migrate(&self, shard: &ShardRef, migrator: &sqlx::migrate::Migrator) -> Result<(), Error> {
        let migrated = tokio::time::timeout(OPEN_TIMEOUT, migrator.run(&self.writer)).await.map_err(|_| {
            let why = format!("it did not open within {OPEN_TIMEOUT:?}; it may be damaged");
            Error::Engine { place: self.place.clone(), source: why.into() }
        })?;
        migrated.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(source) | sqlx::migrate::MigrateError::ExecuteMigration(source, _) => {
                self.failed(shard, source)
            }
            other => self.failed(shard, sqlx::Error::Migrate(Box::new(other))),
        })
    }

    /// What the file says whose it is must be whose it is to be.
    fn identified(&self, found: &Identity, wanted: &Identity) -> Result<(), Error> {
        if found == wanted {
            return Ok(());
        }
        Err(Error::Identity { place: self.place.clone(), found: found.to_string(), wanted: wanted.to_string() })
    }

    /// What an error of the engine means for a shard.
    fn failed(&self, shard: &ShardRef, source: impl Into<Arc<sqlx::Error>>) -> Error {
        const SQLITE_CORRUPT: i32 = 11;
        const SQLITE_FULL: i32 = 13;
        const SQLITE_NOTADB: i32 = 26;
        // The index of the write-ahead log gets its whole size when a file is opened.
        const SQLITE_IOERR_SHMSIZE: i32 = 4874;
        let source = source.into();
        let code = source.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
        let primary = code.map(|code| code & 0xff);
        // A column of another type than the table has: the file is not what was written.
        let unreadable = matches!(*source, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_));
        match (primary, code) {
            (Some(SQLITE_FULL), _) | (_, Some(SQLITE_IOERR_SHMSIZE)) => Error::Full { place: self.place.clone() },
            (Some(SQLITE_CORRUPT | SQLITE_NOTADB), _) => self.corrupt(shard, &source.to_string()),
            (None, _) if unreadable => self.corrupt(shard, &source.to_string()),
            _ => Error::Engine { place: self.place.clone(), source: Box::new(source) },
        }
    }

    fn corrupt(&self, shard: &ShardRef, what: &str) -> Error {
        let what = format!("{}: {what}", self.place);
        Error::Corrupt(Corrupt::new(shard, paymesh_types::Sequence(0), what))
    }
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).expect("sequence numbers, epochs and instants stay below 2^63")
}

/// A number to look up, which a caller may have made up: none is stored past 2^63, so none is found there.
fn wanted(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Holding;

    async fn pragma(pool: &SqlitePool, name: &'static str) -> String {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"))).fetch_one(pool).await;
        sqlx::Row::get(&row.expect("a pragma is read"), 0)
    }

    /// What no crash of a process can show: without it, a power cut takes what was answered.
    #[tokio::test]
    async fn commits_of_journals_are_synced_and_tables_keep_their_consistency() {
        let directory = tempfile::tempdir().expect("a directory");
        let identity = Identity {
            mesh: "test".to_owned(),
            shard: ShardRef { zone: "eu".parse().expect("a zone's name"), index: 0 },
            shards: 1,
            holding: Holding::Whole,
        };
        let engine = Engine::new(directory.path());
        engine.store(&identity).await.expect("the storage opens");
        let tables = SqliteTables::open(directory.path(), &identity).await.expect("the tables open");
        // 2 is FULL, 1 is NORMAL.
        for (writer, synchronous) in [(&engine.journals.file.writer, "2"), (tables.writer(), "1")] {
            assert_eq!((pragma(writer, "synchronous").await.as_str(), pragma(writer, "journal_mode").await.as_str()), (synchronous, "wal"));
        }
    }
}
