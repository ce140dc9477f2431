//! Looks through everything that is kept, while the log is written.

use paymesh_contract::audit::v1::{ChainBegun, LetGo, LogNote, log_note::Event};
use paymesh_types::Sequence;
use prost::Message;

use crate::{
    Damage, Hash, Log, ReadError, State, Unavailable,
    files::{file_name, in_chain},
    format::{HASH_BYTES, Link},
    mark::MARK,
    walk::{Step, Walk},
};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The number of the chain.
    pub chain: u32,
    /// The first record that is kept.
    pub first: Sequence,
    /// The last that was checked and is what was written.
    pub last: Sequence,
    /// The end of the log when it was begun to be checked, as the node has it in memory.
    pub head: Link,
    /// The hash of the record that was asked for, where it was among those that were checked.
    pub hash_at: Option<Hash>,
    /// What is wrong, first with the chains that were set aside before.
    pub damages: Vec<Damage>,
}

/// Of a record, what the log says of itself.
#[derive(Clone, PartialEq, Message)]
struct OnlyNote {
    #[prost(message, optional, tag = "14")]
    note: Option<LogNote>,
}

/// What was seen on the way.
#[derive(Default)]
struct Seen {
    /// The hash of the record that was asked for.
    hash_at: Option<Hash>,
    /// What the chain begins with, where it is kept from its beginning.
    start: Option<Link>,
    /// Up to where the log says that it has let go of records.
    let_go: Option<Link>,
}

impl Log {
    /// Checks every record that is kept and was durable when this was called, the chain from one to the next, and that what is not kept was let
    /// go of. Blocking; the log is written meanwhile. `progress` is told the last record that was checked, and the last there will be. Where
    /// damage is found, the chain is set aside, and the log goes on with another.
    ///
    /// # Errors
    /// The log is not open, or its files cannot be read.
    pub fn verify(&self, at: Sequence, mut progress: impl FnMut(Sequence, Sequence)) -> Result<Report, ReadError> {
        loop {
            let state = self.state();
            if state.chain == 0 {
                return Err(ReadError::Unavailable(Unavailable::Opening));
            }
            let mut damages = self.shared.directory.set_aside(state.chain)?;
            let mut seen = Seen::default();
            let (last, damage) = self.check(&state, at, &mut seen, &mut progress)?;
            let now = self.state();
            if damage.is_some() && (now.chain, now.origin) != (state.chain, state.origin) {
                // Files went while they were read.
                continue;
            }
            if let Some(damage) = damage {
                self.shared.queue.found(damage.clone());
                damages.push(damage);
            }
            let first = state.origin.sequence.next();
            return Ok(Report { chain: state.chain, first, last, head: state.head, hash_at: seen.hash_at, damages });
        }
    }

    /// Checks a chain up to its head; gives the last record that is what was written, and what is wrong with the next.
    fn check(
        &self,
        state: &State,
        at: Sequence,
        seen: &mut Seen,
        progress: &mut impl FnMut(Sequence, Sequence),
    ) -> Result<(Sequence, Option<Damage>), ReadError> {
        let State { chain, origin, head, .. } = *state;
        let mut link = origin;
        let mut before = None;
        while link.sequence < head.sequence {
            // Each file is named by the record that comes next.
            let first = link.sequence.next();
            let damage = |sequence, what| Ok((link.sequence, Some(Damage { file: file_name(chain, first), sequence, what })));
            let mut walk = match Walk::open(&self.shared.directory.file(chain, first), &self.shared.owner, chain) {
                Ok(Ok(walk)) => walk,
                Ok(Err(what)) => return damage(first, what),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    // Whether a file is gone, or the one before it was longer, is not to be told.
                    let file = file_name(chain, before.unwrap_or(first));
                    let what = "it is missing: the file ends before it, or is gone".to_owned();
                    return Ok((link.sequence, Some(Damage { file, sequence: first, what })));
                }
                Err(error) => return Err(error.into()),
            };
            if walk.header().previous != link {
                return damage(first, "it does not continue what comes before it".to_owned());
            }
            while walk.last().sequence < head.sequence {
                let (last, next) = (walk.last().sequence, walk.last().sequence.next());
                let damage = |what| Ok((last, Some(Damage { file: file_name(chain, first), sequence: next, what })));
                match walk.step()? {
                    Step::Record(at_record, payload) => {
                        if let Err(error) = seen.note(&self.shared.owner, at, at_record, payload) {
                            return damage(format!("it is no audit record: {error}"));
                        }
                        progress(at_record.sequence, head.sequence);
                    }
                    Step::Broken(what) => return damage(what),
                    Step::End if last < first => return damage("there is no record in the file".to_owned()),
                    Step::End => break,
                }
            }
            link = walk.last();
            before = Some(first);
        }
        if link != head {
            let what = "it is not the record that was written".to_owned();
            return Ok((Sequence(head.sequence.0 - 1), Some(Damage { file: in_chain(chain, MARK), sequence: head.sequence, what })));
        }
        // A log whose oldest files are gone says itself that they went.
        let told = |link: Option<Link>| link.is_some_and(|link| link == origin);
        if !told(seen.start) && !told(seen.let_go) && seen.let_go.is_none_or(|told| told.sequence < origin.sequence) {
            let what = format!("records up to {} are gone, and no record says that they were let go of", origin.sequence);
            return Ok((head.sequence, Some(Damage { file: in_chain(chain, MARK), sequence: origin.sequence, what })));
        }
        Ok((head.sequence, None))
    }
}

impl Seen {
    fn note(&mut self, owner: &crate::format::Owner, at: Sequence, link: Link, payload: &[u8]) -> Result<(), prost::DecodeError> {
        if link.sequence == at {
            self.hash_at = Some(link.hash);
        }
        let hash = |bytes: &[u8]| bytes.try_into().unwrap_or([0; HASH_BYTES]);
        match OnlyNote::decode(payload)?.note.and_then(|note| note.event) {
            Some(Event::ChainBegun(ChainBegun { chain, after_sequence, after_hash, .. })) => {
                self.start = Some(owner.start(chain, Link { sequence: Sequence(after_sequence), hash: hash(&after_hash) }));
            }
            Some(Event::LetGo(LetGo { through_sequence, through_hash })) => {
                self.let_go = Some(Link { sequence: Sequence(through_sequence), hash: hash(&through_hash) });
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::Arc,
        time::{Duration, Instant},
    };

    use paymesh_types::Timestamp;
    use tonic::Code;

    use super::*;
    use crate::{
        Caller, Outcome, Record, Settings,
        files::Directory,
        format::{HEADER_BYTES, Owner, put_frames, put_record},
        mark::{Mark, Marked},
    };

    fn settings() -> Settings {
        let settings = Settings::new("test", "eu_west".parse().expect("a region"), "1", Arc::new(|| Timestamp(1)));
        Settings { file_bytes_max: 400, linger: Duration::from_millis(1), ..settings }
    }

    /// Opens the log, has something done to it, and closes it.
    fn with_log<T>(path: &std::path::Path, work: impl FnOnce(&Log) -> T) -> T {
        let (log, writer) = Log::open(path, settings());
        let writing = std::thread::spawn(move || writer.run());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(log.settled());
        let done = work(&log);
        runtime.block_on(log.close());
        writing.join().expect("it did not die").expect("everything is written");
        done
    }

    fn owner() -> Owner {
        Owner { mesh: "test".to_owned(), region: "eu_west".parse().expect("a region") }
    }

    fn record(log: &Log, times: usize) {
        for _ in 0..times {
            let slot = log.reserve(Record::new(Timestamp(1), Caller::PlainText, None)).expect("a slot");
            slot.record(Outcome::new(Code::Ok, "", Duration::ZERO));
            std::thread::sleep(Duration::from_millis(3));
        }
        // What is written by then is all that a test is about.
        let until = Instant::now() + Duration::from_secs(30);
        while log.state().head.sequence < Sequence(times as u64) {
            assert!(Instant::now() < until, "{:?} of {times}", log.state().head.sequence);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// As one who knows the format rewrites a file: each record says something else, and every hash in it fits.
    fn forge(path: &std::path::Path) {
        let mut walk = Walk::open(path, &owner(), 1).expect("it is there").expect("it is whole");
        let (header, mut link) = walk.header().encode(&owner());
        let mut queued = Vec::new();
        while let Step::Record(_, payload) = walk.step().expect("it can be read") {
            // A field that no record has, with 1 in it.
            put_record(&mut queued, &[payload, &[0xc0, 0x0c, 1]].concat());
        }
        let mut bytes = header.to_vec();
        put_frames(&mut bytes, &queued, &mut link);
        fs::write(path, bytes).expect("it can be written");
    }

    /// What no hash inside a file can show is shown by what comes after it: the next file, and at the end what the node has in memory.
    #[test]
    fn a_file_that_is_forged_with_hashes_that_fit_is_found_by_what_comes_after_it() {
        for (what, wanted) in [
            ("a file", "it does not continue what comes before it"),
            ("the last file", "it is not the record that was written"),
            ("a file without records", "there is no record in the file"),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("audit");
            let files = Directory::new(path.clone());
            let (report, placed) = with_log(&path, |log| {
                record(log, 20);
                let firsts = files.files(1).expect("the chain is there");
                let (middle, last) = (firsts.len() / 2, firsts.len() - 1);
                assert!((1..last).contains(&middle), "{firsts:?}");
                assert_eq!(log.verify(Sequence(0), |_, _| {}).expect("it can be read").damages, []);
                let placed = match what {
                    "a file" => {
                        forge(&files.file(1, firsts[middle]));
                        (file_name(1, firsts[middle + 1]), firsts[middle + 1])
                    }
                    "the last file" => {
                        forge(&files.file(1, firsts[last]));
                        (in_chain(1, MARK), log.state().head.sequence)
                    }
                    _ => {
                        let file = fs::File::options().write(true).open(files.file(1, firsts[middle])).expect("it can be opened");
                        file.set_len(HEADER_BYTES as u64).expect("it can be cut");
                        (file_name(1, firsts[middle]), firsts[middle])
                    }
                };
                (log.verify(Sequence(0), |_, _| {}).expect("it can be read"), placed)
            });
            let [Damage { file, sequence, what: found }] = &report.damages[..] else { panic!("{what}: {report:?}") };
            assert_eq!(((file.clone(), *sequence), &**found), (placed, wanted), "{what}");
        }
    }

    /// Whoever removes the oldest file and has the mark say that it was let go of has written no record of that.
    #[test]
    fn a_beginning_that_went_without_a_word_is_missed_also_where_the_mark_fits() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit");
        with_log(&path, |log| record(log, 20));
        let files = Directory::new(path.clone());
        let firsts = files.files(1).expect("the chain is there");
        assert!(firsts.len() > 2, "{firsts:?}");
        let second = Walk::open(&files.file(1, firsts[1]), &owner(), 1).expect("it is there").expect("it is whole");
        let origin = second.header().previous;
        let mut mark = Mark::open(&files.chain(1), &owner(), 1).expect("it can be read").expect("it is whole");
        mark.say(Marked { origin, ..mark.said() }).expect("it can be written");
        fs::remove_file(files.file(1, firsts[0])).expect("it can be removed");
        let report = with_log(&path, |log| log.verify(Sequence(0), |_, _| {}).expect("it can be read"));
        assert_eq!((report.chain, report.damages.len()), (1, 1), "{report:?}");
        let Damage { file, sequence, what } = &report.damages[0];
        assert_eq!((&**file, *sequence), ("chain-00001/mark", origin.sequence));
        assert!(what.contains("no record says"), "{what}");
    }
}
