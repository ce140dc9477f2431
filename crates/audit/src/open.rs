//! What a start finds: a log that goes on, one that is damaged and is set aside, or none.
//!
//! A start looks at what it goes on from: the mark, every file's header, and the records of the last file. What is inside of the files before that
//! is for [`verify`](crate::Log::verify), so that a start does not take longer the longer a log is kept. A record that is not whole, after what the
//! mark says is durable, is what a crash leaves: it is cut. Anything else is damage.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
};

use paymesh_contract::audit::v1::{AuditDamage, ChainBegun, log_note::Event};
use paymesh_types::{Sequence, Timestamp};

use crate::{
    Damage,
    files::{Directory, chain_file_name, file_name, sync_directory},
    format::{HASH_BYTES, Header, Link, Owner, put_frames, put_record},
    mark::{MARK, Mark, Marked},
    record::{note_bytes, problem_text},
    walk::{Step, Walk},
};

/// A file of the chain that is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) header: Header,
    pub(crate) bytes: u64,
}

/// A chain that goes on.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) chain: u32,
    pub(crate) mark: Mark,
    pub(crate) files: VecDeque<Kept>,
    /// Its last record.
    pub(crate) head: Link,
    /// Bytes that a crash had left of a record that was not whole.
    pub(crate) cut: u64,
}

/// Opens the newest chain. One that is damaged is set aside, and another begins; so it does where there is none.
pub(crate) fn open(directory: &Directory, owner: &Owner, now: Timestamp) -> io::Result<Opened> {
    // What is in it is not everybody's.
    DirBuilder::new().recursive(true).mode(0o700).create(directory.path())?;
    if let Some(parent) = directory.path().parent() {
        sync_directory(parent)?;
    }
    loop {
        let Some(chain) = directory.chains()?.pop() else {
            begin(directory, owner, Link::NOTHING, None, now)?;
            continue;
        };
        let verdict = directory.verdict_of(chain)?;
        let (damage, end) = match (examine(directory, owner, chain)?, verdict) {
            (Ok(examined), None) => return examined.settle(directory),
            // It was found to be damaged before, and the node ended before another had begun.
            (Ok(examined), Some(damage)) => (damage, examined.head),
            (Err((_, end)), Some(damage)) => (damage, end),
            (Err((damage, end)), None) => {
                tracing::error!(%damage, "the audit log is damaged: it is set aside, and another chain begins");
                directory.condemn(chain, &damage)?;
                (damage, end)
            }
        };
        begin(directory, owner, end, Some(&damage), now)?;
    }
}

/// Begins a chain after the last record that the one before it is known to have had. It is there as a whole, or not at all.
pub(crate) fn begin(directory: &Directory, owner: &Owner, after: Link, damage: Option<&Damage>, now: Timestamp) -> io::Result<()> {
    let chain = directory.next_chain()?;
    let new = directory.new_chain(chain);
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir(&new)?;
    let start = owner.start(chain, after);
    let header = Header { chain, previous: start, begun_at: now };
    let event = Event::ChainBegun(ChainBegun {
        chain,
        after_sequence: after.sequence.0,
        after_hash: if after.hash == [0; HASH_BYTES] { Vec::new() } else { after.hash.to_vec() },
        damage: damage.map(AuditDamage::from),
    });
    let (bytes, mut link) = header.encode(owner);
    let (mut contents, mut queued) = (bytes.to_vec(), Vec::new());
    put_record(&mut queued, &note_bytes(now, event));
    put_frames(&mut contents, &queued, &mut link);
    let mut file = File::create_new(new.join(chain_file_name(header.first())))?;
    file.write_all(&contents)?;
    file.sync_all()?;
    Mark::create(&new, owner, chain, Marked { origin: start, head: link })?;
    sync_directory(&new)?;
    fs::rename(&new, directory.chain(chain))?;
    sync_directory(directory.path())
}

impl From<&Damage> for AuditDamage {
    fn from(damage: &Damage) -> Self {
        Self { file: damage.file.clone(), sequence: damage.sequence.0, problem: problem_text(&damage.what) }
    }
}

/// A chain that was looked at, and not touched.
#[derive(Debug)]
struct Examined {
    chain: u32,
    mark: Mark,
    files: VecDeque<Kept>,
    head: Link,
    /// Files whose records were let go of before a crash.
    gone: Vec<Sequence>,
    /// A file that a crash has left without its header, and its bytes.
    unborn: Option<(Sequence, u64)>,
    /// Where the last file's records end, and how long it is.
    end: (u64, u64),
}

/// Looks at a chain: it goes on, or what is wrong with it and where it is known to have ended.
fn examine(directory: &Directory, owner: &Owner, chain: u32) -> io::Result<Result<Examined, (Damage, Link)>> {
    let firsts = directory.files(chain)?;
    let mark = Mark::open(&directory.chain(chain), owner, chain)?;
    let said = mark.as_ref().map(Mark::said);
    let damaged = |file: String, sequence: Sequence, what: String| -> io::Result<Result<Examined, (Damage, Link)>> {
        let end = known_end(directory, owner, chain, &firsts, said)?;
        Ok(Err((Damage { file, sequence, what }, end)))
    };
    let first = firsts.first().copied().unwrap_or(Sequence(0));
    let Some(mark) = mark else {
        return damaged(mark_name(chain), first, "what says which records are durable is missing, or is not what was written".to_owned());
    };
    let Marked { origin, head } = mark.said();
    let kept_from = origin.sequence.next();
    let gone: Vec<_> = firsts.windows(2).filter(|pair| pair[1] <= kept_from).map(|pair| pair[0]).collect();
    let mut files = VecDeque::new();
    let mut unborn = None;
    let mut last = None;
    for first in firsts.iter().skip(gone.len()).copied() {
        let path = directory.file(chain, first);
        let bytes = fs::metadata(&path)?.len();
        match Walk::open(&path, owner, chain)? {
            Ok(walk) if walk.header().first() == first => {
                files.push_back(Kept { header: *walk.header(), bytes });
                last = Some((walk, bytes));
            }
            Ok(walk) => {
                return damaged(
                    file_name(chain, first),
                    first,
                    format!("it is the file that begins with record {}", walk.header().first()),
                );
            }
            // Nothing in it was durable, and it is the last.
            Err(_) if first > head.sequence && firsts.last() == Some(&first) && !files.is_empty() => unborn = Some((first, bytes)),
            Err(what) => return damaged(file_name(chain, first), first, what),
        }
    }
    let (Some(Kept { header: oldest, .. }), Some((mut walk, bytes))) = (files.front().copied(), last) else {
        return damaged(file_name(chain, kept_from), kept_from, "there is no file".to_owned());
    };
    if oldest.previous.sequence > origin.sequence {
        let missing = format!("records {kept_from} to {} are missing, and were not let go of", oldest.previous.sequence);
        return damaged(file_name(chain, kept_from), kept_from, missing);
    }
    if oldest.previous != origin {
        return damaged(file_name(chain, oldest.first()), oldest.first(), "it does not come after what was let go of".to_owned());
    }
    let file = file_name(chain, walk.header().first());
    if walk.last().sequence > head.sequence {
        return damaged(
            mark_name(chain),
            head.sequence.next(),
            format!("it says that record {head} is the last, and comes before {file}", head = head.sequence),
        );
    }
    loop {
        let last = walk.last();
        if last.sequence == head.sequence && last.hash != head.hash {
            return damaged(file, head.sequence, "it is not the record that was durable".to_owned());
        }
        let next = last.sequence.next();
        match walk.step()? {
            Step::Record(..) => {}
            Step::End if last.sequence < head.sequence => {
                return damaged(file, next, format!("the file ends before it, and records up to {} were durable", head.sequence));
            }
            Step::Broken(what) if last.sequence < head.sequence => return damaged(file, next, what),
            Step::End | Step::Broken(_) => break,
        }
    }
    let (head, end) = (walk.last(), (walk.at(), bytes));
    Ok(Ok(Examined { chain, mark, files, head, gone, unborn, end }))
}

/// The last record that a chain is known to have had: by its mark, or by its last file.
fn known_end(directory: &Directory, owner: &Owner, chain: u32, firsts: &[Sequence], said: Option<Marked>) -> io::Result<Link> {
    let mut end = said.map_or(Link::NOTHING, |said| said.head);
    if let Some(first) = firsts.last() {
        let walked = match Walk::open(&directory.file(chain, *first), owner, chain)? {
            Ok(mut walk) => {
                while matches!(walk.step()?, Step::Record(..)) {}
                walk.last()
            }
            // Its name says at least how many there were before it.
            Err(_) => Link { sequence: Sequence(first.0.saturating_sub(1)), hash: [0; HASH_BYTES] },
        };
        if walked.sequence > end.sequence {
            end = walked;
        }
    }
    Ok(end)
}

fn mark_name(chain: u32) -> String {
    crate::files::in_chain(chain, MARK)
}

impl Examined {
    /// Finishes what a crash has left half done.
    fn settle(mut self, directory: &Directory) -> io::Result<Opened> {
        let (end, bytes) = self.end;
        let mut cut = bytes - end;
        for first in self.gone.iter().copied().chain(self.unborn.map(|(first, _)| first)) {
            fs::remove_file(directory.file(self.chain, first))?;
        }
        cut += self.unborn.map_or(0, |(_, bytes)| bytes);
        if let Some(last) = self.files.back_mut().filter(|_| bytes > end) {
            let file = File::options().write(true).open(directory.file(self.chain, last.header.first()))?;
            file.set_len(end)?;
            file.sync_all()?;
            last.bytes = end;
        }
        sync_directory(&directory.chain(self.chain))?;
        Ok(Opened { chain: self.chain, mark: self.mark, files: self.files, head: self.head, cut })
    }
}
