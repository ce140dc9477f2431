//! What became of payments, for `/metrics`: each is counted once, at the node that booked or refused it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use paymesh_contract::payments::v1::PaymentStatus;

/// Payments by what became of them (source document, "Monitoring and Alerting").
const REQUESTS: &str = "payment_requests_total";

/// From a payment's request, or its batch's, to its answer.
const SECONDS: &str = "payment_processing_seconds";

/// What moves the money of payments that are not by card.
const WALLET: &str = "wallet";

/// Says in `/metrics` what this crate counts. To be called once the recorder is installed.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        REQUESTS,
        "Payments asked for, by what became of them, and by the gateway that a card was charged through, or wallet"
    );
    metrics::describe_histogram!(SECONDS, metrics::Unit::Seconds, "From a payment's request, or its batch's, to its answer");
}

/// Payments of one request.
#[derive(Debug)]
pub(crate) struct Tally {
    started: Instant,
    authorized: u64,
    in_transit: u64,
    completed: u64,
    declined: u64,
    error: u64,
    /// By card: by status and gateway.
    by_card: BTreeMap<(&'static str, String), u64>,
}

impl Tally {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), authorized: 0, in_transit: 0, completed: 0, declined: 0, error: 0, by_card: BTreeMap::new() }
    }

    /// One that was recorded.
    pub(crate) fn recorded(&mut self, status: PaymentStatus) {
        match status {
            PaymentStatus::Authorized => self.authorized += 1,
            PaymentStatus::InTransit => self.in_transit += 1,
            PaymentStatus::Declined => self.declined += 1,
            // Nothing else is a payment's first state.
            _ => self.completed += 1,
        }
    }

    /// One by card that was recorded, as far as its acquirer was waited for.
    pub(crate) fn recorded_by_card(&mut self, status: PaymentStatus, gateway: &str) {
        let status = match status {
            PaymentStatus::Pending => "pending",
            PaymentStatus::RequiresAction => "requires_action",
            PaymentStatus::Authorized => "authorized",
            PaymentStatus::InTransit => "in_transit",
            PaymentStatus::Declined | PaymentStatus::Voided => "declined",
            _ => "completed",
        };
        *self.by_card.entry((status, gateway.to_owned())).or_default() += 1;
    }

    /// One that was not.
    pub(crate) fn failed(&mut self) {
        self.error += 1;
    }

    /// Says so in `/metrics`.
    pub(crate) fn publish(self) {
        let Self { started, authorized, in_transit, completed, declined, error, by_card } = self;
        let counts =
            [("authorized", authorized), ("in_transit", in_transit), ("completed", completed), ("declined", declined), ("error", error)];
        for (status, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            metrics::counter!(REQUESTS, "status" => status, "gateway" => WALLET).increment(count);
        }
        let payments = counts.iter().map(|(_, count)| count).chain(by_card.values()).sum::<u64>();
        for ((status, gateway), count) in by_card {
            metrics::counter!(REQUESTS, "status" => status, "gateway" => gateway).increment(count);
        }
        let took: Duration = started.elapsed();
        metrics::histogram!(SECONDS).record_many(took, usize::try_from(payments).unwrap_or(usize::MAX));
    }
}
