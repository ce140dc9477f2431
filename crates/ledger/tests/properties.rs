//! What holds of the books whatever is asked, in whatever order, and whenever messages travel: random commands over a few
//! users, currencies and shards. What is checked at every step is in `support/run.rs` and `support/network.rs`.

#![forbid(unsafe_code)]

#[path = "support/network.rs"]
mod network;
#[path = "support/run.rs"]
mod run;

use paymesh_ledger::{
    Account, Audit, Authentication, Body, CardStep, Entry, Exempted, Exemption, MandateKind, MandateState, NewCharge, NewPayment,
    PAYMENT_METHODS_MAX, PaymentMethod, REFERENCE_RATES, State,
};
use paymesh_types::{AMOUNT_MINOR_MAX, Money, Position, Sequence, Timestamp, VaultToken};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use run::{Act, CURRENCIES, FIRST_DEPOSIT, Odd, Run, SHARDS, Step, USERS, Word, user};

/// Which of those that there are by then, counted from the newest; mostly a new one.
fn picks() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..4_usize, 2 => 0..1024_usize]
}

fn users() -> impl Strategy<Value = u64> {
    1..=USERS
}

fn currencies() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(0_usize), 2 => Just(1), 1 => Just(2)]
}

/// Small amounts, and those at the bound.
fn amounts() -> impl Strategy<Value = i64> {
    prop_oneof![24 => 1..=60_i64, 1 => (0..=FIRST_DEPOSIT).prop_map(|less| AMOUNT_MINOR_MAX - less)]
}

fn amounts_or_all() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![3 => amounts().prop_map(Some), 2 => Just(None)]
}

fn asked() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![1 => Just(None), 2 => (-1..=60_i64).prop_map(Some)]
}

fn holds() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0_u32), 1..=60_u32]
}

fn words() -> impl Strategy<Value = Word> {
    prop_oneof![
        12 => Just(Word::Done),
        3 => Just(Word::Challenged),
        2 => Just(Word::Declined),
        2 => Just(Word::Left),
        1 => Just(Word::Wanted),
    ]
}

fn mandates() -> impl Strategy<Value = Option<MandateKind>> {
    prop_oneof![6 => Just(None), 1 => Just(Some(MandateKind::Recurring)), 1 => Just(Some(MandateKind::TrustedPayee))]
}

/// Payments that name an earlier one's mandate, and what ends one.
fn under<S: Strategy<Value = usize>>(which: impl Fn() -> S) -> impl Strategy<Value = Act> {
    let odd = prop_oneof![Just(Odd::Payee), Just(Odd::Amount), Just(Odd::Card), Just(Odd::Term)];
    let pays = (which(), prop::bool::weighted(0.8), prop_oneof![3 => Just(None), 1 => odd.prop_map(Some)])
        .prop_map(|(payment, psd2, odd)| Act::Under { payment, psd2, odd });
    prop_oneof![6 => pays, 1 => which().prop_map(|payment| Act::CancelMandate { payment })]
}

/// Payments by card: mostly small, some about as large as a low value may be.
fn charges() -> impl Strategy<Value = Act> {
    let amounts = prop_oneof![3 => amounts(), 1 => 1_000..=3_100_i64];
    let odds = (prop::bool::weighted(0.1), prop::bool::weighted(0.8));
    let beside = (odds, mandates(), scores());
    (users(), 1..USERS, currencies(), amounts, holds(), beside).prop_map(
        |(payer, apart, currency, amount, hold_s, ((declined, psd2), mandate, score))| {
            let payee = (payer - 1 + apart) % USERS + 1;
            Act::Charge { payer, payee, currency, amount, hold_s, declined, psd2, mandate, score }
        },
    )
}

fn scores() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![1 => Just(None), 6 => Just(Some(0)), 2 => (0..3_u32).prop_map(Some)]
}

/// What one payer does by card over months, of which some is fraud.
fn risky_steps() -> impl Strategy<Value = Step> {
    let amounts = prop_oneof![
        3 => 3_001..=60_000_i64,
        1 => prop::sample::select(vec![10_000_i64, 10_001, 25_000, 25_001, 50_000, 50_001]),
        2 => 1_000_000..=9_000_000_i64,
        1 => 1..=3_000_i64,
    ];
    let charge = (amounts, prop_oneof![8 => Just(0_usize), 1 => Just(1)], prop::sample::select(vec![2_u64, 3]), scores()).prop_map(
        |(amount, currency, payee, score)| Act::Charge {
            payer: 1,
            payee,
            currency,
            amount,
            hold_s: 0,
            declined: false,
            psd2: true,
            mandate: None,
            score,
        },
    );
    let word = prop_oneof![8 => Just(Word::Done), 1 => Just(Word::Challenged), 1 => Just(Word::Declined)];
    prop_oneof![
        6 => charge.prop_map(|act| Step::Submit { act, reused: None }),
        12 => (0..2_usize, word).prop_map(|(payment, word)| Step::Submit { act: Act::Settle { payment, operation: 0, word }, reused: None }),
        2 => (0..40_usize).prop_map(|payment| Step::Submit { act: Act::ReportFraud { payment }, reused: None }),
        1 => picks().prop_map(Step::Repeat),
        1 => Just(Step::Submit { act: Act::Close { user: 2, currency: 0 }, reused: None }),
        3 => (0..30_u64).prop_map(|days| Step::Wait(days * 24 * 3600)),
        1 => Just(Step::Restart(0)),
    ]
}

/// What one payer does by card, and what the acquirer makes of it.
fn authenticating_steps() -> impl Strategy<Value = Step> {
    let words = prop_oneof![5 => Just(Word::Done), 4 => Just(Word::Challenged), 1 => Just(Word::Declined), 1 => Just(Word::Wanted)];
    let amounts = prop_oneof![2 => 1..=2_000_i64, 1 => 2_900..=3_100_i64];
    let beside = (prop::bool::weighted(0.9), mandates());
    let charge = (amounts, prop_oneof![8 => Just(0_usize), 1 => Just(1)], beside).prop_map(|(amount, currency, (psd2, mandate))| {
        Act::Charge { payer: 1, payee: 2, currency, amount, hold_s: 0, declined: false, psd2, mandate, score: None }
    });
    prop_oneof![
        6 => charge.prop_map(|act| Step::Submit { act, reused: None }),
        8 => (0..3_usize, words).prop_map(|(payment, word)| Step::Submit { act: Act::Settle { payment, operation: 0, word }, reused: None }),
        4 => (0..3_usize).prop_map(|payment| Step::Submit { act: Act::Confirm { payment }, reused: None }),
        4 => under(|| 0..12_usize).prop_map(|act| Step::Submit { act, reused: None }),
        1 => amounts_or_all().prop_map(|amount| Step::Submit { act: Act::Deposit { user: 1, currency: 0, amount }, reused: None }),
        1 => (200..=1_000_u64).prop_map(Step::Wait),
        1 => (0..3_usize).prop_map(|payment| Step::Submit { act: Act::Expire { payment }, reused: None }),
        1 => Just(Step::Restart(0)),
    ]
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (users(), prop::collection::btree_set(0..CURRENCIES.len(), 0..=3))
            .prop_map(|(user, currencies)| Act::Enrol { user, currencies: currencies.into_iter().collect() }),
        1 => (users(), any::<bool>()).prop_map(|(user, eu)| Act::Claim { user, eu }),
        2 => (users(), currencies()).prop_map(|(user, currency)| Act::Open { user, currency }),
        4 => (users(), currencies()).prop_map(|(user, currency)| Act::Close { user, currency }),
        3 => (users(), 0..4_u8).prop_map(|(user, card)| Act::Keep { user, card }),
        2 => (users(), 0..4_u8).prop_map(|(user, card)| Act::Drop { user, card }),
        3 => (users(), currencies(), amounts_or_all()).prop_map(|(user, currency, amount)| Act::Deposit { user, currency, amount }),
        5 => (users(), currencies(), amounts_or_all()).prop_map(|(user, currency, amount)| Act::Withdraw { user, currency, amount }),
        12 => (users(), 1..USERS, currencies(), amounts(), holds()).prop_map(|(payer, apart, currency, amount, hold_s)| {
            let payee = (payer - 1 + apart) % USERS + 1;
            Act::Pay { payer, payee, currency, amount, hold_s }
        }),
        8 => charges(),
        4 => under(picks),
        20 => (picks(), 0..8_usize, words()).prop_map(|(payment, operation, word)| Act::Settle { payment, operation, word }),
        3 => picks().prop_map(|payment| Act::Confirm { payment }),
        6 => (picks(), asked()).prop_map(|(payment, amount)| Act::Capture { payment, amount }),
        2 => (picks(), prop::bool::weighted(0.2)).prop_map(|(payment, wrong_term)| Act::Void { payment, wrong_term }),
        8 => (picks(), asked()).prop_map(|(payment, amount)| Act::Refund { payment, amount }),
        3 => picks().prop_map(|payment| Act::Expire { payment }),
        2 => picks().prop_map(|payment| Act::ReportFraud { payment }),
    ]
}

fn carries() -> impl Strategy<Value = Step> {
    (0..SHARDS.len(), 1..SHARDS.len()).prop_map(|(from, apart)| Step::Carry { from, to: (from + apart) % SHARDS.len() })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => acts().prop_map(|act| Step::Submit { act, reused: None }),
        1 => (acts(), picks()).prop_map(|(act, reused)| Step::Submit { act, reused: Some(reused) }),
        2 => picks().prop_map(Step::Repeat),
        14 => carries(),
        2 => picks().prop_map(Step::CarryAgain),
        2 => (1..=40_u64).prop_map(Step::Wait),
        1 => (0..SHARDS.len()).prop_map(Step::Lead),
        2 => (0..SHARDS.len()).prop_map(Step::Restart),
    ]
}

/// Refunds of one payment, and what makes them fail or late.
fn racing_steps() -> impl Strategy<Value = Step> {
    let refund = asked().prop_map(|amount| Act::Refund { payment: 0, amount });
    let payee = |user: u64| {
        prop_oneof![
            amounts_or_all().prop_map(move |amount| Act::Withdraw { user, currency: 0, amount }),
            amounts_or_all().prop_map(move |amount| Act::Deposit { user, currency: 0, amount }),
            Just(Act::Close { user, currency: 0 }),
        ]
    };
    prop_oneof![
        8 => refund.prop_map(|act| Step::Submit { act, reused: None }),
        3 => (2..=USERS).prop_flat_map(payee).prop_map(|act| Step::Submit { act, reused: None }),
        1 => picks().prop_map(Step::Repeat),
        8 => carries(),
        2 => picks().prop_map(Step::CarryAgain),
        1 => (0..SHARDS.len()).prop_map(Step::Restart),
    ]
}

/// A way to falsify a journal.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Falsification {
    Amount,
    AmountOfBoth,
    AmountAndBalanceOfBoth,
    BalanceAfter,
    HeldAfter,
    PreviousLine,
    Account,
    Said,
    SaidOfHold,
    SaidOfRefund,
    SaidOfAuthentication,
    SaidOfMandate,
    SaidOfRisk,
    Exempted,
    Counted,
    NotCounted,
    Source,
    Older,
    Dropped,
    Twice,
    Swapped,
}

const FALSIFICATIONS: [Falsification; 21] = [
    Falsification::Amount,
    Falsification::AmountOfBoth,
    Falsification::AmountAndBalanceOfBoth,
    Falsification::BalanceAfter,
    Falsification::HeldAfter,
    Falsification::PreviousLine,
    Falsification::Account,
    Falsification::Said,
    Falsification::SaidOfHold,
    Falsification::SaidOfRefund,
    Falsification::SaidOfAuthentication,
    Falsification::SaidOfMandate,
    Falsification::SaidOfRisk,
    Falsification::Exempted,
    Falsification::Counted,
    Falsification::NotCounted,
    Falsification::Source,
    Falsification::Older,
    Falsification::Dropped,
    Falsification::Twice,
    Falsification::Swapped,
];

impl Falsification {
    /// Whether it must show already when the entry is applied: a state adds up less than an audit does.
    fn shows_in_a_state(self) -> bool {
        matches!(
            self,
            Self::Amount | Self::AmountOfBoth | Self::BalanceAfter | Self::PreviousLine | Self::Account | Self::Counted | Self::Source
        )
    }
}

/// Falsifies entry `at` of the journal by `by` minor units, where that can be done to it.
fn falsify(journal: &mut Vec<(Position, Entry)>, falsification: Falsification, at: usize, by: i64) -> bool {
    let count = journal.len();
    let counted_before = journal[..at].iter().any(|(_, entry)| entry.counted().is_some());
    let entry = &mut journal[at].1;
    let postings = &mut entry.postings;
    let wallet = postings.iter().position(|posting| matches!(posting.account, Account::Wallet(_)));
    match (falsification, wallet) {
        (Falsification::Amount, _) if !postings.is_empty() => postings[0].amount += by,
        (Falsification::AmountOfBoth, _) if postings.len() == 2 => {
            postings[0].amount += by;
            postings[1].amount -= by;
        }
        (Falsification::AmountAndBalanceOfBoth, _) if postings.len() == 2 => {
            for (posting, by) in postings.iter_mut().zip([by, -by]) {
                posting.amount += by;
                posting.balance_after += by;
            }
        }
        (Falsification::BalanceAfter, _) if !postings.is_empty() => postings[0].balance_after += by,
        (Falsification::HeldAfter, Some(wallet)) => postings[wallet].held_after += by,
        (Falsification::PreviousLine, Some(wallet)) => postings[wallet].previous_line.0 += 1,
        (Falsification::Account, Some(wallet)) => postings[wallet].account = Account::Wallet(user(USERS + 1)),
        (Falsification::Said, _) => match &mut entry.body {
            Body::Deposited { money, .. } | Body::Withdrawn { money, declined: None, .. } => {
                *money = Money::new(money.minor() % 1000 + by.abs(), money.currency()).filter(|new| new != money).expect("another amount");
            }
            _ => return false,
        },
        (Falsification::SaidOfHold, _) => match &mut entry.body {
            Body::PaymentCaptured { payment, .. } | Body::Card { step: CardStep::Captured | CardStep::CaptureReturned, payment, .. }
                if payment.captured > 1 =>
            {
                payment.captured -= 1
            }
            Body::PaymentVoided { payment } | Body::PaymentExpired { payment } => payment.amount += by.abs(),
            _ => return false,
        },
        (Falsification::SaidOfRefund, _) => match &mut entry.body {
            Body::RefundCompleted { payment, amount, .. }
            | Body::RefundRequested { payment, amount, .. }
            | Body::Card { step: CardStep::RefundAsked { amount, .. } | CardStep::Refunded { amount }, payment, .. } => {
                *amount = payment.refunded + 1;
            }
            _ => return false,
        },
        (Falsification::SaidOfAuthentication, _) => match &mut entry.body {
            Body::PaymentCreated(new) => match new.card.as_mut().map(|card| &mut card.authentication) {
                // By a mandate too: it is then exempt by none.
                Some(authentication @ Authentication::Exempt(_)) => *authentication = Authentication::Required,
                _ => return false,
            },
            Body::Card { step: CardStep::Authorized, before, .. } if !postings.is_empty() => {
                before.card.as_mut().expect("it is by card").challenge = None;
            }
            _ => return false,
        },
        (Falsification::SaidOfMandate, _) => match &mut entry.body {
            Body::PaymentCreated(new) => match new.card.as_mut() {
                Some(card) if card.under.is_some() && by % 4 == 0 => card.token = VaultToken::new(card.token.zone().clone(), [9; 16]),
                Some(card) if card.under.is_some() && by % 4 == 1 => new.payee = user(USERS + 1),
                Some(card) if card.under.is_some() && by % 4 == 2 => card.under = None,
                Some(NewCharge { under: Some(under), .. }) => {
                    under.kind = match under.kind {
                        MandateKind::Recurring => MandateKind::TrustedPayee,
                        MandateKind::TrustedPayee => MandateKind::Recurring,
                    };
                }
                _ => return false,
            },
            Body::Card { step: CardStep::Authorized | CardStep::MandateCancelled, payment, .. } => {
                match payment.card.as_mut().and_then(|charge| charge.mandate.as_mut()) {
                    Some(mandate) => {
                        mandate.state = match mandate.state {
                            MandateState::Active => MandateState::Pending,
                            MandateState::Pending | MandateState::Cancelled => MandateState::Active,
                        };
                    }
                    None => return false,
                }
            }
            _ => return false,
        },
        // Above all thresholds, or not in euros.
        (Falsification::SaidOfRisk, _) => match &mut entry.body {
            Body::PaymentCreated(new) if new.money.minor() > REFERENCE_RATES[0].0 || new.money.currency().code() != "EUR" => {
                match new.card.as_mut().map(|card| &mut card.authentication) {
                    Some(authentication @ Authentication::Required) => {
                        *authentication = Authentication::Exempt(Exemption::TransactionRisk);
                    }
                    _ => return false,
                }
            }
            _ => return false,
        },
        (Falsification::Exempted, Some(wallet)) => {
            let Exempted { payments, minor } = postings[wallet].exempted_after;
            postings[wallet].exempted_after = Exempted { payments: payments + 1, minor: minor + by.abs() };
        }
        (Falsification::Counted, _) => match &mut entry.body {
            Body::Card { counted: Some(counted), .. } => counted.after.minor += by.abs(),
            _ => return false,
        },
        // Nothing is counted in a journal of before that was done.
        (Falsification::NotCounted, _) => match &mut entry.body {
            Body::Card { counted: counted @ Some(_), .. } if counted_before => *counted = None,
            _ => return false,
        },
        (Falsification::Source, _) => match &mut entry.body {
            Body::Received { at, .. } => at.sequence = Sequence(0),
            _ => return false,
        },
        (Falsification::Older, _) if at > 0 => entry.at = Timestamp(0),
        (Falsification::Dropped, _) if at + 1 < count => {
            journal.remove(at);
        }
        (Falsification::Twice, _) => {
            let twice = journal[at].clone();
            journal.insert(at, twice);
        }
        (Falsification::Swapped, _) if at + 1 < count => journal.swap(at, at + 1),
        _ => return false,
    }
    true
}

fn config() -> ProptestConfig {
    // A failure prints its seed and keeps it, to be tried first from then on.
    let seeds = FileFailurePersistence::Direct("tests/properties.regressions");
    ProptestConfig { failure_persistence: Some(Box::new(seeds)), ..ProptestConfig::default() }
}

#[test]
fn a_restart_right_after_a_closing_finds_the_account_as_it_was() {
    let act = |act| Step::Submit { act, reused: None };
    Run::new(4, 0)
        .play(&[
            act(Act::Pay { payer: 2, payee: 3, currency: 0, amount: 60, hold_s: 0 }),
            act(Act::Withdraw { user: 2, currency: 0, amount: None }),
            // Enough that the tables have the lines and not the closing.
            act(Act::Deposit { user: 1, currency: 0, amount: Some(1) }),
            act(Act::Deposit { user: 1, currency: 0, amount: Some(1) }),
            act(Act::Deposit { user: 1, currency: 0, amount: Some(1) }),
            act(Act::Close { user: 2, currency: 0 }),
            Step::Restart(0),
            Step::Carry { from: 0, to: 1 },
            Step::Carry { from: 1, to: 0 },
            // The statement goes on where it was, and so does the list of payments.
            act(Act::Refund { payment: 0, amount: None }),
            act(Act::Pay { payer: 2, payee: 1, currency: 0, amount: 1, hold_s: 0 }),
            Step::Restart(0),
            act(Act::Pay { payer: 2, payee: 1, currency: 0, amount: 1, hold_s: 0 }),
        ])
        .finish();
}

#[test]
fn a_restart_between_keeping_a_card_and_dropping_it_finds_it_as_it_was() {
    let act = |act| Step::Submit { act, reused: None };
    Run::new(2, 0)
        .play(&[
            act(Act::Keep { user: 1, card: 0 }),
            act(Act::Keep { user: 1, card: 1 }),
            // Enough that the tables have the cards.
            act(Act::Deposit { user: 1, currency: 0, amount: Some(1) }),
            act(Act::Deposit { user: 1, currency: 0, amount: Some(1) }),
            Step::Restart(0),
            act(Act::Drop { user: 1, card: 0 }),
            Step::Restart(0),
            act(Act::Keep { user: 1, card: 0 }),
            act(Act::Drop { user: 1, card: 1 }),
            Step::Restart(0),
            act(Act::Drop { user: 1, card: 0 }),
        ])
        .finish();
}

/// Which a state that has the cards says itself: an audit counts.
#[test]
fn an_audit_refuses_cards_that_cannot_have_been_kept() {
    let act = |act| Step::Submit { act, reused: None };
    let run = Run::new(0, 0).play(&[act(Act::Keep { user: 1, card: 0 }), act(Act::Drop { user: 1, card: 0 })]).finish();
    let journal = &run.network.shards[0].journal;
    let accepted = |journal: &[(Position, Entry)]| {
        let mut audit = Audit::default();
        journal.iter().all(|(position, entry)| audit.take(position, entry).is_ok())
    };
    assert!(accepted(journal));
    let dropped = journal.len() - 1;
    let Body::MethodRemoved { method, .. } = journal[dropped].1.body.clone() else { panic!("{:?}", journal[dropped]) };
    for wrong in [
        Body::MethodRemoved { user: user(2), method: method.clone() },
        Body::MethodRemoved { user: user(1), method: PaymentMethod { added: journal[dropped].0.sequence, ..method.clone() } },
    ] {
        let mut falsified = journal.clone();
        falsified[dropped].1.body = wrong;
        assert!(!accepted(&falsified), "{:?}", falsified[dropped]);
    }
    let mut falsified = journal[..dropped].to_vec();
    while falsified.len() < dropped + PAYMENT_METHODS_MAX {
        let (Position { shard, epoch, sequence }, entry) = falsified.last().cloned().expect("there are some");
        falsified.push((Position { shard, epoch, sequence: sequence.next() }, entry));
    }
    assert!(!accepted(&falsified) && accepted(&falsified[..falsified.len() - 1]), "one more than may be");
}

/// Whatever an entry says of an exemption, an audit asks the mandate.
#[test]
fn an_audit_refuses_an_exemption_that_its_mandate_does_not_give() {
    type Change = fn(&mut NewPayment, &mut NewCharge);
    let act = |act| Step::Submit { act, reused: None };
    let settle = |word| act(Act::Settle { payment: 0, operation: 0, word });
    let charge = |amount, mandate| {
        act(Act::Charge { payer: 1, payee: 2, currency: 0, amount, hold_s: 0, declined: false, psd2: true, mandate, score: None })
    };
    let run = Run::new(0, 0)
        .play(&[
            charge(4_000, Some(MandateKind::Recurring)),
            settle(Word::Challenged),
            act(Act::Confirm { payment: 0 }),
            settle(Word::Done),
            act(Act::Under { payment: 0, psd2: true, odd: None }),
            charge(4_000, None),
        ])
        .finish();
    let journal = &run.network.shards[0].journal;
    let made = |of: fn(&NewCharge) -> bool| {
        let made = |(_, entry): &(Position, Entry)| match &entry.body {
            Body::PaymentCreated(new) => new.card.as_ref().is_some_and(of),
            _ => false,
        };
        journal.iter().position(made).expect("it was made")
    };
    let (sets_up, under) = (made(|card| card.mandate.is_some()), made(|card| card.under.is_some()));
    let plain = made(|card| card.mandate.is_none() && card.under.is_none());
    let cases: &[(usize, &str, Change)] = &[
        (under, "another payee", |new, _| new.payee = user(4)),
        (under, "another amount", |new, _| new.money = Money::new(4_001, new.money.currency()).expect("an amount")),
        (under, "another card", |_, card| card.token = VaultToken::new(card.token.zone().clone(), [9; 16])),
        (under, "no mandate", |_, card| card.under = None),
        (under, "another exemption", |_, card| card.authentication = Authentication::Exempt(Exemption::TrustedPayee)),
        (under, "none", |_, card| card.authentication = Authentication::Required),
        (under, "another kind", |_, card| card.under.as_mut().expect("it has one").kind = MandateKind::TrustedPayee),
        (plain, "no mandate at all", |_, card| card.authentication = Authentication::Exempt(Exemption::Recurring)),
        (sets_up, "one that is exempt", |_, card| card.authentication = Authentication::Exempt(Exemption::TrustedPayee)),
        (sets_up, "one that is not set up", |_, card| card.mandate = None),
    ];
    for (at, what, change) in cases {
        let mut journal = journal.clone();
        let Body::PaymentCreated(new) = &mut journal[*at].1.body else { panic!("a payment was made there") };
        let mut card = new.card.take().expect("it is by card");
        change(new, &mut card);
        new.card = Some(card);
        let mut audit = Audit::default();
        let refused = journal.iter().position(|(position, entry)| audit.take(position, entry).is_err());
        assert!(refused.is_some_and(|refused| refused >= *at), "{what}: {refused:?}");
    }
}

proptest! {
    #![proptest_config(config())]

    /// Every step is checked on its way: see [`Network::submit`], [`Network::check`] and [`Run::submit`].
    #[test]
    fn no_money_is_made_or_lost_and_all_states_decide_alike(
        steps in prop::collection::vec(steps(), 1..120),
        behind in 0..6_usize,
        keep in 0..6_usize,
    ) {
        Run::new(behind, keep).play(&steps).finish();
    }

    #[test]
    fn refunds_never_exceed_the_capture_however_many_race(
        payee in 2..=8_u64,
        amount in 1..=FIRST_DEPOSIT,
        hold_s in holds(),
        captured in asked(),
        steps in prop::collection::vec(racing_steps(), 1..80),
        behind in 0..3_usize,
    ) {
        // Users 2 and 4 are of user 1's own shard, 3, 5 and 6 are of others, 7 and 8 have no account.
        let mut first = vec![Step::Submit { act: Act::Pay { payer: 1, payee, currency: 0, amount, hold_s }, reused: None }];
        if hold_s > 0 {
            first.push(Step::Submit { act: Act::Capture { payment: 0, amount: captured }, reused: None });
        }
        first.extend(steps);
        Run::new(behind, 0).play(&first).finish();
    }

    /// What is counted is checked against a recount of the journal, and the bounds at every entry: see [`network::Shard::recount`].
    #[test]
    fn no_more_payments_are_exempt_in_a_row_than_may_be(
        steps in prop::collection::vec(authenticating_steps(), 20..120),
        behind in 0..4_usize,
    ) {
        Run::new(behind, 0).play(&steps).finish();
    }

    /// Whether each payment is of low risk is recounted from the journal: see [`Run::is_low_risk`].
    #[test]
    fn low_risks_are_exempt_while_little_of_ninety_days_is_fraud(
        steps in prop::collection::vec(risky_steps(), 20..110),
        behind in 0..4_usize,
    ) {
        Run::new(behind, 0).play(&steps).finish();
    }

    #[test]
    fn an_audit_refuses_a_falsified_journal(
        steps in prop::collection::vec(steps(), 20..60),
        shard in 0..SHARDS.len(),
        at in picks(),
        by in prop_oneof![-50..=-1_i64, 1..=50_i64],
    ) {
        let run = Run::new(0, 0).play(&steps).finish();
        let journal = &run.network.shards[shard].journal;
        prop_assume!(!journal.is_empty());
        for falsification in FALSIFICATIONS {
            // The first entry from there on that can be falsified so.
            let falsified = (0..journal.len()).map(|offset| (at + offset) % journal.len()).find_map(|at| {
                let mut journal = journal.clone();
                falsify(&mut journal, falsification, at, by).then_some((at, journal))
            });
            let Some((at, falsified)) = falsified else { continue };
            let mut audit = Audit::default();
            let accepted = falsified.iter().all(|(position, entry)| audit.take(position, entry).is_ok());
            let mut state = State::new(run.network.shards[shard].state.shard().clone());
            let applied = falsified.iter().all(|(position, entry)| state.apply(position, entry).is_ok());
            prop_assert!(!applied || !falsification.shows_in_a_state(), "{:?} of entry {} is applied: {:?}", falsification, at + 1, journal[at]);
            prop_assert!(!accepted, "{:?} of entry {} goes unnoticed: {:?}", falsification, at + 1, journal[at]);
        }
    }
}
