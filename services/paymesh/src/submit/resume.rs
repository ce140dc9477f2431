//! How far a file is done, kept beside it so that an interrupted run can go on.
//!
//! What is kept is the finished prefix: every line up to there has its outcome. Lines after it may have been sent as well;
//! they are sent again, which their request ids make harmless. The note names the file's length and hash, so an edited
//! file is noticed and starts again from its first line. So does a file for another mesh, or for one whose data was made anew:
//! the note names the mesh, and how far the journals had come that its lines were booked in.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use paymesh_types::ShardRef;
use serde::{Deserialize, Serialize};

use super::report::Tally;
use crate::exit;

/// Of the form below.
const VERSION: u32 = 3;

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
    mesh: String,
    /// The last position of each shard that a line was answered with.
    pub(crate) heads: Heads,
    /// Every line up to here is finished.
    pub(crate) done: Place,
    /// What became of them.
    pub(crate) tally: Tally,
}

/// Sequence numbers by shard.
pub(crate) type Heads = BTreeMap<String, u64>;

/// Where the note is kept, if anywhere.
pub(crate) struct Resume {
    path: Option<PathBuf>,
    file: Identity,
    namespace: String,
    mesh: String,
}

impl Resume {
    pub(crate) fn new(path: Option<PathBuf>, file: Identity, namespace: String, mesh: String) -> Self {
        Self { path, file, namespace, mesh }
    }

    /// Reads the note; `heads` is how far the journals of the shards that answer have come. `Ok(None)`: there is none. `Err`:
    /// there is one, of another file, namespace or mesh, or not readable; the text says which, and the run starts from the
    /// first line.
    pub(crate) fn load(&self, heads: &BTreeMap<ShardRef, u64>) -> Result<Option<Note>, String> {
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
        if note.mesh != self.mesh {
            return Err(format!("{} is of mesh `{}`, and this is mesh `{}`", path.display(), note.mesh, self.mesh));
        }
        for (shard, head) in heads {
            // A journal never loses what was answered.
            if let Some(noted) = note.heads.get(&shard.to_string()).filter(|noted| *noted > head) {
                return Err(format!(
                    "{} is of another mesh: shard {shard} had come to entry {noted}, and is at {head}; its data was made anew or put back",
                    path.display()
                ));
            }
        }
        Ok(Some(note))
    }

    /// Writes the note: all of it, or the one before stays.
    pub(crate) fn save(&self, done: Place, tally: &Tally, heads: &Heads) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let note = Note {
            version: VERSION,
            file: self.file.clone(),
            namespace: self.namespace.clone(),
            mesh: self.mesh.clone(),
            heads: heads.clone(),
            done,
            tally: tally.clone(),
        };
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
    fn a_note_is_taken_only_for_the_file_namespace_and_mesh_it_was_written_for() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file.progress");
        let of =
            |bytes, namespace: &str, mesh: &str| Resume::new(Some(path.clone()), identity(bytes), namespace.to_owned(), mesh.to_owned());
        let shard = |text: &str| crate::clearing::tests::shard(text);
        let now = BTreeMap::from([(shard("eu/0"), 7), (shard("eu/1"), 3)]);
        assert!(of(7, "", "m").load(&now).is_ok_and(|note| note.is_none()));

        let (done, heads) = (Place { line: 3, byte: 99 }, Heads::from([("eu/0".to_owned(), 7), ("us/0".to_owned(), 9)]));
        of(7, "", "m").save(done, &Tally::default(), &heads).expect("it can be written");
        let found = of(7, "", "m").load(&now).ok().flatten().map(|note| (note.done, note.heads));
        assert_eq!(found, Some((done, heads)), "a shard that does not answer says nothing against it");
        assert!(of(8, "", "m").load(&now).is_err_and(|why| why.contains("edited")));
        assert!(of(7, "march", "m").load(&now).is_err_and(|why| why.contains("namespace")));
        assert!(of(7, "", "n").load(&now).is_err_and(|why| why.contains("mesh `m`") && why.contains("mesh `n`")));
        let anew = BTreeMap::from([(shard("eu/0"), 6)]);
        assert!(of(7, "", "m").load(&anew).is_err_and(|why| why.contains("shard eu/0 had come to entry 7, and is at 6")));

        fs::write(&path, "{").expect("it can be written");
        assert!(of(7, "", "m").load(&now).is_err_and(|why| why.contains("not a progress file")));
        of(7, "", "m").remove();
        assert!(of(7, "", "m").load(&now).is_ok_and(|note| note.is_none()));
    }
}
