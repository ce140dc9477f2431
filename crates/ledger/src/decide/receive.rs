//! What comes from another shard: money for one of this shard's users, and what became of money that was sent there.

use paymesh_types::{Cursor, ShardRef};
use smallvec::{SmallVec, smallvec};

use super::{Bound, Decider, Outcome, Rejection, credit, debit};
use crate::{Account, Body, Credit, Effect, Message, Payment, Phase, Posting, Reason};

impl Decider<'_> {
    pub(super) fn receive(&self, source: &ShardRef, at: Cursor, message: &Message) -> Outcome {
        if at.sequence <= self.state.inbox(source) {
            return Err(Rejection::AlreadyReceived { sequence: at.sequence });
        }
        let (effect, postings) = match message {
            Message::Pay(credit) => self.receive_pay(source, credit)?,
            Message::AskRefund(credit) => self.receive_ask_refund(source, credit)?,
            Message::Bounce(credit) => self.receive_bounce(source, credit)?,
            Message::RefundPaid(credit) => self.receive_refund_paid(source, credit)?,
            Message::RefundRefused(refused) => {
                let payment = self.own(source, refused)?;
                let amount = refused.money.minor();
                if amount > payment.refunded {
                    return Err(Rejection::Implausible { what: "a refusal of more than was asked for" });
                }
                let payment = Payment { refunded: payment.refunded - amount, ..payment.clone() };
                (Effect::RefundFailed { payment, amount, reason: refused.reason }, smallvec![])
            }
        };
        Ok((Body::Received { source: source.clone(), at, effect }, postings, String::new()))
    }

    fn receive_pay(&self, source: &ShardRef, pay: &Credit) -> Result<(Effect, SmallVec<[Posting; 2]>), Rejection> {
        let (currency, amount) = (pay.money.currency(), pay.money.minor());
        let taken = self.system(Account::Received(source.clone()), currency, -amount)?;
        match self.cannot_credit(pay.payee, currency, amount) {
            None => {
                let wallet = self.wallet(pay.payee, currency)?;
                Ok((Effect::Credited(pay.clone()), smallvec![taken, credit(pay.payee, currency, wallet, amount, Bound::Kept)?]))
            }
            Some(reason) => {
                let back = self.system(Account::Sent(source.clone()), currency, amount)?;
                Ok((Effect::Bounced(Credit { reason: Some(reason), ..pay.clone() }), smallvec![taken, back]))
            }
        }
    }

    fn receive_ask_refund(&self, source: &ShardRef, ask: &Credit) -> Result<(Effect, SmallVec<[Posting; 2]>), Rejection> {
        let (currency, amount) = (ask.money.currency(), ask.money.minor());
        match self.state.wallets.get((ask.payee, currency)) {
            Some(wallet) if wallet.available() >= amount => {
                let sent = self.system(Account::Sent(source.clone()), currency, amount)?;
                Ok((Effect::RefundPaid(ask.clone()), smallvec![debit(ask.payee, currency, wallet, amount, 0), sent]))
            }
            _ => Ok((Effect::RefundRefused(Credit { reason: Some(Reason::PayeeInsufficientFunds), ..ask.clone() }), smallvec![])),
        }
    }

    fn receive_bounce(&self, source: &ShardRef, bounce: &Credit) -> Result<(Effect, SmallVec<[Posting; 2]>), Rejection> {
        let payment = self.own(source, bounce)?;
        let amount = bounce.money.minor();
        if payment.phase != Phase::Captured || payment.refunded != 0 || amount != payment.captured {
            return Err(Rejection::Implausible { what: "a bounce of a payment that was not sent, or of another amount" });
        }
        let mut payment = Payment { phase: Phase::Returned, reason: bounce.reason, ..payment.clone() };
        let postings = self.take_back(source, &mut payment, amount)?;
        Ok((Effect::PaymentReturned(payment), postings))
    }

    fn receive_refund_paid(&self, source: &ShardRef, paid: &Credit) -> Result<(Effect, SmallVec<[Posting; 2]>), Rejection> {
        let payment = self.own(source, paid)?;
        let amount = paid.money.minor();
        if amount > payment.refunded {
            return Err(Rejection::Implausible { what: "a refund of more than was asked for" });
        }
        let mut payment = payment.clone();
        let postings = self.take_back(source, &mut payment, amount)?;
        Ok((Effect::RefundReceived { payment, amount }, postings))
    }

    /// The payment of this shard that another shard, the payee's, answers.
    fn own(&self, source: &ShardRef, answer: &Credit) -> Result<&Payment, Rejection> {
        let id = &answer.payment;
        if id.shard() != self.state.shard() {
            return Err(Rejection::Implausible { what: "an answer about a payment of another shard" });
        }
        let payment = self
            .payment(id.epoch(), id.sequence())
            .ok()
            .filter(|payment| payment.currency == answer.money.currency() && payment.payer == answer.payer)
            .ok_or(Rejection::Implausible { what: "an answer about a payment that is not here" })?;
        if payment.payee_shard.as_ref() != Some(source) {
            return Err(Rejection::Implausible { what: "an answer about a payment to another shard" });
        }
        Ok(payment)
    }

    /// Money that comes back has an owner: it is credited whatever the account's bound or state.
    fn take_back(&self, source: &ShardRef, payment: &mut Payment, amount: i64) -> Result<SmallVec<[Posting; 2]>, Rejection> {
        let back = self.give_back(payment, amount)?;
        Ok(smallvec![self.system(Account::Received(source.clone()), payment.currency, -amount)?, back])
    }
}
