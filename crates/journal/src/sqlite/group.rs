//! Group commit over the shards of a node: segments of different shards that are ready at the same time share one
//! transaction, and so one `fdatasync`.
//!
//! Whoever finds nobody committing takes the turn; segments that arrive meanwhile wait for the next one. So a lone segment
//! waits for nothing, and the busier the node, the more segments share a sync.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use sqlx::{AssertSqlSafe, Connection as _, Row as _, Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments};
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::{journal::Journals, stored};
use crate::Segment;

/// Segments of one transaction at most.
const GROUP_MAX: usize = 32;
const COLUMNS: usize = 10;

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// A segment that waits to be written.
#[derive(Debug)]
pub(super) struct Offer {
    slot: i64,
    segment: Segment,
    reply: oneshot::Sender<Outcome>,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Written,
    /// The fence or the head was in its way.
    Refused,
    /// The engine failed: it may or may not be written.
    Failed(Arc<sqlx::Error>),
}

/// Why segments of another region's leader were not written.
pub(super) enum Unwritten {
    /// The fence or the head was in the way of this one.
    Refused(Arc<Segment>),
    /// The engine failed: they may or may not be written.
    Failed(sqlx::Error),
}

/// One that waits for the turn.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl From<sqlx::Error> for Unwritten {
    fn from(source: sqlx::Error) -> Self {
        Self::Failed(source)
    }
}

impl Journals {
    /// Writes segments of one shard in one transaction, between the commits of the shards that are led here.
    pub(super) async fn extend(self: &Arc<Self>, slot: i64, segments: &[Arc<Segment>]) -> Result<(), Unwritten> {
        let mut turn = self.turn().await;
        let (journals, segments) = (self.clone(), segments.to_vec());
        // A task of its own: a caller that goes away must not leave a transaction open.
        let extended = tokio::spawn(async move {
            let extended = journals.write_all(&mut turn, slot, &segments).await;
            if extended.is_err() {
                *turn = None;
            }
            extended
        });
        extended.await.unwrap_or(Err(Unwritten::Failed(sqlx::Error::WorkerCrashed)))
    }

    /// The turn, for whoever is no led shard with something to commit: those would keep it for ever.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<Option<SqliteConnection>> {
        let _waiting = Waiting::of(&self.extending);
        self.turn.clone().lock_owned().await
    }

    async fn write_all(&self, connection: &mut Option<SqliteConnection>, slot: i64, segments: &[Arc<Segment>]) -> Result<(), Unwritten> {
        let mut transaction = self.writer(connection).await?.begin_with("BEGIN IMMEDIATE").await?;
        for segment in segments {
            let written = bind(sqlx::query(AssertSqlSafe(STATEMENTS[0].clone())), slot, segment).execute(&mut *transaction).await?;
            if written.rows_affected() != 1 {
                return Err(Unwritten::Refused(segment.clone()));
            }
        }
        Ok(transaction.commit().await?)
    }

    /// The connection that commits. It is kept between commits: a pool takes it back in a task of its own, which the next
    /// commit would wait for.
    async fn writer<'a>(&self, connection: &'a mut Option<SqliteConnection>) -> Result<&'a mut SqliteConnection, sqlx::Error> {
        match connection {
            Some(connection) => Ok(connection),
            None => Ok(connection.insert(self.file.writer.acquire().await?.detach())),
        }
    }

    /// Writes a segment, together with those of other shards that are ready.
    pub(super) async fn append(self: &Arc<Self>, slot: i64, segment: Segment) -> Outcome {
        let (reply, mut outcome) = oneshot::channel();
        self.offers.lock().expect("no one panics with the lock").push(Offer { slot, segment, reply });
        let outcome = tokio::select! {
            biased;
            outcome = &mut outcome => outcome,
            turn = self.turn.clone().lock_owned() => {
                // A task of its own: others' segments are in it, which must not go when this caller does.
                tokio::spawn(self.clone().commit_all(turn));
                outcome.await
            }
        };
        outcome.unwrap_or_else(|_| Outcome::Failed(Arc::new(sqlx::Error::WorkerCrashed)))
    }

    /// Commits what waits, until nothing does.
    async fn commit_all(self: Arc<Self>, mut turn: OwnedMutexGuard<Option<SqliteConnection>>) {
        loop {
            let group = self.next_group();
            if group.is_empty() {
                break;
            }
            let started = Instant::now();
            let written = self.commit(&mut turn, &group).await.map_err(Arc::new);
            metrics::histogram!(crate::COMMIT_SECONDS).record(started.elapsed().as_secs_f64());
            if written.is_err() {
                // Whatever it is in the middle of, the next group begins with a new one.
                *turn = None;
            }
            for offer in group {
                let outcome = match &written {
                    Ok(slots) if slots.contains(&offer.slot) => Outcome::Written,
                    Ok(_) => Outcome::Refused,
                    Err(error) => Outcome::Failed(error.clone()),
                };
                // Whoever went away meanwhile reads the journal before it writes again.
                let _ = offer.reply.send(outcome);
            }
            if self.extending.load(Ordering::Relaxed) > 0 {
                // Each whose offer waits waits for the turn too, behind whoever was there before.
                break;
            }
        }
        // Whoever offers from here on finds the turn free.
        drop(turn);
    }

    /// What waits, in its order; a shard's second segment waits for the outcome of its first.
    fn next_group(&self) -> Vec<Offer> {
        let mut offers = self.offers.lock().expect("no one panics with the lock");
        let mut group: Vec<Offer> = Vec::new();
        let mut rest = Vec::new();
        for offer in offers.drain(..) {
            let fits = group.len() < GROUP_MAX && group.iter().all(|other| other.slot != offer.slot);
            if fits { &mut group } else { &mut rest }.push(offer);
        }
        *offers = rest;
        group
    }

    /// Writes those segments whose shard's fence and head allow it, and says which shards they are of.
    async fn commit(&self, connection: &mut Option<SqliteConnection>, group: &[Offer]) -> Result<Vec<i64>, sqlx::Error> {
        let connection = self.writer(connection).await?;
        // One statement is one transaction: the fences, the places and the rows are checked and written together.
        let mut statement = sqlx::query(AssertSqlSafe(STATEMENTS[group.len() - 1].clone()));
        for Offer { slot, segment, .. } in group {
            statement = bind(statement, *slot, segment);
        }
        statement.fetch_all(connection).await?.iter().map(|row| row.try_get("slot")).collect()
    }
}

fn bind<'q>(statement: Statement<'q>, slot: i64, segment: &'q Segment) -> Statement<'q> {
    statement
        .bind(slot)
        .bind(stored(segment.first.0))
        .bind(stored(segment.last().0))
        .bind(stored(segment.epoch.0))
        .bind(stored(segment.committed_at.0))
        .bind(segment.previous.as_slice())
        .bind(segment.root.as_slice())
        .bind(segment.hash.as_slice())
        .bind(segment.checksum.as_slice())
        .bind(segment.payload.as_slice())
}

/// The statement for each size of group.
static STATEMENTS: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| {
    let row = format!("({})", ["?"; COLUMNS].join(","));
    let statement = |count: usize| {
        format!(
            "WITH offered (slot, first, last, epoch, committed_at, previous, root, hash, checksum, payload) AS (VALUES {})
             INSERT INTO segments (slot, first, last, epoch, committed_at, previous, root, hash, checksum, payload)
             SELECT * FROM offered
             WHERE epoch >= (SELECT epoch FROM shards WHERE shards.slot = offered.slot)
               AND first - 1 = max((SELECT origin_last FROM shards WHERE shards.slot = offered.slot),
                 coalesce((SELECT last FROM segments WHERE segments.slot = offered.slot ORDER BY first DESC LIMIT 1), 0))
             RETURNING slot",
            vec![row.as_str(); count].join(",")
        )
        .into()
    };
    (1..=GROUP_MAX).map(statement).collect()
});
