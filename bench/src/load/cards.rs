//! Payments by card through the mesh, and cards taken in.

use std::cell::{Cell, RefCell};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use paymesh_client::{Card, CardNumber, Expiry, VaultKey, seal};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

use super::{
    FIRST_USER, Payees, Plan,
    client::{Meter, Wire},
    pace::Pace,
    payments::{Payments, check},
};
use crate::{
    proto::{
        payments::{ByCard, CreatePaymentRequest, payment_service_client::PaymentServiceClient},
        vault::{CardDetails, GetVaultKeyRequest, SealedCard, TokenizeRequest, vault_service_client::VaultServiceClient},
    },
    sample,
};

/// The most cards that a vault keeps for a user.
pub(crate) const CARDS_PER_USER_MAX: u64 = 64;

/// Cards that are sealed before they are sent, for each second of the run; more are sealed as they are needed.
const SEALED_PER_SECOND: u64 = 8_000;

/// Cards that are taken in at once before payments are made by them.
const PREPARING_IN_FLIGHT: usize = 64;

/// Numbers that [`card`] tells apart.
pub(super) const NUMBERS: u64 = 1_000_000_000;

/// Through when the cards hold.
const EXPIRY: (u8, u16) = (12, 2045);

/// Of a request that takes in a user's card to pay with; the user's id is in its last 64 bits. The same in every run, so that the token is, too.
const REQUEST_IDS: u128 = 0x0192_0000_0000_7000 << 64;

/// A card that belongs to nobody and that the simulator approves of, another for each number below [`NUMBERS`].
pub(super) fn card(number: u64) -> anyhow::Result<Card> {
    let with_check = |check: u8| CardNumber::parse(&format!("424242{number:09}{check}")).ok();
    let number = (0..10).find_map(with_check).context("one of ten digits is the check digit")?;
    Ok(Card { number, expiry: Expiry::new(u32::from(EXPIRY.0), u32::from(EXPIRY.1))? })
}

fn details(card: &Card) -> CardDetails {
    let Card { number, expiry } = card;
    CardDetails { number: number.expose().to_owned(), expiry_month: u32::from(expiry.month()), expiry_year: u32::from(expiry.year()) }
}

/// Pays by the payers' cards, one each, at a pace.
pub(super) async fn pay(
    plan: &Plan,
    channels: &[Wire],
    payees: Payees,
    pace: Pace,
    meter: impl Fn() -> anyhow::Result<Meter>,
) -> anyhow::Result<Meter> {
    let tokens = tokens(plan, &channels[0]).await?;
    let payments = RefCell::new(Payments::new(plan.accounts, payees, plan.seed));
    let lanes = Lanes::new(channels);
    let call = async || {
        let request = payments.borrow_mut().next();
        let vault_token = usize::try_from(request.payer_id - FIRST_USER).ok().and_then(|index| tokens.get(index));
        let card = ByCard { vault_token: vault_token.context("every payer has a card")?.clone(), ..ByCard::default() };
        let request = CreatePaymentRequest { card: Some(card), ..request };
        let response = PaymentServiceClient::new(lanes.next()).create_payment(request).await?.into_inner();
        let payment = response.payment.context("the answer holds no payment")?;
        check(payment.status, &payment.reason)
    };
    pace.run(meter()?, call).await
}

/// A card of each user.
async fn tokens(plan: &Plan, channel: &Wire) -> anyhow::Result<Vec<String>> {
    let token = async |user_id| {
        let request_id = Uuid::from_u128(REQUEST_IDS | u128::from(user_id)).to_string();
        let request = TokenizeRequest { request_id, user_id, card: Some(details(&card(user_id)?)), sealed_card: None };
        let response =
            VaultServiceClient::new(channel.clone()).tokenize(request).await.with_context(|| format!("user {user_id} has no card"))?;
        Ok(response.into_inner().description.context("the answer holds no description")?.vault_token)
    };
    stream::iter(FIRST_USER..FIRST_USER + plan.accounts).map(token).buffered(PREPARING_IN_FLIGHT).try_collect().await
}

/// Takes cards in, `in_flight` at a time, of one user after the other.
pub(super) async fn take_in(
    plan: &Plan,
    channels: &[Wire],
    in_flight: usize,
    sealed: bool,
    meter: impl Fn() -> anyhow::Result<Meter>,
) -> anyhow::Result<Meter> {
    let wallet = RefCell::new(Wallet::new(plan));
    let key = if sealed {
        let mut vault = VaultServiceClient::new(channels[0].clone());
        Some(vault.get_vault_key(GetVaultKeyRequest { user_id: FIRST_USER }).await?.into_inner())
    } else {
        None
    };
    let make = || {
        let (user_id, number, request_id) = wallet.borrow_mut().next();
        let request = TokenizeRequest { request_id, user_id, ..TokenizeRequest::default() };
        anyhow::Ok(match &key {
            None => TokenizeRequest { card: Some(details(&card(number)?)), ..request },
            Some(key) => {
                let sealed: SealedCard = seal(&card(number)?, &VaultKey::unproven(user_id, key)?)?;
                TokenizeRequest { sealed_card: Some(sealed), ..request }
            }
        })
    };
    // Cards are sealed where they are typed in, which is on no machine of the mesh's.
    let planned = if sealed { SEALED_PER_SECOND * plan.work.seconds() } else { 0 };
    let before = sample::thread_cpu_seconds()?;
    let ready = RefCell::new((0..planned).map(|_| make()).collect::<anyhow::Result<Vec<_>>>()?);
    let preparation_us = (sample::thread_cpu_seconds()? - before) * 1e6 / planned.max(1) as f64;
    let lanes = Lanes::new(channels);
    let call = async || {
        let request = match ready.borrow_mut().pop() {
            Some(request) => request,
            None => make()?,
        };
        let user_id = request.user_id;
        let response = VaultServiceClient::new(lanes.next()).tokenize(request).await?.into_inner();
        let description = response.description.context("the answer holds no description")?;
        ensure!(description.user_id == user_id, "a card of user {user_id} was taken in for user {}", description.user_id);
        Ok(())
    };
    let meter = if sealed { meter()?.prepared(preparation_us) } else { meter()? };
    Pace::Closed { in_flight }.run(meter, call).await
}

/// A source of cards without end.
struct Wallet {
    rng: StdRng,
    ids: Payments,
    accounts: u64,
    turn: u64,
}

impl Wallet {
    fn new(plan: &Plan) -> Self {
        let mut rng = StdRng::seed_from_u64(plan.seed);
        // Runs begin at different users, or the first ones would have all cards.
        let turn = rng.random_range(0..plan.accounts);
        Self { rng, ids: Payments::new(plan.accounts, Payees::Uniform, plan.seed), accounts: plan.accounts, turn }
    }

    /// Whose, which number, and the id of the request.
    fn next(&mut self) -> (u64, u64, String) {
        self.turn += 1;
        (FIRST_USER + self.turn % self.accounts, self.rng.random_range(0..NUMBERS), self.ids.request_id())
    }
}

/// Connections in turn.
struct Lanes<'a> {
    channels: &'a [Wire],
    turn: Cell<usize>,
}

impl<'a> Lanes<'a> {
    fn new(channels: &'a [Wire]) -> Self {
        Self { channels, turn: Cell::new(0) }
    }

    fn next(&self) -> Wire {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        self.channels[turn % self.channels.len()].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_cards_and_no_two_are_the_same() {
        let cards: Vec<Card> = [0, 1, 9, NUMBERS / 2, NUMBERS - 1].into_iter().map(|number| card(number).expect("a card")).collect();
        for (index, card) in cards.iter().enumerate() {
            assert_eq!(card.number.expose().len(), 16);
            assert!(cards[..index].iter().all(|other| other.number.expose() != card.number.expose()));
        }
    }

    #[test]
    fn everybody_is_given_as_many_cards() {
        let work = super::super::Work::Enrol { in_flight: 1, country: String::new() };
        let plan = Plan { endpoint: String::new(), security: None, connections: 1, accounts: 5, seed: 7, work };
        let (mut wallet, mut counts) = (Wallet::new(&plan), [0; 5]);
        for _ in 0..50 {
            let (user, number, _) = wallet.next();
            assert!(number < NUMBERS);
            counts[usize::try_from(user - FIRST_USER).expect("small")] += 1;
        }
        assert_eq!(counts, [10; 5]);
    }
}
