//! Where charges are written down: a JSON line for each change, and an answer after its line is on the disk.
//!
//! Lines that come at the same time share one `fdatasync`. What is read waits too, so that nobody is told what a crash could undo.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use tokio::sync::{mpsc, oneshot};

use crate::book::{Book, Charge};

/// The file in the data directory.
const FILE_NAME: &str = "charges.jsonl";
/// Changes that wait to be written at most.
pub(crate) const WAITING_MAX: usize = 1024;

/// Why the simulator does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error("{path} cannot be used: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another simulator uses it.
    #[error("{path} is in use by another simulator")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// A line is none of ours.
    #[error("{path}:{line}: is no charge")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
    },
    /// The listener is unusable.
    #[error("the listener failed: {0}")]
    Listener(io::Error),
}

/// What is to be on the disk before somebody goes on.
pub(crate) struct Entry {
    /// A line; none where only what came before is waited for.
    pub(crate) line: Option<Vec<u8>>,
    pub(crate) written: oneshot::Sender<()>,
}

/// The file, behind the end of what it has.
pub(crate) struct Log {
    file: Option<File>,
    path: PathBuf,
}

impl Log {
    /// Opens the file of a directory, which is made when missing, and takes in what it has. Without a directory nothing is kept.
    pub(crate) fn open(directory: Option<&Path>) -> Result<(Self, Book), Error> {
        let Some(directory) = directory else { return Ok((Self { file: None, path: PathBuf::new() }, Book::default())) };
        let path = directory.join(FILE_NAME);
        let failed = |source| Error::File { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let (book, whole) = read(&file, &path)?;
        // A line that a crash cut off was not answered.
        file.set_len(whole).and_then(|()| file.seek(io::SeekFrom::End(0))).and_then(|_| file.sync_all()).map_err(failed)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok((Self { file: Some(file), path }, book))
    }

    /// Writes what comes until nobody can send any more.
    ///
    /// # Errors
    /// The disk does not take it: what was waiting was not answered.
    pub(crate) async fn run(mut self, mut entries: mpsc::Receiver<Entry>) -> Result<(), Error> {
        let mut batch = Vec::new();
        while entries.recv_many(&mut batch, WAITING_MAX).await > 0 {
            let bytes: Vec<u8> = batch.iter_mut().filter_map(|entry| entry.line.take()).flatten().collect();
            if !bytes.is_empty()
                && let Some(mut file) = self.file.take()
            {
                let written = tokio::task::spawn_blocking(move || {
                    file.write_all(&bytes)?;
                    file.sync_data()?;
                    Ok(file)
                });
                let written = written.await.unwrap_or_else(|_| Err(io::Error::other("the writer was cut off")));
                self.file = Some(written.map_err(|source| Error::File { path: self.path.clone(), source })?);
            }
            for entry in batch.drain(..) {
                // Whoever has left needs no answer.
                let _ = entry.written.send(());
            }
        }
        Ok(())
    }
}

/// What the file has, and how many bytes of it are whole lines.
fn read(file: &File, path: &Path) -> Result<(Book, u64), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let (mut book, mut whole, mut number) = (Book::default(), 0, 0);
    let (mut reader, mut line) = (BufReader::new(file), Vec::new());
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if !line.ends_with(b"\n") {
            return Ok((book, whole));
        }
        number += 1;
        let charge: Charge = serde_json::from_slice(&line).map_err(|_| Error::Damaged { path: path.to_owned(), line: number })?;
        book.restore(charge);
        whole += bytes as u64;
    }
}
