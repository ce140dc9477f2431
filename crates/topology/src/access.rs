//! access.yaml, validated: who may call the mesh, with which scopes, for whom and how much.
//!
//! What is not granted here is denied. A caller shows a token of one of the issuers, or a certificate; it is the principal that this
//! file says it is, or nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use paymesh_types::ZoneName;

use crate::{
    Errors, Topology,
    problem::Problems,
    read::access::read,
    topology::{parse_tree, read_text},
};

/// The file that [`Access::load`] looks for in the configuration's folder.
pub const ACCESS_FILE_NAME: &str = "access.yaml";

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) principals: Vec<Principal>,
}

/// Who issues tokens that are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// What principals call it.
    pub name: String,
    /// The `iss` of its tokens (RFC 7519, section 4.1.1).
    pub issuer: String,
    /// The `aud` that its tokens must have among theirs (section 4.1.3).
    pub audience: String,
    /// Where its public keys are.
    pub keys: KeySource,
    /// How far its clock and a node's may be apart.
    pub clock_skew: Duration,
    /// The longest time from `iat` to `exp` that a token may have.
    pub lifetime_max: Duration,
}

/// Where an issuer's public keys are: a JWK Set (RFC 7517, section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file. A relative path begins at the directory of the mesh's credentials.
    File(PathBuf),
    /// A place that is asked again and again.
    Url {
        /// `https`, or `http` on loopback.
        url: String,
        /// A file with the authorities that are believed there, as PEM. Always there for `https`. A relative path begins at the directory of
        /// credentials.
        authorities: Option<PathBuf>,
    },
}

/// Somebody who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Its name, as logs and the audit have it.
    pub name: String,
    /// The tokens that are this principal's.
    pub tokens: Option<TokenMatch>,
    /// Whether a certificate `spiffe://MESH/caller/NAME` with its name is this principal's.
    pub certificate: bool,
    /// What the contract asks for, method by method.
    pub scopes: BTreeSet<String>,
    /// The zones for whose users it acts.
    pub zones: ZoneGrant,
    /// The zones into which those users may pay.
    pub pays: ZoneGrant,
    /// The users for whom it acts, within its zones.
    pub users: UserGrant,
    /// How much of a node it may take.
    pub limits: CallLimits,
}

/// Which tokens are a principal's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMatch {
    /// The name of the issuer.
    pub issuer: String,
    /// Claims that the token must have, with these words as their values. At least one.
    pub claims: BTreeMap<String, String>,
}

/// Some zones, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneGrant {
    /// All that there are.
    Any,
    /// These.
    These(BTreeSet<ZoneName>),
}

impl ZoneGrant {
    /// Whether the zone is among them.
    pub fn has(&self, zone: &ZoneName) -> bool {
        match self {
            Self::Any => true,
            Self::These(zones) => zones.contains(zone),
        }
    }

    /// Whether all that the other has are among them.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::These(_), Self::Any) => false,
            (Self::These(own), Self::These(others)) => own.is_superset(others),
        }
    }
}

/// Some users, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserGrant {
    /// All that there are.
    Any,
    /// The one whose id is the token's `sub`.
    Own,
    /// Those whose ids are in this claim of the token.
    Claim(String),
}

/// How much of a node a principal may take, for each node by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Calls that it may begin in a second, and twice as many at once. `None`: as many as there are places.
    pub calls_per_second: Option<u32>,
    /// Calls and streams that it may have in progress. Where it is left out, a quarter of the calls that a node takes (`limits.calls` of regions.yaml): nobody shuts a node to everybody else.
    pub calls_in_progress: u32,
}

impl Access {
    /// Reads and validates `access.yaml` in the configuration's folder, or beside the configuration's file. `None`: there is none, so that nobody but nodes may call.
    /// `scopes` are those that the contract has for callers.
    ///
    /// # Errors
    /// Every problem of the file; or one, without a line, when it cannot be read.
    pub fn load(dir_or_file: &Path, topology: &Topology, scopes: &BTreeSet<&str>) -> Result<Option<Self>, Errors> {
        let folder = if dir_or_file.is_dir() { dir_or_file } else { dir_or_file.parent().unwrap_or(Path::new("")) };
        let file = folder.join(ACCESS_FILE_NAME);
        if !file.exists() {
            return Ok(None);
        }
        let name = file.display().to_string();
        Self::parse(&name, &read_text(&file, &name)?, topology, scopes).map(Some)
    }

    /// Validates the text of the file. `file_name` is what the errors call it.
    ///
    /// # Errors
    /// Every problem of the text, in the order of the file. A text that is not YAML has one: the first place where it is not.
    pub fn parse(file_name: &str, yaml: &str, topology: &Topology, scopes: &BTreeSet<&str>) -> Result<Self, Errors> {
        let root = parse_tree(file_name, yaml)?;
        let mut problems = Problems::new(file_name);
        let access = read(&root, topology, scopes, &mut problems);
        if problems.is_empty() { Ok(access) } else { Err(problems.into_errors()) }
    }

    /// Who issues tokens, in the order of the file.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Who may call, in the order of the file.
    pub fn principals(&self) -> &[Principal] {
        &self.principals
    }
}
