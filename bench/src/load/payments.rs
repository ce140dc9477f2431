//! Makes payments: seeded payers, payees and amounts, and request ids of UUID version 7.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::bail;
use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Builder;

use super::{CURRENCY, FIRST_USER, PAYMENT_MINOR_MAX, Payees};
use crate::proto::{
    common::Money,
    payments::{CaptureMode, CreatePaymentRequest, PaymentStatus},
};

/// A source of payments without end.
#[derive(Debug)]
pub(crate) struct Payments {
    rng: StdRng,
    accounts: u64,
    payees: Payees,
}

impl Payments {
    /// Payments among `accounts` users (at least three).
    pub(crate) fn new(accounts: u64, payees: Payees, seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), accounts, payees }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> CreatePaymentRequest {
        let last = FIRST_USER + self.accounts - 1;
        let hot = self.payees == Payees::Hot;
        // The hot payee pays nobody, so that what is measured is one account taking half of all credits.
        let payer_id = self.rng.random_range(if hot { FIRST_USER + 1 } else { FIRST_USER }..=last);
        let payee_id = if hot && self.rng.random() {
            FIRST_USER
        } else {
            let other = self.rng.random_range(FIRST_USER..last);
            if other >= payer_id { other + 1 } else { other }
        };
        CreatePaymentRequest {
            request_id: self.request_id(),
            payer_id,
            payee_id,
            amount: Some(Money { minor_units: self.rng.random_range(1..=PAYMENT_MINOR_MAX), currency_code: CURRENCY.to_owned() }),
            capture_mode: CaptureMode::Automatic.into(),
            ..CreatePaymentRequest::default()
        }
    }

    /// A batch.
    pub(crate) fn batch(&mut self, size: usize) -> Vec<CreatePaymentRequest> {
        (0..size).map(|_| self.next()).collect()
    }

    /// A fresh request id: the time in front, so that indexes grow at their end.
    pub(crate) fn request_id(&mut self) -> String {
        let mut random = [0; 10];
        self.rng.fill(&mut random);
        Builder::from_unix_timestamp_millis(now_us() / 1_000, &random).into_uuid().to_string()
    }
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// A rate over payments that did not take place is worth nothing: anything else than paid or on its way ends the run.
pub(crate) fn check(status: i32, reason: &str) -> anyhow::Result<()> {
    match PaymentStatus::try_from(status) {
        Ok(PaymentStatus::Completed | PaymentStatus::InTransit) => Ok(()),
        Ok(other) => bail!("a payment ended as {other:?} {reason}"),
        Err(_) => bail!("a payment has the unknown status {status}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nobody_pays_themselves_and_ids_do_not_repeat() {
        for payees in [Payees::Uniform, Payees::Hot] {
            let mut ids = HashSet::new();
            for payment in Payments::new(3, payees, 7).batch(5_000) {
                assert_ne!(payment.payer_id, payment.payee_id);
                assert!((1..=3).contains(&payment.payer_id) && (1..=3).contains(&payment.payee_id));
                assert!(ids.insert(payment.request_id));
            }
        }
    }

    #[test]
    fn the_hot_payee_takes_half() {
        let payments = Payments::new(1_000, Payees::Hot, 7).batch(10_000);
        let hot = payments.iter().filter(|payment| payment.payee_id == FIRST_USER).count();
        assert!((4_700..=5_300).contains(&hot), "{hot}");
        assert!(payments.iter().all(|payment| payment.payer_id != FIRST_USER));
    }
}
