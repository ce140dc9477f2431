//! The key provider of a directory does what the port says, and refuses what it must not use.

#![forbid(unsafe_code)]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use paymesh_vault::keys::{Error, FileKeys, KeyProvider, conformance};
use tempfile::TempDir;

struct Files;

impl conformance::Providers for Files {
    type Place = TempDir;

    async fn place(&self) -> TempDir {
        tempfile::tempdir().expect("a directory")
    }

    async fn open(&self, place: &TempDir) -> Box<dyn KeyProvider> {
        Box::new(open(&place.path().join("keys")).expect("the keys open"))
    }
}

fn open(directory: &Path) -> Result<FileKeys, Error> {
    FileKeys::open(directory, "test", &"eu".parse().expect("a zone"))
}

#[tokio::test]
async fn keys_in_files_conform() {
    conformance::provider(&Files).await;
}

/// A directory with one key.
async fn with_a_key() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let keys = directory.path().join("keys");
    open(&keys).expect("the keys open").make().await.expect("a key");
    let file = keys.join("kek-1.key");
    (directory, file)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn what_others_can_use_is_refused_and_says_what_to_do() {
    let (_directory, file) = with_a_key().await;
    let keys = file.parent().expect("a directory");
    assert_eq!((mode(keys), mode(&file)), (0o700, 0o600));
    for (path, good, bad) in [(file.as_path(), 0o600, [0o640, 0o604, 0o620, 0o644]), (keys, 0o700, [0o750, 0o705, 0o777, 0o711])] {
        for mode in bad {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
            let error = open(keys).expect_err("others can use it");
            assert!(matches!(&error, Error::Unusable { place, .. } if place == path), "{error}");
            assert!(error.to_string().ends_with(&format!("(mode {mode:03o}): chmod go-rwx")), "{error}");
        }
        fs::set_permissions(path, fs::Permissions::from_mode(good)).expect("it is ours");
        open(keys).expect("its owner's alone");
    }
}

#[tokio::test]
async fn a_file_that_was_changed_is_refused_without_a_word_of_it() {
    let (_directory, file) = with_a_key().await;
    let written = fs::read_to_string(&file).expect("a text");
    let key = written.lines().nth(2).expect("the third line").to_owned();
    let keys = file.parent().expect("a directory").to_owned();
    let flipped = |at: usize| {
        let mut bytes = written.clone().into_bytes();
        bytes[at] ^= 1;
        bytes
    };
    let texts = (0..written.len()).map(flipped).chain([
        Vec::new(),
        written.as_bytes()[..written.len() - 1].to_vec(),
        format!("{written}\n").into_bytes(),
        written.to_uppercase().into_bytes(),
        written.replace("paymesh-kek-v1", "paymesh-kek-v2").into_bytes(),
        vec![0xff; 64],
    ]);
    for changed in texts {
        fs::write(&file, &changed).expect("it is ours");
        let error = open(&keys).expect_err("it was changed").to_string();
        assert!(error.contains("kek-1.key") && !error.contains(&key[..8]), "{error}");
    }
    fs::write(&file, &written).expect("it is ours");
    open(&keys).expect("as it was written");
}

#[tokio::test]
async fn a_key_under_another_name_is_refused() {
    let (_directory, file) = with_a_key().await;
    let keys = file.parent().expect("a directory");
    fs::rename(&file, keys.join("kek-2.key")).expect("it is ours");
    let error = open(keys).expect_err("key 1 in the file of key 2").to_string();
    assert!(error.ends_with("holds key 1, whose file has another name"), "{error}");
}

#[tokio::test]
async fn what_a_crash_left_of_a_key_is_no_key() {
    let (_directory, file) = with_a_key().await;
    let keys = file.parent().expect("a directory");
    let (half, gone) = (keys.join("kek-2.new"), keys.join("kek-0.gone"));
    fs::write(&half, "paymesh-kek-v1\n2\n00").expect("it is ours");
    fs::copy(&file, &gone).expect("it is ours");
    let opened = open(keys).expect("the keys open");
    assert_eq!(opened.ids().await.expect("it answers").len(), 1);
    assert!(!half.exists() && !gone.exists());
    assert_eq!(opened.make().await.expect("a key").get(), 2);
}

#[tokio::test]
async fn a_destroyed_key_is_in_no_file() {
    let (_directory, file) = with_a_key().await;
    let keys = file.parent().expect("a directory");
    let key = fs::read_to_string(&file).expect("a text").lines().nth(2).expect("the third line").to_owned();
    // Another name for the same place on the disk, as what reads deleted files has.
    let seen = keys.join("seen");
    fs::hard_link(&file, &seen).expect("it is ours");
    let opened = open(keys).expect("the keys open");
    opened.make().await.expect("a key");
    opened.destroy(opened.ids().await.expect("it answers")[0]).await.expect("it is not the current one");
    assert!(!file.exists());
    let left = fs::read(&seen).expect("the other name");
    assert!(left.iter().all(|byte| *byte == 0) && !left.is_empty(), "{} of the key is left", key.len());
}

#[tokio::test]
async fn keys_of_another_vault_are_refused() {
    let (_directory, file) = with_a_key().await;
    let keys = file.parent().expect("a directory");
    for (mesh, zone) in [("test", "global"), ("other", "eu")] {
        let error = FileKeys::open(keys, mesh, &zone.parse().expect("a zone")).expect_err("another's").to_string();
        assert!(error.ends_with("holds the keys of the vault of zone eu of mesh test"), "{error}");
    }
    fs::remove_file(keys.join("vault")).expect("it is ours");
    let error = open(keys).expect_err("nobody's").to_string();
    assert!(error.contains("does not say whose the keys beside it are"), "{error}");
}

/// A process that is killed between the two last steps of making a key leaves its file with both of its names.
#[tokio::test]
async fn a_file_that_has_both_of_its_names_after_a_kill_is_whole() {
    for name in ["kek-1.key", "vault"] {
        let (_directory, file) = with_a_key().await;
        let keys = file.parent().expect("a directory");
        let (file, draft) = (keys.join(name), keys.join(name).with_extension("new"));
        let before = fs::read(&file).expect("its text");
        fs::hard_link(&file, &draft).expect("another name");
        open(keys).expect("the keys open");
        assert_eq!(fs::read(&file).expect("its text"), before, "{name}");
        open(keys).expect("the keys open again");
        assert!(!draft.exists(), "{name}");
    }
}
