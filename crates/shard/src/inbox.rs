//! The inbox: takes in what another shard's journal addresses to this one, exactly once.
//!
//! The cursor on the other journal is part of this shard's own books: it moves in the same commit as the effect. After a
//! crash the reader starts from it again, and what took effect already is refused by the ledger. Answers travel the same
//! way back, so what the other shard says about our entries is read from its journal in order: everything it sent back
//! before an acknowledgement is taken in before the acknowledgement is noted. And no commit moves the cursor past an
//! acknowledgement without noting it: after a crash it would not be read again, and its payments would be in transit for ever.
//!
//! Numbers alone do not say of which history they are: a shard that was put back from a backup gives them out again. So both the cursor
//! and what it took in carry the mark of the other journal there. An inbox goes on only in the history that it read before, and believes only
//! an acknowledgement of the history that its own shard has. No acknowledgement of the one history follows one of the other: whoever took in from the
//! one is kept from taking in from the other by the same mark.

use std::time::Duration;

use paymesh_journal::history_mark;
use paymesh_ledger::{Body, Command, Effect, Rejection, Request};
use paymesh_types::{Cursor, HistoryMark, Sequence};
use tokio::time::Instant;

use crate::{Error, Run, Shard, Tail, counts, marks::Marks};

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

/// Follows `source` for `shard` until one of them stops for good, and says why. So does [`Shard::inbox_problems`].
pub async fn follow(source: Source, shard: Shard) -> String {
    let (source, led) = match source {
        Source::Led(tail) => (tail, true),
        Source::Followed(tail) => (tail, false),
    };
    shard.note_inbox(source.shard(), None);
    let why = run(source.clone(), led, shard.clone()).await;
    // Where the shard itself has stopped, that is what is wrong.
    if shard.status().problem.is_none() {
        shard.note_inbox(source.shard(), Some(why.clone()));
    }
    why
}

async fn run(source: Tail, led: bool, shard: Shard) -> String {
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
    // A copy may have been made anew, and comes to where this shard was by and by.
    if led && read.sequence > head {
        let why = format!(
            "the journal of {} ends at {head}, and {} has taken in entries up to {}: the journal has lost its end",
            source.shard(),
            shard.reference(),
            read.sequence
        );
        tracing::error!(source = %source.shard(), shard = %shard.reference(), %why, "inbox cannot go on");
        return why;
    }
    let mut inbox = Inbox {
        source,
        shard,
        read,
        noted: read.sequence,
        unproven: read.mark,
        foreseen: false,
        own: Marks::default(),
        delivered: Sequence(0),
        note_at: None,
    };
    loop {
        let stop = match inbox.step().await {
            Err(Stop::Behind) => inbox.skip().await,
            other => other,
        };
        match stop {
            Ok(()) => {}
            Err(Stop::Pause(error)) => {
                tracing::debug!(source = %inbox.source.shard(), shard = %inbox.shard.reference(), %error, "inbox waits");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            // What is let go of while an inbox goes on at its journal's beginning is found with the next step.
            Err(Stop::Behind) => {}
            Err(Stop::Poison(why)) => {
                let (source, shard) = (inbox.source.shard(), inbox.shard.reference());
                tracing::error!(%source, %shard, %why, "inbox cannot go on");
                metrics::counter!(counts::INBOX_POISONED).increment(1);
                return why;
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
    /// Nothing more can be taken in, for that reason.
    Poison(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        if matches!(error, Error::NotKept { .. }) { Self::Behind } else { Self::Pause(error) }
    }
}

async fn cursor(source: &Tail, shard: &Shard) -> Result<Cursor, Error> {
    let failed = |error| Error::Storage { shard: shard.reference().clone(), source: error };
    // The tables are up to the journal's end when a shard opens, and only this reader moves this cursor.
    let books = shard.store().tables.books().await.map_err(failed)?;
    Ok(books.inbox.iter().find(|(each, _)| each == source.shard()).map_or(Cursor::default(), |(_, cursor)| *cursor))
}

struct Inbox {
    source: Tail,
    shard: Shard,
    /// The last entry of the other journal that was read and, where it is addressed to this shard, taken in.
    read: Cursor,
    /// The cursor as it was noted last.
    noted: Sequence,
    /// The mark that the other journal is to have at the cursor that this inbox began with, until it is shown to.
    unproven: Option<HistoryMark>,
    /// Whether the other journal was looked through up to its end, before anything of it was taken in.
    foreseen: bool,
    /// A part of this shard's own history.
    own: Marks,
    /// How far the other shard is known to have taken in what this one sent, and not noted yet; 0 when there is nothing to note.
    delivered: Sequence,
    /// When to note it.
    note_at: Option<Instant>,
}

/// What a run of the other journal holds for this shard.
struct Mail {
    last: Cursor,
    letters: Vec<Letter>,
    delivered: Sequence,
    /// Why what follows cannot be taken in.
    poison: Option<Stop>,
}

/// An entry that is addressed to this shard, and what was acknowledged up to it and is not noted yet; 0 for nothing.
struct Letter {
    at: Cursor,
    request: Request,
    delivered: Sequence,
}

impl Inbox {
    /// Takes in what there is, or notes what is due.
    async fn step(&mut self) -> Result<(), Stop> {
        self.prove().await?;
        self.foresee().await?;
        let next = self.source.next(self.read.sequence.next());
        let batch = match self.note_at {
            None => next.await,
            Some(due) => match tokio::time::timeout_at(due, next).await {
                Ok(batch) => batch,
                Err(_) => return self.note().await,
            },
        };
        let mut mail = Mail { last: self.read, letters: Vec::new(), delivered: self.delivered, poison: None };
        self.collect(&batch?, &mut mail).await?;
        if self.source.head().0 - self.read.sequence.0 < LINGER_ENTRIES {
            tokio::time::sleep(LINGER).await;
        }
        while mail.letters.len() < COMMANDS_MAX && mail.poison.is_none() && mail.last.sequence < self.source.head() {
            let more = self.source.next(mail.last.sequence.next()).await?;
            self.collect(&more, &mut mail).await?;
        }
        let mut noted = Sequence(0);
        for letters in mail.letters.chunks(COMMANDS_MAX) {
            let mut requests: Vec<Request> = letters.iter().map(|letter| letter.request.clone()).collect();
            // The cursor moves to the last of them, and past what was acknowledged on the way there.
            if let Some(last) = letters.last().filter(|last| last.delivered > Sequence(0)) {
                noted = last.delivered;
                requests.push(self.delivered_up_to(noted, last.at));
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
        let unmarked = self.read.sequence.0.saturating_sub(self.noted.0);
        let due = mail.poison.is_some() && self.delivered > Sequence(0) || self.note_at.is_some_and(|due| due <= Instant::now());
        if unmarked >= MARK_ENTRIES || due {
            self.note().await?;
        }
        mail.poison.map_or(Ok(()), Err)
    }

    /// The other journal must be of the history that was read of it before: who took money from one history must not take it from
    /// another too, however long that is by now.
    async fn prove(&mut self) -> Result<(), Stop> {
        let Some(mark) = self.unproven else { return Ok(()) };
        let read = self.read.sequence;
        let found = match self.source.marks(read).await {
            Ok(marks) => marks.at(read),
            Err(Error::NotKept { .. }) => {
                let origin = self.source.origin().await?;
                // What came before it is not there to be compared.
                (origin.sequence == read).then(|| Cursor { sequence: read, mark: history_mark(&origin.hash) })
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(found) = found
            && found.mark != Some(mark)
        {
            let (source, own) = (self.source.shard(), self.shard.reference());
            return Err(Stop::Poison(format!(
                "the journal of {source} has another entry {read} than that up to which {own} has taken it in: it is another history"
            )));
        }
        self.unproven = None;
        Ok(())
    }

    /// Looks through what there is of the other journal before anything of it is taken in. What that shard sent and this one has answered in
    /// another history may be back with its payer: taken in again, it would be there twice.
    async fn foresee(&mut self) -> Result<(), Stop> {
        let head = self.source.head();
        let mut seen = self.read.sequence;
        while !self.foreseen && seen < head {
            let run = self.source.next(seen.next()).await?;
            for (position, entry) in run.entries.iter() {
                if let Some(at) = self.brought_back(&entry.body)
                    && !self.is_of_this_history(at).await?
                {
                    return Err(self.answers_another(position.sequence, at));
                }
            }
            seen = run.last;
        }
        self.foreseen = true;
        Ok(())
    }

    /// Which entry of this shard an entry of the other has settled by it, where money of the other is with its owner again for that.
    fn brought_back(&self, body: &Body) -> Option<Cursor> {
        match body {
            Body::Received {
                source,
                at,
                effect: Effect::PaymentReturned(_) | Effect::RefundReceived { .. } | Effect::RefundFailed { .. },
            } if source == self.shard.reference() => Some(*at),
            _ => None,
        }
    }

    fn answers_another(&self, sequence: Sequence, at: Cursor) -> Stop {
        let (source, own) = (self.source.shard(), self.shard.reference());
        Stop::Poison(format!(
            "entry {sequence} of {source} cannot be taken in: it answers entry {} of another history of {own} than this one",
            at.sequence
        ))
    }

    /// Goes on where the other journal begins, if all that is not kept of it and was addressed to this shard is taken in; stops if it
    /// is not. What the other shard had taken in by then is an acknowledgement as its entries would have been.
    async fn skip(&mut self) -> Result<(), Stop> {
        let origin = self.source.origin().await?;
        let marks = origin.marks(self.shard.reference());
        if marks.sent > self.read.sequence {
            // Another inbox of this shard may have gone further than this one knows, and be gone.
            self.shard.settled().await?;
            let (books, _) = self.shard.books().await?;
            let noted = books.inbox.into_iter().find(|(each, _)| each == self.source.shard()).map_or(Cursor::default(), |(_, noted)| noted);
            self.read.advance(noted);
            self.unproven = self.read.mark;
        }
        let (source, own) = (self.source.shard(), self.shard.reference());
        if marks.sent > self.read.sequence {
            return Err(Stop::Poison(format!(
                "the journal of {source} is kept from entry {} on, and {own} has taken in what it was sent up to {}, not up to {}: \
                 money that was on its way is not there any more",
                origin.sequence.next(),
                self.read.sequence,
                marks.sent
            )));
        }
        tracing::info!(%source, shard = %own, from = %self.read.sequence, to = %origin.sequence, "an inbox goes on where the journal begins");
        if origin.sequence > self.read.sequence {
            self.read = Cursor { sequence: origin.sequence, mark: history_mark(&origin.hash) };
            self.unproven = None;
        }
        if marks.taken_in.sequence > self.delivered {
            if self.is_of_this_history(marks.taken_in).await? {
                self.delivered = marks.taken_in.sequence;
                self.note_at.get_or_insert_with(|| Instant::now() + NOTE_EVERY);
            } else {
                self.disbelieve(marks.taken_in);
            }
        }
        Ok(())
    }

    async fn collect(&mut self, run: &Run, mail: &mut Mail) -> Result<(), Stop> {
        for (position, entry) in run.entries.iter() {
            let sequence = position.sequence;
            let message = entry.message(position).filter(|(to, _)| to == self.shard.reference());
            if let Body::Received { source: from, at, .. } = &entry.body
                && from == self.shard.reference()
            {
                if self.is_of_this_history(*at).await? {
                    mail.delivered = at.sequence;
                } else if message.is_some() || self.brought_back(&entry.body).is_some() {
                    // Money comes with it, for whom only the other history knows; or it is back with its owner, and came here before.
                    let last = Sequence(sequence.0 - 1);
                    mail.last = run.marks.at(last).unwrap_or(mail.last);
                    mail.poison = Some(self.answers_another(sequence, *at));
                    return Ok(());
                } else {
                    self.disbelieve(*at);
                }
            }
            if let Some((_, message)) = message {
                let at = run.marks.at(sequence).unwrap_or(sequence.into());
                let command = Command::Receive { source: self.source.shard().clone(), at, message };
                mail.letters.push(Letter { at, request: Request { id: None, command }, delivered: mail.delivered });
            }
        }
        mail.last = run.marks.at(run.last).unwrap_or(run.last.into());
        Ok(())
    }

    /// Whether what the other shard took in from this one, up to `at`, is of the history that this shard has: one that was put back
    /// from a backup goes on with another.
    async fn is_of_this_history(&mut self, at: Cursor) -> Result<bool, Error> {
        // A leader of the version before noted none.
        if at.mark.is_none() {
            return Ok(true);
        }
        if self.own.at(at.sequence).is_none() {
            if at.sequence > self.shard.tail().head() {
                return Ok(false);
            }
            self.own = match self.shard.tail().marks(at.sequence).await {
                Ok(marks) => marks,
                // What is not kept any more waits for no acknowledgement: nothing comes of this one.
                Err(Error::NotKept { .. }) => return Ok(true),
                Err(error) => return Err(error),
            };
        }
        Ok(self.own.at(at.sequence) == Some(at))
    }

    /// Says that an acknowledgement is not believed. What it is about stays in transit.
    fn disbelieve(&self, at: Cursor) {
        metrics::counter!(counts::INBOX_DISBELIEVED).increment(1);
        let (source, shard) = (self.source.shard(), self.shard.reference());
        // Once: an acknowledgement comes with each entry that was taken in.
        if self.shard.inbox_problems().borrow().contains_key(source) {
            return;
        }
        let why = format!(
            "{source} has taken in entry {} of another history of {shard} than this one: what it acknowledges is not believed, and payments \
             to it stay in transit",
            at.sequence
        );
        tracing::error!(%source, %shard, %why, "an acknowledgement is not believed");
        self.shard.note_inbox(source, Some(why));
    }

    /// Has it all committed together.
    async fn take_in(&self, requests: Vec<Request>) -> Result<(), Stop> {
        let answers = self.shard.submit_internal(requests.clone()).await.map_err(Stop::Pause)?;
        for (request, answer) in requests.iter().zip(answers) {
            match answer {
                Ok(_) | Err(Rejection::AlreadyReceived { .. } | Rejection::NothingNew) => {}
                Err(why) => {
                    let sequence = if let Command::Receive { at, .. } = &request.command { at.sequence } else { self.read.sequence };
                    return Err(Stop::Poison(format!("entry {sequence} of {} cannot be taken in: {why}", self.source.shard())));
                }
            }
        }
        Ok(())
    }

    fn delivered_up_to(&self, up_to: Sequence, read_to: Cursor) -> Request {
        Request { id: None, command: Command::Delivered { to: self.source.shard().clone(), up_to, read_to } }
    }

    /// Notes how far each journal has taken effect in the other shard.
    async fn note(&mut self) -> Result<(), Stop> {
        self.take_in(vec![self.delivered_up_to(self.delivered, self.read)]).await?;
        (self.noted, self.delivered, self.note_at) = (self.read.sequence, Sequence(0), None);
        Ok(())
    }
}
