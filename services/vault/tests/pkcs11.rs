//! Keys in a PKCS#11 token: SoftHSM2, in directories of its own. Where that is not installed, what would be tested is said to be SKIPPED.
//!
//! SoftHSM2 reads its configuration from the environment when it is loaded, and a process has one state of a module: each test runs once more in a process of
//! its own, for which there is a configuration of its own.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "says what is skipped, and what a token says")]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass},
    session::{Session, SessionState, UserType},
    types::AuthPin,
};
use paymesh_cards::{Card, CardNumber, Expiry};
use paymesh_types::{Timestamp, UserId, ZoneName};
use paymesh_vault::{
    Clock, Error as VaultError, Offered, RotationPlan, Vault,
    keys::{
        Error, KeyProvider, Secret, Token, TokenKeys,
        conformance::{Providers, provider},
    },
    store::{SqliteStore, Store as _},
};
use uuid::Uuid;

/// Below which folder SoftHSM2 is, where it is not installed.
const SOFTHSM: &str = "PAYMESH_SOFTHSM";
/// Where the directory of the test's tokens is, in the process that is started for it.
const PLACE: &str = "PAYMESH_TEST_TOKENS";
const PIN: &str = "5678-user";
/// Tokens that there are: `token-0` and so on.
const TOKENS: usize = 8;

/// Runs the rest of a test in a process with tokens of its own; `None`: this is the other process.
fn tokens(test: &str) -> Option<Tokens> {
    let softhsm = PathBuf::from(env::var_os(SOFTHSM).unwrap_or_else(|| "/".into()));
    let module = softhsm.join("usr/lib/softhsm/libsofthsm2.so");
    if let Some(place) = env::var_os(PLACE) {
        return Some(Tokens { place: place.into(), module, next: AtomicUsize::new(0) });
    }
    if !module.exists() {
        println!("SKIPPED: {test} needs SoftHSM2: apt-get install softhsm2");
        return None;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path();
    fs::create_dir(place.join("tokens")).expect("it is ours");
    let conf = place.join("softhsm2.conf");
    fs::write(&conf, format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", place.join("tokens").display()))
        .expect("it is ours");
    for number in 0..TOKENS {
        let label = format!("token-{number}");
        let mut make = Command::new(softhsm.join("usr/bin/softhsm2-util"));
        make.arg("--module").arg(&module).args(["--init-token", "--free", "--so-pin", "1234-officer", "--pin", PIN, "--label", &label]);
        let made = make.env("SOFTHSM2_CONF", &conf).output().expect("softhsm2-util is installed beside the module");
        assert!(made.status.success(), "{made:?}");
    }
    pin_file(&place.join("pin"), &format!("{PIN}\n"));
    let mut inside = Command::new(env::current_exe().expect("this program"));
    let ran = inside.args(["--exact", test, "--nocapture"]).env("SOFTHSM2_CONF", &conf).env(PLACE, place).output().expect("it runs");
    let (out, said) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    println!("{out}");
    assert!(ran.status.success() && out.contains("1 passed"), "{said}");
    None
}

/// Tokens of this process's.
struct Tokens {
    place: PathBuf,
    module: PathBuf,
    /// The next that nobody has.
    next: AtomicUsize,
}

impl Tokens {
    fn next(&self) -> Token {
        let number = self.next.fetch_add(1, Relaxed);
        assert!(number < TOKENS, "more tokens are needed");
        Token { module: self.module.clone(), label: format!("token-{number}"), pin: self.place.join("pin") }
    }

    /// What another program does in a token.
    fn session(&self, label: &str) -> Session {
        let session = self.unlogged_session(label);
        let _ = session.login(UserType::User, Some(&AuthPin::from(PIN)));
        session
    }

    /// What anybody can do in a token.
    fn unlogged_session(&self, label: &str) -> Session {
        let module = Pkcs11::new(&self.module).expect("the module");
        let labelled = |slot| module.get_token_info(slot).expect("a token").label().trim_end() == label;
        let slot = module.get_slots_with_token().expect("slots").into_iter().find(|slot| labelled(*slot)).expect("the token");
        module.open_rw_session(slot).expect("a session")
    }

    /// The directory that SoftHSM2 has a token in.
    fn directory(&self, label: &str) -> PathBuf {
        let all = fs::read_dir(self.place.join("tokens")).expect("it is ours").map(|entry| entry.expect("it is ours").path());
        all.into_iter()
            .find(|path| fs::read(path.join("token.object")).expect("a token").windows(label.len()).any(|part| part == label.as_bytes()))
            .expect("the token")
    }
}

fn pin_file(path: &Path, text: &str) {
    fs::write(path, text).expect("it is ours");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

fn zone() -> ZoneName {
    "eu".parse().expect("a zone")
}

fn open(token: Token) -> TokenKeys {
    TokenKeys::new(token, "test", &zone())
}

fn secret() -> Secret {
    Secret::copied(&[7; 32]).expect("32 bytes")
}

impl Providers for Tokens {
    type Place = Token;

    async fn place(&self) -> Token {
        self.next()
    }

    async fn open(&self, place: &Token) -> Box<dyn KeyProvider> {
        Box::new(open(place.clone()))
    }
}

#[tokio::test]
async fn a_token_keeps_keys_as_the_port_says() {
    let Some(tokens) = tokens("a_token_keeps_keys_as_the_port_says") else { return };
    provider(&tokens).await;
}

#[tokio::test]
async fn keys_stay_in_the_token_and_are_one_vaults() {
    let Some(tokens) = tokens("keys_stay_in_the_token_and_are_one_vaults") else { return };
    let token = tokens.next();
    let (ours, others) = (open(token.clone()), TokenKeys::new(token.clone(), "test", &"global".parse().expect("a zone")));
    let kek = ours.make().await.expect("a key");
    assert_eq!(others.ids().await.expect("it answers"), []);
    assert_eq!(others.make().await.expect("a key"), kek, "each counts by itself");
    let wrapped = ours.wrap(kek, b"context", &secret()).await.expect("wrapped");
    assert!(matches!(others.unwrap(kek, b"context", &wrapped).await, Err(Error::NotWrapped { .. })));
    let next = others.make().await.expect("a key");
    others.destroy(kek).await.expect("destroyed");
    assert_eq!((others.ids().await.expect("it answers"), ours.ids().await.expect("it answers")), (vec![next], vec![kek]));
    assert_eq!(ours.unwrap(kek, b"context", &wrapped).await.expect("unwrapped").expose(), secret().expose());
}

/// An AES key of bytes that somebody has, which says of itself what it can.
fn planted(is_private: bool) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(b"paymesh/test/eu/kek-7".to_vec()),
        Attribute::Value(vec![9; 32]),
        Attribute::Token(true),
        Attribute::Private(is_private),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ]
}

/// What is made is as it is asked for when it is there already: otherwise a vault would refuse its own keys, or take others'.
#[tokio::test]
async fn a_key_was_never_outside_of_the_token_and_cannot_get_there() {
    let Some(tokens) = tokens("a_key_was_never_outside_of_the_token_and_cannot_get_there") else { return };
    let token = tokens.next();
    let kek = open(token.clone()).make().await.expect("a key");
    let session = tokens.session(&token.label);
    let found = session.find_objects(&[Attribute::Label(format!("paymesh/test/eu/kek-{kek}").into_bytes())]).expect("it answers");
    let [key] = found[..] else { panic!("{found:?}") };
    let wanted = [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Local(true),
        Attribute::AlwaysSensitive(true),
        Attribute::NeverExtractable(true),
        Attribute::Modifiable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    for wanted in wanted {
        assert_eq!(session.get_attributes(key, &[wanted.attribute_type()]).expect("it is told"), [wanted]);
    }
}

/// Keys that somebody else has made, by a label of ours.
#[tokio::test]
async fn a_key_that_no_vault_made_is_refused() {
    let Some(tokens) = tokens("a_key_that_no_vault_made_is_refused") else { return };
    let token = tokens.next();
    let ours = open(token.clone());
    let kek = ours.make().await.expect("a key");
    let session = tokens.session(&token.label);
    let made = |changed: Attribute| {
        let mut template: Vec<_> = planted(true).into_iter().skip(2).filter(|part| !matches!(part, Attribute::Value(_))).collect();
        template.push(Attribute::ValueLen(32_u64.into()));
        template.retain(|part| part.attribute_type() != changed.attribute_type());
        template.push(changed);
        session.generate_key(&Mechanism::AesKeyGen, &template).expect("a key")
    };
    for (planted, what) in [
        (session.create_object(&planted(true)).expect("a key"), "Local(true)"),
        (made(Attribute::Sensitive(false)), "Sensitive(true)"),
        (made(Attribute::Extractable(true)), "Extractable(false)"),
        (made(Attribute::Modifiable(true)), "Modifiable(false)"),
        (made(Attribute::Wrap(true)), "Wrap(false)"),
        (made(Attribute::Unwrap(true)), "Unwrap(false)"),
        (made(Attribute::Derive(true)), "Derive(false)"),
    ] {
        let error = ours.ids().await.expect_err(what).to_string();
        assert!(error.contains(&format!("has a key paymesh/test/eu/kek-7 that no vault made: it is not {what}")), "{error}");
        assert!(ours.make().await.is_err(), "{what}");
        session.destroy_object(planted).expect("destroyed");
    }
    assert_eq!(ours.ids().await.expect("it answers"), [kek]);
}

/// Whoever can open the token without its PIN can put public objects in, with any label and bytes that they have.
#[tokio::test]
async fn a_key_that_was_planted_without_the_pin_is_none() {
    let Some(tokens) = tokens("a_key_that_was_planted_without_the_pin_is_none") else { return };
    let (module, clock) = (Pkcs11::new(&tokens.module).expect("the module"), Arc::new(|| Timestamp(1_795_000_000_000_000)) as Clock);
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("nobody else has yet");
    for is_new in [true, false] {
        let token = tokens.next();
        let store = SqliteStore::open(&tokens.place.join(&token.label), "test", &zone()).await.expect("the store opens");
        let opening = Vault::open(zone(), Arc::new(store.clone()), Arc::new(open(token.clone())), clock.clone());
        let plant = || {
            // Logged in where the vault is: that is the process's.
            let session = tokens.unlogged_session(&token.label);
            assert_eq!(matches!(session.get_session_info().expect("it answers").session_state(), SessionState::RwPublic), is_new);
            session.create_object(&planted(false)).expect("nobody hinders it");
        };
        let vault = if is_new {
            plant();
            opening.await.expect("the vault opens")
        } else {
            let vault = opening.await.expect("the vault opens");
            plant();
            vault
        };
        let card =
            Card { number: CardNumber::parse("4242424242424242").expect("a number"), expiry: Expiry::new(7, 2031).expect("an expiry") };
        let (user, request) = (UserId::try_from(1).expect("a user"), Uuid::now_v7().try_into().expect("a request id"));
        vault.tokenize(request, user, Offered::Clear(card)).await.expect("a card");
        assert_eq!(vault.tend(RotationPlan::default()).await.expect("it answers"), None, "nothing is due");
        assert_eq!(vault.rotate().await.expect("rotated").kek.get(), 2);
        assert_eq!(store.user_key(user).await.expect("it answers").expect("there is one").kek.get(), 2);
        assert_eq!(open(token).ids().await.expect("it answers").len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_each_get_their_own() {
    let Some(tokens) = tokens("many_at_once_each_get_their_own") else { return };
    let keys = open(tokens.next());
    let kek = keys.make().await.expect("a key");
    let asking = (0..32_u8).map(|lane| {
        let keys = keys.clone();
        tokio::spawn(async move {
            let secret = Secret::copied(&[lane; 32]).expect("32 bytes");
            for _ in 0..20 {
                let wrapped = keys.wrap(kek, &[lane], &secret).await.expect("wrapped");
                assert_eq!(keys.unwrap(kek, &[lane], &wrapped).await.expect("unwrapped").expose(), secret.expose());
            }
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.expect("it ran");
    }
    let (began, wrapped) = (std::time::Instant::now(), keys.wrap(kek, b"", &secret()).await.expect("wrapped"));
    for _ in 0..1_000 {
        keys.unwrap(kek, b"", &wrapped).await.expect("unwrapped");
    }
    println!("a thousand keys were unwrapped one after the other in {:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said() {
    let Some(tokens) = tokens("what_is_wrong_with_a_token_is_said") else { return };
    let token = tokens.next();
    open(token.clone()).make().await.expect("a key");
    let with_pin = |name: &str, text: &str| {
        let pin = tokens.place.join(name);
        pin_file(&pin, text);
        Token { pin, ..token.clone() }
    };
    let open_to_all = with_pin("open", PIN);
    fs::set_permissions(&open_to_all.pin, fs::Permissions::from_mode(0o640)).expect("it is ours");
    for (token, what) in [
        (Token { module: "/nowhere/module.so".into(), ..token.clone() }, "cannot be used as a PKCS#11 module"),
        (Token { module: tokens.place.join("pin"), ..token.clone() }, "cannot be used as a PKCS#11 module"),
        (Token { label: "another".to_owned(), ..token.clone() }, "knows of no token of that label"),
        (Token { pin: "/nowhere/pin".into(), ..token.clone() }, "cannot be looked at"),
        (open_to_all, "others than its owner may use it (mode 640): chmod go-rwx"),
        (with_pin("empty", "\n"), "is no PIN: it has one line"),
        (with_pin("two", "1\n2\n"), "is no PIN: it has one line"),
        (with_pin("two-dos", "1\r2\r\n"), "is no PIN: it has one line"),
        (with_pin("long", &"5".repeat(256)), "is no PIN: it has more than 255 bytes"),
        (with_pin("longer", &format!("{}\r\n", "5".repeat(256))), "is no PIN: it has more than 255 bytes"),
        (with_pin("longest", &"5".repeat(1024)), "is no PIN: it has more than 255 bytes"),
    ] {
        let error = open(token).ids().await.expect_err(what).to_string();
        assert!(error.contains(what) && !error.contains(PIN), "{error}");
    }
    // Whatever a line's end is where it was written. One that is as long as may be is asked of the token, once.
    for (name, end) in [("dos", "\r\n"), ("none", ""), ("several", "\n\n")] {
        open(with_pin(name, &format!("{PIN}{end}"))).ids().await.expect(name);
    }
    let error = open(with_pin("as-long", &format!("{}\r\n", "5".repeat(255)))).ids().await;
    println!("{error:?}");
    if let Err(error) = error {
        assert!(error.to_string().contains("is not the PIN of token"), "{error}");
    }
}

/// Tokens lock themselves after some wrong PINs, and whoever opens a vault tries again and again.
#[tokio::test]
async fn a_pin_that_was_refused_is_not_tried_again() {
    let Some(tokens) = tokens("a_pin_that_was_refused_is_not_tried_again") else { return };
    let token = Token { pin: tokens.place.join("other"), ..tokens.next() };
    pin_file(&token.pin, "wrong\n");
    let keys = open(token.clone());
    let first = keys.ids().await.expect_err("refused").to_string();
    assert!(first.contains("is not the PIN of token token-0") && first.contains("PinIncorrect"), "{first}");
    for _ in 0..20 {
        let again = keys.ids().await.expect_err("refused").to_string();
        assert!(again.contains("was refused by token token-0, and is not tried again"), "{again}");
    }
    pin_file(&token.pin, PIN);
    keys.make().await.expect("another PIN is tried");
}

/// SoftHSM2 shows a token that was taken away without keys, and does not see that it is back before it is loaded again.
#[tokio::test]
async fn a_token_that_is_gone_is_not_taken_for_one_without_keys() {
    let Some(tokens) = tokens("a_token_that_is_gone_is_not_taken_for_one_without_keys") else { return };
    let token = tokens.next();
    let keys = open(token.clone());
    let kek = keys.make().await.expect("a key");
    let wrapped = keys.wrap(kek, b"context", &secret()).await.expect("wrapped");
    let (directory, away) = (tokens.directory(&token.label), tokens.place.join("away"));
    fs::rename(&directory, &away).expect("it is ours");
    let gone = [
        keys.wrap(kek, b"context", &secret()).await.err(),
        keys.unwrap(kek, b"context", &wrapped).await.err(),
        keys.make().await.err(),
        keys.destroy(kek).await.err(),
        keys.ids().await.err(),
    ];
    for error in gone {
        let error = error.expect("it is gone");
        println!("{error}");
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    }
}

/// Who is not logged in sees no keys: that is not to be taken for a token without keys either.
#[tokio::test]
async fn who_was_logged_out_logs_in_again() {
    let Some(tokens) = tokens("who_was_logged_out_logs_in_again") else { return };
    let token = tokens.next();
    let keys = open(token.clone());
    let kek = keys.make().await.expect("a key");
    let wrapped = keys.wrap(kek, b"context", &secret()).await.expect("wrapped");
    // A login is the process's, not the session's.
    let log_out = || tokens.session(&token.label).logout().expect("logged out");
    log_out();
    assert_eq!(keys.unwrap(kek, b"context", &wrapped).await.expect("unwrapped").expose(), secret().expose());
    log_out();
    assert_eq!(keys.ids().await.expect("it answers"), [kek]);
    log_out();
    assert!(keys.make().await.expect("a key") > kek);
    log_out();
    keys.destroy(kek).await.expect("destroyed");
    assert_eq!(keys.ids().await.expect("it answers").len(), 1);
}

/// What a handle means is forgotten with the sessions, and the same number is another key's afterwards.
#[tokio::test]
async fn a_key_is_not_taken_for_another_after_the_module_began_anew() {
    let Some(tokens) = tokens("a_key_is_not_taken_for_another_after_the_module_began_anew") else { return };
    let token = tokens.next();
    let keys = open(token.clone());
    let (one, other) = (keys.make().await.expect("a key"), keys.make().await.expect("a key"));
    keys.wrap(other, b"context", &secret()).await.expect("wrapped");
    // Whoever else uses the module in this process ends it, and begins it again.
    let module = || Pkcs11::new(&tokens.module).expect("the module");
    module().finalize().expect("it ends");
    module().initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("it begins");
    // The handles from there on are counted from 1: the vault's session is not there any more, and the two keys have each other's.
    let ended = tokens.session(&token.label);
    let session = tokens.session(&token.label);
    drop(ended);
    let found = |kek| session.find_objects(&[Attribute::Label(format!("paymesh/test/eu/kek-{kek}").into_bytes())]).expect("it answers");
    println!("{:?} {:?}", found(one), found(other));
    let wrapped = keys.wrap(other, b"context", &secret()).await.expect("wrapped");
    let unwrapped = open(token).unwrap(other, b"context", &wrapped).await.expect("it was wrapped under that key");
    assert_eq!(unwrapped.expose(), secret().expose());
}

/// A vault from its first card to what is left of a user who was erased.
#[tokio::test]
async fn a_vault_over_a_token_takes_cards_in_rotates_and_erases() {
    let Some(tokens) = tokens("a_vault_over_a_token_takes_cards_in_rotates_and_erases") else { return };
    let (token, time) = (tokens.next(), Arc::new(AtomicU64::new(1_795_000_000_000_000)));
    let clock: Clock = Arc::new(move || Timestamp(time.load(Relaxed)));
    let vault_at = async |data: &Path| {
        let store = SqliteStore::open(data, "test", &zone()).await.expect("the store opens");
        Vault::open(zone(), Arc::new(store), Arc::new(open(token.clone())), clock.clone()).await
    };
    let request = || Uuid::now_v7().try_into().expect("a request id");
    let user = |id: u64| UserId::try_from(id).expect("a user");
    let data = tokens.place.join("data");
    let vault = vault_at(&data).await.expect("the vault opens");
    let mut taken = Vec::new();
    for (id, number) in [(1, "4242424242424242"), (2, "5555555555554444"), (3, "378282246310005")] {
        let card = Card { number: CardNumber::parse(number).expect("a number"), expiry: Expiry::new(7, 2031).expect("an expiry") };
        taken.push(vault.tokenize(request(), user(id), Offered::Clear(card)).await.expect("a card"));
    }
    let backup = tokens.place.join("backup");
    fs::create_dir(&backup).expect("it is ours");
    fs::copy(data.join("vault.sqlite"), backup.join("vault.sqlite")).expect("a copy");
    let _ = fs::copy(data.join("vault.sqlite-wal"), backup.join("vault.sqlite-wal"));

    let begun = vault.begin_rotation(request()).await.expect("it begins");
    let rotated = vault.tend(RotationPlan::default()).await.expect("it goes on").expect("there is one");
    assert_eq!((begun.kek, rotated.kek.get(), rotated.rewrapped, rotated.destroyed.len()), (rotated.kek, 2, 4, 1));
    assert_eq!(open(token.clone()).ids().await.expect("it answers"), [rotated.kek]);
    for vault in [&vault, &vault_at(&data).await.expect("it opens again")] {
        for card in &taken {
            assert!(vault.describe(&card.token).await.expect("a card") == *card);
        }
    }
    let error = vault_at(&backup).await.expect_err("its key is destroyed");
    assert!(matches!(error, VaultError::Keys(Error::Missing { kek }) if kek.get() == 1), "{error}");
    assert_eq!(vault.erase(request(), user(2)).await.expect("erased"), 1);
    assert!(matches!(vault.describe(&taken[1].token).await, Err(VaultError::TokenNotFound(_))));
    vault.describe(&taken[0].token).await.expect("another's card");
}
