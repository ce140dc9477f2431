//! The configuration's file: read, and replaced whole or not at all.

use std::{
    fs::{self, File, TryLockError},
    io::{IsTerminal as _, Write as _, stdout},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use paymesh_topology::{FILE_BYTES_MAX, FILE_NAME};

use crate::{exit::unusable, say};

/// A file as it was read.
pub(super) struct ConfigFile {
    /// Where it really is: a link stays one.
    path: PathBuf,
    name: String,
    text: String,
}

impl ConfigFile {
    /// That of a configuration, which is named by its folder or by the file itself.
    pub(super) fn of(config: &Path) -> anyhow::Result<Self> {
        if config.is_dir() { Self::read(&config.join(FILE_NAME)) } else { Self::read(config) }
    }

    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let cannot = |error| unusable(format!("{name}: cannot be read: {error}"));
        let real = path.canonicalize().map_err(cannot)?;
        let cannot = |error| unusable(format!("{name}: cannot be read: {error}"));
        if fs::metadata(&real).map_err(cannot)?.len() > FILE_BYTES_MAX {
            return Err(unusable(format!("{name}: is larger than {FILE_BYTES_MAX} bytes")));
        }
        let bytes = fs::read(&real).map_err(|error| unusable(format!("{name}: cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| unusable(format!("{name}: is not UTF-8")))?;
        Ok(Self { path: real, name, text })
    }

    /// As errors and messages call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Puts another text in its place: there is never half of it, and what somebody else has written meanwhile stays.
    pub(super) fn replace(&self, text: &str) -> anyhow::Result<()> {
        let cannot = |error: std::io::Error| unusable(format!("{}: cannot be written, and is as it was: {error}", self.name));
        let folder = self.path.parent().context("a file is in a folder")?;
        // Held until the end, by every command that writes here: between the look at the file and its replacement nobody else replaces it. The file itself
        // is another one after that.
        let held = File::open(folder).map_err(cannot)?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(unusable(format!("{}: another command is changing it; nothing is written: run the command again", self.name)));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let now = fs::read(&self.path).map_err(cannot)?;
        if now != self.text.as_bytes() {
            return Err(unusable(format!(
                "{}: somebody else has changed it meanwhile; nothing is written: run the command again",
                self.name
            )));
        }
        let kept = fs::metadata(&self.path).map_err(cannot)?;
        if kept.nlink() > 1 {
            return Err(unusable(format!(
                "{}: has {} names (hard links), of which only this one would have the new text: nothing is written; edit it by hand",
                self.name,
                kept.nlink()
            )));
        }
        let aside = folder.join(format!(".regions.yaml.{}", std::process::id()));
        let written = File::create_new(&aside).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            // Whose it is, too: whoever could read it can read it still.
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (kept.uid(), kept.gid()) {
                fchown(&file, Some(kept.uid()), Some(kept.gid()))?;
            }
            file.set_permissions(fs::Permissions::from_mode(kept.permissions().mode()))?;
            file.sync_all()?;
            fs::rename(&aside, &self.path)
        });
        written.map_err(|error| {
            // Of no use to anyone; where it cannot be removed, the error says more.
            let _ = fs::remove_file(&aside);
            cannot(error)
        })?;
        held.sync_all().with_context(|| format!("{}: is written, and a power cut could still undo that", self.name))
    }

    /// Shows the lines that another text has and this one has not, and those that it has not any more.
    pub(super) fn show_difference(&self, other: &str) {
        let colours = stdout().is_terminal();
        for (sign, line) in difference(&self.text, other) {
            match (sign, colours) {
                ('+', true) => say!("\x1b[32m+ {line}\x1b[0m"),
                (_, true) => say!("\x1b[31m- {line}\x1b[0m"),
                (sign, false) => say!("{sign} {line}"),
            }
        }
    }
}

/// Cells of the table by which lines are compared at most: 16 MiB of it.
const CELLS_MAX: usize = 4 << 20;

/// The lines in which two texts differ, by their longest common subsequence; where there are too many lines between the first and the last that differ, all of those.
fn difference<'a>(before: &'a str, after: &'a str) -> Vec<(char, &'a str)> {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
    let (before, after) = (&before[same..], &after[same..]);
    let end = before.iter().rev().zip(after.iter().rev()).take_while(|(one, other)| one == other).count();
    let (before, after) = (&before[..before.len() - end], &after[..after.len() - end]);
    if (before.len() + 1).saturating_mul(after.len() + 1) > CELLS_MAX {
        return before.iter().map(|line| ('-', *line)).chain(after.iter().map(|line| ('+', *line))).collect();
    }
    // common[i][j]: lines in common of what begins there.
    let mut common = vec![vec![0_u32; after.len() + 1]; before.len() + 1];
    for one in (0..before.len()).rev() {
        for other in (0..after.len()).rev() {
            common[one][other] = if before[one] == after[other] {
                common[one + 1][other + 1] + 1
            } else {
                common[one + 1][other].max(common[one][other + 1])
            };
        }
    }
    let (mut lines, mut one, mut other) = (Vec::new(), 0, 0);
    while one < before.len() || other < after.len() {
        if one < before.len() && other < after.len() && before[one] == after[other] {
            (one, other) = (one + 1, other + 1);
        } else if one < before.len() && (other == after.len() || common[one + 1][other] >= common[one][other + 1]) {
            lines.push(('-', before[one]));
            one += 1;
        } else {
            lines.push(('+', after[other]));
            other += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_the_lines_that_came_and_went() {
        assert_eq!(difference("a\nb\nc\n", "a\nb\nc\n"), []);
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), [('-', "b"), ('+', "x"), ('+', "d")]);
        assert_eq!(difference("", "a\n"), [('+', "a")]);
        assert_eq!(difference("a\nb\n", "b\n"), [('-', "a")]);
        // As long as a file may be, and changed at both ends: told without a table of all its lines.
        let (before, after) = (format!("a\n{}a\n", "\n".repeat(200_000)), format!("b\n{}b\n", "\n".repeat(200_000)));
        let lines = difference(&before, &after);
        assert_eq!((lines.len(), lines[0], lines[400_003]), (400_004, ('-', "a"), ('+', "b")));
    }

    #[test]
    fn a_file_that_has_changed_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("regions.yaml");
        fs::write(&path, "one\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("its mode");
        let file = ConfigFile::read(&path).expect("it can be read");
        file.replace("two\n").expect("nobody else wrote");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "two\n");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o640);
        assert!(file.replace("three\n").expect_err("it is another by now").to_string().contains("meanwhile"));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "two\n");
        assert_eq!(fs::read_dir(folder.path()).expect("it can be listed").count(), 1, "nothing is left aside");
    }

    #[test]
    fn a_file_of_several_names_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("regions.yaml");
        fs::write(&path, "one\n").expect("written");
        fs::hard_link(&path, folder.path().join("other.yaml")).expect("a second name");
        let refused = ConfigFile::read(&path).expect("it can be read").replace("two\n").expect_err("one name would lose the other");
        assert!(refused.to_string().contains("has 2 names"), "{refused}");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "one\n");
    }

    #[test]
    fn of_two_commands_one_writes_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("regions.yaml");
        fs::write(&path, "one\n").expect("written");
        let file = ConfigFile::read(&path).expect("it can be read");
        let other = File::open(folder.path()).expect("it can be opened");
        other.lock().expect("nobody else holds it");
        assert!(file.replace("two\n").expect_err("another command writes").to_string().contains("another command is changing it"));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "one\n");
        drop(other);
        file.replace("two\n").expect("nobody holds it any more");
    }

    #[test]
    fn a_link_stays_one_and_what_it_leads_to_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let (real, link) = (folder.path().join("real.yaml"), folder.path().join("regions.yaml"));
        fs::write(&real, "one\n").expect("written");
        std::os::unix::fs::symlink(&real, &link).expect("a link");
        ConfigFile::read(&link).expect("it can be read").replace("two\n").expect("replaced");
        assert!(fs::symlink_metadata(&link).expect("it is there").file_type().is_symlink());
        assert_eq!(fs::read_to_string(&real).expect("it is there"), "two\n");
    }
}
