//! The query tables in SQLite.

mod restore;
pub(super) mod rows;
mod snapshot;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use paymesh_ledger::{Account, LineId, Missing, Monitored, Payment, PaymentMethod, Records, Wallet};
use paymesh_types::{Country, Currency, Cursor, RequestId, Sequence, ShardRef, Timestamp, UserId, ZoneName};
use sqlx::{
    AssertSqlSafe, Connection as _, Sqlite, SqliteConnection, SqlitePool,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow, SqliteSynchronous},
};

use super::{File, Purpose, stored, wanted};
use crate::{Error, Identity, LINES_WALKED_MAX, Line, PaymentRow, Projection, Row, Snapshot, Tables};
use rows::Bad;
use snapshot::SqliteSnapshot;

const PAGE_BYTES: u32 = 4096;
const CACHE_KIB: u32 = 32 * 1024;
/// The WAL is folded into the file at about 256 MiB: pages that many batches touched are then written once.
const CHECKPOINT_PAGES: u32 = 65_536;
/// Rows of one INSERT at most; shorter ones have a power of two, so that few statements serve all batches.
const ROWS_MAX: usize = 256;
/// Connections that read.
const READERS_MAX: u32 = 2;

/// Tables in a file of their own.
#[derive(Debug)]
pub struct SqliteTables {
    shard: ShardRef,
    file: File,
}

impl SqliteTables {
    /// Opens, and makes where it is missing, the tables of a shard in `directory`.
    ///
    /// # Errors
    /// The file cannot be opened or made, or belongs to something else.
    pub(super) async fn open(directory: &Path, identity: &Identity) -> Result<Self, Error> {
        static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite-tables");
        let shard = identity.shard.clone();
        let purpose = Purpose {
            synchronous: SqliteSynchronous::Normal,
            page_bytes: PAGE_BYTES,
            cache_kib: CACHE_KIB,
            checkpoint_pages: CHECKPOINT_PAGES,
            readers_max: READERS_MAX,
        };
        let file = File::new(&Self::path(directory, &shard), purpose);
        let this = Self { shard, file };
        this.file.migrate(&this.shard, &MIGRATIONS).await?;
        this.identify(identity).await?;
        Ok(this)
    }

    /// The file of a shard's tables.
    pub(super) fn path(directory: &Path, shard: &ShardRef) -> PathBuf {
        directory.join(format!("{}-{}.tables.sqlite", shard.zone, shard.index))
    }

    async fn identify(&self, wanted: &Identity) -> Result<(), Error> {
        let failed = |source| self.failed(source);
        sqlx::query("INSERT INTO identity (id, mesh, zone, shard, shards, held_for) VALUES (1, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(&wanted.mesh)
            .bind(wanted.shard.zone.as_str())
            .bind(i64::from(wanted.shard.index))
            .bind(i64::from(wanted.shards))
            .bind(rows::held_for(&wanted.holding))
            .execute(&self.file.writer)
            .await
            .map_err(failed)?;
        let row =
            sqlx::query("SELECT mesh, zone, shard, shards, held_for FROM identity").fetch_one(&self.file.writer).await.map_err(failed)?;
        let found = rows::identity(&row).map_err(|bad| self.bad(bad))?;
        self.file.identified(&found, wanted)
    }

    #[cfg(test)]
    pub(super) fn writer(&self) -> &sqlx::SqlitePool {
        &self.file.writer
    }

    fn failed(&self, source: sqlx::Error) -> Error {
        self.file.failed(&self.shard, source)
    }

    fn bad(&self, bad: Bad) -> Error {
        bad.of(&self.shard, &self.file)
    }

    /// What is done to tables that nothing was projected to.
    async fn while_empty(&self, doing: impl Future<Output = Result<bool, sqlx::Error>>) -> Result<(), Error> {
        match doing.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NotNext { head: self.cursor().await?, offered: Sequence(0) }),
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn claims_in(&self, readers: &SqlitePool, users: &[UserId]) -> Result<Vec<(UserId, ZoneName)>, Error> {
        let users = json(users.iter().map(|user| user.get()));
        let found = sqlx::query("SELECT user_id, zone FROM claims WHERE user_id IN (SELECT value FROM json_each(?))").bind(users);
        let found = found.fetch_all(readers).await.map_err(|error| self.failed(error))?;
        found.iter().map(|row| rows::claim(row).map_err(|bad| self.bad(bad))).collect()
    }

    async fn all(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<Vec<SqliteRow>, Error> {
        query.fetch_all(&self.file.readers).await.map_err(|error| self.failed(error))
    }

    async fn look_up(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<Vec<SqliteRow>, Error> {
        query.fetch_all(&self.file.look_ups).await.map_err(|error| self.failed(error))
    }
}

async fn read_books(connection: &mut SqliteConnection) -> Result<Records, Bad> {
    let mut records = Records::default();
    for row in sqlx::query("SELECT kind, party, shard, currency, balance FROM system_accounts").fetch_all(&mut *connection).await? {
        records.system.push(rows::system(&row)?);
    }
    for row in sqlx::query("SELECT kind, zone, shard, sequence, mark FROM peers").fetch_all(&mut *connection).await? {
        match rows::peer(&row)? {
            (rows::INBOX, shard, cursor) => records.inbox.push((shard, cursor)),
            (_, shard, cursor) => records.delivered.push((shard, cursor.sequence)),
        }
    }
    let mut days = Vec::new();
    for row in
        sqlx::query("SELECT day, means, payments, minor, frauds, fraud_minor FROM monitored_days").fetch_all(&mut *connection).await?
    {
        days.push(rows::monitored_day(&row)?);
    }
    for row in sqlx::query("SELECT newest_request_ms, monitored_since FROM cursor").fetch_all(&mut *connection).await? {
        records.newest_request_ms = Some(rows::number(&row, "newest_request_ms")?.0);
        records.monitored = Monitored::new(rows::monitored_since(&row)?, std::mem::take(&mut days));
    }
    Ok(records)
}

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Inserts many rows with few statements: `head` up to VALUES, then the rows, then `tail`.
async fn insert<T>(
    connection: &mut SqliteConnection,
    head: &'static str,
    columns: usize,
    tail: &'static str,
    mut rows: &[T],
    bind: impl for<'q> Fn(Statement<'q>, &T) -> Statement<'q>,
) -> Result<(), sqlx::Error> {
    while !rows.is_empty() {
        // The largest power of two that is left.
        let count = (1 << rows.len().ilog2()).min(ROWS_MAX);
        let (chunk, rest) = rows.split_at(count);
        rows = rest;
        let mut sql = String::with_capacity(head.len() + tail.len() + count * (2 * columns + 3));
        sql.push_str(head);
        for index in 0..count {
            sql.push_str(if index == 0 { " VALUES (?" } else { ",(?" });
            (1..columns).for_each(|_| sql.push_str(",?"));
            sql.push(')');
        }
        sql.push_str(tail);
        // Safe: the text is made of constants and question marks.
        let statement = chunk.iter().fold(sqlx::query(AssertSqlSafe(sql)), &bind);
        statement.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write(connection: &mut SqliteConnection, projection: &Projection) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query("UPDATE cursor SET sequence = ?1, newest_request_ms = max(newest_request_ms, ?3) WHERE sequence = ?2")
        .bind(stored(projection.up_to.0))
        .bind(stored(projection.after.0))
        .bind(stored(projection.newest_request_ms))
        .execute(&mut *connection)
        .await?;
    if moved.rows_affected() != 1 {
        return Ok(false);
    }
    insert(connection, "INSERT INTO users (user_id, country)", 2, "", &projection.users, |query, (user, country)| {
        query.bind(stored(user.get())).bind(country.code().to_owned())
    })
    .await?;
    insert(connection, "INSERT INTO claims (user_id, zone)", 2, "", &projection.claims, |query, (user, zone)| {
        query.bind(stored(user.get())).bind(zone.as_str().to_owned())
    })
    .await?;
    write_wallets(connection, projection).await?;
    write_methods(connection, projection).await?;
    write_history(connection, projection).await?;
    write_cursors(connection, projection).await?;
    Ok(true)
}

async fn write_wallets(connection: &mut SqliteConnection, projection: &Projection) -> Result<(), sqlx::Error> {
    // In key order, so that neighbours are written together.
    let mut opened = projection.opened.clone();
    opened.sort_unstable();
    insert(
        connection,
        "INSERT INTO wallets (user_id, currency, balance, held, closed, last_line, last_payment)",
        7,
        "",
        &opened,
        |query, key| {
            query.bind(stored(key.0.get())).bind(i64::from(key.1.numeric())).bind(0i64).bind(0i64).bind(0i64).bind(0i64).bind(0i64)
        },
    )
    .await?;
    let mut wallets: Vec<_> = projection.wallets.iter().collect();
    wallets.sort_unstable_by_key(|(key, _)| **key);
    insert(
        connection,
        "INSERT INTO wallets (user_id, currency, balance, held, closed, last_line, last_payment, exempted_payments, exempted_minor)",
        9,
        " ON CONFLICT (user_id, currency) DO UPDATE SET balance = excluded.balance, held = excluded.held, last_line = excluded.last_line,
          last_payment = max(last_payment, excluded.last_payment), exempted_payments = excluded.exempted_payments,
          exempted_minor = excluded.exempted_minor",
        &wallets,
        |query, (key, row)| {
            query
                .bind(stored(key.0.get()))
                .bind(i64::from(key.1.numeric()))
                .bind(row.balance)
                .bind(row.held)
                .bind(0i64)
                .bind(stored(row.last_line.0))
                .bind(stored(row.last_payment.0))
                .bind(i64::from(row.exempted.payments))
                .bind(row.exempted.minor)
        },
    )
    .await?;
    for (user, currency) in &projection.closed {
        sqlx::query("UPDATE wallets SET closed = 1 WHERE user_id = ? AND currency = ?")
            .bind(stored(user.get()))
            .bind(i64::from(currency.numeric()))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn write_methods(connection: &mut SqliteConnection, projection: &Projection) -> Result<(), sqlx::Error> {
    let mut added = Vec::new();
    for ((user, sequence), method) in &projection.methods {
        match method {
            Some(method) => added.push((*user, method)),
            None => {
                sqlx::query("DELETE FROM methods WHERE user_id = ? AND added = ?")
                    .bind(stored(user.get()))
                    .bind(stored(sequence.0))
                    .execute(&mut *connection)
                    .await?;
            }
        }
    }
    insert(connection, "INSERT INTO methods (user_id, added, added_at, token)", 4, "", &added, |query, (user, method)| {
        bind_method(query, *user, method)
    })
    .await
}

async fn write_history(connection: &mut SqliteConnection, projection: &Projection) -> Result<(), sqlx::Error> {
    insert(
        connection,
        "INSERT INTO lines (id, user_id, currency, kind, amount, balance, at, payment, counterparty, reference, previous)",
        11,
        "",
        &projection.lines,
        bind_line,
    )
    .await?;
    insert(
        connection,
        "INSERT INTO payments (sequence, epoch, payer, payee, payee_zone, payee_shard, currency, amount, captured, refunded, sent, phase,
         reason, created_at, expires_at, previous, reference, charge, in_progress)",
        19,
        "",
        &projection.created,
        bind_payment,
    )
    .await?;
    for payment in projection.changed.values() {
        sqlx::query("UPDATE payments SET captured = ?, refunded = ?, sent = ?, phase = ?, reason = ?, expires_at = ?, charge = ?, in_progress = ? WHERE sequence = ?")
            .bind(payment.captured)
            .bind(payment.refunded)
            .bind(stored(payment.sent.0))
            .bind(rows::phase(payment.phase))
            .bind(rows::reason(payment.reason))
            .bind(payment.expires_at.map(|at| stored(at.0)))
            .bind(rows::charge_of(payment))
            .bind(rows::in_progress(payment))
            .bind(stored(payment.sequence.0))
            .execute(&mut *connection)
            .await?;
    }
    // An id whose first use was purged can be used again; when tables are made anew, or lost the purge in a crash, the first
    // use is still there: the newest counts.
    insert(
        connection,
        "INSERT INTO requests (sequence, request_id, at)",
        3,
        " ON CONFLICT (request_id) DO UPDATE SET sequence = excluded.sequence, at = excluded.at",
        &projection.requests,
        |query, (sequence, id, at)| query.bind(stored(sequence.0)).bind(id.as_bytes().to_vec()).bind(stored(at.0)),
    )
    .await
}

async fn write_cursors(connection: &mut SqliteConnection, projection: &Projection) -> Result<(), sqlx::Error> {
    let system: Vec<_> = projection.system.iter().collect();
    let inbox = projection.inbox.iter().map(|(shard, cursor)| (shard, *cursor));
    let delivered = projection.delivered.iter().map(|(shard, sequence)| (shard, *sequence));
    write_books(connection, &system, &peers(inbox, delivered)).await?;
    write_monitored(connection, &projection.monitored).await
}

/// Puts days into the tables, and lets go of those that no longer count.
async fn write_monitored(connection: &mut SqliteConnection, monitored: &Monitored) -> Result<(), sqlx::Error> {
    let (Some(since), Some(oldest)) = (monitored.since(), monitored.oldest_kept()) else { return Ok(()) };
    insert(
        connection,
        "INSERT OR REPLACE INTO monitored_days (day, means, payments, minor, frauds, fraud_minor)",
        6,
        "",
        &monitored.days().collect::<Vec<_>>(),
        |query, ((day, means), totals)| {
            query
                .bind(i64::from(day.0))
                .bind(rows::means(*means))
                .bind(stored(totals.payments))
                .bind(totals.minor)
                .bind(stored(totals.frauds))
                .bind(totals.fraud_minor)
        },
    )
    .await?;
    sqlx::query("DELETE FROM monitored_days WHERE day < ?").bind(i64::from(oldest.0)).execute(&mut *connection).await?;
    sqlx::query("UPDATE cursor SET monitored_since = coalesce(monitored_since, ?)").bind(i64::from(since.0)).execute(connection).await?;
    Ok(())
}

/// Rows of `peers`.
fn peers<'a>(
    inbox: impl Iterator<Item = (&'a ShardRef, Cursor)>,
    delivered: impl Iterator<Item = (&'a ShardRef, Sequence)>,
) -> Vec<(i64, ShardRef, Cursor)> {
    let inbox = inbox.map(|(shard, cursor)| (rows::INBOX, shard.clone(), cursor));
    inbox.chain(delivered.map(|(shard, sequence)| (rows::DELIVERED, shard.clone(), sequence.into()))).collect()
}

async fn write_books(
    connection: &mut SqliteConnection,
    system: &[(&(Account, Currency), &i64)],
    peers: &[(i64, ShardRef, Cursor)],
) -> Result<(), sqlx::Error> {
    insert(
        connection,
        "INSERT INTO system_accounts (kind, party, shard, currency, balance)",
        5,
        " ON CONFLICT (kind, party, shard, currency) DO UPDATE SET balance = excluded.balance",
        system,
        |query, ((account, currency), balance)| {
            let (kind, party, shard) = match account {
                Account::Wallet(_) => unreachable!("wallets have a table of their own"),
                Account::External => (rows::EXTERNAL, "", 0),
                Account::Sent(peer) => (rows::SENT, peer.zone.as_str(), peer.index),
                Account::Received(peer) => (rows::RECEIVED, peer.zone.as_str(), peer.index),
                Account::Acquirer(gateway) => (rows::ACQUIRER, gateway.as_str(), 0),
                Account::RefundsPayable => (rows::REFUNDS_PAYABLE, "", 0),
            };
            query.bind(kind).bind(party.to_owned()).bind(i64::from(shard)).bind(i64::from(currency.numeric())).bind(**balance)
        },
    )
    .await?;
    insert(
        connection,
        "INSERT INTO peers (kind, zone, shard, sequence, mark)",
        5,
        " ON CONFLICT (kind, zone, shard) DO UPDATE SET sequence = excluded.sequence, mark = excluded.mark
          WHERE excluded.sequence > sequence",
        peers,
        |query, (kind, shard, cursor)| {
            query
                .bind(*kind)
                .bind(shard.zone.as_str().to_owned())
                .bind(i64::from(shard.index))
                .bind(stored(cursor.sequence.0))
                .bind(cursor.mark.map(|mark| mark.get().cast_signed()))
        },
    )
    .await
}

fn bind_method<'q>(query: Statement<'q>, user: UserId, method: &PaymentMethod) -> Statement<'q> {
    query.bind(stored(user.get())).bind(stored(method.added.0)).bind(stored(method.added_at.0)).bind(method.token.to_string())
}

fn bind_line<'q>(query: Statement<'q>, line: &Line) -> Statement<'q> {
    query
        .bind(stored(line.id.0))
        .bind(stored(line.user.get()))
        .bind(i64::from(line.currency.numeric()))
        .bind(line.kind as i64)
        .bind(line.amount)
        .bind(line.balance)
        .bind(stored(line.at.0))
        .bind(line.payment.as_ref().map(ToString::to_string))
        .bind(line.counterparty.map(|user| stored(user.get())))
        .bind(some_text(&line.reference))
        .bind(stored(line.previous.0))
}

fn bind_payment<'q>(query: Statement<'q>, row: &PaymentRow) -> Statement<'q> {
    let payment = &row.payment;
    query
        .bind(stored(payment.sequence.0))
        .bind(stored(payment.epoch.0))
        .bind(stored(payment.payer.get()))
        .bind(stored(payment.payee.get()))
        .bind(payment.payee_shard.as_ref().map(|shard| shard.zone.as_str().to_owned()))
        .bind(payment.payee_shard.as_ref().map(|shard| i64::from(shard.index)))
        .bind(i64::from(payment.currency.numeric()))
        .bind(payment.amount)
        .bind(payment.captured)
        .bind(payment.refunded)
        .bind(stored(payment.sent.0))
        .bind(rows::phase(payment.phase))
        .bind(rows::reason(payment.reason))
        .bind(stored(payment.created_at.0))
        .bind(payment.expires_at.map(|at| stored(at.0)))
        .bind(stored(row.previous.0))
        .bind(some_text(&row.reference))
        .bind(rows::charge_of(payment))
        .bind(rows::in_progress(payment))
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Numbers as a JSON array, which `json_each` turns into rows: one statement for any count.
fn json(numbers: impl Iterator<Item = u64>) -> String {
    let mut text = String::from("[");
    for number in numbers {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&number.to_string());
    }
    text.push(']');
    text
}

fn json_hex<'a>(ids: impl Iterator<Item = &'a RequestId>) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("[");
    for id in ids {
        text.push_str(if text.len() > 1 { ",\"" } else { "\"" });
        write!(text, "{:032x}", u128::from_be_bytes(*id.as_bytes())).expect("a string has room");
        text.push('"');
    }
    text.push(']');
    text
}

const PAYMENT_COLUMNS: &str =
    "sequence, epoch, payer, payee, payee_zone, payee_shard, currency, amount, captured, refunded, sent, phase, reason,
    created_at, expires_at, previous, reference, charge";

#[async_trait]
impl Tables for SqliteTables {
    async fn cursor(&self) -> Result<Sequence, Error> {
        let sequence: i64 =
            sqlx::query_scalar("SELECT sequence FROM cursor").fetch_one(&self.file.look_ups).await.map_err(|error| self.failed(error))?;
        Ok(rows::sequence(sequence))
    }

    async fn project(&self, projection: &Projection) -> Result<(), Error> {
        let failed = |error| self.failed(error);
        let mut connection = self.file.writer.acquire().await.map_err(failed)?;
        let projected = async {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let follows = write(&mut transaction, projection).await?;
            if follows { transaction.commit().await } else { transaction.rollback().await }.map(|()| follows)
        };
        match projected.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NotNext { head: self.cursor().await?, offered: projection.after.next() }),
            Err(error) => {
                // The engine ends a transaction by itself when its disk is full, which sqlx does not notice: its connection
                // would begin no other one.
                connection.close_on_drop();
                Err(failed(error))
            }
        }
    }

    async fn records(&self, missing: &Missing) -> Result<Records, Error> {
        let mut records = Records::default();
        if !missing.users.is_empty() {
            let users = json(missing.users.iter().map(|user| user.get()));
            let found = sqlx::query("SELECT user_id, country FROM users WHERE user_id IN (SELECT value FROM json_each(?))").bind(users);
            for row in self.look_up(found).await? {
                records.users.push(rows::user(&row).map_err(|bad| self.bad(bad))?);
            }
        }
        if !missing.wallets.is_empty() {
            let users = json(missing.wallets.iter().map(|(user, _)| user.get()));
            let found = sqlx::query(
                "SELECT user_id, currency, balance, held, closed, last_line, last_payment, exempted_payments, exempted_minor FROM wallets
                 WHERE user_id IN (SELECT value FROM json_each(?))",
            )
            .bind(users);
            for row in self.look_up(found).await? {
                records.wallets.push(rows::wallet(&row).map_err(|bad| self.bad(bad))?);
            }
        }
        if !missing.payments.is_empty() {
            let sequences = json(missing.payments.iter().map(|sequence| sequence.0));
            let sql = format!("SELECT {PAYMENT_COLUMNS} FROM payments WHERE sequence IN (SELECT value FROM json_each(?))");
            for row in self.look_up(sqlx::query(AssertSqlSafe(sql)).bind(sequences)).await? {
                records.payments.push(rows::payment(&row).map_err(|bad| self.bad(bad))?.payment);
            }
        }
        if !missing.requests.is_empty() {
            let ids = json_hex(missing.requests.iter());
            let found =
                sqlx::query("SELECT request_id, sequence FROM requests WHERE request_id IN (SELECT unhex(value) FROM json_each(?))")
                    .bind(ids);
            for row in self.look_up(found).await? {
                records.requests.push(rows::request(&row).map_err(|bad| self.bad(bad))?);
            }
        }
        if !missing.claims.is_empty() {
            records.claims = self.claims_in(&self.file.look_ups, &missing.claims).await?;
        }
        if !missing.methods.is_empty() {
            let users = json(missing.methods.iter().map(|user| user.get()));
            let found = sqlx::query(
                "SELECT user_id, added, added_at, token FROM methods WHERE user_id IN (SELECT value FROM json_each(?)) ORDER BY user_id, added",
            )
            .bind(users);
            for row in self.look_up(found).await? {
                records.methods.push(rows::method(&row).map_err(|bad| self.bad(bad))?);
            }
        }
        Ok(records)
    }

    async fn books(&self) -> Result<Records, Error> {
        let mut connection = self.file.readers.acquire().await.map_err(|error| self.failed(error))?;
        read_books(&mut connection).await.map_err(|unread| unread.of(&self.shard, &self.file))
    }

    async fn wallets(&self, user: UserId) -> Result<Vec<(Currency, Wallet)>, Error> {
        let found = sqlx::query(
            "SELECT user_id, currency, balance, held, closed, last_line, last_payment, exempted_payments, exempted_minor FROM wallets WHERE user_id = ? ORDER BY currency",
        )
        .bind(stored(user.get()));
        let rows = self.all(found).await?;
        rows.iter().map(|row| rows::wallet(row).map(|((_, currency), wallet)| (currency, wallet)).map_err(|bad| self.bad(bad))).collect()
    }

    async fn methods(&self, user: UserId) -> Result<Vec<PaymentMethod>, Error> {
        let found = sqlx::query("SELECT user_id, added, added_at, token FROM methods WHERE user_id = ? ORDER BY added");
        let rows = self.all(found.bind(stored(user.get()))).await?;
        rows.iter().map(|row| rows::method(row).map(|(_, method)| method).map_err(|bad| self.bad(bad))).collect()
    }

    async fn user(&self, user: UserId) -> Result<Option<Country>, Error> {
        let rows = self.all(sqlx::query("SELECT user_id, country FROM users WHERE user_id = ?").bind(stored(user.get()))).await?;
        rows.first().map(|row| rows::user(row).map(|(_, country)| country).map_err(|bad| self.bad(bad))).transpose()
    }

    async fn claims(&self, users: &[UserId]) -> Result<Vec<(UserId, ZoneName)>, Error> {
        self.claims_in(&self.file.readers, users).await
    }

    async fn request(&self, id: RequestId) -> Result<Option<Sequence>, Error> {
        let found = sqlx::query("SELECT request_id, sequence FROM requests WHERE request_id = ?").bind(id.as_bytes().to_vec());
        let found = self.all(found).await?;
        found.first().map(|row| rows::request(row).map(|(_, sequence)| sequence).map_err(|bad| self.bad(bad))).transpose()
    }

    async fn lines(&self, newest: LineId, limit: u32) -> Result<Vec<Line>, Error> {
        let found = sqlx::query(
            "WITH RECURSIVE walk (id, user_id, currency, kind, amount, balance, at, payment, counterparty, reference, previous) AS (
               SELECT id, user_id, currency, kind, amount, balance, at, payment, counterparty, reference, previous FROM lines WHERE id = ?1
               UNION ALL
               SELECT older.id, older.user_id, older.currency, older.kind, older.amount, older.balance, older.at, older.payment,
                      older.counterparty, older.reference, older.previous
               FROM walk JOIN lines AS older ON older.id = walk.previous
               LIMIT ?2
             ) SELECT * FROM walk",
        )
        .bind(wanted(newest.0))
        .bind(i64::from(limit.min(LINES_WALKED_MAX)));
        self.all(found).await?.iter().map(|row| rows::line(row).map_err(|bad| self.bad(bad))).collect()
    }

    async fn payment(&self, sequence: Sequence) -> Result<Option<PaymentRow>, Error> {
        Ok(self.payments(sequence, 1).await?.into_iter().next())
    }

    async fn payments(&self, newest: Sequence, limit: u32) -> Result<Vec<PaymentRow>, Error> {
        let found = sqlx::query(
            "WITH RECURSIVE walk (sequence, previous) AS (
               SELECT sequence, previous FROM payments WHERE sequence = ?1
               UNION ALL
               SELECT older.sequence, older.previous FROM walk JOIN payments AS older ON older.sequence = walk.previous
               LIMIT ?2
             )
             SELECT payments.sequence, epoch, payer, payee, payee_zone, payee_shard, currency, amount, captured, refunded, sent, phase, reason,
                    created_at, expires_at, payments.previous, reference, charge, coalesce(peers.sequence, 0) AS delivered
             FROM walk JOIN payments ON payments.sequence = walk.sequence
             LEFT JOIN peers ON peers.kind = 1 AND peers.zone = payee_zone AND peers.shard = payee_shard
             ORDER BY payments.sequence DESC",
        )
        .bind(wanted(newest.0))
        .bind(i64::from(limit.min(LINES_WALKED_MAX)));
        let rows = self.all(found).await?;
        rows.iter()
            .map(|row| {
                let mut payment = rows::payment(row).map_err(|bad| self.bad(bad))?;
                payment.delivered = rows::number(row, "delivered").map_err(|bad| self.bad(bad))?;
                Ok(payment)
            })
            .collect()
    }

    async fn expired(&self, now: Timestamp, limit: u32) -> Result<Vec<Sequence>, Error> {
        let found = sqlx::query(
            "SELECT sequence FROM payments WHERE phase IN (1, 8) AND in_progress = 0 AND expires_at <= ? ORDER BY expires_at LIMIT ?",
        )
        .bind(wanted(now.0))
        .bind(i64::from(limit));
        self.all(found).await?.iter().map(|row| rows::number(row, "sequence").map_err(|bad| self.bad(bad))).collect()
    }

    async fn in_progress(&self, after: Sequence, limit: u32) -> Result<Vec<Payment>, Error> {
        let sql = format!("SELECT {PAYMENT_COLUMNS} FROM payments WHERE in_progress > 0 AND sequence > ? ORDER BY sequence LIMIT ?");
        let found = sqlx::query(AssertSqlSafe(sql)).bind(wanted(after.0)).bind(i64::from(limit));
        let rows = self.all(found).await?;
        rows.iter().map(|row| rows::payment(row).map(|row| row.payment).map_err(|bad| self.bad(bad))).collect()
    }

    async fn purge_requests(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let purged = sqlx::query(
            "DELETE FROM requests WHERE sequence <= (
               SELECT max(sequence) FROM (SELECT sequence, at FROM requests ORDER BY sequence LIMIT ?1) WHERE at < ?2)",
        )
        .bind(i64::from(limit))
        .bind(wanted(before.0))
        .execute(&self.file.writer)
        .await
        .map_err(|error| self.failed(error))?;
        Ok(purged.rows_affected())
    }

    async fn clear(&self) -> Result<(), Error> {
        restore::clear(&self.file).await.map_err(|error| self.failed(error))
    }

    async fn restore(&self, rows: &[Row]) -> Result<(), Error> {
        self.while_empty(restore::rows(&self.file, rows)).await
    }

    async fn restored(&self, sequence: Sequence, books: &Records) -> Result<(), Error> {
        self.while_empty(restore::finish(&self.file, sequence, books)).await
    }

    async fn close(&self) {
        self.file.close().await;
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        Ok(Box::new(SqliteSnapshot::take(&self.shard, &self.file).await?))
    }
}
