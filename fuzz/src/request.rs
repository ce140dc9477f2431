//! The way of a request's bytes up to the region that answers it.

use std::sync::LazyLock;

use paymesh_contract::{FILE_DESCRIPTOR_SET, KeyPath, KeyValue, policies};
use paymesh_mesh::{
    frame::{PREFIX_BYTES, first_message},
    route,
};
use paymesh_topology::Topology;
use paymesh_types::ZoneName;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

/// What a caller may send: any bytes give a place in the mesh or a fault, and the key that is read without decoding is the
/// one that decoding gives.
pub fn request_path(bytes: &[u8]) {
    if let Ok(Some(message)) = first_message(bytes) {
        assert_eq!(message, &bytes[PREFIX_BYTES..PREFIX_BYTES + message.len()], "a message is a part of what came in");
        route_everywhere(message);
    }
    // Also without the frame, so that its five bytes need not be guessed to reach what lies behind it.
    route_everywhere(bytes);
}

fn route_everywhere(message: &[u8]) {
    static TOPOLOGY: LazyLock<Topology> =
        LazyLock::new(|| Topology::parse("regions.yaml", include_str!("../../region-config/regions.yaml")).expect("ours is valid"));
    static ZONE: LazyLock<ZoneName> = LazyLock::new(|| TOPOLOGY.zones().next().expect("ours has zones").name.clone());
    for policy in policies().methods() {
        let input = input_of(&policy.path);
        for path in policy.key.iter().chain(&policy.shard_key) {
            key_is_what_decoding_gives(path, &input, message);
        }
        let Ok(plan) = route::plan(policy, message) else { continue };
        for zone in [None, Some(&*ZONE)] {
            let Ok(Some(shard)) = route::shard(&TOPOLOGY, &plan, zone) else { continue };
            match route::leader(&TOPOLOGY, &shard) {
                Ok(leader) => assert!(TOPOLOGY.region(leader).is_some(), "a leader is a region"),
                // Only a journal is named by its shard, and so may be one that does not exist.
                Err(fault) => assert!(matches!(plan, route::Plan::Journal(_)), "{plan:?} leads to {shard}, where nobody is: {fault:?}"),
            }
        }
    }
}

/// The request type of a method, by its gRPC path.
fn input_of(path: &str) -> MessageDescriptor {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("ours decodes"));
    let (service, method) = path.trim_start_matches('/').split_once('/').expect("a path is /service/method");
    let service = POOL.get_service_by_name(service).expect("a policy's service exists");
    service.methods().find(|found| found.name() == method).expect("a policy's method exists").input()
}

fn key_is_what_decoding_gives(path: &KeyPath, input: &MessageDescriptor, message: &[u8]) {
    let extracted = path.extract(message);
    let Ok(decoded) = DynamicMessage::decode(input.clone(), message) else { return };
    // A group is skipped by the decoder and refused by the extractor: proto3 has none, and no client of ours sends one.
    let Ok(extracted) = extracted else { return };
    let mut value = Value::Message(decoded);
    for name in path.as_str().split('.') {
        let Value::Message(message) = &value else { panic!("{path} passes through messages") };
        value = message.get_field_by_name(name).expect("the key's field exists").into_owned();
    }
    if let Value::List(list) = value {
        value = match list.into_iter().next() {
            Some(first) => first,
            None => return assert_eq!(extracted, None, "{path}"),
        };
    }
    match value {
        Value::String(text) => assert_eq!(extracted, Some(KeyValue::Text(&text)).filter(|_| !text.is_empty()), "{path}"),
        Value::U32(number) => assert_eq!(extracted, Some(KeyValue::Number(number.into())).filter(|_| number != 0), "{path}"),
        Value::U64(number) => assert_eq!(extracted, Some(KeyValue::Number(number)).filter(|_| number != 0), "{path}"),
        other => panic!("{path} is {other:?}, which is no key"),
    }
}
