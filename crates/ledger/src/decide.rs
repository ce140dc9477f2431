//! What a command means against the state as it is.

mod again;
mod card;
mod receive;

pub use again::differing_field;

use paymesh_types::{AMOUNT_MINOR_MAX, Currency, Epoch, Position, RequestId, Sequence, ShardRef, Timestamp, UserId, VaultToken, ZoneName};
use smallvec::{SmallVec, smallvec};

use crate::{
    Account, Body, Command, CreatePayment, Entry, Exempted, LineId, NewPayment, OperationKind, PAYMENT_METHODS_MAX, Payment, PaymentMethod,
    Phase, Posting, Reason, Request, State, Wallet,
};

/// How long a hold lasts at most, in seconds: 31 days, the longest that card schemes let an authorization stand.
pub const HOLD_SECONDS_MAX: u32 = 31 * 24 * 3600;

/// All that users of one shard ever send to another, in minor units of one currency, at most: half of what its clearing account
/// holds. All of it can come back, as returns or as refunds, and whoever receives never has to refuse for want of room.
const CLEARING_MINOR_MAX: i64 = i64::MAX / 2;

/// What a decision depends on besides the state.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The time that the leader stamps on the entry.
    pub now: Timestamp,
    /// The leader's term.
    pub epoch: Epoch,
    /// The number that the entry will have.
    pub next: Sequence,
}

/// What a command comes to, where it is not rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A new fact, to be committed and applied.
    New(Box<Entry>),
    /// The request was decided before, by the entry of this number: see [`differing_field`].
    Recorded(Sequence),
}

/// Why a command cannot be carried out. Nothing is recorded, and the request id stays free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The user is enrolled already, by another request.
    #[error("user {user} is enrolled already")]
    UserExists {
        /// The user.
        user: UserId,
    },
    /// No such user has a home here.
    #[error("no user {user} is enrolled")]
    UserNotFound {
        /// The user.
        user: UserId,
    },
    /// The id belongs to another zone.
    #[error("the id {user} belongs to zone {zone}")]
    UserInAnotherZone {
        /// The user.
        user: UserId,
        /// Its zone.
        zone: ZoneName,
    },
    /// The account is open already, or was and is closed.
    #[error("user {user} has an account in {currency} already")]
    AccountExists {
        /// The owner.
        user: UserId,
        /// The currency.
        currency: Currency,
    },
    /// There is no such account.
    #[error("user {user} has no account in {currency}")]
    AccountNotFound {
        /// The owner.
        user: UserId,
        /// The currency.
        currency: Currency,
    },
    /// The account is closed.
    #[error("the account of user {user} in {currency} is closed")]
    AccountClosed {
        /// The owner.
        user: UserId,
        /// The currency.
        currency: Currency,
    },
    /// The account holds money, or holds stand on it.
    #[error("the account of user {user} in {currency} is not empty")]
    AccountNotEmpty {
        /// The owner.
        user: UserId,
        /// The currency.
        currency: Currency,
    },
    /// The user keeps the card already.
    #[error("the card is a payment method of user {user} already")]
    MethodExists {
        /// The user.
        user: UserId,
    },
    /// The user does not keep the card.
    #[error("the card is no payment method of user {user}")]
    MethodNotFound {
        /// The user.
        user: UserId,
    },
    /// The user has as many payment methods as may be.
    #[error("user {user} has {} payment methods, as many as may be", crate::PAYMENT_METHODS_MAX)]
    TooManyMethods {
        /// The user.
        user: UserId,
    },
    /// A balance would pass its bound.
    #[error("the balance would pass its bound of {AMOUNT_MINOR_MAX} minor units")]
    OutOfRange,
    /// All that was ever sent to the shard in the currency would pass its bound.
    #[error("what was ever sent to shard {to} in {currency} would pass its bound of {CLEARING_MINOR_MAX} minor units")]
    ClearingFull {
        /// Where it would go.
        to: ShardRef,
        /// In what.
        currency: Currency,
    },
    /// There is no such payment.
    #[error("there is no payment of this id")]
    PaymentNotFound,
    /// The payment is not held (any more).
    #[error("the payment is {}, not authorized", phase_name(*.phase))]
    NotAuthorized {
        /// Where it stands.
        phase: Phase,
    },
    /// The payment's hold, or its cardholder's time, has run out.
    #[error("the payment's time has run out")]
    HoldExpired,
    /// The payment does not wait for its cardholder.
    #[error("the payment is {}: it waits for no cardholder", phase_name(*.phase))]
    NoActionRequired {
        /// Where it stands.
        phase: Phase,
    },
    /// The payment sets up no mandate, or is another payer's, or there is none of this id.
    #[error("the payer has no mandate of this id")]
    MandateNotFound,
    /// The mandate's cardholder was not authenticated, or not yet.
    #[error("the mandate's cardholder was not authenticated, or its payment is not authorized yet")]
    MandateNotAuthenticated,
    /// The mandate was ended by its payer.
    #[error("the mandate is cancelled")]
    MandateCancelled,
    /// The payment that set the mandate up did not take place.
    #[error("the payment that set the mandate up did not take place")]
    MandateEnded,
    /// The payment is not as its mandate has it.
    #[error("the mandate is for another {field}")]
    MandateDiffers {
        /// The field that differs, as the contract names it.
        field: &'static str,
    },
    /// The acquirer is being asked for something else of the payment.
    #[error("the payment's acquirer is being asked for something else")]
    OperationInProgress,
    /// The payment was refunded as often as one may be.
    #[error("the payment was refunded {} times, as often as one by card may be", crate::REFUNDS_MAX)]
    TooManyRefunds,
    /// Nothing of the payment was taken from a card, so that it was no fraud.
    #[error("nothing of the payment was taken from a card")]
    NothingCaptured,
    /// The payment was reported as fraud before.
    #[error("the payment was reported as fraud before")]
    FraudReported,
    /// The payment cannot be refunded.
    #[error("the payment cannot be refunded: {why}")]
    NotRefundable {
        /// Why.
        why: &'static str,
    },
    /// More than was authorized.
    #[error("{asked} is more than the {authorized} minor units that were authorized")]
    ExceedsAuthorization {
        /// Asked for, in minor units.
        asked: i64,
        /// Authorized, in minor units.
        authorized: i64,
    },
    /// More than is left of what was captured.
    #[error("{asked} is more than the {left} minor units that are left to refund")]
    ExceedsCapture {
        /// Asked for, in minor units.
        asked: i64,
        /// Left, in minor units.
        left: i64,
    },
    /// The payee, of the same shard, cannot pay the refund.
    #[error("the payee has less than the refund")]
    PayeeInsufficientFunds,
    /// The request id was used for something else.
    #[error("the request id was used before with another {field}")]
    RequestIdReused {
        /// The field that differs, as the contract names it; `request` when it was another kind of request.
        field: &'static str,
    },
    /// The hold has not run out yet.
    #[error("the hold has not run out")]
    NotExpiredYet,
    /// The other shard's entry took effect before.
    #[error("entry {sequence} took effect before")]
    AlreadyReceived {
        /// The entry.
        sequence: Sequence,
    },
    /// Nothing new was delivered or read.
    #[error("nothing new")]
    NothingNew,
    /// Another shard says something that its own books cannot have led to.
    #[error("what the other shard sent does not fit: {what}")]
    Implausible {
        /// What.
        what: &'static str,
    },
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Authorized => "authorized",
        Phase::Captured => "captured",
        Phase::Returned => "returned",
        Phase::Declined => "declined",
        Phase::Voided => "voided",
        Phase::Expired => "expired",
        Phase::Pending => "pending",
        Phase::ActionRequired => "waiting for its cardholder",
    }
}

/// Says what `request` means against `state`. Every record that it concerns must be resident ([`State::missing`]).
///
/// # Errors
/// A [`Rejection`]: nothing may change.
pub fn decide(state: &State, context: Context, request: &Request) -> Result<Decision, Rejection> {
    if let Some(id) = request.id
        && let Some(sequence) = state.requests.get(id)
    {
        return Ok(Decision::Recorded(*sequence));
    }
    let (body, postings, reference) = Decider { state, context }.body(&request.command)?;
    let entry = Entry { at: context.now, request_id: request.id, body, postings, reference };
    debug_assert_sums_to_zero(&entry);
    Ok(Decision::New(Box::new(entry)))
}

fn debug_assert_sums_to_zero(entry: &Entry) {
    debug_assert_eq!(entry.postings.iter().map(|posting| i128::from(posting.amount)).sum::<i128>(), 0, "{entry:?}");
}

type Outcome = Result<(Body, SmallVec<[Posting; 2]>, String), Rejection>;

struct Decider<'a> {
    state: &'a State,
    context: Context,
}

impl Decider<'_> {
    fn body(&self, command: &Command) -> Outcome {
        match command {
            Command::EnrollUser { user, country, currencies } => {
                if self.state.users.get(*user).is_some() {
                    return Err(Rejection::UserExists { user: *user });
                }
                plain(Body::UserEnrolled { user: *user, country: *country, currencies: currencies.clone() })
            }
            Command::ClaimUser { user, zone } => match self.state.claims.get(*user) {
                None => plain(Body::UserClaimed { user: *user, zone: zone.clone() }),
                Some(held) if held == zone => Err(Rejection::NothingNew),
                Some(held) => Err(Rejection::UserInAnotherZone { user: *user, zone: held.clone() }),
            },
            Command::OpenAccount { user, currency } => {
                if self.state.users.get(*user).is_none() {
                    return Err(Rejection::UserNotFound { user: *user });
                }
                if self.state.wallets.get((*user, *currency)).is_some() {
                    return Err(Rejection::AccountExists { user: *user, currency: *currency });
                }
                plain(Body::AccountOpened { user: *user, currency: *currency })
            }
            Command::CloseAccount { user, currency } => {
                let wallet = self.wallet(*user, *currency)?;
                if wallet.closed {
                    return Err(Rejection::AccountClosed { user: *user, currency: *currency });
                }
                if wallet.balance != 0 || wallet.held != 0 {
                    return Err(Rejection::AccountNotEmpty { user: *user, currency: *currency });
                }
                plain(Body::AccountClosed { user: *user, currency: *currency })
            }
            Command::AddMethod { user, token } => self.add_method(*user, token),
            Command::RemoveMethod { user, token } => {
                let method = self.methods(*user).iter().find(|method| method.token == *token);
                let method = method.ok_or(Rejection::MethodNotFound { user: *user })?.clone();
                plain(Body::MethodRemoved { user: *user, method })
            }
            Command::Deposit { user, money, reference } => {
                let wallet = self.wallet(*user, money.currency())?;
                if wallet.closed {
                    return Err(Rejection::AccountClosed { user: *user, currency: money.currency() });
                }
                let postings = smallvec![
                    self.system(Account::External, money.currency(), -money.minor())?,
                    credit(*user, money.currency(), wallet, money.minor(), Bound::Kept)?,
                ];
                Ok((Body::Deposited { user: *user, money: *money }, postings, reference.clone()))
            }
            Command::Withdraw { user, money, reference } => {
                let wallet = self.wallet(*user, money.currency())?;
                if wallet.available() < money.minor() {
                    let body = Body::Withdrawn { user: *user, money: *money, declined: Some(Reason::InsufficientFunds) };
                    return Ok((body, smallvec![unmoved(*user, money.currency(), wallet)], reference.clone()));
                }
                let postings = smallvec![
                    debit(*user, money.currency(), wallet, money.minor(), 0),
                    self.system(Account::External, money.currency(), money.minor())?,
                ];
                Ok((Body::Withdrawn { user: *user, money: *money, declined: None }, postings, reference.clone()))
            }
            Command::CreatePayment(create) => self.create_payment(create),
            Command::CapturePayment { payment, amount } => {
                let payment = self.payment(payment.epoch(), payment.sequence())?;
                self.capture(payment, *amount)
            }
            Command::ConfirmPayment { payment } => self.confirm(self.payment(payment.epoch(), payment.sequence())?),
            Command::Settle { payment, operation, outcome } => {
                self.settle(self.payment(payment.epoch(), payment.sequence())?, *operation, outcome)
            }
            Command::CancelMandate { payment } => self.cancel_mandate(self.payment(payment.epoch(), payment.sequence())?),
            Command::VoidPayment { payment } => {
                let payment = self.payment(payment.epoch(), payment.sequence())?;
                if payment.card.is_some() {
                    return self.ask_release(payment, OperationKind::Void);
                }
                self.authorized(payment)?;
                let (payment, postings) = self.release(payment, Phase::Voided);
                Ok((Body::PaymentVoided { payment }, postings, String::new()))
            }
            Command::RefundPayment { payment, amount } => {
                let payment = self.payment(payment.epoch(), payment.sequence())?;
                self.refund(payment, *amount)
            }
            Command::ReportFraud { payment } => self.report_fraud(self.payment(payment.epoch(), payment.sequence())?),
            Command::ExpirePayment { payment } => {
                let payment = self.state.payments.get(*payment).ok_or(Rejection::PaymentNotFound)?;
                if payment.card.is_none() {
                    self.authorized(payment)?;
                }
                if payment.expires_at.is_none_or(|expires_at| expires_at > self.context.now) {
                    return Err(Rejection::NotExpiredYet);
                }
                if payment.card.is_some() {
                    return self.ask_release(payment, OperationKind::Expire);
                }
                let (payment, postings) = self.release(payment, Phase::Expired);
                Ok((Body::PaymentExpired { payment }, postings, String::new()))
            }
            Command::Receive { source, at, message } => self.receive(source, *at, message),
            Command::Delivered { to, up_to, read_to } => {
                if *up_to >= self.context.next {
                    return Err(Rejection::Implausible {
                        what: "an acknowledgement of an entry that is not there: this journal has lost its end",
                    });
                }
                if *up_to <= self.state.delivered(to) && read_to.sequence <= self.state.inbox(to) {
                    return Err(Rejection::NothingNew);
                }
                plain(Body::Delivered { to: to.clone(), up_to: *up_to, read_to: *read_to })
            }
        }
    }

    fn add_method(&self, user: UserId, token: &VaultToken) -> Outcome {
        if self.state.users.get(user).is_none() {
            return Err(Rejection::UserNotFound { user });
        }
        let methods = self.methods(user);
        if methods.iter().any(|method| method.token == *token) {
            return Err(Rejection::MethodExists { user });
        }
        if methods.len() >= PAYMENT_METHODS_MAX {
            return Err(Rejection::TooManyMethods { user });
        }
        plain(Body::MethodAdded { user, token: token.clone() })
    }

    fn methods(&self, user: UserId) -> &[PaymentMethod] {
        self.state.methods.get(user).map_or(&[], Vec::as_slice)
    }

    fn wallet(&self, user: UserId, currency: Currency) -> Result<&Wallet, Rejection> {
        self.state.wallets.get((user, currency)).ok_or(Rejection::AccountNotFound { user, currency })
    }

    fn payment(&self, epoch: Epoch, sequence: Sequence) -> Result<&Payment, Rejection> {
        self.state.payments.get(sequence).filter(|payment| payment.epoch == epoch).ok_or(Rejection::PaymentNotFound)
    }

    fn system(&self, account: Account, currency: Currency, amount: i64) -> Result<Posting, Rejection> {
        let key = (account, currency);
        let balance = self.state.system.get(&key).copied().unwrap_or(0);
        let balance_after = balance.checked_add(amount).ok_or(Rejection::OutOfRange)?;
        Ok(Posting {
            account: key.0,
            currency,
            amount,
            balance_after,
            held_after: 0,
            previous_line: LineId::default(),
            exempted_after: Exempted::default(),
        })
    }

    /// Money that a user sends to another shard, for as long as there is room for all of it to come back.
    fn send(&self, to: &ShardRef, currency: Currency, amount: i64) -> Result<Posting, Rejection> {
        let sent = self.system(Account::Sent(to.clone()), currency, amount)?;
        if sent.balance_after > CLEARING_MINOR_MAX {
            return Err(Rejection::ClearingFull { to: to.clone(), currency });
        }
        Ok(sent)
    }

    fn create_payment(&self, create: &CreatePayment) -> Outcome {
        if let Some(card) = &create.card {
            return self.create_by_card(create, card);
        }
        let currency = create.money.currency();
        let amount = create.money.minor();
        let wallet = self.wallet(create.payer, currency)?;
        let new = |declined| {
            Body::PaymentCreated(NewPayment {
                payer: create.payer,
                payee: create.payee,
                payee_shard: create.payee_shard.clone(),
                money: create.money,
                hold_s: create.hold_s,
                declined,
                previous: wallet.last_payment,
                card: None,
            })
        };
        let declined = if wallet.closed {
            Some(Reason::AccountClosed)
        } else if wallet.available() < amount {
            Some(Reason::InsufficientFunds)
        } else if create.payee_shard.is_none() {
            self.cannot_credit(create.payee, currency, amount)
        } else {
            None
        };
        if declined.is_some() {
            return Ok((new(declined), smallvec![unmoved(create.payer, currency, wallet)], create.reference.clone()));
        }
        let postings = if create.hold_s > 0 {
            let mut hold = unmoved(create.payer, currency, wallet);
            hold.held_after += amount;
            smallvec![hold]
        } else {
            self.pay(create.payer, create.payee, create.payee_shard.as_ref(), currency, amount, 0)?
        };
        Ok((new(None), postings, create.reference.clone()))
    }

    /// Why the payee of this shard cannot be credited now.
    fn cannot_credit(&self, payee: UserId, currency: Currency, amount: i64) -> Option<Reason> {
        match self.state.wallets.get((payee, currency)) {
            None => Some(Reason::PayeeAccountNotFound),
            Some(wallet) if wallet.closed => Some(Reason::PayeeAccountClosed),
            Some(wallet) if wallet.balance > AMOUNT_MINOR_MAX - amount => Some(Reason::PayeeBalanceLimit),
            Some(_) => None,
        }
    }

    /// Out of the payer's account, `released` of it out of its hold, and into the payee's or on its way there.
    fn pay(
        &self,
        payer: UserId,
        payee: UserId,
        payee_shard: Option<&ShardRef>,
        currency: Currency,
        amount: i64,
        released: i64,
    ) -> Result<SmallVec<[Posting; 2]>, Rejection> {
        let from = debit(payer, currency, self.wallet(payer, currency)?, amount, released);
        let to = match payee_shard {
            None => credit(payee, currency, self.wallet(payee, currency)?, amount, Bound::Kept)?,
            Some(shard) => self.send(shard, currency, amount)?,
        };
        Ok(smallvec![from, to])
    }

    fn authorized(&self, payment: &Payment) -> Result<(), Rejection> {
        if payment.phase == Phase::Authorized { Ok(()) } else { Err(Rejection::NotAuthorized { phase: payment.phase }) }
    }

    fn capture(&self, payment: &Payment, asked: Option<i64>) -> Outcome {
        self.authorized(payment)?;
        if payment.expires_at.is_some_and(|expires_at| expires_at <= self.context.now) {
            return Err(Rejection::HoldExpired);
        }
        let amount = asked.unwrap_or(payment.amount);
        if amount > payment.amount || amount <= 0 {
            return Err(Rejection::ExceedsAuthorization { asked: amount, authorized: payment.amount });
        }
        if payment.payee_shard.is_none()
            && let Some(reason) = self.cannot_credit(payment.payee, payment.currency, amount)
        {
            // The hold stands: the caller may void it, or try again when the payee can be credited.
            return Err(match reason {
                Reason::PayeeBalanceLimit => Rejection::OutOfRange,
                Reason::PayeeAccountClosed => Rejection::AccountClosed { user: payment.payee, currency: payment.currency },
                _ => Rejection::AccountNotFound { user: payment.payee, currency: payment.currency },
            });
        }
        if payment.card.is_some() {
            return self.ask_capture(payment, amount, asked);
        }
        let postings = self.pay(payment.payer, payment.payee, payment.payee_shard.as_ref(), payment.currency, amount, payment.amount)?;
        let sent = if payment.payee_shard.is_some() { self.context.next } else { Sequence(0) };
        let payment = Payment { phase: Phase::Captured, captured: amount, sent, ..payment.clone() };
        Ok((Body::PaymentCaptured { payment, asked }, postings, String::new()))
    }

    fn release(&self, payment: &Payment, phase: Phase) -> (Payment, SmallVec<[Posting; 2]>) {
        let wallet = self.wallet(payment.payer, payment.currency).expect("a hold stands on an account that cannot go away");
        let mut posting = unmoved(payment.payer, payment.currency, wallet);
        posting.held_after -= payment.amount;
        assert!(posting.held_after >= 0, "a hold is part of what its account holds");
        (Payment { phase, ..payment.clone() }, smallvec![posting])
    }

    fn refund(&self, payment: &Payment, asked: Option<i64>) -> Outcome {
        if payment.phase != Phase::Captured {
            return Err(Rejection::NotRefundable { why: phase_name(payment.phase) });
        }
        let left = payment.captured - payment.refunded;
        let amount = asked.unwrap_or(left);
        if amount > left || amount <= 0 {
            return Err(Rejection::ExceedsCapture { asked: amount, left });
        }
        // Until the payee is known to have the money, it may still come back by itself.
        if payment.payee_shard.as_ref().is_some_and(|shard| self.state.delivered(shard) < payment.sent) {
            return Err(Rejection::NotRefundable { why: "still in transit" });
        }
        if payment.card.is_some() {
            return self.refund_by_card(payment, amount, asked);
        }
        let refunded = Payment { refunded: payment.refunded + amount, ..payment.clone() };
        match &payment.payee_shard {
            None => {
                let payee = self.wallet(payment.payee, payment.currency)?;
                if payee.available() < amount {
                    return Err(Rejection::PayeeInsufficientFunds);
                }
                let payer = self.wallet(payment.payer, payment.currency)?;
                let postings = smallvec![
                    debit(payment.payee, payment.currency, payee, amount, 0),
                    credit(payment.payer, payment.currency, payer, amount, Bound::Waived)?,
                ];
                Ok((Body::RefundCompleted { payment: refunded, amount, asked }, postings, String::new()))
            }
            Some(_) => Ok((Body::RefundRequested { payment: refunded, amount, asked }, smallvec![], String::new())),
        }
    }
}

fn plain(body: Body) -> Outcome {
    Ok((body, SmallVec::new(), String::new()))
}

/// Whether a credit must keep within the bound of balances.
#[derive(PartialEq)]
enum Bound {
    Kept,
    /// For money that comes back to where it was: it must not be lost for a bound's sake.
    Waived,
}

fn credit(user: UserId, currency: Currency, wallet: &Wallet, amount: i64, bound: Bound) -> Result<Posting, Rejection> {
    let balance_after = wallet.balance.checked_add(amount).ok_or(Rejection::OutOfRange)?;
    if bound == Bound::Kept && balance_after > AMOUNT_MINOR_MAX {
        return Err(Rejection::OutOfRange);
    }
    Ok(Posting { amount, balance_after, ..unmoved(user, currency, wallet) })
}

/// Takes `amount` out, and `released` out of what is held.
fn debit(user: UserId, currency: Currency, wallet: &Wallet, amount: i64, released: i64) -> Posting {
    let posting = Posting {
        amount: -amount,
        balance_after: wallet.balance - amount,
        held_after: wallet.held - released,
        ..unmoved(user, currency, wallet)
    };
    assert!(posting.held_after >= 0 && posting.balance_after >= posting.held_after, "no more goes out than is available");
    posting
}

/// The account as it is: the start of a posting that changes only the hold, or nothing.
fn unmoved(user: UserId, currency: Currency, wallet: &Wallet) -> Posting {
    Posting {
        account: Account::Wallet(user),
        currency,
        amount: 0,
        balance_after: wallet.balance,
        held_after: wallet.held,
        previous_line: wallet.last_line,
        exempted_after: wallet.exempted,
    }
}

/// The position that an entry decided in this context will have.
impl Context {
    /// The position, `shard` being the state's.
    pub fn position(&self, shard: &ShardRef) -> Position {
        Position { shard: shard.clone(), epoch: self.epoch, sequence: self.next }
    }
}

/// Where a request id was used before, for tests and for the shard.
impl State {
    /// The entry that the request led to, where it is in memory.
    pub fn recorded(&self, id: RequestId) -> Option<Sequence> {
        self.requests.peek(id).copied()
    }
}

#[cfg(test)]
mod tests;
