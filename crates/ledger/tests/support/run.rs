//! A random run: commands and messages in the order that a test drew, decided by every kind of state at once.
//!
//! Besides the leader's state each shard has two more that must decide the same: one that only applied the entries, and
//! one whose memory is let go of as soon as its tables have it, and that is restarted now and then.

use std::collections::BTreeMap;

use paymesh_ledger::{
    Agreement, Authentication, Body, ByCard, CardStep, Challenge, Command, CreatePayment, Day, Decision, Effect, Entry, Exemption,
    LeftBecause, MandateKind, Missing, NewPayment, Outcome, Phase, Reason, Records, Rejection, Request, Risk, RiskAnalysis, State, decide,
    differing_field,
};
use paymesh_types::{
    AMOUNT_MINOR_MAX, Currency, Epoch, GatewayName, Money, PaymentId, Position, RequestId, Score, Sequence, ShardRef, UserId, VaultToken,
};

use crate::network::{Network, load, prefetch};

/// How low risks are exempt.
const ANALYSIS: RiskAnalysis = RiskAnalysis { exempt_minor_max: 50_000, history_days: 3, score_max: Score::ZERO };
pub(crate) const SHARDS: [(&str, u16); 3] = [("eu", 0), ("eu", 1), ("us", 0)];
/// Users 1 to this. The last two are not enrolled at first.
pub(crate) const USERS: u64 = HOMES.len() as u64;
/// The shard of each user.
pub(crate) const HOMES: [usize; 8] = [0, 0, 1, 0, 1, 2, 0, 1];
/// Two, none and three digits; nobody has an account in the last at first.
pub(crate) const CURRENCIES: [&str; 3] = ["EUR", "JPY", "KWD"];
/// What each enrolled user has at first in EUR and JPY, in minor units: little, so that it runs out.
pub(crate) const FIRST_DEPOSIT: i64 = 100;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A new request, or a new command under a request id that was used before.
    Submit { act: Act, reused: Option<usize> },
    /// A request that was made before, as it was.
    Repeat(usize),
    /// One shard reads one thing in another's journal.
    Carry { from: usize, to: usize },
    /// What was carried before is carried again, to where it was.
    CarryAgain(usize),
    /// Seconds pass.
    Wait(u64),
    /// A shard begins its next term.
    Lead(usize),
    /// The state that depends on its tables loses its memory.
    Restart(usize),
}

#[derive(Debug, Clone)]
pub(crate) enum Act {
    Enrol {
        user: u64,
        currencies: Vec<usize>,
    },
    Claim {
        user: u64,
        eu: bool,
    },
    Open {
        user: u64,
        currency: usize,
    },
    Close {
        user: u64,
        currency: usize,
    },
    Keep {
        user: u64,
        card: u8,
    },
    Drop {
        user: u64,
        card: u8,
    },
    /// Without an amount: up to the bound.
    Deposit {
        user: u64,
        currency: usize,
        amount: Option<i64>,
    },
    /// Without an amount: all that is available.
    Withdraw {
        user: u64,
        currency: usize,
        amount: Option<i64>,
    },
    Pay {
        payer: u64,
        payee: u64,
        currency: usize,
        amount: i64,
        hold_s: u32,
    },
    /// By card.
    Charge {
        payer: u64,
        payee: u64,
        currency: usize,
        amount: i64,
        hold_s: u32,
        declined: bool,
        psd2: bool,
        mandate: Option<MandateKind>,
        /// Fraud detection's, in ten-thousandths.
        score: Option<u32>,
    },
    /// By card, as an earlier payment was, and under its mandate, if it has one; `odd` is what differs.
    Under {
        payment: usize,
        psd2: bool,
        odd: Option<Odd>,
    },
    ReportFraud {
        payment: usize,
    },
    CancelMandate {
        payment: usize,
    },
    Confirm {
        payment: usize,
    },
    /// The acquirer says something about what it was asked for, or was not.
    Settle {
        payment: usize,
        operation: usize,
        word: Word,
    },
    Capture {
        payment: usize,
        amount: Option<i64>,
    },
    Void {
        payment: usize,
        wrong_term: bool,
    },
    Refund {
        payment: usize,
        amount: Option<i64>,
    },
    Expire {
        payment: usize,
    },
}

/// In what a payment is not as the mandate has it that it names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Odd {
    Payee,
    Amount,
    Card,
    Term,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Word {
    Done,
    Challenged,
    Declined,
    Wanted,
    Left,
}

impl Word {
    fn outcome(self) -> Outcome {
        let id = || "ch_1".parse().expect("a charge's name");
        match self {
            Self::Done => Outcome::Done { id: id() },
            Self::Challenged => Outcome::Challenged {
                id: id(),
                challenge: Challenge { id: "7".to_owned(), url: Some("http://acquirer/challenges/1".to_owned()) },
            },
            Self::Declined => Outcome::Declined { reason: Reason::CardDeclined },
            Self::Wanted => Outcome::AuthenticationWanted,
            Self::Left => Outcome::Left { to: gateway(1), why: LeftBecause::Unreachable },
        }
    }
}

fn gateway(number: u8) -> GatewayName {
    format!("gateway_{number}").parse().expect("a gateway's name")
}

/// A network under test, with the states that must agree with its leaders'.
pub(crate) struct Run {
    pub(crate) network: Network,
    /// Each shard's entries applied, and nothing let go.
    replayed: Vec<State>,
    cold: Vec<Cold>,
    payments: Vec<(usize, PaymentId)>,
    requests: Vec<(usize, Request)>,
    carried: Vec<(usize, Request)>,
}

/// A state over tables that are some entries behind.
struct Cold {
    state: State,
    /// What the tables held after each entry.
    tables: Vec<Records>,
    behind: usize,
    keep: usize,
}

impl Cold {
    fn projected(&self) -> Sequence {
        Sequence((self.tables.len() - 1).saturating_sub(self.behind) as u64)
    }

    fn tables(&self) -> &Records {
        &self.tables[self.projected().0 as usize]
    }

    fn apply(&mut self, position: &Position, entry: &Entry, after: Records) {
        self.state.apply(position, entry).expect("the entry follows from the records that its decision needed");
        self.tables.push(after);
        self.state.evict(self.projected(), self.keep);
        if self.behind == 0 && self.keep == 0 {
            assert_eq!(self.state.resident(), 0);
        }
    }

    /// Reads back what the tables do not have yet.
    fn restart(&mut self, journal: &[(Position, Entry)]) {
        let projected = self.projected();
        self.state = State::new(self.state.shard().clone());
        load(&mut self.state, &Missing::default(), &self.tables[projected.0 as usize]);
        for (position, entry) in &journal[projected.0 as usize..] {
            let mut missing = Missing::default();
            self.state.missing_to_apply(entry, &mut missing);
            load(&mut self.state, &missing, &self.tables[projected.0 as usize]);
            self.state.apply(position, entry).expect("the journal follows from the tables");
        }
    }
}

fn currency(index: usize) -> Currency {
    Currency::from_code(CURRENCIES[index]).expect("a code of ISO 4217")
}

fn money(amount: i64, index: usize) -> Money {
    Money::new(amount, currency(index)).expect("strategies keep to the bounds")
}

pub(crate) fn user(number: u64) -> UserId {
    UserId::try_from(number).expect("users are counted from one")
}

fn token(shard: usize, card: u8) -> VaultToken {
    VaultToken::new(SHARDS[shard].0.parse().expect("a zone"), [card; 16])
}

fn home(user: u64) -> usize {
    HOMES[user as usize - 1]
}

impl Run {
    pub(crate) fn new(behind: usize, keep: usize) -> Self {
        let shards = SHARDS.map(|(zone, index)| ShardRef { zone: zone.parse().expect("a zone"), index });
        let cold = |shard: &ShardRef| Cold { state: State::new(shard.clone()), tables: vec![Records::default()], behind, keep };
        let mut run = Self {
            replayed: shards.iter().cloned().map(State::new).collect(),
            cold: shards.iter().map(cold).collect(),
            network: Network::new(shards),
            payments: Vec::new(),
            requests: Vec::new(),
            carried: Vec::new(),
        };
        for user in 1..=USERS - 2 {
            run.step(&Step::Submit { act: Act::Enrol { user, currencies: vec![0, 1] }, reused: None });
            for currency in [0, 1] {
                run.step(&Step::Submit { act: Act::Deposit { user, currency, amount: Some(FIRST_DEPOSIT) }, reused: None });
            }
        }
        run
    }

    pub(crate) fn play(mut self, steps: &[Step]) -> Self {
        for step in steps {
            self.step(step);
            self.network.check();
        }
        self
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Submit { act, reused } => {
                let Some((at, command)) = self.command(act) else { return };
                let number = self.requests.len() as u64 + 1;
                let mut bytes = u128::from(number).to_be_bytes();
                if !number.is_multiple_of(3) {
                    // Of version 7, by clocks that do not quite agree.
                    let ms = 1_000 + number - number % 7 + number * 5 % 11;
                    bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
                    bytes[6] = 0x70;
                }
                let fresh = RequestId::from_slice(&bytes).expect("counted from one");
                let reused = reused.and_then(|which| pick(&self.requests, which)).and_then(|(_, request)| request.id);
                // Expiries and what acquirers say are the shard's own doing, and have no name.
                let own = matches!(act, Act::Expire { .. } | Act::Settle { .. });
                let request = Request { id: (!own).then_some(reused.unwrap_or(fresh)), command };
                self.requests.push((at, request.clone()));
                let _ = self.submit(at, &request);
            }
            Step::Repeat(which) => {
                let Some((at, request)) = pick(&self.requests, *which).cloned() else { return };
                let before = request.id.and_then(|id| self.network.shards[at].state.recorded(id));
                match self.submit(at, &request) {
                    Ok(Decision::Recorded(sequence)) => assert_eq!(Some(sequence), before),
                    _ => assert_eq!(before, None, "a request that was recorded is not decided again"),
                }
            }
            Step::Carry { from, to } => {
                let Some(command) = self.network.read(*from, *to) else { return };
                let request = Request { id: None, command };
                self.carried.push((*to, request.clone()));
                self.submit(*to, &request).expect("an honest shard's message is taken in");
            }
            Step::CarryAgain(which) => {
                let Some((at, request)) = pick(&self.carried, *which).cloned() else { return };
                match self.submit(at, &request) {
                    Err(Rejection::AlreadyReceived { .. } | Rejection::NothingNew) => {}
                    other => panic!("what was taken in before came to {other:?}"),
                }
            }
            Step::Wait(seconds) => self.network.now = self.network.now.plus_seconds(*seconds),
            Step::Lead(shard) => {
                let epoch = &mut self.network.shards[*shard].epoch;
                *epoch = Epoch(epoch.0 + 1);
            }
            Step::Restart(shard) => self.cold[*shard].restart(&self.network.shards[*shard].journal),
        }
    }

    /// Where the act goes and what it asks for; `None` when it is about what is not there.
    fn command(&self, act: &Act) -> Option<(usize, Command)> {
        let payment = |which: &usize| pick(&self.payments, *which).cloned();
        let wallet = |of: u64, index: usize| self.network.shards[home(of)].state.wallet(user(of), currency(index));
        let reference = String::new();
        Some(match act {
            Act::Enrol { user: of, currencies } => {
                let currencies = currencies.iter().map(|index| currency(*index)).collect();
                (home(*of), Command::EnrollUser { user: user(*of), country: "DE".parse().expect("a country"), currencies })
            }
            Act::Claim { user: of, eu } => {
                let zone = if *eu { "eu" } else { "us" }.parse().expect("a zone");
                (home(*of), Command::ClaimUser { user: user(*of), zone })
            }
            Act::Open { user: of, currency: index } => (home(*of), Command::OpenAccount { user: user(*of), currency: currency(*index) }),
            Act::Close { user: of, currency: index } => (home(*of), Command::CloseAccount { user: user(*of), currency: currency(*index) }),
            Act::Keep { user: of, card } => (home(*of), Command::AddMethod { user: user(*of), token: token(home(*of), *card) }),
            Act::Drop { user: of, card } => (home(*of), Command::RemoveMethod { user: user(*of), token: token(home(*of), *card) }),
            Act::Deposit { user: of, currency, amount } => {
                let amount = amount.or_else(|| Some(AMOUNT_MINOR_MAX - wallet(*of, *currency)?.balance).filter(|room| *room > 0))?;
                (home(*of), Command::Deposit { user: user(*of), money: money(amount, *currency), reference })
            }
            Act::Withdraw { user: of, currency, amount } => {
                let all = || Some(wallet(*of, *currency)?.available()).filter(|all| (1..=AMOUNT_MINOR_MAX).contains(all));
                (home(*of), Command::Withdraw { user: user(*of), money: money(amount.or_else(all)?, *currency), reference })
            }
            Act::Pay { payer, payee, currency, amount, hold_s } => {
                let (at, to) = (home(*payer), home(*payee));
                let payee_shard = (at != to).then(|| self.network.shards[to].state.shard().clone());
                let (payer, payee, money) = (user(*payer), user(*payee), money(*amount, *currency));
                (at, Command::CreatePayment(CreatePayment { payer, payee, payee_shard, money, hold_s: *hold_s, reference, card: None }))
            }
            Act::Charge { payer, payee, currency, amount, hold_s, declined, psd2, mandate, score } => {
                let (at, to) = (home(*payer), home(*payee));
                let payee_shard = (at != to).then(|| self.network.shards[to].state.shard().clone());
                let token = token(at, 7);
                let declined = declined.then_some(Reason::FraudDetected);
                let risk = score.map(|score| Risk { score: Score::new(score), review: score % 2 == 1, rules: String::new() });
                let agreement = mandate.map(Agreement::SetUp);
                let card = ByCard { token, gateway: gateway(0), declined, risk, psd2: *psd2, agreement, analysis: Some(ANALYSIS) };
                let (payer, payee, money) = (user(*payer), user(*payee), money(*amount, *currency));
                let create = CreatePayment { payer, payee, payee_shard, money, hold_s: *hold_s, reference, card: Some(card) };
                (at, Command::CreatePayment(create))
            }
            Act::Under { payment: which, psd2, odd } => {
                let (at, mandate) = payment(which)?;
                let known =
                    self.network.shards[at].state.records().payments.into_iter().find(|each| each.sequence == mandate.sequence())?;
                let payee = match odd {
                    Some(Odd::Payee) => (1..=USERS).find(|of| home(*of) == at && user(*of) != known.payer).map(user)?,
                    _ => known.payee,
                };
                let payee_shard = if payee == known.payee { known.payee_shard.clone() } else { None };
                let amount = if matches!(odd, Some(Odd::Amount)) { known.amount / 2 + 1 } else { known.amount };
                let position = mandate.position().clone();
                let epoch = Epoch(position.epoch.0 + u64::from(matches!(odd, Some(Odd::Term))));
                let token =
                    VaultToken::new(SHARDS[at].0.parse().expect("a zone"), [if matches!(odd, Some(Odd::Card)) { 8 } else { 7 }; 16]);
                let agreement = Some(Agreement::Under(PaymentId::from(Position { epoch, ..position })));
                let card =
                    ByCard { token, gateway: gateway(0), declined: None, risk: None, psd2: *psd2, agreement, analysis: Some(ANALYSIS) };
                let money = Money::new(amount, known.currency).expect("as it was, or less");
                let create = CreatePayment { payer: known.payer, payee, payee_shard, money, hold_s: 0, reference, card: Some(card) };
                (at, Command::CreatePayment(create))
            }
            Act::CancelMandate { payment: which } => {
                let (at, payment) = payment(which)?;
                (at, Command::CancelMandate { payment })
            }
            Act::Confirm { payment: which } => {
                let (at, payment) = payment(which)?;
                (at, Command::ConfirmPayment { payment })
            }
            Act::Settle { payment: which, operation, word } => {
                let (at, payment) = payment(which)?;
                let known = self.network.shards[at].state.records().payments.into_iter().find(|each| each.sequence == payment.sequence());
                let operations = known.and_then(|known| known.card).map(|charge| charge.operations).unwrap_or_default();
                let number = pick(&operations, *operation).map_or(1, |operation| operation.number);
                (at, Command::Settle { payment, operation: number, outcome: word.outcome() })
            }
            Act::Capture { payment: which, amount } => {
                let (at, payment) = payment(which)?;
                (at, Command::CapturePayment { payment, amount: *amount })
            }
            Act::Void { payment: which, wrong_term } => {
                let (at, payment) = payment(which)?;
                let position = payment.position().clone();
                let epoch = Epoch(position.epoch.0 + u64::from(*wrong_term));
                (at, Command::VoidPayment { payment: PaymentId::from(Position { epoch, ..position }) })
            }
            Act::Refund { payment: which, amount } => {
                let (at, payment) = payment(which)?;
                (at, Command::RefundPayment { payment, amount: *amount })
            }
            Act::ReportFraud { payment: which } => {
                let (at, payment) = payment(which)?;
                (at, Command::ReportFraud { payment })
            }
            Act::Expire { payment: which } => {
                let (at, payment) = payment(which)?;
                (at, Command::ExpirePayment { payment: payment.sequence() })
            }
        })
    }

    /// Has all of a shard's states decide, and the entry applied to each.
    fn submit(&mut self, at: usize, request: &Request) -> Result<Decision, Rejection> {
        let context = self.network.context(at);
        let (replayed, cold) = (&mut self.replayed[at], &mut self.cold[at]);
        prefetch(replayed, request, &Records::default());
        let by_replayed = decide(replayed, context, request);
        let tables = cold.tables().clone();
        prefetch(&mut cold.state, request, &tables);
        let by_cold = decide(&cold.state, context, request);

        let low_risk = self.is_low_risk(at, request);
        let before = self.network.shards[at].state.records().payments;
        let decision = self.network.submit(at, request);
        assert_eq!(by_replayed, decision, "{request:?}: applying the entries does not give the leader's state");
        assert_eq!(by_cold, decision, "{request:?}: what is let go of is not what the tables give back");
        match &decision {
            Ok(Decision::New(entry)) => {
                let shard = &self.network.shards[at];
                let (position, _) = shard.journal.last().expect("it was recorded");
                if let Body::PaymentCreated(NewPayment { declined: None, card: Some(card), .. }) = &entry.body
                    && !matches!(card.authentication, Authentication::NotRequired | Authentication::Exempt(Exemption::LowValue))
                {
                    let exempt = card.authentication == Authentication::Exempt(Exemption::TransactionRisk);
                    assert_eq!(exempt, low_risk, "{request:?}");
                }
                self.replayed[at].apply(position, entry).expect("the entry follows from the entries before it");
                let after = shard.state.records();
                assert_eq!(self.replayed[at].records(), after);
                self.cold[at].apply(position, entry, after);
                if let Some(payment) = entry.payment(position) {
                    let found = before.into_iter().find(|each| each.sequence == payment.sequence);
                    assert_eq!(entry.payment_before(), found, "what an entry says of what it found");
                }
                assert_eq!(differing_field(entry, request), request.id.is_none().then_some("request"));
                if matches!(entry.body, Body::PaymentCreated(_)) {
                    self.payments.push((at, PaymentId::from(position.clone())));
                }
            }
            Ok(Decision::Recorded(sequence)) => {
                let (_, entry) = &self.network.shards[at].journal[sequence.0 as usize - 1];
                assert_eq!(entry.request_id, request.id);
                assert_eq!(entry.request_id, self.requests.iter().find(|(_, made)| made.id == request.id).and_then(|(_, made)| made.id));
            }
            Err(_) => {}
        }
        decision
    }

    /// Whether the payment that is asked for would be one of low risk, by what the journal has.
    fn is_low_risk(&self, at: usize, request: &Request) -> bool {
        let Command::CreatePayment(CreatePayment { money, card: Some(ByCard { risk: Some(risk), agreement: None, .. }), .. }) =
            &request.command
        else {
            return false;
        };
        let today = Day::of(self.network.now);
        let shard = &self.network.shards[at];
        let (captured, fraud) = shard.fraud(today);
        let first = shard.journal.iter().find(|(_, entry)| match &entry.body {
            Body::Card { step: CardStep::Captured | CardStep::CaptureReturned, payment, .. } => payment.currency.code() == "EUR",
            _ => false,
        });
        let rate = match money.minor() {
            ..=10_000 => 13,
            10_001..=25_000 => 6,
            25_001..=50_000 => 1,
            _ => return false,
        };
        risk.score.is_some_and(|score| score <= ANALYSIS.score_max)
            && !risk.review
            && money.currency().code() == "EUR"
            && first.is_some_and(|(_, entry)| today.0 - Day::of(entry.at).0 >= ANALYSIS.history_days)
            && captured > 0
            && fraud * 10_000 <= rate * captured
    }

    /// Lets everything arrive, and checks the books as a whole.
    pub(crate) fn finish(mut self) -> Self {
        self.network.settle();
        self.network.check();
        self.network.audit();
        for (from, to) in self.network.pairs() {
            assert!(self.network.in_transit(from, to).is_empty(), "nothing is on its way at rest");
        }
        self.check_payments();
        self.check_balances();
        self
    }

    /// Checks each payment against what became of its money at both ends, entry by entry.
    fn check_payments(&self) {
        #[derive(Debug, Default)]
        struct Ends {
            credited: i64,
            bounced: i64,
            given_back: i64,
            got_back: i64,
        }
        let mut ends = BTreeMap::<PaymentId, Ends>::new();
        for (at, shard) in self.network.shards.iter().enumerate() {
            let own = |epoch: Epoch, sequence: Sequence| {
                PaymentId::from(Position { shard: self.network.shards[at].state.shard().clone(), epoch, sequence })
            };
            for (_, entry) in &shard.journal {
                match &entry.body {
                    Body::RefundCompleted { payment, amount, .. } => {
                        let ends = ends.entry(own(payment.epoch, payment.sequence)).or_default();
                        ends.given_back += amount;
                        ends.got_back += amount;
                    }
                    Body::Card { step: CardStep::RefundAsked { amount, .. }, payment, .. } => {
                        let ends = ends.entry(own(payment.epoch, payment.sequence)).or_default();
                        ends.given_back += amount;
                        ends.got_back += amount;
                    }
                    Body::Card { step: CardStep::CaptureReturned, payment, .. } => {
                        ends.entry(own(payment.epoch, payment.sequence)).or_default().bounced += payment.captured;
                    }
                    Body::Received { effect, .. } => match effect {
                        Effect::Credited(credit) => ends.entry(credit.payment.clone()).or_default().credited += credit.money.minor(),
                        Effect::RefundPaid(credit) => ends.entry(credit.payment.clone()).or_default().given_back += credit.money.minor(),
                        Effect::PaymentReturned(payment) => {
                            ends.entry(own(payment.epoch, payment.sequence)).or_default().bounced += payment.captured;
                        }
                        Effect::RefundReceived { payment, amount } => {
                            ends.entry(own(payment.epoch, payment.sequence)).or_default().got_back += amount;
                        }
                        Effect::Bounced(_) | Effect::RefundRefused(_) | Effect::RefundFailed { .. } => {}
                    },
                    _ => {}
                }
            }
        }
        for shard in &self.network.shards {
            for payment in shard.state.records().payments {
                let ends = ends.remove(&payment.id(shard.state.shard())).unwrap_or_default();
                assert_eq!((ends.given_back, ends.got_back), (payment.refunded, payment.refunded), "{payment:?} {ends:?}");
                let (credited, bounced) = match payment.phase {
                    Phase::Captured if payment.payee_shard.is_some() => (payment.captured, 0),
                    Phase::Returned => (0, payment.captured),
                    _ => (0, 0),
                };
                assert_eq!((ends.credited, ends.bounced), (credited, bounced), "{payment:?} {ends:?}");
                assert!(ends.got_back + ends.bounced <= payment.captured, "{payment:?} {ends:?}");
            }
        }
        assert!(ends.is_empty(), "money of payments that nobody made: {ends:?}");
    }

    /// Adds up every balance from deposits, withdrawals and payments as they stand, without looking at any posting.
    fn check_balances(&self) {
        let mut expected = BTreeMap::<(UserId, Currency), i128>::new();
        for shard in &self.network.shards {
            for (_, entry) in &shard.journal {
                match &entry.body {
                    Body::Deposited { user, money } => *expected.entry((*user, money.currency())).or_default() += i128::from(money.minor()),
                    Body::Withdrawn { user, money, declined: None } => {
                        *expected.entry((*user, money.currency())).or_default() -= i128::from(money.minor());
                    }
                    // What does not go back to the card, the payer has.
                    Body::Card { step: CardStep::RefundRefused { amount }, payment, .. } => {
                        *expected.entry((payment.payer, payment.currency)).or_default() += i128::from(*amount);
                    }
                    _ => {}
                }
            }
            for payment in shard.state.records().payments.iter().filter(|payment| payment.phase == Phase::Captured) {
                let amount = i128::from(payment.captured - payment.refunded);
                let payer = expected.entry((payment.payer, payment.currency)).or_default();
                *payer -= if payment.card.is_some() { 0 } else { amount };
                *expected.entry((payment.payee, payment.currency)).or_default() += amount;
            }
        }
        let wallets = self.network.shards.iter().flat_map(|shard| shard.state.records().wallets);
        for (key, wallet) in wallets {
            assert_eq!(i128::from(wallet.balance), expected.remove(&key).unwrap_or(0), "{key:?}");
        }
        expected.retain(|_, balance| *balance != 0);
        assert!(expected.is_empty(), "money in accounts that are not there: {expected:?}");
    }
}

/// The one that a pick means.
fn pick<T>(from: &[T], pick: usize) -> Option<&T> {
    from.iter().rev().nth(pick.checked_rem(from.len())?)
}
