use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn positions_and_shards_survive_the_contract(index: u16, epoch: u64, sequence: u64) {
        let shard = ShardRef { zone: "eu-1".parse().expect("a zone"), index };
        prop_assert_eq!(ShardRef::try_from(&proto::ShardRef::from(&shard)), Ok(shard.clone()));
        let position = Position { shard, epoch: Epoch(epoch), sequence: Sequence(sequence) };
        prop_assert_eq!(Position::try_from(&proto::Position::from(&position)), Ok(position));
    }

    #[test]
    fn amounts_survive_the_contract(minor in 1..=AMOUNT_MINOR_MAX) {
        let money = Money::new(minor, Currency::from_code("JPY").expect("JPY")).expect("within the bound");
        prop_assert_eq!(Money::try_from(&proto::Money::from(money)), Ok(money));
    }
}

#[test]
fn places_that_are_none_name_their_field() {
    let table = [("EU", 0, "zone"), ("", 0, "zone"), ("eu", 65_536, "shard")];
    for (zone, shard, field) in table {
        let zone = zone.to_owned();
        let shard_ref = ShardRef::try_from(&proto::ShardRef { zone: zone.clone(), shard }).expect_err(field);
        let position = Position::try_from(&proto::Position { zone, shard, epoch: 1, sequence: 1 }).expect_err(field);
        assert_eq!((shard_ref.field.as_deref(), shard_ref.reason.as_ref()), (Some(field), "INVALID_FIELD"));
        assert_eq!(position.field.as_deref(), Some(field));
    }
}

#[test]
fn amounts_that_are_none_name_their_field() {
    let table = [
        (1, "eur", Code::InvalidArgument, "INVALID_FIELD", "currency_code"),
        (1, "", Code::InvalidArgument, "INVALID_FIELD", "currency_code"),
        (0, "EUR", Code::InvalidArgument, "INVALID_FIELD", "minor_units"),
        (-1, "EUR", Code::InvalidArgument, "INVALID_FIELD", "minor_units"),
        (i64::MIN, "EUR", Code::InvalidArgument, "INVALID_FIELD", "minor_units"),
        (AMOUNT_MINOR_MAX + 1, "EUR", Code::OutOfRange, "AMOUNT_OUT_OF_RANGE", "minor_units"),
        (i64::MAX, "EUR", Code::OutOfRange, "AMOUNT_OUT_OF_RANGE", "minor_units"),
    ];
    for (minor_units, code, status, reason, field) in table {
        let fault = Money::try_from(&proto::Money { minor_units, currency_code: code.to_owned() }).expect_err(code);
        assert_eq!((fault.code, fault.reason.as_ref(), fault.field.as_deref()), (status, reason, Some(field)), "{minor_units} {code}");
    }
}

#[test]
fn instants_keep_their_microseconds() {
    let shown = timestamp(Timestamp(1_700_000_000_123_456));
    assert_eq!((shown.seconds, shown.nanos), (1_700_000_000, 123_456_000));
    assert_eq!(timestamp(Timestamp(u64::MAX)).seconds, 253_402_300_799);
}

#[test]
fn a_timestamp_is_an_instant_from_1970_on() {
    let shown = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
    for micros in [0, 1, 1_700_000_000_123_456, 253_402_300_799_999_999] {
        assert_eq!(instant(&timestamp(Timestamp(micros))), Some(Timestamp(micros)));
    }
    assert_eq!(instant(&shown(1, 999_999_999)), Some(Timestamp(1_999_999)), "what is finer is cut off");
    for none in [shown(-1, 0), shown(0, -1), shown(0, 1_000_000_000), shown(i64::MAX, 0)] {
        assert_eq!(instant(&none), None, "{none:?}");
    }
}
