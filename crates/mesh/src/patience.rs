//! Waiting for somebody else, so long in all and no longer.
//!
//! What counts is the time in which nothing came and something was wanted. The time in which nobody wanted anything does not: a sender
//! is not slow because its receiver is. What comes in drops is waited for between them, and all of it counts.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// What is left of the time for one thing.
#[derive(Debug)]
pub(crate) struct Patience {
    wait: Duration,
    spent: Duration,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Patience {
    pub(crate) fn new(wait: Duration) -> Self {
        Self { wait, spent: Duration::ZERO, waiting: None }
    }

    /// To be called when nothing has come. Ready once all the time is spent.
    pub(crate) fn poll_spent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.wait.saturating_sub(self.spent);
        let waiting = self.waiting.get_or_insert_with(|| {
            let since = Instant::now();
            Waiting { since, sleep: Box::pin(sleep_until(since + left)) }
        });
        waiting.sleep.as_mut().poll(cx)
    }

    /// To be called when something has come.
    pub(crate) fn came(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.spent += waiting.since.elapsed();
        }
    }

    /// To be called when what was waited for is whole: the next thing has all the time again.
    pub(crate) fn renew(&mut self) {
        (self.spent, self.waiting) = (Duration::ZERO, None);
    }

    /// How long there is for one thing.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn drops_do_not_lengthen_it_and_the_receivers_own_pauses_do_not_count() {
        let mut patience = Patience::new(WAIT);
        for _ in 0..4 {
            assert!(timeout(Duration::from_secs(2), poll_fn(|cx| patience.poll_spent(cx))).await.is_err());
            patience.came();
            // Nobody asks.
            advance(Duration::from_secs(60)).await;
        }
        let began = Instant::now();
        poll_fn(|cx| patience.poll_spent(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 2);
        patience.came();
        patience.renew();
        let began = Instant::now();
        poll_fn(|cx| patience.poll_spent(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 10);
        sleep(Duration::ZERO).await;
    }
}
