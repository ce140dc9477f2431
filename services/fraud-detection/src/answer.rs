//! A score as the contract answers it.

use paymesh_contract::{fraud::v1 as proto, timestamp};
use paymesh_topology::{Signal, ZonePolicy};
use paymesh_types::Timestamp;

use crate::score::{Code, Decision, Listing, Reason, Scored};

/// What is answered, recorded and cached.
pub(crate) fn assessment(scored: &Scored, policy: &ZonePolicy, rules_version: &str, at: Timestamp) -> proto::Assessment {
    proto::Assessment {
        score: scored.score.ten_thousandths(),
        decision: decision(scored.decision).into(),
        decline_above: policy.decline_above.ten_thousandths(),
        review_above: policy.review_above.ten_thousandths(),
        reasons: scored.reasons.iter().map(reason).collect(),
        rules_version: rules_version.to_owned(),
        scored_at: Some(timestamp(at)),
    }
}

fn decision(decision: Decision) -> proto::Decision {
    match decision {
        Decision::Accept => proto::Decision::Accept,
        Decision::Review => proto::Decision::Review,
        Decision::Decline => proto::Decision::Decline,
    }
}

fn reason(reason: &Reason) -> proto::Reason {
    proto::Reason {
        code: code(reason.code).into(),
        weight: reason.weight.ten_thousandths(),
        strength: reason.strength.ten_thousandths(),
        value: reason.value,
        window_seconds: reason.per.map_or(0, |window| u32::try_from(window.seconds()).unwrap_or(u32::MAX)),
    }
}

fn code(code: Code) -> proto::ReasonCode {
    match code {
        Code::Signal(signal) => of_signal(signal),
        Code::Blocked(Listing::User) => proto::ReasonCode::BlockedUser,
        Code::Blocked(Listing::Payee) => proto::ReasonCode::BlockedPayee,
        Code::Blocked(Listing::Card) => proto::ReasonCode::BlockedCard,
        Code::Blocked(Listing::Device) => proto::ReasonCode::BlockedDevice,
        Code::Blocked(Listing::Bin) => proto::ReasonCode::BlockedBin,
        Code::Blocked(Listing::Country) => proto::ReasonCode::BlockedCountry,
        // Nobody is believed for whom they pay.
        Code::Allowed(Listing::User | Listing::Payee) => proto::ReasonCode::AllowedUser,
        Code::Allowed(Listing::Card) => proto::ReasonCode::AllowedCard,
        Code::Allowed(Listing::Device) => proto::ReasonCode::AllowedDevice,
        Code::Allowed(Listing::Bin) => proto::ReasonCode::AllowedBin,
        Code::Allowed(Listing::Country) => proto::ReasonCode::AllowedCountry,
    }
}

fn of_signal(signal: Signal) -> proto::ReasonCode {
    match signal {
        Signal::UserCount => proto::ReasonCode::UserCount,
        Signal::UserAmount => proto::ReasonCode::UserAmount,
        Signal::CardCount => proto::ReasonCode::CardCount,
        Signal::CardAmount => proto::ReasonCode::CardAmount,
        Signal::DeviceCount => proto::ReasonCode::DeviceCount,
        Signal::DeviceAmount => proto::ReasonCode::DeviceAmount,
        Signal::PayeeCount => proto::ReasonCode::PayeeCount,
        Signal::PayeeAmount => proto::ReasonCode::PayeeAmount,
        Signal::UserCards => proto::ReasonCode::UserCards,
        Signal::CardUsers => proto::ReasonCode::CardUsers,
        Signal::DeviceUsers => proto::ReasonCode::DeviceUsers,
        Signal::AmountUnusual => proto::ReasonCode::AmountUnusual,
        Signal::HourUnusual => proto::ReasonCode::HourUnusual,
        Signal::FirstPayment => proto::ReasonCode::FirstPayment,
        Signal::FirstCard => proto::ReasonCode::FirstCard,
        Signal::FirstDevice => proto::ReasonCode::FirstDevice,
        Signal::FirstPayee => proto::ReasonCode::FirstPayee,
        Signal::FirstRegion => proto::ReasonCode::FirstRegion,
        Signal::CardAbroad => proto::ReasonCode::CardAbroad,
        Signal::EntryAbroad => proto::ReasonCode::EntryAbroad,
        Signal::CurrencyUnrated => proto::ReasonCode::CurrencyUnrated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_a_code_of_its_name() {
        for signal in Signal::all() {
            assert_eq!(of_signal(signal).as_str_name(), format!("REASON_CODE_{}", signal.as_str().to_uppercase()));
        }
    }
}
