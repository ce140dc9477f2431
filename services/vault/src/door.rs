//! The door: request messages into domain types, each field checked once. Behind it nothing checks again.
//!
//! What can never be accepted is INVALID_ARGUMENT `INVALID_FIELD` and names the field as the request's message has it. No message has a digit of a card.

use paymesh_acquirers::{Authentication, Authorization, Exemption, Reference};
use paymesh_cards::{Card, CardNumber, Error, Expiry};
use paymesh_contract::{Fault, instant, vault::v1 as proto};
use paymesh_types::{Invalid, Money, RequestId, UserId, VaultToken, ZoneName};
use zeroize::Zeroizing;

use crate::{Offered, SealedCard};

/// Bytes of an encapsulated key: a point of P-256, uncompressed.
const ENCAPSULATED_BYTES: usize = 65;
/// Bytes of a sealed card: its own, and the tag of AES-GCM.
const CIPHERTEXT_BYTES: usize = paymesh_cards::CARD_BYTES + 16;

fn invalid(field: &'static str) -> impl Fn(Invalid) -> Fault {
    move |error| Fault::invalid_field(field, error.to_string())
}

pub(crate) fn user(number: u64) -> Result<UserId, Fault> {
    UserId::try_from(number).map_err(invalid("user_id"))
}

pub(crate) fn request_id(text: &str) -> Result<RequestId, Fault> {
    text.parse().map_err(invalid("request_id"))
}

pub(crate) fn token(text: &str) -> Result<VaultToken, Fault> {
    text.parse().map_err(invalid("vault_token"))
}

pub(crate) fn zone(text: &str) -> Result<ZoneName, Fault> {
    text.parse().map_err(invalid("zone"))
}

/// Bytes of an answer to a challenge at most.
const CHALLENGE_ANSWER_BYTES_MAX: usize = 1024;

/// What is to be authorized.
pub(crate) fn authorization(request: &proto::AuthorizeRequest) -> Result<Authorization, Fault> {
    let reference = request.reference.parse::<Reference>();
    let begun_at = request.begun_at.as_ref().and_then(instant);
    let amount = request.amount.as_ref().ok_or_else(|| Fault::invalid_field("amount", "an amount is needed"))?;
    Ok(Authorization {
        reference: reference.map_err(|error| Fault::invalid_field("reference", error.to_string()))?,
        begun_at: begun_at.ok_or_else(|| Fault::invalid_field("begun_at", "an instant from 1970 on is needed"))?,
        amount: Money::try_from(amount).map_err(|fault| fault.under("amount"))?,
        authentication: authentication(request)?,
        recurring: request.recurring,
        sets_up: request.sets_up,
    })
}

fn authentication(request: &proto::AuthorizeRequest) -> Result<Authentication, Fault> {
    use proto::CardholderAuthentication as Known;

    let kind =
        Known::try_from(request.authentication).map_err(|_| Fault::invalid_field("authentication", "is none that this version knows"))?;
    if kind != Known::Answered && !request.challenge_answer.is_empty() {
        return Err(Fault::invalid_field("challenge_answer", "is there where `authentication` is ANSWERED"));
    }
    if (kind == Known::Exempt) != (request.exemption() != proto::ScaExemption::Unspecified) {
        return Err(Fault::invalid_field("exemption", "is there where `authentication` is EXEMPT, and is one that this version knows"));
    }
    Ok(match kind {
        Known::Unspecified | Known::IssuerDecides => Authentication::IssuerDecides,
        Known::Challenge => Authentication::Challenge,
        Known::Exempt => Authentication::Exempt(match request.exemption() {
            proto::ScaExemption::LowValue => Exemption::LowValue,
            proto::ScaExemption::TransactionRisk => Exemption::TransactionRisk,
            proto::ScaExemption::TrustedBeneficiary => Exemption::TrustedBeneficiary,
            proto::ScaExemption::Recurring => Exemption::Recurring,
            proto::ScaExemption::SecureCorporate | proto::ScaExemption::Unspecified => Exemption::SecureCorporate,
        }),
        Known::Answered if request.challenge_answer.len() > CHALLENGE_ANSWER_BYTES_MAX => {
            return Err(Fault::invalid_field("challenge_answer", format!("has {CHALLENGE_ANSWER_BYTES_MAX} bytes at most")));
        }
        Known::Answered => {
            let answer = Some(&request.challenge_answer).filter(|answer| !answer.is_empty()).cloned();
            Authentication::Answered { answer }
        }
    })
}

/// The card of a request, in the one form that it has.
pub(crate) fn offered(card: Option<proto::CardDetails>, sealed: Option<proto::SealedCard>) -> Result<Offered, Fault> {
    // The digits as the transport has decoded them are zeroed, whatever comes of the request.
    let card = card.map(|card| (Zeroizing::new(card.number), card.expiry_month, card.expiry_year));
    match (card, sealed) {
        (Some((number, month, year)), None) => clear(&number, month, year).map_err(|fault| fault.under("card")),
        (None, Some(sealed)) => sealed_card(sealed).map_err(|fault| fault.under("sealed_card")),
        (None, None) => Err(Fault::invalid_field("card", "a card is needed, in clear or sealed")),
        (Some(_), Some(_)) => Err(Fault::invalid_field("sealed_card", "a card is in clear or sealed, not both")),
    }
}

fn clear(number: &str, month: u32, year: u32) -> Result<Offered, Fault> {
    let wrong = |field| move |error: Error| Fault::invalid_field(field, error.to_string());
    let number = CardNumber::parse(number).map_err(wrong("number"))?;
    let expiry = Expiry::new(month, year).map_err(|error| {
        let field = if error == Error::Month { "expiry_month" } else { "expiry_year" };
        wrong(field)(error)
    })?;
    Ok(Offered::Clear(Card { number, expiry }))
}

fn sealed_card(sealed: proto::SealedCard) -> Result<Offered, Fault> {
    for (field, bytes, wanted) in
        [("encapsulated_key", &sealed.encapsulated_key, ENCAPSULATED_BYTES), ("ciphertext", &sealed.ciphertext, CIPHERTEXT_BYTES)]
    {
        if bytes.len() != wanted {
            return Err(Fault::invalid_field(field, format!("has {wanted} bytes, not {}", bytes.len())));
        }
    }
    let proto::SealedCard { key_id, encapsulated_key, ciphertext } = sealed;
    Ok(Offered::Sealed(SealedCard { key_id, encapsulated: encapsulated_key, ciphertext }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> proto::CardDetails {
        proto::CardDetails { number: "4242424242424242".to_owned(), expiry_month: 7, expiry_year: 2031 }
    }

    fn sealed() -> proto::SealedCard {
        proto::SealedCard { key_id: "a".repeat(32), encapsulated_key: vec![4; ENCAPSULATED_BYTES], ciphertext: vec![0; CIPHERTEXT_BYTES] }
    }

    #[test]
    fn what_a_card_cannot_be_names_its_field_and_no_digit() {
        let with = |change: fn(&mut proto::CardDetails)| {
            let mut card = card();
            change(&mut card);
            (Some(card), None)
        };
        let sealed_with = |change: fn(&mut proto::SealedCard)| {
            let mut sealed = sealed();
            change(&mut sealed);
            (None, Some(sealed))
        };
        for (field, (card, sealed)) in [
            ("card", (None, None)),
            ("sealed_card", (Some(card()), Some(sealed()))),
            ("card.number", with(|card| card.number.clear())),
            ("card.number", with(|card| card.number = "4242 4242 4242 4242".to_owned())),
            ("card.number", with(|card| card.number = "4242424242424241".to_owned())),
            ("card.number", with(|card| card.number = "424242424242424".to_owned())),
            ("card.expiry_month", with(|card| card.expiry_month = 0)),
            ("card.expiry_month", with(|card| card.expiry_month = 13)),
            ("card.expiry_year", with(|card| card.expiry_year = 31)),
            ("sealed_card.encapsulated_key", sealed_with(|sealed| sealed.encapsulated_key.clear())),
            ("sealed_card.ciphertext", sealed_with(|sealed| sealed.ciphertext.push(0))),
        ] {
            let fault = offered(card, sealed).expect_err(field);
            assert_eq!((fault.reason.as_ref(), fault.field.as_deref()), ("INVALID_FIELD", Some(field)), "{fault}");
            assert!(!fault.message.contains("4242"), "{fault}");
        }
    }

    #[test]
    fn a_card_that_is_one_passes_in_either_form() {
        assert!(matches!(offered(Some(card()), None), Ok(Offered::Clear(_))));
        assert!(matches!(offered(None, Some(sealed())), Ok(Offered::Sealed(_))));
    }
}
