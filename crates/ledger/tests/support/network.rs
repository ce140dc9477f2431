//! A few shards and the way between them, in memory: every command goes in through [`Network::submit`], which checks
//! after each that the books are right. It leaves to its callers what is submitted and when messages travel.

use std::collections::{BTreeMap, BTreeSet};

use paymesh_ledger::{
    Account, Audit, Authentication, Body, CardStep, Charge, Command, Context, Day, Decision, EXEMPTED_MINOR_MAX, EXEMPTED_PAYMENTS_MAX,
    Entry, Exemption, LOW_VALUE_MINOR_MAX, LineId, MandateKind, MandateStanding, Message, Missing, NewPayment, OperationKind,
    PAYMENT_METHODS_MAX, Payment, Phase, Records, Rejection, Request, State, Totals, Wallet, decide,
};
use paymesh_types::{AMOUNT_MINOR_MAX, Currency, Cursor, Epoch, HistoryMark, Position, Sequence, ShardRef, Timestamp, UserId, VaultToken};

/// One shard: what its leader has in memory, and its journal.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) state: State,
    pub(crate) journal: Vec<(Position, Entry)>,
    pub(crate) epoch: Epoch,
}

/// Shards that send each other messages.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) shards: Vec<Shard>,
    pub(crate) now: Timestamp,
    /// What came in from outside and from cards less what went out, by the commands that were accepted.
    deposited: BTreeMap<Currency, i128>,
}

impl Network {
    /// Empty shards in the first second of time.
    pub(crate) fn new(shards: impl IntoIterator<Item = ShardRef>) -> Self {
        let shards = shards.into_iter().map(|shard| Shard { state: State::new(shard), journal: Vec::new(), epoch: Epoch(1) }).collect();
        Self { shards, now: Timestamp(1_000_000), deposited: BTreeMap::new() }
    }

    /// What the next decision of a shard depends on.
    pub(crate) fn context(&self, at: usize) -> Context {
        let shard = &self.shards[at];
        Context { now: self.now, epoch: shard.epoch, next: Sequence(shard.journal.len() as u64 + 1) }
    }

    /// Decides, applies and records, and checks what must hold of the shard whatever the command was.
    pub(crate) fn submit(&mut self, at: usize, request: &Request) -> Result<Decision, Rejection> {
        let context = self.context(at);
        let shard = &mut self.shards[at];
        let before = shard.state.records();
        prefetch(&mut shard.state, request, &Records::default());
        let decision = decide(&shard.state, context, request);
        match &decision {
            Ok(Decision::New(entry)) => {
                let position = context.position(shard.state.shard());
                shard.state.apply(&position, entry).expect("what was decided follows from the state");
                shard.journal.push((position, (**entry).clone()));
                let moved = match &entry.body {
                    Body::Deposited { money, .. } => Some((money.currency(), i128::from(money.minor()))),
                    Body::Withdrawn { money, declined: None, .. } => Some((money.currency(), -i128::from(money.minor()))),
                    Body::Card { step: CardStep::Captured | CardStep::CaptureReturned, payment, .. } => {
                        Some((payment.currency, i128::from(payment.captured)))
                    }
                    Body::Card { step: CardStep::Refunded { amount }, payment, .. } => Some((payment.currency, -i128::from(*amount))),
                    _ => None,
                };
                if let Some((currency, amount)) = moved {
                    *self.deposited.entry(currency).or_default() += amount;
                }
            }
            Ok(Decision::Recorded(_)) | Err(_) => {
                assert_eq!(before, shard.state.records(), "{request:?} was not accepted and changed something")
            }
        }
        shard.check();
        decision
    }

    /// What shard `to` does next on reading the journal of shard `from`: take in an entry that is addressed to it, or note
    /// what of its own was taken in. `None` when there is nothing new.
    pub(crate) fn read(&self, from: usize, to: usize) -> Option<Command> {
        let (source, reader) = (&self.shards[from], &self.shards[to]);
        let cursor = reader.state.inbox(source.state.shard());
        let next = source.journal[cursor.0 as usize..].iter().find_map(|(position, entry)| {
            let (addressee, message) = entry.message(position)?;
            (addressee == *reader.state.shard()).then_some((position.sequence, message))
        });
        let read_to = next.as_ref().map_or(source.journal.len() as u64, |(sequence, _)| sequence.0 - 1);
        let taken_in = source.journal[..read_to as usize].iter().rev().find_map(|(_, entry)| match &entry.body {
            Body::Received { source, at, .. } if source == reader.state.shard() => Some(at.sequence),
            _ => None,
        });
        let source = source.state.shard().clone();
        let marked = |at: u64| Cursor { sequence: Sequence(at), mark: HistoryMark::new(at) };
        match taken_in {
            Some(up_to) if up_to > reader.state.delivered(&source) => {
                Some(Command::Delivered { to: source, up_to, read_to: marked(read_to) })
            }
            _ => next.map(|(sequence, message)| Command::Receive { source, at: marked(sequence.0), message }),
        }
    }

    /// Carries one thing from shard `from` to shard `to`; `None` when there is nothing to carry.
    pub(crate) fn carry(&mut self, from: usize, to: usize) -> Option<Result<Decision, Rejection>> {
        let command = self.read(from, to)?;
        Some(self.submit(to, &Request { id: None, command }))
    }

    /// Carries everything to where it belongs, and what that leads to, until nothing is on its way.
    pub(crate) fn settle(&mut self) {
        let on_their_way: usize = self.shards.iter().map(|shard| shard.journal.len()).sum();
        for _ in 0..8 * on_their_way + 8 {
            let carried = self.pairs().filter(|(from, to)| match self.carry(*from, *to) {
                Some(taken) => {
                    taken.expect("an honest shard's message is taken in");
                    true
                }
                None => false,
            });
            if carried.count() == 0 {
                return;
            }
        }
        panic!("the shards never come to rest");
    }

    /// All ordered pairs of different shards.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.shards.len();
        (0..count).flat_map(move |from| (0..count).filter(move |to| from != *to).map(move |to| (from, to)))
    }

    /// Money that left shard `from` and has not arrived at shard `to`, by the entries themselves.
    pub(crate) fn in_transit(&self, from: usize, to: usize) -> BTreeMap<Currency, i128> {
        let (sender, receiver) = (&self.shards[from], &self.shards[to].state);
        let mut sums = BTreeMap::new();
        for (position, entry) in &sender.journal[receiver.inbox(sender.state.shard()).0 as usize..] {
            let Some((addressee, message)) = entry.message(position) else { continue };
            if let Message::Pay(credit) | Message::Bounce(credit) | Message::RefundPaid(credit) = message
                && addressee == *receiver.shard()
            {
                *sums.entry(credit.money.currency()).or_default() += i128::from(credit.money.minor());
            }
        }
        sums
    }

    /// Checks that no money was made or lost anywhere: what one shard says it sent is what the other says it received and
    /// what is on its way, and all users together have what came in from outside.
    pub(crate) fn check(&self) {
        let mut owned = BTreeMap::<Currency, i128>::new();
        for (from, to) in self.pairs() {
            let (sender, receiver) = (self.shards[from].state.shard().clone(), self.shards[to].state.shard().clone());
            let sent = self.shards[from].system(|account| *account == Account::Sent(receiver.clone()));
            let received = self.shards[to].system(|account| *account == Account::Received(sender.clone()));
            let on_its_way = self.in_transit(from, to);
            for currency in sent.keys().chain(received.keys()).chain(on_its_way.keys()) {
                let of = |sums: &BTreeMap<Currency, i128>| sums.get(currency).copied().unwrap_or(0);
                assert_eq!(of(&sent), of(&on_its_way) - of(&received), "{sender} to {receiver} in {currency}");
            }
            for (currency, amount) in on_its_way {
                *owned.entry(currency).or_default() += amount;
            }
        }
        let mut outside = BTreeMap::<Currency, i128>::new();
        for shard in &self.shards {
            for ((_, currency), wallet) in shard.state.records().wallets {
                *owned.entry(currency).or_default() += i128::from(wallet.balance);
            }
            for (currency, balance) in shard.system(|account| matches!(account, Account::External | Account::Acquirer(_))) {
                *outside.entry(currency).or_default() -= balance;
            }
            for (currency, balance) in shard.system(|account| *account == Account::RefundsPayable) {
                *owned.entry(currency).or_default() += balance;
            }
        }
        owned.retain(|_, sum| *sum != 0);
        outside.retain(|_, sum| *sum != 0);
        let mut deposited = self.deposited.clone();
        deposited.retain(|_, sum| *sum != 0);
        assert_eq!(owned, deposited, "what users have, and what came in");
        assert_eq!(outside, deposited, "what the outside world's accounts say, and what came in");
    }

    /// Checks each journal on its own: an audit accepts it, it gives the same books again, and each account's lines and
    /// payments can be walked from the newest to the first.
    pub(crate) fn audit(&self) {
        for shard in &self.shards {
            let mut audit = Audit::default();
            let mut replayed = State::new(shard.state.shard().clone());
            for (position, entry) in &shard.journal {
                audit.take(position, entry).expect("an audit accepts what was decided");
                replayed.apply(position, entry).expect("what was applied once applies again");
            }
            shard.audit_from(shard.journal.len() / 2);
            let records = shard.state.records();
            assert_eq!(records, replayed.records());
            assert_eq!(audit.position(), Sequence(shard.journal.len() as u64));
            assert_eq!(audit.users(), records.users.len() as u64);
            assert_eq!(audit.payments(), records.payments.len() as u64);
            for ((user, currency), wallet) in &records.wallets {
                shard.walk(*user, *currency, wallet);
                assert_eq!(audit.wallet(*user, *currency), Some(wallet), "{user} in {currency}");
                shard.recount(*user, *currency, wallet);
            }
            shard.recount_mandates(&records.payments);
            let system: Vec<_> = audit.system().map(|(account, currency, balance)| ((account.clone(), currency), balance)).collect();
            assert_eq!(system, records.system);
            let inbox: Vec<_> = audit.inbox().map(|(shard, cursor)| (shard.clone(), cursor)).collect();
            assert_eq!(inbox, records.inbox);
            assert_eq!(audit.monitored(), &records.monitored);
            let last = shard.journal.last().map_or(Day(0), |(_, entry)| Day::of(entry.at));
            let kept = records.monitored.by_means(last).into_values().fold(Totals::default(), Totals::plus);
            assert_eq!((kept.minor.into(), kept.fraud_minor.into()), shard.fraud(last), "what counts towards the fraud rate");
            for (currency, sums) in audit.sums() {
                let mine = records.wallets.iter().filter(|((_, of), _)| *of == currency).map(|(_, wallet)| wallet);
                let (balance, held) =
                    mine.fold((0, 0), |(balance, held), wallet| (balance + i128::from(wallet.balance), held + i128::from(wallet.held)));
                assert_eq!((sums.wallets, sums.held), (balance, held), "{currency}");
                assert_eq!(sums.total(), 0, "{currency}");
            }
        }
    }
}

impl Shard {
    /// The sums by currency of the accounts that are nobody's.
    fn system(&self, which: impl Fn(&Account) -> bool) -> BTreeMap<Currency, i128> {
        let mut sums = BTreeMap::new();
        for (account, currency, balance) in self.state.system() {
            if which(account) {
                *sums.entry(currency).or_default() += i128::from(balance);
            }
        }
        sums
    }

    /// Checks that an account's lines and its owner's payments, followed backwards, are all that the journal has.
    fn walk(&self, user: UserId, currency: Currency, wallet: &Wallet) {
        let (mut line, mut payment) = (wallet.last_line, wallet.last_payment);
        for (position, entry) in self.journal.iter().rev() {
            if let Some((id, _, posting)) =
                entry.lines(position.sequence).find(|(_, of, posting)| (*of, posting.currency) == (user, currency))
            {
                assert_eq!(line, id, "{user}'s line in {currency}");
                line = posting.previous_line;
            }
            if let Body::PaymentCreated(new) = &entry.body
                && (new.payer, new.money.currency()) == (user, currency)
            {
                assert_eq!(payment, position.sequence, "{user}'s payment in {currency}");
                payment = new.previous;
            }
        }
        assert_eq!((line, payment), (LineId::default(), Sequence(0)), "where {user}'s lines and payments in {currency} begin");
    }

    /// Checks that an audit that begins with the books as of entry `from` accepts what comes after it.
    fn audit_from(&self, from: usize) {
        let mut books = State::new(self.state.shard().clone());
        for (position, entry) in &self.journal[..from] {
            books.apply(position, entry).expect("what was applied once applies again");
        }
        let records = books.records();
        let last_at = self.journal[..from].last().map_or(Timestamp(0), |(_, entry)| entry.at);
        let mut audit = Audit::resume(Sequence(from as u64), last_at, &records);
        records.wallets.iter().for_each(|(key, wallet)| audit.resume_account(*key, *wallet));
        records.payments.iter().for_each(|payment| audit.resume_payment(payment));
        records.methods.iter().for_each(|(user, _)| audit.resume_method(*user));
        for (position, entry) in &self.journal[from..] {
            audit.take(position, entry).expect("an audit accepts what was decided, wherever it begins");
        }
        assert_eq!(audit.payments(), self.state.records().payments.len() as u64);
    }

    /// Checks the row of exempted payments against what became of each payment: those that were asked for since the last one of which a cardholder was
    /// challenged and the acquirer then authorized.
    fn recount(&self, user: UserId, currency: Currency, wallet: &Wallet) {
        let (mut payments, mut minor) = (0, 0);
        for (_, entry) in &self.journal {
            match &entry.body {
                Body::PaymentCreated(new) if (new.payer, new.money.currency()) == (user, currency) => {
                    if let Some(Authentication::Exempt(Exemption::LowValue)) = new.card.as_ref().map(|card| card.authentication) {
                        (payments, minor) = (payments + 1, minor + new.money.minor());
                        assert!(currency.code() == "EUR" && new.money.minor() <= LOW_VALUE_MINOR_MAX, "{new:?} is exempt");
                    }
                }
                Body::Card { step: CardStep::Authorized, before, .. } if (before.payer, before.currency) == (user, currency) => {
                    let charge = before.card.as_ref().expect("it is by card");
                    if currency.code() == "EUR" && charge.challenge.is_some() && charge.authentication != Authentication::NotRequired {
                        (payments, minor) = (0, 0);
                    }
                }
                _ => {}
            }
            assert!(payments <= EXEMPTED_PAYMENTS_MAX && minor <= EXEMPTED_MINOR_MAX, "{payments} of {minor} in a row at {entry:?}");
        }
        assert_eq!((wallet.exempted.payments, wallet.exempted.minor), (payments, minor), "{user}'s exempted payments in {currency}");
    }

    /// Checks each payment that is exempt by a mandate against what had become of that mandate by then, and how mandates stand in the end.
    fn recount_mandates(&self, payments: &[Payment]) {
        #[derive(Debug, Default)]
        struct Known {
            authenticated: bool,
            cancelled: bool,
            over: bool,
        }
        let mut known = BTreeMap::<Sequence, Known>::new();
        let made = |sequence: Sequence| match &self.journal[sequence.0 as usize - 1].1.body {
            Body::PaymentCreated(new) => new,
            other => panic!("a mandate is named by {other:?}"),
        };
        for (position, entry) in &self.journal {
            if let Body::PaymentCreated(new) = &entry.body
                && let Some(card) = &new.card
            {
                if card.mandate.is_some() {
                    assert!(
                        !matches!(card.authentication, Authentication::Exempt(_)),
                        "what sets a mandate up is authenticated: {entry:?}"
                    );
                    known.insert(position.sequence, Known::default());
                }
                let exempt = match &card.under {
                    None => None,
                    Some(under) => {
                        let sequence = under.mandate.sequence();
                        let (mandate, set_up) = (&known[&sequence], made(sequence));
                        let stands = mandate.authenticated && !mandate.cancelled && !mandate.over;
                        assert!(stands, "{mandate:?} at {entry:?}");
                        let ends = |of: &NewPayment| (of.payer, of.payee, of.payee_shard.clone(), of.money.currency());
                        assert_eq!(ends(set_up), ends(new));
                        let charge = set_up.card.as_ref().expect("a mandate is by card");
                        assert_eq!((charge.mandate, &charge.token), (Some(under.kind), &card.token));
                        assert!(under.kind != MandateKind::Recurring || set_up.money == new.money, "{entry:?}");
                        Some(under.kind)
                    }
                };
                let by_mandate = match card.authentication {
                    Authentication::Exempt(Exemption::Recurring) => Some(MandateKind::Recurring),
                    Authentication::Exempt(Exemption::TrustedPayee) => Some(MandateKind::TrustedPayee),
                    Authentication::NotRequired => exempt,
                    _ => None,
                };
                assert_eq!(by_mandate, exempt, "{entry:?}");
            }
            if let Body::Card { step: CardStep::Authorized, before, .. } = &entry.body
                && let Some(mandate) = known.get_mut(&before.sequence)
            {
                let charge = before.card.as_ref().expect("it is by card");
                mandate.authenticated = charge.challenge.is_some() || charge.authentication == Authentication::NotRequired;
            }
            if let Some(payment) = entry.payment(position)
                && let Some(mandate) = known.get_mut(&payment.sequence)
            {
                mandate.cancelled |= matches!(entry.body, Body::Card { step: CardStep::MandateCancelled, .. });
                mandate.over |= matches!(entry.body, Body::Card { step: CardStep::FraudReported, .. });
                let let_go = matches!(entry.body, Body::Card { step: CardStep::VoidAsked | CardStep::ExpiryAsked, .. });
                mandate.over |= let_go || matches!(payment.phase, Phase::Declined | Phase::Voided | Phase::Expired | Phase::Returned);
                // What is captured at once and not taken, or cannot be credited, is voided by itself.
                let voided = |charge: &Charge| charge.operations.iter().any(|operation| operation.kind == OperationKind::Void);
                mandate.over |= payment.card.as_deref().is_some_and(voided);
            }
        }
        let stands = |payment: &Payment| payment.mandate().is_some_and(|(_, standing)| standing == MandateStanding::Active);
        let active: Vec<_> = payments.iter().filter(|payment| stands(payment)).map(|payment| payment.sequence).collect();
        let expected = known.iter().filter(|(_, mandate)| mandate.authenticated && !mandate.cancelled && !mandate.over);
        assert_eq!(active, expected.map(|(sequence, _)| *sequence).collect::<Vec<_>>(), "mandates that stand");
    }

    /// What was captured of payments by card in EUR in the 90 days before `today` and today, and what of that was reported as fraud, from the journal alone.
    pub(crate) fn fraud(&self, today: Day) -> (i128, i128) {
        let (mut captured, mut fraud) = (0, 0);
        for (_, entry) in self.journal.iter().filter(|(_, entry)| Day::of(entry.at).0 + 90 >= today.0) {
            let Body::Card { step, payment, .. } = &entry.body else { continue };
            let amount = if payment.currency.code() == "EUR" { i128::from(payment.captured) } else { 0 };
            match step {
                CardStep::Captured | CardStep::CaptureReturned => captured += amount,
                CardStep::FraudReported => fraud += amount,
                _ => {}
            }
        }
        (captured, fraud)
    }

    /// Checks what must hold in each shard after each command.
    fn check(&self) {
        let records = self.state.records();
        let mut sums = self.system(|_| true);
        let mut held = BTreeMap::new();
        let mut payable = BTreeMap::new();
        for payment in &records.payments {
            assert!(0 <= payment.captured && payment.captured <= payment.amount && payment.amount <= AMOUNT_MINOR_MAX, "{payment:?}");
            assert!(0 <= payment.refunded && payment.refunded <= payment.captured, "{payment:?}");
            if let Some(charge) = &payment.card {
                let refunds = charge.operations.iter().filter(|operation| operation.kind == OperationKind::Refund);
                *payable.entry(payment.currency).or_insert(0) +=
                    refunds.clone().map(|operation| i128::from(operation.amount)).sum::<i128>();
                assert!(charge.operations.len() <= 1 || refunds.count() == charge.operations.len(), "{payment:?}");
                let asked = charge.operations.first().map(|operation| operation.kind);
                let fits = match payment.phase {
                    Phase::Pending => asked == Some(OperationKind::Authorize),
                    Phase::Authorized | Phase::ActionRequired => {
                        !matches!(asked, Some(OperationKind::Authorize | OperationKind::Refund))
                            && (asked.is_some() || charge.hold_s > 0 || payment.expires_at.is_some())
                    }
                    Phase::Captured | Phase::Returned => asked.is_none_or(|asked| asked == OperationKind::Refund),
                    Phase::Declined | Phase::Voided | Phase::Expired => asked.is_none(),
                };
                assert!(fits, "what is asked of the acquirer: {payment:?}");
            } else if payment.phase == Phase::Authorized {
                *held.entry((payment.payer, payment.currency)).or_insert(0) += payment.amount;
            }
        }
        for (key, wallet) in &records.wallets {
            *sums.entry(key.1).or_default() += i128::from(wallet.balance);
            assert!(0 <= wallet.held && wallet.held <= wallet.balance, "{key:?} {wallet:?}");
            assert_eq!(wallet.held, held.get(key).copied().unwrap_or(0), "{key:?}: what is held is what payments hold");
        }
        let mut kept = BTreeMap::<UserId, BTreeSet<VaultToken>>::new();
        for (user, method) in &records.methods {
            assert!(kept.entry(*user).or_default().insert(method.token.clone()), "{user:?} keeps {:?} twice", method.token);
        }
        assert!(kept.values().all(|tokens| tokens.len() <= PAYMENT_METHODS_MAX), "{kept:?}");
        let mut booked = self.system(|account| *account == Account::RefundsPayable);
        booked.retain(|_, sum| *sum != 0);
        payable.retain(|_, sum| *sum != 0);
        assert_eq!(booked, payable, "what is to go back to cards is what acquirers are being asked to send back");
        for (currency, sum) in sums {
            assert_eq!(sum, 0, "the accounts of {} in {currency} do not sum to zero", self.state.shard());
        }
    }
}

/// Loads what deciding `request` needs out of `tables`, which are all that there is.
pub(crate) fn prefetch(state: &mut State, request: &Request, tables: &Records) {
    // A payment is asked for first, then the accounts that it names.
    for _ in 0..3 {
        let mut missing = Missing::default();
        state.missing(request, &mut missing);
        if missing.is_empty() {
            return;
        }
        load(state, &missing, tables);
    }
    panic!("deciding {request:?} needs ever more");
}

/// Loads what is missing, and nothing else, out of `tables`.
pub(crate) fn load(state: &mut State, missing: &Missing, tables: &Records) {
    fn pick<T: Clone>(rows: &[T], asked: impl Fn(&T) -> bool) -> Vec<T> {
        rows.iter().filter(|row| asked(row)).cloned().collect()
    }
    let records = Records {
        users: pick(&tables.users, |(user, _)| missing.users.contains(user)),
        wallets: pick(&tables.wallets, |(key, _)| missing.wallets.contains(key)),
        payments: pick(&tables.payments, |payment| missing.payments.contains(&payment.sequence)),
        requests: pick(&tables.requests, |(id, _)| missing.requests.contains(id)),
        claims: pick(&tables.claims, |(user, _)| missing.claims.contains(user)),
        methods: pick(&tables.methods, |(user, _)| missing.methods.contains(user)),
        system: tables.system.clone(),
        inbox: tables.inbox.clone(),
        delivered: tables.delivered.clone(),
        monitored: tables.monitored.clone(),
        newest_request_ms: Some(tables.requests.iter().filter_map(|(id, _)| id.named_at_ms()).max().unwrap_or(0)),
    };
    state.load(missing, records);
}
