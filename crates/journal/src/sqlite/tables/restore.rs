//! Tables made from a checkpoint: all rows go, those of the checkpoint come, and in the end the cursor moves from 0.

use paymesh_ledger::{Account, Records};
use paymesh_types::{Currency, Sequence};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::{bind_line, bind_method, bind_payment, insert, peers, write_books, write_monitored};
use crate::{
    Row,
    sqlite::{File, stored},
};

const TABLES: [&str; 10] =
    ["users", "claims", "wallets", "methods", "lines", "payments", "requests", "system_accounts", "peers", "monitored_days"];

pub(super) async fn clear(file: &File) -> Result<(), sqlx::Error> {
    let mut connection = file.writer.acquire().await?;
    let cleared = async {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE cursor SET sequence = 0, newest_request_ms = 0, monitored_since = NULL").execute(&mut *transaction).await?;
        for table in TABLES {
            // Safe: the text is made of constants.
            sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    };
    let cleared = cleared.await;
    if cleared.is_err() {
        // As of a projection that failed: the engine may have ended the transaction by itself.
        connection.close_on_drop();
    }
    cleared
}

/// Puts rows into the tables; false, and nothing is done, where the cursor is not 0.
pub(super) async fn rows(file: &File, rows: &[Row]) -> Result<bool, sqlx::Error> {
    let mut connection = file.writer.acquire().await?;
    let put = async {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        if !is_empty(&mut transaction).await? {
            return Ok(false);
        }
        put(&mut transaction, rows).await?;
        transaction.commit().await.map(|()| true)
    };
    let put = put.await;
    if put.is_err() {
        connection.close_on_drop();
    }
    put
}

/// Puts the books into the tables and moves the cursor; false, and nothing is done, where it is not 0.
pub(super) async fn finish(file: &File, sequence: Sequence, books: &Records) -> Result<bool, sqlx::Error> {
    let mut connection = file.writer.acquire().await?;
    let finished = async {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let moved = sqlx::query("UPDATE cursor SET sequence = ?, newest_request_ms = ? WHERE sequence = 0")
            .bind(stored(sequence.0))
            .bind(stored(books.newest_request_ms.unwrap_or(0)))
            .execute(&mut *transaction)
            .await?;
        if moved.rows_affected() != 1 {
            return Ok(false);
        }
        let system: Vec<(&(Account, Currency), &i64)> = books.system.iter().map(|(key, balance)| (key, balance)).collect();
        let inbox = books.inbox.iter().map(|(shard, cursor)| (shard, *cursor));
        let peers = peers(inbox, books.delivered.iter().map(|(shard, sequence)| (shard, *sequence)));
        write_books(&mut transaction, &system, &peers).await?;
        write_monitored(&mut transaction, &books.monitored).await?;
        transaction.commit().await.map(|()| true)
    };
    let finished = finished.await;
    if finished.is_err() {
        connection.close_on_drop();
    }
    finished
}

async fn is_empty(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let cursor: i64 = sqlx::query_scalar("SELECT sequence FROM cursor").fetch_one(connection).await?;
    Ok(cursor == 0)
}

async fn put(connection: &mut SqliteConnection, all: &[Row]) -> Result<(), sqlx::Error> {
    let (mut users, mut claims, mut wallets, mut methods) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut lines, mut payments, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for row in all.iter().cloned() {
        match row {
            Row::User(user, country) => users.push((user, country)),
            Row::Claim(user, zone) => claims.push((user, zone)),
            Row::Wallet(key, wallet) => wallets.push((key, wallet)),
            Row::Method(user, method) => methods.push((user, method)),
            Row::Line(line) => lines.push(line),
            Row::Payment(row) => payments.push(row),
            Row::Request(sequence, id, at) => requests.push((sequence, id, at)),
        }
    }
    insert(connection, "INSERT OR REPLACE INTO users (user_id, country)", 2, "", &users, |query, (user, country)| {
        query.bind(stored(user.get())).bind(country.code().to_owned())
    })
    .await?;
    insert(connection, "INSERT OR REPLACE INTO claims (user_id, zone)", 2, "", &claims, |query, (user, zone)| {
        query.bind(stored(user.get())).bind(zone.as_str().to_owned())
    })
    .await?;
    insert(
        connection,
        "INSERT OR REPLACE INTO wallets (user_id, currency, balance, held, closed, last_line, last_payment, exempted_payments, exempted_minor)",
        9,
        "",
        &wallets,
        |query, ((user, currency), wallet)| {
            query
                .bind(stored(user.get()))
                .bind(i64::from(currency.numeric()))
                .bind(wallet.balance)
                .bind(wallet.held)
                .bind(i64::from(wallet.closed))
                .bind(stored(wallet.last_line.0))
                .bind(stored(wallet.last_payment.0))
                .bind(i64::from(wallet.exempted.payments))
                .bind(wallet.exempted.minor)
        },
    )
    .await?;
    insert(connection, "INSERT OR REPLACE INTO methods (user_id, added, added_at, token)", 4, "", &methods, |query, (user, method)| {
        bind_method(query, *user, method)
    })
    .await?;
    let head =
        "INSERT OR REPLACE INTO lines (id, user_id, currency, kind, amount, balance, at, payment, counterparty, reference, previous)";
    insert(connection, head, 11, "", &lines, bind_line).await?;
    let head =
        "INSERT OR REPLACE INTO payments (sequence, epoch, payer, payee, payee_zone, payee_shard, currency, amount, captured, refunded,
                sent, phase, reason, created_at, expires_at, previous, reference, charge, in_progress)";
    insert(connection, head, 19, "", &payments, bind_payment).await?;
    insert(connection, "INSERT OR REPLACE INTO requests (sequence, request_id, at)", 3, "", &requests, |query, (sequence, id, at)| {
        query.bind(stored(sequence.0)).bind(id.as_bytes().to_vec()).bind(stored(at.0))
    })
    .await
}
