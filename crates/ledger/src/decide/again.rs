//! A request that comes again: whether it is the one that it says it is.

use paymesh_types::PaymentId;

use super::card;
use crate::{Agreement, Body, Command, CreatePayment, Entry, NewPayment, PaymentMethod, Request};

/// The first field in which `request` differs from the request that led to `entry`; `None` when it is the same again.
pub fn differing_field(entry: &Entry, request: &Request) -> Option<&'static str> {
    let first = |fields: &[(&'static str, bool)]| fields.iter().find(|(_, same)| !same).map(|(field, _)| *field);
    match (&entry.body, &request.command) {
        (Body::UserEnrolled { user, country, currencies }, Command::EnrollUser { user: u, country: c, currencies: cs }) => {
            first(&[("user_id", user == u), ("residence_country", country == c), ("currency_codes", currencies == cs)])
        }
        (Body::UserClaimed { user, zone }, Command::ClaimUser { user: u, zone: z }) => {
            first(&[("user_id", user == u), ("zone", zone == z)])
        }
        (Body::AccountOpened { user, currency }, Command::OpenAccount { user: u, currency: c })
        | (Body::AccountClosed { user, currency }, Command::CloseAccount { user: u, currency: c }) => {
            first(&[("user_id", user == u), ("currency_code", currency == c)])
        }
        (Body::MethodAdded { user, token }, Command::AddMethod { user: u, token: t })
        | (Body::MethodRemoved { user, method: PaymentMethod { token, .. } }, Command::RemoveMethod { user: u, token: t }) => {
            first(&[("user_id", user == u), ("vault_token", token == t)])
        }
        (Body::Deposited { user, money }, Command::Deposit { user: u, money: m, reference })
        | (Body::Withdrawn { user, money, .. }, Command::Withdraw { user: u, money: m, reference }) => {
            first(&[("user_id", user == u), ("amount", money == m), ("reference", &entry.reference == reference)])
        }
        (Body::PaymentCreated(new), Command::CreatePayment(create)) => first(&[
            ("payer_id", new.payer == create.payer),
            ("payee_id", new.payee == create.payee),
            ("amount", new.money == create.money),
            ("capture_mode", (new.hold_s == 0) == (create.hold_s == 0)),
            ("hold_duration", new.hold_s == create.hold_s),
            ("reference", entry.reference == create.reference),
            ("card", new.card.as_ref().map(|card| &card.token) == create.card.as_ref().map(|card| &card.token)),
            ("card.mandate", new.card.as_ref().and_then(|card| card.mandate) == agreement(create).and_then(Agreement::sets_up)),
            ("card.mandate_id", mandate_of(new) == agreement(create).and_then(Agreement::under)),
        ]),
        (
            Body::Card { step, payment, .. },
            command @ (Command::CapturePayment { payment: p, .. }
            | Command::VoidPayment { payment: p }
            | Command::RefundPayment { payment: p, .. }
            | Command::ConfirmPayment { payment: p }
            | Command::CancelMandate { payment: p }
            | Command::ReportFraud { payment: p }),
        ) => match card::asked_for(*step, command) {
            None => Some("request"),
            Some(asked) => {
                let amount = match command {
                    Command::CapturePayment { amount, .. } | Command::RefundPayment { amount, .. } => *amount,
                    _ => None,
                };
                first(&[
                    ("payment_id", (payment.epoch, payment.sequence) == (p.epoch(), p.sequence())),
                    ("amount_minor_units", asked == amount),
                ])
            }
        },
        (Body::PaymentCaptured { payment, asked }, Command::CapturePayment { payment: p, amount }) => first(&[
            ("payment_id", (payment.epoch, payment.sequence) == (p.epoch(), p.sequence())),
            ("amount_minor_units", asked == amount),
        ]),
        (Body::PaymentVoided { payment }, Command::VoidPayment { payment: p }) => {
            first(&[("payment_id", (payment.epoch, payment.sequence) == (p.epoch(), p.sequence()))])
        }
        (
            Body::RefundCompleted { payment, asked, .. } | Body::RefundRequested { payment, asked, .. },
            Command::RefundPayment { payment: p, amount },
        ) => first(&[
            ("payment_id", (payment.epoch, payment.sequence) == (p.epoch(), p.sequence())),
            ("amount_minor_units", asked == amount),
        ]),
        _ => Some("request"),
    }
}

/// What a payment to be made has to do with mandates.
fn agreement(create: &CreatePayment) -> Option<&Agreement> {
    create.card.as_ref()?.agreement.as_ref()
}

/// The mandate that a new payment is made under.
fn mandate_of(new: &NewPayment) -> Option<&PaymentId> {
    Some(&new.card.as_ref()?.under.as_ref()?.mandate)
}
