//! The query tables in memory.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, MutexGuard},
};

use async_trait::async_trait;
use paymesh_ledger::{Account, LineId, Missing, Monitored, Payment, PaymentMethod, Phase, Records, Wallet};
use paymesh_types::{Country, Currency, Cursor, RequestId, Sequence, ShardRef, Timestamp, UserId, ZoneName};

use super::{Dice, Disk, Fault, Machine, Operation};
use crate::{Error, LINES_WALKED_MAX, Line, PaymentRow, Projection, Row, Snapshot, Tables, WalletRow};

/// Changes that a crash takes away at most: past that many the oldest are synced.
const UNSYNCED_CHANGES_MAX: usize = 64;

/// Rows that a snapshot gives at once.
const SNAPSHOT_ROWS: usize = 1_000;

/// A handle to tables in memory.
#[derive(Debug)]
pub struct MemoryTables {
    pub(super) machine: Arc<Machine>,
}

/// Tables, and how much of them a crash leaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Lazy {
    rows: Rows,
    /// As they are on the disk.
    synced: Rows,
    /// What brings the one to the other, oldest first.
    unsynced: VecDeque<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Project(Arc<Projection>),
    Purge { up_to: Sequence },
    Clear,
    Restore(Arc<Vec<Row>>),
    Restored(Sequence, Arc<Records>),
}

#[derive(Debug, Default, Clone)]
struct Rows {
    cursor: Sequence,
    newest_request_ms: u64,
    users: BTreeMap<UserId, Country>,
    claims: BTreeMap<UserId, ZoneName>,
    wallets: BTreeMap<UserId, BTreeMap<Currency, Wallet>>,
    methods: BTreeMap<(UserId, Sequence), PaymentMethod>,
    lines: BTreeMap<LineId, Line>,
    payments: BTreeMap<Sequence, PaymentRow>,
    /// Payments that have an end which nothing is being done about, by when it comes.
    held: BTreeSet<(Timestamp, Sequence)>,
    /// Payments of which an acquirer is being asked for something.
    in_progress: BTreeSet<Sequence>,
    requests: BTreeMap<Sequence, (RequestId, Timestamp)>,
    request_ids: BTreeMap<RequestId, Sequence>,
    system: BTreeMap<(Account, Currency), i64>,
    inbox: BTreeMap<ShardRef, Cursor>,
    delivered: BTreeMap<ShardRef, Sequence>,
    monitored: Monitored,
}

impl Lazy {
    fn change(&mut self, change: Change) {
        self.rows.make(&change);
        self.unsynced.push_back(change);
        if self.unsynced.len() > UNSYNCED_CHANGES_MAX
            && let Some(oldest) = self.unsynced.pop_front()
        {
            self.synced.make(&oldest);
        }
    }

    /// The tables as they are found after a crash: some of what was not synced is there, in order and without gaps.
    pub(super) fn after_crash(&self, dice: &mut Dice) -> Self {
        let mut rows = self.synced.clone();
        let kept = dice.below(self.unsynced.len() as u64 + 1);
        (0..kept).zip(&self.unsynced).for_each(|(_, change)| rows.make(change));
        Self { synced: rows.clone(), rows, unsynced: VecDeque::new() }
    }

    pub(super) fn damage_wallet(&mut self, key: (UserId, Currency), damage: impl FnOnce(&mut Wallet)) -> bool {
        self.rows.wallet_mut(key).map(damage).is_some()
    }

    pub(super) fn lose_line(&mut self, line: LineId) -> bool {
        self.rows.lines.remove(&line).is_some()
    }
}

impl Rows {
    /// What of the projection is there already, though it can only be made once.
    fn conflict(&self, projection: &Projection) -> Option<String> {
        let user = projection.users.iter().find(|(user, _)| self.users.contains_key(user)).map(|(user, _)| format!("{user:?}"));
        let claim =
            || projection.claims.iter().find(|(user, _)| self.claims.contains_key(user)).map(|(user, _)| format!("a claim of {user:?}"));
        let opened = || projection.opened.iter().find(|key| self.wallet(key).is_some()).map(|key| format!("an account of {:?}", key.0));
        let is_there = |(key, method): &(&(UserId, Sequence), &Option<PaymentMethod>)| method.is_some() && self.methods.contains_key(key);
        let method = || projection.methods.iter().find(is_there).map(|(key, _)| format!("a payment method of {:?}", key.0));
        let line = || projection.lines.iter().find(|line| self.lines.contains_key(&line.id)).map(|line| format!("{:?}", line.id));
        let created = |row: &&PaymentRow| self.payments.contains_key(&row.payment.sequence);
        let payment = || projection.created.iter().find(created).map(|row| format!("payment {}", row.payment.sequence));
        user.or_else(claim).or_else(opened).or_else(method).or_else(line).or_else(payment)
    }

    fn make(&mut self, change: &Change) {
        match change {
            Change::Project(projection) => self.project(projection),
            Change::Clear => *self = Self::default(),
            Change::Restore(rows) => rows.iter().for_each(|row| self.restore(row)),
            Change::Restored(sequence, books) => self.restored(*sequence, books),
            Change::Purge { up_to } => {
                let kept = self.requests.split_off(&up_to.next());
                for (sequence, (id, _)) in std::mem::replace(&mut self.requests, kept) {
                    debug_assert_eq!(self.request_ids.get(&id), Some(&sequence));
                    self.request_ids.remove(&id);
                }
            }
        }
    }

    fn project(&mut self, projection: &Projection) {
        self.cursor = projection.up_to;
        self.newest_request_ms = self.newest_request_ms.max(projection.newest_request_ms);
        self.users.extend(projection.users.iter().copied());
        self.claims.extend(projection.claims.iter().cloned());
        for (user, currency) in &projection.opened {
            self.wallets.entry(*user).or_default().insert(*currency, Wallet::default());
        }
        for ((user, currency), row) in &projection.wallets {
            let wallet = self.wallets.entry(*user).or_default().entry(*currency).or_default();
            let last_payment = wallet.last_payment.max(row.last_payment);
            let WalletRow { balance, held, last_line, exempted, .. } = *row;
            *wallet = Wallet { balance, held, closed: wallet.closed, last_line, last_payment, exempted };
        }
        for key in &projection.closed {
            if let Some(wallet) = self.wallet_mut(*key) {
                wallet.closed = true;
            }
        }
        for (key, method) in &projection.methods {
            match method {
                Some(method) => drop(self.methods.insert(*key, method.clone())),
                None => drop(self.methods.remove(key)),
            }
        }
        self.lines.extend(projection.lines.iter().map(|line| (line.id, line.clone())));
        for row in &projection.created {
            self.payments.insert(row.payment.sequence, row.clone());
            self.note_hold(&row.payment);
        }
        for payment in projection.changed.values() {
            if let Some(row) = self.payments.get_mut(&payment.sequence) {
                let before = std::mem::replace(&mut row.payment, payment.clone());
                self.forget_hold(&before);
                self.note_hold(payment);
            }
        }
        for (sequence, id, at) in &projection.requests {
            // An id whose first use was purged can be used again: the newest use counts.
            if let Some(older) = self.request_ids.insert(*id, *sequence) {
                self.requests.remove(&older);
            }
            self.requests.insert(*sequence, (*id, *at));
        }
        self.system.extend(projection.system.iter().map(|(key, balance)| (key.clone(), *balance)));
        self.monitored.extend(&projection.monitored);
        for (shard, cursor) in &projection.inbox {
            self.inbox.entry(shard.clone()).or_default().advance(*cursor);
        }
        for (shard, sequence) in &projection.delivered {
            let delivered = self.delivered.entry(shard.clone()).or_default();
            *delivered = (*delivered).max(*sequence);
        }
    }

    fn restore(&mut self, row: &Row) {
        match row.clone() {
            Row::User(user, country) => drop(self.users.insert(user, country)),
            Row::Claim(user, zone) => drop(self.claims.insert(user, zone)),
            Row::Wallet((user, currency), wallet) => drop(self.wallets.entry(user).or_default().insert(currency, wallet)),
            Row::Method(user, method) => drop(self.methods.insert((user, method.added), method)),
            Row::Line(line) => drop(self.lines.insert(line.id, line)),
            Row::Payment(row) => {
                self.note_hold(&row.payment);
                self.payments.insert(row.payment.sequence, row);
            }
            Row::Request(sequence, id, at) => {
                self.request_ids.insert(id, sequence);
                self.requests.insert(sequence, (id, at));
            }
        }
    }

    fn restored(&mut self, sequence: Sequence, books: &Records) {
        self.cursor = sequence;
        self.newest_request_ms = books.newest_request_ms.unwrap_or(0);
        self.system = books.system.iter().cloned().collect();
        self.inbox = books.inbox.iter().cloned().collect();
        self.delivered = books.delivered.iter().cloned().collect();
        self.monitored = books.monitored.clone();
    }

    fn wallet(&self, (user, currency): &(UserId, Currency)) -> Option<&Wallet> {
        self.wallets.get(user)?.get(currency)
    }

    fn wallet_mut(&mut self, (user, currency): (UserId, Currency)) -> Option<&mut Wallet> {
        self.wallets.get_mut(&user)?.get_mut(&currency)
    }

    fn all(self) -> Vec<Row> {
        let wallets = self
            .wallets
            .into_iter()
            .flat_map(|(user, accounts)| accounts.into_iter().map(move |(currency, wallet)| ((user, currency), wallet)));
        let mut all = Vec::new();
        all.extend(self.users.into_iter().map(|(user, country)| Row::User(user, country)));
        all.extend(self.claims.into_iter().map(|(user, zone)| Row::Claim(user, zone)));
        all.extend(wallets.map(|(key, wallet)| Row::Wallet(key, wallet)));
        all.extend(self.methods.into_iter().map(|((user, _), method)| Row::Method(user, method)));
        all.extend(self.lines.into_values().map(Row::Line));
        all.extend(self.payments.into_values().map(Row::Payment));
        all.extend(self.requests.into_iter().map(|(sequence, (id, at))| Row::Request(sequence, id, at)));
        all
    }

    fn methods(&self, user: UserId) -> impl Iterator<Item = &PaymentMethod> {
        self.methods.range((user, Sequence(0))..=(user, Sequence(u64::MAX))).map(|(_, method)| method)
    }

    fn forget_hold(&mut self, payment: &Payment) {
        payment.expires_at.map(|expires_at| self.held.remove(&(expires_at, payment.sequence)));
        self.in_progress.remove(&payment.sequence);
    }

    fn note_hold(&mut self, payment: &Payment) {
        let asked = payment.card.as_deref().is_some_and(|charge| !charge.operations.is_empty());
        if asked {
            self.in_progress.insert(payment.sequence);
        }
        if let Some(expires_at) = payment.expires_at
            && matches!(payment.phase, Phase::Authorized | Phase::ActionRequired)
            && !asked
        {
            self.held.insert((expires_at, payment.sequence));
        }
    }

    fn payment(&self, sequence: Sequence) -> Option<PaymentRow> {
        let row = self.payments.get(&sequence)?;
        let delivered = row.payment.payee_shard.as_ref().and_then(|shard| self.delivered.get(shard));
        Some(PaymentRow { delivered: delivered.copied().unwrap_or_default(), ..row.clone() })
    }
}

/// A copy of all rows.
#[derive(Debug)]
struct MemorySnapshot {
    cursor: Sequence,
    books: Records,
    rows: VecDeque<Row>,
}

#[async_trait]
impl Snapshot for MemorySnapshot {
    fn cursor(&self) -> Sequence {
        self.cursor
    }

    fn books(&self) -> &Records {
        &self.books
    }

    async fn next(&mut self) -> Result<Vec<Row>, Error> {
        Ok(self.rows.drain(..self.rows.len().min(SNAPSHOT_ROWS)).collect())
    }
}

impl Machine {
    /// The disk for a read.
    pub(super) fn reading(&self) -> Result<MutexGuard<'_, Disk>, Error> {
        let mut disk = self.disk()?;
        match disk.fault(Operation::Read) {
            None => Ok(disk),
            Some(fault) => {
                disk.down = matches!(fault, Fault::PowerCutBefore | Fault::PowerCutAfter);
                Err(self.injected(fault))
            }
        }
    }
}

/// Follows a chain from `newest` backwards.
fn walk<K: Copy, V>(newest: K, limit: u32, row: impl Fn(K) -> Option<V>, previous: impl Fn(&V) -> K) -> Vec<V> {
    let mut rows = Vec::new();
    let mut next = newest;
    while rows.len() < limit.min(LINES_WALKED_MAX) as usize
        && let Some(found) = row(next)
    {
        next = previous(&found);
        rows.push(found);
    }
    rows
}

impl MemoryTables {
    /// Only tables that nothing was projected to are made from a checkpoint.
    fn empty(&self) -> Result<(), Error> {
        let cursor = self.machine.disk()?.tables.rows.cursor;
        if cursor > Sequence(0) { Err(Error::NotNext { head: cursor, offered: Sequence(0) }) } else { Ok(()) }
    }

    fn change(&self, change: Change) -> Result<(), Error> {
        let mut disk = self.machine.disk()?;
        let fault = disk.fault(Operation::Project);
        if matches!(fault, None | Some(Fault::Ambiguous | Fault::PowerCutAfter | Fault::Unsynced)) {
            disk.tables.change(change);
        }
        disk.down = matches!(fault, Some(Fault::PowerCutBefore | Fault::PowerCutAfter));
        fault.map_or(Ok(()), |fault| Err(self.machine.injected(fault)))
    }
}

#[async_trait]
impl Tables for MemoryTables {
    async fn cursor(&self) -> Result<Sequence, Error> {
        Ok(self.machine.reading()?.tables.rows.cursor)
    }

    async fn project(&self, projection: &Projection) -> Result<(), Error> {
        self.machine.projections.pass().await;
        let mut disk = self.machine.disk()?;
        let rows = &disk.tables.rows;
        if rows.cursor != projection.after {
            return Err(Error::NotNext { head: rows.cursor, offered: projection.after.next() });
        }
        if let Some(what) = rows.conflict(projection) {
            return Err(self.machine.failed(&format!("{what} is there already")));
        }
        let fault = disk.fault(Operation::Project);
        if matches!(fault, None | Some(Fault::Ambiguous | Fault::PowerCutAfter | Fault::Unsynced)) {
            disk.tables.change(Change::Project(Arc::new(projection.clone())));
        }
        disk.down = matches!(fault, Some(Fault::PowerCutBefore | Fault::PowerCutAfter));
        fault.map_or(Ok(()), |fault| Err(self.machine.injected(fault)))
    }

    async fn books(&self) -> Result<Records, Error> {
        let disk = self.machine.reading()?;
        let rows = &disk.tables.rows;
        Ok(Records {
            system: rows.system.iter().map(|(key, balance)| (key.clone(), *balance)).collect(),
            inbox: rows.inbox.iter().map(|(shard, cursor)| (shard.clone(), *cursor)).collect(),
            delivered: rows.delivered.iter().map(|(shard, sequence)| (shard.clone(), *sequence)).collect(),
            monitored: rows.monitored.clone(),
            newest_request_ms: Some(rows.newest_request_ms),
            ..Records::default()
        })
    }

    async fn records(&self, missing: &Missing) -> Result<Records, Error> {
        fn found<K: Copy, V: Clone>(keys: &[K], get: impl Fn(&K) -> Option<V>) -> Vec<(K, V)> {
            keys.iter().filter_map(|key| Some((*key, get(key)?))).collect()
        }
        let disk = self.machine.reading()?;
        let rows = &disk.tables.rows;
        Ok(Records {
            users: found(&missing.users, |user| rows.users.get(user).copied()),
            wallets: found(&missing.wallets, |key| rows.wallet(key).copied()),
            payments: missing.payments.iter().filter_map(|sequence| Some(rows.payments.get(sequence)?.payment.clone())).collect(),
            requests: found(&missing.requests, |id| rows.request_ids.get(id).copied()),
            claims: found(&missing.claims, |user| rows.claims.get(user).cloned()),
            methods: missing.methods.iter().flat_map(|user| rows.methods(*user).map(|method| (*user, method.clone()))).collect(),
            ..Records::default()
        })
    }

    async fn wallets(&self, user: UserId) -> Result<Vec<(Currency, Wallet)>, Error> {
        let disk = self.machine.reading()?;
        let mine = disk.tables.rows.wallets.get(&user).into_iter().flatten();
        Ok(mine.map(|(currency, wallet)| (*currency, *wallet)).collect())
    }

    async fn methods(&self, user: UserId) -> Result<Vec<PaymentMethod>, Error> {
        Ok(self.machine.reading()?.tables.rows.methods(user).cloned().collect())
    }

    async fn user(&self, user: UserId) -> Result<Option<Country>, Error> {
        Ok(self.machine.reading()?.tables.rows.users.get(&user).copied())
    }

    async fn claims(&self, users: &[UserId]) -> Result<Vec<(UserId, ZoneName)>, Error> {
        let missing = Missing { claims: users.to_vec(), ..Missing::default() };
        Ok(self.records(&missing).await?.claims)
    }

    async fn request(&self, id: RequestId) -> Result<Option<Sequence>, Error> {
        Ok(self.machine.reading()?.tables.rows.request_ids.get(&id).copied())
    }

    async fn lines(&self, newest: LineId, limit: u32) -> Result<Vec<Line>, Error> {
        let disk = self.machine.reading()?;
        Ok(walk(newest, limit, |id| disk.tables.rows.lines.get(&id).cloned(), |line| line.previous))
    }

    async fn payment(&self, sequence: Sequence) -> Result<Option<PaymentRow>, Error> {
        Ok(self.machine.reading()?.tables.rows.payment(sequence))
    }

    async fn payments(&self, newest: Sequence, limit: u32) -> Result<Vec<PaymentRow>, Error> {
        let disk = self.machine.reading()?;
        Ok(walk(newest, limit, |sequence| disk.tables.rows.payment(sequence), |row| row.previous))
    }

    async fn expired(&self, now: Timestamp, limit: u32) -> Result<Vec<Sequence>, Error> {
        let disk = self.machine.reading()?;
        let due = disk.tables.rows.held.iter().take_while(|(expires_at, _)| *expires_at <= now);
        Ok(due.take(limit as usize).map(|(_, sequence)| *sequence).collect())
    }

    async fn in_progress(&self, after: Sequence, limit: u32) -> Result<Vec<Payment>, Error> {
        let disk = self.machine.reading()?;
        let rows = &disk.tables.rows;
        let found = rows.in_progress.range(after.next()..).take(limit as usize).filter_map(|sequence| rows.payments.get(sequence));
        Ok(found.map(|row| row.payment.clone()).collect())
    }

    async fn purge_requests(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let mut disk = self.machine.disk()?;
        let oldest = disk.tables.rows.requests.iter().take(limit as usize);
        let due: Vec<Sequence> = oldest.filter(|(_, (_, at))| *at < before).map(|(sequence, _)| *sequence).collect();
        if let Some(up_to) = due.last() {
            disk.tables.change(Change::Purge { up_to: *up_to });
        }
        Ok(due.len() as u64)
    }

    async fn clear(&self) -> Result<(), Error> {
        self.change(Change::Clear)
    }

    async fn restore(&self, rows: &[Row]) -> Result<(), Error> {
        self.empty()?;
        self.change(Change::Restore(Arc::new(rows.to_vec())))
    }

    async fn restored(&self, sequence: Sequence, books: &Records) -> Result<(), Error> {
        self.empty()?;
        self.change(Change::Restored(sequence, Arc::new(books.clone())))
    }

    async fn close(&self) {}

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        let books = self.books().await?;
        let rows = self.machine.reading()?.tables.rows.clone();
        Ok(Box::new(MemorySnapshot { cursor: rows.cursor, books, rows: rows.all().into() }))
    }
}
