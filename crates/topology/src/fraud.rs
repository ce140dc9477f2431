//! What fraud detection goes by: `region-config/fraud.yaml`, validated.
//!
//! The file says what counts towards a payment's score and how much (`rules`), what is believed or refused whatever else is so (`allow`, `block`), and for each
//! zone where scores begin to matter and what is done with payments that cannot be scored (`zones`). Nodes read it again while they run, so nothing here
//! is kept by anybody for longer than a decision.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    path::Path,
    sync::LazyLock,
    time::Duration,
};

use paymesh_types::{Country, Currency, Money, Score, UserId, ZoneName};
use rust_decimal::Decimal;

use crate::{
    Errors, Topology,
    problem::Problems,
    read::fraud::read,
    region::words,
    topology::{parse_tree, read_text},
};

/// The file that [`Fraud::load`] looks for in the configuration's folder.
pub const FRAUD_FILE_NAME: &str = "fraud.yaml";

/// Letters of a file's hash that stand in its version.
const HASH_LETTERS: usize = 12;
/// Amounts in the reference currency at most: what every store can hold.
const REFERENCE_MINOR_MAX: u64 = i64::MAX as u64;

words!(
    /// A time over which payments are counted and added up, up to now.
    Window {
        /// 300 seconds.
        FiveMinutes = "five_minutes",
        /// 3,600 seconds.
        Hour = "hour",
        /// 86,400 seconds.
        Day = "day",
    }
);

words!(
    /// Something that counts towards a payment's score.
    Signal {
        /// Payments of the user, with this one.
        UserCount = "user_count",
        /// What they come to, in minor units of the reference currency.
        UserAmount = "user_amount",
        /// Payments by the card.
        CardCount = "card_count",
        /// What they come to.
        CardAmount = "card_amount",
        /// Payments from the device.
        DeviceCount = "device_count",
        /// What they come to.
        DeviceAmount = "device_amount",
        /// Payments to the payee.
        PayeeCount = "payee_count",
        /// What they come to.
        PayeeAmount = "payee_amount",
        /// Different cards of the user.
        UserCards = "user_cards",
        /// Different users of the card.
        CardUsers = "card_users",
        /// Different users of the device.
        DeviceUsers = "device_users",
        /// The amount as a percentage of the largest of the user's last sixteen.
        AmountUnusual = "amount_unusual",
        /// Per mille of the user's payments that were not made around this hour of the day.
        HourUnusual = "hour_unusual",
        /// The user has not paid before.
        FirstPayment = "first_payment",
        /// The user has not paid by this card before.
        FirstCard = "first_card",
        /// The user has not paid from this device before.
        FirstDevice = "first_device",
        /// The user has not paid this payee before.
        FirstPayee = "first_payee",
        /// The user has not paid by way of this region before.
        FirstRegion = "first_region",
        /// The card is of another country than the user.
        CardAbroad = "card_abroad",
        /// The payment came in by a region outside of the user's zone.
        EntryAbroad = "entry_abroad",
        /// The currency has no reference rate, so that the amount counts towards nothing else.
        CurrencyUnrated = "currency_unrated",
    }
);

words!(
    /// What is done with a payment that cannot be scored in time.
    Unscored {
        /// It is accepted, and marked to be looked at.
        Open = "open",
        /// It is declined.
        Closed = "closed",
    }
);

impl Window {
    /// All of them, the shortest first.
    pub const ALL: [Self; 3] = [Self::FiveMinutes, Self::Hour, Self::Day];

    /// How long it is.
    pub fn seconds(self) -> u64 {
        match self {
            Self::FiveMinutes => 300,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

/// What a signal's rules have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A window, and bounds between which its value counts more and more. A signal has a rule for each window at most.
    Windowed,
    /// Such bounds.
    Ramp,
    /// It is so, or is not.
    Flag,
}

impl Signal {
    /// All of them, in the order of the file's documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::WORDS.iter().filter_map(|word| Self::from_word(word))
    }

    /// What its rules have.
    pub fn shape(self) -> Shape {
        match self {
            Self::UserCount
            | Self::UserAmount
            | Self::CardCount
            | Self::CardAmount
            | Self::DeviceCount
            | Self::DeviceAmount
            | Self::PayeeCount
            | Self::PayeeAmount
            | Self::UserCards
            | Self::CardUsers
            | Self::DeviceUsers => Shape::Windowed,
            Self::AmountUnusual | Self::HourUnusual => Shape::Ramp,
            _ => Shape::Flag,
        }
    }

    /// Whether it says something only of users of whom something is known, so that its rule says from how many payments on.
    pub fn is_about_habits(self) -> bool {
        matches!(self, Self::AmountUnusual | Self::HourUnusual | Self::FirstCard | Self::FirstDevice | Self::FirstPayee | Self::FirstRegion)
    }
}

/// How much a signal counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The window that it looks at. `None`: the signal has none.
    pub per: Option<Window>,
    /// Up to this, a signal's value counts nothing. 0 for a flag.
    pub from: u64,
    /// From this on, it counts all. More than `from`; 1 for a flag.
    pub full: u64,
    /// How much that is.
    pub weight: Score,
    /// Payments that the user must have made before.
    pub after: u32,
}

/// Users, cards and places that are believed, or refused.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// Users.
    pub users: BTreeSet<UserId>,
    /// Cards, by the fingerprints that the zone's vault gives them.
    pub cards: BTreeSet<[u8; 16]>,
    /// Devices, by their hashes.
    pub devices: BTreeSet<[u8; 16]>,
    /// The first six or eight digits of card numbers.
    pub bins: BTreeSet<String>,
    /// Countries of cards and users.
    pub countries: BTreeSet<Country>,
}

/// Who somebody is stays out of logs: the numbers of them only.
impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, cards, devices, bins, countries } = self;
        write!(
            f,
            "Listed({} users, {} cards, {} devices, {} BINs, {} countries)",
            users.len(),
            cards.len(),
            devices.len(),
            bins.len(),
            countries.len()
        )
    }
}

/// Where scores begin to matter in a zone, and what is done there without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZonePolicy {
    /// A payment whose score is above is declined. Never 1, so that what is blocked is declined everywhere.
    pub decline_above: Score,
    /// A payment whose score is above is accepted and marked to be looked at. Less than `decline_above`.
    pub review_above: Score,
    /// How long a payment waits for its score.
    pub deadline: Duration,
    /// What is done with payments up to an amount, in minor units of the reference currency, the smallest amount first. Larger ones, and those whose currency has no rate:
    /// `otherwise`.
    pub when_unavailable: Vec<(u64, Unscored)>,
    /// What is done with the others.
    pub otherwise: Unscored,
    /// Which payments by card are exempt from strong customer authentication for their low risk.
    pub transaction_risk: TransactionRisk,
}

/// Which payments by card are exempt from strong customer authentication for their low risk: Article 18 of Commission Delegated Regulation (EU) 2018/389.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRisk {
    /// None above, in EUR: one of [`Self::THRESHOLDS_EUR`]. 0: none at all.
    pub exempt_up_to_eur: u16,
    /// None before payments have been counted for so many days.
    pub history_days: u32,
    /// None that scores above.
    pub score_max: Score,
}

impl TransactionRisk {
    /// The exemption threshold values of the regulation's annex, and none.
    pub const THRESHOLDS_EUR: [u16; 4] = [0, 100, 250, 500];
    /// Days that the regulation's rates are of: fewer are for rehearsals.
    pub const HISTORY_DAYS: u32 = 90;

    /// What is to be said of it to operators.
    pub fn warning(&self) -> Option<String> {
        let rehearses = self.exempt_up_to_eur > 0 && self.history_days < Self::HISTORY_DAYS;
        rehearses.then(|| {
            let (days, whole) = (self.history_days, Self::HISTORY_DAYS);
            format!("payments are exempt for their low risk after {days} days, though a fraud rate is of {whole}: for rehearsals only")
        })
    }
}

/// None is: a provider that exempts them has told its authority before, by Article 20.
impl Default for TransactionRisk {
    fn default() -> Self {
        Self { exempt_up_to_eur: 0, history_days: Self::HISTORY_DAYS, score_max: Score::new(2_000).expect("not more than 1") }
    }
}

/// Where the file says nothing of a zone.
impl Default for ZonePolicy {
    fn default() -> Self {
        Self {
            decline_above: Score::new(8_000).expect("not more than 1"),
            review_above: Score::new(5_000).expect("not more than 1"),
            deadline: Duration::from_millis(250),
            when_unavailable: Vec::new(),
            otherwise: Unscored::Closed,
            transaction_risk: TransactionRisk::default(),
        }
    }
}

impl ZonePolicy {
    /// What is done with a payment that was not scored. `reference` is its amount in minor units of the reference currency, where that is known.
    pub fn unscored(&self, reference: Option<u64>) -> Unscored {
        let step = reference.and_then(|amount| self.when_unavailable.iter().find(|(up_to, _)| amount <= *up_to));
        step.map_or(self.otherwise, |(_, then)| *then)
    }
}

/// What fraud detection goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fraud {
    pub(crate) version: String,
    pub(crate) reference: Currency,
    pub(crate) rates: BTreeMap<Currency, Decimal>,
    pub(crate) zones: BTreeMap<ZoneName, ZonePolicy>,
    pub(crate) rules: BTreeMap<Signal, Vec<Rule>>,
    pub(crate) block: Listed,
    pub(crate) allow: Listed,
}

impl Fraud {
    /// Reads and validates `fraud.yaml` in the configuration's folder, or beside the configuration's file. `None`: there is none, so that nothing is scored.
    ///
    /// # Errors
    /// Every problem of the file; or one, without a line, when it cannot be read.
    pub fn load(dir_or_file: &Path, topology: &Topology) -> Result<Option<Self>, Errors> {
        let folder = if dir_or_file.is_dir() { dir_or_file } else { dir_or_file.parent().unwrap_or(Path::new("")) };
        let file = folder.join(FRAUD_FILE_NAME);
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
        match read(&root, topology, &mut problems) {
            Some(mut fraud) if problems.is_empty() => {
                let hash = blake3::hash(fraud.meaning().as_bytes()).to_hex();
                fraud.version = format!("{}-{}", fraud.version, &hash[..HASH_LETTERS]);
                Ok(fraud)
            }
            _ => Err(problems.into_errors()),
        }
    }

    /// The file's own `version` and the first letters of a hash of all that it means: two files with one version decide alike.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How much each signal counts. A signal without rules counts nothing.
    pub fn rules(&self) -> &BTreeMap<Signal, Vec<Rule>> {
        &self.rules
    }

    /// Who is declined, whatever the score would be.
    pub fn block(&self) -> &Listed {
        &self.block
    }

    /// Who is accepted, whatever the score would be, unless something is blocked.
    pub fn allow(&self) -> &Listed {
        &self.allow
    }

    /// The policy of a zone.
    pub fn policy(&self, zone: &ZoneName) -> &ZonePolicy {
        static DEFAULT: LazyLock<ZonePolicy> = LazyLock::new(ZonePolicy::default);
        self.zones.get(zone).unwrap_or(&DEFAULT)
    }

    /// The policies of the zones that the file says something of.
    pub fn policies(&self) -> impl Iterator<Item = (&ZoneName, &ZonePolicy)> {
        self.zones.iter()
    }

    /// The currency in which amounts are compared and added up.
    pub fn reference_currency(&self) -> Currency {
        self.reference
    }

    /// An amount in minor units of the reference currency, rounded to the nearest and halves to the even one; what is past all bounds is the largest that there
    /// is. `None`: its currency has no rate.
    pub fn to_reference(&self, amount: Money) -> Option<u64> {
        let currency = amount.currency();
        if currency == self.reference {
            return u64::try_from(amount.minor()).ok();
        }
        let rate = self.rates.get(&currency)?;
        let exponent = self.reference.exponent();
        let minor = Decimal::new(amount.minor(), currency.exponent()).checked_mul(*rate).and_then(|major| {
            let mut rounded = major.round_dp(exponent);
            rounded.rescale(exponent);
            (rounded.scale() == exponent).then(|| rounded.mantissa())
        });
        Some(minor.and_then(|minor| u64::try_from(minor).ok()).map_or(REFERENCE_MINOR_MAX, |minor| minor.min(REFERENCE_MINOR_MAX)))
    }

    /// All that the file says, in one form whatever its spacing and order. Not `Debug`, which withholds countries and those who are listed.
    fn meaning(&self) -> String {
        let Self { version, reference, rates, zones, rules, block, allow } = self;
        let mut text = format!("{version}\n{reference}\n");
        let mut line = |words: fmt::Arguments<'_>| writeln!(text, "{words}").expect("to write to a text does not fail");
        rates.iter().for_each(|(currency, rate)| line(format_args!("{currency} {}", rate.normalize())));
        for (zone, policy) in zones {
            line(format_args!("{zone} {policy:?}"));
        }
        for (signal, rules) in rules {
            rules.iter().for_each(|rule| line(format_args!("{signal} {rule:?}")));
        }
        for (list, Listed { users, cards, devices, bins, countries }) in [("block", block), ("allow", allow)] {
            users.iter().for_each(|user| line(format_args!("{list} user {}", user.get())));
            cards.iter().for_each(|card| line(format_args!("{list} card {card:?}")));
            devices.iter().for_each(|device| line(format_args!("{list} device {device:?}")));
            bins.iter().for_each(|bin| line(format_args!("{list} bin {bin}")));
            countries.iter().for_each(|country| line(format_args!("{list} country {}", country.code())));
        }
        text
    }
}
