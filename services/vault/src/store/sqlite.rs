//! The embedded store: one SQLite file of the vault's own.
//!
//! In WAL mode with `synchronous=FULL`: what was answered survives a power cut. With `secure_delete`, so that what is deleted is overwritten with zeros in
//! the file; after an erasure the write-ahead log is folded into the file and emptied, which takes it away there too. Neither reaches what the file
//! system keeps elsewhere (snapshots, copies on write, flash that maps blocks anew) nor backups: against these there is the destruction of
//! key-encryption keys (`rotation.rs`).

mod group;

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use paymesh_types::{RequestId, Timestamp, UserId, ZoneName};
use sqlx::{
    Row as _, Sqlite, SqliteConnection, SqlitePool, Transaction,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use super::{
    AddedCard, AddedKey, BegunRotation, CARDS_PER_USER_MAX, DeletedCard, ErasedUser, Error, KeyName, NewCard, Outcome, Purpose, State,
    Store, StoredCard, TokenId, WrappedKey,
};
use crate::keys::KekId;
use group::{Group, Write, Wrote};

/// The file's name in the vault's directory.
const FILE_NAME: &str = "vault.sqlite";
/// How long a connection waits for another's lock, and a caller for a connection.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Connections that reads share.
const READERS_MAX: u32 = 4;

const USER: i64 = 1;
const FINGERPRINTS: i64 = 2;
const SEALING: i64 = 3;

const TOKENIZED: i64 = 1;
const DELETED: i64 = 2;
const ERASED: i64 = 3;
/// Of no user (0); `count` is the key-encryption key.
const ROTATING: i64 = 4;

/// A key's columns, in the order that [`SqliteStore::key`] reads them.
macro_rules! key_query {
    ($rest:literal) => {
        sqlx::query(concat!("SELECT id, purpose, user, kek, wrapped, public_key, made_at FROM keys ", $rest))
    };
}

/// A vault's file. Cheap to clone; all clones share their connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    place: Arc<str>,
    writer: SqlitePool,
    readers: SqlitePool,
    group: Arc<Group>,
}

impl SqliteStore {
    /// Opens the store in a directory, and makes it where it is missing: of this mesh and zone, or refused.
    ///
    /// # Errors
    /// It cannot be opened or made, or belongs to something else.
    pub async fn open(directory: &Path, mesh: &str, zone: &ZoneName) -> Result<Self, Error> {
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
            .pragma("secure_delete", "ON")
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
        let store =
            Self { place, writer: pool(1, options.clone()), readers: pool(READERS_MAX, options.read_only(true)), group: Arc::default() };
        static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");
        MIGRATIONS.run(&store.writer).await.map_err(|error| store.failed(sqlx::Error::Migrate(Box::new(error))))?;
        store.identify(mesh, zone).await?;
        Ok(store)
    }

    /// Closes every connection, and waits for those that are in use.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn identify(&self, mesh: &str, zone: &ZoneName) -> Result<(), Error> {
        let new = sqlx::query("INSERT INTO vault (id, mesh, zone) VALUES (1, ?, ?) ON CONFLICT DO NOTHING").bind(mesh).bind(zone.as_str());
        new.execute(&self.writer).await.map_err(|error| self.failed(error))?;
        let row = sqlx::query("SELECT mesh, zone FROM vault").fetch_one(&self.writer).await.map_err(|error| self.failed(error))?;
        let told = |mesh: &str, zone: &str| format!("the vault of zone {zone} of mesh {mesh}");
        let found = told(self.get(&row, 0)?, self.get(&row, 1)?);
        let wanted = told(mesh, zone.as_str());
        if found != wanted {
            return Err(Error::Identity { place: self.place.to_string(), found, wanted });
        }
        Ok(())
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

    fn damaged(&self, what: &str) -> Error {
        Error::Damaged { place: self.place.to_string(), what: what.to_owned() }
    }

    fn get<'r, T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>>(&self, row: &'r SqliteRow, column: usize) -> Result<T, Error> {
        row.try_get(column).map_err(|error| self.failed(error))
    }

    fn bytes<const N: usize>(&self, row: &SqliteRow, column: usize) -> Result<[u8; N], Error> {
        let bytes: &[u8] = self.get(row, column)?;
        bytes.try_into().map_err(|_| self.damaged("an id or a hash has the wrong length"))
    }

    fn kek(&self, number: i64) -> Result<KekId, Error> {
        u32::try_from(number).ok().and_then(KekId::new).ok_or_else(|| self.damaged("a key-encryption key has no number that one can have"))
    }

    fn user(&self, number: i64) -> Result<UserId, Error> {
        u64::try_from(number)
            .ok()
            .and_then(|number| UserId::try_from(number).ok())
            .ok_or_else(|| self.damaged("a user has no number that one can have"))
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.failed(error))
    }

    async fn commit(&self, transaction: Transaction<'static, Sqlite>) -> Result<(), Error> {
        transaction.commit().await.map_err(|error| self.failed(error))
    }

    fn key(&self, row: &SqliteRow) -> Result<WrappedKey, Error> {
        let purpose = match (self.get(row, 1)?, self.get::<Option<i64>>(row, 2)?, self.get::<Option<Vec<u8>>>(row, 5)?) {
            (USER, Some(user), None) => Purpose::User(self.user(user)?),
            (FINGERPRINTS, None, None) => Purpose::Fingerprints,
            (SEALING, None, Some(public)) => Purpose::Sealing(public),
            _ => return Err(self.damaged("a key has no purpose that one can have")),
        };
        Ok(WrappedKey {
            name: self.bytes(row, 0)?,
            purpose,
            kek: self.kek(self.get(row, 3)?)?,
            wrapped: self.get(row, 4)?,
            made_at: Timestamp(self.get::<i64>(row, 6)?.unsigned_abs()),
        })
    }

    /// Adds a key within a transaction.
    async fn add_key_in(&self, connection: &mut SqliteConnection, key: &WrappedKey) -> Result<AddedKey, Error> {
        let current: Option<i64> = {
            let row = sqlx::query("SELECT kek FROM vault").fetch_one(&mut *connection).await.map_err(|error| self.failed(error))?;
            self.get(&row, 0)?
        };
        // From here on until the commit, the key-encryption key stays the current one: a rotation that names the next finds this key.
        if let Some(current) = current
            && current != i64::from(key.kek.get())
        {
            return Ok(AddedKey::Rotated(self.kek(current)?));
        }
        let existing = match &key.purpose {
            Purpose::User(user) => key_query!("WHERE user = ?").bind(stored(user.get())).fetch_optional(&mut *connection).await,
            Purpose::Fingerprints => key_query!("WHERE purpose = ?").bind(FINGERPRINTS).fetch_optional(&mut *connection).await,
            Purpose::Sealing(_) => Ok(None),
        };
        if let Some(row) = existing.map_err(|error| self.failed(error))? {
            return Ok(AddedKey::Exists(self.key(&row)?));
        }
        let (purpose, user, public) = match &key.purpose {
            Purpose::User(user) => (USER, Some(stored(user.get())), None),
            Purpose::Fingerprints => (FINGERPRINTS, None, None),
            Purpose::Sealing(public) => (SEALING, None, Some(public.as_slice())),
        };
        let insert = sqlx::query("INSERT INTO keys (id, purpose, user, kek, wrapped, public_key, made_at) VALUES (?, ?, ?, ?, ?, ?, ?)");
        let insert = insert.bind(&key.name[..]).bind(purpose).bind(user).bind(i64::from(key.kek.get())).bind(key.wrapped.as_slice());
        let insert = insert.bind(public).bind(stored(key.made_at.0));
        insert.execute(&mut *connection).await.map_err(|error| self.failed(error))?;
        Ok(AddedKey::Added)
    }

    /// Adds a card within a transaction.
    async fn add_card_in(&self, connection: &mut SqliteConnection, card: &NewCard) -> Result<AddedCard, Error> {
        let user = stored(card.user.get());
        // All questions in one: each costs as much as what it is to find.
        let known = sqlx::query(
            "SELECT r.kind, r.user, r.token, r.body, r.count, EXISTS (SELECT 1 FROM keys WHERE id = ?2 AND user = ?3), \
             (SELECT token FROM cards WHERE key = ?2 AND lookup = ?4), (SELECT count(*) FROM cards WHERE user = ?3) \
             FROM (SELECT 1) LEFT JOIN requests r ON r.id = ?1",
        );
        let known = known.bind(&card.request.as_bytes()[..]).bind(&card.key[..]).bind(user).bind(&card.lookup[..]);
        let known = known.fetch_one(&mut *connection).await.map_err(|error| self.failed(error))?;
        if self.get::<Option<i64>>(&known, 0)?.is_some() {
            return Ok(AddedCard::Replayed(self.outcome_at(&known, 0)?));
        }
        if !self.get::<bool>(&known, 5)? {
            return Ok(AddedCard::Gone);
        }
        let has = if self.get::<Option<&[u8]>>(&known, 6)?.is_some() { Some(self.bytes(&known, 6)?) } else { None };
        match has {
            Some(token) if token != card.token => return Ok(AddedCard::Has(token)),
            Some(_) => {}
            // A token that was deleted is not given out again.
            None if card.replaces => return Ok(AddedCard::Gone),
            None if self.get::<i64>(&known, 7)? >= i64::from(CARDS_PER_USER_MAX) => return Ok(AddedCard::Full),
            None => {}
        }
        let insert = sqlx::query(
            "INSERT INTO cards (token, user, key, lookup, sealed) VALUES (?, ?, ?, ?, ?) ON CONFLICT (token) DO UPDATE SET sealed = excluded.sealed",
        );
        let insert = insert.bind(&card.token[..]).bind(user).bind(&card.key[..]).bind(&card.lookup[..]).bind(card.sealed.as_slice());
        insert.execute(&mut *connection).await.map_err(|error| self.failed(error))?;
        let note = sqlx::query("INSERT INTO requests (id, kind, user, token, body) VALUES (?, ?, ?, ?, ?)");
        let note = note.bind(&card.request.as_bytes()[..]).bind(TOKENIZED).bind(user).bind(&card.token[..]).bind(&card.body[..]);
        note.execute(&mut *connection).await.map_err(|error| self.failed(error))?;
        Ok(AddedCard::Added)
    }

    async fn outcome_in(&self, connection: &mut SqliteConnection, request: RequestId) -> Result<Option<Outcome>, Error> {
        let row = sqlx::query("SELECT kind, user, token, body, count FROM requests WHERE id = ?").bind(&request.as_bytes()[..]);
        let row = row.fetch_optional(connection).await.map_err(|error| self.failed(error))?;
        row.map(|row| self.outcome_at(&row, 0)).transpose()
    }

    /// What became of a request, from its five columns.
    fn outcome_at(&self, row: &SqliteRow, first: usize) -> Result<Outcome, Error> {
        let kind = self.get(row, first)?;
        if kind == ROTATING {
            return Ok(Outcome::Rotating { kek: self.kek(self.get(row, first + 4)?)? });
        }
        let user = self.user(self.get(row, first + 1)?)?;
        Ok(match kind {
            TOKENIZED => {
                let has_body = self.get::<Option<&[u8]>>(row, first + 3)?.is_some();
                let body = if has_body { Some(self.bytes(row, first + 3)?) } else { None };
                Outcome::Tokenized { user, token: self.bytes(row, first + 2)?, body }
            }
            DELETED => Outcome::Deleted { user, token: self.bytes(row, first + 2)? },
            ERASED => {
                let tokens = u32::try_from(self.get::<i64>(row, first + 4)?).map_err(|_| self.damaged("a number of tokens is none"))?;
                Outcome::Erased { user, tokens }
            }
            _ => return Err(self.damaged("a request has no kind that one can have")),
        })
    }
}

/// Never back to a smaller one.
fn use_kek(kek: KekId, at: Timestamp) -> Query<'static, Sqlite, SqliteArguments> {
    let update = sqlx::query("UPDATE vault SET kek = ?1, kek_since = ?2, erased_at = NULL WHERE kek IS NULL OR kek < ?1");
    update.bind(i64::from(kek.get())).bind(stored(at.0))
}

fn stored(number: u64) -> i64 {
    i64::try_from(number).expect("users and instants stay below 2^63")
}

#[async_trait]
impl Store for SqliteStore {
    async fn state(&self) -> Result<State, Error> {
        let row = sqlx::query("SELECT kek, kek_since, erased_at FROM vault")
            .fetch_one(&self.readers)
            .await
            .map_err(|error| self.failed(error))?;
        let at = |microseconds: i64| Timestamp(microseconds.unsigned_abs());
        let kek = match (self.get::<Option<i64>>(&row, 0)?, self.get::<Option<i64>>(&row, 1)?) {
            (Some(kek), Some(since)) => Some((self.kek(kek)?, at(since))),
            _ => None,
        };
        Ok(State { kek, erased_at: self.get::<Option<i64>>(&row, 2)?.map(at) })
    }

    async fn use_kek(&self, kek: KekId, at: Timestamp) -> Result<(), Error> {
        use_kek(kek, at).execute(&self.writer).await.map(drop).map_err(|error| self.failed(error))
    }

    async fn begin_rotation(&self, request: RequestId, kek: KekId, at: Timestamp) -> Result<BegunRotation, Error> {
        let mut transaction = self.begin().await?;
        if let Some(outcome) = self.outcome_in(&mut transaction, request).await? {
            return Ok(BegunRotation::Replayed(outcome));
        }
        use_kek(kek, at).execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
        let note = sqlx::query("INSERT INTO requests (id, kind, user, count) VALUES (?, ?, 0, ?)");
        let note = note.bind(&request.as_bytes()[..]).bind(ROTATING).bind(i64::from(kek.get()));
        note.execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
        self.commit(transaction).await?;
        Ok(BegunRotation::Begun)
    }

    async fn user_key(&self, user: UserId) -> Result<Option<WrappedKey>, Error> {
        let row = key_query!("WHERE user = ?").bind(stored(user.get())).fetch_optional(&self.readers).await;
        row.map_err(|error| self.failed(error))?.map(|row| self.key(&row)).transpose()
    }

    async fn zone_keys(&self) -> Result<Vec<WrappedKey>, Error> {
        let rows = key_query!("WHERE user IS NULL ORDER BY made_at, id").fetch_all(&self.readers).await;
        rows.map_err(|error| self.failed(error))?.iter().map(|row| self.key(row)).collect()
    }

    async fn add_key(&self, key: &WrappedKey) -> Result<AddedKey, Error> {
        match self.write(Write::Key(key.clone())).await? {
            Wrote::Key(added) => Ok(added),
            Wrote::Card(_) => unreachable!("a key was written"),
        }
    }

    async fn remove_key(&self, name: &KeyName) -> Result<(), Error> {
        let delete = sqlx::query("DELETE FROM keys WHERE id = ? AND user IS NULL").bind(&name[..]);
        delete.execute(&self.writer).await.map(drop).map_err(|error| self.failed(error))
    }

    async fn not_under(&self, kek: KekId, limit: u32) -> Result<Vec<WrappedKey>, Error> {
        // Two ranges of the index, and no look at what lies between.
        let rows = key_query!(
            "WHERE kek < ?1 UNION ALL SELECT id, purpose, user, kek, wrapped, public_key, made_at FROM keys WHERE kek > ?1 LIMIT ?2"
        );
        // By the connection that writes: a reader might not see what was added last.
        let rows = rows.bind(i64::from(kek.get())).bind(i64::from(limit)).fetch_all(&self.writer).await;
        rows.map_err(|error| self.failed(error))?.iter().map(|row| self.key(row)).collect()
    }

    async fn count_not_under(&self, kek: KekId) -> Result<u64, Error> {
        let count = sqlx::query("SELECT (SELECT count(*) FROM keys WHERE kek < ?1) + (SELECT count(*) FROM keys WHERE kek > ?1)");
        let row = count.bind(i64::from(kek.get())).fetch_one(&self.readers).await.map_err(|error| self.failed(error))?;
        Ok(self.get::<i64>(&row, 0)?.unsigned_abs())
    }

    async fn rewrap(&self, keys: &[(WrappedKey, KekId)]) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        for (key, before) in keys {
            let update = sqlx::query("UPDATE keys SET kek = ?, wrapped = ? WHERE id = ? AND kek = ?");
            let update =
                update.bind(i64::from(key.kek.get())).bind(key.wrapped.as_slice()).bind(&key.name[..]).bind(i64::from(before.get()));
            update.execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
        }
        self.commit(transaction).await
    }

    async fn outcome(&self, request: RequestId) -> Result<Option<Outcome>, Error> {
        let mut connection = self.readers.acquire().await.map_err(|error| self.failed(error))?;
        self.outcome_in(&mut connection, request).await
    }

    async fn known(&self, request: RequestId, user: UserId) -> Result<(Option<Outcome>, Option<WrappedKey>), Error> {
        let both = sqlx::query(
            "SELECT k.id, k.purpose, k.user, k.kek, k.wrapped, k.public_key, k.made_at, r.kind, r.user, r.token, r.body, r.count \
             FROM (SELECT 1) LEFT JOIN keys k ON k.user = ? LEFT JOIN requests r ON r.id = ?",
        );
        let both = both.bind(stored(user.get())).bind(&request.as_bytes()[..]).fetch_one(&self.readers).await;
        let row = both.map_err(|error| self.failed(error))?;
        let outcome = if self.get::<Option<i64>>(&row, 7)?.is_some() { Some(self.outcome_at(&row, 7)?) } else { None };
        let key = if self.get::<Option<&[u8]>>(&row, 0)?.is_some() { Some(self.key(&row)?) } else { None };
        Ok((outcome, key))
    }

    async fn add_card(&self, card: &NewCard) -> Result<AddedCard, Error> {
        match self.write(Write::Card(card.clone())).await? {
            Wrote::Card(added) => Ok(added),
            Wrote::Key(_) => unreachable!("a card was written"),
        }
    }

    async fn card(&self, token: &TokenId) -> Result<Option<StoredCard>, Error> {
        let row = sqlx::query("SELECT user, sealed FROM cards WHERE token = ?").bind(&token[..]).fetch_optional(&self.readers).await;
        let Some(row) = row.map_err(|error| self.failed(error))? else { return Ok(None) };
        Ok(Some(StoredCard { user: self.user(self.get(&row, 0)?)?, sealed: self.get(&row, 1)? }))
    }

    async fn delete_card(&self, request: RequestId, token: &TokenId) -> Result<DeletedCard, Error> {
        let mut transaction = self.begin().await?;
        if let Some(outcome) = self.outcome_in(&mut transaction, request).await? {
            return Ok(DeletedCard::Replayed(outcome));
        }
        let deleted =
            sqlx::query("DELETE FROM cards WHERE token = ? RETURNING user").bind(&token[..]).fetch_optional(&mut *transaction).await;
        let Some(row) = deleted.map_err(|error| self.failed(error))? else { return Ok(DeletedCard::Missing) };
        let user: i64 = self.get(&row, 0)?;
        let note = sqlx::query("INSERT INTO requests (id, kind, user, token) VALUES (?, ?, ?, ?)");
        let note = note.bind(&request.as_bytes()[..]).bind(DELETED).bind(user).bind(&token[..]);
        note.execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
        self.commit(transaction).await?;
        Ok(DeletedCard::Deleted)
    }

    async fn erase(&self, request: RequestId, user: UserId, at: Timestamp) -> Result<ErasedUser, Error> {
        let mut transaction = self.begin().await?;
        if let Some(outcome) = self.outcome_in(&mut transaction, request).await? {
            return Ok(ErasedUser::Replayed(outcome));
        }
        let user = stored(user.get());
        let key = sqlx::query("DELETE FROM keys WHERE user = ?")
            .bind(user)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let cards = sqlx::query("DELETE FROM cards WHERE user = ?")
            .bind(user)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let tokens = u32::try_from(cards.rows_affected()).expect("a user has few cards");
        let forget = sqlx::query("UPDATE requests SET body = NULL WHERE user = ? AND body IS NOT NULL").bind(user);
        forget.execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
        if key.rows_affected() > 0 {
            let first = sqlx::query("UPDATE vault SET erased_at = coalesce(erased_at, ?)").bind(stored(at.0));
            first.execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
        }
        let note = sqlx::query("INSERT INTO requests (id, kind, user, count) VALUES (?, ?, ?, ?)");
        let note = note.bind(&request.as_bytes()[..]).bind(ERASED).bind(user).bind(i64::from(tokens));
        note.execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
        self.commit(transaction).await?;
        // What was overwritten is still in the log. Where somebody reads just now, that is for the next time: the user is erased all the same.
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_optional(&self.writer).await {
            tracing::warn!(place = %self.place, %error, "the write-ahead log of the vault could not be emptied after an erasure");
        }
        Ok(ErasedUser::Erased(tokens))
    }
}
