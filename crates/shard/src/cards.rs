//! Payments by card at their leader: what acquirers are being asked for, and what they made of it.

use paymesh_ledger::{Command, Outcome, Payment, Request};
use paymesh_types::{Country, PaymentId, Sequence, UserId};

use crate::{Answer, Error, Shard};

impl Shard {
    /// Payments of which an acquirer is being asked for something, by their number, those after `after`, at most `limit`: all that were asked for and not
    /// settled when it was called.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn in_progress(&self, after: Sequence, limit: u32) -> Result<Vec<Payment>, Error> {
        self.caught_up().await?;
        let failed = |source| Error::Storage { shard: self.reference().clone(), source };
        self.inner.base.store.tables.in_progress(after, limit).await.map_err(failed)
    }

    /// A user's country of residence; `None` when the user is not enrolled here, or was a moment ago.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn country(&self, user: UserId) -> Result<Option<Country>, Error> {
        let failed = |source| Error::Storage { shard: self.reference().clone(), source };
        self.inner.base.store.tables.user(user).await.map_err(failed)
    }

    /// Has what an acquirer made of an operation decided and committed. It waits for a place in the queue, and is not refused for want of one.
    ///
    /// # Errors
    /// [`Error::Rejected`] with [`paymesh_ledger::Rejection::NothingNew`]: it was settled before. See [`Error`].
    pub async fn settle(&self, payment: PaymentId, operation: u32, outcome: Outcome) -> Result<Answer, Error> {
        let request = Request { id: None, command: Command::Settle { payment, operation, outcome } };
        let mut answers = self.submit_internal(vec![request]).await?;
        Ok(answers.pop().expect("one answer for each request")?)
    }
}
