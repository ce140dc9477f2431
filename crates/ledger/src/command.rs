//! What a caller, another shard or the shard's own timer wants.

use paymesh_types::{
    Country, Currency, Cursor, GatewayName, Money, PaymentId, RequestId, Sequence, ShardRef, UserId, VaultToken, ZoneName,
};
use smallvec::SmallVec;

use crate::{Agreement, Credit, Outcome, Reason, Risk, RiskAnalysis};

/// A command and the caller's name for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `None` for the shard's own doings: expiries and what other shards sent.
    pub id: Option<RequestId>,
    /// What is wanted.
    pub command: Command,
}

/// What is wanted. Fields are valid by their types; whether it may happen is for [`crate::decide`] to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Give a user a home here.
    EnrollUser {
        /// The user.
        user: UserId,
        /// Their country of residence.
        country: Country,
        /// Accounts to open with it, each currency once.
        currencies: SmallVec<[Currency; 2]>,
    },
    /// Give a user id to a zone (the directory's shards only).
    ClaimUser {
        /// The user.
        user: UserId,
        /// The zone.
        zone: ZoneName,
    },
    /// Open an account.
    OpenAccount {
        /// The owner.
        user: UserId,
        /// Its currency.
        currency: Currency,
    },
    /// Close an empty account.
    CloseAccount {
        /// The owner.
        user: UserId,
        /// Its currency.
        currency: Currency,
    },
    /// Keep a card, which the vault has said is the user's.
    AddMethod {
        /// Whose.
        user: UserId,
        /// Stands for the card.
        token: VaultToken,
    },
    /// Keep a card no more.
    RemoveMethod {
        /// Whose.
        user: UserId,
        /// Stands for the card.
        token: VaultToken,
    },
    /// Book money from outside.
    Deposit {
        /// The owner.
        user: UserId,
        /// How much.
        money: Money,
        /// The caller's own words.
        reference: String,
    },
    /// Book money to outside.
    Withdraw {
        /// The owner.
        user: UserId,
        /// How much.
        money: Money,
        /// The caller's own words.
        reference: String,
    },
    /// Pay another user.
    CreatePayment(CreatePayment),
    /// Go on with a payment whose cardholder has done what was asked.
    ConfirmPayment {
        /// The payment.
        payment: PaymentId,
    },
    /// Note what the acquirer made of an operation of a payment by card.
    Settle {
        /// The payment.
        payment: PaymentId,
        /// The operation's number.
        operation: u32,
        /// What it made of it.
        outcome: Outcome,
    },
    /// Take held money. `None`: all of it.
    CapturePayment {
        /// The payment.
        payment: PaymentId,
        /// Minor units, more than zero.
        amount: Option<i64>,
    },
    /// End the mandate that a payment has set up.
    CancelMandate {
        /// The payment.
        payment: PaymentId,
    },
    /// Release held money.
    VoidPayment {
        /// The payment.
        payment: PaymentId,
    },
    /// Send money of a payment back. `None`: all that is left.
    RefundPayment {
        /// The payment.
        payment: PaymentId,
        /// Minor units, more than zero.
        amount: Option<i64>,
    },
    /// Note that a payment by card was unauthorised or fraudulent.
    ReportFraud {
        /// The payment.
        payment: PaymentId,
    },
    /// Release a hold whose time is up.
    ExpirePayment {
        /// The payment's sequence number.
        payment: Sequence,
    },
    /// Take in an entry that another shard addressed to this one.
    Receive {
        /// The other shard.
        source: ShardRef,
        /// The entry's sequence number there, and the mark of the history that it is of.
        at: Cursor,
        /// What it says.
        message: Message,
    },
    /// Note how far another shard has taken in what this one sent, and how far its journal was read to learn that.
    Delivered {
        /// The other shard.
        to: ShardRef,
        /// A sequence number of this journal.
        up_to: Sequence,
        /// A place in the other journal.
        read_to: Cursor,
    },
}

/// A payment to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePayment {
    /// Whose money moves.
    pub payer: UserId,
    /// Who gets it; not the payer.
    pub payee: UserId,
    /// The payee's shard; `None` when it is this one.
    pub payee_shard: Option<ShardRef>,
    /// How much.
    pub money: Money,
    /// How long to hold it, in seconds; 0 takes it at once.
    pub hold_s: u32,
    /// The caller's own words.
    pub reference: String,
    /// The card that is charged; `None`: the payer's account.
    pub card: Option<ByCard>,
}

/// How a card is to be charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByCard {
    /// Stands for the card, which is the payer's.
    pub token: VaultToken,
    /// The gateway to ask first.
    pub gateway: GatewayName,
    /// Set where nobody is to be asked: the payment is declined for this.
    pub declined: Option<Reason>,
    /// What fraud detection said.
    pub risk: Option<Risk>,
    /// Whether the payer's zone is under PSD2: their authentication is then owed, unless the payment is exempt.
    pub psd2: bool,
    /// The mandate that it sets up or is made under.
    pub agreement: Option<Agreement>,
    /// How low risks are exempt in the payer's zone; `None`: not at all.
    pub analysis: Option<RiskAnalysis>,
}

/// What an entry of one shard says to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Credit the payee; the money is in the clearing account.
    Pay(Credit),
    /// The payee could not be credited; the money is in the clearing account again.
    Bounce(Credit),
    /// Have the payee send money back.
    AskRefund(Credit),
    /// The payee paid the refund; the money is in the clearing account.
    RefundPaid(Credit),
    /// The payee could not pay the refund.
    RefundRefused(Credit),
}
