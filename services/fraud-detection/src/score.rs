//! The score of a payment, from what was measured of it. Pure.
//!
//! A rule counts `strength = weight * ramp(value)`, where the ramp is 0 up to `from`, 1 from `full` on, and in proportion between them. Signals that say the same in
//! several ways are a family ([`Family`]), of which the strongest counts: a burst of payments by one card from one device is one burst. Families are
//! taken to be independent evidence, so that
//!
//! ```text
//! score = 1 - product over families of (1 - strongest strength of the family)
//! ```
//!
//! which is in [0, 1], grows with each value and each weight, and does not depend on any order. All of it is in fixed point: a strength is rounded down to a
//! ten-thousandth, the product is carried to 10^-15, and the score is rounded down to a ten-thousandth. What is blocked scores 1, and otherwise
//! what is allowed scores 0.

use paymesh_topology::{Fraud, Rule, Signal, Window, ZonePolicy};
use paymesh_types::Score;

/// Signals that there are.
const SIGNALS: usize = Signal::WORDS.len();
/// Windows that there are.
const WINDOWS: usize = Window::ALL.len();
/// 1, as the product of what is left is carried.
const WHOLE: u64 = 1_000_000_000_000_000;
/// A ten-thousandth of that.
const STEP: u64 = WHOLE / 10_000;

/// What was measured of a payment. What is 0 counts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    values: [[u64; WINDOWS]; SIGNALS],
    /// Payments of the payer's that were accepted before.
    pub payments: u32,
    /// What of it is blocked.
    pub blocked: Vec<Listing>,
    /// What of it is allowed.
    pub allowed: Vec<Listing>,
}

impl Facts {
    /// What was measured; `per` is the window of a signal that has one.
    pub fn value(&self, signal: Signal, per: Option<Window>) -> u64 {
        self.values[signal as usize][per.map_or(0, |window| window as usize)]
    }

    /// Notes what was measured.
    pub fn set(&mut self, signal: Signal, per: Option<Window>, value: u64) {
        self.values[signal as usize][per.map_or(0, |window| window as usize)] = value;
    }

    /// Notes whether something is so.
    pub fn flag(&mut self, signal: Signal, is_so: bool) {
        self.set(signal, None, u64::from(is_so));
    }
}

/// Which part of a payment is on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listing {
    /// The payer.
    User,
    /// The payee.
    Payee,
    /// The card.
    Card,
    /// The device.
    Device,
    /// The card's first digits.
    Bin,
    /// The country of the card or of the payer.
    Country,
}

/// What counted towards a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// A signal.
    Signal(Signal),
    /// It is blocked.
    Blocked(Listing),
    /// It is allowed.
    Allowed(Listing),
}

/// What counted, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// What.
    pub code: Code,
    /// How much it can count at most.
    pub weight: Score,
    /// How much it counted: not more than its weight.
    pub strength: Score,
    /// What was measured.
    pub value: u64,
    /// The window that was looked at.
    pub per: Option<Window>,
}

/// What is to become of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// It goes on.
    Accept,
    /// It goes on, and is to be looked at.
    Review,
    /// It does not.
    Decline,
}

/// A score, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scored {
    /// The score.
    pub score: Score,
    /// What the zone makes of it.
    pub decision: Decision,
    /// What counted, in the order of the codes.
    pub reasons: Vec<Reason>,
}

/// Signals that are one piece of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// How fast the payer's side pays, whichever way it is seen.
    Pace,
    /// How fast the payee is paid.
    PayeePace,
    /// Cards and devices that go from hand to hand.
    Sharing,
    /// The signal by itself.
    Alone(Signal),
}

impl Family {
    /// Whose evidence a signal is.
    pub fn of(signal: Signal) -> Self {
        match signal {
            Signal::UserCount
            | Signal::UserAmount
            | Signal::CardCount
            | Signal::CardAmount
            | Signal::DeviceCount
            | Signal::DeviceAmount => Self::Pace,
            Signal::PayeeCount | Signal::PayeeAmount => Self::PayeePace,
            Signal::UserCards | Signal::CardUsers | Signal::DeviceUsers => Self::Sharing,
            alone => Self::Alone(alone),
        }
    }

    /// Its number among all, by which the product's factors have one order.
    fn index(self) -> usize {
        match self {
            // A family is numbered by its first signal.
            Self::Pace => Signal::UserCount as usize,
            Self::PayeePace => Signal::PayeeCount as usize,
            Self::Sharing => Signal::UserCards as usize,
            Self::Alone(signal) => signal as usize,
        }
    }
}

/// Scores a payment by the rules, and decides by the zone's policy. Whatever time it is has gone into the facts.
pub fn score(rules: &Fraud, policy: &ZonePolicy, facts: &Facts) -> Scored {
    let mut reasons: Vec<Reason> = rules.rules().iter().filter_map(|(signal, rules)| strongest(*signal, rules, facts)).collect();
    let mut strengths = [Score::ZERO; SIGNALS];
    for reason in &reasons {
        if let Code::Signal(signal) = reason.code {
            let strongest = &mut strengths[Family::of(signal).index()];
            *strongest = reason.strength.max(*strongest);
        }
    }
    let listed = |code: fn(Listing) -> Code, weight: Score| {
        move |listing: &Listing| Reason { code: code(*listing), weight, strength: weight, value: 1, per: None }
    };
    reasons.extend(facts.blocked.iter().map(listed(Code::Blocked, Score::ONE)));
    reasons.extend(facts.allowed.iter().map(listed(Code::Allowed, Score::ZERO)));
    reasons.sort_by_key(|reason| reason.code);
    let score = if !facts.blocked.is_empty() {
        Score::ONE
    } else if !facts.allowed.is_empty() {
        Score::ZERO
    } else {
        together(strengths)
    };
    let decision = match score {
        score if score > policy.decline_above => Decision::Decline,
        score if score > policy.review_above => Decision::Review,
        _ => Decision::Accept,
    };
    Scored { score, decision, reasons }
}

/// The rule of a signal that counts most, where any counts.
fn strongest(signal: Signal, rules: &[Rule], facts: &Facts) -> Option<Reason> {
    let counting = rules.iter().filter(|rule| facts.payments >= rule.after).map(|rule| {
        let value = facts.value(signal, rule.per);
        Reason { code: Code::Signal(signal), weight: rule.weight, strength: rule.weight.of(ramp(rule, value)), value, per: rule.per }
    });
    // Of equal ones the first: that of the shortest window.
    let strongest = counting.reduce(|one, other| if other.strength > one.strength { other } else { one });
    strongest.filter(|reason| reason.strength > Score::ZERO)
}

/// How much of a rule's weight a value counts.
fn ramp(rule: &Rule, value: u64) -> Score {
    if value <= rule.from {
        return Score::ZERO;
    }
    if value >= rule.full {
        return Score::ONE;
    }
    let share = u128::from(value - rule.from) * 10_000 / u128::from(rule.full - rule.from);
    u32::try_from(share).ok().and_then(Score::new).unwrap_or(Score::ONE)
}

/// The score of independent evidence: that not all of it is by chance.
fn together(strengths: [Score; SIGNALS]) -> Score {
    let left = strengths.iter().fold(WHOLE, |left, strength| left * u64::from(10_000 - strength.ten_thousandths()) / 10_000);
    let left = u32::try_from(left.div_ceil(STEP)).unwrap_or(10_000);
    Score::new(10_000_u32.saturating_sub(left)).unwrap_or(Score::ONE)
}
