//! prices.yaml: what machines, traffic and storage cost, what is reserved, and what may be interrupted. Only planning reads it: a node has no use for it.
//!
//! The figures are the operator's: nothing is looked up. They are decimals as they are written, and no float has been between.

use std::path::Path;

use paymesh_types::Currency;
use rust_decimal::Decimal;

use crate::{
    Errors,
    problem::Problems,
    read::prices::read,
    region::words,
    topology::{parse_tree, read_text},
    tree::Place,
};

/// The file that [`Prices::load`] looks for in the configuration's folder.
pub const PRICES_FILE_NAME: &str = "prices.yaml";
/// Kinds of instances at most.
pub const INSTANCE_TYPES_MAX: usize = 64;
/// What an hour of an instance costs at most; the same bounds the price of a GiB.
pub const PRICE_MAX: u32 = 10_000;
/// Digits after the point of a price at most.
pub const PRICE_DIGITS_MAX: u32 = 6;
/// Instances reserved for one purpose at most.
pub const RESERVED_MAX: u64 = 10_000;

/// What everything costs, in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prices {
    pub(crate) currency: Currency,
    pub(crate) instance_types: Vec<InstanceType>,
    pub(crate) reserved: Vec<Reserved>,
    pub(crate) spot: Vec<Spot>,
    pub(crate) traffic_between_regions_per_gib: Decimal,
    pub(crate) storage_per_gib_month: Decimal,
}

/// A kind of instance (source document, "Resource Right-sizing").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceType {
    /// As the cloud calls it: `c5.large`.
    pub name: String,
    /// Processors: 1 to 1,024.
    pub cpu: u32,
    /// Memory in GiB: 0.125 to 65,536.
    pub memory_gib: Decimal,
    /// An hour on demand, above 0 and up to [`PRICE_MAX`].
    pub per_hour: Decimal,
}

/// Instances that are reserved (source document, "Reserved Capacity Planning").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// What for: `payment_processor`.
    pub purpose: String,
    /// Their kind, one of [`Prices::instance_types`].
    pub instance_type: String,
    /// How many: 1 to [`RESERVED_MAX`].
    pub count: u64,
    /// For how long.
    pub term: Term,
    /// When they are paid.
    pub payment_option: PaymentOption,
    /// What is saved over the whole term of what the same hours cost on demand, in per cent: 1 to 99.
    pub savings_percent: u32,
}

/// Instances that may be taken away (source document, "Reserved Capacity Planning").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// What for: `fraud_analysis`. Work that can wait and can be begun again.
    pub purpose: String,
    /// Their kind, one of [`Prices::instance_types`].
    pub instance_type: String,
    /// What an hour may cost at most: less than on demand.
    pub max_price: Decimal,
    /// What is done when one is taken away.
    pub interruption_handling: Interruption,
}

words!(
    /// How long a reservation holds.
    Term {
        /// 12 months.
        OneYear = "1_year",
        /// 36 months.
        ThreeYears = "3_year",
    }
);

words!(
    /// When a reservation is paid.
    PaymentOption {
        /// All of it before its first hour.
        AllUpfront = "all_upfront",
        /// Half of it before its first hour, the rest month by month.
        PartialUpfront = "partial_upfront",
        /// All of it month by month.
        NoUpfront = "no_upfront",
    }
);

words!(
    /// What is done when an instance is taken away.
    Interruption {
        /// It takes no more work, and finishes or puts back what it has.
        GracefulShutdown = "graceful_shutdown",
    }
);

impl Term {
    /// Its months.
    pub fn months(self) -> u32 {
        match self {
            Self::OneYear => 12,
            Self::ThreeYears => 36,
        }
    }
}

impl PaymentOption {
    /// What is paid before the first hour, in per cent of the whole.
    pub fn upfront_percent(self) -> u32 {
        match self {
            Self::AllUpfront => 100,
            Self::PartialUpfront => 50,
            Self::NoUpfront => 0,
        }
    }
}

impl Prices {
    /// Reads and validates `prices.yaml` in the configuration's folder, or beside the configuration's file.
    ///
    /// # Errors
    /// Every problem of the file; or one, without a line, when it is missing or cannot be read.
    pub fn load(dir_or_file: &Path) -> Result<Self, Errors> {
        let folder = if dir_or_file.is_dir() { dir_or_file } else { dir_or_file.parent().unwrap_or(Path::new("")) };
        let file = folder.join(PRICES_FILE_NAME);
        let name = file.display().to_string();
        if !dir_or_file.exists() {
            // Nothing is to be put beside a configuration that is not there.
            let mut problems = Problems::new(&dir_or_file.display().to_string());
            problems.add(Place::NOWHERE, "", "there is no such folder or file of the configuration");
            return Err(problems.into_errors());
        }
        if !file.exists() {
            let mut problems = Problems::new(&name);
            problems.add(
                Place::NOWHERE,
                "",
                "is missing: plans need the prices; copy the file that ships and put your own contract's figures in",
            );
            return Err(problems.into_errors());
        }
        Self::parse(&name, &read_text(&file, &name)?)
    }

    /// Validates the text of the file, of [`crate::FILE_BYTES_MAX`] bytes at most. `file_name` is what the errors call it.
    ///
    /// # Errors
    /// Every problem of the text, in the order of the file. A text that is not YAML has one: the first place where it is not.
    pub fn parse(file_name: &str, yaml: &str) -> Result<Self, Errors> {
        let root = parse_tree(file_name, yaml)?;
        let mut problems = Problems::new(file_name);
        match read(&root, &mut problems) {
            Some(prices) if problems.is_empty() => Ok(prices),
            _ => Err(problems.into_errors()),
        }
    }

    /// The currency of all prices.
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// The kinds of instances, in the order of the file.
    pub fn instance_types(&self) -> &[InstanceType] {
        &self.instance_types
    }

    /// A kind of instance by its name.
    pub fn instance_type(&self, name: &str) -> Option<&InstanceType> {
        self.instance_types.iter().find(|kind| kind.name == name)
    }

    /// What is reserved, in the order of the file.
    pub fn reserved(&self) -> &[Reserved] {
        &self.reserved
    }

    /// What may be interrupted, in the order of the file.
    pub fn spot(&self) -> &[Spot] {
        &self.spot
    }

    /// A GiB that goes from one region to another.
    pub fn traffic_between_regions_per_gib(&self) -> Decimal {
        self.traffic_between_regions_per_gib
    }

    /// A GiB of a database's storage, kept for a month.
    pub fn storage_per_gib_month(&self) -> Decimal {
        self.storage_per_gib_month
    }
}
