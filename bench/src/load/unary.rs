//! Payments one a call.

use std::{cell::RefCell, rc::Rc, time::Instant};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;

use super::{
    Payees, Plan,
    client::{Meter, Wire},
    payments::{Payments, check},
};
use crate::proto::payments::payment_service_client::PaymentServiceClient;

/// Keeps `in_flight` calls unanswered until the meter says stop.
pub(super) async fn pay(plan: &Plan, channels: &[Wire], payees: Payees, in_flight: usize, meter: Meter) -> anyhow::Result<Meter> {
    ensure!(in_flight > 0, "at least one call must be in flight");
    let shared = Rc::new(RefCell::new((meter, Payments::new(plan.accounts, payees, plan.seed))));
    try_join_all((0..in_flight).map(|lane| {
        let client = PaymentServiceClient::new(channels[lane % channels.len()].clone());
        one_after_another(client, Rc::clone(&shared))
    }))
    .await?;
    let (meter, _) = Rc::into_inner(shared).context("a task outlived its run")?.into_inner();
    Ok(meter)
}

async fn one_after_another(mut client: PaymentServiceClient<Wire>, shared: Rc<RefCell<(Meter, Payments)>>) -> anyhow::Result<()> {
    loop {
        let request = shared.borrow_mut().1.next();
        let began = Instant::now();
        let response = client.create_payment(request).await?.into_inner();
        let go_on = shared.borrow_mut().0.answer(began, 1);
        let payment = response.payment.context("the answer holds no payment")?;
        check(payment.status, &payment.reason)?;
        if !go_on {
            return Ok(());
        }
    }
}
