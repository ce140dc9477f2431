//! The door: request messages into domain types, each field checked once. Behind it nothing checks again.
//!
//! What can never be accepted is INVALID_ARGUMENT `INVALID_FIELD` and names the field as the request's message has it. No message has anything of a card.

use paymesh_contract::{Fault, fraud::v1 as proto, instant};
use paymesh_topology::Topology;
use paymesh_types::{Country, Invalid, Money, RegionName, RequestId, Timestamp, UserId, ZoneName};

use crate::memory::{HASH_BYTES, Hash, Payment, device_hash};

/// Bytes of what stands for a device at most.
const DEVICE_BYTES_MAX: usize = 256;
/// How long ago a payment may have been asked for, and how far ahead clocks may be.
const PAST_MAX_SECONDS: u64 = 3_600;
const AHEAD_MAX_SECONDS: u64 = 60;

fn invalid(field: &'static str) -> impl Fn(Invalid) -> Fault {
    move |error| Fault::invalid_field(field, error.to_string())
}

pub(crate) fn request_id(text: &str) -> Result<RequestId, Fault> {
    text.parse().map_err(invalid("request_id"))
}

/// The payment of a request. `zone` is where it is scored.
pub(crate) fn payment(
    payment: Option<&proto::ScoredPayment>,
    topology: &Topology,
    zone: &ZoneName,
    now: Timestamp,
) -> Result<Payment, Fault> {
    let payment = payment.ok_or_else(|| Fault::invalid_field("payment", "a payment is needed"))?;
    read(payment, topology, zone, now).map_err(|fault| fault.under("payment"))
}

fn read(payment: &proto::ScoredPayment, topology: &Topology, zone: &ZoneName, now: Timestamp) -> Result<Payment, Fault> {
    let user = |number: u64, field| UserId::try_from(number).map_err(invalid(field));
    let card = payment.card.as_ref();
    match (payment.kind(), card) {
        (proto::PaymentKind::Unspecified, _) => return Err(Fault::invalid_field("kind", "must say how the payment is made")),
        (proto::PaymentKind::Wallet, Some(_)) => return Err(Fault::invalid_field("card", "a payment from a wallet has no card")),
        (proto::PaymentKind::Wallet, None) | (proto::PaymentKind::Card, _) => {}
    }
    if payment.device.len() > DEVICE_BYTES_MAX {
        return Err(Fault::invalid_field("device", format!("has at most {DEVICE_BYTES_MAX} bytes, not {}", payment.device.len())));
    }
    let region: RegionName = payment.entry_region.parse().map_err(invalid("entry_region"))?;
    let entered = topology.region(&region).ok_or_else(|| Fault::invalid_field("entry_region", "is no region of the mesh"))?;
    Ok(Payment {
        at: asked_at(payment.asked_at.as_ref(), now)?,
        payer: user(payment.payer_id, "payer_id")?,
        payee: user(payment.payee_id, "payee_id")?,
        amount: amount(payment)?,
        card: card.map(fingerprint).transpose().map_err(|fault| fault.under("card"))?.flatten(),
        bin: card.map(bin).transpose().map_err(|fault| fault.under("card"))?.flatten(),
        card_country: card.map(|card| country(&card.country, "country")).transpose().map_err(|fault| fault.under("card"))?.flatten(),
        device: (!payment.device.is_empty()).then(|| device_hash(&payment.device)),
        enters_abroad: entered.zone != *zone,
        region,
        residence: country(&payment.residence_country, "residence_country")?,
    })
}

fn amount(payment: &proto::ScoredPayment) -> Result<Money, Fault> {
    let amount = payment.amount.as_ref().ok_or_else(|| Fault::invalid_field("amount", "an amount is needed"))?;
    Money::try_from(amount).map_err(|fault| fault.under("amount"))
}

fn fingerprint(card: &proto::ScoredCard) -> Result<Option<Hash>, Fault> {
    match card.fingerprint.len() {
        0 => Ok(None),
        HASH_BYTES => Ok(card.fingerprint.first_chunk().copied()),
        other => Err(Fault::invalid_field("fingerprint", format!("has {HASH_BYTES} bytes or none, not {other}"))),
    }
}

fn bin(card: &proto::ScoredCard) -> Result<Option<String>, Fault> {
    let digits = card.bin.bytes().all(|byte| byte.is_ascii_digit());
    match card.bin.len() {
        0 => Ok(None),
        6 | 8 if digits => Ok(Some(card.bin.clone())),
        _ => Err(Fault::invalid_field("bin", "is the first six or eight digits of the number, or empty")),
    }
}

/// A country that may be left out. Where somebody resides is not repeated.
fn country(text: &str, field: &'static str) -> Result<Option<Country>, Fault> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(invalid(field)) }
}

fn asked_at(asked: Option<&prost_types::Timestamp>, now: Timestamp) -> Result<Timestamp, Fault> {
    let Some(asked) = asked else { return Ok(now) };
    instant(asked).filter(|at| at.plus_seconds(PAST_MAX_SECONDS) >= now && *at <= now.plus_seconds(AHEAD_MAX_SECONDS)).ok_or_else(|| {
        let message =
            format!("is within {PAST_MAX_SECONDS} seconds before now and {AHEAD_MAX_SECONDS} after, by the clock of fraud detection");
        Fault::invalid_field("asked_at", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_000_000_000_000);

    fn topology() -> Topology {
        let yaml = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor, fraud_detection], database: primary_master}
  us_east: {primary: false, services: [payment_processor], database: regional_master}
zones:
  eu: {shards: 1, regions: [eu_west], countries: [DE]}
  us: {shards: 1, regions: [us_east], countries: [US]}
endpoints:
  eu_west: {grpc: '127.0.0.1:1', http: '127.0.0.1:2'}
  us_east: {grpc: '127.0.0.1:3', http: '127.0.0.1:4'}
";
        Topology::parse("test", yaml).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn sound() -> proto::ScoredPayment {
        proto::ScoredPayment {
            payer_id: 1,
            payee_id: 2,
            amount: Some(paymesh_contract::common::v1::Money { minor_units: 100, currency_code: "EUR".to_owned() }),
            kind: proto::PaymentKind::Card.into(),
            card: Some(proto::ScoredCard { fingerprint: vec![7; 16], bin: "42424242".to_owned(), country: "FR".to_owned() }),
            device: "a phone".to_owned(),
            entry_region: "us_east".to_owned(),
            residence_country: "DE".to_owned(),
            asked_at: None,
        }
    }

    fn at_the_door(request: &proto::ScoredPayment) -> Result<Payment, Fault> {
        payment(Some(request), &topology(), &"eu".parse().expect("a zone"), NOW)
    }

    #[test]
    fn what_is_sound_passes_and_its_device_is_a_hash() {
        let payment = at_the_door(&sound()).expect("a payment");
        assert_eq!((payment.at, payment.card, payment.bin.as_deref()), (NOW, Some([7; 16]), Some("42424242")));
        assert!(payment.enters_abroad && payment.card_country != payment.residence);
        assert_eq!(payment.device, Some(device_hash("a phone")));
        assert_ne!(payment.device, Some(device_hash("another")));
        let bare = proto::ScoredPayment {
            kind: proto::PaymentKind::Wallet.into(),
            card: None,
            device: String::new(),
            entry_region: "eu_west".to_owned(),
            residence_country: String::new(),
            ..sound()
        };
        let payment = at_the_door(&bare).expect("a payment");
        assert_eq!((payment.card, payment.device, payment.residence, payment.enters_abroad), (None, None, None, false));
    }

    #[test]
    fn what_a_payment_cannot_be_names_its_field() {
        type Change = fn(&mut proto::ScoredPayment);
        fn card(change: fn(&mut proto::ScoredCard), payment: &mut proto::ScoredPayment) {
            change(payment.card.as_mut().expect("a card"));
        }
        let time = |seconds: u64| Some(prost_types::Timestamp { seconds: i64::try_from(seconds).expect("a time"), nanos: 0 });
        let table: [(&str, Change); 12] = [
            ("payment.payer_id", |payment| payment.payer_id = 0),
            ("payment.payee_id", |payment| payment.payee_id = 0),
            ("payment.amount", |payment| payment.amount = None),
            ("payment.amount.minor_units", |payment| payment.amount.as_mut().expect("it is there").minor_units = 0),
            ("payment.amount.currency_code", |payment| payment.amount.as_mut().expect("it is there").currency_code.clear()),
            ("payment.kind", |payment| payment.kind = 0),
            ("payment.card", |payment| payment.kind = proto::PaymentKind::Wallet.into()),
            ("payment.card.fingerprint", |payment| card(|card| card.fingerprint.push(1), payment)),
            ("payment.card.bin", |payment| card(|card| card.bin = "4242".to_owned(), payment)),
            ("payment.card.country", |payment| card(|card| card.country = "Utopia".to_owned(), payment)),
            ("payment.device", |payment| payment.device = "x".repeat(257)),
            ("payment.entry_region", |payment| payment.entry_region = "mars".to_owned()),
        ];
        for (field, change) in table {
            let mut payment = sound();
            change(&mut payment);
            let fault = at_the_door(&payment).expect_err(field);
            assert_eq!((fault.reason.as_ref(), fault.field.as_deref()), ("INVALID_FIELD", Some(field)), "{fault}");
            assert!(!fault.message.contains("4242") && !fault.message.contains("Utopia"), "{fault}");
        }
        assert_eq!(payment(None, &topology(), &"eu".parse().expect("a zone"), NOW).expect_err("none").field.as_deref(), Some("payment"));
        let now = NOW.0 / 1_000_000;
        for (asked_at, passes) in [(now, true), (now - 3_600, true), (now + 60, true), (now - 3_601, false), (now + 61, false), (0, false)]
        {
            let answer = at_the_door(&proto::ScoredPayment { asked_at: time(asked_at), ..sound() });
            assert_eq!(answer.is_ok(), passes, "{asked_at}: {answer:?}");
        }
    }
}
