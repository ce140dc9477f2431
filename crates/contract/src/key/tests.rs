use proptest::{collection::vec, prelude::*};
use std::sync::LazyLock;

use prost::Message;
use prost_reflect::DescriptorPool;

use super::*;
use crate::{
    FILE_DESCRIPTOR_SET,
    common::v1::{Money, ShardRef},
    directory::v1::LookUpUsersRequest,
    events::v1::SubscribeRequest,
    mesh::v1::VerifyShardRequest,
    payments::v1::{CapturePaymentRequest, CreatePaymentRequest},
    wallet::v1::DepositRequest,
};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the embedded set"));

fn path(message: &str, path: &str) -> Result<KeyPath, &'static str> {
    KeyPath::resolve(&POOL.get_message_by_name(&format!("paymesh.{message}")).expect(message), path)
}

/// A message type, a key in it, and the same key as prost decodes it.
struct Case {
    message: &'static str,
    key: &'static str,
    decoded: fn(&[u8]) -> Result<Owned, prost::DecodeError>,
}

/// A [`KeyValue`] that owns its text.
#[derive(Debug, PartialEq)]
enum Owned {
    Absent,
    Number(u64),
    Text(String),
}

fn number(value: u64) -> Owned {
    if value == 0 { Owned::Absent } else { Owned::Number(value) }
}

fn text(value: String) -> Owned {
    if value.is_empty() { Owned::Absent } else { Owned::Text(value) }
}

/// Every kind of key, and every way to it.
const CASES: [Case; 6] = [
    Case {
        message: "payments.v1.CreatePaymentRequest",
        key: "payer_id",
        decoded: |bytes| Ok(number(CreatePaymentRequest::decode(bytes)?.payer_id)),
    },
    Case {
        message: "payments.v1.CapturePaymentRequest",
        key: "payment_id",
        decoded: |bytes| Ok(text(CapturePaymentRequest::decode(bytes)?.payment_id)),
    },
    Case {
        message: "directory.v1.LookUpUsersRequest",
        key: "user_ids",
        decoded: |bytes| Ok(number(LookUpUsersRequest::decode(bytes)?.user_ids.first().copied().unwrap_or_default())),
    },
    Case {
        message: "events.v1.SubscribeRequest",
        key: "shard",
        decoded: |bytes| Ok(number(SubscribeRequest::decode(bytes)?.shard.into())),
    },
    Case {
        message: "wallet.v1.DepositRequest",
        key: "amount.currency_code",
        decoded: |bytes| Ok(text(DepositRequest::decode(bytes)?.amount.unwrap_or_default().currency_code)),
    },
    Case {
        message: "mesh.v1.VerifyShardRequest",
        key: "shard.shard",
        decoded: |bytes| Ok(number(VerifyShardRequest::decode(bytes)?.shard.unwrap_or_default().shard.into())),
    },
];

fn extracted(case: &Case, bytes: &[u8]) -> Result<Owned, KeyError> {
    let path = path(case.message, case.key).expect("the case's key");
    Ok(match path.extract(bytes)? {
        None => Owned::Absent,
        Some(KeyValue::Number(value)) => Owned::Number(value),
        Some(KeyValue::Text(value)) => Owned::Text(value.to_owned()),
    })
}

prop_compose! {
    fn money()(minor_units: i64, currency_code in "[A-Z]{0,3}") -> Money {
        Money { minor_units, currency_code }
    }
}

/// An encoded message of the case's type, by its place in [`CASES`].
fn encoded(case: usize) -> BoxedStrategy<Vec<u8>> {
    let id = prop_oneof![Just(0), any::<u64>()];
    match case {
        0 => (id, any::<u64>(), "[a-z]{0,9}", proptest::option::of(money()), any::<i32>())
            .prop_map(|(payer_id, payee_id, request_id, amount, capture_mode)| {
                let hold_duration = (payee_id % 2 == 0).then_some(prost_types::Duration { seconds: 9, nanos: 9 });
                CreatePaymentRequest {
                    request_id,
                    payer_id,
                    payee_id,
                    amount,
                    capture_mode,
                    hold_duration,
                    reference: "ä".to_owned(),
                    card: None,
                }
                .encode_to_vec()
            })
            .boxed(),
        1 => ("\\PC{0,9}", "\\PC{0,40}", any::<Option<i64>>())
            .prop_map(|(request_id, payment_id, amount_minor_units)| {
                CapturePaymentRequest { request_id, payment_id, amount_minor_units }.encode_to_vec()
            })
            .boxed(),
        2 => vec(id, 0..5).prop_map(|user_ids| LookUpUsersRequest { user_ids }.encode_to_vec()).boxed(),
        3 => ("[a-z]{0,3}", any::<u32>(), any::<u64>())
            .prop_map(|(zone, shard, from_sequence)| SubscribeRequest { zone, shard, from_sequence, read: None }.encode_to_vec())
            .boxed(),
        4 => (id, proptest::option::of(money()))
            .prop_map(|(user_id, amount)| DepositRequest { user_id, amount, ..Default::default() }.encode_to_vec())
            .boxed(),
        _ => proptest::option::of(("[a-z]{0,3}", any::<u32>()))
            .prop_map(|shard| {
                let shard = shard.map(|(zone, shard)| ShardRef { zone, shard });
                VerifyShardRequest { shard, sent_by: Vec::new() }.encode_to_vec()
            })
            .boxed(),
    }
}

/// A field that the contract does not know: number 200, of each wire type but groups.
fn unknown_field() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![0xc0, 0x0c, 0xff, 0x01]),
        Just([&[0xc1, 0x0c][..], &[7; 8]].concat()),
        Just(vec![0xc2, 0x0c, 0x02, 0x08, 0x01]),
        Just(vec![0xc5, 0x0c, 1, 2, 3, 4]),
        Just(Vec::new()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Also for pieces one after the other, which is how protobuf merges messages: the last scalar wins, lists go on.
    #[test]
    fn extraction_agrees_with_decoding(
        (case, pieces) in (0..CASES.len()).prop_flat_map(|case| (Just(case), vec((encoded(case), unknown_field()), 0..4)))
    ) {
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|(piece, unknown)| [unknown, piece].concat()).collect();
        let case = &CASES[case];
        prop_assert_eq!(extracted(case, &bytes), Ok((case.decoded)(&bytes).expect("valid messages")));
    }

    /// What decodes gives its key, or holds a group; and whatever else the bytes are, nothing panics.
    #[test]
    fn extraction_agrees_with_decoding_of_damaged_messages(
        (case, mut bytes) in (0..CASES.len()).prop_flat_map(|case| (Just(case), encoded(case))),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in any::<prop::sample::Index>(),
    ) {
        for (index, byte) in damage {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
        }
        bytes.truncate(keep.index(bytes.len() + 1).max(bytes.len() / 2));
        let case = &CASES[case];
        match ((case.decoded)(&bytes), extracted(case, &bytes)) {
            (Ok(_), Err(KeyError::Group)) | (Err(_), _) => {}
            (Ok(decoded), extracted) => prop_assert_eq!(extracted, Ok(decoded)),
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        for case in &CASES {
            if let (Ok(decoded), Ok(extracted)) = ((case.decoded)(&bytes), extracted(case, &bytes)) {
                prop_assert_eq!(extracted, decoded);
            }
        }
    }
}

#[test]
fn malformed_bytes_are_named() {
    // Field 2 of CreatePaymentRequest is payer_id, a varint: tag 0x10.
    let table: [(&[u8], KeyError); 10] = [
        (&[0x10], KeyError::Truncated),
        (&[0x10, 0x80], KeyError::Truncated),
        (&[0x0a, 0x05, b'a'], KeyError::Truncated),
        (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], KeyError::Truncated),
        (&[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], KeyError::Varint),
        (&[0x00, 0x01], KeyError::Tag),
        (&[0x0e], KeyError::Tag),
        (&[0xfb, 0x01], KeyError::Group),
        (&[0x12, 0x00], KeyError::Type),
        (&[0x15, 1, 2, 3, 4], KeyError::Type),
    ];
    let payer = path("payments.v1.CreatePaymentRequest", "payer_id").expect("payer_id");
    for (bytes, error) in table {
        assert_eq!(payer.extract(bytes), Err(error), "{bytes:02x?}");
    }
    let payment = path("payments.v1.GetPaymentRequest", "payment_id").expect("payment_id");
    assert_eq!(payment.extract(&[0x0a, 0x01, 0xff]), Err(KeyError::Utf8));
}

#[test]
fn lists_give_their_first_element_packed_or_not() {
    let users = path("directory.v1.LookUpUsersRequest", "user_ids").expect("user_ids");
    let table: [(&[u8], Option<u64>); 6] = [
        (&[], None),
        (&[0x0a, 0x00], None),
        (&[0x0a, 0x02, 0x05, 0x06], Some(5)),
        (&[0x08, 0x07, 0x08, 0x08], Some(7)),
        (&[0x0a, 0x00, 0x08, 0x09], Some(9)),
        (&[0x08, 0x00, 0x08, 0x09], None),
    ];
    for (bytes, first) in table {
        assert_eq!(users.extract(bytes), Ok(first.map(KeyValue::Number)), "{bytes:02x?}");
    }
}

#[test]
fn a_read_level_is_its_enum_number_however_it_is_written() {
    let request = POOL.get_message_by_name("paymesh.wallet.v1.GetBalanceRequest").expect("a request");
    let level = KeyPath::resolve_enum(&request, "read.level").expect("a level");
    let encoded = |level| {
        let read = crate::common::v1::ReadOptions { level, ..Default::default() };
        crate::wallet::v1::GetBalanceRequest { user_id: 7, read: Some(read) }.encode_to_vec()
    };
    for (value, wanted) in [(0, None), (1, Some(1)), (2, Some(2)), (77, Some(77)), (-1, Some(u64::from(u32::MAX)))] {
        assert_eq!(level.extract(&encoded(value)), Ok(wanted.map(KeyValue::Number)), "{value}");
    }
    // In pieces, the last counts.
    assert_eq!(level.extract(&[encoded(2), encoded(1)].concat()), Ok(Some(KeyValue::Number(1))));
    assert_eq!(KeyPath::resolve_enum(&request, "user_id").err(), Some("is not an enum"));
}

#[test]
fn a_later_default_takes_the_value_back() {
    let payer = path("payments.v1.CreatePaymentRequest", "payer_id").expect("payer_id");
    assert_eq!(payer.extract(&[0x10, 0x05]), Ok(Some(KeyValue::Number(5))));
    assert_eq!(payer.extract(&[0x10, 0x05, 0x10, 0x00]), Ok(None));
}

#[test]
fn paths_that_name_no_scalar_are_refused() {
    let table = [
        ("wallet.v1.DepositRequest", "", "is not a field of the request"),
        ("wallet.v1.DepositRequest", "nobody", "is not a field of the request"),
        ("wallet.v1.DepositRequest", "amount.nobody", "is not a field of the request"),
        ("wallet.v1.DepositRequest", "amount", "is not a uint32, uint64 or string"),
        ("wallet.v1.DepositRequest", "amount.minor_units", "is not a uint32, uint64 or string"),
        ("wallet.v1.DepositRequest", "user_id.amount", "passes through a field that is not one message"),
        ("payments.v1.CreatePaymentsRequest", "payments.payer_id", "passes through a field that is not one message"),
        ("mesh.v1.VerifyShardResponse", "read_sequence", "is or passes through a member of a oneof"),
        ("payments.v1.PaymentOutcome", "receipt.payment_id", "is or passes through a member of a oneof"),
    ];
    for (message, key, problem) in table {
        assert_eq!(path(message, key).err(), Some(problem), "{message} {key}");
    }
}

#[test]
fn fields_are_counted_up_to_a_bound_and_what_cannot_be_read_is_an_error() {
    assert_eq!(has_more_fields(&[10, 0].repeat(3), 3), Ok(false));
    assert_eq!(has_more_fields(&[10, 0].repeat(4), 3), Ok(true));
    // Decoders step over a group, and any number of fields may come after it.
    let hidden = [&[0x0b, 0x0c][..], &[10, 0].repeat(4)].concat();
    assert_eq!(has_more_fields(&hidden, 3), Err(KeyError::Group));
}
