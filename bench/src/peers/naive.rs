//! The peer that a team would write first: tonic and sqlx on SQLite, one transaction per payment.
//!
//! A transaction checks the request id, reads and checks the payer's balance, updates both balances, inserts the payment
//! and commits: WAL with `synchronous=FULL`, so that a payment which was answered survives a power cut, as a node's does.
//! It is written with care, so that the comparison is fair: statements are prepared once (sqlx caches them), the request
//! id is 16 bytes in a unique index, accounts are found by their rowid, and there is one writing connection behind a
//! fair lock. SQLite has one writer at a time anyway: connections that compete for it sleep in its busy handler.

use std::{path::Path, time::SystemTime};

use anyhow::Context as _;
use sqlx::{
    Connection as _, Row as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::Mutex;
use tonic::Status;
use uuid::Uuid;

use super::Books;
use crate::{
    load::{CURRENCY, DEPOSIT_MINOR, FIRST_USER},
    proto::{
        common::{Money, Position, ShardRef},
        payments::{CreatePaymentRequest, CreatePaymentResponse, Payment, PaymentStatus},
    },
};

const SCHEMA: &str = "
    CREATE TABLE accounts (
        user_id INTEGER PRIMARY KEY,
        currency TEXT NOT NULL,
        balance INTEGER NOT NULL CHECK (balance >= 0)
    ) STRICT;
    CREATE TABLE payments (
        id INTEGER PRIMARY KEY,
        request_id BLOB NOT NULL UNIQUE,
        payer_id INTEGER NOT NULL,
        payee_id INTEGER NOT NULL,
        amount INTEGER NOT NULL,
        currency TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT;
";

/// A database with accounts and payments.
#[derive(Debug)]
pub(crate) struct Naive {
    writer: Mutex<SqliteConnection>,
}

impl Naive {
    /// A fresh database in `data` with the accounts of the load, each with its deposit.
    pub(crate) async fn open(data: &Path, accounts: u64) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(data.join("naive.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut writer = SqliteConnection::connect_with(&options).await.context("cannot open the database")?;
        sqlx::raw_sql(SCHEMA).execute(&mut writer).await?;
        sqlx::query(
            "INSERT INTO accounts (user_id, currency, balance)
             WITH RECURSIVE users (user_id) AS (SELECT ?1 UNION ALL SELECT user_id + 1 FROM users LIMIT ?2)
             SELECT user_id, ?3, ?4 FROM users",
        )
        .bind(i64::try_from(FIRST_USER)?)
        .bind(i64::try_from(accounts)?)
        .bind(CURRENCY)
        .bind(DEPOSIT_MINOR)
        .execute(&mut writer)
        .await?;
        Ok(Self { writer: Mutex::new(writer) })
    }

    async fn transact(&self, wanted: &Wanted) -> Result<Paid, Status> {
        let mut writer = self.writer.lock().await;
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(broken)?;
        let before = sqlx::query("SELECT id, payer_id, payee_id, amount, currency, created_at FROM payments WHERE request_id = ?1")
            .bind(&wanted.request_id[..])
            .fetch_optional(&mut *transaction)
            .await
            .map_err(broken)?;
        if let Some(row) = before {
            let same = row.get::<i64, _>(1) == wanted.payer_id
                && row.get::<i64, _>(2) == wanted.payee_id
                && row.get::<i64, _>(3) == wanted.amount
                && row.get::<&str, _>(4) == wanted.currency;
            return if same {
                Ok(Paid { id: row.get(0), created_at: row.get(5) })
            } else {
                Err(Status::already_exists("the request id was used for another payment"))
            };
        }
        let balance: Option<i64> = sqlx::query_scalar("SELECT balance FROM accounts WHERE user_id = ?1 AND currency = ?2")
            .bind(wanted.payer_id)
            .bind(&wanted.currency)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(broken)?;
        let balance = balance.ok_or_else(|| Status::not_found("the payer has no account"))?;
        if balance < wanted.amount {
            return Err(Status::failed_precondition("insufficient funds"));
        }
        let update = "UPDATE accounts SET balance = balance + ?1 WHERE user_id = ?2 AND currency = ?3";
        for (user, change) in [(wanted.payer_id, -wanted.amount), (wanted.payee_id, wanted.amount)] {
            let done =
                sqlx::query(update).bind(change).bind(user).bind(&wanted.currency).execute(&mut *transaction).await.map_err(broken)?;
            if done.rows_affected() != 1 {
                return Err(Status::not_found("the payee has no account"));
            }
        }
        let created_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(broken)?;
        let created_at = i64::try_from(created_at.as_micros()).map_err(broken)?;
        let inserted = sqlx::query(
            "INSERT INTO payments (request_id, payer_id, payee_id, amount, currency, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(&wanted.request_id[..])
        .bind(wanted.payer_id)
        .bind(wanted.payee_id)
        .bind(wanted.amount)
        .bind(&wanted.currency)
        .bind(created_at)
        .execute(&mut *transaction)
        .await
        .map_err(broken)?;
        transaction.commit().await.map_err(broken)?;
        Ok(Paid { id: inserted.last_insert_rowid(), created_at })
    }
}

struct Wanted {
    request_id: [u8; 16],
    payer_id: i64,
    payee_id: i64,
    amount: i64,
    currency: String,
}

struct Paid {
    id: i64,
    created_at: i64,
}

impl Books for Naive {
    async fn pay(&self, request: CreatePaymentRequest) -> Result<CreatePaymentResponse, Status> {
        let CreatePaymentRequest { request_id, payer_id, payee_id, amount, .. } = request;
        let amount = amount.filter(|amount| amount.minor_units > 0).ok_or_else(|| Status::invalid_argument("no amount"))?;
        let invalid = |_| Status::invalid_argument("a user id is too large");
        let wanted = Wanted {
            request_id: Uuid::try_parse(&request_id).map_err(|_| Status::invalid_argument("the request id is no UUID"))?.into_bytes(),
            payer_id: payer_id.try_into().map_err(invalid)?,
            payee_id: payee_id.try_into().map_err(invalid)?,
            amount: amount.minor_units,
            currency: amount.currency_code,
        };
        let paid = self.transact(&wanted).await?;
        let sequence = u64::try_from(paid.id).map_err(broken)?;
        let created_at = prost_types::Timestamp {
            seconds: paid.created_at / 1_000_000,
            nanos: i32::try_from(paid.created_at % 1_000_000 * 1_000).map_err(broken)?,
        };
        let payment = Payment {
            payment_id: format!("pay_eu_0_1_{sequence}"),
            payer_id,
            payee_id,
            payee_shard: Some(ShardRef { zone: "eu".to_owned(), shard: 0 }),
            amount: Some(Money { minor_units: wanted.amount, currency_code: wanted.currency }),
            captured_minor_units: wanted.amount,
            status: PaymentStatus::Completed.into(),
            created_at: Some(created_at),
            ..Payment::default()
        };
        let position = Position { zone: "eu".to_owned(), shard: 0, epoch: 1, sequence };
        Ok(CreatePaymentResponse { payment: Some(payment), position: Some(position) })
    }
}

fn broken(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(request_id: Uuid, minor_units: i64) -> CreatePaymentRequest {
        CreatePaymentRequest {
            request_id: request_id.to_string(),
            payer_id: 1,
            payee_id: 2,
            amount: Some(Money { minor_units, currency_code: CURRENCY.to_owned() }),
            ..CreatePaymentRequest::default()
        }
    }

    #[tokio::test]
    async fn money_moves_once_for_a_request_id_and_never_below_zero() {
        let data = tempfile::tempdir().expect("a folder");
        let naive = Naive::open(data.path(), 3).await.expect("a database");
        let id = Uuid::from_u128(7);
        let first = naive.pay(payment(id, 40)).await.expect("paid");
        assert_eq!(naive.pay(payment(id, 40)).await.expect("the same answer"), first);
        assert_eq!(naive.pay(payment(id, 41)).await.map_err(|error| error.code()), Err(tonic::Code::AlreadyExists));
        let too_much = naive.pay(payment(Uuid::from_u128(8), DEPOSIT_MINOR)).await;
        assert_eq!(too_much.map_err(|error| error.code()), Err(tonic::Code::FailedPrecondition));
        let mut writer = naive.writer.lock().await;
        let balances: Vec<i64> =
            sqlx::query_scalar("SELECT balance FROM accounts ORDER BY user_id").fetch_all(&mut *writer).await.expect("balances");
        assert_eq!(balances, [DEPOSIT_MINOR - 40, DEPOSIT_MINOR + 40, DEPOSIT_MINOR]);
    }
}
