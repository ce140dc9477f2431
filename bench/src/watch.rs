//! How far a leader's journal and a follower's copy and tables are, read from their files.
//!
//! A reader of the files sees what is committed and nothing else, and whoever is measured does no work for it. All are read by one
//! statement of one connection, so that what one of them has and another has not is not a matter of when each was asked.

use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// Time between two looks, in microseconds. What is measured is too long by as much at most.
const LOOK_US: u64 = 1_000;

/// Shards that can be watched: SQLite attaches ten files to one connection, and the copies' journal is one of them.
const SHARDS_MAX: u16 = 9;

/// The longest lag that is told apart, in microseconds: ten minutes.
pub(crate) const LAG_US_MAX: u64 = 600_000_000;

/// How far one shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The leader's last entry.
    pub(crate) head: i64,
    /// The last entry that the follower has stored.
    pub(crate) stored: i64,
    /// The last entry that the follower's tables hold.
    pub(crate) readable: i64,
}

/// The files of a leader and of one follower.
#[derive(Debug)]
pub(crate) struct Watch {
    connection: SqliteConnection,
    statement: String,
    shards: u16,
}

impl Watch {
    /// Opens the files of the zone's shards. They must be there.
    pub(crate) async fn open(leader: &Path, follower: &Path, zone: &str, shards: u16) -> anyhow::Result<Self> {
        ensure!(shards <= SHARDS_MAX, "{SHARDS_MAX} shards can be watched, not {shards}");
        let journal = "journal.sqlite";
        let options = SqliteConnectOptions::new().filename(leader.join(journal)).read_only(true);
        let mut connection = SqliteConnection::connect_with(&options).await.context("cannot read the leader's journal")?;
        attach(&mut connection, &follower.join(journal), "copies").await?;
        let mut columns = Vec::new();
        for shard in 0..shards {
            attach(&mut connection, &follower.join(format!("{zone}-{shard}.tables.sqlite")), &format!("tables{shard}")).await?;
            for (schema, name) in [("main", "head"), ("copies", "stored")] {
                let slot: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
                    "SELECT slot FROM {schema}.shards WHERE zone = ? AND shard = ? AND set_aside_at IS NULL"
                )))
                .bind(zone)
                .bind(i64::from(shard))
                .fetch_one(&mut connection)
                .await
                .with_context(|| format!("the journal of shard {zone}/{shard} is not there"))?;
                columns.push(format!(
                    "coalesce((SELECT last FROM {schema}.segments WHERE slot = {slot} ORDER BY first DESC LIMIT 1), 0) AS {name}{shard}"
                ));
            }
            columns.push(format!("(SELECT sequence FROM tables{shard}.cursor) AS readable{shard}"));
        }
        Ok(Self { connection, statement: format!("SELECT {}", columns.join(", ")), shards })
    }

    /// How far each shard is now.
    pub(crate) async fn look(&mut self) -> anyhow::Result<Vec<Place>> {
        let row = sqlx::query(AssertSqlSafe(self.statement.clone())).fetch_one(&mut self.connection).await?;
        let column = |name: &str, shard: u16| row.try_get::<i64, _>(format!("{name}{shard}").as_str());
        (0..self.shards)
            .map(|shard| Ok(Place { head: column("head", shard)?, stored: column("stored", shard)?, readable: column("readable", shard)? }))
            .collect()
    }

    /// Measures how long what the leader commits from `from` until `until` takes to be stored and to be readable, and until it
    /// is, or `give_up` has passed since.
    pub(crate) async fn lags(&mut self, from: Instant, until: Instant, give_up: Duration) -> anyhow::Result<(Lag, Lag)> {
        let mut lags = (Lag::new()?, Lag::new()?);
        let mut before = self.look().await?;
        let mut waiting: Vec<[VecDeque<(i64, Instant)>; 2]> = vec![<[VecDeque<_>; 2]>::default(); before.len()];
        loop {
            tokio::time::sleep(Duration::from_micros(LOOK_US)).await;
            let places = self.look().await?;
            let now = Instant::now();
            for ((place, before), waiting) in places.iter().zip(&before).zip(&mut waiting) {
                if place.head > before.head && (from..until).contains(&now) {
                    waiting.iter_mut().for_each(|queue| queue.push_back((place.head, now)));
                }
                for (queue, reached, lag) in
                    [(0, place.stored, &mut lags.0), (1, place.readable, &mut lags.1)].map(|(index, reached, lag)| (index, reached, lag))
                {
                    while let Some((head, seen)) = waiting[queue].front().copied()
                        && head <= reached
                    {
                        lag.note(now - seen);
                        waiting[queue].pop_front();
                    }
                }
            }
            before = places;
            if now >= until && waiting.iter().flatten().all(VecDeque::is_empty) {
                return Ok(lags);
            }
            ensure!(now < until + give_up, "a follower has not caught up {give_up:?} after the load had ended");
        }
    }
}

async fn attach(connection: &mut SqliteConnection, file: &Path, schema: &str) -> anyhow::Result<()> {
    let path = file.to_str().context("the data's folder has a name that is not UTF-8")?;
    let attach = format!("ATTACH DATABASE ? AS {schema}");
    sqlx::query(AssertSqlSafe(attach)).bind(path).execute(connection).await.with_context(|| format!("cannot read {path}"))?;
    Ok(())
}

/// How long things took to arrive.
#[derive(Debug)]
pub(crate) struct Lag(Histogram<u64>);

impl Lag {
    /// None yet.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LAG_US_MAX, 3)?))
    }

    /// One more.
    pub(crate) fn note(&mut self, lag: Duration) {
        self.0.saturating_record(u64::try_from(lag.as_micros()).unwrap_or(LAG_US_MAX));
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// A quantile, in milliseconds.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}
