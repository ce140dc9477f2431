//! The state that commands are decided against, and the effect of entries on it.

use std::collections::BTreeMap;

use paymesh_types::{Country, Currency, Cursor, Epoch, PaymentId, Position, RequestId, Sequence, ShardRef, Timestamp, UserId, ZoneName};
use rustc_hash::FxHashMap;

use crate::{
    Account, Body, Charge, Command, Credit, Entry, Exempted, LineId, Message, Monitored, NewPayment, OperationKind, PaymentMethod, Phase,
    Posting, Reason, Request, requests::Requests, resident::Resident,
};

/// A user's account in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wallet {
    /// What is booked, in minor units. Not negative.
    pub balance: i64,
    /// What holds keep from being spent, in minor units. Not negative, not above the balance.
    pub held: i64,
    /// A closed account takes only what comes back to it.
    pub closed: bool,
    /// Its newest statement line.
    pub last_line: LineId,
    /// The owner's newest payment in the currency; 0 when there is none.
    pub last_payment: Sequence,
    /// What the owner paid by exempted payments since they were last authenticated; nothing where the account is not in EUR.
    pub exempted: Exempted,
}

impl Wallet {
    /// What can be spent, in minor units.
    pub fn available(&self) -> i64 {
        self.balance - self.held
    }
}

/// A payment at its own shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Payment {
    /// The term of leadership that created it.
    pub epoch: Epoch,
    /// The sequence number of the entry that created it.
    pub sequence: Sequence,
    /// Whose money moves.
    pub payer: UserId,
    /// Who gets it.
    pub payee: UserId,
    /// The payee's shard; `None` when it is this one.
    pub payee_shard: Option<ShardRef>,
    /// Its currency.
    pub currency: Currency,
    /// What was asked for, in minor units.
    pub amount: i64,
    /// What was taken, in minor units.
    pub captured: i64,
    /// What was refunded or is being refunded, in minor units. Never above `captured`.
    pub refunded: i64,
    /// The entry by which its money left for another shard; 0 when it did not.
    pub sent: Sequence,
    /// Where it stands.
    pub phase: Phase,
    /// Why it was declined or returned.
    pub reason: Option<Reason>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its hold runs out, or its cardholder's time; `None` when it has none.
    pub expires_at: Option<Timestamp>,
    /// What it is at its acquirer; `None` when it is not by card. A copy in another zone does not have it.
    pub card: Option<Box<Charge>>,
}

impl Payment {
    pub(crate) fn created(new: &NewPayment, position: &Position, at: Timestamp) -> Self {
        let (phase, captured) = match (new.declined, &new.card, new.hold_s) {
            (Some(_), ..) => (Phase::Declined, 0),
            (None, Some(_), _) => (Phase::Pending, 0),
            (None, None, 0) => (Phase::Captured, new.money.minor()),
            (None, None, _) => (Phase::Authorized, 0),
        };
        let card = new.card.as_ref().map(|card| {
            let mut charge = Charge::new(card, new.hold_s);
            if new.declined.is_none() {
                charge.ask(OperationKind::Authorize, new.money.minor(), at);
            }
            Box::new(charge)
        });
        Self {
            epoch: position.epoch,
            sequence: position.sequence,
            payer: new.payer,
            payee: new.payee,
            payee_shard: new.payee_shard.clone(),
            currency: new.money.currency(),
            amount: new.money.minor(),
            captured,
            refunded: 0,
            sent: if captured > 0 && new.payee_shard.is_some() { position.sequence } else { Sequence(0) },
            phase,
            reason: new.declined,
            created_at: at,
            // A hold on a card begins when it is there.
            expires_at: (new.hold_s > 0 && new.card.is_none()).then(|| at.plus_seconds(new.hold_s.into())),
            card,
        }
    }

    /// The payment's id, `shard` being its own.
    pub fn id(&self, shard: &ShardRef) -> PaymentId {
        PaymentId::from(Position { shard: shard.clone(), epoch: self.epoch, sequence: self.sequence })
    }

    pub(crate) fn credit(&self, position: &Position, amount: i64) -> Credit {
        Credit {
            payment: self.id(&position.shard),
            payer: self.payer,
            payee: self.payee,
            money: paymesh_types::Money::new(amount, self.currency).expect("what was captured or refunded is an amount"),
            reason: None,
        }
    }
}

/// The records that commands need and that are not in memory.
#[derive(Debug, Default, Clone)]
pub struct Missing {
    /// Users.
    pub users: Vec<UserId>,
    /// Accounts.
    pub wallets: Vec<(UserId, Currency)>,
    /// Payments.
    pub payments: Vec<Sequence>,
    /// Request ids.
    pub requests: Vec<RequestId>,
    /// Users whose zone the directory is asked for.
    pub claims: Vec<UserId>,
    /// Users whose payment methods are asked for.
    pub methods: Vec<UserId>,
}

impl Missing {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        let of_users = self.users.is_empty() && self.claims.is_empty() && self.methods.is_empty();
        of_users && self.wallets.is_empty() && self.payments.is_empty() && self.requests.is_empty()
    }
}

/// What the tables say about records that were missing. What is asked for and not here does not exist.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Records {
    /// Users and their countries.
    pub users: Vec<(UserId, Country)>,
    /// Accounts.
    pub wallets: Vec<((UserId, Currency), Wallet)>,
    /// Payments.
    pub payments: Vec<Payment>,
    /// Request ids and the entries they led to.
    pub requests: Vec<(RequestId, Sequence)>,
    /// The directory's claims.
    pub claims: Vec<(UserId, ZoneName)>,
    /// Payment methods, all of each user's.
    pub methods: Vec<(UserId, PaymentMethod)>,
    /// The balances of the outside world's and the clearing accounts: these are loaded once, all of them.
    pub system: Vec<((Account, Currency), i64)>,
    /// How far other shards' journals took effect here: as above.
    pub inbox: Vec<(ShardRef, Cursor)>,
    /// How far other shards took in what this one sent: as above.
    pub delivered: Vec<(ShardRef, Sequence)>,
    /// What payments by card come to by day: as above.
    pub monitored: Monitored,
    /// The latest instant in a recorded request id of version 7, in milliseconds since 1970 UTC; 0 when there is none. `None`
    /// where it was not read.
    pub newest_request_ms: Option<u64>,
}

/// An entry does not follow from the state: one of the two is corrupt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {sequence} does not follow from the books: {what}")]
pub struct Inconsistent {
    /// The entry.
    pub sequence: Sequence,
    /// What does not fit.
    pub what: String,
}

/// The state of one shard, or the part of it that is in memory.
#[derive(Debug)]
pub struct State {
    shard: ShardRef,
    pub(crate) users: Resident<UserId, Country>,
    pub(crate) wallets: Resident<(UserId, Currency), Wallet>,
    pub(crate) payments: Resident<Sequence, Payment>,
    pub(crate) requests: Requests,
    pub(crate) claims: Resident<UserId, ZoneName>,
    /// Oldest first.
    pub(crate) methods: Resident<UserId, Vec<PaymentMethod>>,
    /// Small, and always resident.
    pub(crate) system: FxHashMap<(Account, Currency), i64>,
    pub(crate) inbox: FxHashMap<ShardRef, Cursor>,
    pub(crate) delivered: FxHashMap<ShardRef, Sequence>,
    pub(crate) monitored: Monitored,
}

impl State {
    /// A shard with nothing in it.
    pub fn new(shard: ShardRef) -> Self {
        Self {
            shard,
            users: Resident::default(),
            wallets: Resident::default(),
            payments: Resident::default(),
            requests: Requests::default(),
            claims: Resident::default(),
            methods: Resident::default(),
            system: FxHashMap::default(),
            inbox: FxHashMap::default(),
            delivered: FxHashMap::default(),
            monitored: Monitored::default(),
        }
    }

    /// The shard.
    pub fn shard(&self) -> &ShardRef {
        &self.shard
    }

    /// How far the other shard's journal took effect here.
    pub fn inbox(&self, source: &ShardRef) -> Sequence {
        self.inbox.get(source).map_or(Sequence(0), |cursor| cursor.sequence)
    }

    /// How far the other shard took in what this one sent.
    pub fn delivered(&self, to: &ShardRef) -> Sequence {
        self.delivered.get(to).copied().unwrap_or_default()
    }

    /// The cursors on other shards' journals.
    pub fn inboxes(&self) -> impl Iterator<Item = (&ShardRef, Cursor)> {
        self.inbox.iter().map(|(shard, cursor)| (shard, *cursor))
    }

    /// The balances of the outside world's and the clearing accounts.
    pub fn system(&self) -> impl Iterator<Item = (&Account, Currency, i64)> {
        self.system.iter().map(|((account, currency), balance)| (account, *currency, *balance))
    }

    /// What payments by card come to by day.
    pub fn monitored(&self) -> &Monitored {
        &self.monitored
    }

    /// The account, where it is in memory.
    pub fn wallet(&self, user: UserId, currency: Currency) -> Option<&Wallet> {
        self.wallets.peek((user, currency))
    }

    /// Adds to `missing` what deciding `request` needs and is not in memory, and marks the rest as in use. A payment
    /// names further records: call again after loading, until nothing is missing.
    pub fn missing(&mut self, request: &Request, missing: &mut Missing) {
        if let Some(id) = request.id
            && !self.requests.touch(id)
        {
            missing.requests.push(id);
        }
        match &request.command {
            Command::EnrollUser { user, currencies, .. } => {
                self.need_user(*user, missing);
                for currency in currencies {
                    self.need_wallet(*user, *currency, missing);
                }
            }
            Command::ClaimUser { user, .. } => {
                if !self.claims.touch(*user) {
                    missing.claims.push(*user);
                }
            }
            Command::OpenAccount { user, currency } | Command::CloseAccount { user, currency } => {
                self.need_user(*user, missing);
                self.need_wallet(*user, *currency, missing);
            }
            Command::AddMethod { user, .. } => {
                self.need_user(*user, missing);
                self.need_methods(*user, missing);
            }
            Command::RemoveMethod { user, .. } => self.need_methods(*user, missing),
            Command::Deposit { user, money, .. } | Command::Withdraw { user, money, .. } => {
                self.need_wallet(*user, money.currency(), missing)
            }
            Command::CreatePayment(create) => {
                self.need_wallet(create.payer, create.money.currency(), missing);
                if create.payee_shard.is_none() {
                    self.need_wallet(create.payee, create.money.currency(), missing);
                }
                let mandate = create.card.as_ref().and_then(|card| card.agreement.as_ref()?.under());
                if let Some(mandate) = mandate.filter(|mandate| *mandate.shard() == self.shard) {
                    self.need_payment(mandate.sequence(), missing);
                }
            }
            Command::CapturePayment { payment, .. }
            | Command::VoidPayment { payment }
            | Command::RefundPayment { payment, .. }
            | Command::ConfirmPayment { payment }
            | Command::CancelMandate { payment }
            | Command::ReportFraud { payment }
            | Command::Settle { payment, .. } => {
                self.need_payment(payment.sequence(), missing);
            }
            Command::ExpirePayment { payment } => self.need_payment(*payment, missing),
            Command::Receive { message, .. } => match message {
                Message::Pay(credit) | Message::AskRefund(credit) => self.need_wallet(credit.payee, credit.money.currency(), missing),
                Message::Bounce(credit) | Message::RefundPaid(credit) | Message::RefundRefused(credit) => {
                    self.need_payment(credit.payment.sequence(), missing);
                }
            },
            Command::Delivered { .. } => {}
        }
    }

    /// Adds to `missing` what applying `entry` needs and is not in memory: the accounts and lists that it changes. What was decided
    /// needs no more; replaying a journal onto tables does.
    pub fn missing_to_apply(&mut self, entry: &Entry, missing: &mut Missing) {
        for posting in &entry.postings {
            if let Account::Wallet(user) = posting.account {
                self.need_wallet(user, posting.currency, missing);
            }
        }
        match &entry.body {
            Body::AccountClosed { user, currency } => self.need_wallet(*user, *currency, missing),
            Body::MethodAdded { user, .. } | Body::MethodRemoved { user, .. } => self.need_methods(*user, missing),
            _ => {}
        }
    }

    fn need_user(&mut self, user: UserId, missing: &mut Missing) {
        if !self.users.touch(user) {
            missing.users.push(user);
        }
    }

    fn need_methods(&mut self, user: UserId, missing: &mut Missing) {
        if !self.methods.touch(user) {
            missing.methods.push(user);
        }
    }

    fn need_wallet(&mut self, user: UserId, currency: Currency, missing: &mut Missing) {
        if !self.wallets.touch((user, currency)) {
            missing.wallets.push((user, currency));
        }
    }

    /// The payment and, once it is known, the accounts it concerns.
    fn need_payment(&mut self, sequence: Sequence, missing: &mut Missing) {
        if !self.payments.touch(sequence) {
            missing.payments.push(sequence);
            return;
        }
        if let Some(payment) = self.payments.get(sequence) {
            let (payer, payee, currency, local) = (payment.payer, payment.payee, payment.currency, payment.payee_shard.is_none());
            self.need_wallet(payer, currency, missing);
            if local {
                self.need_wallet(payee, currency, missing);
            }
        }
    }

    /// Takes in what the tables say about `missing`; what they do not know is remembered as absent.
    pub fn load(&mut self, missing: &Missing, records: Records) {
        self.load_system(records.system, records.inbox, records.delivered);
        if self.monitored == Monitored::default() {
            self.monitored = records.monitored;
        }
        if let Some(newest_ms) = records.newest_request_ms {
            self.requests.load_newest(newest_ms);
        }
        for (user, country) in records.users {
            self.users.load(user, Some(country));
        }
        for (key, wallet) in records.wallets {
            self.wallets.load(key, Some(wallet));
        }
        for payment in records.payments {
            self.payments.load(payment.sequence, Some(payment));
        }
        for (id, sequence) in records.requests {
            self.requests.load(id, Some(sequence));
        }
        for (user, zone) in records.claims {
            self.claims.load(user, Some(zone));
        }
        let mut methods = BTreeMap::<UserId, Vec<PaymentMethod>>::new();
        for (user, method) in records.methods {
            methods.entry(user).or_default().push(method);
        }
        for (user, mut methods) in methods {
            methods.sort_unstable();
            self.methods.load(user, Some(methods));
        }
        missing.users.iter().for_each(|user| self.users.load(*user, None));
        missing.wallets.iter().for_each(|key| self.wallets.load(*key, None));
        missing.payments.iter().for_each(|sequence| self.payments.load(*sequence, None));
        missing.requests.iter().for_each(|id| self.requests.load(*id, None));
        missing.claims.iter().for_each(|user| self.claims.load(*user, None));
        missing.methods.iter().for_each(|user| self.methods.load(*user, None));
    }

    fn load_system(
        &mut self,
        system: Vec<((Account, Currency), i64)>,
        inbox: Vec<(ShardRef, Cursor)>,
        delivered: Vec<(ShardRef, Sequence)>,
    ) {
        for (key, balance) in system {
            self.system.entry(key).or_insert(balance);
        }
        for (shard, cursor) in inbox {
            self.inbox.entry(shard).or_insert(cursor);
        }
        for (shard, sequence) in delivered {
            self.delivered.entry(shard).or_insert(sequence);
        }
    }

    /// Lets go of records that the tables have (all entries up to `projected`) and that were not used lately, until at
    /// most about `keep` users and accounts stay, and fewer of what is rarely asked for again. Call it between batches only.
    pub fn evict(&mut self, projected: Sequence, keep: usize) {
        self.users.evict(projected, keep);
        self.wallets.evict(projected, keep);
        // Most are never touched again, and each is as large as several accounts.
        self.payments.evict(projected, keep / 16);
        self.requests.evict(projected, keep / 4);
        self.claims.evict(projected, keep / 4);
        self.methods.evict(projected, keep / 16);
    }

    /// Lets go of the request ids that entries up to `up_to` recorded: nobody is answered from those any more. Call it between
    /// batches only, once the tables have forgotten them.
    pub fn forget_requests(&mut self, up_to: Sequence) {
        self.requests.forget(up_to);
    }

    /// Records in memory, of all kinds.
    pub fn resident(&self) -> usize {
        let of_users = self.users.len() + self.claims.len() + self.methods.len();
        of_users + self.wallets.len() + self.payments.len() + self.requests.len()
    }

    /// Makes the entry's effect. The accounts and lists that it changes must be resident ([`State::missing_to_apply`]) and agree with
    /// it, for it says nothing of the rest of them; all other records it says whole.
    ///
    /// # Errors
    /// The entry does not follow from the state; the state is then not to be used any more.
    pub fn apply(&mut self, position: &Position, entry: &Entry) -> Result<(), Inconsistent> {
        let sequence = position.sequence;
        if let Some(id) = entry.request_id {
            self.requests.put(id, sequence);
        }
        match &entry.body {
            Body::UserEnrolled { user, country, currencies } => {
                self.users.put(*user, *country, sequence);
                self.methods.put(*user, Vec::new(), sequence);
                for currency in currencies {
                    self.wallets.put((*user, *currency), Wallet::default(), sequence);
                }
            }
            Body::UserClaimed { user, zone } => self.claims.put(*user, zone.clone(), sequence),
            Body::AccountOpened { user, currency } => self.wallets.put((*user, *currency), Wallet::default(), sequence),
            Body::AccountClosed { user, currency } => {
                let mut wallet = self.wallet_before(sequence, *user, *currency)?;
                wallet.closed = true;
                self.wallets.put((*user, *currency), wallet, sequence);
            }
            Body::MethodAdded { user, token } => {
                let mut methods = self.methods_before(sequence, *user)?;
                if methods.iter().any(|method| method.token == *token) {
                    return Err(Inconsistent { sequence, what: format!("{user:?} keeps the card already") });
                }
                methods.push(PaymentMethod { added: sequence, added_at: entry.at, token: token.clone() });
                self.methods.put(*user, methods, sequence);
            }
            Body::MethodRemoved { user, method } => {
                let mut methods = self.methods_before(sequence, *user)?;
                let before = methods.len();
                methods.retain(|each| each != method);
                if methods.len() == before {
                    return Err(Inconsistent { sequence, what: format!("{user:?} does not keep the card of entry {}", method.added) });
                }
                self.methods.put(*user, methods, sequence);
            }
            Body::Received { source, at, .. } => self.advance_inbox(source, *at, sequence)?,
            Body::Delivered { to, up_to, read_to } => {
                let delivered = self.delivered.entry(to.clone()).or_default();
                *delivered = (*delivered).max(*up_to);
                self.inbox.entry(to.clone()).or_default().advance(*read_to);
            }
            Body::Card { before, .. } if self.payments.peek(before.sequence).is_some_and(|payment| payment != before.as_ref()) => {
                let what = format!("payment {} is not as the entry found it", before.sequence);
                return Err(Inconsistent { sequence, what });
            }
            _ => {}
        }
        for posting in &entry.postings {
            self.post(sequence, posting)?;
        }
        for (line, user, posting) in entry.lines(sequence) {
            let mut wallet = *self.wallets.get((user, posting.currency)).expect("it was posted to just now");
            wallet.last_line = line;
            self.wallets.put((user, posting.currency), wallet, sequence);
        }
        self.count(sequence, entry)?;
        if let Some(payment) = entry.payment(position) {
            if let Body::PaymentCreated(new) = &entry.body {
                let mut wallet = self.wallet_before(sequence, new.payer, new.money.currency())?;
                wallet.last_payment = sequence;
                self.wallets.put((new.payer, new.money.currency()), wallet, sequence);
            }
            self.payments.put(payment.sequence, payment, sequence);
        }
        Ok(())
    }

    /// The account as it is before the entry.
    fn wallet_before(&self, sequence: Sequence, user: UserId, currency: Currency) -> Result<Wallet, Inconsistent> {
        let wallet = self.wallets.peek((user, currency)).copied();
        wallet.ok_or_else(|| Inconsistent { sequence, what: format!("{user:?} has no account in {currency}, or it was not loaded") })
    }

    /// The user's payment methods as they are before the entry.
    fn methods_before(&mut self, sequence: Sequence, user: UserId) -> Result<Vec<PaymentMethod>, Inconsistent> {
        if !self.methods.touch(user) {
            return Err(Inconsistent { sequence, what: format!("the payment methods of {user:?} were not loaded") });
        }
        Ok(self.methods.get(user).cloned().unwrap_or_default())
    }

    fn advance_inbox(&mut self, source: &ShardRef, to: Cursor, sequence: Sequence) -> Result<(), Inconsistent> {
        let cursor = self.inbox.entry(source.clone()).or_default();
        if to.sequence <= cursor.sequence {
            let what = format!("entry {} of {source} takes effect again, after {}", to.sequence, cursor.sequence);
            return Err(Inconsistent { sequence, what });
        }
        *cursor = to;
        Ok(())
    }

    /// What the entry counts towards the fraud rate, where it says so: entries of before that was counted do not.
    fn count(&mut self, sequence: Sequence, entry: &Entry) -> Result<(), Inconsistent> {
        let (Body::Card { step, payment, .. }, Some(counted)) = (&entry.body, entry.counted()) else { return Ok(()) };
        let expected = self.monitored.counting(entry.at, *step, payment);
        if expected.as_ref() != Some(counted) {
            return Err(Inconsistent { sequence, what: format!("it counts {counted:?} where {expected:?} is to be counted") });
        }
        self.monitored.note(entry.at, counted);
        Ok(())
    }

    fn post(&mut self, sequence: Sequence, posting: &Posting) -> Result<(), Inconsistent> {
        let mismatch = |before: i64| Inconsistent {
            sequence,
            what: format!(
                "{:?} in {}: {before} and {} do not make {}",
                posting.account, posting.currency, posting.amount, posting.balance_after
            ),
        };
        if let Account::Wallet(user) = posting.account {
            let mut wallet = self.wallet_before(sequence, user, posting.currency)?;
            if wallet.balance.checked_add(posting.amount) != Some(posting.balance_after) || wallet.last_line != posting.previous_line {
                return Err(mismatch(wallet.balance));
            }
            wallet.balance = posting.balance_after;
            wallet.held = posting.held_after;
            wallet.exempted = posting.exempted_after;
            self.wallets.put((user, posting.currency), wallet, sequence);
        } else {
            let balance = self.system.entry((posting.account.clone(), posting.currency)).or_default();
            if balance.checked_add(posting.amount) != Some(posting.balance_after) {
                return Err(mismatch(*balance));
            }
            *balance = posting.balance_after;
        }
        Ok(())
    }

    /// All that is in memory, in order: for comparing states.
    pub fn records(&self) -> Records {
        fn sorted<K: Ord + Clone, V: Clone>(items: impl Iterator<Item = (K, V)>) -> Vec<(K, V)> {
            items.collect::<BTreeMap<K, V>>().into_iter().collect()
        }
        Records {
            users: sorted(self.users.iter().map(|(key, value)| (*key, *value))),
            wallets: sorted(self.wallets.iter().map(|(key, value)| (*key, *value))),
            payments: sorted(self.payments.iter().map(|(key, value)| (*key, value.clone())))
                .into_iter()
                .map(|(_, payment)| payment)
                .collect(),
            requests: sorted(self.requests.iter().map(|(key, value)| (*key, *value))),
            newest_request_ms: None,
            claims: sorted(self.claims.iter().map(|(key, value)| (*key, value.clone()))),
            methods: sorted(self.methods.iter().map(|(key, value)| (*key, value.clone())))
                .into_iter()
                .flat_map(|(user, methods)| methods.into_iter().map(move |method| (user, method)))
                .collect(),
            system: sorted(self.system.iter().map(|(key, value)| (key.clone(), *value))),
            inbox: sorted(self.inbox.iter().map(|(key, value)| (key.clone(), *value))),
            delivered: sorted(self.delivered.iter().map(|(key, value)| (key.clone(), *value))),
            monitored: self.monitored.clone(),
        }
    }
}
