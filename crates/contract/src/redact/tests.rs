//! Every message of the contract, field by field: sensitive values never print, the others do.

use std::fmt::Debug;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::generated::REDACTED;
use crate::{DataClass, FILE_DESCRIPTOR_SET, policies, wallet::v1 as wallet};

/// Every message by full name, with its `Debug`; from the build script.
const MESSAGES: &[(&str, DebugOf)] = include!(concat!(env!("OUT_DIR"), "/debug_table.rs"));

/// Decodes a message and prints its `Debug`.
type DebugOf = fn(&[u8]) -> Result<String, prost::DecodeError>;

/// Deeper than the contract nests.
const DEPTH_MAX: usize = 8;
const CANARY_TEXT: &str = "canary-4e1f";
/// Of no enum, so that it prints as itself there too.
const CANARY_NUMBER: u32 = 1_711_171_117;

fn debug_of<M: Message + Default + Debug>(bytes: &[u8]) -> Result<String, prost::DecodeError> {
    M::decode(bytes).map(|message| format!("{message:?}"))
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the embedded set")
}

/// A message whose every field holds a canary; of a oneof, the first member.
fn filled(message: &MessageDescriptor, depth: usize) -> DynamicMessage {
    assert!(depth < DEPTH_MAX, "{} nests deeper than this test follows", message.full_name());
    let mut value = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if field.containing_oneof().is_none_or(|oneof| !value.fields().any(|(set, _)| set.containing_oneof().as_ref() == Some(&oneof))) {
            value.set_field(&field, canary(&field, depth));
        }
    }
    value
}

fn canary(field: &FieldDescriptor, depth: usize) -> Value {
    let one = match field.kind() {
        Kind::String => Value::String(CANARY_TEXT.to_owned()),
        Kind::Bytes => Value::Bytes(CANARY_TEXT.into()),
        Kind::Bool => Value::Bool(true),
        Kind::Enum(_) => Value::EnumNumber(CANARY_NUMBER as i32),
        Kind::Uint32 => Value::U32(CANARY_NUMBER),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(CANARY_NUMBER.into()),
        Kind::Int32 => Value::I32(CANARY_NUMBER as i32),
        Kind::Int64 | Kind::Sint64 => Value::I64(CANARY_NUMBER.into()),
        Kind::Message(message) => Value::Message(filled(&message, depth + 1)),
        kind => panic!("{}: teach this test the kind {kind:?}", field.full_name()),
    };
    if field.is_list() { Value::List(vec![one]) } else { one }
}

fn shows_a_canary(printed: &str) -> bool {
    printed.contains(CANARY_TEXT)
        || printed.contains(&CANARY_NUMBER.to_string())
        || printed.contains(&format!("{:?}", CANARY_TEXT.as_bytes()))
}

/// Whether the field, or any field below it, may print.
fn may_print(field: &FieldDescriptor) -> bool {
    let message = field.parent_message();
    if message.package_name() == "google.protobuf" {
        return true;
    }
    let class = policies().class_of(message.full_name(), field.name()).expect("every field has a class");
    class < DataClass::Personal
        && match field.kind() {
            Kind::Message(inner) => inner.fields().next().is_none() || inner.fields().any(|field| may_print(&field)),
            Kind::Bool => false,
            _ => true,
        }
}

#[test]
fn sensitive_values_never_print_and_the_others_do() {
    let pool = pool();
    for (name, debug) in MESSAGES {
        let message = pool.get_message_by_name(name).expect(name);
        for field in message.fields() {
            let class = policies().class_of(name, field.name()).expect("every field has a class");
            let mut value = DynamicMessage::new(message.clone());
            value.set_field(&field, canary(&field, 0));
            let printed = debug(&value.encode_to_vec()).expect("the generated type is of the same contract");

            let full_name = field.full_name();
            assert!(printed.contains(field.name()) || field.containing_oneof().is_some(), "{full_name}: {printed}");
            if class >= DataClass::Personal {
                assert!(!shows_a_canary(&printed), "{full_name} leaks: {printed}");
                assert!(printed.contains(&format!("{}: (withheld)", field.name())), "{full_name}: {printed}");
            } else if may_print(&field) {
                assert!(shows_a_canary(&printed), "{full_name} is not sensitive and does not print: {printed}");
            }
        }
    }
}

/// The same canary in every sensitive field, none elsewhere: nothing leaks through any level of nesting.
#[test]
fn sensitive_values_do_not_print_through_the_messages_around_them() {
    fn only_sensitive(message: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut value = DynamicMessage::new(message.clone());
        for field in message.fields() {
            match (policies().class_of(message.full_name(), field.name()), field.kind()) {
                (Some(class), _) if class >= DataClass::Personal => value.set_field(&field, canary(&field, depth)),
                (Some(_), Kind::Message(inner)) => {
                    let inner = Value::Message(only_sensitive(&inner, depth + 1));
                    value.set_field(&field, if field.is_list() { Value::List(vec![inner]) } else { inner });
                }
                _ => {}
            }
        }
        value
    }

    let pool = pool();
    for (name, debug) in MESSAGES {
        let message = pool.get_message_by_name(name).expect(name);
        let printed = debug(&only_sensitive(&message, 0).encode_to_vec()).expect("the generated type is of the same contract");
        assert!(!shows_a_canary(&printed), "{name} leaks: {printed}");
    }
}

#[test]
fn every_message_with_a_sensitive_field_is_covered() {
    let pool = pool();
    let ours: Vec<MessageDescriptor> = pool.all_messages().filter(|message| message.package_name() != "google.protobuf").collect();
    assert_eq!(MESSAGES.len(), ours.len(), "the build script's table misses messages");
    let mut expected: Vec<&str> = ours
        .iter()
        .filter(|message| {
            message
                .fields()
                .any(|field| policies().class_of(message.full_name(), field.name()).is_some_and(|class| class >= DataClass::Personal))
        })
        .map(MessageDescriptor::full_name)
        .collect();
    let mut covered = REDACTED.to_vec();
    expected.sort_unstable();
    covered.sort_unstable();
    assert_eq!(covered, expected);
    assert!(covered.contains(&"paymesh.payments.v1.CreatePaymentRequest"), "the reference of a payment is personal");
}

#[test]
fn enums_print_their_names_beside_withheld_fields() {
    let response = wallet::WithdrawResponse {
        status: wallet::WithdrawalStatus::Booked.into(),
        balance: Some(crate::common::v1::Money { minor_units: 77, currency_code: "EUR".to_owned() }),
        ..Default::default()
    };
    let printed = format!("{response:?}");
    assert!(
        printed.starts_with("WithdrawResponse { status: Booked, decline_reason: \"\", balance: (withheld), position: None"),
        "{printed}"
    );
    assert_eq!(
        format!("{:?}", wallet::WithdrawResponse { status: 9, ..Default::default() }).split(',').next(),
        Some("WithdrawResponse { status: 9")
    );
}
