//! Who a call is from, and what it may do: the one place where a right is looked up.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use paymesh_contract::{MethodPolicy, Target};
use paymesh_identity::ShownCaller;
use paymesh_topology::Principal;
use paymesh_types::{RegionName, UserId, ZoneName};
use tokio::time::Instant;

use crate::{
    InProgress, Refusal,
    limits::{Exhausted, Taken},
};

/// Who a call is from. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Nobody who may do anything.
    Nobody,
    /// Nobody knows: the connection is in plain text, for loopback alone, where everybody may do everything.
    Unproven,
    /// A node of this region, on its own behalf.
    Node(RegionName),
    /// An edge of this region, on its own behalf: it may ask whose a user is, which says nothing else about anybody.
    Edge(RegionName),
    /// A principal.
    Known(Arc<Grant>),
}

/// What a principal may do by the credential that it has shown.
#[derive(Debug)]
pub struct Grant {
    pub(crate) principal: Arc<Known>,
    /// What it has shown.
    pub shown: Shown,
    /// The scopes: the principal's, and of these only those that the token names, if it names any.
    pub(crate) scopes: BTreeSet<String>,
    /// The users that it acts for. `None`: all.
    pub(crate) users: Option<BTreeSet<UserId>>,
    /// When the credential begins to hold.
    pub(crate) begins: SystemTime,
    /// When it ends.
    pub ends: SystemTime,
    /// What an audit log calls its owner.
    pub(crate) audited: paymesh_audit::Caller,
}

/// What a caller is known by.
#[derive(Clone)]
pub enum Shown {
    /// A token.
    Token {
        /// What access.yaml calls its issuer.
        issuer: String,
        /// Its `jti`.
        id: Option<String>,
        /// The token itself, to be looked at again where the call goes on.
        token: Arc<str>,
    },
    /// A certificate.
    Certificate(ShownCaller),
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token { issuer, id, .. } => write!(f, "a token of {issuer} ({})", id.as_deref().unwrap_or("without jti")),
            Self::Certificate(caller) => write!(f, "the certificate of {}", caller.name),
        }
    }
}

/// A principal, and what it has taken of this node.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) principal: Principal,
    pub(crate) taken: Taken,
}

impl Grant {
    /// What access.yaml calls the principal.
    pub fn principal(&self) -> &str {
        &self.principal.principal.name
    }
}

impl Caller {
    /// What access.yaml calls the principal; `None` where it is none.
    pub fn principal(&self) -> Option<&str> {
        match self {
            Self::Known(grant) => Some(grant.principal()),
            Self::Nobody | Self::Unproven | Self::Node(_) | Self::Edge(_) => None,
        }
    }

    /// What an audit log calls it.
    pub fn audited(&self) -> paymesh_audit::Caller {
        match self {
            Self::Nobody => paymesh_audit::Caller::Anonymous,
            Self::Unproven => paymesh_audit::Caller::PlainText,
            Self::Node(region) => paymesh_audit::Caller::Node(region.clone()),
            Self::Edge(region) => paymesh_audit::Caller::Edge(region.clone()),
            Self::Known(grant) => grant.audited.clone(),
        }
    }

    /// Whether it may call a method, whoever it is about. `from_node`: a node sent the call.
    ///
    /// # Errors
    /// `NODES_ONLY`, `CALLERS_ONLY`, `SCOPE_MISSING`.
    pub fn may_call(&self, method: &MethodPolicy, from_node: bool) -> Result<(), Refusal> {
        if method.nodes_only {
            // What a caller may do by it was looked up where the caller's own call was.
            return if from_node { Ok(()) } else { Err(Refusal::NodesOnly { path: method.path.clone() }) };
        }
        match self {
            Self::Nobody => Err(Refusal::NoCredential),
            Self::Unproven => Ok(()),
            Self::Node(_) if method.nodes_too => Ok(()),
            Self::Node(_) => Err(Refusal::CallersOnly { path: method.path.clone() }),
            Self::Edge(_) if method.nodes_too && method.target == Target::Directory => Ok(()),
            Self::Edge(_) => Err(Refusal::NoCredential),
            Self::Known(grant) => match method.scopes.iter().find(|scope| !grant.scopes.contains(*scope)) {
                None => Ok(()),
                Some(scope) => Err(Refusal::ScopeMissing { scope: scope.clone(), principal: grant.principal().to_owned() }),
            },
        }
    }

    /// Whether it acts for a user of this zone. `zone`: `None` where there is no such user. Who is bound to some is told the same of
    /// a user who is not there and of one who is not theirs.
    ///
    /// # Errors
    /// `NOT_YOUR_USER`.
    pub fn acts_for(&self, user: UserId, zone: Option<&ZoneName>) -> Result<(), Refusal> {
        let grant = match self {
            Self::Nobody => return Err(Refusal::NotYourUser),
            Self::Unproven | Self::Node(_) | Self::Edge(_) => return Ok(()),
            Self::Known(grant) => grant,
        };
        let zones = &grant.principal.principal.zones;
        let in_zones = match zone {
            Some(zone) => zones.has(zone),
            None => *zones == paymesh_topology::ZoneGrant::Any,
        };
        let among_users = grant.users.as_ref().is_none_or(|users| users.contains(&user));
        if in_zones && among_users { Ok(()) } else { Err(Refusal::NotYourUser) }
    }

    /// Whether it acts for either end of something that has two, such as a payment.
    ///
    /// # Errors
    /// `NOT_YOUR_USER`.
    pub fn acts_for_either(&self, one: UserId, other: UserId) -> Result<(), Refusal> {
        match self {
            Self::Nobody => Err(Refusal::NotYourUser),
            Self::Known(grant) if grant.users.as_ref().is_some_and(|users| !users.contains(&one) && !users.contains(&other)) => {
                Err(Refusal::NotYourUser)
            }
            _ => Ok(()),
        }
    }

    /// Whether it acts for this user, wherever that one lives.
    ///
    /// # Errors
    /// `NOT_YOUR_USER`.
    pub fn acts_for_id(&self, user: UserId) -> Result<(), Refusal> {
        self.acts_for_either(user, user)
    }

    /// Whether it acts for some users only, or in some zones only.
    pub fn is_bound(&self) -> bool {
        match self {
            Self::Nobody => true,
            Self::Unproven | Self::Node(_) | Self::Edge(_) => false,
            Self::Known(grant) => grant.users.is_some() || grant.principal.principal.zones != paymesh_topology::ZoneGrant::Any,
        }
    }

    /// Whether it acts for every user of every zone, as who sees what is about all of them must.
    ///
    /// # Errors
    /// `NOT_YOUR_USERS`.
    pub fn acts_for_everybody(&self) -> Result<(), Refusal> {
        if self.is_bound() { Err(Refusal::AllUsersNeeded) } else { Ok(()) }
    }

    /// Whether it acts for some users only, so that each has to be looked at.
    pub fn is_bound_to_users(&self) -> bool {
        matches!(self, Self::Known(grant) if grant.users.is_some())
    }

    /// Whether it acts in this zone at all.
    ///
    /// # Errors
    /// `NOT_YOUR_ZONE`.
    pub fn acts_in(&self, zone: &ZoneName) -> Result<(), Refusal> {
        match self {
            Self::Nobody => Err(Refusal::NotYourZone),
            Self::Known(grant) if !grant.principal.principal.zones.has(zone) => Err(Refusal::NotYourZone),
            _ => Ok(()),
        }
    }

    /// Whether it acts for every user of this zone, as who sees all of a journal must.
    ///
    /// # Errors
    /// `NOT_YOUR_ZONE`, `NOT_YOUR_USERS`.
    pub fn acts_for_all_of(&self, zone: &ZoneName) -> Result<(), Refusal> {
        self.acts_in(zone)?;
        self.acts_for_all()
    }

    /// Whether it acts for every user of its zones.
    ///
    /// # Errors
    /// `NOT_YOUR_USERS`.
    pub fn acts_for_all(&self) -> Result<(), Refusal> {
        if self.is_bound_to_users() || matches!(self, Self::Nobody) { Err(Refusal::AllUsersNeeded) } else { Ok(()) }
    }

    /// Whether its users may pay users of this zone.
    pub fn pays_into(&self, zone: &ZoneName) -> bool {
        match self {
            Self::Known(grant) => grant.principal.principal.pays.has(zone),
            Self::Nobody | Self::Edge(_) => false,
            Self::Unproven | Self::Node(_) => true,
        }
    }

    /// Takes a call's part of what the principal may take of this node.
    ///
    /// # Errors
    /// `RATE_LIMITED`, `TOO_MANY_IN_PROGRESS`.
    pub fn begin(&self, now: Instant) -> Result<Option<InProgress>, Refusal> {
        let Self::Known(grant) = self else { return Ok(None) };
        let principal = || grant.principal().to_owned();
        match grant.principal.taken.begin(now) {
            Ok(place) => Ok(Some(place)),
            Err(Exhausted::Rate(wait)) => Err(Refusal::RateLimited { principal: principal(), wait }),
            Err(Exhausted::InProgress(max)) => Err(Refusal::TooManyInProgress { principal: principal(), max }),
        }
    }
}
