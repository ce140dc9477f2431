//! What readers see of a shard's tables, whoever holds them.

use std::time::Duration;

use paymesh_journal::{LINES_WALKED_MAX, Line, PaymentRow};
use paymesh_ledger::{LineId, PaymentMethod, Phase, Wallet};
use paymesh_types::{Currency, PaymentId, Position, Sequence, UserId, ZoneName};

use crate::{Error, base::Base};

/// A page of a list, newest first.
#[derive(Debug, Clone)]
pub struct Page<T, C> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next, older page begins; `None` when there is none.
    pub next: Option<C>,
    /// The position at which it was read.
    pub position: Position,
}

/// A payment as a reader sees it.
#[derive(Debug, Clone)]
pub struct PaymentView {
    /// The payment, its previous one and its reference.
    pub row: PaymentRow,
    /// Whether its money has left for another shard and is not known to have arrived.
    pub in_transit: bool,
}

impl From<PaymentRow> for PaymentView {
    fn from(row: PaymentRow) -> Self {
        let payment = &row.payment;
        let in_transit = payment.phase == Phase::Captured && payment.payee_shard.is_some() && row.delivered < payment.sent;
        Self { row, in_transit }
    }
}

/// A shard's tables, once they hold what their reader asked for. Every answer has at least what there was at its position; what
/// came to be meanwhile may be in it too.
#[derive(Debug, Clone)]
pub struct View {
    base: Base,
    position: Position,
    age: Option<Duration>,
}

impl View {
    pub(crate) fn new(base: Base, position: Position, age: Option<Duration>) -> Self {
        Self { base, position, age }
    }

    /// What the tables hold at least.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// They hold everything that the shard's leader had committed so long before the reader came; zero at the leader. `None`: that
    /// was never known.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    fn failed(&self) -> impl Fn(paymesh_journal::Error) -> Error + '_ {
        |source| Error::Storage { shard: self.base.shard.clone(), source }
    }

    /// A user's accounts; `None` when the user is not enrolled.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn wallets(&self, user: UserId) -> Result<Option<Vec<(Currency, Wallet)>>, Error> {
        let tables = &self.base.store.tables;
        if tables.user(user).await.map_err(self.failed())?.is_none() {
            return Ok(None);
        }
        Ok(Some(tables.wallets(user).await.map_err(self.failed())?))
    }

    /// A user's payment methods, oldest first; `None` when the user is not enrolled.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn methods(&self, user: UserId) -> Result<Option<Vec<PaymentMethod>>, Error> {
        let tables = &self.base.store.tables;
        if tables.user(user).await.map_err(self.failed())?.is_none() {
            return Ok(None);
        }
        Ok(Some(tables.methods(user).await.map_err(self.failed())?))
    }

    /// The zones that the directory gave users to; users that it does not know are left out.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn claims(&self, users: &[UserId]) -> Result<Vec<(UserId, ZoneName)>, Error> {
        self.base.store.tables.claims(users).await.map_err(self.failed())
    }

    /// Lines of an account, newest first, from `from` on or from the newest; `None` when there is no such account.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn statement(
        &self,
        user: UserId,
        currency: Currency,
        from: Option<LineId>,
        limit: u32,
    ) -> Result<Option<Page<Line, LineId>>, Error> {
        let tables = &self.base.store.tables;
        let wallets = tables.wallets(user).await.map_err(self.failed())?;
        let Some((_, wallet)) = wallets.into_iter().find(|(each, _)| *each == currency) else { return Ok(None) };
        let newest = from.unwrap_or(wallet.last_line);
        let mut items = Vec::new();
        if newest != LineId(0) {
            items = tables.lines(newest, limit.clamp(1, LINES_WALKED_MAX)).await.map_err(self.failed())?;
        }
        // A token is the caller's to forge: lines of another account are not theirs to see.
        if items.iter().any(|line| line.user != user || line.currency != currency) {
            items.clear();
        }
        let next = items.last().map(|line| line.previous).filter(|previous| *previous != LineId(0));
        Ok(Some(Page { items, next, position: self.position.clone() }))
    }

    /// One payment of this shard.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn payment(&self, id: &PaymentId) -> Result<Option<PaymentView>, Error> {
        let row = self.base.store.tables.payment(id.sequence()).await.map_err(self.failed())?;
        Ok(row.filter(|row| row.payment.epoch == id.epoch()).map(PaymentView::from))
    }

    /// Payments that a user made, newest first, before `before` or from the newest; `None` when `before` is no payment of
    /// the user's, which a caller may have made up.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn payments(
        &self,
        payer: UserId,
        before: Option<Sequence>,
        limit: u32,
    ) -> Result<Option<Page<PaymentView, Sequence>>, Error> {
        let tables = &self.base.store.tables;
        let limit = limit.clamp(1, LINES_WALKED_MAX);
        // Payments are chained by account; a list over a few currencies is a merge of as many chains. Each is walked until it
        // alone could fill the page and say that there is more: with less of one, what it lacks would be skipped for good.
        let page = LINES_WALKED_MAX.min(limit + 1);
        // Where the page before ended, its chain goes on.
        let ended = match before {
            Some(before) => match tables.payment(before).await.map_err(self.failed())? {
                Some(row) if row.payment.payer == payer => Some(row),
                _ => return Ok(None),
            },
            None => None,
        };
        let mut rows = Vec::new();
        for (currency, wallet) in tables.wallets(payer).await.map_err(self.failed())? {
            let (mut newest, walk) = match &ended {
                Some(row) if row.payment.currency == currency => (row.previous, page),
                _ => (wallet.last_payment, if before.is_some() { LINES_WALKED_MAX } else { page }),
            };
            let before_chain = rows.len();
            while newest != Sequence(0) && rows.len() - before_chain <= limit as usize {
                let walked = tables.payments(newest, walk).await.map_err(self.failed())?;
                newest = walked.last().map_or(Sequence(0), |row| row.previous);
                // A chain that begins at or after `before` is walked down to it.
                rows.extend(walked.into_iter().filter(|row| before.is_none_or(|before| row.payment.sequence < before)));
            }
        }
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.payment.sequence));
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = rows.last().filter(|_| more).map(|row| row.payment.sequence);
        Ok(Some(Page { items: rows.into_iter().map(PaymentView::from).collect(), next, position: self.position.clone() }))
    }
}
