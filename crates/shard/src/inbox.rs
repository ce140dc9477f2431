//! The inbox: takes in what another shard's journal addresses to this one, exactly once.
//!
//! The cursor on the other journal is part of this shard's own books: it moves in the same commit as the effect. After a
//! crash the reader starts from it again, and what took effect already is refused by the ledger. Answers travel the same
//! way back, so what the other shard says about our entries is read from its journal in order: everything it sent back
//! before an acknowledgement is taken in before the acknowledgement is noted. And no commit moves the cursor past an
//! acknowledgement without noting it: after a crash it would not be read again, and its payments would be in transit for ever.

use std::time::Duration;

use paymesh_ledger::{Body, Command, Rejection, Request};
use paymesh_types::{Sequence, ShardRef};
use tokio::time::Instant;

use crate::{Error, Run, Shard, Tail, counts};

/// The cursor is noted at least this often, so that a restart does not read again what held nothing for this shard.
const MARK_ENTRIES: u64 = 65_536;
/// Commands handed in together at most: however much a reader that lags finds at once, it is taken in by and by.
const COMMANDS_MAX: usize = 4_096;
/// What is little waits this long for more: a commit for each would cost more than it carries.
const LINGER: Duration = Duration::from_millis(10);
/// What is this much does not wait.
const LINGER_ENTRIES: u64 = 512;
/// Deliveries are acknowledged this often: one entry for all of them.
const NOTE_EVERY: Duration = Duration::from_millis(100);
/// Between tries when either side's storage fails.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The journal that an inbox reads.
#[derive(Debug)]
pub enum Source {
    /// Of a shard that this process leads.
    Led(Tail),
    /// Of a shard that another region leads, as far as it came here.
    Followed(Tail),
}

/// Follows `source` for `shard` until one of them stops for good, and says why.
pub async fn follow(source: Source, shard: Shard) -> String {
    let (source, led) = match source {
        Source::Led(tail) => (tail, true),
        Source::Followed(tail) => (tail, false),
    };
    let read = loop {
        match cursor(&source, &shard).await {
            Ok(read) => break read,
            Err(Error::Storage { source: error, .. }) if error.is_retryable() && shard.status().problem.is_none() => {
                tracing::debug!(source = %source.shard(), shard = %shard.reference(), %error, "inbox waits");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return error.to_string(),
        }
    };
    let head = source.head();
    // A copy may have been made anew, and comes to where this shard was by and by; its leader vouches for it being the same.
    if led && read > head {
        let why = format!(
            "the journal of {} ends at {head}, and {} has taken in entries up to {read}: the journal has lost its end",
            source.shard(),
            shard.reference()
        );
        tracing::error!(source = %source.shard(), shard = %shard.reference(), %why, "inbox cannot go on");
        return why;
    }
    let mut inbox = Inbox { source, shard, read, noted: read, delivered: Sequence(0), note_at: None };
    loop {
        match inbox.step().await {
            Ok(()) => {}
            Err(Stop::Pause(error)) => {
                tracing::debug!(source = %inbox.source.shard(), shard = %inbox.shard.reference(), %error, "inbox waits");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(Stop::Behind) => match inbox.skip().await {
                Ok(None) => {}
                Ok(Some(why)) => {
                    let (source, shard) = (inbox.source.shard(), inbox.shard.reference());
                    tracing::error!(%source, %shard, %why, "inbox cannot go on");
                    metrics::counter!(counts::INBOX_POISONED).increment(1);
                    return why;
                }
                Err(error) => {
                    tracing::debug!(source = %inbox.source.shard(), shard = %inbox.shard.reference(), %error, "inbox waits");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            },
            Err(Stop::Poison { sequence, why }) => {
                let (source, shard) = (inbox.source.shard(), inbox.shard.reference());
                tracing::error!(%source, %shard, %sequence, %why, "inbox stopped at an entry it cannot take in");
                metrics::counter!(counts::INBOX_POISONED).increment(1);
                return format!("entry {sequence} of {source} cannot be taken in: {why}");
            }
        }
        if let Some(why) = inbox.shard.status().problem {
            return why;
        }
    }
}

enum Stop {
    Pause(Error),
    /// The other journal begins after what comes next.
    Behind,
    Poison {
        sequence: Sequence,
        why: Rejection,
    },
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        if matches!(error, Error::NotKept { .. }) { Self::Behind } else { Self::Pause(error) }
    }
}

async fn cursor(source: &Tail, shard: &Shard) -> Result<Sequence, Error> {
    let failed = |error| Error::Storage { shard: shard.reference().clone(), source: error };
    // The tables are up to the journal's end when a shard opens, and only this reader moves this cursor.
    let books = shard.store().tables.books().await.map_err(failed)?;
    Ok(books.inbox.iter().find(|(each, _)| each == source.shard()).map_or(Sequence(0), |(_, sequence)| *sequence))
}

struct Inbox {
    source: Tail,
    shard: Shard,
    /// The last entry of the other journal that was read and, where it is addressed to this shard, taken in.
    read: Sequence,
    /// The cursor as it was noted last.
    noted: Sequence,
    /// How far the other shard is known to have taken in what this one sent, and not noted yet; 0 when there is nothing to note.
    delivered: Sequence,
    /// When to note it.
    note_at: Option<Instant>,
}

/// What a run of the other journal holds for this shard.
struct Mail {
    last: Sequence,
    letters: Vec<Letter>,
    delivered: Sequence,
}

/// An entry that is addressed to this shard, and what was acknowledged up to it and is not noted yet; 0 for nothing.
struct Letter {
    sequence: Sequence,
    request: Request,
    delivered: Sequence,
}

impl Inbox {
    /// Takes in what there is, or notes what is due.
    async fn step(&mut self) -> Result<(), Stop> {
        let next = self.source.next(self.read.next());
        let batch = match self.note_at {
            None => next.await,
            Some(due) => match tokio::time::timeout_at(due, next).await {
                Ok(batch) => batch,
                Err(_) => return self.note().await,
            },
        };
        let mut mail = Mail { last: self.read, letters: Vec::new(), delivered: self.delivered };
        self.collect(&batch?, &mut mail);
        if self.source.head().0 - self.read.0 < LINGER_ENTRIES {
            tokio::time::sleep(LINGER).await;
        }
        while mail.letters.len() < COMMANDS_MAX && mail.last < self.source.head() {
            let more = self.source.next(mail.last.next()).await?;
            self.collect(&more, &mut mail);
        }
        let mut noted = Sequence(0);
        for letters in mail.letters.chunks(COMMANDS_MAX) {
            let mut requests: Vec<Request> = letters.iter().map(|letter| letter.request.clone()).collect();
            // The cursor moves to the last of them, and past what was acknowledged on the way there.
            if let Some(last) = letters.last().filter(|last| last.delivered > Sequence(0)) {
                noted = last.delivered;
                requests.push(self.delivered_up_to(noted, last.sequence));
            }
            self.take_in(requests).await?;
        }
        // Only now: an acknowledgement is not to be noted before all that was sent back before it is taken in.
        self.read = mail.last;
        if mail.delivered > noted {
            self.delivered = mail.delivered;
            self.note_at.get_or_insert_with(|| Instant::now() + NOTE_EVERY);
        } else {
            (self.delivered, self.note_at) = (Sequence(0), None);
        }
        if self.read.0.saturating_sub(self.noted.0) >= MARK_ENTRIES || self.note_at.is_some_and(|due| due <= Instant::now()) {
            self.note().await?;
        }
        Ok(())
    }

    /// Goes on where the other journal begins, if all that is not kept of it and was addressed to this shard is taken in; says why
    /// not, if it is not. What the other shard had taken in by then is an acknowledgement as its entries would have been.
    async fn skip(&mut self) -> Result<Option<String>, Error> {
        let origin = self.source.origin().await?;
        let (source, own) = (self.source.shard(), self.shard.reference());
        let marks = origin.marks(own);
        if marks.sent > self.read {
            // Another inbox of this shard may have gone further than this one knows, and be gone.
            self.shard.settled().await?;
            let (books, _) = self.shard.books().await?;
            let noted = books.inbox.into_iter().find(|(each, _)| each == source).map_or(Sequence(0), |(_, sequence)| sequence);
            self.read = self.read.max(noted);
        }
        if marks.sent > self.read {
            return Ok(Some(format!(
                "the journal of {source} is kept from entry {} on, and {own} has taken in what it was sent up to {}, not up to {}: \
                 money that was on its way is not there any more",
                origin.sequence.next(),
                self.read,
                marks.sent
            )));
        }
        tracing::info!(%source, shard = %own, from = %self.read, to = %origin.sequence, "an inbox goes on where the journal begins");
        self.read = self.read.max(origin.sequence);
        if marks.taken_in > self.delivered {
            self.delivered = marks.taken_in;
            self.note_at.get_or_insert_with(|| Instant::now() + NOTE_EVERY);
        }
        Ok(None)
    }

    fn collect(&self, run: &Run, mail: &mut Mail) {
        let own: &ShardRef = self.shard.reference();
        for (position, entry) in run.entries.iter() {
            if let Body::Received { source: from, sequence, .. } = &entry.body
                && from == own
            {
                mail.delivered = *sequence;
            }
            if let Some((to, message)) = entry.message(position)
                && &to == own
            {
                let command = Command::Receive { source: self.source.shard().clone(), sequence: position.sequence, message };
                mail.letters.push(Letter {
                    sequence: position.sequence,
                    request: Request { id: None, command },
                    delivered: mail.delivered,
                });
            }
        }
        mail.last = run.last;
    }

    /// Has it all committed together.
    async fn take_in(&self, requests: Vec<Request>) -> Result<(), Stop> {
        let answers = self.shard.submit_internal(requests.clone()).await.map_err(Stop::Pause)?;
        for (request, answer) in requests.iter().zip(answers) {
            match answer {
                Ok(_) | Err(Rejection::AlreadyReceived { .. } | Rejection::NothingNew) => {}
                Err(why) => {
                    let sequence = if let Command::Receive { sequence, .. } = &request.command { *sequence } else { self.read };
                    return Err(Stop::Poison { sequence, why });
                }
            }
        }
        Ok(())
    }

    fn delivered_up_to(&self, up_to: Sequence, read_to: Sequence) -> Request {
        Request { id: None, command: Command::Delivered { to: self.source.shard().clone(), up_to, read_to } }
    }

    /// Notes how far each journal has taken effect in the other shard.
    async fn note(&mut self) -> Result<(), Stop> {
        self.take_in(vec![self.delivered_up_to(self.delivered, self.read)]).await?;
        (self.noted, self.delivered, self.note_at) = (self.read, Sequence(0), None);
        Ok(())
    }
}
