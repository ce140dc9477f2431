//! Whether a peer is silent, so that not every call to it has to wait until its deadline to find out.
//!
//! A peer is asked a small question all the time, one at once, and looked at every half second. It is silent when six looks in
//! a row find that nothing has come from it: no answer to a question, and no part of one to a call, over whatever connection. From
//! then on calls to it are refused at once, and the first thing that comes from it ends that. So
//!
//! - what is slow is not silent: a peer whose calls all hang answers questions, and one too busy for questions answers calls;
//! - a look counts what this process had its turn to read: one that was stopped itself does not take that for the silence of others.
//!
//! Left to the caller: how a question is put, and what is refused.

use std::{
    convert::Infallible,
    future::Future,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Between two looks.
const LOOK_EVERY_MS: u64 = 500;

/// Looks in a row that find nothing before a peer is silent: three seconds, which is an ocean's way there and back and two packets lost,
/// or the wait for a turn of a node that shares two cores with ten busy programs.
const SILENT_LOOKS: u32 = 6;

/// How long a question may take before another is put in its place.
const QUESTION_WAIT_MAX_MS: u64 = SILENT_AFTER_MS;

/// How long nothing has come from a peer that is silent, at least.
pub(crate) const SILENT_AFTER_MS: u64 = LOOK_EVERY_MS * SILENT_LOOKS as u64;

/// What has been heard of a peer.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    /// Something has come since the last look.
    heard: AtomicBool,
    silent: AtomicBool,
}

impl Hearing {
    /// Something came from the peer just now.
    pub(crate) fn heard(&self) {
        // Read first: this is called for every part of every answer, and writing would have all cores wait for each other.
        if !self.heard.load(Relaxed) {
            self.heard.store(true, Relaxed);
        }
        if self.silent.load(Relaxed) {
            self.silent.store(false, Relaxed);
        }
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Relaxed)
    }
}

/// Puts questions and looks, for as long as it is polled. `ask` puts one; its error says why there is no answer. `changed` hears whether
/// the peer is reached, once that is known and whenever it changes, and if not, why.
pub(crate) async fn watch<A>(hearing: &Hearing, mut ask: impl FnMut() -> A, mut changed: impl FnMut(bool, &str)) -> Infallible
where
    A: Future<Output = Result<(), String>>,
{
    let wait = Duration::from_millis(QUESTION_WAIT_MAX_MS);
    let look_every = Duration::from_millis(LOOK_EVERY_MS);
    let mut looks = interval_at(Instant::now() + look_every, look_every);
    // A look that is late is one look.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut question = Box::pin(timeout(wait, ask()));
    let (mut open, mut nothing, mut why) = (true, 0_u32, String::new());
    // Before anything has come, or should have, it is not known whether the peer is there.
    let (mut known, mut told) = (false, None);
    loop {
        tokio::select! {
            // What has come is taken before it is missed.
            biased;
            answer = &mut question, if open => {
                open = false;
                match answer {
                    Ok(Ok(())) => {
                        hearing.heard();
                        known = true;
                    }
                    Ok(Err(cause)) => why = cause,
                    Err(_) => why = format!("a question was not answered within {QUESTION_WAIT_MAX_MS} ms"),
                }
            }
            _ = looks.tick() => {
                nothing = if hearing.heard.swap(false, Relaxed) { 0 } else { nothing.saturating_add(1) };
                hearing.silent.store(nothing >= SILENT_LOOKS, Relaxed);
                known |= nothing == 0 || nothing >= SILENT_LOOKS;
                if !open {
                    question.set(timeout(wait, ask()));
                    open = true;
                }
            }
        }
        let reached = !hearing.is_silent();
        if known && told.replace(reached) != Some(reached) {
            changed(reached, &why);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        future::pending,
    };

    use tokio::time::sleep;

    use super::*;

    /// Watches a peer whose answers take as long as `delay` says (none: for ever) while `meanwhile` happens, and gives back what was
    /// told: when, in milliseconds, and whether the peer was reached.
    async fn watched<M: Future>(hearing: &Hearing, delay: &Cell<Option<u64>>, meanwhile: M) -> Vec<(u64, bool)> {
        let (started, told) = (Instant::now(), RefCell::new(Vec::new()));
        let ask = || async {
            match delay.get() {
                Some(ms) => sleep(Duration::from_millis(ms)).await,
                None => pending().await,
            }
            Ok(())
        };
        let note =
            |reached, _: &str| told.borrow_mut().push((u64::try_from(started.elapsed().as_millis()).expect("a short test"), reached));
        tokio::select! {
            never = watch(hearing, ask, note) => match never {},
            _ = meanwhile => {}
        }
        told.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_for_three_seconds_is_silent_until_it_says_something() {
        let (hearing, delay) = (Hearing::default(), Cell::new(Some(20)));
        let told = watched(&hearing, &delay, async {
            sleep(Duration::from_millis(5_100)).await;
            delay.set(None);
            sleep(Duration::from_millis(2_900)).await;
            assert!(!hearing.is_silent(), "it has been silent for less than three seconds");
            sleep(Duration::from_millis(700)).await;
            assert!(hearing.is_silent());
            // The question that is out is given up, and the next is answered.
            delay.set(Some(20));
            sleep(Duration::from_millis(QUESTION_WAIT_MAX_MS + LOOK_EVERY_MS + 20)).await;
            assert!(!hearing.is_silent());
        })
        .await;
        let words: Vec<bool> = told.iter().map(|(_, reached)| *reached).collect();
        assert_eq!(words, [true, false, true], "{told:?}");
        assert!((8_000..=8_600).contains(&told[1].0), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_its_time_for_every_answer_is_not_silent() {
        for ms in [400, 900, 1_499, 2_900] {
            let (hearing, delay) = (Hearing::default(), Cell::new(Some(ms)));
            let told = watched(&hearing, &delay, sleep(Duration::from_secs(3_600))).await;
            assert_eq!(told, [(ms, true)], "answers that take {ms} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_too_busy_for_questions_and_answers_calls_is_not_silent() {
        let (hearing, delay) = (Hearing::default(), Cell::new(None));
        let told = watched(&hearing, &delay, async {
            for _ in 0..1_000 {
                sleep(Duration::from_millis(2_400)).await;
                hearing.heard();
            }
        })
        .await;
        assert!(told.iter().all(|(_, reached)| *reached), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_of_an_answer_to_a_call_ends_a_silence_as_well() {
        let (hearing, delay) = (Hearing::default(), Cell::new(None));
        watched(&hearing, &delay, async {
            sleep(Duration::from_millis(3_700)).await;
            assert!(hearing.is_silent());
            hearing.heard();
            assert!(!hearing.is_silent());
            sleep(Duration::from_millis(2_900)).await;
            assert!(!hearing.is_silent(), "the three seconds begin again");
            sleep(Duration::from_millis(700)).await;
            assert!(hearing.is_silent());
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_itself_does_not_take_others_for_silent() {
        let (hearing, delay) = (Hearing::default(), Cell::new(Some(20)));
        let told = watched(&hearing, &delay, async {
            for _ in 0..5 {
                sleep(Duration::from_millis(1_003)).await;
                // All timers are due at once, and nothing has been read.
                tokio::time::advance(Duration::from_secs(60)).await;
            }
            sleep(Duration::from_secs(10)).await;
        })
        .await;
        assert_eq!(told, [(20, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_cannot_be_asked_is_silent_and_it_is_said_why() {
        let hearing = Hearing::default();
        let asked = Cell::new(0);
        let told = RefCell::new(Vec::new());
        let ask = || {
            asked.set(asked.get() + 1);
            async { Err("nobody listens".to_owned()) }
        };
        tokio::select! {
            never = watch(&hearing, ask, |reached, why: &str| told.borrow_mut().push((reached, why.to_owned()))) => match never {},
            () = sleep(Duration::from_millis(10_100)) => {}
        }
        assert_eq!(told.into_inner(), [(false, "nobody listens".to_owned())]);
        assert!((20..=22).contains(&asked.get()), "{} questions in ten seconds", asked.get());
    }
}
