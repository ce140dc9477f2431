//! Folders of made files: compared with what is there, or put in its place, whole.
//!
//! A folder is made aside and moved into place, so that a full disk leaves what was there. A folder that was not made here is never touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use paymesh_topology::{ACCESS_FILE_NAME, FILE_NAME, FRAUD_FILE_NAME, GATEWAYS_FILE_NAME};

use crate::exit::unusable;

/// The file whose first line says that the folder was made here.
pub(super) const MARKED_FILE: &str = "kustomization.yaml";
/// That line. Short of it, a folder is somebody's own.
pub(super) const MARK: &str = "# Made by `paymesh render kubernetes`";

/// Files of a folder's `config`.
const CONFIGURATION: [&str; 4] = [FILE_NAME, GATEWAYS_FILE_NAME, ACCESS_FILE_NAME, FRAUD_FILE_NAME];

/// Files by their paths below a folder.
pub(super) type Files = BTreeMap<PathBuf, String>;

/// What differs, a line each, in order; nothing when the folders are what they are to be.
pub(super) fn differences(out: &Path, folders: &BTreeMap<String, Files>) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, files) in folders {
        let folder = out.join(name);
        let there = files_in(&folder)?;
        for path in files.keys().chain(there.iter()).collect::<BTreeSet<_>>() {
            let shown = folder.join(path);
            // What it leads to can change without it, and need not be in a copy of the folder.
            if there.contains(path) && fs::symlink_metadata(&shown).is_ok_and(|is| is.is_symlink()) {
                found.push(format!("{} is a link", shown.display()));
                continue;
            }
            let (wanted, is) = (files.get(path), there.contains(path).then(|| fs::read(&shown)).transpose());
            let is = is.with_context(|| format!("{} cannot be read", shown.display()))?;
            match (wanted, is) {
                (Some(_), None) => found.push(format!("{} is missing", shown.display())),
                (None, _) => found.push(format!("{} is not made from the configuration", shown.display())),
                (Some(wanted), Some(is)) if wanted.as_bytes() != is => found.push(format!("{} differs", shown.display())),
                (Some(_), Some(_)) => {}
            }
        }
    }
    for folder in left_over(out, folders)? {
        found.push(format!("{} is of a region that is not in the configuration", folder.display()));
    }
    Ok(found)
}

/// Puts the folders in place, and removes those that were made here for regions that are gone: which those were.
pub(super) fn write(out: &Path, folders: &BTreeMap<String, Files>) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    // Held until the end: what another command has put aside here looks like what is left over.
    let held = File::open(out).with_context(|| format!("{} cannot be opened", out.display()))?;
    match held.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(unusable(format!("{}: another command writes there; nothing is written: run the command again", out.display())));
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("{} cannot be locked", out.display())),
    }
    // All of them are looked at before any is touched.
    for name in folders.keys() {
        let folder = out.join(name);
        if exists(&folder)? && !is_made_here(&folder)? {
            return Err(unusable(format!(
                "{} was not made by `paymesh render` ({MARKED_FILE} does not begin with `{MARK}`): move it away, or choose another --out",
                folder.display()
            )));
        }
    }
    let gone = left_over(out, folders)?;
    for folder in &gone {
        // Whoever works on a copy of one has put something into it.
        if let Some(own) = files_in(folder)?.iter().find(|path| !is_made(&folder.join(path), path)) {
            return Err(unusable(format!(
                "{} is of no region in the configuration, and would be removed; but {} in it was not made here: move it away, or remove it",
                folder.display(),
                own.display()
            )));
        }
    }
    let aside = |name: &str, what: &str| out.join(format!(".{name}.{what}-{}", std::process::id()));
    // What a command left that was killed, and had the number of this process: in a container, they all have.
    for left in folders.keys().flat_map(|name| [aside(name, "new"), aside(name, "old")]) {
        if exists(&left)? {
            fs::remove_dir_all(&left).with_context(|| format!("{} cannot be removed", left.display()))?;
        }
    }
    let gone: Vec<PathBuf> = gone.into_iter().filter(|folder| folder.exists()).collect();
    let made = folders.iter().try_for_each(|(name, files)| {
        let new = aside(name, "new");
        files.iter().try_for_each(|(path, text)| {
            put(&new.join(path), text).with_context(|| format!("{} cannot be written", new.join(path).display()))
        })
    });
    let moved = made.and_then(|()| {
        folders.keys().try_for_each(|name| {
            let folder = out.join(name);
            swap(&aside(name, "new"), &folder, &aside(name, "old")).with_context(|| format!("{} cannot be put in place", folder.display()))
        })
    });
    for name in folders.keys() {
        // What is left aside is of no use to anyone; that it cannot be removed changes nothing about the result.
        let _ = fs::remove_dir_all(aside(name, "new"));
    }
    moved?;
    gone.iter().try_for_each(|folder| fs::remove_dir_all(folder).with_context(|| format!("{} cannot be removed", folder.display())))?;
    Ok(gone)
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, text)
}

/// The new folder in place of the old one, which is there again when that fails.
fn swap(new: &Path, folder: &Path, old: &Path) -> io::Result<()> {
    let had = folder.exists();
    if had {
        fs::rename(folder, old)?;
    }
    if let Err(error) = fs::rename(new, folder) {
        if had {
            fs::rename(old, folder)?;
        }
        return Err(error);
    }
    if had { fs::remove_dir_all(old) } else { Ok(()) }
}

/// Folders made here that no region has any longer.
fn left_over(out: &Path, folders: &BTreeMap<String, Files>) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !exists(out)? {
        return Ok(found);
    }
    for entry in fs::read_dir(out).with_context(|| format!("{} cannot be read", out.display()))? {
        let entry = entry?;
        let wanted = entry.file_name().to_str().is_some_and(|name| folders.contains_key(name));
        if !wanted && entry.file_type()?.is_dir() && is_made_here(&entry.path())? {
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn exists(path: &Path) -> anyhow::Result<bool> {
    path.try_exists().with_context(|| format!("{} cannot be looked at", path.display()))
}

fn is_made_here(folder: &Path) -> anyhow::Result<bool> {
    match fs::read_to_string(folder.join(MARKED_FILE)) {
        Ok(text) => Ok(text.starts_with(MARK)),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::InvalidData].contains(&error.kind()) => {
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", folder.join(MARKED_FILE).display())),
    }
}

/// Whether a file in a folder that was made here was made, too. What is configuration has comments of its own.
fn is_made(file: &Path, path: &Path) -> bool {
    let is_configuration =
        path.parent() == Some(Path::new("config")) && CONFIGURATION.iter().any(|name| path.file_name().is_some_and(|found| found == *name));
    is_configuration || fs::read(file).is_ok_and(|text| text.starts_with(MARK.as_bytes()))
}

/// Every file below a folder, by its path from there; none where there is no folder.
fn files_in(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        if !exists(&next)? {
            continue;
        }
        for entry in fs::read_dir(&next).with_context(|| format!("{} cannot be read", next.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            } else {
                found.extend(entry.path().strip_prefix(folder).map(Path::to_owned));
            }
        }
    }
    Ok(found)
}
