//! Who may call, as the files say it now.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use paymesh_contract::policies;
use paymesh_identity::{ShownCaller, read_public};
use paymesh_topology::{ACCESS_FILE_NAME, Access, Issuer, KeySource, Principal, Topology, UserGrant};
use paymesh_types::UserId;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    CLAIM_USERS_MAX, Error, Grant, Refusal, Shown,
    caller::Known,
    fetch,
    keys::Keys,
    limits::Taken,
    recent::Recent,
    token::{self, Claims},
};

/// Tokens that are remembered at most, twice over: some hundred bytes each beside the token.
const TOKENS_MAX: usize = 8_192;

/// How often files are looked at.
const FILES_EVERY: Duration = Duration::from_secs(5);
/// How often a URL is asked.
const URL_EVERY: Duration = Duration::from_secs(300);
/// And at least so long after another time, when a token has a key that is not known or the last time gave none.
const URL_AGAIN: Duration = Duration::from_secs(10);

/// Where what callers are known by is found.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of region-config, with access.yaml.
    pub config: PathBuf,
    /// The directory where relative paths of key files begin.
    pub credentials: PathBuf,
    /// The mesh.
    pub topology: Arc<Topology>,
}

/// Who may call. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Callers {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    current: RwLock<Arc<Loaded>>,
    /// Grants, and by which reading of the files they were found: those of another say nothing.
    recent: Recent<(u64, Arc<Grant>)>,
    /// Told whenever something else holds than before.
    changed: watch::Sender<()>,
    /// Told when a token has a key that is not known.
    key_unknown: Notify,
}

/// What was read at one time.
struct Loaded {
    /// Its number among all that were read.
    reading: u64,
    access: Access,
    issuers: Vec<KnownIssuer>,
    principals: Vec<Arc<Known>>,
}

#[derive(Clone)]
struct KnownIssuer {
    issuer: Issuer,
    /// `None`: they could not be had yet.
    keys: Option<Arc<Keys>>,
    /// What a file of them was when it was read.
    bytes: Vec<u8>,
}

/// How it stands with what callers are known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// All is in use as the files have it.
    Good,
    /// Something cannot be used, and what was read before stays in use.
    Problem(String),
}

impl Callers {
    /// Reads access.yaml and the files of keys that it names. Keys at URLs are had by [`Self::watch`]. Without access.yaml nobody is let
    /// in.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub fn load(settings: Settings, now: Instant) -> Result<Self, Error> {
        let loaded = Loaded::read(&settings, None, now)?;
        let (changed, _) = watch::channel(());
        let inner = Inner {
            settings,
            current: RwLock::new(Arc::new(loaded)),
            recent: Recent::new(TOKENS_MAX),
            changed,
            key_unknown: Notify::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether anybody may call at all.
    pub fn is_empty(&self) -> bool {
        self.current().principals.is_empty()
    }

    /// Who shows this token.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn by_token(&self, token: &str, now: SystemTime) -> Result<Arc<Grant>, Refusal> {
        let key = *blake3::hash(token.as_bytes()).as_bytes();
        let current = self.current();
        if let Some((_, grant)) = self.inner.recent.get(&key).filter(|(reading, _)| *reading == current.reading) {
            return grant.holds(now).map(|()| grant);
        }
        let grant = current.by_token(token, now);
        match &grant {
            Ok(grant) => self.inner.recent.put(key, (current.reading, Arc::clone(grant))),
            Err(Refusal::KeyUnknown | Refusal::KeysMissing { .. }) => self.inner.key_unknown.notify_one(),
            Err(_) => {}
        }
        grant
    }

    /// Who shows this certificate, which an authority of the mesh vouches for.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn by_certificate(&self, caller: &ShownCaller, now: SystemTime) -> Result<Arc<Grant>, Refusal> {
        if now >= caller.not_after {
            return Err(Refusal::Expired);
        }
        let current = self.current();
        let is_it = |known: &&Arc<Known>| known.principal.certificate && known.principal.name == caller.name.name();
        let known = current.principals.iter().find(is_it).ok_or(Refusal::PrincipalUnknown)?;
        Ok(Arc::new(Grant {
            principal: Arc::clone(known),
            shown: Shown::Certificate(caller.clone()),
            scopes: known.principal.scopes.clone(),
            users: None,
            // Whoever accepted the handshake, or the chain that was passed on, has looked.
            begins: SystemTime::UNIX_EPOCH,
            ends: caller.not_after,
            audited: paymesh_audit::Caller::Certificate(known.principal.name.as_str().into()),
        }))
    }

    /// Waits until a grant no longer holds, and says why: its credential has ended, or the files no longer say what they said.
    pub async fn ended(&self, grant: Arc<Grant>, clock: impl Fn() -> SystemTime) -> Refusal {
        let mut changed = self.inner.changed.subscribe();
        // Whatever has changed since the grant was found is seen by looking once.
        changed.mark_changed();
        loop {
            let Ok(left) = grant.ends.duration_since(clock()) else { return Refusal::Expired };
            if left.is_zero() {
                return Refusal::Expired;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                told = changed.changed() => {
                    if told.is_err() {
                        return Refusal::PrincipalUnknown;
                    }
                    let again = match &grant.shown {
                        Shown::Token { token, .. } => self.by_token(token, clock()),
                        Shown::Certificate(caller) => self.by_certificate(caller, clock()),
                    };
                    match again {
                        Err(refusal) => return refusal,
                        // Less than it had: whoever goes on must ask again, and be looked at.
                        Ok(now) if !now.covers(&grant) => return Refusal::LessGranted,
                        Ok(_) => {}
                    }
                }
            }
        }
    }

    /// Reads the files again. True: something has changed, and holds from now on.
    ///
    /// # Errors
    /// What is wrong with a file. What was read before stays in use.
    pub fn reload(&self, now: Instant) -> Result<bool, Error> {
        let before = self.current();
        let loaded = Loaded::read(&self.inner.settings, Some(&before), now)?;
        let same = loaded.access == before.access
            && loaded
                .issuers
                .iter()
                .zip(&before.issuers)
                .all(|(new, old)| matches!(new.issuer.keys, KeySource::Url { .. }) || new.bytes == old.bytes);
        if same {
            return Ok(false);
        }
        self.replace(loaded);
        Ok(true)
    }

    /// Keeps what callers are known by up to date, for as long as it is polled; tells how it stands whenever that changes.
    pub async fn watch(&self, mut tell: impl FnMut(Watched)) -> std::convert::Infallible {
        let mut files = tokio::time::interval(FILES_EVERY);
        files.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut asked, mut of_files, mut of_urls) = (None::<Instant>, Watched::Good, Watched::Good);
        let (mut told, mut unknown) = (None, false);
        loop {
            let soon = unknown || of_urls != Watched::Good;
            let due = asked.map_or_else(Instant::now, |asked: Instant| asked + if soon { URL_AGAIN } else { URL_EVERY });
            tokio::select! {
                _ = files.tick() => {
                    let reading = self.clone();
                    let read = tokio::task::spawn_blocking(move || reading.reload(Instant::now()).map_err(|error| error.to_string())).await;
                    of_files = match read.unwrap_or_else(|died| Err(died.to_string())) {
                        Ok(changed) => {
                            if changed {
                                tracing::info!("callers are known by new files");
                                // Another URL may be among them.
                                asked = None;
                            }
                            Watched::Good
                        }
                        Err(why) => Watched::Problem(why),
                    };
                }
                () = tokio::time::sleep_until(due) => {
                    of_urls = self.ask_urls().await;
                    (asked, unknown) = (Some(Instant::now()), false);
                }
                () = self.inner.key_unknown.notified(), if !unknown => unknown = true,
            }
            let now = if of_files == Watched::Good { &of_urls } else { &of_files };
            if told.as_ref() != Some(now) {
                if let Watched::Problem(why) = now {
                    tracing::error!(%why, "callers are still known by what was read before");
                }
                told = Some(now.clone());
                tell(now.clone());
            }
        }
    }

    /// Asks every URL for its keys.
    async fn ask_urls(&self) -> Watched {
        let mut problem = Watched::Good;
        let issuers = self.current().issuers.clone();
        for known in issuers {
            let KeySource::Url { url, authorities } = &known.issuer.keys else { continue };
            let authorities = authorities.as_ref().map(|file| self.inner.settings.credentials.join(file));
            let keys = match fetch::get(url, authorities.as_deref()).await {
                Ok(bytes) => Keys::read(&bytes).map(|keys| (keys, bytes)),
                Err(what) => Err(what),
            };
            match keys {
                Ok((_, bytes)) if bytes == known.bytes => {}
                Ok((keys, bytes)) => {
                    let before = self.current();
                    let mut issuers = before.issuers.clone();
                    for issuer in issuers.iter_mut().filter(|issuer| issuer.issuer == known.issuer) {
                        (issuer.keys, issuer.bytes) = (Some(Arc::new(keys.clone())), bytes.clone());
                    }
                    tracing::info!(issuer = known.issuer.name, "new keys are in use");
                    self.replace(Loaded { reading: 0, access: before.access.clone(), issuers, principals: before.principals.clone() });
                }
                Err(what) => problem = Watched::Problem(Error::Fetch { url: url.clone(), what }.to_string()),
            }
        }
        problem
    }

    fn replace(&self, mut loaded: Loaded) {
        let mut current = self.inner.current.write().unwrap_or_else(PoisonError::into_inner);
        loaded.reading = current.reading + 1;
        *current = Arc::new(loaded);
        drop(current);
        // Whoever is told looks again, and finds this.
        self.inner.changed.send_modify(|_| {});
    }

    fn current(&self) -> Arc<Loaded> {
        self.inner.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Callers({})", self.inner.settings.config.display())
    }
}

impl Grant {
    /// Whether its credential holds now: clocks are also put back.
    fn holds(&self, now: SystemTime) -> Result<(), Refusal> {
        match now {
            now if now >= self.ends => Err(Refusal::Expired),
            now if now < self.begins => Err(Refusal::NotYetValid),
            _ => Ok(()),
        }
    }

    /// Whether it allows all that another does.
    fn covers(&self, other: &Self) -> bool {
        let (own, others) = (&self.principal.principal, &other.principal.principal);
        let users = match (&self.users, &other.users) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => own.is_superset(others),
        };
        let zones = own.zones.covers(&others.zones) && own.pays.covers(&others.pays);
        own.name == others.name && zones && users && self.scopes.is_superset(&other.scopes)
    }
}

impl Loaded {
    fn read(settings: &Settings, before: Option<&Self>, now: Instant) -> Result<Self, Error> {
        let access = match Access::load(&settings.config, &settings.topology, &policies().caller_scopes())? {
            Some(access) => access,
            // Nobody is locked out by a file that is moved away.
            None if before.is_some_and(|before| !before.principals.is_empty()) => {
                let (path, what) =
                    (settings.config.join(ACCESS_FILE_NAME), "is gone; one that grants nobody anything is not made so".to_owned());
                return Err(Error::Keys { path, what });
            }
            None => Access::default(),
        };
        let issuers = access.issuers().iter().map(|issuer| {
            let known = before.and_then(|before| before.issuers.iter().find(|known| known.issuer == *issuer));
            match &issuer.keys {
                KeySource::Url { .. } => {
                    let (keys, bytes) = known.map(|known| (known.keys.clone(), known.bytes.clone())).unwrap_or_default();
                    Ok(KnownIssuer { issuer: issuer.clone(), keys, bytes })
                }
                KeySource::File(file) => {
                    let path = settings.credentials.join(file);
                    let bytes = read_public(&path)?;
                    if let Some(known) = known.filter(|known| known.bytes == bytes) {
                        return Ok(known.clone());
                    }
                    let keys = Keys::read(&bytes).map_err(|what| Error::Keys { path, what })?;
                    Ok(KnownIssuer { issuer: issuer.clone(), keys: Some(Arc::new(keys)), bytes })
                }
            }
        });
        let issuers = issuers.collect::<Result<Vec<_>, Error>>()?;
        let principals = access.principals().iter().map(|principal| known(principal, before, now)).collect();
        Ok(Self { reading: 0, access, issuers, principals })
    }

    fn by_token(&self, token: &str, now: SystemTime) -> Result<Arc<Grant>, Refusal> {
        let KnownIssuer { issuer, keys, .. } = token::issuer_of(token, &self.issuers, |known| &known.issuer)?;
        let keys = keys.as_ref().ok_or_else(|| Refusal::KeysMissing { issuer: issuer.name.clone() })?;
        let claims = token::check(token, issuer, keys, now)?;
        let is_it = |known: &&Arc<Known>| {
            let tokens = known.principal.tokens.as_ref();
            tokens.is_some_and(|tokens| {
                tokens.issuer == issuer.name && tokens.claims.iter().all(|(name, value)| claims.text(name).as_ref() == Some(value))
            })
        };
        // No token is two principals': access.yaml is not taken otherwise.
        let known = self.principals.iter().find(is_it).ok_or(Refusal::PrincipalUnknown)?;
        let mut scopes = known.principal.scopes.clone();
        if claims.all.contains_key("scope") {
            let named: BTreeSet<String> =
                claims.words("scope").ok_or(Refusal::TokenInvalid("has a `scope` that is none"))?.into_iter().collect();
            scopes.retain(|scope| named.contains(scope));
        }
        let (issuer, id) = (issuer.name.clone(), claims.text("jti"));
        let audited =
            paymesh_audit::Token { principal: known.principal.name.clone(), issuer: issuer.clone(), id: id.clone().unwrap_or_default() };
        Ok(Arc::new(Grant {
            principal: Arc::clone(known),
            shown: Shown::Token { issuer, id, token: token.into() },
            scopes,
            users: users(&known.principal, &claims)?,
            begins: claims.begins,
            ends: claims.ends,
            audited: paymesh_audit::Caller::Token(Arc::new(audited)),
        }))
    }
}

/// The principal, with what it has taken where it was known with the same limits.
fn known(principal: &Principal, before: Option<&Loaded>, now: Instant) -> Arc<Known> {
    let same = before.and_then(|before| before.principals.iter().find(|known| known.principal.name == principal.name));
    match same {
        Some(known) if known.principal == *principal => Arc::clone(known),
        _ => Arc::new(Known { principal: principal.clone(), taken: Taken::new(principal.limits, now) }),
    }
}

/// The users that a token's owner acts for.
fn users(principal: &Principal, claims: &Claims) -> Result<Option<BTreeSet<UserId>>, Refusal> {
    let claim = match &principal.users {
        UserGrant::Any => return Ok(None),
        UserGrant::Own => "sub",
        UserGrant::Claim(claim) => claim,
    };
    let words = claims.words(claim).ok_or(Refusal::TokenInvalid("does not have the claim that names its users"))?;
    if words.len() > CLAIM_USERS_MAX {
        return Err(Refusal::TokenInvalid("names more users than a token may"));
    }
    let user = |word: &String| word.parse::<u64>().ok().and_then(|id| UserId::try_from(id).ok());
    let users = words.iter().map(user).collect::<Option<BTreeSet<UserId>>>();
    users.map(Some).ok_or(Refusal::TokenInvalid("names a user whose id is none"))
}

/// Where [`Settings::credentials`] is not given.
impl Settings {
    /// Settings for a configuration's folder and a directory of credentials.
    pub fn new(config: &Path, credentials: &Path, topology: Arc<Topology>) -> Self {
        Self { config: config.to_owned(), credentials: credentials.to_owned(), topology }
    }
}
