//! The connector to Stripe: PaymentIntents that are captured by hand.
//!
//! An authorization is three calls, of which only the last can move money: an intent is made without a card, then a payment method of the card, then the intent is
//! confirmed with it. So whatever fails before the last is certain, and an intent can be found again without the card: by its id, or by making it again under the same
//! idempotency key, which gives the same intent. Keys are forgotten after 24 hours. Therefore nothing is authorized under a reference that is older than
//! [`AUTHORIZE_WITHIN`], and what is older than [`KEYS_HOLD`] is looked for in the list of the intents that were made while it was young: the list is consistent, the search
//! is not.
//!
//! Captures and refunds leave their references on the intent and on the refund, and are looked for before they are made: to do one twice does it once, however late.

mod amount;
mod form;
mod model;

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, header};
use paymesh_cards::Card;
use paymesh_types::Timestamp;
use tokio::time::Instant;

use self::{
    form::Form,
    model::{Intent, Intents, Made, Method, Refunded, Refunds, Status, Told},
};
use crate::{
    Acquirer, Authentication, Authorization, Capture, Challenge, Charge, ChargeState, Class, Clock, Decision, Decline, Failure, Reference,
    Refund, Settlement, Sought, Void,
    web::{Reply, Web},
};

/// The version of Stripe's API that the connector was written for.
const VERSION: &str = "2024-06-20";
/// How old a reference may be to be authorized under.
const AUTHORIZE_WITHIN: Duration = Duration::from_secs(3600);
/// How long an idempotency key is counted on: less than the 24 hours that Stripe promises.
const KEYS_HOLD: Duration = Duration::from_secs(23 * 3600);
/// How far clocks may be apart, where intents are looked for by the time at which they were made.
const CLOCKS_APART: Duration = Duration::from_secs(600);
/// Things on a page of a list.
const PAGE: usize = 100;
/// Pages of a list at most. Where there are more, the answer is that nobody knows.
const PAGES_MAX: usize = 200;
/// Where an intent has the reference of its authorization, and a refund its own.
const REFERENCE: &str = "metadata[paymesh_reference]";
/// Where an intent has the reference of its capture.
const CAPTURE: &str = "metadata[paymesh_capture]";

/// The connector.
pub(crate) struct Stripe {
    web: Web,
    clock: Clock,
    /// Where a cardholder goes after a challenge.
    return_url: Option<String>,
}

/// The headers of every request.
///
/// # Errors
/// The key is no header's value.
pub(crate) fn headers(key: &str) -> Result<Vec<(HeaderName, HeaderValue)>, http::header::InvalidHeaderValue> {
    let mut bearer = HeaderValue::from_str(&format!("Bearer {key}"))?;
    bearer.set_sensitive(true);
    Ok(vec![(header::AUTHORIZATION, bearer), (HeaderName::from_static("stripe-version"), HeaderValue::from_static(VERSION))])
}

impl Stripe {
    /// `web` sends the [`headers`].
    pub(crate) fn new(web: Web, clock: Clock, return_url: Option<String>) -> Self {
        Self { web, clock, return_url }
    }

    async fn post(&self, path: &str, key: &str, form: Form, deadline: Instant) -> Result<Reply, Failure> {
        let key = HeaderValue::from_str(key).map_err(|_| Failure::not_done(Class::Refused, "the reference is no header's value"))?;
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (HeaderName::from_static("idempotency-key"), key),
        ];
        self.web.post(path, &headers, form.into_bytes(), deadline).await
    }

    /// How long ago a reference was first used. What lies ahead has just begun.
    fn age(&self, begun_at: Timestamp) -> Duration {
        Duration::from_micros((self.clock)().0.saturating_sub(begun_at.0))
    }

    /// Makes the intent, or finds the one that was made under the same key. It moves nothing.
    async fn make(&self, sought: &Sought, deadline: Instant) -> Result<Made, Failure> {
        let amount = amount::to_stripe(sought.amount).ok_or_else(|| Failure::not_done(Class::Refused, "Stripe has no such amount"))?;
        let mut form = Form::new();
        form.add("amount", &amount.to_string());
        form.add("currency", &sought.amount.currency().code().to_ascii_lowercase());
        form.add("capture_method", "manual");
        form.add("payment_method_types[]", "card");
        form.add(REFERENCE, sought.reference.as_str());
        let key = format!("{}.intent", sought.reference);
        let made = async {
            let reply = self.post("/v1/payment_intents", &key, form, deadline).await?;
            let replayed = reply.headers.get("idempotent-replayed").is_some_and(|value| value == "true");
            match told(&reply) {
                Told::Yes => {
                    let intent: Intent = reply.read()?;
                    intent.check(sought)?;
                    Ok(Made { intent, replayed })
                }
                Told::No { code, .. } => Err(Failure::not_done(Class::Refused, format!("no intent was made: {code}"))),
                Told::Failed(failure) => Err(failure),
            }
        };
        made.await.map_err(Failure::of_a_call_that_moves_nothing)
    }

    /// An intent as it is now.
    async fn intent(&self, id: &str, sought: &Sought, deadline: Instant) -> Result<Intent, Failure> {
        let reply = self.web.get(&format!("/v1/payment_intents/{id}?expand[]=latest_charge"), deadline).await?;
        let intent: Intent = read_or_fail(&reply)?;
        intent.check(sought)?;
        Ok(intent)
    }

    /// The intent that an authorization made, as it is now. `None`: there is none, and will not be.
    async fn find(&self, sought: &Sought, deadline: Instant) -> Result<Option<Intent>, Failure> {
        if let Some(charge) = &sought.charge {
            return self.intent(charge.as_str(), sought, deadline).await.map(Some);
        }
        if self.age(sought.begun_at) < KEYS_HOLD {
            let made = self.make(sought, deadline).await?;
            return if made.replayed { self.intent(&made.intent.id, sought, deadline).await.map(Some) } else { Ok(Some(made.intent)) };
        }
        let seconds = |at: Timestamp| at.0 / 1_000_000;
        let from = seconds(sought.begun_at).saturating_sub(CLOCKS_APART.as_secs());
        let to = seconds(sought.begun_at) + AUTHORIZE_WITHIN.as_secs() + CLOCKS_APART.as_secs();
        let mut path = format!("/v1/payment_intents?limit={PAGE}&created[gte]={from}&created[lte]={to}");
        let first = path.clone();
        for _ in 0..PAGES_MAX {
            let page: Intents = read_or_fail(&self.web.get(&path, deadline).await?)?;
            if let Some(found) = page.data.iter().find(|intent| intent.reference() == Some(sought.reference.as_str())) {
                return self.intent(&found.id, sought, deadline).await.map(Some);
            }
            match page.data.last() {
                Some(last) if page.has_more => path = format!("{first}&starting_after={}", model::plain(&last.id)?),
                _ => return Ok(None),
            }
        }
        Err(Failure::unknown(Class::Overloaded, "too many intents were made in that hour to look through"))
    }

    /// All refunds of an intent.
    async fn refunds(&self, intent: &Intent, deadline: Instant) -> Result<Vec<Refunded>, Failure> {
        let first = format!("/v1/refunds?limit={PAGE}&payment_intent={}", intent.id);
        let (mut path, mut all) = (first.clone(), Vec::new());
        for _ in 0..PAGES_MAX {
            let page: Refunds = read_or_fail(&self.web.get(&path, deadline).await?)?;
            all.extend(page.data);
            match all.last() {
                Some(last) if page.has_more => path = format!("{first}&starting_after={}", model::plain(&last.id)?),
                _ => return Ok(all),
            }
        }
        Err(Failure::unknown(Class::Overloaded, "the intent has too many refunds to look through"))
    }

    /// The charge that an intent is, with what was refunded of it.
    async fn charge(&self, intent: &Intent, sought: &Sought, deadline: Instant) -> Result<Charge, Failure> {
        let refunds = if intent.status == Status::Succeeded { self.refunds(intent, deadline).await? } else { Vec::new() };
        intent.charge(sought, &refunds)
    }

    /// What an intent's state means for an authorization.
    fn decide(intent: &Intent, sought: &Sought) -> Result<Decision, Failure> {
        let undecided = |class, words: &'static str| Err(Failure::unknown(class, words));
        match intent.status {
            Status::RequiresCapture | Status::Succeeded => Ok(Decision::Approved(intent.charge(sought, &[])?)),
            Status::RequiresAction => {
                let url = intent.next_action.as_ref().and_then(|action| action.redirect_to_url.as_ref()).and_then(|to| to.url.clone());
                let id = intent.client_secret.clone();
                let id = id.ok_or_else(|| Failure::unknown(Class::Malformed, "a challenge without a client secret"))?;
                Ok(Decision::ActionRequired { charge: intent.charge_id()?, challenge: Challenge { id, url } })
            }
            Status::Canceled => Ok(Decision::Declined(Decline::of_code("voided"))),
            Status::RequiresPaymentMethod => match &intent.last_payment_error {
                Some(error) => Ok(Decision::Declined(error.decline())),
                None => undecided(Class::Malformed, "it was confirmed, and says that it was not"),
            },
            Status::Processing => undecided(Class::Undecided, "it is still being decided"),
            Status::RequiresConfirmation => undecided(Class::Malformed, "it was confirmed, and says that it was not"),
        }
    }

    /// A card's payment method. It moves nothing.
    async fn method(&self, card: &Card, reference: &Reference, deadline: Instant) -> Result<Result<String, Decline>, Failure> {
        let mut form = Form::new();
        form.add("type", "card");
        form.add("card[number]", card.number.expose());
        form.add("card[exp_month]", &card.expiry.month().to_string());
        form.add("card[exp_year]", &card.expiry.year().to_string());
        let made = async {
            let reply = self.post("/v1/payment_methods", &format!("{reference}.method"), form, deadline).await?;
            match told(&reply) {
                Told::Yes => {
                    let Method { id } = reply.read()?;
                    model::plain(&id)?;
                    Ok(Ok(id))
                }
                Told::No { declined: true, code } => Ok(Err(Decline::of_code(&code))),
                Told::No { code, .. } => Err(Failure::not_done(Class::Refused, format!("no payment method was made: {code}"))),
                Told::Failed(failure) => Err(failure),
            }
        };
        made.await.map_err(Failure::of_a_call_that_moves_nothing)
    }

    /// The one call that holds money.
    async fn confirm(
        &self,
        intent: &Intent,
        method: &str,
        asked: &Authorization,
        sought: &Sought,
        deadline: Instant,
    ) -> Result<Decision, Failure> {
        let mut form = Form::new();
        form.add("payment_method", method);
        form.add("expand[]", "latest_charge");
        if asked.recurring {
            form.add("off_session", "true");
        } else if let Some(url) = &self.return_url {
            form.add("return_url", url);
        }
        // So that the issuer knows what is authenticated; what comes later is then off session.
        if asked.sets_up {
            form.add("setup_future_usage", "off_session");
        }
        if asked.authentication == Authentication::Challenge {
            form.add("payment_method_options[card][request_three_d_secure]", "challenge");
        }
        let path = format!("/v1/payment_intents/{}/confirm", intent.id);
        let reply = self.post(&path, &format!("{}.confirm", asked.reference), form, deadline).await?;
        match told(&reply) {
            Told::Yes => {
                let intent: Intent = reply.read()?;
                intent.check(sought)?;
                Self::decide(&intent, sought)
            }
            Told::No { declined: true, code } => Ok(Decision::Declined(Decline::of_code(&code))),
            // Confirmed before, or voided.
            Told::No { code, .. } if code == "payment_intent_unexpected_state" => {
                let intent = self.intent(&intent.id, sought, deadline).await?;
                Self::decide(&intent, sought)
            }
            Told::No { code, .. } => Err(Failure::not_done(Class::Refused, format!("it was not confirmed: {code}"))),
            Told::Failed(failure) => Err(failure),
        }
    }
}

#[async_trait]
impl Acquirer for Stripe {
    async fn authorize(&self, card: &Card, asked: &Authorization, deadline: Instant) -> Result<Decision, Failure> {
        let sought = Sought { reference: asked.reference.clone(), begun_at: asked.begun_at, amount: asked.amount, charge: None };
        if matches!(asked.authentication, Authentication::Answered { .. }) {
            // The cardholder has answered Stripe, and there is nothing left to confirm.
            let none = || Failure::not_done(Class::Refused, "no authorization waits for an answer");
            let intent = self.find(&sought, deadline).await?.ok_or_else(none)?;
            return if intent.status == Status::RequiresPaymentMethod && intent.last_payment_error.is_none() {
                Err(none())
            } else {
                Self::decide(&intent, &sought)
            };
        }
        if self.age(asked.begun_at) > AUTHORIZE_WITHIN {
            return Err(Failure::not_done(Class::Refused, "the reference is too old: Stripe forgets its keys"));
        }
        if amount::to_stripe(asked.amount).is_none() {
            return Ok(Decision::Declined(Decline::of_code("invalid_amount")));
        }
        // Neither moves anything, and neither needs the other.
        let (made, method) = tokio::join!(self.make(&sought, deadline), self.method(card, &asked.reference, deadline));
        let Made { mut intent, replayed } = made?;
        if replayed {
            intent = self.intent(&intent.id, &sought, deadline).await?;
            let untouched = intent.status == Status::RequiresPaymentMethod && intent.last_payment_error.is_none();
            if !untouched && intent.status != Status::RequiresConfirmation {
                return Self::decide(&intent, &sought);
            }
        }
        match method? {
            Ok(method) => self.confirm(&intent, &method, asked, &sought, deadline).await,
            Err(decline) => Ok(Decision::Declined(decline)),
        }
    }

    async fn capture(&self, capture: &Capture, deadline: Instant) -> Result<Settlement, Failure> {
        let sought = &capture.charge;
        let Some(amount) = amount::to_stripe(capture.amount).filter(|_| capture.amount.currency() == sought.amount.currency()) else {
            return Ok(Settlement::Declined(Decline::of_code("invalid_amount")));
        };
        let found = self.find(sought, deadline).await.map_err(Failure::of_a_call_that_moves_nothing)?;
        let Some(mut intent) = found else { return Ok(Settlement::Declined(Decline::of_code("wrong_state"))) };
        // Once more where it was captured or voided between the two calls.
        for _ in 0..2 {
            if intent.status == Status::Succeeded {
                if intent.metadata.get("paymesh_capture").map(String::as_str) != Some(capture.reference.as_str()) {
                    return Ok(Settlement::Declined(Decline::of_code("charge_already_captured")));
                }
                let charge = self.charge(&intent, sought, deadline).await?;
                return captured(charge, capture);
            }
            if intent.status != Status::RequiresCapture {
                return Ok(Settlement::Declined(Decline::of_code("wrong_state")));
            }
            if capture.amount.minor() > sought.amount.minor() {
                return Ok(Settlement::Declined(Decline::of_code("amount_too_large")));
            }
            let mut form = Form::new();
            form.add("amount_to_capture", &amount.to_string());
            form.add(CAPTURE, capture.reference.as_str());
            form.add("expand[]", "latest_charge");
            let reply =
                self.post(&format!("/v1/payment_intents/{}/capture", intent.id), capture.reference.as_str(), form, deadline).await?;
            match told(&reply) {
                Told::Yes => {
                    let intent: Intent = reply.read()?;
                    intent.check(sought)?;
                    let charge = self.charge(&intent, sought, deadline).await?;
                    return captured(charge, capture);
                }
                Told::No { code, .. } if code == "payment_intent_unexpected_state" => {}
                Told::No { code, .. } => return Ok(Settlement::Declined(Decline::of_code(&code))),
                Told::Failed(failure) => return Err(failure),
            }
            intent = self.intent(&intent.id, sought, deadline).await?;
        }
        Err(Failure::unknown(Class::Malformed, "it can be captured, and says that it cannot"))
    }

    async fn void(&self, void: &Void, deadline: Instant) -> Result<Settlement, Failure> {
        let sought = &void.charge;
        let found = self.find(sought, deadline).await.map_err(Failure::of_a_call_that_moves_nothing)?;
        let mut intent = match found {
            Some(intent) => intent,
            // There is none and will be none. One that is made to be cancelled says so.
            None => self.make(sought, deadline).await?.intent,
        };
        for _ in 0..2 {
            let declined = intent.status == Status::RequiresPaymentMethod && intent.last_payment_error.is_some();
            match intent.status {
                Status::Canceled => return Ok(Settlement::Done(intent.charge(sought, &[])?)),
                // Nothing is held.
                _ if declined => return Ok(Settlement::Done(intent.charge(sought, &[])?)),
                Status::Succeeded => return Ok(Settlement::Declined(Decline::of_code("wrong_state"))),
                _ => {}
            }
            let reply =
                self.post(&format!("/v1/payment_intents/{}/cancel", intent.id), void.reference.as_str(), Form::new(), deadline).await?;
            match told(&reply) {
                Told::Yes => {
                    let intent: Intent = reply.read()?;
                    intent.check(sought)?;
                    let charge = intent.charge(sought, &[])?;
                    let voided = charge.state == ChargeState::Voided;
                    return if voided { Ok(Settlement::Done(charge)) } else { Err(Failure::unknown(Class::Mismatch, "it is not voided")) };
                }
                Told::No { code, .. } if code == "payment_intent_unexpected_state" => {}
                Told::No { code, .. } => return Ok(Settlement::Declined(Decline::of_code(&code))),
                Told::Failed(failure) => return Err(failure),
            }
            intent = self.intent(&intent.id, sought, deadline).await?;
        }
        Err(Failure::unknown(Class::Timeout, "it cannot be voided yet"))
    }

    async fn refund(&self, refund: &Refund, deadline: Instant) -> Result<Settlement, Failure> {
        let sought = &refund.charge;
        let Some(amount) = amount::to_stripe(refund.amount).filter(|_| refund.amount.currency() == sought.amount.currency()) else {
            return Ok(Settlement::Declined(Decline::of_code("invalid_amount")));
        };
        let found = self.find(sought, deadline).await.map_err(Failure::of_a_call_that_moves_nothing)?;
        let Some(intent) = found.filter(|intent| intent.status == Status::Succeeded) else {
            return Ok(Settlement::Declined(Decline::of_code("wrong_state")));
        };
        let refunds = self.refunds(&intent, deadline).await.map_err(Failure::of_a_call_that_moves_nothing)?;
        let mut charge = intent.charge(sought, &refunds)?;
        if let Some(before) = refunds.iter().find(|before| before.reference() == Some(refund.reference.as_str())) {
            if before.amount != amount {
                return Err(Failure::unknown(Class::Refused, "the reference was used for another amount"));
            }
            return before.settled(charge);
        }
        if refund.amount.minor() > charge.captured_minor - charge.refunded_minor {
            return Ok(Settlement::Declined(Decline::of_code("amount_too_large")));
        }
        let mut form = Form::new();
        form.add("payment_intent", &intent.id);
        form.add("amount", &amount.to_string());
        form.add(REFERENCE, refund.reference.as_str());
        let reply = self.post("/v1/refunds", refund.reference.as_str(), form, deadline).await?;
        match told(&reply) {
            Told::Yes => {
                let refunded: Refunded = reply.read()?;
                if refunded.amount != amount || refunded.reference() != Some(refund.reference.as_str()) {
                    return Err(Failure::unknown(Class::Mismatch, "something else was refunded"));
                }
                charge.refunded_minor += refund.amount.minor();
                refunded.settled(charge)
            }
            Told::No { code, .. } => Ok(Settlement::Declined(Decline::of_code(&code))),
            Told::Failed(failure) => Err(failure),
        }
    }

    async fn look_up(&self, sought: &Sought, deadline: Instant) -> Result<Option<Charge>, Failure> {
        let looked = async {
            match self.find(sought, deadline).await? {
                Some(intent) => self.charge(&intent, sought, deadline).await.map(Some),
                None => Ok(None),
            }
        };
        // Of a question, nothing is certain but that it has no answer.
        looked.await.map_err(|failure| Failure::unknown(failure.class, failure.detail().to_owned()))
    }
}

fn captured(charge: Charge, capture: &Capture) -> Result<Settlement, Failure> {
    if charge.captured_minor == capture.amount.minor() {
        Ok(Settlement::Done(charge))
    } else {
        Err(Failure::unknown(Class::Mismatch, "another amount was captured"))
    }
}

/// What Stripe says (docs.stripe.com/api/errors).
fn told(reply: &Reply) -> Told {
    let status = reply.status.as_u16();
    let detail = format!("it answered {status}");
    match status {
        200 => Told::Yes,
        401 | 403 => Told::Failed(Failure::not_done(Class::Configuration, detail)),
        // The same call is being answered, or was another one.
        409 => Told::Failed(Failure::unknown(Class::Overloaded, detail)),
        429 => Told::Failed(Failure::not_done(Class::Overloaded, detail)),
        400..=499 => match reply.read::<model::Failed>() {
            Ok(failed) if failed.error.kind.as_deref() == Some("idempotency_error") => {
                Told::Failed(Failure::unknown(Class::Refused, "the reference was used for something else"))
            }
            Ok(failed) => Told::No { declined: status == 402, code: failed.error.decline().code },
            Err(malformed) => Told::Failed(malformed),
        },
        500..=599 => Told::Failed(Failure::unknown(Class::ServerError, detail)),
        _ => Told::Failed(Failure::unknown(Class::Malformed, detail)),
    }
}

fn read_or_fail<T: serde::de::DeserializeOwned>(reply: &Reply) -> Result<T, Failure> {
    match told(reply) {
        Told::Yes => reply.read(),
        Told::No { code, .. } => Err(Failure::unknown(Class::Refused, format!("it does not answer: {code}"))),
        Told::Failed(failure) => Err(failure),
    }
}
