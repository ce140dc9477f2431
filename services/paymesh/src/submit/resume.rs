//! How far a file is done, kept beside it so that an interrupted run can go on.
//!
//! What is kept is the finished prefix: every line up to there has its outcome. Lines after it may have been sent as well;
//! they are sent again, which their request ids make harmless. The note names the file's length and hash, so an edited
//! file is noticed and starts again from its first line.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::report::Tally;
use crate::exit;

/// Of the form below.
const VERSION: u32 = 1;

/// The end of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The line's number, from 1; 0 is before the first.
    pub(crate) line: u64,
    /// Bytes from the beginning of the file.
    pub(crate) byte: u64,
}

/// Which file it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its length.
    pub(crate) bytes: u64,
    /// Its hash, in hexadecimal digits.
    pub(crate) blake3: String,
}

/// The note.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    version: u32,
    file: Identity,
    namespace: String,
    /// Every line up to here is finished.
    pub(crate) done: Place,
    /// What became of them.
    pub(crate) tally: Tally,
}

/// Where the note is kept, if anywhere.
pub(crate) struct Resume {
    path: Option<PathBuf>,
    file: Identity,
    namespace: String,
}

impl Resume {
    pub(crate) fn new(path: Option<PathBuf>, file: Identity, namespace: String) -> Self {
        Self { path, file, namespace }
    }

    /// Reads the note. `Ok(None)`: there is none. `Err`: there is one, of another file or namespace, or not readable; the
    /// text says which, and the run starts from the first line.
    pub(crate) fn load(&self) -> Result<Option<Note>, String> {
        let Some(path) = &self.path else { return Ok(None) };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        };
        let note: Note = serde_json::from_slice(&text).map_err(|error| format!("{} is not a progress file: {error}", path.display()))?;
        if note.version != VERSION {
            return Err(format!("{} was written by another version", path.display()));
        }
        if note.file != self.file {
            return Err(format!("{} is of another content: the file was edited since", path.display()));
        }
        if note.namespace != self.namespace {
            return Err(format!("{} is of another namespace", path.display()));
        }
        Ok(Some(note))
    }

    /// Writes the note: all of it, or the one before stays.
    pub(crate) fn save(&self, done: Place, tally: &Tally) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let note = Note { version: VERSION, file: self.file.clone(), namespace: self.namespace.clone(), done, tally: tally.clone() };
        write_whole(path, &serde_json::to_vec(&note)?).map_err(|error| {
            exit::unusable(format!(
                "cannot write {}: {error}; --progress names another place, --no-progress-file does without",
                path.display()
            ))
        })
    }

    /// Takes the note away: the file is done.
    pub(crate) fn remove(&self) {
        if let Some(path) = &self.path {
            // A note that stays says the file is done up to a line: the worst it can do is save work next time.
            let _ = fs::remove_file(path);
        }
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(bytes: u64) -> Identity {
        Identity { bytes, blake3: "00".to_owned() }
    }

    #[test]
    fn a_note_is_taken_only_for_the_file_and_namespace_it_was_written_for() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file.progress");
        let resume = |bytes, namespace: &str| Resume::new(Some(path.clone()), identity(bytes), namespace.to_owned());
        assert!(resume(7, "").load().is_ok_and(|note| note.is_none()));

        let done = Place { line: 3, byte: 99 };
        resume(7, "").save(done, &Tally::default()).expect("it can be written");
        assert_eq!(resume(7, "").load().ok().flatten().map(|note| note.done), Some(done));
        assert!(resume(8, "").load().is_err_and(|why| why.contains("edited")));
        assert!(resume(7, "march").load().is_err_and(|why| why.contains("namespace")));

        fs::write(&path, "{").expect("it can be written");
        assert!(resume(7, "").load().is_err_and(|why| why.contains("not a progress file")));
        resume(7, "").remove();
        assert!(resume(7, "").load().is_ok_and(|note| note.is_none()));
    }
}
