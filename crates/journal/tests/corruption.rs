//! What was not written as it stands is found, and said where.

#![forbid(unsafe_code)]

use paymesh_journal::{
    Chain, Committed, Corrupt, ENTRY_PART_BYTES_MAX, Error, Hash, Origin, SEGMENT_BYTES_MAX, SEGMENT_ENTRIES_MAX, Segment, SegmentBuilder,
    StoredEntry, codec,
    conformance::{
        identity, shard,
        stream::{Stream, pack},
    },
    sqlite,
};
use paymesh_ledger::Entry;
use paymesh_types::{Epoch, Sequence, ShardRef, Timestamp};
use proptest::prelude::*;
use sqlx::{Connection as _, SqliteConnection};

/// Follows a journal and decodes it, as opening a shard does.
fn check(segments: &[Segment], shard: &ShardRef) -> Result<(), Corrupt> {
    let mut chain = Chain::start(shard.clone());
    for segment in segments {
        chain.link(segment)?;
        segment.entries(shard)?;
    }
    Ok(())
}

fn few_segments() -> Vec<Segment> {
    let mut stream = Stream::with(70, 90);
    let segments = stream.segments();
    assert!(segments.len() >= 3);
    segments
}

async fn store(directory: &std::path::Path, segments: &[Segment]) {
    let store = sqlite::open(directory, &identity()).await.expect("the storage opens");
    let mut epoch = Epoch(0);
    for segment in segments {
        while epoch < segment.epoch {
            epoch = store.journal.lead().await.expect("a term begins");
        }
        store.journal.append(segment).await.expect("a segment that follows is appended");
    }
}

#[test]
fn every_flipped_bit_of_a_payload_is_found_and_placed() {
    let segments = few_segments();
    let mut damaged = segments.clone();
    let place = 1;
    for index in 0..segments[place].payload.len() {
        damaged[place].payload[index] ^= 1 << (index % 8);
        let corrupt = check(&damaged, &shard()).expect_err("a flipped bit is found");
        assert_eq!((corrupt.shard, corrupt.sequence), (shard(), segments[place].first), "byte {index}: {}", corrupt.what);
        // Also where the checksum was made to fit: the entries are hashed as well.
        damaged[place].checksum = *blake3::hash(&damaged[place].payload).as_bytes();
        let entries = damaged[place].entries(&shard());
        if let Err(corrupt) = check(&damaged, &shard()) {
            assert!((segments[place].first..=segments[place].last()).contains(&corrupt.sequence), "byte {index}: {corrupt}");
        } else {
            // A bit of the packing that changes nothing of what is packed.
            assert_eq!(entries, segments[place].entries(&shard()), "byte {index}");
        }
        damaged[place] = segments[place].clone();
    }
    assert_eq!(check(&damaged, &shard()), Ok(()));
}

#[test]
fn every_changed_header_field_is_found_and_placed() {
    let segments = few_segments();
    let place = 1;
    type Change = (&'static str, fn(&mut Segment));
    let changes: [Change; 12] = [
        ("epoch, later", |segment| segment.epoch.0 += 1),
        ("epoch, earlier", |segment| segment.epoch.0 -= 1),
        ("first", |segment| segment.first.0 += 1),
        ("first, far away", |segment| segment.first.0 = u64::MAX),
        ("count", |segment| segment.count += 1),
        ("no count", |segment| segment.count = 0),
        ("committed_at", |segment| segment.committed_at.0 ^= 1),
        ("previous", |segment| segment.previous[31] ^= 1),
        ("root", |segment| segment.root[0] ^= 128),
        ("hash", |segment| segment.hash[7] ^= 2),
        ("checksum", |segment| segment.checksum[16] ^= 4),
        ("no payload", |segment| segment.payload.clear()),
    ];
    for (what, change) in changes {
        let mut damaged = segments.clone();
        change(&mut damaged[place]);
        let corrupt = check(&damaged, &shard()).expect_err(what);
        assert_eq!((corrupt.shard, corrupt.sequence), (shard(), segments[place].first), "{what}: {}", corrupt.what);
    }
}

#[test]
fn segments_that_are_missing_or_out_of_place_are_found_and_placed() {
    let segments = few_segments();
    let missing: Vec<_> = segments.iter().enumerate().filter(|(index, _)| *index != 1).map(|(_, segment)| segment.clone()).collect();
    assert_eq!(check(&missing, &shard()).expect_err("one is missing").sequence, segments[1].first);
    let mut swapped = segments.clone();
    swapped.swap(1, 2);
    assert_eq!(check(&swapped, &shard()).expect_err("two are swapped").sequence, segments[1].first);
    let twice = [&segments[..2], &segments[1..]].concat();
    assert_eq!(check(&twice, &shard()).expect_err("one is there twice").sequence, segments[2].first);
    // A journal of another shard, or of the same number in another zone.
    for (zone, index) in [("eu", 2), ("us", 1)] {
        let other = ShardRef { zone: zone.parse().expect("a zone's name"), index };
        let corrupt = check(&segments, &other).expect_err("another shard's journal");
        assert_eq!((&corrupt.shard, corrupt.sequence), (&other, Sequence(1)));
    }
    // The same entries from the same place of a chain that was another one before.
    let mut chain = Chain::start(shard());
    let mut stream = Stream::with(71, 20);
    let forged = stream.segments().remove(0);
    chain.link(&forged).expect("it is a journal of its own");
    assert!(chain.link(&segments[1]).is_err());
}

/// Segments that are whole in themselves, and not what follows.
#[test]
fn a_segment_of_another_past_or_of_an_earlier_term_is_found() {
    let entries = Stream::with(75, 40).committed().to_vec();
    let of_term = |entries: &[Committed], epoch: u64| -> Vec<Committed> {
        let position = |position: &paymesh_types::Position| paymesh_types::Position { epoch: Epoch(epoch), ..position.clone() };
        entries.iter().map(|(at, entry)| (position(at), entry.clone())).collect()
    };
    let (first, second) = (of_term(&entries[..20], 3), of_term(&entries[20..], 3));
    let (mut ours, mut theirs) = (Chain::start(shard()), Chain::start(shard()));
    ours.link(&pack(&ours, &first, [1; 32])).expect("it follows");
    theirs.link(&pack(&theirs, &first, [2; 32])).expect("it follows");
    let corrupt = ours.clone().link(&pack(&theirs, &second, [1; 32])).expect_err("it follows another segment of the same entries");
    assert!(corrupt.sequence == Sequence(21) && corrupt.what.contains("hash chain"), "{corrupt}");
    let corrupt = ours.clone().link(&pack(&ours, &of_term(&entries[20..], 2), [1; 32])).expect_err("the term is over");
    assert!(corrupt.sequence == Sequence(21) && corrupt.what.contains("epoch 2 follows one of epoch 3"), "{corrupt}");
    ours.link(&pack(&ours, &of_term(&entries[20..], 4), [1; 32])).expect("the next term follows");
}

/// Changes rows of the file, behind the engine's back.
async fn change(directory: &std::path::Path, statements: &[String]) {
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(directory.join("journal.sqlite")).pragma("ignore_check_constraints", "ON");
    let mut raw = SqliteConnection::connect_with(&options).await.expect("the file opens");
    for statement in statements {
        let changed = sqlx::query(sqlx::AssertSqlSafe(statement.clone())).execute(&mut raw).await.expect("rows are changed");
        assert!(changed.rows_affected() > 0, "{statement}");
    }
    raw.close().await.expect("it closes");
}

/// What the next copy is to come through, where a copy of these segments is set aside once that was done to it.
async fn witness(segments: &[Segment], origin: Option<&Origin>, statements: &[String]) -> Option<(Sequence, Hash)> {
    let directory = tempfile::tempdir().expect("a directory");
    store(directory.path(), segments).await;
    let engine = sqlite::Engine::new(directory.path());
    if let Some(origin) = origin {
        let journal = engine.store(&identity()).await.expect("the storage opens").journal;
        journal.prune(Epoch(u64::MAX >> 1), origin).await.expect("it is cut");
    }
    change(directory.path(), statements).await;
    engine.set_aside(&shard(), Timestamp(1), true).await.expect("it is set aside");
    let next = engine.store(&identity()).await.expect("the storage opens").journal;
    assert_eq!(next.head().await.expect("it is read").sequence, Sequence(0));
    next.witness().await.expect("it is read")
}

/// By anything else, the next copy of the same history would be taken for one of another.
#[tokio::test]
async fn a_copy_that_is_set_aside_is_known_by_its_last_segment_that_is_as_it_was_written() {
    let segments = few_segments();
    let [.., third_last, second_last, last] = segments.as_slice() else { panic!("there are some") };
    let end = |segment: &Segment| Some((segment.last(), segment.hash));
    let damage = |segment: &Segment, change: &str| format!("UPDATE segments SET {change} WHERE first = {}", segment.first);
    let headers = [
        "epoch = epoch + 1",
        "last = last + 1",
        "last = first - 1",
        "last = 9223372036854775807",
        "first = first + 1",
        "first = 9223372036854775807",
        "first = -5",
        "committed_at = committed_at + 1",
        "previous = zeroblob(32)",
        "root = zeroblob(32)",
        "root = x''",
        "hash = zeroblob(32)",
        "hash = zeroblob(33)",
    ];
    for change in headers {
        let found = witness(&segments, None, &[damage(last, change)]).await;
        assert_eq!(found, end(second_last), "{change}");
        let found = witness(&segments, None, &[damage(last, change), damage(second_last, "hash = zeroblob(32)")]).await;
        assert_eq!(found, end(third_last), "{change}");
    }
    // What is damaged before the end, and entries that are, say nothing against the end.
    for harmless in [damage(last, "payload = x''"), damage(last, "checksum = x''"), damage(second_last, "hash = zeroblob(32)")] {
        let found = witness(&segments, None, std::slice::from_ref(&harmless)).await;
        assert_eq!(found, end(last), "{harmless}");
    }
    assert_eq!(witness(&segments, None, &["UPDATE segments SET hash = zeroblob(32)".to_owned()]).await, None, "there is none");
}

#[tokio::test]
async fn a_copy_that_begins_later_and_is_set_aside_is_known_by_where_it_begins_and_not_by_what_came_before() {
    let segments = few_segments();
    let [.., second_last, last] = segments.as_slice() else { panic!("there are some") };
    let origin = |segment: &Segment| {
        let mut origin = Origin::beginning(&shard());
        origin.pass(segment, &[]);
        origin
    };
    let damaged = format!("UPDATE segments SET root = zeroblob(32) WHERE first = {}", last.first);
    let found = witness(&segments, Some(&origin(second_last)), &[damaged]).await;
    assert_eq!(found, Some((second_last.last(), second_last.hash)));
    // Rows that are of no meaning any more, and were not swept away yet.
    let blob = |hash: &Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let Segment { epoch, first, committed_at, previous, root, hash, .. } = second_last;
    let left = format!(
        "INSERT INTO segments VALUES (1, {first}, {}, {epoch}, {}, x'{}', x'{}', x'{}', zeroblob(32), x'')",
        second_last.last(),
        committed_at.0,
        blob(previous),
        blob(root),
        blob(hash)
    );
    let found = witness(&segments, Some(&origin(last)), &[left]).await;
    assert_eq!(found, Some((last.last(), last.hash)));
}

/// Rows changed in the file, behind the engine's back.
#[tokio::test]
async fn every_changed_column_of_a_stored_segment_is_found_and_placed() {
    let directory = tempfile::tempdir().expect("a directory");
    let segments = few_segments();
    store(directory.path(), &segments).await;
    let file = directory.path().join("journal.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).pragma("ignore_check_constraints", "ON");
    let mut raw = SqliteConnection::connect_with(&options).await.expect("the file opens");
    let victim = i64::try_from(segments[1].first.0).expect("small");
    let changes = [
        "epoch = epoch + 1",
        "epoch = 0",
        "epoch = -1",
        "last = last + 1",
        "last = first - 1",
        "last = 9223372036854775807",
        "first = -5",
        "first = 9223372036854775807",
        "committed_at = committed_at + 1",
        "committed_at = -1",
        "previous = zeroblob(32)",
        "previous = x''",
        "root = zeroblob(32)",
        "root = zeroblob(33)",
        "hash = zeroblob(32)",
        "checksum = zeroblob(32)",
        "checksum = x'00'",
        "payload = x''",
        "payload = zeroblob(1000)",
        "payload = substr(payload, 1, length(payload) - 1)",
        "payload = CAST(payload || x'00' AS BLOB)",
    ];
    for change in changes {
        sqlx::query("SAVEPOINT damage").execute(&mut raw).await.expect("a savepoint");
        sqlx::query("CREATE TEMP TABLE kept AS SELECT * FROM segments").execute(&mut raw).await.expect("rows are kept");
        let sql = format!("UPDATE segments SET {change} WHERE first = {victim}");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut raw).await.expect("a row is damaged");
        sqlx::query("RELEASE damage").execute(&mut raw).await.expect("the damage is done");

        let store = sqlite::open(directory.path(), &identity()).await.expect("the storage opens");
        let mut chain = Chain::start(shard());
        let found: Result<(), Error> = async {
            loop {
                let read = store.journal.read(chain.last().next(), 1).await?;
                if read.is_empty() {
                    return Ok(());
                }
                for segment in read {
                    chain.link(&segment)?;
                    segment.entries(&shard())?;
                }
            }
        }
        .await;
        match found {
            Err(Error::Corrupt(corrupt)) => {
                assert_eq!(corrupt.shard, shard(), "{change}: {corrupt}");
                // A row whose own number is not readable is placed by whoever read up to it.
                assert!([Sequence(0), segments[1].first].contains(&corrupt.sequence), "{change}: {corrupt}");
                assert_eq!(chain.last().next(), segments[1].first, "{change}");
            }
            other => panic!("{change} came to {other:?}"),
        }
        drop(store);
        for sql in ["DELETE FROM segments", "INSERT INTO segments SELECT * FROM kept", "DROP TABLE kept"] {
            sqlx::query(sql).execute(&mut raw).await.expect("the rows are as they were");
        }
    }
    let store = sqlite::open(directory.path(), &identity()).await.expect("the storage opens");
    assert_eq!(store.journal.read(Sequence(1), usize::MAX).await.expect("segments are read"), segments);
}

/// The file's first page holds the schema. A type's name there that is not UTF-8 ends the driver's thread (sqlx 0.9), and
/// the deadline of opening ends the wait: not for a test to sit through.
const SCHEMA_BYTES: usize = 4096;

/// Bytes changed in the file: whatever the engine makes of it, it is an error or the journal as it was.
#[tokio::test]
async fn a_file_with_flipped_bytes_is_refused_or_reads_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let segments = few_segments();
    store(directory.path(), &segments).await;
    let file = directory.path().join("journal.sqlite");
    let mut raw = SqliteConnection::connect_with(&sqlx::sqlite::SqliteConnectOptions::new().filename(&file)).await.expect("the file opens");
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut raw).await.expect("all is in the file");
    raw.close().await.expect("the file closes");
    let whole = std::fs::read(&file).expect("the file is there");
    let mut refused = 0;
    let mut dice = paymesh_journal::memory::Dice::new(72);
    for round in 0..150 {
        let damaged = tempfile::tempdir().expect("a directory");
        let mut bytes = whole.clone();
        let index = SCHEMA_BYTES + usize::try_from(dice.below((bytes.len() - SCHEMA_BYTES) as u64)).expect("small");
        bytes[index] ^= 1 << dice.below(8);
        std::fs::write(damaged.path().join("journal.sqlite"), &bytes).expect("a file is written");
        // Whatever happens here, it is not a panic.
        let read = async {
            let journal = sqlite::open(damaged.path(), &identity()).await?.journal;
            let mut read: Vec<Segment> = Vec::new();
            loop {
                let from = read.last().map_or(Sequence(1), |last| last.last().next());
                let more = journal.read(from, 1).await?;
                if more.is_empty() {
                    break;
                }
                read.extend(more);
                check(&read, &shard())?;
            }
            journal.head().await?;
            Ok::<_, Error>(read)
        };
        match read.await {
            Ok(read) => assert!(segments.starts_with(&read), "round {round}, byte {index}: it reads as something else"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 20, "most of the file is the journal, {refused} of 150 were refused");
}

#[test]
fn no_header_makes_a_segment_panic() {
    let segments = few_segments();
    for first in [0, 1, u64::MAX - 1, u64::MAX] {
        for count in [0, 1, 2, u32::MAX] {
            let segment = Segment { first: Sequence(first), count, ..segments[0].clone() };
            let _ = segment.last();
            if (first, count) != (segments[0].first.0, segments[0].count) {
                assert!(segment.entries(&shard()).is_err(), "{first} {count}");
                assert!(Chain::start(shard()).link(&segment).is_err(), "{first} {count}");
            }
        }
    }
}

/// A few bytes can unpack to many, and many to more when they are decoded.
#[test]
fn a_small_payload_cannot_ask_for_much_memory() {
    let of = |raw: &[u8]| {
        let payload = zstd::bulk::compress(raw, 19).expect("compressing into memory does not fail");
        assert!(payload.len() < 20_000, "{} bytes", payload.len());
        Segment {
            epoch: Epoch(1),
            first: Sequence(1),
            count: 1,
            committed_at: Timestamp(0),
            previous: [0; 32],
            root: [0; 32],
            hash: [0; 32],
            checksum: [0; 32],
            payload,
        }
    };
    let refusal = |raw: &[u8]| of(raw).entries(&shard()).expect_err("nobody wrote it").what;
    assert!(refusal(&vec![0; SEGMENT_BYTES_MAX + 1]).contains("size"));
    // Empty entries without end.
    let mut entries = vec![7; 32];
    entries.resize(32 + 2 * (SEGMENT_ENTRIES_MAX + 1), 0);
    assert!(refusal(&entries).contains("more than"), "{}", refusal(&entries));
    // One entry of postings without end, each of which takes forty times its bytes.
    let entry = |postings: usize| {
        let mut raw = vec![7; 32];
        raw.push(0);
        prost::encoding::encode_varint(2 * postings as u64, &mut raw);
        (0..postings).for_each(|_| raw.extend_from_slice(&[0x0a, 0x00]));
        raw
    };
    assert!(refusal(&entry(SEGMENT_BYTES_MAX / 2 - 40)).contains("bytes, more than"));
    let within = refusal(&entry(ENTRY_PART_BYTES_MAX / 2));
    assert!(!within.contains("bytes, more than"), "{within}");
    // A frame that does not say how much it unpacks to.
    let mut packer = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    std::io::Write::write_all(&mut packer, &[0; 100]).expect("memory has room");
    let payload = packer.finish().expect("a frame");
    assert!(Segment { payload, ..of(&[0; 40]) }.entries(&shard()).expect_err("no size").what.contains("size"));
}

/// A reader that may hold neither part of an entry follows the chain by the hashes of the parts.
#[test]
fn hashes_alone_prove_the_chain_and_the_sealed_part_hides_behind_its_salt() {
    let stream = Stream::with(73, 40);
    let entries: Vec<Committed> = stream.committed().iter().take_while(|(position, _)| position.epoch == Epoch(1)).cloned().collect();
    assert!(entries.len() > 5);
    let salt = [9; 32];
    let segment = pack(&Chain::start(shard()), &entries, salt);

    let mut root = blake3::Hasher::new();
    let mut scratch = codec::Scratch::default();
    for (position, entry) in &entries {
        let StoredEntry { open, sealed } = codec::encode(entry, position.sequence, &mut scratch);
        let sealed = blake3::Hasher::new_keyed(&salt).update(&position.sequence.0.to_le_bytes()).update(sealed).finalize();
        root.update(blake3::hash(&[blake3::hash(open).as_bytes().as_slice(), sealed.as_bytes()].concat()).as_bytes());
    }
    assert_eq!(segment.root, *root.finalize().as_bytes(), "root = H( H(open), H_salt(sequence, sealed) … )");
    let mut header = blake3::Hasher::new();
    header.update(b"paymesh segment 1\0eu/").update(&1u16.to_le_bytes()).update(&Chain::start(shard()).hash());
    header.update(&1u64.to_le_bytes()).update(&1u64.to_le_bytes()).update(&segment.count.to_le_bytes());
    header.update(&segment.committed_at.0.to_le_bytes()).update(&segment.root);
    assert_eq!(segment.hash, *header.finalize().as_bytes(), "segment = H( shard, previous, epoch, first, count, committed_at, root )");

    // The same sealed part under another salt is another hash: a guess cannot be checked without it.
    assert_ne!(pack(&Chain::start(shard()), &entries, [8; 32]).root, segment.root);
    // What is sealed is not in the open part.
    let mut secret = entries[0].1.as_ref().clone();
    secret.reference = "canary".to_owned();
    secret.postings.clear();
    let open = |entry: &Entry| codec::encode(entry, Sequence(1), &mut codec::Scratch::default()).open.to_vec();
    assert_eq!(open(&secret), open(&entries[0].1));
}

fn arbitrary_segment() -> impl Strategy<Value = Segment> {
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        // What unpacks, so that what is inside is reached.
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|raw| zstd::bulk::compress(&raw, 1).expect("memory has room")),
        // What has entries of the right lengths.
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12).prop_map(|parts| {
            let mut raw = vec![3; 32];
            for part in parts {
                prost::encoding::encode_varint(part.len() as u64, &mut raw);
                raw.extend(part);
            }
            zstd::bulk::compress(&raw, 1).expect("memory has room")
        }),
    ];
    (payload, any::<u64>(), any::<u32>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(payload, first, count, at, root)| Segment {
        epoch: Epoch(1),
        first: Sequence(if first % 2 == 0 { first } else { 1 }),
        count: if count % 2 == 0 { count } else { count % 8 },
        committed_at: Timestamp(at),
        previous: root,
        root,
        hash: root,
        checksum: *blake3::hash(&payload).as_bytes(),
        payload,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_never_entries_and_never_panic(segment in arbitrary_segment()) {
        prop_assert!(segment.entries(&shard()).is_err());
        prop_assert!(Chain::start(shard()).link(&segment).is_err());
    }

    #[test]
    fn entries_survive_the_journal(seed: u64, count in 1usize..60) {
        let mut stream = Stream::with(seed, count);
        let mut entries = Vec::new();
        for segment in stream.segments() {
            entries.extend(segment.entries(&shard()).expect("what was built decodes"));
        }
        prop_assert_eq!(entries, stream.committed());
    }

    /// Also when the damage is not one bit.
    #[test]
    fn damaged_payloads_never_read_as_something_else(seed in 0u64..50, at: prop::sample::Index, with: u8, cut: prop::sample::Index) {
        let segment = Stream::with(seed, 20).segments().remove(0);
        let mut damaged = segment.clone();
        let index = at.index(damaged.payload.len());
        damaged.payload[index] = with;
        damaged.payload.truncate(cut.index(damaged.payload.len()).max(index + 1));
        match damaged.entries(&shard()) {
            Ok(entries) => prop_assert_eq!(entries, segment.entries(&shard()).expect("it was whole")),
            Err(corrupt) => prop_assert!((segment.first..=segment.last()).contains(&corrupt.sequence)),
        }
    }
}

#[test]
#[should_panic(expected = "a segment holds")]
fn a_builder_takes_no_more_entries_than_a_reader_does() {
    let (position, entry) = Stream::with(74, 1).committed()[0].clone();
    let mut builder = SegmentBuilder::new(shard(), position.epoch, position.sequence, Chain::start(shard()).hash(), [0; 32]);
    (0..=SEGMENT_ENTRIES_MAX).for_each(|_| builder.push(&entry));
}

#[test]
fn a_full_segment_reads_back() {
    let (position, entry) = Stream::with(74, 1).committed()[0].clone();
    let mut builder = SegmentBuilder::new(shard(), position.epoch, position.sequence, Chain::start(shard()).hash(), [0; 32]);
    (0..SEGMENT_ENTRIES_MAX).for_each(|_| builder.push(&entry));
    assert_eq!(builder.finish().entries(&shard()).expect("what was built decodes").len(), SEGMENT_ENTRIES_MAX);
}
