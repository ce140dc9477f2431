//! What became a fact.

use paymesh_types::{
    Country, Currency, Cursor, GatewayName, Money, PaymentId, Position, RequestId, Sequence, ShardRef, Timestamp, UserId, VaultToken,
    ZoneName,
};
use smallvec::SmallVec;

use crate::{Authentication, CardStep, Charge, Counted, Exempted, MandateKind, MandateUse, Message, Payment, PaymentMethod, Risk, sca};

/// A fact in a shard's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was decided. Never decreases within a journal.
    pub at: Timestamp,
    /// The request that led to it.
    pub request_id: Option<RequestId>,
    /// What happened.
    pub body: Body,
    /// The movements. They sum to zero in each currency.
    pub postings: SmallVec<[Posting; 2]>,
    /// The caller's own words; empty where there are none.
    pub reference: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A user got a home here.
    UserEnrolled {
        /// The user.
        user: UserId,
        /// Their country of residence.
        country: Country,
        /// Accounts opened with it.
        currencies: SmallVec<[Currency; 2]>,
    },
    /// The directory gave an id to a zone.
    UserClaimed {
        /// The user.
        user: UserId,
        /// The zone.
        zone: ZoneName,
    },
    /// An account was opened.
    AccountOpened {
        /// The owner.
        user: UserId,
        /// Its currency.
        currency: Currency,
    },
    /// An account was closed.
    AccountClosed {
        /// The owner.
        user: UserId,
        /// Its currency.
        currency: Currency,
    },
    /// A user keeps a card from now on. The entry's number and time are the method's.
    MethodAdded {
        /// Whose.
        user: UserId,
        /// Stands for the card.
        token: VaultToken,
    },
    /// A user keeps a card no more. Without a request: because the vault has it no more.
    MethodRemoved {
        /// Whose.
        user: UserId,
        /// The method as it was.
        method: PaymentMethod,
    },
    /// Money came in from outside.
    Deposited {
        /// The owner.
        user: UserId,
        /// How much.
        money: Money,
    },
    /// Money went out, or was refused.
    Withdrawn {
        /// The owner.
        user: UserId,
        /// How much.
        money: Money,
        /// Set when nothing moved.
        declined: Option<Reason>,
    },
    /// A payment was made, held or declined. Its id is the entry's position.
    PaymentCreated(NewPayment),
    /// Something happened to a payment by card.
    Card {
        /// What.
        step: CardStep,
        /// The payment after it.
        payment: Payment,
        /// The payment before it.
        before: Box<Payment>,
        /// What it counts towards the fraud rate; `None` where it counts nothing, and in entries of before that was counted.
        counted: Option<Box<Counted>>,
    },
    /// Held money was taken.
    PaymentCaptured {
        /// The payment after it.
        payment: Payment,
        /// What the caller asked for, in minor units.
        asked: Option<i64>,
    },
    /// Held money was released on request.
    PaymentVoided {
        /// The payment after it.
        payment: Payment,
    },
    /// Held money was released because its time was up.
    PaymentExpired {
        /// The payment after it.
        payment: Payment,
    },
    /// Money went back to the payer, payee of the same shard.
    RefundCompleted {
        /// The payment after it.
        payment: Payment,
        /// What this refund sent back, in minor units.
        amount: i64,
        /// What the caller asked for, in minor units.
        asked: Option<i64>,
    },
    /// The payee's shard was asked to send money back.
    RefundRequested {
        /// The payment after it.
        payment: Payment,
        /// What this refund is to send back, in minor units.
        amount: i64,
        /// What the caller asked for, in minor units.
        asked: Option<i64>,
    },
    /// An entry of another shard took effect here.
    Received {
        /// The other shard.
        source: ShardRef,
        /// The entry's sequence number there, and the mark of the history that it is of.
        at: Cursor,
        /// What it led to.
        effect: Effect,
    },
    /// Another shard has taken in what this one sent it.
    Delivered {
        /// The other shard.
        to: ShardRef,
        /// A sequence number of this journal.
        up_to: Sequence,
        /// A place in the other journal.
        read_to: Cursor,
    },
}

/// A payment as its first entry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPayment {
    /// Whose money moves.
    pub payer: UserId,
    /// Who gets it.
    pub payee: UserId,
    /// The payee's shard; `None` when it is this one.
    pub payee_shard: Option<ShardRef>,
    /// How much.
    pub money: Money,
    /// How long the hold lasts, in seconds; 0 when the money was taken at once.
    pub hold_s: u32,
    /// Set when nothing moved.
    pub declined: Option<Reason>,
    /// The payer's payment before this one in the currency; 0 when there is none.
    pub previous: Sequence,
    /// The card that is charged; `None`: the payer's account.
    pub card: Option<NewCharge>,
}

/// How a payment by card begins: its acquirer is asked to authorize it, unless it is declined at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCharge {
    /// Stands for the card.
    pub token: VaultToken,
    /// The gateway that is asked first.
    pub gateway: GatewayName,
    /// What fraud detection said.
    pub risk: Option<Risk>,
    /// Whether the cardholder has to authenticate it.
    pub authentication: Authentication,
    /// The mandate that it sets up.
    pub mandate: Option<MandateKind>,
    /// The mandate that it is made under.
    pub under: Option<MandateUse>,
}

/// What an entry of another shard led to here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The payee was credited.
    Credited(Credit),
    /// The payee could not be credited; the money goes back.
    Bounced(Credit),
    /// The payee paid a refund.
    RefundPaid(Credit),
    /// The payee could not pay a refund.
    RefundRefused(Credit),
    /// A bounced payment came back to the payer.
    PaymentReturned(Payment),
    /// A refund reached the payer.
    RefundReceived {
        /// The payment after it.
        payment: Payment,
        /// Minor units.
        amount: i64,
    },
    /// A refund was refused; it no longer counts against the cap.
    RefundFailed {
        /// The payment after it.
        payment: Payment,
        /// Minor units.
        amount: i64,
        /// Why.
        reason: Option<Reason>,
    },
}

/// Money of a payment at the payee's shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    /// The payment.
    pub payment: PaymentId,
    /// Who paid.
    pub payer: UserId,
    /// Who is paid.
    pub payee: UserId,
    /// How much.
    pub money: Money,
    /// Why not, for a bounce or a refusal.
    pub reason: Option<Reason>,
}

/// Whose account a posting changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// A user's.
    Wallet(UserId),
    /// The world outside the mesh: negative what it put in.
    External,
    /// All that was ever sent to another shard.
    Sent(ShardRef),
    /// All that was ever received from another shard, negative.
    Received(ShardRef),
    /// What a gateway's acquirer owes for what it took from cards, negative.
    Acquirer(GatewayName),
    /// What is to go back to cards, and what the acquirers have not confirmed yet.
    RefundsPayable,
}

/// A change of one account, with what it led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// Whose.
    pub account: Account,
    /// Which of theirs.
    pub currency: Currency,
    /// Minor units: positive credits, negative debits, zero changes only what is held.
    pub amount: i64,
    /// The booked balance after it.
    pub balance_after: i64,
    /// What is held after it.
    pub held_after: i64,
    /// The account's statement line before this one.
    pub previous_line: LineId,
    /// What its owner paid by exempted payments since they were last authenticated, after it. Nothing for accounts that are not a user's.
    pub exempted_after: Exempted,
}

/// Names a statement line of a shard: the entry's sequence number and the place among its wallet postings (0 or 1).
/// 0 names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LineId(pub u64);

impl LineId {
    /// The line of the `slot`th (0 or 1) wallet posting of an entry.
    pub fn new(sequence: Sequence, slot: u64) -> Self {
        assert!(slot < 2, "an entry touches two wallets at most");
        Self(sequence.0 * 2 + slot)
    }

    /// The entry's sequence number.
    pub fn sequence(self) -> Sequence {
        Sequence(self.0 / 2)
    }
}

/// Why money did not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The payer's available balance is less than the amount.
    InsufficientFunds,
    /// The payer's account is closed.
    AccountClosed,
    /// The payee has no account in the currency.
    PayeeAccountNotFound,
    /// The payee's account is closed.
    PayeeAccountClosed,
    /// The payee's balance would pass its bound.
    PayeeBalanceLimit,
    /// The payee's available balance is less than the refund.
    PayeeInsufficientFunds,
    /// The card's issuer does not want it, and says no more.
    CardDeclined,
    /// There is not enough on the card.
    CardInsufficientFunds,
    /// The card has expired.
    CardExpired,
    /// The card's number or another of its details is not one that its issuer knows.
    CardInvalid,
    /// The vault has no such card, or it is another user's.
    CardNotFound,
    /// The payer did not show who they are, or could not.
    AuthenticationFailed,
    /// Scored above the zone's threshold.
    FraudDetected,
    /// It could not be scored, and the zone does not accept such payments.
    FraudUnavailable,
    /// No gateway takes it now.
    GatewayUnavailable,
    /// The acquirer does not take what it held.
    CaptureRefused,
}

impl Reason {
    /// The name that callers see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientFunds => "INSUFFICIENT_FUNDS",
            Self::AccountClosed => "ACCOUNT_CLOSED",
            Self::PayeeAccountNotFound => "PAYEE_ACCOUNT_NOT_FOUND",
            Self::PayeeAccountClosed => "PAYEE_ACCOUNT_CLOSED",
            Self::PayeeBalanceLimit => "PAYEE_BALANCE_LIMIT",
            Self::PayeeInsufficientFunds => "PAYEE_INSUFFICIENT_FUNDS",
            Self::CardDeclined => "CARD_DECLINED",
            Self::CardInsufficientFunds => "CARD_INSUFFICIENT_FUNDS",
            Self::CardExpired => "CARD_EXPIRED",
            Self::CardInvalid => "CARD_INVALID",
            Self::CardNotFound => "CARD_NOT_FOUND",
            Self::AuthenticationFailed => "AUTHENTICATION_FAILED",
            Self::FraudDetected => "FRAUD_DETECTED",
            Self::FraudUnavailable => "FRAUD_UNAVAILABLE",
            Self::GatewayUnavailable => "GATEWAY_UNAVAILABLE",
            Self::CaptureRefused => "CAPTURE_REFUSED",
        }
    }
}

/// Where a payment stands in its own shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Held.
    Authorized,
    /// Taken, and with the payee or on its way.
    Captured,
    /// Came back.
    Returned,
    /// Did not take place.
    Declined,
    /// Released on request.
    Voided,
    /// Released by time.
    Expired,
    /// By card: the acquirer is being asked.
    Pending,
    /// By card: waits for the cardholder.
    ActionRequired,
}

impl Entry {
    /// The postings of users' accounts that change the booked balance, with the line each makes.
    pub fn lines(&self, sequence: Sequence) -> impl Iterator<Item = (LineId, UserId, &Posting)> {
        self.postings
            .iter()
            .filter_map(|posting| match posting.account {
                Account::Wallet(user) => Some((user, posting)),
                _ => None,
            })
            .enumerate()
            .filter(|(_, (_, posting))| posting.amount != 0)
            .map(move |(slot, (user, posting))| (LineId::new(sequence, slot as u64), user, posting))
    }

    /// Whether the entry says that the payer was authenticated, which ends a row of exempted payments: the cardholder was challenged, and the acquirer
    /// then authorized. Only payments for which that was owed count; those of journals of before that was known have none.
    pub fn authenticated_payer(&self) -> Option<(UserId, Currency)> {
        let Body::Card { step: CardStep::Authorized, before, .. } = &self.body else { return None };
        let charge = before.card.as_deref()?;
        let answered = charge.challenge.is_some() && charge.authentication != Authentication::NotRequired;
        (answered && sca::counts(before.currency)).then_some((before.payer, before.currency))
    }

    /// What the entry counts towards the fraud rate.
    pub fn counted(&self) -> Option<&Counted> {
        match &self.body {
            Body::Card { counted, .. } => counted.as_deref(),
            _ => None,
        }
    }

    /// The payment that the entry is about, as it stood after it, where it is one of this shard's.
    pub fn payment(&self, position: &Position) -> Option<Payment> {
        match &self.body {
            Body::PaymentCreated(new) => Some(Payment::created(new, position, self.at)),
            Body::Card { payment, .. }
            | Body::PaymentCaptured { payment, .. }
            | Body::PaymentVoided { payment }
            | Body::PaymentExpired { payment }
            | Body::RefundCompleted { payment, .. }
            | Body::RefundRequested { payment, .. }
            | Body::Received { effect: Effect::PaymentReturned(payment), .. }
            | Body::Received { effect: Effect::RefundReceived { payment, .. }, .. }
            | Body::Received { effect: Effect::RefundFailed { payment, .. }, .. } => Some(payment.clone()),
            _ => None,
        }
    }

    /// The payment that the entry changed, as it must have stood before it; `None` where the entry made it, or changes none.
    pub fn payment_before(&self) -> Option<Payment> {
        // What an acquirer is asked for by the entry.
        let before_asked = |payment: &Payment| payment.card.clone().map(|charge| Box::new(charge.before_asked()));
        match &self.body {
            Body::Card { before, .. } => Some(before.as_ref().clone()),
            Body::PaymentCaptured { payment, .. } => {
                Some(Payment { phase: Phase::Authorized, captured: 0, sent: Sequence(0), ..payment.clone() })
            }
            Body::PaymentVoided { payment } | Body::PaymentExpired { payment } => {
                Some(Payment { phase: Phase::Authorized, ..payment.clone() })
            }
            Body::RefundCompleted { payment, amount, .. } | Body::RefundRequested { payment, amount, .. } => {
                let card = payment.card.clone().map(|charge| Box::new(Charge { refunds: charge.refunds.saturating_sub(1), ..*charge }));
                Some(Payment { refunded: payment.refunded.saturating_sub(*amount), card, ..payment.clone() })
            }
            Body::Received { effect: Effect::PaymentReturned(payment), .. } => {
                Some(Payment { phase: Phase::Captured, reason: None, card: before_asked(payment), ..payment.clone() })
            }
            Body::Received { effect: Effect::RefundReceived { payment, .. }, .. } => {
                Some(Payment { card: before_asked(payment), ..payment.clone() })
            }
            Body::Received { effect: Effect::RefundFailed { payment, amount, .. }, .. } => {
                Some(Payment { refunded: payment.refunded.saturating_add(*amount), ..payment.clone() })
            }
            _ => None,
        }
    }

    /// Whom the entry is addressed to and what it says there, where it is addressed to another shard.
    pub fn message(&self, position: &Position) -> Option<(ShardRef, Message)> {
        match &self.body {
            Body::PaymentCreated(new) if new.declined.is_none() && new.hold_s == 0 && new.card.is_none() => {
                let to = new.payee_shard.clone()?;
                let credit = Credit {
                    payment: PaymentId::from(position.clone()),
                    payer: new.payer,
                    payee: new.payee,
                    money: new.money,
                    reason: None,
                };
                Some((to, Message::Pay(credit)))
            }
            Body::PaymentCaptured { payment, .. } | Body::Card { step: CardStep::Captured, payment, .. } => {
                Some((payment.payee_shard.clone()?, Message::Pay(payment.credit(position, payment.captured))))
            }
            Body::RefundRequested { payment, amount, .. } => {
                Some((payment.payee_shard.clone()?, Message::AskRefund(payment.credit(position, *amount))))
            }
            Body::Received { source, effect, .. } => match effect {
                Effect::Bounced(credit) => Some((source.clone(), Message::Bounce(credit.clone()))),
                Effect::RefundPaid(credit) => Some((source.clone(), Message::RefundPaid(credit.clone()))),
                Effect::RefundRefused(credit) => Some((source.clone(), Message::RefundRefused(credit.clone()))),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether another zone has to know of the entry: it says something to a shard there, or what became of an entry from
    /// there, or whose a user is.
    pub fn concerns(&self, position: &Position, zone: &ZoneName) -> bool {
        match &self.body {
            Body::UserClaimed { .. } => true,
            Body::Received { source, .. } => &source.zone == zone,
            _ => self.message(position).is_some_and(|(to, _)| &to.zone == zone),
        }
    }

    /// The entry's kind, as `GetRequestOutcome` names it.
    pub fn kind(&self) -> &'static str {
        match &self.body {
            Body::UserEnrolled { .. } => "user_enrolled",
            Body::UserClaimed { .. } => "user_claimed",
            Body::AccountOpened { .. } => "account_opened",
            Body::AccountClosed { .. } => "account_closed",
            Body::MethodAdded { .. } => "payment_method_added",
            Body::MethodRemoved { .. } => "payment_method_removed",
            Body::Deposited { .. } => "deposited",
            Body::Withdrawn { declined: None, .. } => "withdrawn",
            Body::Withdrawn { declined: Some(_), .. } => "withdrawal_declined",
            Body::PaymentCreated(_) => "payment_created",
            Body::Card { step, .. } => match step {
                CardStep::Confirmed => "payment_confirmed",
                CardStep::Left => "gateway_left",
                CardStep::Challenged => "payment_challenged",
                CardStep::Authorized => "payment_authorized",
                CardStep::Declined => "payment_declined",
                CardStep::ExemptionRefused => "exemption_refused",
                CardStep::MandateCancelled => "mandate_cancelled",
                CardStep::CaptureAsked { .. } => "capture_asked",
                CardStep::Captured => "payment_captured",
                CardStep::CaptureReturned => "capture_returned",
                CardStep::CaptureRefused => "capture_refused",
                CardStep::VoidAsked => "void_asked",
                CardStep::ExpiryAsked => "expiry_asked",
                CardStep::Voided => "payment_voided",
                CardStep::Expired => "payment_expired",
                CardStep::RefundAsked { .. } => "refund_asked",
                CardStep::Refunded { .. } => "refund_completed",
                CardStep::RefundRefused { .. } => "refund_refused",
                CardStep::FraudReported => "fraud_reported",
            },
            Body::PaymentCaptured { .. } => "payment_captured",
            Body::PaymentVoided { .. } => "payment_voided",
            Body::PaymentExpired { .. } => "payment_expired",
            Body::RefundCompleted { .. } => "refund_completed",
            Body::RefundRequested { .. } => "refund_requested",
            Body::Received { .. } => "received",
            Body::Delivered { .. } => "delivered",
        }
    }
}
