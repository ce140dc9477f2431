//! The inbox: takes in what another shard's journal addresses to this one, exactly once.
//!
//! The cursor on the other journal is part of this shard's own books: it moves in the same commit as the effect. After a
//! crash the reader starts from it again, and what took effect already is refused by the ledger. Answers travel the same
//! way back, so what the other shard says about our entries is read from its journal in order: everything it sent back
//! before an acknowledgement is taken in before the acknowledgement is noted.

use std::time::Duration;

use paymesh_ledger::{Body, Command, Rejection, Request};
use paymesh_types::{Sequence, ShardRef};

use crate::{Error, Shard, Tail};

/// The cursor is noted at least this often, so that a restart does not read again what held nothing for this shard.
const MARK_ENTRIES: u64 = 65_536;
/// Between tries when either side's storage fails.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Follows `source` for `shard` until one of them stops for good, and says why.
pub async fn follow(source: Tail, shard: Shard) -> String {
    let mut read = match cursor(&source, &shard).await {
        Ok(read) => read,
        Err(error) => return error.to_string(),
    };
    let mut marked = read;
    loop {
        match step(&source, &shard, read, &mut marked).await {
            Ok(to) => read = to,
            Err(Stop::Pause(error)) => {
                tracing::debug!(source = %source.shard(), shard = %shard.reference(), %error, "inbox waits");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(Stop::Poison { sequence, why }) => {
                tracing::error!(source = %source.shard(), shard = %shard.reference(), %sequence, %why, "inbox stopped at an entry it cannot take in");
                metrics::counter!("paymesh_inbox_poisoned_total").increment(1);
                return format!("entry {sequence} of {} cannot be taken in: {why}", source.shard());
            }
        }
        if let Some(why) = shard.status().problem {
            return why;
        }
    }
}

enum Stop {
    Pause(Error),
    Poison { sequence: Sequence, why: Rejection },
}

async fn cursor(source: &Tail, shard: &Shard) -> Result<Sequence, Error> {
    let failed = |error| Error::Storage { shard: shard.reference().clone(), source: error };
    // The tables are up to the journal's end when a shard opens, and only this reader moves this cursor.
    let books = shard.store().tables.books().await.map_err(failed)?;
    Ok(books.inbox.iter().find(|(each, _)| each == source.shard()).map_or(Sequence(0), |(_, sequence)| *sequence))
}

async fn step(source: &Tail, shard: &Shard, read: Sequence, marked: &mut Sequence) -> Result<Sequence, Stop> {
    let batch = source.next(read.next()).await.map_err(Stop::Pause)?;
    let own: &ShardRef = shard.reference();
    let mut requests = Vec::new();
    let mut delivered = Sequence(0);
    for (position, entry) in batch.iter() {
        if let Body::Received { source: from, sequence, .. } = &entry.body
            && from == own
        {
            delivered = delivered.max(*sequence);
        }
        if let Some((to, message)) = entry.message(position)
            && &to == own
        {
            let command = Command::Receive { source: source.shard().clone(), sequence: position.sequence, message };
            requests.push(Request { id: None, command });
        }
    }
    let last = batch.last().map_or(read, |(position, _)| position.sequence);
    if delivered > Sequence(0) || last.0 - marked.0 >= MARK_ENTRIES {
        *marked = last;
        let command = Command::Delivered { to: source.shard().clone(), up_to: delivered, read_to: last };
        requests.push(Request { id: None, command });
    }
    let asked: Vec<Sequence> = requests
        .iter()
        .map(|request| match &request.command {
            Command::Receive { sequence, .. } => *sequence,
            _ => last,
        })
        .collect();
    for (sequence, answer) in asked.into_iter().zip(shard.submit_internal(requests).await.map_err(Stop::Pause)?) {
        match answer {
            Ok(_) | Err(Rejection::AlreadyReceived { .. } | Rejection::NothingNew) => {}
            Err(why) => return Err(Stop::Poison { sequence, why }),
        }
    }
    Ok(last)
}
