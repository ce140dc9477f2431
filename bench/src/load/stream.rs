//! Payments in batches over one StreamPayments call.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tokio::{sync::mpsc, time::sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    Payees, Plan,
    client::{Meter, Wire},
    pace::Pace,
    payments::{Payments, check},
};
use crate::proto::payments::{
    PaymentOutcome, StreamPaymentsRequest, StreamPaymentsResponse, payment_outcome::Outcome, payment_service_client::PaymentServiceClient,
};

/// Batches of a timed stream in flight at most: a server that is behind by as many is not sent more.
const TIMED_IN_FLIGHT_MAX: usize = 64;

/// Sends batches of `batch` payments at their pace until the meter says stop.
pub(super) async fn pay(plan: &Plan, channel: &Wire, payees: Payees, batch: usize, pace: Pace, meter: Meter) -> anyhow::Result<Meter> {
    let (first, in_flight_max, every) = match pace {
        Pace::Closed { in_flight } => (in_flight, in_flight, None),
        Pace::Timed { rate } => (1, TIMED_IN_FLIGHT_MAX, Some(Duration::from_secs_f64(batch as f64 / rate.max(1) as f64))),
    };
    ensure!(batch > 0 && first > 0, "a stream needs a batch of at least one payment, and one in flight");
    let mut payments = Payments::new(plan.accounts, payees, plan.seed);
    let (sender, receiver) = mpsc::channel(in_flight_max);
    let mut sent = VecDeque::new();
    // The first batches go before the call: a server may wait for them before it answers with headers.
    for batch_id in 1..=first as u64 {
        let request = StreamPaymentsRequest { batch_id, payments: payments.batch(batch) };
        sent.push_back((batch_id, Instant::now()));
        sender.send(request).await.context("the stream is closed")?;
    }
    let answers = PaymentServiceClient::new(channel.clone()).stream_payments(ReceiverStream::new(receiver)).await?.into_inner();
    // Made while the server works on the ones before.
    let ready = payments.batch(batch);
    let stream = Stream { payments, batch, ready, last: first as u64, sender: Some(sender), sent, meter };
    match every {
        None => stream.closed(answers).await,
        Some(every) => stream.timed(answers, every).await,
    }
}

struct Stream {
    payments: Payments,
    batch: usize,
    ready: Vec<crate::proto::payments::CreatePaymentRequest>,
    last: u64,
    /// Until no more is sent.
    sender: Option<mpsc::Sender<StreamPaymentsRequest>>,
    /// Batches that are not answered.
    sent: VecDeque<(u64, Instant)>,
    meter: Meter,
}

impl Stream {
    async fn closed(mut self, mut answers: Streaming<StreamPaymentsResponse>) -> anyhow::Result<Meter> {
        while let Some(answer) = answers.message().await? {
            let go_on = self.answered(&answer)?;
            if go_on {
                self.send().await?;
            } else {
                self.sender = None;
            }
            answer.outcomes.iter().try_for_each(check_outcome)?;
        }
        self.finished()
    }

    async fn timed(mut self, mut answers: Streaming<StreamPaymentsResponse>, every: Duration) -> anyhow::Result<Meter> {
        let mut due = tokio::time::Instant::now() + every;
        loop {
            tokio::select! {
                answer = answers.message() => {
                    let Some(answer) = answer? else { return self.finished() };
                    self.answered(&answer)?;
                    answer.outcomes.iter().try_for_each(check_outcome)?;
                }
                () = sleep_until(due), if self.sender.is_some() && self.sent.len() < TIMED_IN_FLIGHT_MAX => {
                    due += every;
                    if Instant::now() < self.meter.stop_at {
                        self.send().await?;
                    } else {
                        self.sender = None;
                    }
                }
            }
        }
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let Some(sender) = &self.sender else { return Ok(()) };
        self.last += 1;
        self.sent.push_back((self.last, Instant::now()));
        let request = StreamPaymentsRequest { batch_id: self.last, payments: std::mem::take(&mut self.ready) };
        sender.send(request).await.context("the stream is closed")?;
        self.ready = self.payments.batch(self.batch);
        Ok(())
    }

    /// Takes an answer in, and says whether another batch may begin.
    fn answered(&mut self, answer: &StreamPaymentsResponse) -> anyhow::Result<bool> {
        let (expected, began) = self.sent.pop_front().context("an answer to a batch that was not sent")?;
        ensure!(answer.batch_id == expected, "an answer to batch {} came instead of batch {expected}", answer.batch_id);
        ensure!(answer.outcomes.len() == self.batch, "{} outcomes for {} payments", answer.outcomes.len(), self.batch);
        Ok(self.meter.answer(began, self.batch as u64))
    }

    fn finished(self) -> anyhow::Result<Meter> {
        ensure!(self.sent.is_empty(), "the stream ended with {} batches unanswered", self.sent.len());
        Ok(self.meter)
    }
}

fn check_outcome(outcome: &PaymentOutcome) -> anyhow::Result<()> {
    match &outcome.outcome {
        Some(Outcome::Receipt(receipt)) => check(receipt.status, &receipt.reason),
        Some(Outcome::Error(error)) => bail!("a payment failed: {} {} {}", error.reason, error.field, error.message),
        None => bail!("a payment has no outcome"),
    }
}
