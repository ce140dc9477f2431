//! Whatever happens to a log's files is recognised for what it is: a record that a crash has left in part is cut, and everything else is named
//! by file and record and kept, while the node goes on in another chain.

#![forbid(unsafe_code)]

mod support;

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use paymesh_audit::{Condition, Damage, Log, ReadError, Settings, Standing};
use paymesh_contract::audit::v1::log_note::Event;
use paymesh_types::Sequence;
use proptest::prelude::*;
use tempfile::TempDir;

use support::{FRAME_BYTES, HEADER_BYTES, Hand, Running, copy, files, name, read_all, settings, users, wait_for};

/// A record in a file.
#[derive(Debug, Clone, Copy)]
struct Place {
    sequence: u64,
    start: usize,
    end: usize,
}

/// Where a file's records are, by what the format says of it.
fn places(path: &Path) -> Vec<Place> {
    let bytes = fs::read(path).expect("it can be read");
    let mut sequence: u64 = path.file_stem().expect("a name").to_str().expect("a name").parse().expect("a number");
    let mut places = Vec::new();
    let mut start = HEADER_BYTES;
    while start < bytes.len() {
        let length = u32::from_le_bytes(bytes[start..start + 4].try_into().expect("four bytes")) as usize;
        let end = start + length + FRAME_BYTES;
        places.push(Place { sequence, start, end });
        (start, sequence) = (end, sequence + 1);
    }
    places
}

/// The record that a byte of a file belongs to; of the header, the first.
fn record_at(path: &Path, byte: usize) -> u64 {
    let places = places(path);
    places.iter().find(|place| byte < place.end).map_or_else(|| places[0].sequence, |place| place.sequence)
}

fn few(clock: &Hand) -> Settings {
    Settings { file_bytes_max: 900, ..settings(clock) }
}

/// A log of some files, as a node leaves it that was killed: everything is durable, and nothing was closed.
fn killed(users: u64) -> TempDir {
    let (running, left) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let writer = Running::open(running.path(), few(&Hand::default()));
    for user in 1..=users {
        writer.record([user]);
    }
    copy(running.path(), left.path());
    writer.close().expect("everything is written");
    left
}

/// What a start and a look through everything find to be wrong.
fn found(log: &Log) -> Vec<Damage> {
    log.verify(Sequence(0), |_, _| {}).expect("it can be read").damages
}

/// Opens the log and holds it to what has to be found; then everything has to go on, and be well once the evidence was moved away.
fn assert_found(directory: &Path, file: &str, sequence: u64, why: &str) -> Result<(), TestCaseError> {
    let before: Vec<(PathBuf, Vec<u8>)> =
        files(directory, 1).into_iter().map(|path| (path.clone(), fs::read(path).expect("it can be read"))).collect();
    let running = Running::open(directory, few(&Hand::default()));
    let damages = found(&running.log);
    prop_assert_eq!(damages.len(), 1, "{}: {:?}", why, damages);
    prop_assert_eq!((&*damages[0].file, damages[0].sequence), (file, Sequence(sequence)), "{}: {}", why, damages[0]);
    // It goes on in another chain, whose first record says why.
    let state = wait_for(&running.log, |state| state.chain == 2);
    running.record([1_000]);
    let records = read_all(&running.log);
    let Some(Event::ChainBegun(begun)) = records[0].note.clone().and_then(|note| note.event) else { panic!("{records:?}") };
    prop_assert_eq!((begun.chain, begun.after_sequence + 1), (2, records[0].sequence));
    prop_assert_eq!(begun.damage.map(|damage| (damage.file, damage.sequence)), Some((file.to_owned(), sequence)));
    prop_assert!(users(&running.log).ends_with(&[1_000]) && state.origin.sequence.0 == begun.after_sequence);
    prop_assert!(matches!(running.log.condition(), Condition::Fails(why) if why.contains(file)));
    // A look at what is written now finds only what was set aside, also after a restart.
    prop_assert_eq!(found(&running.log), damages.clone());
    running.close().expect("everything is written");
    let running = Running::open(directory, few(&Hand::default()));
    prop_assert_eq!(found(&running.log), damages);
    // Not a byte of the evidence is touched.
    for (path, bytes) in before {
        prop_assert!(fs::read(&path).expect("it is kept").starts_with(&bytes), "{}", path.display());
    }
    fs::rename(directory.join("audit/chain-00001"), directory.join("evidence")).expect("it can be moved");
    prop_assert_eq!(found(&running.log), vec![]);
    prop_assert_eq!(running.log.condition(), Condition::Good);
    running.close().expect("everything is written");
    Ok(())
}

/// Opens the log and finds nothing wrong with it; says how many bytes were cut.
fn assert_sound(directory: &Path, wanted: &[u64]) -> u64 {
    let running = Running::open(directory, few(&Hand::default()));
    assert_eq!(found(&running.log), []);
    assert_eq!(running.log.state().chain, 1);
    assert_eq!(users(&running.log), wanted);
    let opened = read_all(&running.log).into_iter().rev().find_map(|record| match record.note?.event? {
        Event::Opened(opened) => Some(opened.cut_bytes),
        _ => None,
    });
    running.record([2_000]);
    running.close().expect("everything is written");
    opened.expect("it says that it was opened")
}

fn flip(path: &Path, byte: usize, bit: u8) {
    let file = fs::File::options().read(true).write(true).open(path).expect("it can be opened");
    let mut at = [0];
    file.read_exact_at(&mut at, byte as u64).expect("there is a byte");
    file.write_all_at(&[at[0] ^ (1 << bit)], byte as u64).expect("it can be written");
}

fn truncate(path: &Path, length: usize) {
    fs::File::options().write(true).open(path).expect("it can be opened").set_len(length as u64).expect("it can be cut");
}

/// Each case opens a log some times: fewer than usual, unless many are asked for.
fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { 24 },
        failure_persistence: None,
        ..usual
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_record_that_a_crash_has_left_in_part_is_cut_and_nothing_that_was_durable(users in 1..12u64, part: prop::sample::Index, kind in 0..3) {
        let left = killed(users);
        let last = files(left.path(), 1).pop().expect("a file");
        let bytes = fs::read(&last).expect("it can be read");
        let place = *places(&last).last().expect("a record");
        // The last record once more is a record whose hash does not fit; its beginning one that is cut off; zeros a block that was not written.
        let mut torn = bytes[place.start..place.end].to_vec();
        match kind {
            0 => torn.truncate(1 + part.index(torn.len() - 1)),
            1 => torn = vec![0; 1 + part.index(600)],
            _ => {}
        }
        fs::write(&last, [&bytes[..], &torn].concat()).expect("it can be written");
        let cut = assert_sound(left.path(), &(1..=users).collect::<Vec<_>>());
        prop_assert_eq!(cut, torn.len() as u64);
    }

    #[test]
    fn a_last_file_that_was_cut_anywhere_is_damaged_there(users in 1..12u64, length: prop::sample::Index) {
        let left = killed(users);
        let last = files(left.path(), 1).pop().expect("a file");
        let places = places(&last);
        let length = length.index(places.last().expect("a record").end);
        let first_lost = places.iter().find(|place| place.end > length).expect("one is lost").sequence;
        truncate(&last, length);
        assert_found(left.path(), &name(&last), first_lost, &format!("cut to {length} bytes"))?;
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found_and_placed(users in 1..12u64, file: prop::sample::Index, byte: prop::sample::Index, bit in 0..8u8) {
        let left = killed(users);
        let file = file.get(&files(left.path(), 1)).clone();
        let byte = byte.index(fs::metadata(&file).expect("it is there").len() as usize);
        let record = record_at(&file, byte);
        flip(&file, byte, bit);
        assert_found(left.path(), &name(&file), record, &format!("bit {bit} of byte {byte}"))?;
    }

    #[test]
    fn a_missing_file_is_found_and_named_by_the_one_before_it(users in 9..16u64, file: prop::sample::Index) {
        let left = killed(users);
        let all = files(left.path(), 1);
        let file = file.index(all.len());
        let lost = places(&all[file])[0].sequence;
        fs::remove_file(&all[file]).expect("it can be removed");
        let named = &all[file.saturating_sub(1)];
        assert_found(left.path(), &name(named), lost, "a file is missing")?;
    }

    #[test]
    fn two_files_that_have_changed_places_are_found(users in 9..16u64, one: prop::sample::Index, other: prop::sample::Index) {
        let left = killed(users);
        let all = files(left.path(), 1);
        let (one, other) = (one.index(all.len()), other.index(all.len()));
        prop_assume!(one != other);
        let first = places(&all[one.min(other)])[0].sequence;
        let aside = left.path().join("aside");
        for (from, to) in [(&all[one], &aside), (&all[other], &all[one]), (&aside, &all[other])] {
            fs::rename(from, to).expect("it can be renamed");
        }
        assert_found(left.path(), &name(&all[one.min(other)]), first, "two files have changed places")?;
    }

    #[test]
    fn an_old_copy_of_a_file_is_found_where_it_ends(users in 6..12u64, file: prop::sample::Index, records: prop::sample::Index) {
        let left = killed(users);
        let file = file.get(&files(left.path(), 1)).clone();
        prop_assume!(self::places(&file).len() > 1);
        let places = places(&file);
        // As it was after so many of its records, one at least: a file is not there without.
        let kept = 1 + records.index(places.len() - 1);
        truncate(&file, places[kept].start);
        assert_found(left.path(), &name(&file), places[kept].sequence, "an old copy of a file")?;
    }

    #[test]
    fn one_bit_of_the_mark_does_no_harm_and_a_mark_that_is_gone_is_damage(users in 1..8u64, byte in 0..120usize, bit in 0..8u8, second: bool) {
        let left = killed(users);
        let mark = left.path().join("audit/chain-00001/mark");
        flip(&mark, byte + if second { 4096 } else { 0 }, bit);
        let wanted: Vec<u64> = (1..=users).collect();
        prop_assert_eq!(assert_sound(left.path(), &wanted), 0);

        let left = killed(users);
        let mark = left.path().join("audit/chain-00001/mark");
        flip(&mark, byte, bit);
        flip(&mark, byte + 4096, bit);
        assert_found(left.path(), "chain-00001/mark", 1, "both places of the mark are wrong")?;
        let left = killed(users);
        fs::remove_file(left.path().join("audit/chain-00001/mark")).expect("it can be removed");
        assert_found(left.path(), "chain-00001/mark", 1, "there is no mark")?;
    }
}

#[test]
fn another_nodes_log_is_not_taken_for_ones_own() {
    let left = killed(3);
    let theirs = Settings { region: "us_east".parse().expect("a region"), ..few(&Hand::default()) };
    let running = Running::open(left.path(), theirs);
    assert_eq!(running.log.state().chain, 2);
    assert!(found(&running.log)[0].file.starts_with("chain-00001/"));
    running.close().expect("everything is written");
}

#[test]
fn damage_that_is_found_while_the_log_is_written_sets_the_chain_aside_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let running = Running::open(directory.path(), few(&Hand::default()));
    running.record(1..=30);
    running.record(31..=40);
    let file = files(directory.path(), 1)[0].clone();
    let record = record_at(&file, HEADER_BYTES + 300);
    flip(&file, HEADER_BYTES + 300, 3);
    // A reader is not given what is not what was written.
    let mut reader = running.log.read(Sequence(1)).expect("it is kept");
    assert!(matches!(reader.batch(), Err(ReadError::Damaged(damage)) if damage.sequence == Sequence(record) && damage.file == name(&file)));
    // Who had read beyond it follows on, over the end of the chain.
    let mut follower = running.log.read(Sequence(35)).expect("it is kept");
    let head = running.log.state().head;
    let damages = found(&running.log);
    assert_eq!((&*damages[0].file, damages[0].sequence), (&*name(&file), Sequence(record)));
    let state = wait_for(&running.log, |state| state.chain == 2);
    assert_eq!(state.origin.sequence, head.sequence, "the new chain comes right after the last record of the old one");
    running.record(41..=60);
    let mut seen = Vec::new();
    while let Some(last) = {
        let batch = follower.batch().expect("it can be read");
        seen.extend(batch.records);
        seen.last().map(|record| record.sequence)
    } && last < running.log.state().head.sequence.0
    {}
    assert!(seen.iter().map(|record| record.sequence).eq(35..=running.log.state().head.sequence.0), "without gaps");
    let report = running.log.verify(Sequence(0), |_, _| {}).expect("it can be read");
    assert_eq!((report.damages, report.chain), (damages, 2));
    running.close().expect("everything is written");
}

#[test]
fn a_file_that_is_deleted_or_replaced_under_the_running_node_is_noticed() {
    for how in ["deleted", "replaced", "mark", "all"] {
        let directory = tempfile::tempdir().expect("a directory");
        let running = Running::open(directory.path(), settings(&Hand::default()));
        running.record([1]);
        let file = files(directory.path(), 1)[0].clone();
        let before = running.log.state();
        match how {
            "deleted" => fs::remove_file(&file).expect("it can be removed"),
            "replaced" => {
                fs::copy(&file, directory.path().join("copy")).expect("it can be copied");
                fs::rename(directory.path().join("copy"), &file).expect("it can be replaced");
            }
            "mark" => fs::remove_file(file.with_file_name("mark")).expect("it can be removed"),
            _ => fs::remove_dir_all(directory.path().join("audit")).expect("it can be removed"),
        }
        wait_for(&running.log, |state| state.origin != before.origin);
        running.record([2]);
        let records = read_all(&running.log);
        let Some(Event::ChainBegun(begun)) = records[0].note.clone().and_then(|note| note.event) else { panic!("{records:?}") };
        assert_eq!(begun.after_sequence, before.head.sequence.0, "{how}");
        assert!(begun.damage.expect("it says why").problem.contains("deleted or replaced"), "{how}");
        assert_eq!(users(&running.log), [2]);
        running.close().expect("everything is written");
    }
}

#[test]
fn a_log_that_was_found_to_be_damaged_stays_so_when_the_node_ends_before_another_begins() {
    let left = killed(3);
    fs::write(left.path().join("audit/chain-00001.damaged"), "2 chain-00001/x.log it was changed\n").expect("it can be written");
    let running = Running::open(left.path(), settings(&Hand::default()));
    assert_eq!(
        found(&running.log),
        [Damage { file: "chain-00001/x.log".to_owned(), sequence: Sequence(2), what: "it was changed".to_owned() }]
    );
    assert_eq!(running.log.state().chain, 2);
    running.close().expect("everything is written");
}

#[test]
fn a_chain_that_was_half_made_when_the_node_ended_is_made_again() {
    let left = killed(3);
    copy(&left.path().join("audit/chain-00001"), &left.path().join("audit/chain-00002.new"));
    fs::remove_file(left.path().join("audit/chain-00001/mark")).expect("it can be removed");
    let running = Running::open(left.path(), settings(&Hand::default()));
    assert_eq!((running.log.state().chain, found(&running.log).len()), (2, 1));
    running.close().expect("everything is written");
}

#[test]
fn a_file_that_a_crash_has_left_without_its_header_is_no_loss() {
    for bytes in [0, 40, HEADER_BYTES] {
        let left = killed(9);
        let last = files(left.path(), 1).pop().expect("a file");
        let next = places(&last).last().expect("a record").sequence + 1;
        fs::write(last.with_file_name(format!("{next:020}.log")), vec![0; bytes]).expect("it can be written");
        assert_eq!(assert_sound(left.path(), &(1..=9).collect::<Vec<_>>()), bytes as u64);
    }
}

#[test]
fn what_is_past_its_retention_goes_and_the_rest_stays_verifiable() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Hand::default();
    let bounded = || {
        let mut settings = few(&clock);
        settings.retention.time = Some(Duration::from_secs(3600));
        settings
    };
    let running = Running::open(directory.path(), bounded());
    for user in 1..=20 {
        running.record([user]);
    }
    let all = files(directory.path(), 1).len();
    clock.forward(Duration::from_secs(3000));
    for user in 21..=30 {
        running.record([user]);
    }
    clock.forward(Duration::from_secs(1000));
    let state = wait_for(&running.log, |state| state.origin.sequence.0 > 10);
    let first = state.origin.sequence.next();
    std::thread::sleep(Duration::from_millis(200));
    assert!(files(directory.path(), 1).len() < all + 3);
    let damages = found(&running.log);
    assert_eq!(damages, []);
    assert!(matches!(running.log.read(Sequence(1)), Err(ReadError::NotKept { .. })));
    assert!(running.log.read(first.max(running.log.state().origin.sequence.next())).is_ok());
    running.close().expect("everything is written");

    // Also after a restart; and what is gone without a word is missed.
    let running = Running::open(directory.path(), bounded());
    assert_eq!(found(&running.log), []);
    running.close().expect("everything is written");
    let oldest = files(directory.path(), 1)[0].clone();
    let lost = places(&oldest)[0].sequence;
    fs::remove_file(&oldest).expect("it can be removed");
    assert_found(directory.path(), &name(&oldest), lost, "the oldest file is missing").expect("it is found");
}

#[test]
fn a_log_is_kept_within_its_bytes_and_damaged_files_do_not_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut bounded = few(&Hand::default());
    bounded.retention.bytes = Some(5_000);
    let running = Running::open(directory.path(), bounded.clone());
    for user in 1..=100 {
        running.record([user]);
    }
    wait_for(&running.log, |state| state.origin.sequence.0 > 70);
    assert_eq!(found(&running.log), []);
    running.close().expect("everything is written");

    bounded.retention.bytes = None;
    let running = Running::open(directory.path(), bounded.clone());
    running.record(101..=130);
    for user in 131..=150 {
        running.record([user]);
    }
    running.close().expect("everything is written");
    let oldest = files(directory.path(), 1)[0].clone();
    let record = record_at(&oldest, HEADER_BYTES + 10);
    flip(&oldest, HEADER_BYTES + 10, 0);
    bounded.retention.bytes = Some(2_000);
    let running = Running::open(directory.path(), bounded);
    wait_for(&running.log, |state| state.chain == 2);
    assert!(oldest.exists(), "evidence is not let go of");
    let damages = found(&running.log);
    assert_eq!((&*damages[0].file, damages[0].sequence), (&*name(&oldest), Sequence(record)));
    running.close().expect("everything is written");
}

/// A look at a log that grows and lets go meanwhile must not take that for damage: it would set the chain aside.
#[test]
fn a_log_that_is_written_lets_go_and_is_verified_and_read_all_at_once_is_never_found_to_be_damaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut bounded = few(&Hand::default());
    bounded.retention.bytes = Some(20_000);
    let running = Running::open(directory.path(), bounded);
    let looks: Vec<_> = (0..2)
        .map(|look| {
            let log = running.log.clone();
            std::thread::spawn(move || {
                let mut done = 0;
                while log.state().standing == Standing::Open {
                    if look == 0 {
                        assert_eq!(found(&log), []);
                    } else {
                        // Who reads what goes meanwhile is told so.
                        match log.read(Sequence(0)).and_then(|mut reader| reader.batch()) {
                            Ok(_) | Err(ReadError::NotKept { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut user = 1;
    while running.log.state().origin.sequence.0 < 300 {
        running.record(user..user + 8);
        user += 8;
    }
    let state = running.log.state();
    assert_eq!(state.chain, 1);
    running.close().expect("everything is written");
    let done: Vec<u64> = looks.into_iter().map(|look| look.join().expect("it found nothing wrong")).collect();
    assert!(done.iter().all(|done| *done > 10), "{done:?}");
}
