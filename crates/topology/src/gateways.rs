//! gateways.yaml, validated: the acquirers that card payments may go to, which of them takes which, and how much is ventured on one that fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use paymesh_cards::Brand;
use paymesh_types::{Country, Currency, Money, ZoneName};

use crate::{
    Errors, Topology, ZoneGrant,
    problem::Problems,
    read::gateways::read,
    topology::{parse_tree, read_text},
};

/// The file that [`Gateways::load`] looks for in the configuration's folder.
pub const GATEWAYS_FILE_NAME: &str = "gateways.yaml";
/// Gateways at most.
pub const GATEWAYS_MAX: usize = 64;
/// Rules at most.
pub const RULES_MAX: usize = 256;

/// The gateways and the rules that say which one a payment goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateways {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) rules: Vec<RoutingRule>,
    pub(crate) retries: Retries,
    pub(crate) batch_in_flight: u32,
}

/// What speaks to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectorKind {
    /// `paymesh acquirer`.
    Simulator,
    /// Stripe's PaymentIntents.
    Stripe,
}

/// An acquirer as it is reached with one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// What rules, logs and journals call it.
    pub name: String,
    /// What speaks to it.
    pub connector: ConnectorKind,
    /// `https://HOST[:PORT]`, or `http` on loopback.
    pub url: String,
    /// A file with the authorities that are believed there, as PEM; always there for https. A relative path begins at the directory of credentials.
    pub authorities: Option<PathBuf>,
    /// A file with the key that it knows us by. A relative path begins at the directory of credentials.
    pub credentials: Option<PathBuf>,
    /// Where a cardholder goes after a challenge.
    pub return_url: Option<String>,
    /// The zones whose users' cards it may be given.
    pub zones: ZoneGrant,
    /// What a payment costs there.
    pub cost: Cost,
    /// How long a call may take.
    pub timeout: Duration,
    /// Calls in flight from one region at most.
    pub calls_in_flight: u32,
    /// When it is not called any more.
    pub breaker: BreakerRule,
}

/// When a gateway is not called any more, and when it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRule {
    /// Failures one after the other that open it.
    pub failures: u32,
    /// How long it is open.
    pub open_for: Duration,
    /// Calls that it lets through after that; all of them must succeed to close it.
    pub probes: u32,
}

/// How many calls are made again, over all gateways of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Of a hundred calls.
    pub percent: u32,
    /// And so many a second in any case.
    pub per_second: u32,
    /// Gateways that one payment is tried at, at most, the first included.
    pub attempts: u32,
}

/// What a payment costs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cost {
    /// Hundredths of a basis point of the amount: millionths.
    pub millionths: u32,
    /// Minor units for each payment, by currency; nothing where a currency is not named.
    pub fixed: BTreeMap<Currency, u32>,
}

impl Cost {
    /// Of an amount, in its minor units, rounded up.
    pub fn of(&self, amount: Money) -> i64 {
        let share = i128::from(amount.minor()) * i128::from(self.millionths);
        let share = (share + 999_999) / 1_000_000;
        let fixed = self.fixed.get(&amount.currency()).copied().unwrap_or_default();
        i64::try_from(share).unwrap_or(i64::MAX).saturating_add(i64::from(fixed))
    }
}

/// Which payments go where. The first rule that fits counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingRule {
    /// What logs call it.
    pub name: String,
    /// The payments that it is for.
    pub when: When,
    /// Gateways among which one is picked, with their weights.
    pub gateways: Vec<(String, u32)>,
    /// How.
    pub by: Preference,
    /// Gateways for when none of those is left, in this order.
    pub then: Vec<String>,
}

/// How a gateway is picked among several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// At random, by weight.
    Weight,
    /// The one at which the payment costs least; by weight where it costs the same.
    Cost,
}

/// Payments; what is `None` is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct When {
    /// Their currency.
    pub currencies: Option<BTreeSet<Currency>>,
    /// The brand of the card.
    pub brands: Option<BTreeSet<Brand>>,
    /// The payer's country of residence.
    pub countries: Option<BTreeSet<Country>>,
    /// The payer's zone.
    pub zones: Option<BTreeSet<ZoneName>>,
    /// From so many minor units on. Only where there is one currency.
    pub from_minor: Option<i64>,
    /// Up to so many minor units, these included. Only where there is one currency.
    pub to_minor: Option<i64>,
}

impl When {
    /// Whether every payment that fits the other fits this one too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        fn set<T: Ord>(own: &Option<BTreeSet<T>>, other: &Option<BTreeSet<T>>) -> bool {
            match (own, other) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(own), Some(other)) => own.is_superset(other),
            }
        }
        // An amount is of one currency, which is the same in both where the currencies are covered.
        set(&self.currencies, &other.currencies)
            && set(&self.brands, &other.brands)
            && set(&self.countries, &other.countries)
            && set(&self.zones, &other.zones)
            && self.from_minor.unwrap_or(0) <= other.from_minor.unwrap_or(0)
            && self.to_minor.unwrap_or(i64::MAX) >= other.to_minor.unwrap_or(i64::MAX)
    }

    /// Whether it is for all payments.
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

impl Gateways {
    /// Reads and validates `gateways.yaml` in the configuration's folder, or beside the configuration's file. `None`: there is none, so that no card is charged.
    ///
    /// # Errors
    /// Every problem of the file; or one, without a line, when it cannot be read.
    pub fn load(dir_or_file: &Path, topology: &Topology) -> Result<Option<Self>, Errors> {
        let folder = if dir_or_file.is_dir() { dir_or_file } else { dir_or_file.parent().unwrap_or(Path::new("")) };
        let file = folder.join(GATEWAYS_FILE_NAME);
        if !file.exists() {
            return Ok(None);
        }
        let name = file.display().to_string();
        Self::parse(&name, &read_text(&file, &name)?, topology).map(Some)
    }

    /// Validates the text of the file. `file_name` is what the errors call it.
    ///
    /// # Errors
    /// Every problem of the text, in the order of the file. A text that is not YAML has one: the first place where it is not.
    pub fn parse(file_name: &str, yaml: &str, topology: &Topology) -> Result<Self, Errors> {
        let root = parse_tree(file_name, yaml)?;
        let mut problems = Problems::new(file_name);
        let gateways = read(&root, topology, &mut problems);
        match gateways {
            Some(gateways) if problems.is_empty() => Ok(gateways),
            _ => Err(problems.into_errors()),
        }
    }

    /// The gateways, in the order of the file.
    pub fn gateways(&self) -> &[Gateway] {
        &self.gateways
    }

    /// A gateway by its name.
    pub fn gateway(&self, name: &str) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| gateway.name == name)
    }

    /// The rules, in the order of the file. The last is for all payments.
    pub fn rules(&self) -> &[RoutingRule] {
        &self.rules
    }

    /// Payments by card of one batch whose acquirers are waited for at once: 1 to 1,024. The others wait for a place.
    pub fn batch_in_flight(&self) -> u32 {
        self.batch_in_flight
    }

    /// How many calls are made again.
    pub fn retries(&self) -> Retries {
        self.retries
    }
}
