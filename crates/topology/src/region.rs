//! A region and the words its entry may use.

use std::path::PathBuf;

use paymesh_types::{RegionName, ZoneName};

use crate::{Endpoint, Site};

/// A place where nodes run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its name.
    pub name: RegionName,
    /// Its compliance zone.
    pub zone: ZoneName,
    /// Whether it is the primary: one region is, and it leads the directory.
    pub primary: bool,
    /// The services that its nodes run.
    pub services: Vec<Service>,
    /// What its database is to the mesh.
    pub database: Database,
    /// The regimes that it is under.
    pub compliance: Vec<Compliance>,
    /// Where its nodes take gRPC.
    pub grpc: Endpoint,
    /// Where its nodes serve `/health`, `/ready` and `/metrics`.
    pub http: Endpoint,
    /// The token of the keys of its vault. `None`: they are in files.
    pub vault_token: Option<KeyToken>,
    /// Where it is deployed. `None`: the file says nothing of the cloud.
    pub site: Option<Site>,
}

/// A PKCS#11 token that a vault's key-encryption keys are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyToken {
    /// The library that leads to it: an absolute path.
    pub module: PathBuf,
    /// Its label: 1 to [`TOKEN_LABEL_BYTES_MAX`](crate::TOKEN_LABEL_BYTES_MAX) bytes.
    pub label: String,
}

impl Region {
    /// Whether its nodes run the service.
    pub fn runs(&self, service: Service) -> bool {
        self.services.contains(&service)
    }

    /// Whether it is a vault and nothing else: a process that keeps no journals, takes no other calls than those for it, and forwards none.
    pub fn is_vault_alone(&self) -> bool {
        self.database == Database::None
    }
}

/// Makes an enum of words that the file may use, each with its spelling there.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every spelling, in order.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The spelling in region-config.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// From the spelling in region-config.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;

words!(
    /// A service that a region can run. The mesh knows all three names; what a node composes of them is the binary's.
    Service {
        /// Payments, wallets and the directory.
        PaymentProcessor = "payment_processor",
        /// Scores payments.
        FraudDetection = "fraud_detection",
        /// Keeps card numbers.
        Vault = "vault",
    }
);

words!(
    /// What a region's database is to the mesh.
    Database {
        /// A master, the primary's.
        PrimaryMaster = "primary_master",
        /// A master.
        RegionalMaster = "regional_master",
        /// A follower: its region takes every request and carries writes home.
        ReadReplica = "read_replica",
        /// None: its region is a vault alone, which keeps no journals.
        None = "none",
    }
);

words!(
    /// A regime that a region is under.
    Compliance {
        /// Regulation (EU) 2016/679: personal data stays among regions that are under it too.
        Gdpr = "GDPR",
        /// Directive (EU) 2015/2366.
        Psd2 = "PSD2",
    }
);

impl Database {
    /// Whether its region may lead shards.
    pub fn is_master(self) -> bool {
        match self {
            Self::PrimaryMaster | Self::RegionalMaster => true,
            Self::ReadReplica | Self::None => false,
        }
    }
}
