//! What crosses a zone's border, by the contract's classes: whatever entries hold, no field of class PERSONAL or above.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use paymesh_contract::{DataClass, FILE_DESCRIPTOR_SET, policies};
use paymesh_journal::{
    Holding, Origin, Segment, codec,
    conformance::{self, stream::Stream},
};
use paymesh_types::{Sequence, ZoneName};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, Value};

const SEEDS: u64 = 12;
const ENTRIES: usize = 400;

fn varint(rest: &mut &[u8]) -> usize {
    usize::try_from(prost::encoding::decode_varint(rest).expect("a length")).expect("a small length")
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(bytes);
    *rest = after;
    taken
}

/// The open parts in a reduced payload, as its format says, and nothing of this project's code.
fn open_parts(payload: &[u8]) -> Vec<Vec<u8>> {
    if payload.is_empty() {
        return Vec::new();
    }
    let raw = zstd::bulk::decompress(payload, 64 << 20).expect("it unpacks");
    let (mut rest, mut parts) = (raw.as_slice(), Vec::new());
    while !rest.is_empty() {
        let kept = take(&mut rest, 1)[0] == 1;
        if kept {
            let length = varint(&mut rest);
            parts.push(take(&mut rest, length).to_vec());
        }
        take(&mut rest, 32);
    }
    parts
}

/// Every field that is set, with its class, down to the last message.
fn walk(message: &DynamicMessage, seen: &mut BTreeMap<String, DataClass>) {
    assert_eq!(message.unknown_fields().count(), 0, "{message:?}");
    let name = message.descriptor().full_name().to_owned();
    for (field, value) in message.fields() {
        let class = policies().class_of(&name, field.name()).expect("every field has a class");
        seen.insert(format!("{name}.{}", field.name()), class);
        match value {
            Value::Message(inner) => walk(inner, seen),
            Value::List(items) => items.iter().filter_map(Value::as_message).for_each(|inner| walk(inner, seen)),
            _ => {}
        }
    }
}

#[test]
fn only_open_fields_of_entries_that_concern_the_zone_cross_its_border() {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the contract");
    let open = pool.get_message_by_name("paymesh.events.v1.EntryOpen").expect("EntryOpen");
    let shard = conformance::shard();
    let mut seen = BTreeMap::new();
    let mut kinds = BTreeMap::<&str, usize>::new();
    for seed in 0..SEEDS {
        let mut stream = Stream::with(seed, ENTRIES);
        let whole: Vec<Segment> = stream.segments();
        for zone in ["us", "asia"].map(|name| name.parse::<ZoneName>().expect("a zone's name")) {
            let mut crossed = Vec::new();
            for segment in &whole {
                let reduced = segment.reduced_for(&zone, &shard).expect("it reduces");
                // Nothing of the header but hashes, numbers and times.
                assert_eq!((reduced.hash, reduced.root, reduced.count), (segment.hash, segment.root, segment.count));
                crossed.extend(open_parts(&reduced.payload));
                for (position, entry) in reduced.entries_for(&zone, &shard).expect("it is what the zone may have") {
                    *kinds.entry(entry.kind()).or_default() += 1;
                    assert!(entry.postings.is_empty() && entry.reference.is_empty(), "{position:?}: {entry:?}");
                }
            }
            for part in &crossed {
                walk(&DynamicMessage::decode(open.clone(), part.as_slice()).expect("an open part"), &mut seen);
            }
            // All that concern the zone, and no others.
            let concern = stream.committed().iter().filter(|(position, entry)| entry.concerns(position, &zone));
            let expected: Vec<Vec<u8>> = concern.map(|(position, entry)| codec::open(entry, position.sequence).encode_to_vec()).collect();
            assert_eq!(crossed, expected, "seed {seed}, zone {zone}");
            // The streams have business with us, and none with asia: it hears whose users are.
            let mut concern = stream.committed().iter().filter(|(position, entry)| entry.concerns(position, &zone));
            let only_claims = concern.all(|(_, entry)| entry.kind() == "user_claimed");
            assert_eq!(only_claims, zone.as_str() == "asia", "seed {seed}");
        }
        // Every sealed part has something in it that must not be found.
        assert!(stream.committed().iter().any(|(_, entry)| !entry.reference.is_empty()));
    }
    let personal: Vec<_> = seen.iter().filter(|(_, class)| **class > DataClass::Internal).collect();
    assert!(personal.is_empty(), "{personal:?}");
    assert!(seen.len() > 20 && kinds.len() >= 4, "the streams have entries of many kinds: {kinds:?}, {seen:?}");
    assert_eq!(kinds.keys().filter(|kind| ["user_enrolled", "deposited", "withdrawn", "account_opened"].contains(kind)).count(), 0);
}

/// A copy across the border knows by its entries what those of its zone were sent, and some of what was taken in from them: it
/// compares that with what the leader says.
#[test]
fn what_crossed_the_border_knows_what_was_sent_and_no_more_of_what_was_taken_in_than_the_leader() {
    let shard = conformance::shard();
    let mut told = 0;
    for seed in 0..SEEDS {
        for zone in ["us", "asia"].map(|name| name.parse::<ZoneName>().expect("a zone's name")) {
            let (mut whole, mut reduced) = (Origin::beginning(&shard), Origin::beginning(&shard));
            for segment in Stream::with(seed, ENTRIES).segments() {
                let at = format!("seed {seed}, zone {zone}, up to {}", segment.last());
                let before = reduced.clone();
                whole.pass(&segment, &segment.entries(&shard).expect("it decodes"));
                let crossed = segment.reduced_for(&zone, &shard).expect("it reduces");
                reduced.pass(&crossed, &crossed.entries_for(&zone, &shard).expect("it is what the zone may have"));
                let of_the_zone = whole.within(&Holding::For(zone.clone()));
                let sent = |origin: &Origin| {
                    let sent = origin.peers.iter().map(|(peer, marks)| (peer.clone(), marks.sent));
                    sent.filter(|(_, sent)| *sent > Sequence(0)).collect::<Vec<_>>()
                };
                assert_eq!(sent(&reduced), sent(&of_the_zone), "{at}");
                for earlier in [&before, &reduced] {
                    assert_eq!(of_the_zone.may_follow(earlier), Ok(()), "{at}");
                }
                told += usize::from(sent(&before) != sent(&reduced));
            }
        }
    }
    assert!(told > 20, "the streams have business with the zone: {told}");
}
