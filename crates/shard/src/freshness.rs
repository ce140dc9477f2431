//! How current a copy is known to be, without comparing the clocks of two machines.
//!
//! The follower asks its leader how far it is, and notes by its own clock when. The answer proves that nothing after the
//! head it names had been committed when the question was put. Once the copy has come to that head it holds everything
//! that there was then, however long the question and the answer were on their way.

use paymesh_types::{Epoch, Sequence};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// What a leader's answer to a question proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Proof {
    /// The leader had no entry after this one,
    head: Sequence,
    /// at this instant of the follower's clock.
    at: Instant,
}

/// What is known of the leader. It keeps two proofs that the copy has not come to yet, however many there are: the oldest, so
/// that something comes true soon, and the latest, for the next.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    epoch: Epoch,
    waiting: Option<Proof>,
    latest: Option<Proof>,
    /// Of when it holds everything.
    current_at: Option<Instant>,
}

impl Known {
    fn note(&mut self, proof: Proof, held: Sequence) {
        // Before the latest is another: it may be what is waited for next.
        self.settle(held);
        self.latest = Some(proof);
        self.waiting.get_or_insert(proof);
        self.settle(held);
    }

    /// Draws the conclusions of having come to `held`.
    fn settle(&mut self, held: Sequence) {
        let come_true = |proof: Option<Proof>| proof.filter(|proof| proof.head <= held);
        if let Some(latest) = come_true(self.latest) {
            (self.current_at, self.waiting) = (self.current_at.max(Some(latest.at)), None);
        } else if let Some(waiting) = come_true(self.waiting) {
            (self.current_at, self.waiting) = (self.current_at.max(Some(waiting.at)), self.latest);
        }
    }
}

/// How current a copy is known to be, and who wants to know better.
#[derive(Debug)]
pub(crate) struct Freshness {
    known: watch::Sender<Known>,
    wanted: Notify,
}

impl Freshness {
    /// Of a copy whose last entry is of that epoch.
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { known: watch::Sender::new(Known { epoch, ..Known::default() }), wanted: Notify::new() }
    }

    /// A leader of this epoch said that `head` was its last entry, in answer to a question put at `asked_at`, if to any; the copy
    /// has come to `held`.
    pub(crate) fn note(&self, epoch: Epoch, head: Sequence, asked_at: Option<Instant>, held: Sequence) {
        self.known.send_modify(|known| {
            known.epoch = known.epoch.max(epoch);
            match asked_at {
                Some(at) => known.note(Proof { head, at }, held),
                None => known.settle(held),
            }
        });
    }

    /// A leader of this term has written something.
    pub(crate) fn note_epoch(&self, epoch: Epoch) {
        self.known.send_if_modified(|known| {
            let later = epoch > known.epoch;
            known.epoch = known.epoch.max(epoch);
            later
        });
    }

    /// The latest term of the leader that is known.
    pub(crate) fn epoch(&self) -> Epoch {
        self.known.borrow().epoch
    }

    /// When a copy that has come to `held` is known to have held everything; `None` when it never was since it was opened.
    pub(crate) fn current_at(&self, held: Sequence) -> Option<Instant> {
        let mut known = *self.known.borrow();
        known.settle(held);
        known.current_at
    }

    /// Waits until the leader is known to be of this term at least.
    pub(crate) async fn wait_for_epoch(&self, epoch: Epoch) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.known.subscribe().wait_for(|known| known.epoch >= epoch).await;
    }

    /// The entry that a copy must have come to in order to hold everything as of `at`. Asks the leader where that is not known.
    pub(crate) async fn head_as_of(&self, at: Option<Instant>, held: Sequence) -> Sequence {
        let enough = |instant: Instant| at.is_none_or(|at| instant >= at);
        if self.current_at(held).is_some_and(enough) {
            return held;
        }
        let proves = |known: &Known| known.latest.filter(|proof| enough(proof.at)).map(|proof| proof.head);
        let mut known = self.known.subscribe();
        if proves(&known.borrow()).is_none() {
            self.wanted.notify_one();
        }
        // As above.
        let found = known.wait_for(|known| proves(known).is_some()).await;
        found.ok().and_then(|known| proves(&known)).unwrap_or(held)
    }

    /// Waits until the leader has answered a question that was put at `at` or later, which happens by itself, and says what its last entry
    /// was then.
    pub(crate) async fn told_since(&self, at: Instant) -> Sequence {
        let told = |known: &Known| known.latest.filter(|proof| proof.at >= at).map(|proof| proof.head);
        match self.known.subscribe().wait_for(|known| told(known).is_some()).await.ok().and_then(|known| told(&known)) {
            Some(head) => head,
            // The sender lives as long as `self`, so waiting cannot fail.
            None => std::future::pending().await,
        }
    }

    /// Waits until somebody wants the leader to be asked.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_copy_is_current_as_of_the_question_whose_answer_it_has_come_to() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let freshness = Freshness::new(Epoch(3));
        let current = |held| freshness.current_at(Sequence(held)).map(|instant| (instant - start).as_millis());
        assert_eq!(current(10), None);
        // Said unasked: how old it is by now, nobody knows.
        freshness.note(Epoch(4), Sequence(10), None, Sequence(10));
        assert_eq!((current(10), freshness.epoch()), (None, Epoch(4)));
        freshness.note(Epoch(4), Sequence(12), Some(at(5)), Sequence(10));
        assert_eq!((current(10), current(11), current(12)), (None, None, Some(5)));
        // A leader that goes on faster than the copy: what was asked first comes true first, and then the latest.
        for (head, ms) in [(20, 15), (30, 25), (40, 35)] {
            freshness.note(Epoch(4), Sequence(head), Some(at(ms)), Sequence(11));
        }
        assert_eq!((current(11), current(12), current(39), current(40)), (None, Some(5), Some(5), Some(35)));
        freshness.note(Epoch(4), Sequence(50), Some(at(45)), Sequence(13));
        assert_eq!((current(13), current(40), current(49), current(50)), (Some(5), Some(35), Some(35), Some(45)));
    }

    #[test]
    fn under_a_leader_that_never_rests_a_copy_that_lags_a_little_is_a_little_old() {
        let start = Instant::now();
        let freshness = Freshness::new(Epoch(1));
        // One entry and one answer each millisecond, the copy 50 entries behind.
        for ms in 1..2_000_u64 {
            let held = Sequence(ms.saturating_sub(50));
            freshness.note(Epoch(1), Sequence(ms), Some(start + Duration::from_millis(ms)), held);
            if ms > 200 {
                let current = freshness.current_at(held).expect("something came true");
                let age = start + Duration::from_millis(ms) - current;
                assert!((50..=150).contains(&age.as_millis()), "{age:?} after {ms} ms");
            }
        }
    }

    #[tokio::test]
    async fn who_wants_it_fresher_has_the_leader_asked_and_hears_where_that_leads() {
        let freshness = Freshness::new(Epoch(1));
        let arrived = Instant::now();
        let asks = async {
            freshness.wanted().await;
            freshness.note(Epoch(1), Sequence(7), Some(arrived - Duration::from_millis(1)), Sequence(3));
            // That was a moment too early.
            tokio::task::yield_now().await;
            freshness.note(Epoch(1), Sequence(9), Some(arrived), Sequence(3));
        };
        let (head, ()) = tokio::join!(freshness.head_as_of(Some(arrived), Sequence(3)), asks);
        assert_eq!(head, Sequence(9));
        // Known, and not asked again.
        assert_eq!(freshness.head_as_of(Some(arrived), Sequence(8)).await, Sequence(9));
        assert_eq!(freshness.head_as_of(None, Sequence(8)).await, Sequence(8), "any age will do, and one is known");
        assert_eq!(freshness.head_as_of(Some(arrived), Sequence(11)).await, Sequence(11));
    }
}
