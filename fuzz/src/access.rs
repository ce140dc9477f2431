//! Who may call: access.yaml, and the tokens that callers show.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use paymesh_access::{Callers, Settings};
use paymesh_contract::policies;
use paymesh_topology::{Access, Topology, ZoneGrant};
use tokio::time::Instant;

/// When the tokens of `fixed/tokens` were issued, in seconds since 1970. They hold for an hour.
pub const TOKENS_ISSUED_AT: u64 = 1_800_000_000;

/// Every token that the issuer of `fixed/issuer` has signed, one a line. Nobody has its key any more.
const TOKENS: &str = include_str!("../fixed/tokens");

static TOPOLOGY: LazyLock<Arc<Topology>> =
    LazyLock::new(|| Arc::new(Topology::parse("regions.yaml", include_str!("../../region-config/regions.yaml")).expect("ours is valid")));

/// access.yaml: any text grants what holds together, or is a list of problems, each of which says something.
pub fn access_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let scopes = policies().caller_scopes();
    match Access::parse("fuzz.yaml", text, &TOPOLOGY, &scopes) {
        Ok(access) => {
            let names: BTreeSet<&str> = access.principals().iter().map(|principal| principal.name.as_str()).collect();
            assert_eq!(names.len(), access.principals().len(), "a name is one principal's");
            for principal in access.principals() {
                assert!(principal.certificate || principal.tokens.is_some(), "{principal:?} can be known by something");
                assert!(principal.scopes.iter().all(|scope| scopes.contains(scope.as_str())), "{principal:?} has scopes of the contract's");
                for grant in [&principal.zones, &principal.pays] {
                    let ZoneGrant::These(zones) = grant else { continue };
                    assert!(zones.iter().all(|zone| TOPOLOGY.zones().any(|known| known.name == *zone)), "{principal:?} acts in zones");
                }
                if let Some(tokens) = &principal.tokens {
                    assert!(!tokens.claims.is_empty(), "not every token of an issuer is {principal:?}'s");
                    assert!(access.issuers().iter().any(|issuer| issuer.name == tokens.issuer), "{principal:?} is known by an issuer");
                }
            }
        }
        Err(errors) => {
            assert!(!errors.problems().is_empty(), "a refusal has a reason");
            for problem in errors.problems() {
                assert!(!problem.message.is_empty(), "a problem says what it is");
            }
        }
    }
}

/// A token from any bytes: none lets anybody in but those that the issuer has signed, and these only while they hold.
pub fn jwt(bytes: &[u8]) {
    // For each time by itself: a token that was believed once is remembered until it ends.
    static CALLERS: LazyLock<[Callers; 3]> = LazyLock::new(|| {
        let fixed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixed");
        let load = || Callers::load(Settings::new(&fixed, &fixed, Arc::clone(&TOPOLOGY)), Instant::now());
        [(); 3].map(|()| load().expect("what is fixed is valid"))
    });
    let Ok(token) = std::str::from_utf8(bytes) else { return };
    let [too_early, in_time, too_late] = &*CALLERS;
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    match in_time.by_token(token, at(TOKENS_ISSUED_AT + 60)) {
        Ok(grant) => {
            // By what is signed: a signature that can be written in another way is the issuer's too.
            let signed = token.rsplit_once('.').map(|(signed, _)| signed);
            let issued = TOKENS.lines().any(|known| known.rsplit_once('.').map(|(signed, _)| signed) == signed);
            assert!(issued, "nobody has signed this token, and it lets in {}", grant.principal());
        }
        Err(refusal) => assert!(TOKENS.lines().all(|known| known != token), "what the issuer has signed is refused: {refusal:?}"),
    }
    assert!(too_early.by_token(token, at(TOKENS_ISSUED_AT - 3_600)).is_err(), "it holds before it was issued");
    assert!(too_late.by_token(token, at(TOKENS_ISSUED_AT + 2 * 3_600)).is_err(), "it holds after its end");
}
