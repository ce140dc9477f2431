//! Key-encryption keys in a PKCS#11 token: a hardware security module, or SoftHSM2 (OASIS PKCS #11, from version 2.40 on).
//!
//! Keys are AES-256, made in the token, sensitive and not extractable: what is wrapped and unwrapped goes to the token, and its key never comes here. A key is called
//! `paymesh/MESH/ZONE/kek-NUMBER`, so that vaults may share a token without destroying each other's keys. Wrapping is AES-GCM (`CKM_AES_GCM`) with a nonce of 96
//! random bits of ours, as not all tokens make one, which stands before the ciphertext; the context is the associated data.
//!
//! The number of the current key is in the token for as long as the key is, and that one is not destroyed: so no number is given out twice.
//!
//! A token may be far away, or gone. Calls to it block a thread, of which there are a few; whoever waits for one longer than [`WAIT_MAX`] is told that it cannot be
//! had. A PIN that the token has refused is not shown to it again: tokens lock themselves after a few wrong ones.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11},
    error::{Error as Cause, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, SessionState, UserType},
    slot::{Slot, TokenInfo},
    types::AuthPin,
};
use paymesh_types::ZoneName;
use tokio::{sync::Semaphore, time::Instant};
use zeroize::Zeroizing;

use super::file::{refuse_others, unusable};
use crate::{
    crypto,
    keys::{Error, KekId, KeyProvider, SECRET_BYTES, Secret},
};

/// How long whoever asks for something waits for the token.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Calls to the token at once: each takes a thread for as long as it lasts, and a session.
const CALLS_MAX: usize = 8;
/// Keys of a vault at most: rotations destroy all but the last.
const KEYS_MAX: usize = 1024;
/// Bytes of a PIN at most.
const PIN_BYTES_MAX: usize = 255;
/// Bytes of its file at most: a line's end comes after it.
const PIN_FILE_BYTES_MAX: u64 = 257;

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Modules that are in use. PKCS#11 has one state of a module for the whole process, so each is loaded and initialized once, and stays.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// Where a token is.
#[derive(Debug, Clone)]
pub struct Token {
    /// The library that leads to it.
    pub module: PathBuf,
    /// Its label.
    pub label: String,
    /// The file with its user's PIN, which its owner alone may read. Line ends after it are not part of it.
    pub pin: PathBuf,
}

/// The keys of a vault in a token. Cheap to clone; all clones are the same. Nothing is asked of the token before the first call, and what fails may be asked again.
#[derive(Clone)]
pub struct TokenKeys {
    inner: Arc<Inner>,
    calls: Arc<Semaphore>,
    wait_max: Duration,
}

struct Inner {
    token: Token,
    /// What the names of all its keys begin with.
    prefix: String,
    held: Mutex<Held>,
    /// Held by whoever logs in; what a PIN hashes to that was refused.
    refused_pin: Mutex<Option<[u8; 32]>>,
    /// Held by whoever makes or destroys keys.
    changing: Mutex<()>,
}

/// What is held of the token, for as long as nothing fails.
#[derive(Default)]
struct Held {
    /// How often all of it was let go. Handles and sessions of before mean nothing any more, or something else.
    forgotten: u64,
    /// Those that nobody uses now, logged in.
    idle: Vec<Session>,
    /// Keys that were found in the token.
    known: BTreeMap<KekId, ObjectHandle>,
}

/// A session, and what [`Held::forgotten`] was when it began: handles are of use in sessions of the same time only.
struct Entered {
    session: Session,
    at: u64,
}

/// Why one try did not come to its end.
enum Failed {
    /// The token says so.
    Token(Cause),
    /// It is known what is wrong, and another try would be the same.
    Known(Error),
}

impl From<Cause> for Failed {
    fn from(cause: Cause) -> Self {
        Self::Token(cause)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Known(error)
    }
}

impl TokenKeys {
    /// The keys of a vault. One process at a time may make and destroy them.
    pub fn new(token: Token, mesh: &str, zone: &ZoneName) -> Self {
        let prefix = format!("paymesh/{mesh}/{zone}/kek-");
        let (held, refused_pin, changing) = Default::default();
        Self {
            inner: Arc::new(Inner { token, prefix, held, refused_pin, changing }),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            wait_max: WAIT_MAX,
        }
    }

    /// Runs what waits for the token where nobody waits for it, and not for longer than [`WAIT_MAX`]. What takes longer keeps its thread, of which there are no more than
    /// [`CALLS_MAX`].
    async fn call<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let late = || self.inner.unavailable(format!("has not answered within {} ms", self.wait_max.as_millis()));
        let until = Instant::now() + self.wait_max;
        let permit = tokio::time::timeout_at(until, Arc::clone(&self.calls).acquire_owned()).await.map_err(|_| late())?;
        let permit = permit.expect("it is never closed");
        let inner = Arc::clone(&self.inner);
        let working = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&inner)
        });
        match tokio::time::timeout_at(until, working).await {
            Ok(done) => done.map_err(|error| self.inner.unavailable(format!("the work on it died: {error}")))?,
            Err(_) => Err(late()),
        }
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeys({} in token {})", self.inner.prefix, self.inner.token.label)
    }
}

#[async_trait]
impl KeyProvider for TokenKeys {
    async fn ids(&self) -> Result<Vec<KekId>, Error> {
        self.call(|inner| Ok(inner.find_all()?.into_keys().collect())).await
    }

    async fn make(&self) -> Result<KekId, Error> {
        self.call(Inner::make).await
    }

    async fn wrap(&self, kek: KekId, context: &[u8], key: &Secret) -> Result<Vec<u8>, Error> {
        let (context, key) = (context.to_vec(), Secret::copied(key.expose()).expect("it has the bytes of one"));
        self.call(move |inner| inner.with_key(kek, |session, handle| encrypt(session, handle, &context, key.expose()))).await
    }

    async fn unwrap(&self, kek: KekId, context: &[u8], wrapped: &[u8]) -> Result<Secret, Error> {
        let (context, wrapped) = (context.to_vec(), wrapped.to_vec());
        self.call(move |inner| inner.unwrap(kek, &context, &wrapped)).await
    }

    async fn destroy(&self, kek: KekId) -> Result<(), Error> {
        self.call(move |inner| inner.destroy(kek)).await
    }
}

impl Inner {
    fn make(&self) -> Result<KekId, Error> {
        let _changing = lock(&self.changing);
        let last = self.find_all()?.into_keys().next_back();
        let id = KekId::new(last.map_or(0, KekId::get) + 1).expect("more than 0");
        // Not tried again: what failed may have made it all the same, and there would be two.
        self.once(self.session()?, |entered| Ok(entered.session.generate_key(&Mechanism::AesKeyGen, &self.new_key(id))?))?;
        Ok(id)
    }

    /// What a key is to be. What it may not do is said too: tokens differ in what they take for granted.
    fn new_key(&self, id: KekId) -> Vec<Attribute> {
        let bytes = u64::try_from(SECRET_BYTES).expect("it is small").into();
        vec![
            Attribute::Label(self.label(id).into_bytes()),
            Attribute::Id(id.get().to_be_bytes().to_vec()),
            Attribute::ValueLen(bytes),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Modifiable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ]
    }

    fn unwrap(&self, kek: KekId, context: &[u8], wrapped: &[u8]) -> Result<Secret, Error> {
        self.with_key(kek, |session, handle| {
            let not_wrapped = || Failed::Known(Error::NotWrapped { kek });
            if wrapped.len() != NONCE_BYTES + SECRET_BYTES + TAG_BYTES {
                return Err(not_wrapped());
            }
            let plain = match decrypt(session, handle, context, wrapped) {
                Ok(plain) => plain,
                Err(Cause::Pkcs11(RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange, _)) => return Err(not_wrapped()),
                // Many tokens say no more than that something has failed. One that opens what it has just sealed has nothing against the session or the key.
                Err(Cause::Pkcs11(RvError::GeneralError | RvError::FunctionFailed | RvError::DataInvalid, _)) => {
                    let probe = encrypt(session, handle, context, &[0; SECRET_BYTES])?;
                    decrypt(session, handle, context, &probe)?;
                    return Err(not_wrapped());
                }
                Err(cause) => return Err(cause.into()),
            };
            Secret::copied(&plain).ok_or_else(not_wrapped)
        })
    }

    fn destroy(&self, kek: KekId) -> Result<(), Error> {
        let _changing = lock(&self.changing);
        self.with_session(|entered| {
            let found = self.found_in(entered)?;
            let Some(handle) = found.get(&kek) else { return Ok(()) };
            if found.keys().next_back() == Some(&kek) {
                return Err(Error::Current { kek }.into());
            }
            lock(&self.held).known.remove(&kek);
            Ok(entered.session.destroy_object(*handle)?)
        })
    }

    /// Every key of the vault that is in the token.
    fn find_all(&self) -> Result<BTreeMap<KekId, ObjectHandle>, Error> {
        self.with_session(|entered| self.found_in(entered))
    }

    /// The same, with handles that are of use in this session.
    fn found_in(&self, entered: &Entered) -> Result<BTreeMap<KekId, ObjectHandle>, Failed> {
        let session = &entered.session;
        let mut found = BTreeMap::new();
        for handle in session.find_objects(&all_keys())? {
            let Some(id) = self.id_of(session, handle)? else { continue };
            self.refuse_others_make(session, id, handle)?;
            if found.insert(id, handle).is_some() {
                return Err(self.wrong(format!("two of its keys are called {}", self.label(id))).into());
            }
            if found.len() > KEYS_MAX {
                return Err(self.wrong(format!("has more than {KEYS_MAX} keys of this vault")).into());
            }
        }
        self.must_be_there(session)?;
        let mut held = lock(&self.held);
        if held.forgotten == entered.at {
            held.known.clone_from(&found);
        }
        Ok(found)
    }

    /// Who is not logged in is shown no keys, and so is, by some modules, whoever asks a token that was taken out: neither is to be taken for a token without keys.
    fn must_be_there(&self, session: &Session) -> Result<(), Failed> {
        let info = session.get_session_info()?;
        if !matches!(info.session_state(), SessionState::RwUser) {
            return Err(Cause::Pkcs11(RvError::UserNotLoggedIn, Function::FindObjects).into());
        }
        let token = module(&self.token.module)?.get_token_info(info.slot_id())?;
        if !self.is_called(&token) {
            return Err(Cause::Pkcs11(RvError::TokenNotPresent, Function::FindObjects).into());
        }
        Ok(())
    }

    fn is_called(&self, token: &TokenInfo) -> bool {
        token.label().trim_end() == self.token.label
    }

    /// The number of a key of the vault's. None: it is another's.
    fn id_of(&self, session: &Session, handle: ObjectHandle) -> Result<Option<KekId>, Cause> {
        let labels = session.get_attributes(handle, &[AttributeType::Label])?;
        let [Attribute::Label(label)] = &labels[..] else { return Ok(None) };
        let digits = std::str::from_utf8(label).ok().and_then(|label| label.strip_prefix(&self.prefix));
        let id = digits.and_then(|digits| digits.parse().ok()).and_then(KekId::new);
        // One spelling.
        Ok(id.filter(|id| self.label(*id).as_bytes() == label))
    }

    /// A key that was ever outside of the token, or can get there, is in whatever copy somebody made of it: what is wrapped under it is open to them, and destroying it
    /// destroys nothing. One that was put in by bytes says itself that it is sensitive; whether it was made in there the token says.
    fn refuse_others_make(&self, session: &Session, id: KekId, handle: ObjectHandle) -> Result<(), Failed> {
        let wanted = as_made();
        let types: Vec<_> = wanted.iter().map(Attribute::attribute_type).collect();
        let found = session.get_attributes(handle, &types)?;
        // One that the token does not tell is not as it should be either.
        let Some(other) = wanted.iter().find(|wanted| !found.contains(wanted)) else { return Ok(()) };
        Err(self.wrong(format!("has a key {} that no vault made: it is not {other:?}", self.label(id))).into())
    }

    /// Does something with a key. One that is not known, or not any more, is looked for, in the session that it is used in: by another login's handle, another key may be
    /// meant.
    fn with_key<T>(&self, kek: KekId, work: impl Fn(&Session, ObjectHandle) -> Result<T, Failed>) -> Result<T, Error> {
        self.with_session(|entered| {
            if let Some(handle) = self.known(entered, kek) {
                match work(&entered.session, handle) {
                    Err(Failed::Token(Cause::Pkcs11(RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid, _))) => {}
                    done => return done,
                }
            }
            let handle = self.found_in(entered)?.get(&kek).copied().ok_or(Error::Missing { kek })?;
            work(&entered.session, handle)
        })
    }

    /// The handle of a key, where one is known that is of use in this session.
    fn known(&self, entered: &Entered, kek: KekId) -> Option<ObjectHandle> {
        let held = lock(&self.held);
        held.known.get(&kek).copied().filter(|_| held.forgotten == entered.at)
    }

    /// Does something in a session. Where it fails for the session or the token, it is tried once more in a new one: a token that was away has forgotten all of them.
    /// What is found in one is not to be taken along to the other.
    fn with_session<T>(&self, work: impl Fn(&Entered) -> Result<T, Failed>) -> Result<T, Error> {
        if let Some(entered) = self.idle() {
            match self.once(entered, &work) {
                Err(Error::Unavailable { what, .. }) => {
                    tracing::warn!(token = self.token.label, why = what, "a session with the token of the vault's keys has failed");
                }
                done => return done,
            }
        }
        self.once(self.open()?, work)
    }

    /// Does something in this session, which is kept where that goes well.
    fn once<T>(&self, entered: Entered, work: impl Fn(&Entered) -> Result<T, Failed>) -> Result<T, Error> {
        match work(&entered) {
            Ok(done) => {
                let mut held = lock(&self.held);
                if held.forgotten == entered.at {
                    held.idle.push(entered.session);
                }
                Ok(done)
            }
            Err(Failed::Known(error)) => Err(error),
            Err(Failed::Token(cause)) => {
                drop(entered);
                self.forget();
                Err(self.unavailable(said(&cause)))
            }
        }
    }

    fn session(&self) -> Result<Entered, Error> {
        self.idle().map_or_else(|| self.open(), Ok)
    }

    fn idle(&self) -> Option<Entered> {
        let mut held = lock(&self.held);
        let at = held.forgotten;
        held.idle.pop().map(|session| Entered { session, at })
    }

    /// Nothing of earlier sessions is used any more.
    fn forget(&self) {
        let sessions = {
            let mut held = lock(&self.held);
            held.forgotten += 1;
            held.known.clear();
            std::mem::take(&mut held.idle)
        };
        drop(sessions);
    }

    /// A session that is logged in.
    fn open(&self) -> Result<Entered, Error> {
        // Before it begins: what is forgotten meanwhile may be this login.
        let at = lock(&self.held).forgotten;
        let module = module(&self.token.module)?;
        let mut refused = lock(&self.refused_pin);
        let pin = read_pin(&self.token.pin)?;
        let hash: [u8; 32] = crypto::hash(pin.as_bytes());
        if *refused == Some(hash) {
            return Err(unusable(&self.token.pin, format!("its PIN was refused by token {}, and is not tried again", self.token.label)));
        }
        let slot = self.slot(&module)?;
        let told = |cause: Cause| self.unavailable(said(&cause));
        let session = module.open_rw_session(slot).map_err(told)?;
        // A login is the process's, not the session's.
        match session.login(UserType::User, Some(&AuthPin::from(pin.as_str()))) {
            Ok(()) | Err(Cause::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(Entered { session, at }),
            Err(cause @ Cause::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                *refused = Some(hash);
                Err(unusable(&self.token.pin, format!("is not the PIN of token {} ({})", self.token.label, said(&cause))))
            }
            Err(cause) => Err(told(cause)),
        }
    }

    fn slot(&self, module: &Pkcs11) -> Result<Slot, Error> {
        let told = |cause: Cause| self.unavailable(said(&cause));
        let mut found = Vec::new();
        for slot in module.get_slots_with_token().map_err(told)? {
            // One that is taken out just now is not the one.
            if module.get_token_info(slot).is_ok_and(|info| self.is_called(&info)) {
                found.push(slot);
            }
        }
        match found[..] {
            [slot] => Ok(slot),
            [] => Err(self.unavailable(format!("{} knows of no token of that label", self.token.module.display()))),
            _ => Err(self.wrong(format!("{} knows of {} tokens of that label", self.token.module.display(), found.len()))),
        }
    }

    fn label(&self, id: KekId) -> String {
        format!("{}{id}", self.prefix)
    }

    fn unavailable(&self, what: impl Into<String>) -> Error {
        Error::Unavailable { token: self.token.label.clone(), what: what.into() }
    }

    fn wrong(&self, what: impl Into<String>) -> Error {
        unusable(Path::new(&format!("token {}", self.token.label)), what)
    }
}

/// The module, loaded and initialized.
fn module(path: &Path) -> Result<Pkcs11, Error> {
    let mut modules = lock(&MODULES);
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path).map_err(|cause| unusable(path, format!("cannot be used as a PKCS#11 module: {}", said(&cause))))?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Cause::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(cause) => return Err(unusable(path, format!("does not begin: {}", said(&cause)))),
    }
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

fn read_pin(path: &Path) -> Result<Zeroizing<String>, Error> {
    refuse_others(path)?;
    // Room for all of it, so that it is not copied as it grows.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(PIN_FILE_BYTES_MAX + 2).expect("it is small")));
    let read = fs::File::open(path).and_then(|file| file.take(PIN_FILE_BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| unusable(path, format!("cannot be read: {error}")))?;
    let is_longer = text.len() as u64 > PIN_FILE_BYTES_MAX;
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    if text.is_empty() || text.contains(['\r', '\n']) {
        return Err(unusable(path, "is no PIN: it has one line"));
    }
    // What is cut off would be refused by the token, which counts that.
    if is_longer || text.len() > PIN_BYTES_MAX {
        return Err(unusable(path, format!("is no PIN: it has more than {PIN_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Where the keys of all vaults are among. Objects that are not private are everybody's: whoever has no PIN can make them.
fn all_keys() -> [Attribute; 4] {
    [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES), Attribute::Token(true), Attribute::Private(true)]
}

/// What a key is that [`Inner::make`] made. Whoever has bytes of a key and puts them in cannot have `Local`, `AlwaysSensitive` and `NeverExtractable`: the token says them.
fn as_made() -> [Attribute; 10] {
    [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Local(true),
        Attribute::AlwaysSensitive(true),
        Attribute::NeverExtractable(true),
        Attribute::Modifiable(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ]
}

fn encrypt(session: &Session, key: ObjectHandle, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut nonce: [u8; NONCE_BYTES] = crypto::random();
    let sealed = session.encrypt(&Mechanism::AesGcm(params(&mut nonce, context)?), key, plain)?;
    Ok([&nonce[..], &sealed].concat())
}

fn decrypt(session: &Session, key: ObjectHandle, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Cause> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(Cause::InvalidValue)?;
    let mut nonce = *nonce;
    Ok(Zeroizing::new(session.decrypt(&Mechanism::AesGcm(params(&mut nonce, context)?), key, ciphertext)?))
}

fn params<'a>(nonce: &'a mut [u8], context: &'a [u8]) -> Result<GcmParams<'a>, Cause> {
    GcmParams::new(nonce, context, u64::try_from(8 * TAG_BYTES)?.into())
}

/// A cause in few words: what cryptoki prints is the standard's own paragraph on it.
fn said(cause: &Cause) -> String {
    match cause {
        Cause::Pkcs11(code, function) => format!("{function} says {code:?}"),
        other => other.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Instant};

    use super::*;

    /// What hangs takes its threads and no others, and nobody waits for it for longer than is said.
    #[tokio::test]
    async fn a_token_that_does_not_answer_is_not_waited_for() {
        let token = Token { module: "/nowhere".into(), label: "away".to_owned(), pin: "/nowhere".into() };
        let keys = TokenKeys { wait_max: Duration::from_millis(100), ..TokenKeys::new(token, "test", &"eu".parse().expect("a zone")) };
        let (answers, stuck) = mpsc::sync_channel::<()>(1);
        let stuck = Arc::new(Mutex::new(stuck));
        let hangs = |stuck: Arc<Mutex<mpsc::Receiver<()>>>| {
            move |_: &Inner| {
                let _ = lock(&stuck).recv();
                Ok(())
            }
        };
        let began = Instant::now();
        for _ in 0..CALLS_MAX + 2 {
            let error = keys.call(hangs(stuck.clone())).await.expect_err("it hangs");
            assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(keys.calls.available_permits(), 0, "each holds its thread");
        drop(answers);
        while keys.calls.available_permits() < CALLS_MAX {
            thread::sleep(Duration::from_millis(5));
        }
        keys.call(|_| Ok(())).await.expect("it answers again");
    }
}
