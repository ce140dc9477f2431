//! Payments at the publisher.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::PgConnection;
use tokio::time::sleep_until;

use crate::load::{Payees, Payments};

/// Everything about a batch of payments, in one statement: all or nothing.
const PAY: &str = "
    WITH asked AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS asked (request_id, payer_id, payee_id, amount)
    ), paid AS (
        INSERT INTO payments (request_id, payer_id, payee_id, amount)
        SELECT request_id::uuid, payer_id, payee_id, amount FROM asked
        RETURNING id, payer_id, payee_id, amount
    ), moved AS (
        SELECT id, payer_id AS user_id, -amount AS amount FROM paid UNION ALL SELECT id, payee_id, amount FROM paid
    ), posted AS (
        INSERT INTO postings (payment_id, user_id, amount) SELECT id, user_id, amount FROM moved
    ), booked AS (
        UPDATE accounts SET balance = balance + change.amount
        FROM (SELECT user_id, sum(amount)::bigint AS amount FROM moved GROUP BY user_id) AS change
        WHERE accounts.user_id = change.user_id
    )
    SELECT max(id) FROM paid";

/// A client that pays in batches, one after the other.
#[derive(Debug)]
pub(crate) struct Load {
    connection: PgConnection,
    payments: Payments,
}

/// What was paid.
#[derive(Debug, Default)]
pub(crate) struct Paid {
    /// Payments.
    pub(crate) payments: u64,
    /// Payments a second, from the end of the warm-up on.
    pub(crate) rate: f64,
    /// The last payment of each batch, and when its commit was answered.
    pub(crate) commits: Vec<(i64, Instant)>,
}

impl Load {
    pub(super) fn new(connection: PgConnection, accounts: u64, seed: u64) -> Self {
        Self { connection, payments: Payments::new(accounts, Payees::Uniform, seed) }
    }

    /// Pays until `until`: at `rate` payments a second, or as fast as it goes. What is paid after `from` makes the rate.
    pub(crate) async fn pay(&mut self, batch: usize, rate: Option<u64>, from: Instant, until: Instant) -> anyhow::Result<Paid> {
        let every = rate.map(|rate| Duration::from_secs_f64(batch as f64 / rate.max(1) as f64));
        let mut due = tokio::time::Instant::now();
        let mut paid = Paid::default();
        let (mut counted, mut first) = (0, None);
        while Instant::now() < until {
            if let Some(every) = every {
                sleep_until(due).await;
                due += every;
            }
            let id = self.pay_one(batch).await?;
            let now = Instant::now();
            paid.commits.push((id, now));
            paid.payments += batch as u64;
            if now >= from {
                // The first opens the measured time and is not counted itself.
                match first {
                    None => first = Some(now),
                    Some(_) => counted += batch,
                }
            }
            if let (Some(first), true) = (first, counted > 0) {
                paid.rate = counted as f64 / (now - first).as_secs_f64();
            }
        }
        Ok(paid)
    }

    /// Pays so many, as fast as it goes.
    pub(crate) async fn pay_all(&mut self, batch: usize, payments: u64) -> anyhow::Result<()> {
        for _ in 0..payments.div_ceil(batch.max(1) as u64) {
            self.pay_one(batch).await?;
        }
        Ok(())
    }

    async fn pay_one(&mut self, batch: usize) -> anyhow::Result<i64> {
        let (mut ids, mut payers, mut payees, mut amounts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for payment in self.payments.batch(batch) {
            ids.push(payment.request_id);
            payers.push(i64::try_from(payment.payer_id)?);
            payees.push(i64::try_from(payment.payee_id)?);
            amounts.push(payment.amount.map_or(0, |amount| amount.minor_units));
        }
        sqlx::query_scalar(PAY)
            .bind(ids)
            .bind(payers)
            .bind(payees)
            .bind(amounts)
            .fetch_one(&mut self.connection)
            .await
            .context("a batch was not paid")
    }
}
