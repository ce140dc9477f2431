//! The door: request messages into domain types, each field checked once. Behind it nothing checks again.
//!
//! What can never be accepted is INVALID_ARGUMENT `INVALID_FIELD` and names the field as the request's message has it.

use paymesh_contract::{
    Fault,
    common::v1 as common,
    directory::v1::EnrollUserRequest,
    payments::v1::{ByCard, CaptureMode, CreatePaymentRequest, MandateKind},
};
use paymesh_ledger::{Agreement, Command, CreatePayment, HOLD_SECONDS_MAX, Request};
use paymesh_types::{Country, Currency, Invalid, Money, PaymentId, RequestId, ShardRef, UserId, VaultToken};
use smallvec::SmallVec;

/// How long a hold lasts when the caller does not say: 7 days.
const HOLD_SECONDS_DEFAULT: u32 = 7 * 24 * 3600;

/// Bytes of a reference at most.
const REFERENCE_BYTES_MAX: usize = 140;

/// Bytes of the word for a payer's device at most.
const DEVICE_BYTES_MAX: usize = 256;

/// Accounts that are opened with an enrolment at most.
const ENROLLED_CURRENCIES_MAX: usize = 16;

fn invalid(field: &'static str) -> impl Fn(Invalid) -> Fault {
    move |error| Fault::invalid_field(field, error.to_string())
}

pub(crate) fn user(number: u64, field: &'static str) -> Result<UserId, Fault> {
    UserId::try_from(number).map_err(invalid(field))
}

pub(crate) fn request_id(text: &str) -> Result<RequestId, Fault> {
    text.parse().map_err(invalid("request_id"))
}

pub(crate) fn token(text: &str) -> Result<VaultToken, Fault> {
    text.parse().map_err(invalid("vault_token"))
}

pub(crate) fn payment_id(text: &str) -> Result<PaymentId, Fault> {
    text.parse().map_err(invalid("payment_id"))
}

pub(crate) fn currency(code: &str) -> Result<Currency, Fault> {
    Currency::from_code(code).map_err(invalid("currency_code"))
}

pub(crate) fn amount(money: Option<&common::Money>) -> Result<Money, Fault> {
    let money = money.ok_or_else(|| Fault::invalid_field("amount", "an amount is needed"))?;
    Money::try_from(money).map_err(|fault| fault.under("amount"))
}

/// What to capture or refund, in minor units. Whether there is so much is for the ledger to say.
pub(crate) fn part(amount_minor_units: Option<i64>) -> Result<Option<i64>, Fault> {
    if amount_minor_units.is_some_and(|amount| amount <= 0) {
        return Err(Fault::invalid_field("amount_minor_units", "an amount is more than zero; leave it out for all of it"));
    }
    Ok(amount_minor_units)
}

pub(crate) fn reference(text: &str) -> Result<(), Fault> {
    if text.len() > REFERENCE_BYTES_MAX {
        // Not a word of it in the message: it is personal data.
        return Err(Fault::invalid_field("reference", format!("a reference has at most {REFERENCE_BYTES_MAX} bytes, not {}", text.len())));
    }
    Ok(())
}

/// A shard that the request's `field` names.
pub(crate) fn shard(shard: Option<&common::ShardRef>, field: &'static str) -> Result<ShardRef, Fault> {
    let shard = shard.ok_or_else(|| Fault::invalid_field(field, "a shard is needed"))?;
    ShardRef::try_from(shard).map_err(|fault| fault.under(field))
}

/// A payment to make, checked, without what only its home needs: the payee's shard and the reference's text.
#[derive(Debug, Clone)]
pub(crate) struct NewPayment {
    pub(crate) id: RequestId,
    pub(crate) payer: UserId,
    pub(crate) payee: UserId,
    money: Money,
    hold_s: u32,
    card: Option<Card>,
}

/// The card that a payment is made by.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) token: VaultToken,
    /// The caller's own word for the payer's device; personal, and for fraud detection only.
    pub(crate) device: Device,
    /// What the payment has to do with mandates.
    pub(crate) agreement: Option<Agreement>,
}

/// It does not print.
#[derive(Clone)]
pub(crate) struct Device(pub(crate) String);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(device withheld)")
    }
}

impl TryFrom<&CreatePaymentRequest> for NewPayment {
    type Error = Fault;

    fn try_from(request: &CreatePaymentRequest) -> Result<Self, Fault> {
        let new = Self {
            id: request_id(&request.request_id)?,
            payer: user(request.payer_id, "payer_id")?,
            payee: user(request.payee_id, "payee_id")?,
            money: amount(request.amount.as_ref())?,
            hold_s: hold_seconds(request)?,
            card: request.card.as_ref().map(card).transpose()?,
        };
        if new.payer == new.payee {
            return Err(Fault::invalid_field("payee_id", "payer and payee are the same user"));
        }
        reference(&request.reference)?;
        Ok(new)
    }
}

impl NewPayment {
    /// The command, once the payee's shard is known: `None` where it is the payer's.
    pub(crate) fn command(&self, payee_shard: Option<ShardRef>, reference: String) -> Request {
        Request { id: Some(self.id), command: Command::CreatePayment(self.create(payee_shard, reference)) }
    }

    /// The same, without what only acquirers decide: how the card is charged, if one is.
    pub(crate) fn create(&self, payee_shard: Option<ShardRef>, reference: String) -> CreatePayment {
        let Self { payer, payee, money, hold_s, .. } = *self;
        CreatePayment { payer, payee, payee_shard, money, hold_s, reference, card: None }
    }

    /// The card, for a payment by card.
    pub(crate) fn card(&self) -> Option<&Card> {
        self.card.as_ref()
    }
}

fn card(card: &ByCard) -> Result<Card, Fault> {
    let token = card.vault_token.parse().map_err(|error: Invalid| Fault::invalid_field("card.vault_token", error.to_string()))?;
    if card.device.len() > DEVICE_BYTES_MAX {
        return Err(Fault::invalid_field("card.device", format!("has {DEVICE_BYTES_MAX} bytes at most, not {}", card.device.len())));
    }
    Ok(Card { token, device: Device(card.device.clone()), agreement: agreement(card)? })
}

fn agreement(card: &ByCard) -> Result<Option<Agreement>, Fault> {
    let kind = MandateKind::try_from(card.mandate)
        .map_err(|_| Fault::invalid_field("card.mandate", format!("there is no mandate of kind {}", card.mandate)))?;
    let set_up = match kind {
        MandateKind::Unspecified => None,
        MandateKind::Recurring => Some(paymesh_ledger::MandateKind::Recurring),
        MandateKind::TrustedPayee => Some(paymesh_ledger::MandateKind::TrustedPayee),
    };
    match (set_up, card.mandate_id.as_str()) {
        (None, "") => Ok(None),
        (Some(kind), "") => Ok(Some(Agreement::SetUp(kind))),
        (None, mandate) => {
            let mandate = mandate.parse().map_err(|error: Invalid| Fault::invalid_field("card.mandate_id", error.to_string()))?;
            Ok(Some(Agreement::Under(mandate)))
        }
        (Some(_), _) => Err(Fault::invalid_field("card.mandate_id", "a payment under a mandate sets up no other")),
    }
}

/// How long the payment is held: 0 takes the money at once.
fn hold_seconds(request: &CreatePaymentRequest) -> Result<u32, Fault> {
    let mode = CaptureMode::try_from(request.capture_mode)
        .map_err(|_| Fault::invalid_field("capture_mode", format!("there is no capture mode {}", request.capture_mode)))?;
    match (mode, &request.hold_duration) {
        (CaptureMode::Manual, None) => Ok(HOLD_SECONDS_DEFAULT),
        (CaptureMode::Manual, Some(duration)) => u32::try_from(duration.seconds)
            .ok()
            .filter(|seconds| duration.nanos == 0 && (1..=HOLD_SECONDS_MAX).contains(seconds))
            .ok_or_else(|| Fault::invalid_field("hold_duration", format!("a hold lasts 1 to {HOLD_SECONDS_MAX} whole seconds"))),
        (_, None) => Ok(0),
        (_, Some(_)) => Err(Fault::invalid_field("hold_duration", "only a payment with capture mode MANUAL is held")),
    }
}

/// A user to enrol, checked.
#[derive(Debug)]
pub(crate) struct NewUser {
    pub(crate) id: RequestId,
    pub(crate) user: UserId,
    pub(crate) country: Country,
    currencies: SmallVec<[Currency; 2]>,
}

impl TryFrom<&EnrollUserRequest> for NewUser {
    type Error = Fault;

    fn try_from(request: &EnrollUserRequest) -> Result<Self, Fault> {
        let codes = &request.currency_codes;
        if codes.len() > ENROLLED_CURRENCIES_MAX {
            let message = format!("at most {ENROLLED_CURRENCIES_MAX} accounts are opened with an enrolment, not {}", codes.len());
            return Err(Fault::invalid_field("currency_codes", message));
        }
        let mut currencies = SmallVec::new();
        for code in codes {
            let currency = Currency::from_code(code).map_err(invalid("currency_codes"))?;
            if currencies.contains(&currency) {
                return Err(Fault::invalid_field("currency_codes", format!("{currency} is named twice")));
            }
            currencies.push(currency);
        }
        Ok(Self {
            id: request_id(&request.request_id)?,
            user: user(request.user_id, "user_id")?,
            country: request.residence_country.parse().map_err(invalid("residence_country"))?,
            currencies,
        })
    }
}

impl NewUser {
    pub(crate) fn command(self) -> Request {
        let Self { id, user, country, currencies } = self;
        Request { id: Some(id), command: Command::EnrollUser { user, country, currencies } }
    }
}

#[cfg(test)]
mod tests {
    use paymesh_types::AMOUNT_MINOR_MAX;

    use super::*;

    fn request() -> CreatePaymentRequest {
        CreatePaymentRequest {
            request_id: "018f2c3a-5b6d-7e8f-9a0b-1c2d3e4f5a6b".to_owned(),
            payer_id: 1,
            payee_id: 2,
            amount: Some(common::Money { minor_units: 100, currency_code: "EUR".to_owned() }),
            capture_mode: 0,
            hold_duration: None,
            reference: String::new(),
            card: None,
        }
    }

    fn seconds(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos })
    }

    #[test]
    fn what_a_payment_cannot_be_names_its_field() {
        type Change = fn(&mut CreatePaymentRequest);
        let table: &[(&str, &str, Change)] = &[
            ("request_id", "INVALID_FIELD", |request| request.request_id.clear()),
            ("request_id", "INVALID_FIELD", |request| request.request_id = "00000000-0000-0000-0000-000000000000".to_owned()),
            ("payer_id", "INVALID_FIELD", |request| request.payer_id = 0),
            ("payer_id", "INVALID_FIELD", |request| request.payer_id = u64::MAX),
            ("payee_id", "INVALID_FIELD", |request| request.payee_id = 0),
            ("payee_id", "INVALID_FIELD", |request| request.payee_id = request.payer_id),
            ("amount", "INVALID_FIELD", |request| request.amount = None),
            ("amount.minor_units", "INVALID_FIELD", |request| request.amount.as_mut().expect("set").minor_units = 0),
            ("amount.minor_units", "INVALID_FIELD", |request| request.amount.as_mut().expect("set").minor_units = i64::MIN),
            ("amount.minor_units", "AMOUNT_OUT_OF_RANGE", |request| {
                request.amount.as_mut().expect("set").minor_units = AMOUNT_MINOR_MAX + 1;
            }),
            ("amount.currency_code", "INVALID_FIELD", |request| request.amount.as_mut().expect("set").currency_code = "eur".to_owned()),
            ("capture_mode", "INVALID_FIELD", |request| request.capture_mode = 99),
            ("capture_mode", "INVALID_FIELD", |request| request.capture_mode = -1),
            ("hold_duration", "INVALID_FIELD", |request| request.hold_duration = seconds(60, 0)),
            ("hold_duration", "INVALID_FIELD", |request| (request.capture_mode, request.hold_duration) = (1, seconds(60, 0))),
            ("hold_duration", "INVALID_FIELD", |request| (request.capture_mode, request.hold_duration) = (2, seconds(0, 0))),
            ("hold_duration", "INVALID_FIELD", |request| (request.capture_mode, request.hold_duration) = (2, seconds(-1, 0))),
            ("hold_duration", "INVALID_FIELD", |request| (request.capture_mode, request.hold_duration) = (2, seconds(1, 1))),
            ("hold_duration", "INVALID_FIELD", |request| (request.capture_mode, request.hold_duration) = (2, seconds(2_678_401, 0))),
            ("reference", "INVALID_FIELD", |request| request.reference = "ä".repeat(71)),
        ];
        for (field, reason, change) in table {
            let mut request = request();
            change(&mut request);
            let fault = NewPayment::try_from(&request).expect_err(field);
            assert_eq!((fault.field.as_deref(), fault.reason.as_ref()), (Some(*field), *reason), "{fault}");
        }
    }

    #[test]
    fn holds_last_seven_days_unless_the_caller_says() {
        let held = |mode, hold_duration| {
            let request = CreatePaymentRequest { capture_mode: mode, hold_duration, reference: "a".repeat(140), ..request() };
            NewPayment::try_from(&request).expect("a payment").hold_s
        };
        assert_eq!([held(0, None), held(1, None), held(2, None)], [0, 0, 604_800]);
        assert_eq!([held(2, seconds(1, 0)), held(2, seconds(2_678_400, 0))], [1, HOLD_SECONDS_MAX]);
    }
}
