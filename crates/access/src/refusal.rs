//! Why somebody is not let in: one place for the words and the codes.
//!
//! A refusal says what is wrong with the credential, and never what it says: that would be in logs.

use std::time::Duration;

use paymesh_contract::Fault;
use tonic::Code;

/// When to try again while an issuer's keys are not there yet.
const KEYS_RETRY_AFTER_MS: u64 = 1_000;

/// Why a call is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It shows nothing.
    NoCredential,
    /// It is no token, or not signed by who it says.
    TokenInvalid(&'static str),
    /// No issuer in access.yaml has this `iss`.
    IssuerUnknown,
    /// The issuer has no such key.
    KeyUnknown,
    /// The issuer's keys could not be had yet.
    KeysMissing {
        /// What access.yaml calls it.
        issuer: String,
    },
    /// It is meant for others.
    AudienceWrong,
    /// It has ended.
    Expired,
    /// It does not hold yet.
    NotYetValid,
    /// It holds for longer than tokens of its issuer may.
    LifetimeTooLong,
    /// It is good, and nobody's.
    PrincipalUnknown,
    /// What a stream began with is not granted any more.
    LessGranted,
    /// More than one says who calls.
    Ambiguous,
    /// A scope is missing.
    ScopeMissing {
        /// The scope.
        scope: String,
        /// Who calls.
        principal: String,
    },
    /// The method is for nodes.
    NodesOnly {
        /// The method's path.
        path: String,
    },
    /// A node asks on its own behalf for what only callers do.
    CallersOnly {
        /// The method's path.
        path: String,
    },
    /// A node passes on what a caller has shown, and has no calls to pass on.
    NothingToPassOn {
        /// The node's region.
        region: String,
    },
    /// An edge takes tokens, and what it says that a caller has shown else is not taken from it.
    TokensOnly {
        /// The edge's region.
        region: String,
    },
    /// The user is not one that the caller acts for; also where there is no such user.
    NotYourUser,
    /// The zone is not one that the caller acts in.
    NotYourZone,
    /// The caller acts for some users, and this is about all.
    AllUsersNeeded,
    /// The caller has had its share for now.
    RateLimited {
        /// Who.
        principal: String,
        /// When there is a share again.
        wait: Duration,
    },
    /// The caller has as much in progress as it may.
    TooManyInProgress {
        /// Who.
        principal: String,
        /// Its most.
        max: u32,
    },
}

impl Refusal {
    /// The stable reason in the contract's words.
    pub fn reason(&self) -> &'static str {
        self.parts().1
    }

    fn parts(&self) -> (Code, &'static str, String) {
        match self {
            Self::NoCredential => (
                Code::Unauthenticated,
                "NO_CREDENTIAL",
                "the call shows neither a token (`authorization: Bearer ...`) nor a caller's certificate".to_owned(),
            ),
            Self::TokenInvalid(what) => (Code::Unauthenticated, "TOKEN_INVALID", format!("the token {what}")),
            Self::IssuerUnknown => {
                (Code::Unauthenticated, "TOKEN_ISSUER_UNKNOWN", "no issuer in this node's access.yaml has the token's `iss`".to_owned())
            }
            Self::KeyUnknown => (
                Code::Unauthenticated,
                "TOKEN_KEY_UNKNOWN",
                "its issuer's keys, as this node has them, have none with the token's `kid` and algorithm".to_owned(),
            ),
            Self::KeysMissing { issuer } => {
                (Code::Unavailable, "TOKEN_KEYS_MISSING", format!("the keys of the issuer {issuer} could not be had yet"))
            }
            Self::AudienceWrong => (Code::Unauthenticated, "TOKEN_AUDIENCE_WRONG", "the token's `aud` is not this mesh".to_owned()),
            Self::Expired => (Code::Unauthenticated, "CREDENTIAL_EXPIRED", "the token or certificate has ended".to_owned()),
            Self::NotYetValid => (
                Code::Unauthenticated,
                "TOKEN_NOT_YET_VALID",
                "the token's `nbf` or `iat` is in the future, further than clocks may differ".to_owned(),
            ),
            Self::LifetimeTooLong => (
                Code::Unauthenticated,
                "TOKEN_LIFETIME_TOO_LONG",
                "from `iat` to `exp` is longer than access.yaml allows the issuer (token_lifetime_seconds_max), or the token has no `iat`"
                    .to_owned(),
            ),
            Self::PrincipalUnknown => (
                Code::PermissionDenied,
                "PRINCIPAL_UNKNOWN",
                "the credential is good, and no principal in this node's access.yaml has it".to_owned(),
            ),
            Self::LessGranted => (
                Code::PermissionDenied,
                "GRANT_REDUCED",
                "access.yaml or the keys grant less than when the stream began: begin it again with what is granted now".to_owned(),
            ),
            Self::Ambiguous => (
                Code::Unauthenticated,
                "CREDENTIAL_AMBIGUOUS",
                "the call has more than one `authorization`, or one that is not `Bearer` and a token".to_owned(),
            ),
            Self::ScopeMissing { scope, principal } => (
                Code::PermissionDenied,
                "SCOPE_MISSING",
                format!(
                    "the method needs the scope `{scope}`, and {principal} does not have it here: access.yaml or the token leaves it out"
                ),
            ),
            Self::NodesOnly { path } => {
                (Code::PermissionDenied, "NODES_ONLY", format!("{path} is for nodes of the mesh, and this call does not come from one"))
            }
            Self::CallersOnly { path } => (
                Code::PermissionDenied,
                "CALLERS_ONLY",
                format!("{path} is for callers: a node that sends it must pass on the credential of the caller it is for"),
            ),
            Self::NothingToPassOn { region } => (
                Code::PermissionDenied,
                "NOT_THAT_NODE",
                format!("{region} is a vault alone, which passes no calls on: what callers have shown it is not taken from it"),
            ),
            Self::TokensOnly { region } => (
                Code::PermissionDenied,
                "TOKENS_ONLY",
                format!("an edge of {region} takes callers by their tokens alone: with a certificate, call a node"),
            ),
            Self::NotYourUser => {
                (Code::PermissionDenied, "NOT_YOUR_USER", "there is no such user among those that the caller acts for".to_owned())
            }
            Self::NotYourZone => (Code::PermissionDenied, "NOT_YOUR_ZONE", "the caller does not act in that zone".to_owned()),
            Self::AllUsersNeeded => {
                (Code::PermissionDenied, "NOT_YOUR_USERS", "the call is about all users, and the caller acts for some only".to_owned())
            }
            Self::RateLimited { principal, .. } => (
                Code::ResourceExhausted,
                "RATE_LIMITED",
                format!("{principal} has begun as many calls at this node as it may for now (limits.calls_per_second)"),
            ),
            Self::TooManyInProgress { principal, max } => (
                Code::ResourceExhausted,
                "TOO_MANY_IN_PROGRESS",
                format!("{principal} has {max} calls in progress at this node, its most (limits.calls_in_progress)"),
            ),
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let (code, reason, message) = refusal.parts();
        let fault = Self::new(code, reason, message);
        match refusal {
            Refusal::KeysMissing { .. } | Refusal::TooManyInProgress { .. } => fault.with_retry(Duration::from_millis(KEYS_RETRY_AFTER_MS)),
            Refusal::RateLimited { wait, .. } => fault.with_retry(wait),
            _ => fault,
        }
    }
}
