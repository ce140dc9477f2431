//! The chain that is written, on disk.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use paymesh_types::{Sequence, Timestamp};

use crate::{
    Damage,
    files::{Directory, file_name, in_chain, sync_directory},
    format::{HEADER_BYTES, Header, Link, Owner, put_frames},
    mark::{MARK, Mark, Marked},
    open::{self, Kept, Opened},
};

/// The files of the chain that is written, its last one open.
#[derive(Debug)]
pub(crate) struct Store {
    directory: Directory,
    owner: Owner,
    /// Bytes after which a file is followed by another.
    file_bytes_max: u64,
    chain: u32,
    mark: Mark,
    /// Never empty; the last is the one that is written.
    files: VecDeque<Kept>,
    file: File,
    /// The last record that is durable.
    head: Link,
    /// The bytes of a group, kept for the next.
    frames: Vec<u8>,
}

impl Store {
    /// Opens the log, and says how many bytes of a record that was not whole were cut.
    pub(crate) fn open(directory: &Directory, owner: &Owner, file_bytes_max: u64, now: Timestamp) -> io::Result<(Self, u64)> {
        let Opened { chain, mark, files, head, cut } = open::open(directory, owner, now)?;
        let last = files.back().expect("a chain that goes on has a file").header.first();
        let file = File::options().write(true).open(directory.file(chain, last))?;
        let (directory, owner) = (directory.clone(), owner.clone());
        let mut store = Self { directory, owner, file_bytes_max, chain, mark, files, file, head, frames: Vec::new() };
        // What was found may be beyond what was marked before the crash.
        store.say()?;
        store.mark.sync()?;
        Ok((store, cut))
    }

    pub(crate) fn chain(&self) -> u32 {
        self.chain
    }

    pub(crate) fn head(&self) -> Link {
        self.head
    }

    /// The last record that is not kept.
    pub(crate) fn origin(&self) -> Link {
        self.mark.said().origin
    }

    pub(crate) fn files(&self) -> &VecDeque<Kept> {
        &self.files
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    fn last(&mut self) -> &mut Kept {
        self.files.back_mut().expect("there is always the file that is written")
    }

    /// Writes records and makes them durable: one write, one sync. After an error it is as if nothing had been written, and the same records
    /// are to be written again: a sync that failed may have left any of it.
    pub(crate) fn append(&mut self, queued: &[u8], now: Timestamp) -> io::Result<()> {
        if self.last().bytes >= self.file_bytes_max {
            self.begin_file(now)?;
        }
        let Kept { header, bytes: end } = *self.last();
        let mut link = if end == HEADER_BYTES as u64 { header.encode(&self.owner).1 } else { self.head };
        self.frames.clear();
        put_frames(&mut self.frames, queued, &mut link);
        self.file.write_all_at(&self.frames, end)?;
        self.file.sync_data()?;
        self.mark.say(Marked { head: link, ..self.mark.said() })?;
        self.last().bytes = end + self.frames.len() as u64;
        self.head = link;
        Ok(())
    }

    /// Bytes that the last group took.
    pub(crate) fn written(&self) -> u64 {
        self.frames.len() as u64
    }

    fn begin_file(&mut self, now: Timestamp) -> io::Result<()> {
        // So that a start finds the mark in the last file, or at its beginning.
        self.say()?;
        self.mark.sync()?;
        let header = Header { chain: self.chain, previous: self.head, begun_at: now };
        // It may be there from a try that failed, and has nothing durable in it.
        let file = File::options().write(true).create(true).truncate(true).open(self.directory.file(self.chain, header.first()))?;
        file.write_all_at(&header.encode(&self.owner).0, 0)?;
        file.sync_all()?;
        sync_directory(&self.directory.chain(self.chain))?;
        self.file = file;
        self.files.push_back(Kept { header, bytes: HEADER_BYTES as u64 });
        Ok(())
    }

    fn say(&mut self) -> io::Result<()> {
        self.mark.say(Marked { head: self.head, ..self.mark.said() })
    }

    /// Makes the mark durable.
    pub(crate) fn sync_mark(&mut self) -> io::Result<()> {
        self.mark.sync()
    }

    /// Says durably that the log is kept from after this record on. A record that is durable says so too.
    pub(crate) fn keep_after(&mut self, origin: Link) -> io::Result<()> {
        self.mark.say(Marked { origin, head: self.head })?;
        self.mark.sync()
    }

    /// Removes the oldest file, which nobody reads any more who asks from where the log is kept.
    pub(crate) fn remove_oldest(&mut self) -> io::Result<()> {
        let origin = self.origin();
        if let Some(oldest) = self.files.front().filter(|oldest| oldest.header.first() <= origin.sequence) {
            match fs::remove_file(self.directory.file(self.chain, oldest.header.first())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => sync_directory(&self.directory.chain(self.chain))?,
            }
            self.files.pop_front();
        }
        Ok(())
    }

    /// Whether what is open is still what has its name: a file that is deleted or replaced under the running node would take what is written
    /// with it.
    pub(crate) fn missing(&self) -> io::Result<Option<Damage>> {
        let last = self.files.back().expect("there is always the file that is written").header.first();
        let gone = |sequence: Sequence, file: String| Damage {
            file,
            sequence,
            what: "it was deleted or replaced under the running node".to_owned(),
        };
        if !is_at(&self.file, &self.directory.file(self.chain, last))? {
            return Ok(Some(gone(last, file_name(self.chain, last))));
        }
        if !is_at(self.mark.file(), &self.directory.chain(self.chain).join(MARK))? {
            return Ok(Some(gone(self.head.sequence, in_chain(self.chain, MARK))));
        }
        Ok(None)
    }

    /// Sets the chain aside, and begins another after its last record.
    pub(crate) fn begin_anew(&mut self, damage: &Damage, now: Timestamp) -> io::Result<()> {
        match self.directory.condemn(self.chain, damage) {
            // The whole directory may be what was deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(self.directory.path())?,
            other => other?,
        }
        open::begin(&self.directory, &self.owner, self.head, Some(damage), now)?;
        let (store, _) = Self::open(&self.directory, &self.owner, self.file_bytes_max, now)?;
        *self = store;
        Ok(())
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
