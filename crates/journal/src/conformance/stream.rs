//! Entries as leaders write them, of every kind, from a seed: commands and other shards' messages drawn at random and
//! decided by the ledger. Two other shards are made up: they answer what is sent to them, one way or the other.

use std::{collections::BTreeMap, sync::Arc};

use paymesh_ledger::{
    Agreement, Body, ByCard, Challenge, Command, Context, CreatePayment, Credit, Decision, LeftBecause, MandateKind, MandateStanding,
    Means, Message, Missing, Outcome, Payment, Phase, Reason, Records, Request, Risk, RiskAnalysis, State, decide,
};
use paymesh_types::{
    Currency, Cursor, Epoch, GatewayName, HistoryMark, Money, PaymentId, Position, RequestId, Score, Sequence, ShardRef, Timestamp, UserId,
    VaultToken,
};

use super::shard;
use crate::{Chain, Committed, Projection, Segment, SegmentBuilder, memory::Dice};

/// Users 1 to this may be enrolled here: few, so that they meet often.
pub const USERS: u64 = 12;
/// Two digits after the point, none, three.
pub const CURRENCIES: [&str; 3] = ["EUR", "JPY", "KWD"];
/// Low risks are exempt from the first day on.
const ANALYSIS: RiskAnalysis = RiskAnalysis { exempt_minor_max: 50_000, history_days: 0, score_max: Score::ONE };
const COUNTRIES: [&str; 4] = ["DE", "FR", "CZ", "JP"];
const REFERENCES: [&str; 5] = ["", "", "rent", "\u{17e}lu\u{165}ou\u{10d}k\u{fd} k\u{16f}\u{148}", "a 'quoted'; \"one\" -- \0"];

/// A currency by its place in [`CURRENCIES`].
pub fn currency(index: usize) -> Currency {
    Currency::from_code(CURRENCIES[index]).expect("a code of ISO 4217")
}

fn gateway(number: u8) -> GatewayName {
    format!("gateway_{number}").parse().expect("a gateway's name")
}

/// A user.
pub fn user(number: u64) -> UserId {
    UserId::try_from(number).expect("users are counted from one")
}

/// A leader of [`shard`] without storage, and the world around it.
#[derive(Debug)]
pub struct Stream {
    state: State,
    dice: Dice,
    now: Timestamp,
    epoch: Epoch,
    payments: Vec<PaymentId>,
    /// Those by card, as they stand.
    by_card: BTreeMap<Sequence, Payment>,
    peers: Vec<Peer>,
    requests: Vec<RequestId>,
    committed: Vec<Committed>,
}

#[derive(Debug)]
struct Peer {
    shard: ShardRef,
    /// Its journal's last entry.
    head: u64,
    /// What it was sent and has not answered.
    unanswered: Vec<Message>,
    /// Payments of its own that were taken in here.
    paid: Vec<Credit>,
}

impl Stream {
    /// An empty shard.
    pub fn new(seed: u64) -> Self {
        let peer = |zone: &str, index| Peer {
            shard: ShardRef { zone: zone.parse().expect("a zone's name"), index },
            head: 0,
            unanswered: Vec::new(),
            paid: Vec::new(),
        };
        Self {
            state: State::new(shard()),
            dice: Dice::new(seed),
            now: Timestamp(1_700_000_000_000_000),
            epoch: Epoch(1),
            payments: Vec::new(),
            by_card: BTreeMap::new(),
            peers: vec![peer("eu", 0), peer("us", 1)],
            requests: Vec::new(),
            committed: Vec::new(),
        }
    }

    /// A shard with `count` entries behind it.
    pub fn with(seed: u64, count: usize) -> Self {
        let mut stream = Self::new(seed);
        stream.run(count);
        stream
    }

    /// Adds `count` entries, and gives them back.
    pub fn run(&mut self, count: usize) -> Vec<Committed> {
        let from = self.committed.len();
        while self.committed.len() < from + count {
            self.now.0 += self.dice.below(2_000_000);
            // Days pass, so that some are over that were counted.
            if self.committed.len() % 100 == 99 {
                self.now = self.now.plus_seconds(3 * 24 * 3600);
            }
            if self.dice.happens(10) {
                self.epoch.0 += 1;
            }
            let command = self.command();
            let internal = matches!(
                command,
                Command::Receive { .. } | Command::Delivered { .. } | Command::ExpirePayment { .. } | Command::Settle { .. }
            );
            let id = if internal || self.dice.happens(100) { None } else { Some(self.request_id()) };
            self.submit(Request { id, command });
        }
        self.committed[from..].to_vec()
    }

    /// Has a request decided and, where that is an entry, adds it.
    pub fn submit(&mut self, request: Request) -> Option<Committed> {
        // There are no tables: what is not in memory does not exist.
        loop {
            let mut missing = Missing::default();
            self.state.missing(&request, &mut missing);
            if missing.is_empty() {
                break;
            }
            self.state.load(&missing, Records::default());
        }
        let context = Context { now: self.now, epoch: self.epoch, next: Sequence(self.committed.len() as u64 + 1) };
        let Ok(Decision::New(entry)) = decide(&self.state, context, &request) else { return None };
        let position = context.position(&shard());
        self.state.apply(&position, &entry).expect("what was decided follows from the state");
        if let Some((to, message)) = entry.message(&position)
            && let Some(peer) = self.peers.iter_mut().find(|peer| peer.shard == to)
            && matches!(message, Message::Pay(_) | Message::AskRefund(_))
        {
            peer.unanswered.push(message);
        }
        if matches!(entry.body, Body::PaymentCreated(_)) {
            self.payments.push(PaymentId::from(position.clone()));
        }
        if let Some(payment) = entry.payment(&position).filter(|payment| payment.card.is_some()) {
            self.by_card.insert(payment.sequence, payment);
        }
        self.requests.extend(entry.request_id);
        self.committed.push((position, Arc::from(entry)));
        self.committed.last().cloned()
    }

    /// All entries.
    pub fn committed(&self) -> &[Committed] {
        &self.committed
    }

    /// What the ledger holds after them.
    pub fn records(&self) -> Records {
        self.state.records()
    }

    /// What the tables are to take in.
    pub fn projection(&self, from: usize, to: usize) -> Projection {
        Projection::of(&self.committed[from..to])
    }

    /// Time passes.
    pub fn wait_seconds(&mut self, seconds: u64) {
        self.now = self.now.plus_seconds(seconds);
    }

    /// The time of the next entry.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The entries as a journal holds them: segments of any size, each of one epoch.
    pub fn segments(&mut self) -> Vec<Segment> {
        let mut chain = Chain::start(shard());
        let mut rest = self.committed.as_slice();
        let mut segments = Vec::new();
        while let Some((first, _)) = rest.first() {
            let same = rest.iter().take_while(|(position, _)| position.epoch == first.epoch).count();
            let count = usize::try_from(self.dice.below(same.min(40) as u64)).unwrap_or(0) + 1;
            let (batch, after) = rest.split_at(count);
            rest = after;
            let mut salt = [0; 32];
            salt.fill_with(|| self.dice.any().to_le_bytes()[0]);
            let segment = pack(&chain, batch, salt);
            chain.link(&segment).expect("what was built follows");
            segments.push(segment);
        }
        segments
    }

    fn request_id(&mut self) -> RequestId {
        if self.dice.happens(30)
            && let Some(used) = self.dice.pick(&self.requests)
        {
            return *used;
        }
        let (high, low) = (u128::from(self.dice.any()), u128::from(self.dice.any()));
        RequestId::from_slice(&((high << 64) | low | 1).to_be_bytes()).expect("sixteen bytes, not all zero")
    }

    fn any_user(&mut self) -> UserId {
        user(self.dice.below(USERS) + 1)
    }

    fn any_currency(&mut self) -> Currency {
        // Mostly one, so that users have something to pay each other with.
        let index = if self.dice.happens(700) { 0 } else { self.dice.below(3) };
        currency(usize::try_from(index).unwrap_or(0))
    }

    fn any_money(&mut self, most: u64) -> Money {
        let minor = i64::try_from(self.dice.below(most) + 1).expect("small");
        Money::new(minor, self.any_currency()).expect("within the bounds")
    }

    fn any_reference(&mut self) -> String {
        (*self.dice.pick(&REFERENCES).expect("there are some")).to_owned()
    }

    fn any_amount(&mut self) -> Option<i64> {
        if self.dice.happens(400) { None } else { i64::try_from(self.dice.below(300) + 1).ok() }
    }

    fn command(&mut self) -> Command {
        if self.dice.happens(300)
            && let Some(command) = self.about_a_card()
        {
            return command;
        }
        match self.dice.below(100) {
            0..5 => {
                let currencies = if self.dice.happens(500) { 0..2 } else { 0..1 };
                let country = self.dice.pick(&COUNTRIES).expect("there are some").parse().expect("a country");
                Command::EnrollUser { user: self.any_user(), country, currencies: currencies.map(currency).collect() }
            }
            5..7 => {
                let zone = if self.dice.happens(500) { "eu" } else { "us" };
                Command::ClaimUser { user: user(self.dice.below(10_000) + 1), zone: zone.parse().expect("a zone's name") }
            }
            7..10 => Command::OpenAccount { user: self.any_user(), currency: self.any_currency() },
            10..12 => Command::CloseAccount { user: self.any_user(), currency: self.any_currency() },
            12..22 => Command::Deposit { user: self.any_user(), money: self.any_money(1_000), reference: self.any_reference() },
            22..28 => Command::Withdraw { user: self.any_user(), money: self.any_money(600), reference: self.any_reference() },
            28..31 => self.about_a_method(),
            31..58 => self.payment(),
            58..80 => self.about_a_payment(),
            80..97 => self.message(),
            _ => {
                let peer = usize::try_from(self.dice.below(2)).unwrap_or(0);
                let up_to = Sequence(self.dice.below(self.committed.len() as u64 + 1));
                self.peers[peer].head += 1;
                let read_to = self.cursor(peer);
                Command::Delivered { to: self.peers[peer].shard.clone(), up_to, read_to }
            }
        }
    }

    fn payment(&mut self) -> Command {
        if self.dice.happens(150)
            && let Some(command) = self.under_a_mandate()
        {
            return command;
        }
        let payer = self.any_user();
        let abroad = self.dice.happens(400);
        let peer = usize::try_from(self.dice.below(2)).unwrap_or(0);
        let (payee, payee_shard) = if abroad {
            (user(1_000 + self.dice.below(USERS)), Some(self.peers[peer].shard.clone()))
        } else {
            (user(payer.get() % USERS + 1), None)
        };
        let hold_s = if self.dice.happens(500) { u32::try_from(self.dice.below(60)).unwrap_or(0) } else { 0 };
        let card = if self.dice.happens(500) { Some(self.card()) } else { None };
        // Some by card are of no low value, and may be of low risk.
        let most = if card.is_some() && self.dice.happens(300) { 20_000 } else { 300 };
        Command::CreatePayment(CreatePayment {
            payer,
            payee,
            payee_shard,
            money: self.any_money(most),
            hold_s,
            reference: self.any_reference(),
            card,
        })
    }

    /// Of a few cards, so that they are removed and added again.
    fn about_a_method(&mut self) -> Command {
        let owner = self.any_user();
        let card = self.dice.below(3).to_le_bytes()[0];
        let token = VaultToken::new(shard().zone, [card; 16]);
        if self.dice.happens(600) { Command::AddMethod { user: owner, token } } else { Command::RemoveMethod { user: owner, token } }
    }

    fn card(&mut self) -> ByCard {
        let any = self.dice.any();
        let token = VaultToken::new(shard().zone, any.to_be_bytes().repeat(2).try_into().expect("sixteen bytes"));
        let score = Score::new(u32::try_from(self.dice.below(u64::from(Score::ONE.ten_thousandths()) + 1)).unwrap_or(0))
            .filter(|_| self.dice.happens(800));
        let risk = Risk { score, review: self.dice.happens(200), rules: "2026-11-27.1-0123456789abcdef".to_owned() };
        let declined = self.dice.happens(50).then_some(Reason::FraudDetected);
        let agreement = match self.dice.below(7) {
            0 => Some(Agreement::SetUp(MandateKind::Recurring)),
            1 => Some(Agreement::SetUp(MandateKind::TrustedPayee)),
            _ => None,
        };
        ByCard {
            token,
            gateway: gateway(0),
            declined,
            risk: self.dice.happens(700).then_some(risk),
            psd2: !any.is_multiple_of(4),
            agreement,
            analysis: Some(ANALYSIS),
        }
    }

    /// One more payment by the mandate of an earlier one, if one stands.
    fn under_a_mandate(&mut self) -> Option<Command> {
        let stands = |payment: &&Payment| payment.mandate().is_some_and(|(_, standing)| standing == MandateStanding::Active);
        let standing: Vec<&Payment> = self.by_card.values().rev().filter(stands).collect();
        // Those that were given with authentication are few, and exempt.
        let authenticated = |payment: &&Payment| payment.card.as_ref().is_some_and(|card| card.means == Some(Means::Authenticated));
        let given: Vec<&Payment> = standing.iter().copied().filter(authenticated).collect();
        let known = (*self.dice.pick(if given.is_empty() { &standing } else { &given })?).clone();
        let agreement = Some(Agreement::Under(known.id(&shard())));
        let charge = known.card.as_ref()?;
        // One that was given without authentication exempts from none that is owed.
        let psd2 = charge.means == Some(Means::Authenticated);
        let card = ByCard { token: charge.token.clone(), agreement, declined: None, psd2, ..self.card() };
        Some(Command::CreatePayment(CreatePayment {
            payer: known.payer,
            payee: known.payee,
            payee_shard: known.payee_shard.clone(),
            money: Money::new(known.amount, known.currency)?,
            hold_s: 0,
            reference: self.any_reference(),
            card: Some(card),
        }))
    }

    /// Something about one of the last payments by card; mostly what an acquirer made of what it is being asked for.
    fn about_a_card(&mut self) -> Option<Command> {
        let recent: Vec<&Payment> = self.by_card.values().rev().take(12).collect();
        let known = (*self.dice.pick(&recent)?).clone();
        let payment = known.id(&shard());
        let asked = known.card.as_deref().and_then(|charge| charge.operations.first()).map(|operation| operation.number);
        let Some(operation) = asked.filter(|_| !self.dice.happens(100)) else {
            return Some(match self.dice.below(5) {
                0 | 1 if known.phase == Phase::ActionRequired => Command::ConfirmPayment { payment },
                0..4 if known.phase == Phase::Captured => Command::RefundPayment { payment, amount: self.any_amount() },
                0 | 1 => Command::CapturePayment { payment, amount: self.any_amount() },
                2 => Command::VoidPayment { payment },
                3 if self.dice.happens(300) => Command::CancelMandate { payment },
                3 => Command::ExpirePayment { payment: payment.sequence() },
                // Later on: no payment is of low risk from then on.
                4 if known.phase == Phase::Captured && self.committed.len() > 500 => Command::ReportFraud { payment },
                _ => Command::Settle { payment, operation: 1, outcome: self.outcome() },
            });
        };
        // What sets a mandate up is mostly challenged, as one that exempts has to be.
        let asks = known.card.as_ref().is_some_and(|card| card.mandate.is_some() && card.challenge.is_none() && card.id.is_none());
        let outcome = if asks && self.dice.happens(700) { challenged() } else { self.outcome() };
        Some(Command::Settle { payment, operation, outcome })
    }

    fn outcome(&mut self) -> Outcome {
        let id = || "ch_3MmlLrLkdIwHu7ix0snN0B15".parse().expect("a charge's name");
        match self.dice.below(10) {
            0 => challenged(),
            1 | 2 => Outcome::Declined { reason: Reason::CardInsufficientFunds },
            3 => Outcome::Left { to: gateway(1), why: LeftBecause::Overloaded },
            4 => Outcome::AuthenticationWanted,
            _ => Outcome::Done { id: id() },
        }
    }

    fn about_a_payment(&mut self) -> Command {
        // Mostly a recent one: old ones are over.
        let recent = self.payments.len().saturating_sub(if self.dice.happens(200) { usize::MAX } else { 8 });
        let Some(payment) = self.dice.pick(&self.payments[recent..]).cloned() else { return self.payment() };
        match self.dice.below(10) {
            0..4 => Command::CapturePayment { payment, amount: self.any_amount() },
            4 => Command::VoidPayment { payment },
            5..8 => Command::RefundPayment { payment, amount: self.any_amount() },
            _ => Command::ExpirePayment { payment: payment.sequence() },
        }
    }

    fn message(&mut self) -> Command {
        let index = usize::try_from(self.dice.below(2)).unwrap_or(0);
        self.peers[index].head += 1 + self.dice.below(3);
        let source = self.peers[index].shard.clone();
        let answer = !self.peers[index].unanswered.is_empty() && self.dice.happens(600);
        let message = if answer {
            let message = self.peers[index].unanswered.remove(0);
            let refused = self.dice.happens(500);
            match message {
                Message::Pay(credit) if refused => Message::Bounce(Credit { reason: Some(Reason::PayeeAccountNotFound), ..credit }),
                Message::AskRefund(credit) if refused => {
                    Message::RefundRefused(Credit { reason: Some(Reason::PayeeInsufficientFunds), ..credit })
                }
                Message::AskRefund(credit) => Message::RefundPaid(credit),
                // Taken in: its own journal says so, and this one hears of it as `Delivered`.
                other => {
                    drop(other);
                    return Command::Delivered { to: source, up_to: Sequence(self.committed.len() as u64), read_to: self.cursor(index) };
                }
            }
        } else if self.dice.happens(300)
            && let Some(paid) = self.dice.pick(&self.peers[index].paid).cloned()
        {
            Message::AskRefund(paid)
        } else {
            let credit = Credit {
                payment: PaymentId::from(Position { shard: source.clone(), epoch: Epoch(1), sequence: Sequence(self.peers[index].head) }),
                payer: user(1_000 + self.dice.below(USERS)),
                payee: self.any_user(),
                money: self.any_money(300),
                reason: None,
            };
            self.peers[index].paid.push(credit.clone());
            Message::Pay(credit)
        };
        Command::Receive { source, at: self.cursor(index), message }
    }

    /// The other journal's end. Most leaders note which history it is of.
    fn cursor(&mut self, peer: usize) -> Cursor {
        let mark = if self.dice.happens(900) { HistoryMark::new(self.dice.any()) } else { None };
        Cursor { sequence: Sequence(self.peers[peer].head), mark }
    }
}

/// A segment of these entries, all of one epoch, that follows the chain.
pub fn pack(chain: &Chain, entries: &[Committed], salt: [u8; 32]) -> Segment {
    let (first, _) = entries.first().expect("a segment holds at least one entry");
    let mut builder = SegmentBuilder::new(shard(), first.epoch, first.sequence, chain.hash(), salt);
    entries.iter().for_each(|(_, entry)| builder.push(entry));
    builder.finish()
}

fn challenged() -> Outcome {
    let url = Some("https://acquirer.example/challenges/7".to_owned());
    let id = "ch_3MmlLrLkdIwHu7ix0snN0B15".parse().expect("a charge's name");
    Outcome::Challenged { id, challenge: Challenge { id: "7".to_owned(), url } }
}
