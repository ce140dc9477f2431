//! The mark: what of a chain is durable, and where it begins.
//!
//! A file that ends early looks the same whether a crash left it so or somebody cut it. The mark tells them apart: what it says is durable
//! must be there. It is written after each sync of the log, to two places in turn, and synced by itself only now and then: after a crash of
//! the process it is what was said last, after one of the machine at most some seconds older.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use paymesh_types::Sequence;

use crate::format::{HASH_BYTES, Link, Owner, put, take};

/// The mark's name in a chain's directory.
pub(crate) const MARK: &str = "mark";

/// So far from each other that no write of one touches the other's block.
const PLACES: [u64; 2] = [0, 4096];
const MARK_BYTES: usize = 8 + 2 * (8 + HASH_BYTES) + HASH_BYTES;

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marked {
    /// The last record that is not kept, or what the chain begins with.
    pub(crate) origin: Link,
    /// The last record that is durable.
    pub(crate) head: Link,
}

/// The mark of a chain that is written.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    owner: Owner,
    chain: u32,
    /// How often it was written: says which place is the newer.
    turn: u64,
    said: Marked,
    synced: bool,
}

impl Mark {
    /// Makes the mark of a chain that begins, and syncs it.
    pub(crate) fn create(directory: &Path, owner: &Owner, chain: u32, said: Marked) -> io::Result<()> {
        let file = File::options().write(true).create_new(true).open(directory.join(MARK))?;
        let mut mark = Self { file, owner: owner.clone(), chain, turn: 0, said, synced: false };
        // Both places have their room from now on, also on a disk that is full.
        mark.say(said)?;
        mark.say(said)?;
        mark.sync()
    }

    /// Reads a chain's mark; `None` where neither place has what was written.
    pub(crate) fn open(directory: &Path, owner: &Owner, chain: u32) -> io::Result<Option<Self>> {
        let file = match File::options().read(true).write(true).open(directory.join(MARK)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut newest: Option<(u64, Marked)> = None;
        for place in PLACES {
            let mut bytes = [0; MARK_BYTES];
            match file.read_exact_at(&mut bytes, place) {
                Ok(()) => {}
                // The second place is written the second time.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            }
            let read = decode(&bytes, owner, chain);
            newest = newest.into_iter().chain(read).max_by_key(|(turn, _)| *turn);
        }
        Ok(newest.map(|(turn, said)| Self { file, owner: owner.clone(), chain, turn, said, synced: true }))
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn said(&self) -> Marked {
        self.said
    }

    /// Writes it anew. It is durable once it was synced.
    pub(crate) fn say(&mut self, said: Marked) -> io::Result<()> {
        let turn = self.turn + 1;
        let place = PLACES[usize::from(turn.is_multiple_of(2))];
        self.file.write_all_at(&encode(turn, said, &self.owner, self.chain), place)?;
        (self.turn, self.said, self.synced) = (turn, said, false);
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if !self.synced {
            self.file.sync_data()?;
            self.synced = true;
        }
        Ok(())
    }
}

fn encode(turn: u64, said: Marked, owner: &Owner, chain: u32) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    let mut rest = &mut bytes[..];
    put(&mut rest, &turn.to_le_bytes());
    for link in [said.origin, said.head] {
        put(&mut rest, &link.sequence.0.to_le_bytes());
        put(&mut rest, &link.hash);
    }
    let words = MARK_BYTES - HASH_BYTES;
    let hash = *owner.hasher("mark", chain).update(&bytes[..words]).finalize().as_bytes();
    bytes[words..].copy_from_slice(&hash);
    bytes
}

fn decode(bytes: &[u8; MARK_BYTES], owner: &Owner, chain: u32) -> Option<(u64, Marked)> {
    let mut rest = &bytes[..];
    let turn = u64::from_le_bytes(take(&mut rest)?);
    let mut link = || Some(Link { sequence: Sequence(u64::from_le_bytes(take(&mut rest)?)), hash: take(&mut rest)? });
    let said = Marked { origin: link()?, head: link()? };
    (encode(turn, said, owner, chain) == *bytes).then_some((turn, said))
}
