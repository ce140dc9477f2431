//! What payments by card come to day by day, how they were authorized, and how much of it was fraud: by that a payment may be exempt from strong customer
//! authentication for its low risk.
//!
//! Commission Delegated Regulation (EU) 2018/389 (the RTS): the exemption is Article 18, the rate Article 19, what ends the exemption Article 20, what is to be
//! known of each kind of payment Article 21. Counted is what was captured of payments in EUR, on the day of the capture, whatever is refunded; and all of it once
//! more on the day on which somebody reports it as fraud. A shard's counters are its own, follow from its entries, and decide for its own payers.

use std::collections::BTreeMap;

use paymesh_types::{Money, Score, Timestamp};

use crate::{Authentication, CardStep, Charge, Exemption, Payment, Risk, sca};

/// For each exemption threshold value, in minor units of EUR and the largest first, the fraud rate up to which it holds, in hundredths of a per cent: the annex
/// of the RTS, for card-based payments.
pub const REFERENCE_RATES: [(i64, i64); 3] = [(50_000, 1), (25_000, 6), (10_000, 13)];
/// Days before today that count towards the rate, beside today: RTS Article 19(1).
pub const WINDOW_DAYS: u32 = 90;

const MICROSECONDS_PER_DAY: u64 = 24 * 3600 * 1_000_000;
/// A rate is a share of so many.
const RATE_UNIT: i128 = 10_000;

/// A day (UTC), in days since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(pub u32);

impl Day {
    /// The day of an instant.
    pub fn of(at: Timestamp) -> Self {
        // Instants are below 2^63 microseconds.
        Self(u32::try_from(at.0 / MICROSECONDS_PER_DAY).unwrap_or(u32::MAX))
    }

    /// Whether what happened on it counts on `today`.
    fn counts_on(self, today: Self) -> bool {
        self.0 >= today.0.saturating_sub(WINDOW_DAYS)
    }
}

/// How a payment by card came to be authorized: Article 21 has each known apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Means {
    /// Its cardholder was challenged and answered.
    Authenticated,
    /// Without that, exempt for its low value.
    LowValue,
    /// Without that, exempt for its low risk.
    TransactionRisk,
    /// Without that, as the issuer decided.
    Other,
    /// Without that, exempt as one of a series.
    Recurring,
    /// Without that, exempt because its payer trusts its payee.
    TrustedPayee,
}

impl Means {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Authenticated, Self::LowValue, Self::TransactionRisk, Self::Other, Self::Recurring, Self::TrustedPayee];

    pub(crate) fn of(authentication: Authentication, answered: bool) -> Self {
        match authentication {
            _ if answered => Self::Authenticated,
            Authentication::Exempt(Exemption::LowValue) => Self::LowValue,
            Authentication::Exempt(Exemption::TransactionRisk) => Self::TransactionRisk,
            Authentication::Exempt(Exemption::Recurring) => Self::Recurring,
            Authentication::Exempt(Exemption::TrustedPayee) => Self::TrustedPayee,
            Authentication::NotRequired | Authentication::Required => Self::Other,
        }
    }

    /// The name that operators see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::LowValue => "low_value",
            Self::TransactionRisk => "transaction_risk",
            Self::Other => "other",
            Self::Recurring => "recurring",
            Self::TrustedPayee => "trusted_payee",
        }
    }
}

/// What some payments by card come to. A sum that is past what it can hold stays there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Totals {
    /// Payments that were captured.
    pub payments: u64,
    /// What was captured, in minor units of EUR. Not negative.
    pub minor: i64,
    /// Payments that were reported as fraud, whenever they were made.
    pub frauds: u64,
    /// What had been captured of those, in minor units of EUR. Not negative.
    pub fraud_minor: i64,
}

impl Totals {
    /// With these too.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            payments: self.payments.saturating_add(more.payments),
            minor: self.minor.saturating_add(more.minor),
            frauds: self.frauds.saturating_add(more.frauds),
            fraud_minor: self.fraud_minor.saturating_add(more.fraud_minor),
        }
    }

    /// Whether the fraud among them is at most `rate` hundredths of a per cent of their value, which is more than nothing.
    fn is_within(self, rate: i64) -> bool {
        // Two numbers of 63 bits and one of 14 each: nothing overflows.
        self.minor > 0 && i128::from(self.fraud_minor) * RATE_UNIT <= i128::from(rate) * i128::from(self.minor)
    }

    /// The largest exemption threshold value whose reference rate these do not exceed, in minor units of EUR; 0 where there is none.
    pub fn threshold(self) -> i64 {
        REFERENCE_RATES.iter().find(|(_, rate)| self.is_within(*rate)).map_or(0, |(threshold, _)| *threshold)
    }
}

/// What an entry counts: the totals of its day and means after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// How the payment came to be authorized.
    pub means: Means,
    /// What its day's payments of those means come to.
    pub after: Totals,
}

/// How a zone's payments are exempt for their low risk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RiskAnalysis {
    /// A payment above is not, in minor units of EUR.
    pub exempt_minor_max: i64,
    /// None is before payments were counted for so many days.
    pub history_days: u32,
    /// One that scores above is not.
    pub score_max: Score,
}

/// What a shard's payments by card come to by day: of today and [`WINDOW_DAYS`] before, as of the last entry that counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Monitored {
    since: Option<Day>,
    days: BTreeMap<(Day, Means), Totals>,
}

impl Monitored {
    /// Out of storage.
    pub fn new(since: Option<Day>, days: impl IntoIterator<Item = ((Day, Means), Totals)>) -> Self {
        Self { since, days: days.into_iter().collect() }
    }

    /// The first day that was counted.
    pub fn since(&self) -> Option<Day> {
        self.since
    }

    /// The days that are kept, in order.
    pub fn days(&self) -> impl Iterator<Item = ((Day, Means), Totals)> {
        self.days.iter().map(|(key, totals)| (*key, *totals))
    }

    /// Days before it are not kept: they no longer count on the last day that was counted.
    pub fn oldest_kept(&self) -> Option<Day> {
        self.days.last_key_value().map(|((day, _), _)| Day(day.0.saturating_sub(WINDOW_DAYS)))
    }

    /// Takes in what an entry of that time counted, and lets go of the days that no longer do.
    pub fn note(&mut self, at: Timestamp, counted: &Counted) {
        let day = Day::of(at);
        self.extend(&Self::new(Some(day), [((day, counted.means), counted.after)]));
    }

    /// The same, of some entries after those that led to this.
    pub fn extend(&mut self, later: &Self) {
        self.since = self.since.or(later.since);
        self.days.extend(later.days());
        if let Some(oldest) = self.oldest_kept() {
            self.days.retain(|(day, _), _| *day >= oldest);
        }
    }

    /// What a step of a payment counts at that time; `None` where it counts nothing.
    pub(crate) fn counting(&self, at: Timestamp, step: CardStep, payment: &Payment) -> Option<Counted> {
        let more = match step {
            _ if !sca::counts(payment.currency) => return None,
            CardStep::Captured | CardStep::CaptureReturned => Totals { payments: 1, minor: payment.captured, ..Totals::default() },
            CardStep::FraudReported => Totals { frauds: 1, fraud_minor: payment.captured, ..Totals::default() },
            _ => return None,
        };
        // It was authorized before this was noted.
        let means = payment.card.as_deref().and_then(|charge: &Charge| charge.means).unwrap_or(Means::Other);
        let before = self.days.get(&(Day::of(at), means)).copied().unwrap_or_default();
        Some(Counted { means, after: before.plus(more) })
    }

    /// What counts towards the rate on that day.
    pub fn total(&self, today: Day) -> Totals {
        self.by_means(today).into_values().fold(Totals::default(), Totals::plus)
    }

    /// The same, by how the payments came to be authorized.
    pub fn by_means(&self, today: Day) -> BTreeMap<Means, Totals> {
        let mut sums = BTreeMap::<Means, Totals>::new();
        for ((_, means), totals) in self.days.iter().filter(|((day, _), _)| day.counts_on(today)) {
            let sum = sums.entry(*means).or_default();
            *sum = sum.plus(*totals);
        }
        sums
    }

    /// Whether payments have been counted for so many days.
    pub fn covers(&self, today: Day, days: u32) -> bool {
        self.since.is_some_and(|since| today.0.saturating_sub(since.0) >= days)
    }

    /// Whether a payment is exempt now for its low risk: it scores low and nobody is to look at it, and it is at most the threshold that the rate
    /// allows, and the zone.
    pub(crate) fn exempts(&self, now: Timestamp, money: Money, risk: Option<&Risk>, analysis: &RiskAnalysis) -> bool {
        let today = Day::of(now);
        let scores_low = risk.is_some_and(|risk| !risk.review && risk.score.is_some_and(|score| score <= analysis.score_max));
        scores_low
            && sca::counts(money.currency())
            && money.minor() <= analysis.exempt_minor_max
            && self.covers(today, analysis.history_days)
            && money.minor() <= self.total(today).threshold()
    }
}
