//! The proof of one shard's books: the chain, the entries added up again, and the tables compared with them.

use std::collections::BTreeMap;

use paymesh_journal::{Chain, Hash};
use paymesh_ledger::{Account, Audit, LineId};
use paymesh_types::{Currency, Epoch, Position, Sequence, ShardRef, UserId};

use crate::{Error, Shard};

/// Payload bytes read at once.
const READ_BYTES: usize = 4 << 20;
/// Accounts compared at once.
const WALLETS_PAGE: u32 = 10_000;
/// Problems reported at most; the first says the most.
const PROBLEMS_MAX: usize = 20;
/// Statement lines read at once.
const LINES_PAGE: u32 = 1_000;

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

/// Reads the whole journal of a shard, checks its chain, adds its entries up, and compares the tables with the result.
/// `sent_by` asks for what had been sent to each of those shards by that entry. `progress` hears the last entry read.
///
/// The tables stand still while they are compared; payments go on.
///
/// # Errors
/// The storage failed otherwise than by being corrupt, which is a finding.
pub async fn verify(
    shard: &Shard,
    sent_by: &[(ShardRef, Sequence)],
    mut progress: impl FnMut(Sequence, Sequence) + Send,
) -> Result<Report, Error> {
    let mut reader = Reader {
        shard,
        chain: Chain::start(shard.reference().clone()),
        audit: Audit::default(),
        sent_by: BTreeMap::new(),
        wanted: sent_by.iter().cloned().collect(),
        problems: Vec::new(),
    };
    reader.read_to(shard.tail().head(), &mut progress).await?;
    // From here on the tables stand still, at an entry that is at least as far as what was read.
    let read_to = reader.audit.position();
    tokio::select! {
        biased;
        () = shard.inner.projected.wait_for(read_to) => {}
        why = shard.stopped() => {
            let cursor = shard.inner.projected.get();
            reader.problems.push(format!("the tables stopped at entry {cursor} of {read_to}: {why}"));
        }
    }
    let gate = shard.inner.projected.gate().await;
    let cursor = shard.inner.projected.get();
    reader.read_to(cursor, &mut progress).await?;
    let mut statements = Vec::new();
    if reader.problems.is_empty() {
        statements = reader.compare().await?;
    }
    drop(gate);
    // Lines are only ever added, so that statements can be read while payments go on.
    for statement in statements {
        reader.add_up(statement).await?;
    }
    let Reader { chain, audit, sent_by, mut problems, .. } = reader;
    for (currency, sums) in audit.sums() {
        let total = sums.wallets + sums.external + sums.clearing;
        if total != 0 {
            problems.push(format!("all accounts in {currency} sum to {total} minor units, not to zero"));
        }
    }
    let position = Position {
        shard: shard.reference().clone(),
        epoch: if chain.epoch() == Epoch(0) { shard.epoch() } else { chain.epoch() },
        sequence: audit.position(),
    };
    problems.truncate(PROBLEMS_MAX);
    Ok(Report { position, chain_hash: chain.hash(), problems, audit, sent_by })
}

/// Where an account's statement begins, and what it must add up to.
struct Statement {
    user: UserId,
    currency: Currency,
    newest: LineId,
    balance: i64,
}

struct Reader<'a> {
    shard: &'a Shard,
    chain: Chain,
    audit: Audit,
    sent_by: BTreeMap<(ShardRef, Currency), i64>,
    wanted: BTreeMap<ShardRef, Sequence>,
    problems: Vec<String>,
}

impl Reader<'_> {
    /// Reads on until `to` is read. Entries of a segment past `to` are left for the next call, which reads it again.
    async fn read_to(&mut self, to: Sequence, progress: &mut (impl FnMut(Sequence, Sequence) + Send)) -> Result<(), Error> {
        let name = self.shard.reference();
        while self.audit.position() < to && self.problems.is_empty() {
            let from = self.audit.position().next();
            let segments = self.shard.store().journal.read(from, READ_BYTES).await;
            let segments = segments.map_err(|source| Error::Storage { shard: name.clone(), source })?;
            if segments.is_empty() {
                self.problems.push(format!("the journal ends before entry {from}"));
            }
            for segment in &segments {
                if segment.first > self.chain.last()
                    && let Err(corrupt) = self.chain.link(segment)
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
                for (position, entry) in entries
                    .iter()
                    .filter(|(position, _)| position.sequence > self.audit.position() && position.sequence <= to)
                    .collect::<Vec<_>>()
                {
                    if let Err(problem) = self.audit.take(position, entry) {
                        self.problems.push(problem.to_string());
                        return Ok(());
                    }
                    self.note_sent(position, entry);
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
            if let Account::Sent(peer) = &posting.account
                && self.wanted.get(peer).is_some_and(|until| position.sequence <= *until)
            {
                self.sent_by.insert((peer.clone(), posting.currency), posting.balance_after);
            }
        }
    }

    /// Compares the tables with the entries: every account, the clearing accounts, the cursors. Gives back the statements
    /// that are still to be added up.
    async fn compare(&mut self) -> Result<Vec<Statement>, Error> {
        let tables = &self.shard.store().tables;
        let failed = |source| Error::Storage { shard: self.shard.reference().clone(), source };
        let mut after: Option<(UserId, Currency)> = None;
        let mut moved = 0;
        let mut statements = Vec::new();
        let mut sums = BTreeMap::<Currency, (i128, i128)>::new();
        loop {
            let page = tables.all_wallets(after, WALLETS_PAGE).await.map_err(failed)?;
            for ((user, currency), wallet) in &page {
                let (balance, held) = self.audit.wallet(*user, *currency);
                if (wallet.balance, wallet.held) != (balance, held) && self.problems.len() < PROBLEMS_MAX {
                    self.problems.push(format!(
                        "the tables give user {user} {} {currency} minor units with {} held, the journal {balance} with {held}",
                        wallet.balance, wallet.held
                    ));
                }
                let sum = sums.entry(*currency).or_default();
                *sum = (sum.0 + i128::from(wallet.balance), sum.1 + i128::from(wallet.held));
                if wallet.last_line != LineId(0) || wallet.balance != 0 {
                    statements.push(Statement { user: *user, currency: *currency, newest: wallet.last_line, balance: wallet.balance });
                }
                moved += usize::from(wallet.last_line.0 != 0 || wallet.held != 0 || wallet.last_payment.0 != 0);
            }
            after = page.last().map(|(key, _)| *key);
            if page.len() < WALLETS_PAGE as usize {
                break;
            }
        }
        if moved > self.audit.wallets() {
            self.problems.push(format!("the tables hold {moved} accounts that moved, the journal {}", self.audit.wallets()));
        }
        for (currency, expected) in self.audit.sums() {
            let (wallets, held) = sums.remove(&currency).unwrap_or_default();
            if (wallets, held) != (expected.wallets, expected.held) {
                self.problems.push(format!(
                    "the accounts in {currency} come to {wallets} minor units with {held} held in the tables, to {} with {} in the journal",
                    expected.wallets, expected.held
                ));
            }
        }
        let books = tables.books().await.map_err(failed)?;
        let mut ours: Vec<_> = self.audit.system().map(|(account, currency, balance)| ((account.clone(), currency), balance)).collect();
        let mut theirs = books.system;
        ours.sort_unstable();
        theirs.sort_unstable();
        if ours != theirs {
            self.problems.push("the clearing accounts in the tables are not those of the journal".to_owned());
        }
        for (peer, sequence) in self.audit.inbox() {
            if !books.inbox.iter().any(|(shard, cursor)| shard == peer && *cursor == sequence) {
                self.problems.push(format!("the tables and the journal differ in how far {peer} was read"));
            }
        }
        Ok(statements)
    }

    /// Walks an account's statement to its first line: each line must give the balance that the next one begins with.
    async fn add_up(&mut self, statement: Statement) -> Result<(), Error> {
        let Statement { user, currency, newest, mut balance } = statement;
        let tables = &self.shard.store().tables;
        let mut next = newest;
        while next != LineId(0) && self.problems.len() < PROBLEMS_MAX {
            let page = tables.lines(next, LINES_PAGE).await;
            let page = page.map_err(|source| Error::Storage { shard: self.shard.reference().clone(), source })?;
            let fits = page.iter().all(|line| {
                let fits = (line.user, line.currency, line.balance) == (user, currency, balance) && line.previous < line.id;
                balance = balance.wrapping_sub(line.amount);
                fits
            });
            let Some(last) = page.last().filter(|_| fits) else {
                let what = if fits { "is missing a line" } else { "does not add up" };
                self.problems.push(format!("the statement of user {user} in {currency} {what} at line {} or before it", next.0));
                return Ok(());
            };
            next = last.previous;
        }
        if next == LineId(0) && balance != 0 {
            self.problems.push(format!("the statement of user {user} in {currency} begins with {balance} minor units"));
        }
        Ok(())
    }
}
