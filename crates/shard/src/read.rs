//! Reads: of a shard that is led here, which see everything that was answered before they were asked, and of copies.

use std::time::Duration;

use paymesh_journal::Line;
use paymesh_ledger::{LineId, PaymentMethod, Wallet};
use paymesh_types::{Currency, Epoch, PaymentId, Position, RequestId, Sequence, ShardRef, UserId, ZoneName};
use tokio::time::Instant;

use crate::{Answer, Error, Page, PaymentView, Replica, Shard, Tail, View, base::Base};

/// How old what is read may be.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// The tables hold this entry of the shard, committed in this term or before it.
    pub at_least: Option<(Epoch, Sequence)>,
    /// They hold everything that the leader had committed so long before the reader came.
    pub staleness_max: Option<Duration>,
}

/// Where a shard is read.
#[derive(Debug, Clone)]
pub enum Reader {
    /// At its leader, which is here.
    Led(Shard),
    /// From a copy.
    Copied(Replica),
}

impl Reader {
    /// The tables, once they hold what is asked for. `came`: when the reader did. Waits until `until` at most.
    ///
    /// # Errors
    /// [`Error::Behind`]: they do not hold it yet. [`Error::InTheFuture`]: nobody has committed it. See [`Error`].
    pub async fn view(&self, bounds: &Bounds, came: Instant, until: Instant) -> Result<View, Error> {
        match self {
            Self::Led(shard) => shard.view(bounds).await,
            Self::Copied(replica) => replica.view(bounds, came, until).await,
        }
    }

    /// The shard's entries.
    pub fn tail(&self) -> &Tail {
        match self {
            Self::Led(shard) => shard.tail(),
            Self::Copied(replica) => replica.tail(),
        }
    }

    /// The shard.
    pub fn reference(&self) -> &ShardRef {
        self.tail().shard()
    }

    /// Waits until the tables hold an entry, without having them hurry.
    pub async fn projected(&self, sequence: Sequence) {
        match self {
            Self::Led(shard) => shard.inner.base.projected.passed(sequence).await,
            Self::Copied(replica) => match replica.base() {
                Some(base) => base.projected.passed(sequence).await,
                None => std::future::pending().await,
            },
        }
    }

    /// Waits until there is nothing more to be read, and says why.
    pub async fn stopped(&self) -> String {
        match self {
            Self::Led(shard) => shard.stopped().await,
            Self::Copied(replica) => replica.stopped().await,
        }
    }
}

impl Shard {
    /// The tables, once they hold all that was committed when it was called. Whoever leads is never behind, so of the bounds it
    /// looks only whether what is to be there has been committed.
    async fn view(&self, bounds: &Bounds) -> Result<View, Error> {
        if let Some((epoch, wanted)) = bounds.at_least {
            let (shard, status) = (self.reference().clone(), self.status());
            let position = Position { shard: shard.clone(), epoch: status.epoch, sequence: status.head };
            if epoch > status.epoch {
                // There is a later leader, or the caller made it up.
                return Err(Error::Behind { position, age: None });
            }
            if wanted > status.head {
                return Err(Error::InTheFuture { shard, head: status.head, wanted });
            }
        }
        let position = self.caught_up().await?;
        Ok(View::new(self.inner.base.clone(), position, Some(Duration::ZERO)))
    }

    /// Waits until the tables hold all that was committed when it was called.
    pub(crate) async fn caught_up(&self) -> Result<Position, Error> {
        if let Some(why) = self.status().problem {
            return Err(Error::NotServing { shard: self.reference().clone(), why });
        }
        let head = self.inner.base.tail.head();
        tokio::select! {
            () = self.inner.base.projected.wait_for(head) => {}
            why = self.stopped() => return Err(Error::NotServing { shard: self.reference().clone(), why }),
        }
        Ok(Position { shard: self.reference().clone(), epoch: self.status().epoch, sequence: head })
    }

    fn failed(&self) -> impl Fn(paymesh_journal::Error) -> Error + '_ {
        |source| Error::Storage { shard: self.reference().clone(), source }
    }

    /// [`View::wallets`], of now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn wallets(&self, user: UserId) -> Result<Option<(Vec<(Currency, Wallet)>, Position)>, Error> {
        let view = self.view(&Bounds::default()).await?;
        Ok(view.wallets(user).await?.map(|wallets| (wallets, view.position().clone())))
    }

    /// [`View::methods`], of now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn methods(&self, user: UserId) -> Result<Option<(Vec<PaymentMethod>, Position)>, Error> {
        let view = self.view(&Bounds::default()).await?;
        Ok(view.methods(user).await?.map(|methods| (methods, view.position().clone())))
    }

    /// [`View::claims`], of now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn claims(&self, users: &[UserId]) -> Result<Vec<(UserId, ZoneName)>, Error> {
        self.view(&Bounds::default()).await?.claims(users).await
    }

    /// [`View::statement`], of now.
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
        self.view(&Bounds::default()).await?.statement(user, currency, from, limit).await
    }

    /// [`View::payment`], of now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn payment(&self, id: &PaymentId) -> Result<Option<(PaymentView, Position)>, Error> {
        let view = self.view(&Bounds::default()).await?;
        Ok(view.payment(id).await?.map(|payment| (payment, view.position().clone())))
    }

    /// [`View::payments`], of now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn payments(
        &self,
        payer: UserId,
        before: Option<Sequence>,
        limit: u32,
    ) -> Result<Option<Page<PaymentView, Sequence>>, Error> {
        self.view(&Bounds::default()).await?.payments(payer, before, limit).await
    }

    /// What became of a request; `None` when nothing was recorded. It waits for its turn behind what was handed in before: who
    /// asks because an answer was late hears of what is still being decided.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn outcome(&self, id: RequestId) -> Result<Option<Answer>, Error> {
        self.queue_passed().await?;
        self.caught_up().await?;
        let Some(sequence) = self.inner.base.store.tables.request(id).await.map_err(self.failed())? else { return Ok(None) };
        match self.inner.base.tail.entry(sequence).await {
            Ok((position, entry)) => Ok(Some(Answer { position, entry, replayed: true })),
            // It is older than is promised, and was about to be forgotten.
            Err(Error::NotKept { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The clearing accounts, the outside world's, and the cursors on other shards.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn books(&self) -> Result<(paymesh_ledger::Records, Position), Error> {
        let position = self.caught_up().await?;
        Ok((self.inner.base.store.tables.books().await.map_err(self.failed())?, position))
    }

    /// The epoch that leads now.
    pub fn epoch(&self) -> Epoch {
        self.status().epoch
    }
}

impl Replica {
    /// The tables, once they hold what is asked for.
    async fn view(&self, bounds: &Bounds, came: Instant, until: Instant) -> Result<View, Error> {
        let not_serving = |why: &str| Error::NotServing { shard: self.reference().clone(), why: why.to_owned() };
        let base = self.base().ok_or_else(|| not_serving("the copy has no tables"))?;
        let in_time = tokio::select! {
            biased;
            why = self.stopped() => return Err(not_serving(&why)),
            reached = tokio::time::timeout_at(until, self.reached(base, bounds, came)) => reached.is_ok(),
            in_the_future = self.in_the_future(bounds, came) => return Err(in_the_future),
        };
        let position = Position { shard: base.shard.clone(), epoch: self.freshness().epoch(), sequence: base.projected.get() };
        // Of what the reader could know when it came: what was committed since is not missing.
        let age = self.freshness().current_at(position.sequence).map(|at| came.saturating_duration_since(at));
        if in_time { Ok(View::new(base.clone(), position, age)) } else { Err(Error::Behind { position, age }) }
    }

    /// Waits until it is known that what is asked for does not exist: the leader, asked after the reader came, had not committed it, and a
    /// position that a reader can know of was committed before.
    async fn in_the_future(&self, bounds: &Bounds, came: Instant) -> Error {
        let Some((epoch, wanted)) = bounds.at_least else { return std::future::pending().await };
        // A later leader may have it.
        self.freshness().wait_for_epoch(epoch).await;
        let head = self.freshness().told_since(came).await;
        if wanted <= head { std::future::pending().await } else { Error::InTheFuture { shard: self.reference().clone(), head, wanted } }
    }

    /// Waits until the tables hold what is asked for.
    pub(crate) async fn reached(&self, base: &Base, bounds: &Bounds, came: Instant) {
        if let Some((epoch, sequence)) = bounds.at_least {
            // Of a term that this copy has not heard of, the same number may have been another entry.
            self.freshness().wait_for_epoch(epoch).await;
            base.projected.wait_for(sequence).await;
        }
        if let Some(staleness_max) = bounds.staleness_max {
            // Longer ago than the machine runs: whatever is known of it is recent enough.
            let needed = came.checked_sub(staleness_max);
            let head = self.freshness().head_as_of(needed, base.projected.get()).await;
            base.projected.wait_for(head).await;
        }
    }
}
