//! Payments in batches over one StreamPayments call.

use std::{collections::VecDeque, time::Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{Payees, Plan, client::Meter, payments::Payments, payments::check};
use crate::proto::payments::{
    PaymentOutcome, StreamPaymentsRequest, payment_outcome::Outcome, payment_service_client::PaymentServiceClient,
};

/// Keeps `in_flight` batches of `batch` payments unanswered until the meter says stop.
pub(super) async fn pay(
    plan: &Plan,
    channel: &Channel,
    payees: Payees,
    batch: usize,
    in_flight: usize,
    mut meter: Meter,
) -> anyhow::Result<Meter> {
    ensure!(batch > 0 && in_flight > 0, "a stream needs a batch of at least one payment, and one in flight");
    let mut payments = Payments::new(plan.accounts, payees, plan.seed);
    let (sender, receiver) = mpsc::channel(in_flight);
    let mut sent = VecDeque::new();
    let mut batch_id = 0;
    // The first batches go before the call: a server may wait for them before it answers with headers.
    for _ in 0..in_flight {
        batch_id += 1;
        let request = StreamPaymentsRequest { batch_id, payments: payments.batch(batch) };
        sent.push_back((batch_id, Instant::now()));
        sender.send(request).await.context("the stream is closed")?;
    }
    let mut sender = Some(sender);
    let mut answers = PaymentServiceClient::new(channel.clone()).stream_payments(ReceiverStream::new(receiver)).await?.into_inner();
    // Made while the server works on the ones before.
    let mut ready = payments.batch(batch);
    while let Some(answer) = answers.message().await? {
        let (expected, began) = sent.pop_front().context("an answer to a batch that was not sent")?;
        ensure!(answer.batch_id == expected, "an answer to batch {} came instead of batch {expected}", answer.batch_id);
        ensure!(answer.outcomes.len() == batch, "{} outcomes for {batch} payments", answer.outcomes.len());
        let go_on = meter.answer(began, batch as u64);
        if go_on && let Some(sender) = &sender {
            batch_id += 1;
            sent.push_back((batch_id, Instant::now()));
            let request = StreamPaymentsRequest { batch_id, payments: std::mem::take(&mut ready) };
            sender.send(request).await.context("the stream is closed")?;
            ready = payments.batch(batch);
        } else {
            sender = None;
        }
        answer.outcomes.iter().try_for_each(check_outcome)?;
    }
    ensure!(sent.is_empty(), "the stream ended with {} batches unanswered", sent.len());
    Ok(meter)
}

fn check_outcome(outcome: &PaymentOutcome) -> anyhow::Result<()> {
    match &outcome.outcome {
        Some(Outcome::Receipt(receipt)) => check(receipt.status, &receipt.reason),
        Some(Outcome::Error(error)) => bail!("a payment failed: {} {} {}", error.reason, error.field, error.message),
        None => bail!("a payment has no outcome"),
    }
}
