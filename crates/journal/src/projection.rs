//! What entries change in the tables: absolute values, so that projecting needs no state, and coalesced, so that an account
//! touched a thousand times in a batch is written once.

use std::collections::BTreeMap;

use paymesh_ledger::{Account, Body, Credit, Effect, Entry, Exempted, LineId, Monitored, Payment, PaymentMethod};
use paymesh_types::{Country, Currency, Cursor, PaymentId, Position, RequestId, Sequence, ShardRef, Timestamp, UserId, ZoneName};
use rustc_hash::FxHashMap;

use crate::Committed;

/// What a run of entries changed.
#[derive(Debug, Default, Clone)]
pub struct Projection {
    /// The entry before the first.
    pub after: Sequence,
    /// The last entry.
    pub up_to: Sequence,
    /// New users.
    pub users: Vec<(UserId, Country)>,
    /// New claims.
    pub claims: Vec<(UserId, ZoneName)>,
    /// New accounts.
    pub opened: Vec<(UserId, Currency)>,
    /// Accounts that were posted to, as they are after it.
    pub wallets: FxHashMap<(UserId, Currency), WalletRow>,
    /// Accounts that were closed.
    pub closed: Vec<(UserId, Currency)>,
    /// Payment methods by the entries that added them: those that are new, and `None` for older ones that were removed.
    pub methods: BTreeMap<(UserId, Sequence), Option<PaymentMethod>>,
    /// New statement lines.
    pub lines: Vec<Line>,
    /// New payments, as they are after it.
    pub created: Vec<PaymentRow>,
    /// Older payments that changed, as they are after it.
    pub changed: BTreeMap<Sequence, Payment>,
    /// New request ids.
    pub requests: Vec<(Sequence, RequestId, Timestamp)>,
    /// The outside world's and the clearing accounts that were posted to, as they are after it.
    pub system: FxHashMap<(Account, Currency), i64>,
    /// Cursors on other shards' journals that moved.
    pub inbox: FxHashMap<ShardRef, Cursor>,
    /// How far other shards took in what this one sent, where that moved.
    pub delivered: FxHashMap<ShardRef, Sequence>,
    /// What payments by card come to, of the days that changed.
    pub monitored: Monitored,
    /// The latest instant in a new request id of version 7, in milliseconds since 1970 UTC; 0 when there is none.
    pub newest_request_ms: u64,
}

/// An account after its last posting of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalletRow {
    /// What is booked, in minor units.
    pub balance: i64,
    /// What is held, in minor units.
    pub held: i64,
    /// The newest line.
    pub last_line: LineId,
    /// The newest payment, where the batch holds one; 0 leaves it as it was.
    pub last_payment: Sequence,
    /// What the owner paid by exempted payments since they were last authenticated.
    pub exempted: Exempted,
}

/// A line of an account's statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// Its name.
    pub id: LineId,
    /// The owner.
    pub user: UserId,
    /// The currency.
    pub currency: Currency,
    /// What it was.
    pub kind: LineKind,
    /// Minor units; positive came in.
    pub amount: i64,
    /// The booked balance after it, in minor units.
    pub balance: i64,
    /// When.
    pub at: Timestamp,
    /// The payment that it belongs to.
    pub payment: Option<PaymentId>,
    /// The other user of the payment.
    pub counterparty: Option<UserId>,
    /// The caller's own words.
    pub reference: String,
    /// The account's line before it.
    pub previous: LineId,
}

/// What a statement line was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LineKind {
    /// Money from outside.
    Deposit = 1,
    /// Money to outside.
    Withdrawal = 2,
    /// A payment to another user.
    PaymentSent = 3,
    /// A payment from another user.
    PaymentReceived = 4,
    /// A payment that came back.
    PaymentReturned = 5,
    /// A refund given.
    RefundSent = 6,
    /// A refund got.
    RefundReceived = 7,
}

impl LineKind {
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        [
            Self::Deposit,
            Self::Withdrawal,
            Self::PaymentSent,
            Self::PaymentReceived,
            Self::PaymentReturned,
            Self::RefundSent,
            Self::RefundReceived,
        ]
        .into_iter()
        .find(|kind| *kind as i64 == number)
    }
}

/// A payment in the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRow {
    /// The payment.
    pub payment: Payment,
    /// The payer's payment before it in the currency; 0 when there is none.
    pub previous: Sequence,
    /// The caller's own words.
    pub reference: String,
    /// How far the payee's shard had taken in what this one sent: 0 where the payee is of this shard. Tables fill it in when
    /// they are read.
    pub delivered: Sequence,
}

impl Projection {
    /// What `entries` changed, all of one shard, in order and without gaps.
    ///
    /// # Panics
    /// When there are none, or there is a gap.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Committed>) -> Self {
        let mut projection = Self::default();
        // Where this batch's own payments stand in `created`.
        let mut own = FxHashMap::<Sequence, usize>::default();
        for (position, entry) in entries {
            if projection.up_to == Sequence(0) {
                projection.after = Sequence(position.sequence.0 - 1);
                projection.up_to = projection.after;
            }
            assert_eq!(position.sequence, projection.up_to.next(), "entries are projected without gaps");
            projection.up_to = position.sequence;
            projection.add(position, entry, &mut own);
        }
        assert!(projection.up_to > Sequence(0), "a projection is of at least one entry");
        projection
    }

    fn add(&mut self, position: &Position, entry: &Entry, own: &mut FxHashMap<Sequence, usize>) {
        let sequence = position.sequence;
        if let Some(id) = entry.request_id {
            self.requests.push((sequence, id, entry.at));
            self.newest_request_ms = self.newest_request_ms.max(id.named_at_ms().unwrap_or(0));
        }
        match &entry.body {
            Body::UserEnrolled { user, country, currencies } => {
                self.users.push((*user, *country));
                self.opened.extend(currencies.iter().map(|currency| (*user, *currency)));
            }
            Body::UserClaimed { user, zone } => self.claims.push((*user, zone.clone())),
            Body::AccountOpened { user, currency } => self.opened.push((*user, *currency)),
            Body::AccountClosed { user, currency } => self.closed.push((*user, *currency)),
            Body::MethodAdded { user, token } => {
                let method = PaymentMethod { added: sequence, added_at: entry.at, token: token.clone() };
                self.methods.insert((*user, sequence), Some(method));
            }
            Body::MethodRemoved { user, method } => {
                let key = (*user, method.added);
                // One of this batch was never there.
                let new = self.methods.remove(&key).is_some();
                self.methods.extend((!new).then_some((key, None)));
            }
            Body::Received { source, at, .. } => {
                self.inbox.insert(source.clone(), *at);
            }
            Body::Delivered { to, up_to, read_to } => {
                let delivered = self.delivered.entry(to.clone()).or_default();
                *delivered = (*delivered).max(*up_to);
                self.inbox.entry(to.clone()).or_default().advance(*read_to);
            }
            _ => {}
        }
        if let Some(counted) = entry.counted() {
            self.monitored.note(entry.at, counted);
        }
        for posting in &entry.postings {
            let Account::Wallet(user) = posting.account else {
                self.system.insert((posting.account.clone(), posting.currency), posting.balance_after);
                continue;
            };
            let row = self.wallets.entry((user, posting.currency)).or_default();
            row.balance = posting.balance_after;
            row.held = posting.held_after;
            row.exempted = posting.exempted_after;
            if posting.amount == 0 {
                row.last_line = posting.previous_line;
            }
        }
        for (id, user, posting) in entry.lines(sequence) {
            self.wallets.entry((user, posting.currency)).or_default().last_line = id;
            let (kind, payment, counterparty) = describe(position, entry, user);
            self.lines.push(Line {
                id,
                user,
                currency: posting.currency,
                kind,
                amount: posting.amount,
                balance: posting.balance_after,
                at: entry.at,
                payment,
                counterparty,
                // The payer's words are the payer's: the payee does not get them.
                reference: if posting.amount < 0 || kind == LineKind::Deposit { entry.reference.clone() } else { String::new() },
                previous: posting.previous_line,
            });
        }
        let Some(payment) = entry.payment(position) else { return };
        if let Body::PaymentCreated(new) = &entry.body {
            self.wallets.entry((new.payer, new.money.currency())).or_default().last_payment = sequence;
            own.insert(sequence, self.created.len());
            self.created.push(PaymentRow { payment, previous: new.previous, reference: entry.reference.clone(), delivered: Sequence(0) });
        } else if let Some(index) = own.get(&payment.sequence) {
            self.created[*index].payment = payment;
        } else {
            self.changed.insert(payment.sequence, payment);
        }
    }
}

/// What a line of `user`'s statement was.
fn describe(position: &Position, entry: &Entry, user: UserId) -> (LineKind, Option<PaymentId>, Option<UserId>) {
    let of_payment = |payment: &Payment, sent: LineKind, received: LineKind| {
        let id = payment.id(&position.shard);
        if payment.payer == user { (sent, Some(id), Some(payment.payee)) } else { (received, Some(id), Some(payment.payer)) }
    };
    let of_credit = |credit: &Credit, kind| (kind, Some(credit.payment.clone()), Some(credit.payer));
    match &entry.body {
        Body::Deposited { .. } => (LineKind::Deposit, None, None),
        Body::PaymentCreated(new) => {
            let id = Some(PaymentId::from(position.clone()));
            if new.payer == user { (LineKind::PaymentSent, id, Some(new.payee)) } else { (LineKind::PaymentReceived, id, Some(new.payer)) }
        }
        Body::PaymentCaptured { payment, .. } => of_payment(payment, LineKind::PaymentSent, LineKind::PaymentReceived),
        Body::RefundCompleted { payment, .. } => of_payment(payment, LineKind::RefundReceived, LineKind::RefundSent),
        Body::Received { effect, .. } => match effect {
            Effect::Credited(credit) => of_credit(credit, LineKind::PaymentReceived),
            Effect::RefundPaid(credit) => of_credit(credit, LineKind::RefundSent),
            Effect::PaymentReturned(payment) => of_payment(payment, LineKind::PaymentReturned, LineKind::PaymentReturned),
            Effect::RefundReceived { payment, .. } => of_payment(payment, LineKind::RefundReceived, LineKind::RefundReceived),
            // These post to no wallet; a journal in which they do fails the audit.
            Effect::Bounced(credit) | Effect::RefundRefused(credit) => of_credit(credit, LineKind::PaymentReturned),
            Effect::RefundFailed { payment, .. } => of_payment(payment, LineKind::RefundReceived, LineKind::RefundReceived),
        },
        _ => (LineKind::Withdrawal, None, None),
    }
}
