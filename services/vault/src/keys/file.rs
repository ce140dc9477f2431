//! Key-encryption keys in a directory: one file for each, that its owner alone may read.
//!
//! For a vault without hardware for keys. The directory belongs on a file system of its own, or is mounted; what matters is that no backup of the
//! vault's data holds it too, and that it is backed up by itself: without it, all cards are gone.
//!
//! The file `vault` says whose keys they are: the format (`paymesh-vault-keys-v1`), the mesh and the zone, a line each. A vault destroys keys that it needs no more, so
//! two with the same directory would destroy each other's.
//!
//! A file `kek-NUMBER.key` has four lines: the format (`paymesh-kek-v1`), the number, the key in hexadecimal digits, and the first 8 bytes of the
//! SHA-256 of the three lines before, which shows that none of them was changed by accident.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use async_trait::async_trait;
use paymesh_types::ZoneName;
use zeroize::Zeroizing;

use crate::{
    crypto,
    keys::{Error, KekId, KeyProvider, SECRET_BYTES, Secret},
};

const FORMAT: &str = "paymesh-kek-v1";
const OWNER_FORMAT: &str = "paymesh-vault-keys-v1";
/// The file that says whose keys they are.
const OWNER_FILE: &str = "vault";
/// How the name of a key's file ends that is not whole yet.
const MADE: &str = "new";
/// How it ends once the key is destroyed, until the file is gone.
const DESTROYED: &str = "gone";
/// Bytes of a file at most.
const FILE_BYTES_MAX: u64 = 1024;
/// Everybody's permissions but the owner's, of a file's mode.
const NOT_THE_OWNERS: u32 = 0o077;
/// Keys at most: rotations destroy all but the last.
const KEYS_MAX: usize = 1024;

/// The keys of a directory. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct FileKeys {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    keys: RwLock<BTreeMap<KekId, Arc<Secret>>>,
    /// Held by whoever changes the directory.
    changing: Mutex<()>,
}

impl FileKeys {
    /// Reads the keys of a vault in a directory, and makes the directory where it is missing. One process at a time may make and destroy keys there.
    ///
    /// # Errors
    /// [`Error::Unusable`]: others than the owner can read or change the directory or a file in it, the keys are another vault's, or a file is no key of its name.
    pub fn open(directory: &Path, mesh: &str, zone: &ZoneName) -> Result<Self, Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| unusable(directory, format!("cannot be made: {error}")))?;
        refuse_others(directory)?;
        let mut keys = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(|error| unusable(directory, format!("cannot be read: {error}")))? {
            let path = entry.map_err(|error| unusable(directory, format!("cannot be read: {error}")))?.path();
            // What a crash left of a file that has its own name already: the same file by another name, whose bytes are those of a key in use.
            if path.extension().is_some_and(|end| end == MADE) && has_another_name(&path) {
                fs::remove_file(&path).map_err(|error| unusable(&path, format!("cannot be removed: {error}")))?;
                continue;
            }
            // What a crash left of a key that nobody was told of, or that is destroyed.
            if path.extension().is_some_and(|end| end == MADE || end == DESTROYED) {
                overwrite_and_remove(&path)
                    .map_err(|error| unusable(&path, format!("is what is left of a key, and cannot be removed: {error}")))?;
                continue;
            }
            if path.extension().is_none_or(|end| end != "key") {
                continue;
            }
            let (id, key) = read(&path)?;
            if path != file(directory, id) {
                return Err(unusable(&path, format!("holds key {id}, whose file has another name")));
            }
            keys.insert(id, Arc::new(key));
            if keys.len() > KEYS_MAX {
                return Err(unusable(directory, format!("holds more than {KEYS_MAX} keys")));
            }
        }
        own(directory, mesh, zone, keys.is_empty())?;
        Ok(Self { inner: Arc::new(Inner { directory: directory.to_owned(), keys: RwLock::new(keys), changing: Mutex::new(()) }) })
    }

    /// Runs what waits for a disk where nobody waits for it.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || {
            let _changing = inner.changing.lock().unwrap_or_else(PoisonError::into_inner);
            work(&inner)
        });
        done.await.map_err(|error| unusable(&self.inner.directory, format!("the work on it died: {error}")))?
    }

    fn key(&self, kek: KekId) -> Result<Arc<Secret>, Error> {
        self.inner.keys.read().unwrap_or_else(PoisonError::into_inner).get(&kek).cloned().ok_or(Error::Missing { kek })
    }
}

impl std::fmt::Debug for FileKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileKeys({})", self.inner.directory.display())
    }
}

#[async_trait]
impl KeyProvider for FileKeys {
    async fn ids(&self) -> Result<Vec<KekId>, Error> {
        Ok(self.inner.keys.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect())
    }

    async fn make(&self) -> Result<KekId, Error> {
        self.blocking(Inner::make).await
    }

    async fn wrap(&self, kek: KekId, context: &[u8], key: &Secret) -> Result<Vec<u8>, Error> {
        Ok(crypto::encrypt(&*self.key(kek)?, context, key.expose()))
    }

    async fn unwrap(&self, kek: KekId, context: &[u8], wrapped: &[u8]) -> Result<Secret, Error> {
        let plain = crypto::decrypt(&*self.key(kek)?, context, wrapped).ok_or(Error::NotWrapped { kek })?;
        Secret::copied(&plain).ok_or(Error::NotWrapped { kek })
    }

    async fn destroy(&self, kek: KekId) -> Result<(), Error> {
        self.blocking(move |inner| inner.destroy(kek)).await
    }
}

impl Inner {
    fn make(&self) -> Result<KekId, Error> {
        let last = self.keys.read().unwrap_or_else(PoisonError::into_inner).keys().next_back().copied();
        let id = KekId::new(last.map_or(0, KekId::get) + 1).expect("more than 0");
        let key = crypto::random_secret();
        let path = file(&self.directory, id);
        write_new(&path, &text(id, &key)).map_err(|error| unusable(&path, format!("cannot be written: {error}")))?;
        self.keys.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::new(key));
        Ok(id)
    }

    fn destroy(&self, kek: KekId) -> Result<(), Error> {
        let last = self.keys.read().unwrap_or_else(PoisonError::into_inner).keys().next_back().copied();
        if last == Some(kek) {
            return Err(Error::Current { kek });
        }
        let path = file(&self.directory, kek);
        match destroy_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(&path, format!("cannot be destroyed: {error}"))),
            _ => {}
        }
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(&kek);
        Ok(())
    }
}

/// The keys must be those of this vault; where there are none yet, they are from now on.
fn own(directory: &Path, mesh: &str, zone: &ZoneName, is_empty: bool) -> Result<(), Error> {
    let path = directory.join(OWNER_FILE);
    let wanted = format!("{OWNER_FORMAT}\n{mesh}\n{zone}\n");
    match fs::read_to_string(&path) {
        Ok(found) if found == wanted => Ok(()),
        Ok(found) => {
            let mut lines = found.lines().skip(1);
            let (mesh, zone) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
            Err(unusable(directory, format!("holds the keys of the vault of zone {zone} of mesh {mesh}")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_empty => {
            write_new(&path, &wanted).map_err(|error| unusable(&path, format!("cannot be written: {error}")))
        }
        Err(error) => Err(unusable(&path, format!("does not say whose the keys beside it are: {error}"))),
    }
}

pub(super) fn unusable(place: &Path, what: impl Into<String>) -> Error {
    Error::Unusable { place: place.to_owned(), what: what.into() }
}

/// Whether the file is there under another name too.
fn has_another_name(path: &Path) -> bool {
    // One that cannot be looked at is not taken for a copy that may be overwritten.
    fs::metadata(path).map_or(true, |metadata| metadata.nlink() > 1)
}

fn file(directory: &Path, id: KekId) -> PathBuf {
    directory.join(format!("kek-{id}.key"))
}

pub(super) fn refuse_others(path: &Path) -> Result<(), Error> {
    let mode = fs::metadata(path).map_err(|error| unusable(path, format!("cannot be looked at: {error}")))?.permissions().mode();
    if mode & NOT_THE_OWNERS != 0 {
        let what = format!("others than its owner may use it (mode {:03o}): chmod go-rwx", mode & 0o777);
        return Err(unusable(path, what));
    }
    Ok(())
}

fn text(id: KekId, key: &Secret) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(FILE_BYTES_MAX).expect("it is small")));
    writeln!(text, "{FORMAT}\n{id}").expect("a text grows");
    hex(&mut text, key.expose());
    text.push('\n');
    let check: [u8; 8] = crypto::hash(text.as_bytes());
    hex(&mut text, &check);
    text.push('\n');
    text
}

fn hex(text: &mut String, bytes: &[u8]) {
    bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}")).expect("a text grows");
}

fn read(path: &Path) -> Result<(KekId, Secret), Error> {
    refuse_others(path)?;
    // Room for all of it, so that it is not copied as it grows.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(FILE_BYTES_MAX + 1).expect("it is small")));
    let read = fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| unusable(path, format!("cannot be read: {error}")))?;
    parse(&text).ok_or_else(|| unusable(path, format!("is no {FORMAT} file, or was changed")))
}

fn parse(written: &str) -> Option<(KekId, Secret)> {
    let mut lines = written.lines();
    let (FORMAT, id, digits) = (lines.next()?, lines.next()?, lines.next()?) else { return None };
    let id = KekId::new(id.parse().ok()?)?;
    let mut key = Secret::zeros();
    if digits.len() != 2 * SECRET_BYTES || !digits.is_ascii() {
        return None;
    }
    for (byte, pair) in key.expose_mut().iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    // One spelling, and the check with it.
    (*text(id, &key) == *written).then_some((id, key))
}

/// Writes a file that is there whole or not at all, also after a power cut, and never over another.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension(MADE);
    // Of a try that failed.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // As a rename, but where there is a file already it fails.
    fs::hard_link(&new, path)?;
    fs::remove_file(&new)?;
    sync_directory_of(path)
}

/// Another name first: a crash in the middle leaves what is known to be no key any more.
fn destroy_file(path: &Path) -> io::Result<()> {
    let gone = path.with_extension(DESTROYED);
    fs::rename(path, &gone)?;
    sync_directory_of(&gone)?;
    overwrite_and_remove(&gone)
}

/// What was in the file's place is zeros before its name goes. On storage that writes changes elsewhere (flash, copies on write), what was there may
/// stay until it is used for something else.
fn overwrite_and_remove(path: &Path) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let length = usize::try_from(file.metadata()?.len().min(FILE_BYTES_MAX)).expect("it is small");
    file.write_all(&vec![0; length])?;
    file.sync_all()?;
    fs::remove_file(path)?;
    sync_directory_of(path)
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
