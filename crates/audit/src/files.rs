//! The directory of a log, and how what is in it becomes durable.
//!
//! ```text
//! audit/chain-00002/                  the chain that is written: the newest there is
//! audit/chain-00002/mark              what of it is durable
//! audit/chain-00002/…0001734.log      a file of records, named by its first
//! audit/chain-00001/                  a chain that was set aside because it is damaged: nothing touches it any more
//! audit/chain-00001.damaged           what is wrong with it
//! ```

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use paymesh_types::Sequence;

use crate::Damage;

const CHAIN: &str = "chain-";
const FILE_END: &str = ".log";
const DAMAGED_END: &str = ".damaged";
const NEW_END: &str = ".new";

/// The directories of a log.
#[derive(Debug, Clone)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn chain(&self, chain: u32) -> PathBuf {
        self.0.join(chain_name(chain))
    }

    /// Where a chain is made, before it is there as a whole.
    pub(crate) fn new_chain(&self, chain: u32) -> PathBuf {
        self.0.join(format!("{}{NEW_END}", chain_name(chain)))
    }

    pub(crate) fn file(&self, chain: u32, first: Sequence) -> PathBuf {
        self.0.join(file_name(chain, first))
    }

    /// The numbers of the chains that there are, in order.
    pub(crate) fn chains(&self) -> io::Result<Vec<u32>> {
        names(&self.0, chain_number)
    }

    /// The number of the chain that comes next: none that a chain ever had which something is left of.
    pub(crate) fn next_chain(&self) -> io::Result<u32> {
        let taken = |name: &str| chain_number(name.strip_suffix(DAMAGED_END).unwrap_or(name));
        let last = names(&self.0, taken)?.pop().unwrap_or(0);
        last.checked_add(1).ok_or_else(|| io::Error::other("there are no numbers left for chains"))
    }

    /// The files of a chain, by their first records, in order.
    pub(crate) fn files(&self, chain: u32) -> io::Result<Vec<Sequence>> {
        let first = |name: &str| {
            let first = Sequence(name.strip_suffix(FILE_END)?.parse().ok()?);
            (chain_file_name(first) == name).then_some(first)
        };
        names(&self.chain(chain), first)
    }

    /// Notes durably that a chain is damaged: the next start knows.
    pub(crate) fn condemn(&self, chain: u32, damage: &Damage) -> io::Result<()> {
        let mut file = File::create(self.verdict(chain))?;
        writeln!(file, "{} {} {}", damage.sequence, damage.file, damage.what.replace('\n', " "))?;
        file.sync_all()?;
        sync_directory(&self.0)
    }

    /// What was noted of a chain; `None`: nothing.
    pub(crate) fn verdict_of(&self, chain: u32) -> io::Result<Option<Damage>> {
        let text = match fs::read(self.verdict(chain)) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut parts = text.trim_end().splitn(3, ' ');
        let parsed = || Some((parts.next()?.parse().ok()?, parts.next()?.to_owned(), parts.next()?.to_owned()));
        Ok(Some(match { parsed }() {
            Some((sequence, file, what)) => Damage { file, sequence: Sequence(sequence), what },
            // Written in part when its node ended, or by another hand: that it is there says enough.
            None => Damage { file: chain_name(chain), sequence: Sequence(0), what: format!("it was set aside: {}", text.trim_end()) },
        }))
    }

    fn verdict(&self, chain: u32) -> PathBuf {
        self.0.join(format!("{}{DAMAGED_END}", chain_name(chain)))
    }

    /// What is wrong with the chains that were set aside before this one and are still there.
    pub(crate) fn set_aside(&self, current: u32) -> io::Result<Vec<Damage>> {
        let mut found = Vec::new();
        for chain in self.chains()?.into_iter().filter(|chain| *chain < current) {
            let unknown =
                || Damage { file: chain_name(chain), sequence: Sequence(0), what: "it was set aside, and nothing says why".to_owned() };
            found.push(self.verdict_of(chain)?.unwrap_or_else(unknown));
        }
        Ok(found)
    }
}

fn chain_number(name: &str) -> Option<u32> {
    let number: u32 = name.strip_prefix(CHAIN)?.parse().ok()?;
    // One spelling for each.
    (chain_name(number) == name).then_some(number)
}

/// A chain's directory, below the log's.
fn chain_name(chain: u32) -> String {
    format!("{CHAIN}{chain:05}")
}

/// A file, below the log's directory.
pub(crate) fn file_name(chain: u32, first: Sequence) -> String {
    in_chain(chain, &chain_file_name(first))
}

/// Something in a chain's directory, below the log's.
pub(crate) fn in_chain(chain: u32, name: &str) -> String {
    format!("{}/{name}", chain_name(chain))
}

/// A file, within its chain's directory.
pub(crate) fn chain_file_name(first: Sequence) -> String {
    format!("{:020}{FILE_END}", first.0)
}

/// What is in a directory, as far as it has a name that means something, in order.
fn names<T: Ord>(directory: &Path, meaning: impl Fn(&str) -> Option<T>) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        found.extend(entry?.file_name().to_str().and_then(&meaning));
    }
    found.sort();
    Ok(found)
}

/// Makes durable which files there are in a directory.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
