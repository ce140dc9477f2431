//! The connector to `paymesh acquirer`, the simulator: JSON over HTTP, where every charge goes by the reference that it was authorized under.

use async_trait::async_trait;
use http::{HeaderValue, StatusCode, header};
use paymesh_cards::Card;
use paymesh_types::{Currency, Money};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::{
    Acquirer, Authentication, Authorization, Capture, Challenge, Charge, ChargeState, Class, Decision, Decline, Failure, Reference, Refund,
    Settlement, Sought, Void,
    web::{Reply, Web},
};

/// Bytes that there are for a request: all at once, as a vector that grows leaves copies behind. References and an answer to a challenge are shorter.
const REQUEST_BYTES: usize = 4096;

/// The connector.
pub(crate) struct Simulator {
    web: Web,
}

#[derive(Serialize)]
struct Authorize<'a> {
    reference: &'a str,
    amount_minor: i64,
    currency: &'a str,
    card: CardFields<'a>,
    authentication: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exemption: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a str>,
    recurring: bool,
    sets_up: bool,
}

#[derive(Serialize)]
struct CardFields<'a> {
    number: &'a str,
    expiry_month: u8,
    expiry_year: u16,
}

#[derive(Serialize)]
struct Move<'a> {
    charge_reference: &'a str,
    charge_amount_minor: i64,
    reference: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_minor: Option<i64>,
    currency: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    charge: ChargeFields,
    #[serde(default)]
    challenge: Option<ChallengeFields>,
    #[serde(default)]
    declined: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChargeFields {
    id: String,
    reference: String,
    state: State,
    amount_minor: i64,
    currency: String,
    captured_minor: i64,
    refunded_minor: i64,
    #[serde(default)]
    decline_code: Option<String>,
    // What the list is for, and we do not need.
    #[serde(default, rename = "sequence")]
    _sequence: Option<u64>,
    #[serde(default, rename = "card")]
    _card: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "refunds")]
    _refunds: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "capture_reference")]
    _capture_reference: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    ActionRequired,
    Authorized,
    Captured,
    Voided,
    Declined,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChallengeFields {
    id: String,
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    charges: Vec<ChargeFields>,
    // One page is all that there is of a reference.
    #[serde(default, rename = "next")]
    _next: Option<u64>,
}

/// How it says that it does not take a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    #[serde(rename = "error")]
    _error: RefusedFields,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusedFields {
    #[serde(rename = "code")]
    _code: String,
    #[serde(rename = "message")]
    _message: String,
}

impl Simulator {
    pub(crate) fn new(web: Web) -> Self {
        Self { web }
    }

    async fn ask<T: Serialize + Sync>(&self, path: &str, request: &T, deadline: Instant) -> Result<Answered, Failure> {
        let mut body = Zeroizing::new(Vec::with_capacity(REQUEST_BYTES));
        serde_json::to_writer(&mut *body, request).map_err(|_| Failure::not_done(Class::Refused, "the request cannot be written"))?;
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let reply = self.web.post(path, &json, body, deadline).await?;
        if reply.status == StatusCode::OK { reply.read() } else { Err(refused(&reply)) }
    }

    async fn settle(
        &self,
        path: &str,
        charge: &Sought,
        reference: &Reference,
        amount: Option<Money>,
        deadline: Instant,
    ) -> Result<Settlement, Failure> {
        let request = Move {
            charge_reference: charge.reference.as_str(),
            charge_amount_minor: charge.amount.minor(),
            reference: reference.as_str(),
            amount_minor: amount.map(Money::minor),
            currency: charge.amount.currency().code(),
        };
        let answered = self.ask(path, &request, deadline).await?;
        if let Some(code) = &answered.declined {
            return Ok(Settlement::Declined(Decline::of_code(code)));
        }
        Ok(Settlement::Done(answered.charge.read(&charge.reference, charge.amount)?))
    }
}

#[async_trait]
impl Acquirer for Simulator {
    async fn authorize(&self, card: &Card, authorization: &Authorization, deadline: Instant) -> Result<Decision, Failure> {
        let (authentication, exemption, answer) = match &authorization.authentication {
            Authentication::IssuerDecides => ("issuer_decides", None, None),
            Authentication::Challenge => ("challenge", None, None),
            Authentication::Exempt(exemption) => ("exempt", Some(exemption.as_str()), None),
            Authentication::Answered { answer } => ("answered", None, answer.as_deref()),
        };
        let request = Authorize {
            reference: authorization.reference.as_str(),
            amount_minor: authorization.amount.minor(),
            currency: authorization.amount.currency().code(),
            card: CardFields { number: card.number.expose(), expiry_month: card.expiry.month(), expiry_year: card.expiry.year() },
            authentication,
            exemption,
            answer,
            recurring: authorization.recurring,
            sets_up: authorization.sets_up,
        };
        let Answered { charge, challenge, declined } = self.ask("/charges", &request, deadline).await?;
        let charge = charge.read(&authorization.reference, authorization.amount)?;
        if let Some(code) = declined {
            return Ok(Decision::Declined(Decline::of_code(&code)));
        }
        match (charge.state, challenge) {
            (ChargeState::Authorized | ChargeState::Captured, None) => Ok(Decision::Approved(charge)),
            (ChargeState::ActionRequired, Some(ChallengeFields { id, url })) => {
                Ok(Decision::ActionRequired { charge: charge.id, challenge: Challenge { id, url: Some(self.web.absolute(&url)) } })
            }
            _ => Err(Failure::unknown(Class::Malformed, "the answer contradicts itself")),
        }
    }

    async fn capture(&self, capture: &Capture, deadline: Instant) -> Result<Settlement, Failure> {
        let settled = self.settle("/captures", &capture.charge, &capture.reference, Some(capture.amount), deadline).await?;
        match &settled {
            Settlement::Done(charge) if charge.captured_minor != capture.amount.minor() => {
                Err(Failure::unknown(Class::Mismatch, "another amount was captured"))
            }
            _ => Ok(settled),
        }
    }

    async fn void(&self, void: &Void, deadline: Instant) -> Result<Settlement, Failure> {
        self.settle("/voids", &void.charge, &void.reference, None, deadline).await
    }

    async fn refund(&self, refund: &Refund, deadline: Instant) -> Result<Settlement, Failure> {
        let settled = self.settle("/refunds", &refund.charge, &refund.reference, Some(refund.amount), deadline).await?;
        match &settled {
            Settlement::Done(charge) if charge.refunded_minor < refund.amount.minor() => {
                Err(Failure::unknown(Class::Mismatch, "less was refunded"))
            }
            _ => Ok(settled),
        }
    }

    async fn look_up(&self, sought: &Sought, deadline: Instant) -> Result<Option<Charge>, Failure> {
        let reply = self.web.get(&format!("/charges?reference={}", sought.reference), deadline).await?;
        if reply.status != StatusCode::OK {
            // Of a question, nothing is certain but that it has no answer.
            let Failure { class, .. } = refused(&reply);
            return Err(Failure::unknown(class, format!("the look-up was answered with {}", reply.status.as_u16())));
        }
        let mut charges = reply.read::<List>()?.charges;
        match (charges.pop(), charges.is_empty()) {
            (None, _) => Ok(None),
            (Some(charge), true) => charge.read(&sought.reference, sought.amount).map(Some),
            _ => Err(Failure::unknown(Class::Mismatch, "more than one charge has the reference")),
        }
    }
}

/// Why an answer with another status is none.
fn refused(reply: &Reply) -> Failure {
    let status = reply.status.as_u16();
    let detail = format!("it answered {status}");
    match status {
        // Whatever has the same reference was done, and is not what was asked for.
        409 => Failure::unknown(Class::Refused, "the reference was used for something else"),
        401 | 403 => Failure::not_done(Class::Configuration, detail),
        429 => Failure::not_done(Class::Overloaded, detail),
        // Its own words, and not those of some proxy in between.
        400..=499 => match reply.read::<Refused>() {
            Ok(_) => Failure::not_done(Class::Refused, detail),
            Err(malformed) => malformed,
        },
        503 => Failure::unknown(Class::Overloaded, detail),
        500..=599 => Failure::unknown(Class::ServerError, detail),
        _ => Failure::unknown(Class::Malformed, detail),
    }
}

impl ChargeFields {
    /// The charge, if it is the one that was asked about.
    fn read(self, reference: &Reference, amount: Money) -> Result<Charge, Failure> {
        let mismatch = |what: &'static str| Failure::unknown(Class::Mismatch, what);
        if self.reference != reference.as_str() {
            return Err(mismatch("the answer is about another reference"));
        }
        if Currency::from_code(&self.currency).ok() != Some(amount.currency()) {
            return Err(mismatch("the answer is in another currency"));
        }
        if self.amount_minor != amount.minor() {
            return Err(mismatch("the answer is about another amount"));
        }
        if !(0..=self.amount_minor).contains(&self.captured_minor) || !(0..=self.captured_minor).contains(&self.refunded_minor) {
            return Err(mismatch("the answer's sums contradict each other"));
        }
        let state = match self.state {
            State::ActionRequired => ChargeState::ActionRequired,
            State::Authorized => ChargeState::Authorized,
            State::Captured => ChargeState::Captured,
            State::Voided => ChargeState::Voided,
            State::Declined => ChargeState::Declined,
        };
        Ok(Charge {
            id: self.id.parse().map_err(|_| Failure::unknown(Class::Malformed, "the charge's id is none"))?,
            reference: reference.clone(),
            state,
            amount,
            captured_minor: self.captured_minor,
            refunded_minor: self.refunded_minor,
            decline: self.decline_code.as_deref().map(Decline::of_code),
        })
    }
}
