//! The proof of one shard's books: the chain, the entries added up again, and the tables compared with them.

mod rows;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use paymesh_journal::{Chain, Committed, Corrupt, Error as JournalError, Hash, Holding, Journal, Row, Segment, Snapshot, checkpoint};
use paymesh_ledger::{Account, Audit, Wallet};
use paymesh_types::{Currency, Cursor, Epoch, Position, Sequence, ShardRef, Timestamp, UserId};

use crate::{Error, Replica, Shard, base::Base};
use rows::Rows;

/// Payload bytes read at once.
const READ_BYTES: usize = 4 << 20;
/// Problems reported at most; the first says the most.
const PROBLEMS_MAX: usize = 20;
/// Request ids that are about to be forgotten are not compared: a check takes less than this.
const CHECK_MAX: Duration = Duration::from_secs(3_600);

/// What the check of a shard found.
#[derive(Debug)]
pub struct Report {
    /// The position it was checked at.
    pub position: Position,
    /// The chain's hash there; zeros for an empty journal.
    pub chain_hash: Hash,
    /// What is wrong; empty when nothing is.
    pub problems: Vec<String>,
    /// The books.
    pub audit: Audit,
    /// What had been sent to other shards by the entries asked for, in minor units.
    pub sent_by: BTreeMap<(ShardRef, Currency), i64>,
}

/// What the check of a replica found.
#[derive(Debug)]
pub struct ReplicaReport {
    /// The last entry that was checked.
    pub sequence: Sequence,
    /// The hash of the segment that holds the entry asked for; `None` when the replica has not come so far.
    pub hash_at: Option<Hash>,
    /// What is wrong; empty when nothing is.
    pub problems: Vec<String>,
}

/// Reads the whole journal of a shard, checks its chain, adds its entries up, and compares the tables with the result.
/// `sent_by` asks for what had been sent to each of those shards by that entry. `progress` hears the last entry read.
///
/// The tables are compared as they are at one moment; payments go on meanwhile.
///
/// # Errors
/// The storage failed otherwise than by being corrupt, which is a finding.
pub async fn verify(
    shard: &Shard,
    sent_by: &[(ShardRef, Sequence)],
    mut progress: impl FnMut(Sequence, Sequence) + Send,
) -> Result<Report, Error> {
    let inner = &shard.inner;
    let _check = inner.base.check().await;
    let since = recorded_since(Timestamp(inner.last_at.load(Ordering::Relaxed)), inner.options.outcome_retention);
    let mut reader = Reader::new(shard.reference(), &inner.base.store.journal, since);
    reader.wanted = sent_by.iter().cloned().collect();
    reader.prove(&inner.base, shard.stopped(), since, &mut progress).await?;
    reader.complete_sent();
    let Reader { chain, audit, sent_by, problems, .. } = reader;
    let position = Position {
        shard: shard.reference().clone(),
        epoch: if chain.epoch() == Epoch(0) { shard.epoch() } else { chain.epoch() },
        sequence: audit.position(),
    };
    Ok(Report { position, chain_hash: chain.hash(), problems, audit, sent_by })
}

/// The same for a replica, as far as it holds the entries: where it holds what concerns its zone only, the chain and what is
/// held are checked. The hash asked for by `at` is what the leader has at the same entry, if it is the leader's journal.
///
/// # Errors
/// The storage failed otherwise than by being corrupt, which is a finding.
pub async fn verify_replica(
    replica: &Replica,
    at: Sequence,
    mut progress: impl FnMut(Sequence, Sequence) + Send,
) -> Result<ReplicaReport, Error> {
    let _check = match replica.base() {
        Some(base) => Some(base.check().await),
        None => None,
    };
    let since = recorded_since(replica.last_at(), replica.outcome_retention());
    let mut reader = Reader::new(replica.reference(), replica.journal(), since);
    reader.hash_of = at;
    match replica.base() {
        Some(base) => reader.prove(base, replica.stopped(), since, &mut progress).await?,
        None => {
            reader.chain = Chain::after(replica.reference().clone(), &replica.tail().origin().await?);
            reader.check_chain(replica.holding(), replica.tail().head(), &mut progress).await?;
        }
    }
    Ok(ReplicaReport { sequence: reader.chain.last(), hash_at: reader.hash_at, problems: reader.problems })
}

/// Request ids that were recorded from then on are there: nothing more is forgotten once a check has begun.
fn recorded_since(last_at: Timestamp, retention: Duration) -> Timestamp {
    let kept = u64::try_from(retention.saturating_sub(CHECK_MAX).as_micros()).unwrap_or(u64::MAX);
    Timestamp(last_at.0.saturating_sub(kept))
}

struct Reader<'a> {
    name: &'a ShardRef,
    journal: &'a Arc<dyn Journal>,
    chain: Chain,
    audit: Audit,
    /// What the entries come to.
    rows: Rows,
    sent_by: BTreeMap<(ShardRef, Currency), i64>,
    wanted: BTreeMap<ShardRef, Sequence>,
    /// The entry whose segment's hash is asked for, and the hash.
    hash_of: Sequence,
    hash_at: Option<Hash>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(name: &'a ShardRef, journal: &'a Arc<dyn Journal>, recorded_since: Timestamp) -> Self {
        Self {
            name,
            journal,
            chain: Chain::start(name.clone()),
            audit: Audit::default(),
            rows: Rows::new(recorded_since),
            sent_by: BTreeMap::new(),
            wanted: BTreeMap::new(),
            hash_of: Sequence(0),
            hash_at: None,
            problems: Vec::new(),
        }
    }

    /// Reads the journal and compares the tables with it.
    async fn prove(
        &mut self,
        base: &Base,
        stopped: impl Future<Output = String>,
        recorded_since: Timestamp,
        progress: &mut (impl FnMut(Sequence, Sequence) + Send),
    ) -> Result<(), Error> {
        self.begin(base, progress).await?;
        self.read_to(base.tail.head(), progress).await?;
        // The tables are compared as of an entry that is at least as far as what was read.
        let read_to = self.audit.position();
        tokio::select! {
            biased;
            () = base.projected.wait_for(read_to) => {}
            why = stopped => {
                let cursor = base.projected.get();
                self.problems.push(format!("the tables stopped at entry {cursor} of {read_to}: {why}"));
            }
        }
        let snapshot = base.store.tables.snapshot().await.map_err(|source| self.failed(source))?;
        self.read_to(snapshot.cursor(), progress).await?;
        if self.problems.is_empty() {
            self.compare(snapshot, Rows::new(recorded_since)).await?;
        }
        for (currency, sums) in self.audit.sums() {
            let total = sums.total();
            if total != 0 {
                self.problems.push(format!("all accounts in {currency} sum to {total} minor units, not to zero"));
            }
        }
        self.problems.truncate(PROBLEMS_MAX);
        Ok(())
    }

    /// Where the journal does not begin with its first entry, starts from the rows of the checkpoint that stands for what came
    /// before, and checks the journal up to there.
    async fn begin(&mut self, base: &Base, progress: &mut (impl FnMut(Sequence, Sequence) + Send)) -> Result<(), Error> {
        let origin = base.tail.origin().await?;
        if origin.sequence == Sequence(0) {
            return Ok(());
        }
        self.chain = Chain::after(self.name.clone(), &origin);
        let Some(manifest) = base.store.checkpoints.latest().await.map_err(|source| self.failed(source))? else {
            self.problems.push(format!("the journal begins after entry {}, and there is no checkpoint", origin.sequence));
            return Ok(());
        };
        self.audit = Audit::resume(manifest.sequence, manifest.committed_at, &manifest.books);
        let mut reader = checkpoint::Reader::new(&base.store.checkpoints, &manifest);
        loop {
            let rows = match reader.next().await {
                Ok(rows) => rows,
                Err(JournalError::Corrupt(corrupt)) => {
                    self.problems.push(corrupt.to_string());
                    return Ok(());
                }
                Err(source) => return Err(self.failed(source)),
            };
            if rows.is_empty() {
                break;
            }
            rows.iter().for_each(|row| self.resume(row));
            tokio::task::yield_now().await;
        }
        // A copy may have begun with a checkpoint that its journal has not come to yet.
        self.check_chain(&Holding::Whole, manifest.sequence.min(base.tail.head()), progress).await?;
        if self.chain.last() == manifest.sequence && self.chain.hash() != manifest.hash {
            self.problems.push(format!("the checkpoint as of entry {} is of another journal", manifest.sequence));
        }
        Ok(())
    }

    fn resume(&mut self, row: &Row) {
        self.rows.add_row(row);
        match row {
            Row::Wallet(key, wallet) => self.audit.resume_account(*key, *wallet),
            Row::User(..) => self.audit.resume_user(),
            Row::Payment(row) => self.audit.resume_payment(&row.payment),
            Row::Method(user, _) => self.audit.resume_method(*user),
            Row::Claim(..) | Row::Line(_) | Row::Request(..) => {}
        }
    }

    /// Checks the chain up to `to`, and that what is held of the entries has the hashes that it gives them.
    async fn check_chain(
        &mut self,
        holding: &Holding,
        to: Sequence,
        progress: &mut (impl FnMut(Sequence, Sequence) + Send),
    ) -> Result<(), Error> {
        while self.chain.last() < to && self.problems.is_empty() {
            let segments = self.segments(self.chain.last().next()).await?;
            for segment in &segments {
                match self.link(segment).and_then(|()| holding.entries(segment, self.name)) {
                    Ok(entries) => entries.iter().for_each(|(position, entry)| self.note_sent(position, entry)),
                    Err(corrupt) => {
                        self.problems.push(corrupt.to_string());
                        break;
                    }
                }
            }
            progress(self.chain.last(), to);
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn segments(&mut self, from: Sequence) -> Result<Vec<Segment>, Error> {
        let segments = self.journal.read(from, READ_BYTES).await.map_err(|source| self.failed(source))?;
        if segments.is_empty() {
            self.problems.push(format!("the journal ends before entry {from}"));
        }
        Ok(segments)
    }

    fn link(&mut self, segment: &Segment) -> Result<(), Corrupt> {
        self.chain.link(segment)?;
        if (segment.first..=segment.last()).contains(&self.hash_of) {
            self.hash_at = Some(segment.hash);
        }
        Ok(())
    }

    /// Reads on until `to` is read. Entries of a segment past `to` are left for the next call, which reads it again.
    async fn read_to(&mut self, to: Sequence, progress: &mut (impl FnMut(Sequence, Sequence) + Send)) -> Result<(), Error> {
        let name = self.name;
        while self.audit.position() < to && self.problems.is_empty() {
            let from = self.audit.position().next();
            let segments = self.segments(from).await?;
            for segment in &segments {
                if segment.first > self.chain.last()
                    && let Err(corrupt) = self.link(segment)
                {
                    self.problems.push(corrupt.to_string());
                    break;
                }
                let entries = match segment.entries(name) {
                    Ok(entries) => entries,
                    Err(corrupt) => {
                        self.problems.push(corrupt.to_string());
                        break;
                    }
                };
                let read = self.audit.position();
                let wanted = entries.into_iter().filter(|(position, _)| position.sequence > read && position.sequence <= to);
                let entries: Vec<Committed> = wanted.collect();
                for (position, entry) in &entries {
                    if let Err(problem) = self.audit.take(position, entry) {
                        self.problems.push(problem.to_string());
                        return Ok(());
                    }
                    self.note_sent(position, entry);
                }
                if !entries.is_empty() {
                    self.rows.add_entries(&entries);
                }
                progress(self.audit.position(), to);
                if self.audit.position() >= to {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn note_sent(&mut self, position: &Position, entry: &paymesh_ledger::Entry) {
        for posting in &entry.postings {
            let Account::Sent(peer) = &posting.account else { continue };
            let Some(until) = self.wanted.get(peer) else { continue };
            let key = (peer.clone(), posting.currency);
            if position.sequence <= *until {
                self.sent_by.insert(key, posting.balance_after);
            } else {
                // What had been sent before the first that came later, where what was sent last is not kept.
                self.sent_by.entry(key).or_insert(posting.balance_after.saturating_sub(posting.amount));
            }
        }
    }

    /// Where nothing that is kept was sent, what had been sent before.
    fn complete_sent(&mut self) {
        let totals = self.audit.system().filter_map(|(account, currency, balance)| match account {
            Account::Sent(peer) if self.wanted.contains_key(peer) => Some(((peer.clone(), currency), balance)),
            _ => None,
        });
        for (key, balance) in totals.collect::<Vec<_>>() {
            self.sent_by.entry(key).or_insert(balance);
        }
    }

    fn failed(&self, source: paymesh_journal::Error) -> Error {
        Error::of_storage(self.name, source)
    }

    /// Compares the tables with the entries, row by row or in sums of rows.
    async fn compare(&mut self, mut snapshot: Box<dyn Snapshot>, mut tables: Rows) -> Result<(), Error> {
        let mut accounts = 0;
        loop {
            let page = snapshot.next().await.map_err(|source| self.failed(source))?;
            if page.is_empty() {
                break;
            }
            for row in &page {
                tables.add_row(row);
                if let Row::Wallet(key, wallet) = row {
                    accounts += 1;
                    self.compare_account(*key, wallet);
                }
            }
            tokio::task::yield_now().await;
        }
        if accounts < self.audit.wallets() {
            self.problems.push(format!(
                "the tables lack {} of the journal's {} accounts",
                self.audit.wallets() - accounts,
                self.audit.wallets()
            ));
        }
        self.problems.extend(self.rows.compare(&tables));
        self.compare_books(snapshot.books());
        Ok(())
    }

    fn compare_account(&mut self, (user, currency): (UserId, Currency), found: &Wallet) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let Some(wallet) = self.audit.wallet(user, currency) else {
            self.problems.push(format!("the tables have an account of user {user} in {currency}, the journal has none"));
            return;
        };
        if (found.balance, found.held) != (wallet.balance, wallet.held) {
            self.problems.push(format!(
                "the tables give user {user} {} {currency} minor units with {} held, the journal {} with {}",
                found.balance, found.held, wallet.balance, wallet.held
            ));
        } else if found != wallet {
            self.problems.push(format!("the tables say of user {user}'s account in {currency} {found:?}, the journal {wallet:?}"));
        }
    }

    fn compare_books(&mut self, books: &paymesh_ledger::Records) {
        let mut ours: Vec<_> = self.audit.system().map(|(account, currency, balance)| ((account.clone(), currency), balance)).collect();
        let mut theirs = books.system.clone();
        ours.sort_unstable();
        theirs.sort_unstable();
        if ours != theirs {
            self.problems.push("the clearing accounts in the tables are not those of the journal".to_owned());
        }
        fn cursors<T: Copy>(all: &[(ShardRef, T)]) -> impl Iterator<Item = (&ShardRef, T)> {
            all.iter().map(|(shard, cursor)| (shard, *cursor))
        }
        fn unmarked((shard, sequence): (&ShardRef, Sequence)) -> (&ShardRef, Cursor) {
            (shard, sequence.into())
        }
        fn known<'a>(cursors: impl Iterator<Item = (&'a ShardRef, Cursor)>) -> BTreeMap<&'a ShardRef, Cursor> {
            cursors.filter(|(_, cursor)| cursor.sequence > Sequence(0)).collect()
        }
        let (mut read, theirs) = (known(self.audit.inbox()), known(cursors(&books.inbox)));
        for (shard, cursor) in &mut read {
            // A version before projected it, which noted no marks.
            if theirs.get(shard).is_some_and(|theirs| theirs.mark.is_none()) {
                cursor.mark = None;
            }
        }
        for (what, ours, theirs) in [
            ("how far other shards were read", read, theirs),
            (
                "how far other shards took in what was sent",
                known(self.audit.delivered().map(unmarked)),
                known(cursors(&books.delivered).map(unmarked)),
            ),
        ] {
            if ours != theirs {
                self.problems.push(format!("the tables and the journal differ in {what}"));
            }
        }
        if books.monitored != *self.audit.monitored() {
            self.problems.push("the tables and the journal differ in what payments by card come to".to_owned());
        }
        if books.newest_request_ms != Some(self.audit.newest_request_ms()) {
            self.problems.push("the tables and the journal differ in the newest request id".to_owned());
        }
    }
}
