//! Storage of the version before: it is read, and goes on.

#![forbid(unsafe_code)]

use std::sync::Arc;

use paymesh_contract::events::v1 as pb;
use paymesh_journal::{
    Committed, Projection, StoredEntry, codec,
    conformance::{identity, shard, stream::Stream},
    sqlite,
};
use paymesh_ledger::{Body, Entry, Exempted, Monitored, Wallet};
use paymesh_types::{Cursor, Epoch, HistoryMark, Position, Sequence, ShardRef, Timestamp};
use prost::Message as _;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// Cursors had no marks.
#[tokio::test]
async fn tables_without_marks_keep_their_cursors_and_note_marks_from_then_on() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut stream = Stream::with(3, 400);
    let segments = stream.segments();
    let entries: Vec<_> = segments.iter().flat_map(|segment| segment.entries(&shard()).expect("they decode")).collect();
    let store = sqlite::open(directory.path(), &identity()).await.expect("it opens");
    store.tables.project(&Projection::of(&entries)).await.expect("they are projected");
    let before = store.tables.books().await.expect("they are read").inbox;
    assert!(before.iter().any(|(_, cursor)| cursor.mark.is_some()), "{before:?}");
    store.tables.close().await;
    let tables = std::fs::read_dir(directory.path()).expect("it is read").map(|file| file.expect("it is read").path());
    let tables: Vec<_> = tables.filter(|path| path.to_string_lossy().ends_with(".tables.sqlite")).collect();
    let mut file = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&tables[0])).await.expect("it opens");
    for back in ["ALTER TABLE peers DROP COLUMN mark", "DELETE FROM _sqlx_migrations WHERE version = 2"] {
        sqlx::query(back).execute(&mut file).await.expect("it is as it was");
    }
    file.close().await.expect("it closes");

    let store = sqlite::open(directory.path(), &identity()).await.expect("it opens");
    let sorted = |mut inbox: Vec<(ShardRef, Cursor)>| {
        inbox.sort_unstable();
        inbox
    };
    let unmarked = |(shard, cursor): &(ShardRef, Cursor)| (shard.clone(), Cursor::from(cursor.sequence));
    let found = sorted(store.tables.books().await.expect("they are read").inbox);
    assert_eq!(found, sorted(before.iter().map(unmarked).collect()));
    let last = entries.last().expect("there are some").0.sequence;
    let (peer, cursor) = found[0].clone();
    let read_to = Cursor { sequence: cursor.sequence.next(), mark: HistoryMark::new(u64::MAX) };
    let body = Body::Delivered { to: peer.clone(), up_to: Sequence(1), read_to };
    let entry = Entry { at: Timestamp(u64::MAX >> 2), request_id: None, body, postings: Default::default(), reference: String::new() };
    let position = Position { shard: shard(), epoch: Epoch(9), sequence: last.next() };
    store.tables.project(&Projection::of(&[(position, entry.into())])).await.expect("it is projected");
    let now = store.tables.books().await.expect("they are read").inbox;
    assert_eq!(now.iter().find(|(each, _)| *each == peer).map(|(_, cursor)| *cursor), Some(read_to));
    store.tables.close().await;
}

/// Accounts had no rows of exempted payments.
#[tokio::test]
async fn tables_without_exempted_payments_begin_with_none() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut stream = Stream::with(3, 600);
    let segments = stream.segments();
    let entries: Vec<_> = segments.iter().flat_map(|segment| segment.entries(&shard()).expect("they decode")).collect();
    let store = sqlite::open(directory.path(), &identity()).await.expect("it opens");
    store.tables.project(&Projection::of(&entries)).await.expect("they are projected");
    store.tables.close().await;
    let wallets = stream.records().wallets;
    assert!(wallets.iter().any(|(_, wallet)| wallet.exempted != Exempted::default()), "{wallets:?}");
    let tables = std::fs::read_dir(directory.path()).expect("it is read").map(|file| file.expect("it is read").path());
    let tables: Vec<_> = tables.filter(|path| path.to_string_lossy().ends_with(".tables.sqlite")).collect();
    let mut file = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&tables[0])).await.expect("it opens");
    for back in [
        "ALTER TABLE wallets DROP COLUMN exempted_payments",
        "ALTER TABLE wallets DROP COLUMN exempted_minor",
        "DELETE FROM _sqlx_migrations WHERE version = 4",
    ] {
        sqlx::query(back).execute(&mut file).await.expect("it is as it was");
    }
    file.close().await.expect("it closes");

    let store = sqlite::open(directory.path(), &identity()).await.expect("it opens");
    for ((user, currency), wallet) in wallets {
        let found = store.tables.wallets(user).await.expect("they are read");
        let found = found.into_iter().find(|(each, _)| *each == currency).expect("it is there").1;
        assert_eq!(found, Wallet { exempted: Exempted::default(), ..wallet }, "{user} in {currency}");
    }
    store.tables.close().await;
}

/// Charges had no mandates, and no exemption that was turned down.
#[test]
fn charges_without_mandates_are_read_and_written_as_they_were() {
    let mut read = 0;
    for (position, entry) in Stream::with(5, 800).committed() {
        let (open, mut sealed) = (codec::open(entry, position.sequence), codec::sealed(entry, position.sequence));
        let without = |charge: pb::Charge| pb::Charge { mandate: None, under: None, turned_down: None, ..charge };
        let (charge, before) = (sealed.charge.take().map(without), sealed.charge_before.take().map(without));
        let steps = [pb::CardStep::ExemptionRefused, pb::CardStep::MandateCancelled];
        let newer = |body: &pb::entry_open::Body| match body {
            pb::entry_open::Body::CardStepped(stepped) => steps.contains(&stepped.step()),
            _ => false,
        };
        if charge.is_none() || open.body.as_ref().is_some_and(newer) {
            continue;
        }
        let earlier = pb::EntrySealed { charge, charge_before: before, ..sealed };
        let (open, sealed) = (open.encode_to_vec(), earlier.encode_to_vec());
        let found = codec::decode(StoredEntry { open: &open, sealed: &sealed }, position.sequence, &shard()).expect("it is read");
        assert_eq!(codec::sealed(&found, position.sequence), earlier);
        read += 1;
    }
    assert!(read > 100, "{read} entries about cards");
}

/// Nothing was counted towards the fraud rate.
#[tokio::test]
async fn tables_and_entries_of_before_count_nothing_and_those_after_begin() {
    let directory = tempfile::tempdir().expect("a folder");
    let stream = Stream::with(3, 900);
    let (before, after) = stream.committed().split_at(600);
    let old: Vec<Committed> = before.iter().map(|(position, entry)| (position.clone(), Arc::new(uncounted(position, entry)))).collect();
    assert!(before.iter().any(|(_, entry)| entry.counted().is_some()) && old.iter().all(|(_, entry)| entry.counted().is_none()));

    let store = sqlite::open(directory.path(), &identity()).await.expect("it opens");
    store.tables.project(&Projection::of(&old)).await.expect("they are projected");
    store.tables.close().await;
    let tables = std::fs::read_dir(directory.path()).expect("it is read").map(|file| file.expect("it is read").path());
    let tables: Vec<_> = tables.filter(|path| path.to_string_lossy().ends_with(".tables.sqlite")).collect();
    let mut file = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&tables[0])).await.expect("it opens");
    for back in
        ["DROP TABLE monitored_days", "ALTER TABLE cursor DROP COLUMN monitored_since", "DELETE FROM _sqlx_migrations WHERE version = 6"]
    {
        sqlx::query(back).execute(&mut file).await.expect("it is as it was");
    }
    file.close().await.expect("it closes");
    let store = sqlite::open(directory.path(), &identity()).await.expect("it opens");
    assert_eq!(store.tables.books().await.expect("they are read").monitored, Monitored::default());

    // A state that begins with those tables, and one that reads the whole journal, go on alike.
    let mut replayed = Monitored::default();
    let counted = after.iter().filter_map(|(_, entry)| Some((entry.at, *entry.counted()?)));
    counted.for_each(|(at, counted)| replayed.note(at, &counted));
    store.tables.project(&Projection::of(after)).await.expect("they are projected");
    let found = store.tables.books().await.expect("they are read").monitored;
    assert!(found == replayed && found.since().is_some(), "{found:?}");
    store.tables.close().await;
}

/// The entry as a version wrote it that did not count.
fn uncounted(position: &Position, entry: &Entry) -> Entry {
    let (open, mut sealed) = (codec::open(entry, position.sequence), codec::sealed(entry, position.sequence));
    sealed.monitored = None;
    for charge in [&mut sealed.charge, &mut sealed.charge_before].into_iter().flatten() {
        charge.monitoring = None;
    }
    let (open, sealed) = (open.encode_to_vec(), sealed.encode_to_vec());
    codec::decode(StoredEntry { open: &open, sealed: &sealed }, position.sequence, &shard()).expect("it is read")
}

/// Nobody kept a card.
#[tokio::test]
async fn tables_without_payment_methods_begin_with_none_and_take_them_from_then_on() {
    let directory = tempfile::tempdir().expect("a folder");
    let store = sqlite::open(directory.path(), &identity()).await.expect("it opens");
    let stream = Stream::with(3, 600);
    let kept = |(_, entry): &&Committed| matches!(entry.body, Body::MethodAdded { .. });
    let first = stream.committed().iter().position(|committed| kept(&committed)).expect("somebody keeps a card");
    store.tables.project(&stream.projection(0, first)).await.expect("they are projected");
    store.tables.close().await;
    let tables = std::fs::read_dir(directory.path()).expect("it is read").map(|file| file.expect("it is read").path());
    let tables: Vec<_> = tables.filter(|path| path.to_string_lossy().ends_with(".tables.sqlite")).collect();
    let mut file = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&tables[0])).await.expect("it opens");
    for back in ["DROP TABLE methods", "DELETE FROM _sqlx_migrations WHERE version = 5"] {
        sqlx::query(back).execute(&mut file).await.expect("it is as it was");
    }
    file.close().await.expect("it closes");

    let store = sqlite::open(directory.path(), &identity()).await.expect("it opens");
    let users = stream.records().users;
    for (user, _) in &users {
        assert_eq!(store.tables.methods(*user).await.expect("they are read"), [], "{user}");
    }
    store.tables.project(&stream.projection(first, 600)).await.expect("they are projected");
    let mut methods = Vec::new();
    for (user, _) in users {
        methods.extend(store.tables.methods(user).await.expect("they are read").into_iter().map(|method| (user, method)));
    }
    assert!(!methods.is_empty());
    assert_eq!(methods, stream.records().methods);
    store.tables.close().await;
}
