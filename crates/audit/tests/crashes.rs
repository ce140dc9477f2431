//! Processes that are killed, and disks that are full: real ones.

#![forbid(unsafe_code)]

mod support;

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use paymesh_audit::{Settings, Standing, Unavailable};
use paymesh_contract::audit::v1::log_note::Event;
use paymesh_types::Sequence;

use support::{Hand, Running, block_on, call, good, read_all, settings, users, wait_for};

/// Where a process of its own finds its directory.
const DIRECTORY: &str = "PAYMESH_AUDIT_TEST_DIRECTORY";
/// And with which user it begins.
const FIRST: &str = "PAYMESH_AUDIT_TEST_FIRST";
const ROUNDS: u64 = 6;

/// This program again, running one test that is a process of its own.
fn again(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).env(DIRECTORY, directory);
    command
}

fn given_directory() -> PathBuf {
    env::var_os(DIRECTORY).expect("it is run by another test").into()
}

fn small(clock: &Hand) -> Settings {
    Settings { file_bytes_max: 30_000, ..settings(clock) }
}

/// Says of each user on a line of its own when the record is durable; never ends.
#[test]
#[ignore = "a process of its own, run and killed by another test"]
fn writes_until_it_is_killed() {
    let running = Arc::new(Running::open(&given_directory(), small(&Hand::default())));
    let next = Arc::new(AtomicU64::new(env::var(FIRST).expect("it is given").parse().expect("a number")));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (running, next) = (running.clone(), next.clone());
            std::thread::spawn(move || {
                loop {
                    // Some that nobody waits for, between those that somebody does.
                    for _ in 0..20 {
                        running.log.reserve(call(next.fetch_add(1, Ordering::Relaxed))).expect("a slot").record(good());
                    }
                    let user = next.fetch_add(1, Ordering::Relaxed);
                    block_on(running.log.reserve(call(user)).expect("a slot").record_durably(good())).expect("it is durable");
                    let mut out = std::io::stdout().lock();
                    out.write_all(format!("\ndurable {user}\n").as_bytes()).and_then(|()| out.flush()).expect("somebody reads");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it does not die"));
}

#[test]
fn what_was_said_to_be_durable_is_there_after_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut said = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut writer = again("writes_until_it_is_killed", directory.path())
            .env(FIRST, (1 + round * 1_000_000).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(writer.stdout.take().expect("its output")).lines();
        // So that it is killed at another moment each time.
        let enough = 20 + round as usize * 17;
        let mut told = 0;
        while told < enough {
            let line = lines.next().expect("it goes on").expect("it can be read");
            if let Some(user) = line.strip_prefix("durable ") {
                said.insert(user.parse::<u64>().expect("a user"));
                told += 1;
            }
        }
        writer.kill().expect("it can be killed");
        writer.wait().expect("it ends");
        // What it had said before it was killed, and nobody had read.
        for line in lines.map_while(Result::ok) {
            said.extend(line.strip_prefix("durable ").and_then(|user| user.parse::<u64>().ok()));
        }
        let running = Running::open(directory.path(), small(&Hand::default()));
        let report = running.log.verify(Sequence(0), |_, _| {}).expect("it can be read");
        assert_eq!((report.chain, report.damages), (1, vec![]), "round {round}");
        let kept: Vec<u64> = users(&running.log);
        let once: BTreeSet<u64> = kept.iter().copied().collect();
        assert_eq!(kept.len(), once.len(), "no record is there twice");
        let lost: Vec<_> = said.difference(&once).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        running.close().expect("everything is written");
    }
    assert!(said.len() > 100);
}

/// Fills the disk up to `left` bytes.
fn fill(path: &Path, left: u64) {
    let mut file = File::create(path).expect("it can be made");
    loop {
        match file.write_all(&[0; 4 << 10]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => panic!("{error}"),
        }
    }
    let length = file.metadata().expect("it is there").len();
    file.set_len(length - left).expect("it can be cut");
}

#[test]
#[ignore = "a process of its own, run on a small disk by another test"]
fn fills_its_disk() {
    let directory = given_directory();
    let running = Running::open(&directory, small(&Hand::default()));
    let ballast = directory.join("ballast");
    fill(&ballast, 40 << 10);
    let mut taken = Vec::new();
    let refused = loop {
        let user = taken.len() as u64 + 1;
        assert!(user < 100_000, "the disk does not fill up");
        match running.log.reserve(call(user)) {
            Ok(slot) => {
                slot.record(good());
                taken.push(user);
            }
            Err(why) => break why,
        }
        if user.is_multiple_of(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    assert_eq!(refused, Unavailable::Failing);
    let Standing::Failing(why) = running.log.state().standing else { panic!("{:?}", running.log.state()) };
    assert!(why.contains("No space left"), "{why}");
    for _ in 0..9 {
        assert_eq!(running.log.reserve(call(1_000_000)).map(drop), Err(Unavailable::Failing));
        running.log.refused(Unavailable::Failing);
    }
    running.log.refused(refused);
    fs::remove_file(&ballast).expect("it can be removed");
    wait_for(&running.log, |state| state.standing == Standing::Open);
    running.record([500_000]);
    // What had a slot when the disk was full is there, and no call that was refused.
    taken.push(500_000);
    assert_eq!(users(&running.log), taken);
    let refused = |record: paymesh_contract::audit::v1::AuditRecord| match record.note?.event? {
        Event::CallsRefused(refused) => Some(refused.calls),
        _ => None,
    };
    assert_eq!(read_all(&running.log).into_iter().filter_map(refused).sum::<u64>(), 10);
    let report = running.log.verify(Sequence(0), |_, _| {}).expect("it can be read");
    assert_eq!((report.chain, report.damages), (1, vec![]));
    running.close().expect("everything is written");

    // One that leaves while the disk is full says what is lost.
    let running = Running::open(&directory, small(&Hand::default()));
    fill(&ballast, 0);
    let slots: Vec<_> = (1..=300).map_while(|user| running.log.reserve(call(user)).ok()).collect();
    let count = slots.len();
    slots.into_iter().for_each(|slot| slot.record(good()));
    wait_for(&running.log, |state| matches!(state.standing, Standing::Failing(_)));
    let unwritten = running.close().expect_err("there is no room");
    assert!(unwritten.records > 0 && unwritten.records <= count, "{unwritten}");
    fs::remove_file(&ballast).expect("it can be removed");
    let running = Running::open(&directory, small(&Hand::default()));
    let report = running.log.verify(Sequence(0), |_, _| {}).expect("it can be read");
    assert_eq!((report.chain, report.damages), (1, vec![]), "what was written in part is cut");
    running.close().expect("everything is written");
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that did not happen says so")]
fn a_full_disk_refuses_calls_loses_no_record_and_takes_them_again_when_there_is_room() {
    let directory = tempfile::tempdir().expect("a directory");
    let on_a_disk = |program: &Command| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "--", "sh", "-c"]);
        command.arg("mount -t tmpfs -o size=4m paymesh-test \"$0\" && exec \"$@\"").arg(directory.path());
        command.arg(program.get_program()).args(program.get_args()).env(DIRECTORY, directory.path());
        command
    };
    if !on_a_disk(&Command::new("true")).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine gives no mount namespace, so there is no small disk to fill");
        return;
    }
    let ended = on_a_disk(&again("fills_its_disk", directory.path())).output().expect("it runs");
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&said));
}
