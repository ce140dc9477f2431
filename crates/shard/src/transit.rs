//! How long what this shard sent to others has been on its way: since when the oldest of it waits to be acknowledged.
//!
//! A reader of the shard's own journal, at its own pace. What it knows is for alarms and for people; nothing is decided by it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::PoisonError,
    time::Duration,
};

use paymesh_journal::Committed;
use paymesh_ledger::{Account, Body, Records};
use paymesh_types::{Sequence, ShardRef, Timestamp};

use crate::{Error, Shard, counts};

/// How often it is said in the metrics.
const SAY_EVERY: Duration = Duration::from_secs(2);
/// Between tries when storage fails.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// What was sent within so long is kept as one: the age is that much too great at most.
const TOGETHER_US: u64 = 1_000_000;
/// What is kept for each other shard; what is sent after some hours without an answer is kept together.
const BUNCHES_MAX: usize = 16_384;

/// What was sent and is not acknowledged, by shard.
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    ways: BTreeMap<ShardRef, VecDeque<Bunch>>,
}

/// Entries that were committed at about the same time.
#[derive(Debug)]
struct Bunch {
    first_at: Timestamp,
    last: Sequence,
}

impl Unacknowledged {
    fn note(&mut self, (position, entry): &Committed) {
        if let Body::Delivered { to, up_to, .. } = &entry.body {
            let Some(way) = self.ways.get_mut(to) else { return };
            while way.front().is_some_and(|bunch| bunch.last <= *up_to) {
                way.pop_front();
            }
        }
        if let Some((to, _)) = entry.message(position) {
            let way = self.ways.entry(to).or_default();
            let full = way.len() >= BUNCHES_MAX;
            match way.back_mut().filter(|bunch| full || entry.at.0.saturating_sub(bunch.first_at.0) < TOGETHER_US) {
                Some(bunch) => bunch.last = position.sequence,
                None => way.push_back(Bunch { first_at: entry.at, last: position.sequence }),
            }
        }
    }

    /// Since when the oldest is on its way, for each shard that was ever sent anything as far as is known; `None`: all is
    /// acknowledged.
    pub(crate) fn since(&self) -> BTreeMap<ShardRef, Option<Timestamp>> {
        self.ways.iter().map(|(to, way)| (to.clone(), way.front().map(|bunch| bunch.first_at))).collect()
    }
}

/// Runs until it is dropped.
pub(crate) async fn run(shard: &Shard) -> String {
    let mut next = loop {
        match shard.store().tables.books().await {
            Ok(books) => break acknowledged_by_all(&books).next(),
            Err(error) => wait(shard, &error.to_string()).await,
        }
    };
    let mut turns = tokio::time::interval(SAY_EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            run = shard.tail().next(next) => match run {
                Ok(run) => {
                    let mut unacknowledged = shard.inner.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                    run.entries.iter().for_each(|entry| unacknowledged.note(entry));
                    next = run.last.next();
                }
                // What is not kept was acknowledged before it was let go of.
                Err(Error::NotKept { first, .. }) if first > next => next = first,
                Err(error) => wait(shard, &error.to_string()).await,
            },
            _ = turns.tick() => if let Err(error) = say(shard).await {
                tracing::debug!(shard = %shard.reference(), %error, "cannot say what is in transit yet");
            },
        }
    }
}

async fn wait(shard: &Shard, why: &str) {
    tracing::debug!(shard = %shard.reference(), why, "cannot read what is in transit yet");
    tokio::time::sleep(RETRY_PAUSE).await;
}

/// Everything up to here has been acknowledged, by whomever it was for. A shard that has acknowledged nothing counts from the
/// beginning, once it was sent anything.
fn acknowledged_by_all(books: &Records) -> Sequence {
    let sent_to = books.system.iter().filter_map(|((account, _), _)| if let Account::Sent(to) = account { Some(to) } else { None });
    let acknowledged = |to: &ShardRef| books.delivered.iter().find(|(by, _)| by == to).map_or(Sequence(0), |(_, up_to)| *up_to);
    sent_to.map(acknowledged).min().unwrap_or_default()
}

async fn say(shard: &Shard) -> Result<(), Error> {
    let from = shard.reference().to_string();
    for (to, age) in shard.unacknowledged() {
        let age = age.unwrap_or_default();
        metrics::gauge!(counts::IN_TRANSIT_AGE, "from" => from.clone(), "to" => to.to_string()).set(age.as_secs_f64());
    }
    let books = shard.store().tables.books().await.map_err(|source| Error::Storage { shard: shard.reference().clone(), source })?;
    for ((account, currency), balance) in &books.system {
        let (name, peer) = match account {
            Account::Sent(peer) => (counts::CLEARING_SENT, peer),
            Account::Received(peer) => (counts::CLEARING_RECEIVED, peer),
            Account::Wallet(_) | Account::External | Account::Acquirer(_) | Account::RefundsPayable => continue,
        };
        let labels = [("shard", from.clone()), ("peer", peer.to_string()), ("currency", currency.code().to_owned())];
        metrics::gauge!(name, &labels).set(balance.unsigned_abs() as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use paymesh_ledger::{Entry, NewPayment};
    use paymesh_types::{Currency, Epoch, Money, Position, UserId};

    use super::*;

    fn shard(index: u16) -> ShardRef {
        ShardRef { zone: "eu".parse().expect("a zone's name"), index }
    }

    fn committed(sequence: u64, at_s: u64, body: Body) -> Committed {
        let position = Position { shard: shard(0), epoch: Epoch(1), sequence: Sequence(sequence) };
        let at = Timestamp(at_s * 1_000_000);
        (position, Arc::new(Entry { at, request_id: None, body, postings: Default::default(), reference: String::new() }))
    }

    fn sent(sequence: u64, at_s: u64, to: u16) -> Committed {
        let user = |number: u64| UserId::try_from(number).expect("a user");
        let money = Money::new(1, Currency::from_code("EUR").expect("EUR")).expect("within the bounds");
        let (payer, payee) = (user(1), user(2));
        let new =
            NewPayment { payer, payee, payee_shard: Some(shard(to)), money, hold_s: 0, declined: None, previous: Sequence(0), card: None };
        committed(sequence, at_s, Body::PaymentCreated(new))
    }

    fn delivered(sequence: u64, to: u16, up_to: u64) -> Committed {
        committed(sequence, 1_000, Body::Delivered { to: shard(to), up_to: Sequence(up_to), read_to: Sequence(1).into() })
    }

    #[test]
    fn the_oldest_that_is_not_acknowledged_counts_for_each_shard() {
        let mut unacknowledged = Unacknowledged::default();
        let steps = [
            (sent(1, 10, 1), [Some(10), None]),
            (sent(2, 12, 2), [Some(10), Some(12)]),
            (sent(3, 14, 1), [Some(10), Some(12)]),
            (delivered(4, 1, 2), [Some(14), Some(12)]),
            (delivered(5, 2, 4), [Some(14), None]),
            (sent(6, 16, 2), [Some(14), Some(16)]),
            (delivered(7, 1, 3), [None, Some(16)]),
            (delivered(8, 3, 7), [None, Some(16)]),
        ];
        for (entry, expected) in steps {
            unacknowledged.note(&entry);
            let since = unacknowledged.since();
            let found = [1, 2].map(|index| since.get(&shard(index)).copied().flatten().map(|at| at.0 / 1_000_000));
            assert_eq!(found, expected, "{entry:?}");
        }
    }

    #[test]
    fn what_is_kept_of_a_long_outage_is_bounded_and_its_age_stays_right() {
        let mut unacknowledged = Unacknowledged::default();
        let count = 3 * BUNCHES_MAX as u64;
        (1..=count).for_each(|number| unacknowledged.note(&sent(number, 2 * number, 1)));
        assert_eq!(unacknowledged.ways[&shard(1)].len(), BUNCHES_MAX);
        assert_eq!(unacknowledged.since()[&shard(1)], Some(Timestamp(2_000_000)));
        unacknowledged.note(&delivered(count + 1, 1, count - 1));
        assert!(unacknowledged.since()[&shard(1)].is_some(), "one is not acknowledged");
        unacknowledged.note(&delivered(count + 2, 1, count));
        assert_eq!(unacknowledged.since()[&shard(1)], None);
    }
}
