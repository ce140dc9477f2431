//! The floor: a bare tonic server that answers CreatePayment with a fixed response of the size that a node sends.
//!
//! It keeps nothing and checks nothing. What a node takes more than this is what durability, the ledger and the mesh cost.

use tonic::Status;

use super::Books;
use crate::{
    load::{CURRENCY, PAYMENT_MINOR_MAX},
    proto::{
        common::{Money, Position, ShardRef},
        payments::{CreatePaymentRequest, CreatePaymentResponse, Payment, PaymentStatus},
    },
};

/// Answers everybody the same.
#[derive(Debug)]
pub(crate) struct Echo {
    response: CreatePaymentResponse,
}

impl Echo {
    /// With a response as long as a node's: ids of the length that they have after a million payments.
    pub(crate) fn new() -> Self {
        let position = Position { zone: "eu".to_owned(), shard: 3, epoch: 1, sequence: 1_000_000 };
        let created_at = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_456_000 };
        let payment = Payment {
            payment_id: "pay_eu_3_1_1000000".to_owned(),
            payer_id: 1_000,
            payee_id: 1_000,
            payee_shard: Some(ShardRef { zone: "eu".to_owned(), shard: 3 }),
            amount: Some(Money { minor_units: PAYMENT_MINOR_MAX, currency_code: CURRENCY.to_owned() }),
            captured_minor_units: PAYMENT_MINOR_MAX,
            status: PaymentStatus::Completed.into(),
            created_at: Some(created_at),
            ..Payment::default()
        };
        Self { response: CreatePaymentResponse { payment: Some(payment), position: Some(position) } }
    }
}

impl Books for Echo {
    async fn pay(&self, _: CreatePaymentRequest) -> Result<CreatePaymentResponse, Status> {
        Ok(self.response.clone())
    }
}
