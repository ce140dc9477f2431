//! The books again, from the entries alone: what `paymesh verify` adds up.

use std::collections::BTreeMap;

use paymesh_types::{Currency, Cursor, Position, Sequence, ShardRef, Timestamp, UserId};
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

use crate::{
    Account, Authentication, Body, CardStep, Day, Effect, Entry, Exempted, Exemption, Mandate, MandateState, Monitored, NewCharge,
    NewPayment, PAYMENT_METHODS_MAX, Payment, Phase, Records, Wallet, mandate, sca,
};

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {sequence}: {what}")]
pub struct Problem {
    /// The entry.
    pub sequence: Sequence,
    /// What.
    pub what: String,
}

/// The books of one currency, in minor units. What is held aside, they add up to zero: [`Self::total`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// All wallets.
    pub wallets: i128,
    /// The outside world's account.
    pub external: i128,
    /// The clearing accounts.
    pub clearing: i128,
    /// What acquirers owe for what they took from cards, and what is to go back to cards.
    pub cards: i128,
    /// What is held, of the wallets.
    pub held: i128,
}

impl Sums {
    /// What must be zero.
    pub fn total(&self) -> i128 {
        self.wallets + self.external + self.clearing + self.cards
    }
}

/// Adds up a journal from its first entry, trusting none of the totals that the entries state.
///
/// Memory: about 90 bytes for each account, 20 for each user with payment methods, some 600 for each payment that sets up a mandate, none for each other payment:
/// what entries say of a payment's earlier states is not compared here, nor which of a user's payment methods they are about.
#[derive(Debug, Default)]
pub struct Audit {
    wallets: FxHashMap<(UserId, Currency), Wallet>,
    /// Payments that set up mandates, as they stand.
    mandates: FxHashMap<Sequence, Payment>,
    system: BTreeMap<(Account, Currency), i64>,
    inbox: BTreeMap<ShardRef, Cursor>,
    delivered: BTreeMap<ShardRef, Sequence>,
    monitored: Monitored,
    newest_request_ms: u64,
    last: Sequence,
    last_at: Timestamp,
    users: u64,
    payments: u64,
    /// How many payment methods each user has who has some.
    methods: FxHashMap<UserId, usize>,
}

impl Audit {
    /// Begins after `last`, of that time, with the books of a checkpoint. Its accounts, users and payments are added by
    /// [`Self::resume_account`], [`Self::resume_user`] and [`Self::resume_payment`].
    pub fn resume(last: Sequence, last_at: Timestamp, books: &Records) -> Self {
        Self {
            system: books.system.iter().cloned().collect(),
            inbox: books.inbox.iter().cloned().collect(),
            delivered: books.delivered.iter().cloned().collect(),
            monitored: books.monitored.clone(),
            newest_request_ms: books.newest_request_ms.unwrap_or(0),
            last,
            last_at,
            ..Self::default()
        }
    }

    /// Adds an account as it is.
    pub fn resume_account(&mut self, key: (UserId, Currency), wallet: Wallet) {
        self.wallets.insert(key, wallet);
    }

    /// Counts a user who is enrolled already.
    pub fn resume_user(&mut self) {
        self.users += 1;
    }

    /// Counts a payment method that a user has already.
    pub fn resume_method(&mut self, user: UserId) {
        *self.methods.entry(user).or_default() += 1;
    }

    /// Counts a payment that was made already, as it stands.
    pub fn resume_payment(&mut self, payment: &Payment) {
        self.payments += 1;
        if payment.mandate().is_some() {
            self.mandates.insert(payment.sequence, payment.clone());
        }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// The entry does not follow from those before it.
    pub fn take(&mut self, position: &Position, entry: &Entry) -> Result<(), Problem> {
        let sequence = position.sequence;
        let problem = |what: String| Problem { sequence, what };
        if sequence != self.last.next() {
            return Err(problem(format!("comes after {}", self.last)));
        }
        if entry.at < self.last_at {
            return Err(problem("is older than the one before it".to_owned()));
        }
        (self.last, self.last_at) = (sequence, entry.at);

        let mut sums: BTreeMap<Currency, i128> = BTreeMap::new();
        for posting in &entry.postings {
            *sums.entry(posting.currency).or_default() += i128::from(posting.amount);
        }
        if let Some((currency, sum)) = sums.iter().find(|(_, sum)| **sum != 0) {
            return Err(problem(format!("its postings in {currency} sum to {sum}")));
        }
        let named_at_ms = entry.request_id.and_then(|id| id.named_at_ms()).unwrap_or(0);
        self.newest_request_ms = self.newest_request_ms.max(named_at_ms);
        match &entry.body {
            Body::UserEnrolled { user, currencies, .. } => {
                self.users += 1;
                for currency in currencies {
                    self.open(*user, *currency).map_err(problem)?;
                }
            }
            Body::AccountOpened { user, currency } => self.open(*user, *currency).map_err(problem)?,
            Body::AccountClosed { user, currency } => {
                let wallet = self.wallet_mut(*user, *currency).map_err(problem)?;
                if wallet.closed || (wallet.balance, wallet.held) != (0, 0) {
                    return Err(problem(format!("closes the account of user {user} in {currency}, which is {wallet:?}")));
                }
                wallet.closed = true;
            }
            Body::MethodAdded { user, .. } => {
                let count = self.methods.entry(*user).or_default();
                *count += 1;
                if *count > PAYMENT_METHODS_MAX {
                    return Err(problem(format!("gives user {user} {count} payment methods")));
                }
            }
            Body::MethodRemoved { user, method } => match self.methods.remove(user) {
                Some(count) if method.added < sequence => {
                    self.methods.extend((count > 1).then(|| (*user, count - 1)));
                }
                _ => return Err(problem(format!("takes a payment method from user {user}, who cannot have had it"))),
            },
            Body::PaymentCreated(new) => {
                self.payments += 1;
                if let Some(NewCharge { authentication: Authentication::Exempt(Exemption::TransactionRisk), .. }) = new.card {
                    let threshold = self.monitored.total(Day::of(entry.at)).threshold();
                    if !sca::counts(new.money.currency()) || new.money.minor() > threshold {
                        return Err(problem(format!("exempts {} for a low risk, of which the fraud rate allows {threshold}", new.money)));
                    }
                }
                let wallet = self.wallet_mut(new.payer, new.money.currency()).map_err(problem)?;
                if new.previous != wallet.last_payment {
                    let last = wallet.last_payment;
                    return Err(problem(format!("follows payment {} of user {}, whose last is {last}", new.previous, new.payer)));
                }
                wallet.last_payment = sequence;
                if let Some(NewCharge { authentication: Authentication::Exempt(Exemption::LowValue), .. }) = new.card {
                    wallet.exempted = wallet.exempted.with(new.money).ok_or_else(|| {
                        problem(format!(
                            "exempts a payment of {} of user {}, whose exempted ones are {:?}",
                            new.money, new.payer, wallet.exempted
                        ))
                    })?;
                }
            }
            Body::Received { source, at, .. } => {
                let cursor = self.inbox.entry(source.clone()).or_default();
                if at.sequence <= cursor.sequence {
                    return Err(problem(format!("entry {} of {source} took effect before", at.sequence)));
                }
                *cursor = *at;
            }
            Body::Delivered { to, up_to, read_to } => {
                self.inbox.entry(to.clone()).or_default().advance(*read_to);
                let delivered = self.delivered.entry(to.clone()).or_default();
                *delivered = (*delivered).max(*up_to);
            }
            _ => {}
        }
        if let Some((payer, currency)) = entry.authenticated_payer() {
            self.wallet_mut(payer, currency).map_err(problem)?.exempted = Exempted::default();
        }
        self.check_mandates(position, entry).map_err(problem)?;
        self.count(entry).map_err(problem)?;
        if let Some(payment) = entry.payment(position) {
            let within = payment.captured <= payment.amount && 0 <= payment.refunded && payment.refunded <= payment.captured;
            let moved = payment.phase == Phase::Captured || payment.phase == Phase::Returned || payment.captured == 0;
            let counted = match &entry.body {
                Body::RefundCompleted { amount, .. }
                | Body::RefundRequested { amount, .. }
                | Body::Card { step: CardStep::RefundAsked { amount, .. }, .. } => 0 < *amount && *amount <= payment.refunded,
                _ => true,
            };
            if !within || !moved || !counted {
                return Err(problem(format!(
                    "payment {}: {} asked for, {} captured, {} refunded",
                    payment.sequence, payment.amount, payment.captured, payment.refunded
                )));
            }
            if payment.mandate().is_some() {
                self.mandates.insert(payment.sequence, payment);
            }
        }
        let movements = movements(entry);
        if movements.len() != entry.postings.len() {
            return Err(problem(format!("it moves {} accounts, and posts to {}", movements.len(), entry.postings.len())));
        }
        for (movement, posting) in movements.iter().zip(&entry.postings) {
            if (&movement.account, movement.currency, movement.amount) != (&posting.account, posting.currency, posting.amount) {
                return Err(problem(format!("it says {movement:?}, and posts {posting:?}")));
            }
            let Account::Wallet(user) = posting.account else {
                let balance = self.system.entry((posting.account.clone(), posting.currency)).or_default();
                *balance = balance.checked_add(posting.amount).ok_or_else(|| problem("a balance overflows".to_owned()))?;
                if *balance != posting.balance_after {
                    return Err(problem(format!(
                        "{:?} in {} has {balance}, the entry says {}",
                        posting.account, posting.currency, posting.balance_after
                    )));
                }
                continue;
            };
            let wallet = self.wallet_mut(user, posting.currency).map_err(problem)?;
            wallet.balance = wallet.balance.checked_add(posting.amount).ok_or_else(|| problem("a balance overflows".to_owned()))?;
            wallet.held = wallet.held.checked_add(movement.held).ok_or_else(|| problem("a hold overflows".to_owned()))?;
            if wallet.balance != posting.balance_after || wallet.last_line != posting.previous_line {
                return Err(problem(format!(
                    "user {user} in {} has {}, the entry says {}",
                    posting.currency, wallet.balance, posting.balance_after
                )));
            }
            if wallet.held != posting.held_after {
                return Err(problem(format!(
                    "user {user} in {} holds {}, the entry says {}",
                    posting.currency, wallet.held, posting.held_after
                )));
            }
            if wallet.exempted != posting.exempted_after {
                return Err(problem(format!(
                    "user {user} in {} has {:?}, the entry says {:?}",
                    posting.currency, wallet.exempted, posting.exempted_after
                )));
            }
            if wallet.held < 0 || wallet.balance < wallet.held {
                return Err(problem(format!("user {user} in {} has {} and holds on {}", posting.currency, wallet.balance, wallet.held)));
            }
        }
        for (line, user, posting) in entry.lines(sequence) {
            if let Some(wallet) = self.wallets.get_mut(&(user, posting.currency)) {
                wallet.last_line = line;
            }
        }
        Ok(())
    }

    /// Checks a payment that is made under a mandate against it, and what an entry says of how a mandate and an exemption went on.
    fn check_mandates(&self, position: &Position, entry: &Entry) -> Result<(), String> {
        match &entry.body {
            Body::PaymentCreated(new) => self.check_exemption(position, new),
            Body::Card { step, payment, before, .. } => {
                let (Some(before), Some(after)) = (before.card.as_deref(), payment.card.as_deref()) else { return Ok(()) };
                let mandate = match step {
                    CardStep::Authorized => before.mandate_once_authorized(),
                    CardStep::MandateCancelled => before.mandate.map(|mandate| Mandate { state: MandateState::Cancelled, ..mandate }),
                    _ => before.mandate,
                };
                let known = self.mandates.get(&payment.sequence).and_then(|payment| payment.card.as_deref()?.mandate);
                if before.mandate != known || after.mandate != mandate || after.under != before.under {
                    let (before, after) = (before.mandate, after.mandate);
                    return Err(format!("the mandate of payment {} is {known:?}; {before:?} comes to {after:?}", payment.sequence));
                }
                let authentication = match step {
                    CardStep::ExemptionRefused => (Authentication::Required, Some(before.authentication)),
                    _ => (before.authentication, before.turned_down),
                };
                if (after.authentication, after.turned_down) != authentication {
                    return Err(format!(
                        "payment {} is authenticated as {:?}, and not {authentication:?}",
                        payment.sequence, after.authentication
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Checks that a new payment is exempt as its mandate says, and not otherwise.
    fn check_exemption(&self, position: &Position, new: &NewPayment) -> Result<(), String> {
        let Some(card) = &new.card else { return Ok(()) };
        let by_mandate = match &card.under {
            None => None,
            Some(under) => {
                let set_up = self.mandates.get(&under.mandate.sequence()).filter(|set_up| set_up.id(&position.shard) == under.mandate);
                let set_up = set_up.ok_or_else(|| format!("is made under mandate {}, which there is not", under.mandate))?;
                let (payer, payee, money) = (new.payer, new.payee, new.money);
                let owed = card.authentication != Authentication::NotRequired;
                let terms = mandate::Terms { payer, payee, payee_shard: new.payee_shard.as_ref(), money, token: &card.token, owed };
                let kind = mandate::check(set_up, &terms)
                    .map_err(|rejection| format!("is made under mandate {}, and is not as that one has it: {rejection}", under.mandate))?;
                Some(kind).filter(|kind| *kind == under.kind)
            }
        };
        let scored = |risk: &crate::Risk| risk.score.is_some() && !risk.review;
        if card.authentication == Authentication::Exempt(Exemption::TransactionRisk) && !card.risk.as_ref().is_some_and(scored) {
            return Err(format!("is exempt for its low risk, and was said to be {:?}", card.risk));
        }
        let fits = match (card.authentication, &card.under) {
            (Authentication::NotRequired, under) => under.is_none() || by_mandate.is_some(),
            (Authentication::Exempt(Exemption::Recurring | Exemption::TrustedPayee), None) => false,
            (Authentication::Exempt(exemption), Some(_)) => by_mandate.is_some_and(|kind| kind.exemption() == exemption),
            // What sets a mandate up is authenticated.
            (Authentication::Exempt(_), None) => card.mandate.is_none(),
            (Authentication::Required, under) => under.is_none(),
        };
        if fits { Ok(()) } else { Err(format!("is authenticated as {:?}, under {:?}", card.authentication, card.under)) }
    }

    /// Once payments are counted, all are.
    fn count(&mut self, entry: &Entry) -> Result<(), String> {
        let Body::Card { step, payment, before, .. } = &entry.body else { return Ok(()) };
        let reported = |payment: &Payment| payment.card.as_deref().and_then(|charge| charge.fraud_reported_at);
        let reports = match step {
            CardStep::FraudReported => reported(before).is_none() && reported(payment) == Some(entry.at) && payment.captured > 0,
            _ => reported(before) == reported(payment),
        };
        if !reports {
            let (before, after) = (reported(before), reported(payment));
            return Err(format!(
                "has payment {} reported as fraud {after:?}, before {before:?}, of {} captured",
                payment.sequence, payment.captured
            ));
        }
        let expected = self.monitored.counting(entry.at, *step, payment);
        match entry.counted() {
            None if self.monitored.since().is_none() => {}
            counted if counted != expected.as_ref() => {
                return Err(format!("counts {counted:?} towards the fraud rate, where {expected:?} is to be counted"));
            }
            Some(counted) => self.monitored.note(entry.at, counted),
            None => {}
        }
        Ok(())
    }

    fn open(&mut self, user: UserId, currency: Currency) -> Result<(), String> {
        match self.wallets.insert((user, currency), Wallet::default()) {
            None => Ok(()),
            Some(_) => Err(format!("opens an account of user {user} in {currency}, who has one")),
        }
    }

    fn wallet_mut(&mut self, user: UserId, currency: Currency) -> Result<&mut Wallet, String> {
        self.wallets.get_mut(&(user, currency)).ok_or_else(|| format!("is about an account of user {user} in {currency}, who has none"))
    }

    /// The last entry taken.
    pub fn position(&self) -> Sequence {
        self.last
    }

    /// The books by currency.
    pub fn sums(&self) -> BTreeMap<Currency, Sums> {
        let mut sums = BTreeMap::<Currency, Sums>::new();
        for ((_, currency), wallet) in &self.wallets {
            let sum = sums.entry(*currency).or_default();
            sum.wallets += i128::from(wallet.balance);
            sum.held += i128::from(wallet.held);
        }
        for ((account, currency), balance) in &self.system {
            let sum = sums.entry(*currency).or_default();
            match account {
                Account::External => sum.external += i128::from(*balance),
                Account::Sent(_) | Account::Received(_) => sum.clearing += i128::from(*balance),
                Account::Acquirer(_) | Account::RefundsPayable => sum.cards += i128::from(*balance),
                Account::Wallet(_) => unreachable!("wallets are kept apart"),
            }
        }
        sums
    }

    /// The balances of the outside world's and the clearing accounts.
    pub fn system(&self) -> impl Iterator<Item = (&Account, Currency, i64)> {
        self.system.iter().map(|((account, currency), balance)| (account, *currency, *balance))
    }

    /// How far other shards' journals took effect.
    pub fn inbox(&self) -> impl Iterator<Item = (&ShardRef, Cursor)> {
        self.inbox.iter().map(|(shard, cursor)| (shard, *cursor))
    }

    /// How far other shards took in what this one sent.
    pub fn delivered(&self) -> impl Iterator<Item = (&ShardRef, Sequence)> {
        self.delivered.iter().map(|(shard, sequence)| (shard, *sequence))
    }

    /// What payments by card come to by day.
    pub fn monitored(&self) -> &Monitored {
        &self.monitored
    }

    /// The latest instant in a request id of version 7, in milliseconds since 1970 UTC; 0 when there is none.
    pub fn newest_request_ms(&self) -> u64 {
        self.newest_request_ms
    }

    /// When the last entry was decided.
    pub fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// An account, if it was ever opened.
    pub fn wallet(&self, user: UserId, currency: Currency) -> Option<&Wallet> {
        self.wallets.get(&(user, currency))
    }

    /// Accounts opened, closed ones among them.
    pub fn wallets(&self) -> usize {
        self.wallets.len()
    }

    /// Users enrolled.
    pub fn users(&self) -> u64 {
        self.users
    }

    /// Payments created, declined ones included.
    pub fn payments(&self) -> u64 {
        self.payments
    }
}

/// What an entry does to one account by what its body says.
#[derive(Debug)]
struct Movement {
    account: Account,
    currency: Currency,
    amount: i64,
    held: i64,
}

/// What the entry's body says it moves, in the order of its postings.
fn movements(entry: &Entry) -> SmallVec<[Movement; 2]> {
    let wallet = |user: UserId, currency, amount, held| Movement { account: Account::Wallet(user), currency, amount, held };
    let system = |account, currency, amount| Movement { account, currency, amount, held: 0 };
    // To the payee, or on its way there.
    let paid = |payee: UserId, shard: &Option<ShardRef>, currency, amount| {
        let account = shard.clone().map_or(Account::Wallet(payee), Account::Sent);
        Movement { account, currency, amount, held: 0 }
    };
    // To where the payer paid from.
    let back = |payment: &Payment, amount| {
        let account = if payment.card.is_some() { Account::RefundsPayable } else { Account::Wallet(payment.payer) };
        Movement { account, currency: payment.currency, amount, held: 0 }
    };
    let released = |payment: &Payment| smallvec![wallet(payment.payer, payment.currency, 0, payment.amount.saturating_neg())];
    match &entry.body {
        Body::UserEnrolled { .. }
        | Body::UserClaimed { .. }
        | Body::AccountOpened { .. }
        | Body::AccountClosed { .. }
        | Body::MethodAdded { .. }
        | Body::MethodRemoved { .. }
        | Body::RefundRequested { .. }
        | Body::Delivered { .. } => smallvec![],
        Body::Deposited { user, money } => {
            smallvec![system(Account::External, money.currency(), -money.minor()), wallet(*user, money.currency(), money.minor(), 0)]
        }
        Body::Withdrawn { user, money, declined: None } => {
            smallvec![wallet(*user, money.currency(), -money.minor(), 0), system(Account::External, money.currency(), money.minor())]
        }
        Body::Withdrawn { user, money, declined: Some(_) } => smallvec![wallet(*user, money.currency(), 0, 0)],
        Body::PaymentCreated(new) => {
            let (currency, amount) = (new.money.currency(), new.money.minor());
            match (new.declined.is_some() || new.card.is_some(), new.hold_s) {
                (true, _) => smallvec![wallet(new.payer, currency, 0, 0)],
                (false, 0) => smallvec![wallet(new.payer, currency, -amount, 0), paid(new.payee, &new.payee_shard, currency, amount)],
                (false, _) => smallvec![wallet(new.payer, currency, 0, amount)],
            }
        }
        Body::Card { step: CardStep::Authorized, .. } => {
            entry.authenticated_payer().map(|(payer, currency)| wallet(payer, currency, 0, 0)).into_iter().collect()
        }
        Body::Card { step, payment, .. } => by_card(*step, payment),
        Body::PaymentCaptured { payment, .. } => smallvec![
            wallet(payment.payer, payment.currency, payment.captured.saturating_neg(), payment.amount.saturating_neg()),
            paid(payment.payee, &payment.payee_shard, payment.currency, payment.captured),
        ],
        Body::PaymentVoided { payment } | Body::PaymentExpired { payment } => released(payment),
        Body::RefundCompleted { payment, amount, .. } => smallvec![
            wallet(payment.payee, payment.currency, amount.saturating_neg(), 0),
            wallet(payment.payer, payment.currency, *amount, 0),
        ],
        Body::Received { source, effect, .. } => {
            let taken = |currency, amount: i64| system(Account::Received(source.clone()), currency, amount.saturating_neg());
            let sent = |currency, amount| system(Account::Sent(source.clone()), currency, amount);
            match effect {
                Effect::Credited(credit) => {
                    let (currency, amount) = (credit.money.currency(), credit.money.minor());
                    smallvec![taken(currency, amount), wallet(credit.payee, currency, amount, 0)]
                }
                Effect::Bounced(credit) => {
                    let (currency, amount) = (credit.money.currency(), credit.money.minor());
                    smallvec![taken(currency, amount), sent(currency, amount)]
                }
                Effect::RefundPaid(credit) => {
                    let (currency, amount) = (credit.money.currency(), credit.money.minor());
                    smallvec![wallet(credit.payee, currency, -amount, 0), sent(currency, amount)]
                }
                Effect::RefundRefused(_) | Effect::RefundFailed { .. } => smallvec![],
                Effect::PaymentReturned(payment) => {
                    smallvec![taken(payment.currency, payment.captured), back(payment, payment.captured)]
                }
                Effect::RefundReceived { payment, amount } => smallvec![taken(payment.currency, *amount), back(payment, *amount)],
            }
        }
    }
}

/// What a step of a payment by card moves, in the order of its postings.
fn by_card(step: CardStep, payment: &Payment) -> SmallVec<[Movement; 2]> {
    let moved = |from: Account, to: Account, amount: i64| {
        let movement = |account, amount| Movement { account, currency: payment.currency, amount, held: 0 };
        smallvec![movement(from, amount.saturating_neg()), movement(to, amount)]
    };
    // A payment whose charge is not there posts to no gateway, and does not fit what the entry posts.
    let Some(charge) = &payment.card else { return smallvec![] };
    let acquirer = || Account::Acquirer(charge.gateway.clone());
    match step {
        CardStep::Captured => {
            moved(acquirer(), payment.payee_shard.clone().map_or(Account::Wallet(payment.payee), Account::Sent), payment.captured)
        }
        CardStep::CaptureReturned => moved(acquirer(), Account::RefundsPayable, payment.captured),
        CardStep::RefundAsked { amount, .. } => moved(Account::Wallet(payment.payee), Account::RefundsPayable, amount),
        CardStep::Refunded { amount } => moved(Account::RefundsPayable, acquirer(), amount),
        CardStep::RefundRefused { amount } => moved(Account::RefundsPayable, Account::Wallet(payment.payer), amount),
        CardStep::Confirmed
        | CardStep::Left
        | CardStep::Challenged
        | CardStep::Authorized
        | CardStep::Declined
        | CardStep::ExemptionRefused
        | CardStep::MandateCancelled
        | CardStep::CaptureAsked { .. }
        | CardStep::CaptureRefused
        | CardStep::VoidAsked
        | CardStep::ExpiryAsked
        | CardStep::Voided
        | CardStep::Expired
        | CardStep::FraudReported => smallvec![],
    }
}
