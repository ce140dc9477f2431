//! Sets the stage: every user enrolled with one account and a deposit in it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;

use super::{
    CURRENCY, DEPOSIT_MINOR, FIRST_USER, Line, Payees, Plan,
    client::{Meter, Wire, say},
    payments::Payments,
};
use crate::proto::{
    common::Money,
    directory::{EnrollUserRequest, directory_service_client::DirectoryServiceClient},
    wallet::{DepositRequest, wallet_service_client::WalletServiceClient},
};

/// Time between two progress lines, in milliseconds.
const PROGRESS_MS: u64 = 200;

/// The meter must not end the enrolment, however long it takes: a day, in seconds.
const NO_END_SECONDS: u64 = 86_400;

struct Shared {
    next: Cell<u64>,
    end: u64,
    done: Cell<u64>,
    said: Cell<Instant>,
    ids: RefCell<Payments>,
    meter: RefCell<Meter>,
    country: String,
}

/// Enrols the plan's users, `in_flight` at a time.
pub(super) async fn enrol(plan: &Plan, channels: &[Wire], in_flight: usize, country: &str) -> anyhow::Result<Meter> {
    ensure!(in_flight > 0, "at least one call must be in flight");
    let shared = Rc::new(Shared {
        next: Cell::new(FIRST_USER),
        end: FIRST_USER + plan.accounts,
        done: Cell::new(0),
        said: Cell::new(Instant::now()),
        ids: RefCell::new(Payments::new(plan.accounts, Payees::Uniform, plan.seed)),
        meter: RefCell::new(Meter::new(Duration::ZERO, Duration::from_secs(NO_END_SECONDS))?),
        country: country.to_owned(),
    });
    try_join_all((0..in_flight).map(|lane| one_after_another(channels[lane % channels.len()].clone(), Rc::clone(&shared)))).await?;
    Ok(Rc::into_inner(shared).context("a task outlived its run")?.meter.into_inner())
}

async fn one_after_another(channel: Wire, shared: Rc<Shared>) -> anyhow::Result<()> {
    let mut directory = DirectoryServiceClient::new(channel.clone());
    let mut wallets = WalletServiceClient::new(channel);
    loop {
        let user_id = shared.next.get();
        if user_id == shared.end {
            return Ok(());
        }
        shared.next.set(user_id + 1);
        let (first_id, second_id) = {
            let mut ids = shared.ids.borrow_mut();
            (ids.request_id(), ids.request_id())
        };
        let began = Instant::now();
        let enrolment = EnrollUserRequest {
            request_id: first_id,
            user_id,
            residence_country: shared.country.clone(),
            currency_codes: vec![CURRENCY.to_owned()],
        };
        directory.enroll_user(enrolment).await.with_context(|| format!("cannot enrol user {user_id}"))?;
        let deposit = DepositRequest {
            request_id: second_id,
            user_id,
            amount: Some(Money { minor_units: DEPOSIT_MINOR, currency_code: CURRENCY.to_owned() }),
            ..DepositRequest::default()
        };
        wallets.deposit(deposit).await.with_context(|| format!("cannot pay in for user {user_id}"))?;
        shared.meter.borrow_mut().answer(began, 1);
        shared.done.set(shared.done.get() + 1);
        if shared.said.get().elapsed() >= Duration::from_millis(PROGRESS_MS) {
            shared.said.set(Instant::now());
            say(&Line::Done(shared.done.get()))?;
        }
    }
}
