//! The proof of one shard's books: the chain, the entries added up again, and the tables compared with them.

use std::collections::BTreeMap;

use paymesh_journal::{Chain, Hash};
use paymesh_ledger::{Account, Audit};
use paymesh_types::{Currency, Epoch, Position, Sequence, ShardRef, UserId};

use crate::{Error, Shard};

/// Payload bytes read at once.
const READ_BYTES: usize = 4 << 20;
/// Accounts compared at once.
const WALLETS_PAGE: u32 = 10_000;
/// Problems reported at most; the first says the most.
const PROBLEMS_MAX: usize = 20;

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
pub async fn verify(shard: &Shard, sent_by: &[(ShardRef, Sequence)], mut progress: impl FnMut(Sequence, Sequence) + Send) -> Result<Report, Error> {
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
    shard.inner.projected.wait_for(reader.audit.position()).await;
    let gate = shard.inner.projected.gate().await;
    let cursor = shard.inner.projected.get();
    reader.read_to(cursor, &mut progress).await?;
    if reader.problems.is_empty() {
        reader.compare().await?;
    }
    drop(gate);
    let Reader { chain, audit, sent_by, mut problems, .. } = reader;
    for (currency, sums) in audit.sums() {
        let total = sums.wallets + sums.external + sums.clearing;
        if total != 0 {
            problems.push(format!("all accounts in {currency} sum to {total} minor units, not to zero"));
        }
    }
    let position = Position { shard: shard.reference().clone(), epoch: if chain.epoch() == Epoch(0) { shard.epoch() } else { chain.epoch() }, sequence: audit.position() };
    problems.truncate(PROBLEMS_MAX);
    Ok(Report { position, chain_hash: chain.hash(), problems, audit, sent_by })
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
                for (position, entry) in entries.iter().filter(|(position, _)| position.sequence > self.audit.position() && position.sequence <= to).collect::<Vec<_>>() {
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

    /// Compares the tables with the entries: every account, the clearing accounts, the cursors.
    async fn compare(&mut self) -> Result<(), Error> {
        let tables = &self.shard.store().tables;
        let failed = |source| Error::Storage { shard: self.shard.reference().clone(), source };
        let mut after: Option<(UserId, Currency)> = None;
        let mut moved = 0;
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
        Ok(())
    }
}
