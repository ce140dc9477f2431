//! The peer of replication: PostgreSQL with its own logical replication.
//!
//! Two clusters of the system's PostgreSQL, a publisher and a subscriber, each with its data beside the nodes' and as durable as
//! they are: `fsync` and `synchronous_commit` are on, at the subscription too. A payment leads to the same rows as at a node: the
//! payment with its unique request id, two postings, and both accounts' balances. A batch is one transaction of one statement
//! over arrays, which writes each account once, as a node's group commit does: the fastest way that a team would find.

mod cluster;
mod load;

pub(crate) use cluster::Cluster;
pub(crate) use load::{Load, Paid};

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    lab::Lab,
    load::{DEPOSIT_MINOR, FIRST_USER},
    watch::Lag,
};

const SCHEMA: &str = "
    CREATE TABLE accounts (user_id bigint PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
    CREATE TABLE payments (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        request_id uuid NOT NULL UNIQUE,
        payer_id bigint NOT NULL,
        payee_id bigint NOT NULL,
        amount bigint NOT NULL CHECK (amount > 0),
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE postings (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        payment_id bigint NOT NULL,
        user_id bigint NOT NULL,
        amount bigint NOT NULL
    );
";

/// Between two looks at the subscriber.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How long the subscriber may take to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(600);

/// A publisher and its subscriber.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Takes payments.
    pub(crate) publisher: Cluster,
    /// Follows it, where its subscription is on.
    pub(crate) subscriber: Cluster,
    publishing: PgConnection,
    following: PgConnection,
}

impl Pair {
    /// Makes both, with `accounts` accounts and a subscription.
    pub(crate) async fn start(lab: &mut Lab, accounts: u64) -> anyhow::Result<Self> {
        let publisher = Cluster::start(lab, "publisher").await?;
        let subscriber = Cluster::start(lab, "subscriber").await?;
        let (mut publishing, mut following) = (publisher.connect().await?, subscriber.connect().await?);
        for connection in [&mut publishing, &mut following] {
            sqlx::raw_sql(SCHEMA).execute(&mut *connection).await.context("cannot make the tables")?;
            sqlx::query("INSERT INTO accounts SELECT id, $3 FROM generate_series($1::bigint, $1 + $2 - 1) AS id")
                .bind(i64::try_from(FIRST_USER)?)
                .bind(i64::try_from(accounts)?)
                .bind(DEPOSIT_MINOR)
                .execute(&mut *connection)
                .await
                .context("cannot make the accounts")?;
        }
        sqlx::raw_sql("CREATE PUBLICATION books FOR ALL TABLES").execute(&mut publishing).await?;
        let mut this = Self { publisher, subscriber, publishing, following };
        let port = this.publisher.port;
        let subscribe = format!(
            "CREATE SUBSCRIPTION books CONNECTION '{}' PUBLICATION books WITH (copy_data = false, synchronous_commit = on, binary = true)",
            this.publisher.address(port)
        );
        sqlx::raw_sql(AssertSqlSafe(subscribe)).execute(&mut this.following).await.context("cannot subscribe")?;
        Ok(this)
    }

    /// A load on the publisher.
    pub(crate) async fn load(&self, accounts: u64, seed: u64) -> anyhow::Result<Load> {
        Ok(Load::new(self.publisher.connect().await?, accounts, seed))
    }

    /// Turns the subscription on or off. Once it is off, nobody is sent anything.
    pub(crate) async fn subscribe(&mut self, on: bool) -> anyhow::Result<()> {
        let change = if on { "ALTER SUBSCRIPTION books ENABLE" } else { "ALTER SUBSCRIPTION books DISABLE" };
        sqlx::raw_sql(change).execute(&mut self.following).await?;
        let deadline = Instant::now() + CATCH_UP_MAX;
        loop {
            let active: bool = sqlx::query_scalar("SELECT active FROM pg_replication_slots WHERE slot_name = 'books'")
                .fetch_one(&mut self.publishing)
                .await
                .context("the publisher has no slot")?;
            if active == on {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the subscription does not turn {}", if on { "on" } else { "off" });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Has the subscriber reach the publisher by another port from the next time on that the subscription is turned on.
    pub(crate) async fn by_way_of(&mut self, port: u16) -> anyhow::Result<()> {
        let change = format!("ALTER SUBSCRIPTION books CONNECTION '{}'", self.publisher.address(port));
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut self.following).await?;
        Ok(())
    }

    /// The last payment of the publisher.
    pub(crate) async fn head(&mut self) -> anyhow::Result<i64> {
        last(&mut self.publishing).await
    }

    /// The last payment that is visible at the subscriber.
    pub(crate) async fn visible(&mut self) -> anyhow::Result<i64> {
        last(&mut self.following).await
    }

    /// Waits until the subscriber shows everything that the publisher has.
    pub(crate) async fn caught_up(&mut self) -> anyhow::Result<()> {
        let head = self.head().await?;
        let deadline = Instant::now() + CATCH_UP_MAX;
        while self.visible().await? < head {
            ensure!(Instant::now() < deadline, "the subscriber has not caught up after {CATCH_UP_MAX:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// How long what is committed takes to be visible at the subscriber. It is looked at all the time until `paid` ends.
    pub(crate) async fn lags(&mut self, paid: impl Future<Output = anyhow::Result<Paid>>, from: Instant) -> anyhow::Result<(Paid, Lag)> {
        let mut seen = vec![(self.visible().await?, Instant::now())];
        let following = &mut self.following;
        let looks = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let id = last(following).await?;
                if seen.last().is_none_or(|(before, _)| id > *before) {
                    seen.push((id, Instant::now()));
                }
            }
        };
        let paid = tokio::select! {
            paid = paid => paid?,
            failed = looks => return failed,
        };
        let last_paid = paid.commits.last().map_or(0, |(id, _)| *id);
        let deadline = Instant::now() + CATCH_UP_MAX;
        while seen.last().is_some_and(|(id, _)| *id < last_paid) {
            ensure!(Instant::now() < deadline, "the subscriber has not caught up after {CATCH_UP_MAX:?}");
            tokio::time::sleep(LOOK_EVERY).await;
            seen.push((self.visible().await?, Instant::now()));
        }
        let mut lag = Lag::new()?;
        let mut looks = seen.iter().peekable();
        for (id, committed) in paid.commits.iter().filter(|(_, committed)| *committed >= from) {
            while looks.next_if(|(visible, _)| visible < id).is_some() {}
            if let Some((_, at)) = looks.peek() {
                lag.note(at.saturating_duration_since(*committed));
            }
        }
        Ok((paid, lag))
    }
}

async fn last(connection: &mut PgConnection) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM payments").fetch_one(connection).await?)
}
