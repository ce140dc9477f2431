//! The rows that a shard's entries come to, and those that its tables hold, as sums that can be compared.

use std::{collections::BTreeMap, hash::Hash};

use paymesh_journal::{Committed, Digest, Projection, Row};
use paymesh_ledger::{Body, PaymentMethod};
use paymesh_types::{Sequence, Timestamp};

/// Entries whose rows are summed up together: where sums differ, as many are named.
const RANGE_ENTRIES: u64 = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Users,
    Claims,
    Methods,
    Lines,
    Payments,
    /// What of a payment's row only its first entry says.
    FirstWords,
    Requests,
}

/// Sums of rows by kind and range of entries. Accounts are not among them: those are compared one by one.
#[derive(Debug)]
pub(super) struct Rows {
    digests: BTreeMap<(Kind, u64), Digest>,
    /// Request ids recorded earlier may have been forgotten.
    recorded_since: Timestamp,
}

impl Rows {
    pub(super) fn new(recorded_since: Timestamp) -> Self {
        Self { digests: BTreeMap::new(), recorded_since }
    }

    fn digest(&mut self, kind: Kind, sequence: Sequence) -> &mut Digest {
        self.digests.entry((kind, sequence.0 / RANGE_ENTRIES)).or_default()
    }

    fn add(&mut self, kind: Kind, sequence: Sequence, row: &impl Hash) {
        self.digest(kind, sequence).add(row);
    }

    /// Adds what entries come to, which follow those added before. A payment goes from the state that an entry must have
    /// found to the one that it left, and a payment method from what it was to nothing: where another was found, the sum is that of no
    /// rows.
    pub(super) fn add_entries(&mut self, entries: &[Committed]) {
        let projection = Projection::of(entries);
        projection.users.iter().for_each(|row| self.add(Kind::Users, Sequence(0), row));
        projection.claims.iter().for_each(|row| self.add(Kind::Claims, Sequence(0), row));
        projection.lines.iter().for_each(|line| self.add(Kind::Lines, line.id.sequence(), line));
        for row in &projection.created {
            self.add(Kind::FirstWords, row.payment.sequence, &(row.previous, &row.reference));
        }
        for (position, entry) in entries {
            match &entry.body {
                Body::MethodAdded { user, token } => {
                    let method = PaymentMethod { added: position.sequence, added_at: entry.at, token: token.clone() };
                    self.add(Kind::Methods, position.sequence, &(user, &method));
                }
                Body::MethodRemoved { user, method } => self.digest(Kind::Methods, method.added).remove(&(user, method)),
                _ => {}
            }
            if let Some(after) = entry.payment(position) {
                let payments = self.digest(Kind::Payments, after.sequence);
                if let Some(before) = entry.payment_before() {
                    payments.remove(&before);
                }
                payments.add(&after);
            }
        }
        for (sequence, id, at) in &projection.requests {
            self.add_request(*sequence, id, *at);
        }
    }

    fn add_request(&mut self, sequence: Sequence, id: &paymesh_types::RequestId, at: Timestamp) {
        if at >= self.recorded_since {
            self.add(Kind::Requests, sequence, &(sequence, id, at));
        }
    }

    /// Adds a row of the tables.
    pub(super) fn add_row(&mut self, row: &Row) {
        match row {
            Row::User(user, country) => self.add(Kind::Users, Sequence(0), &(user, country)),
            Row::Claim(user, zone) => self.add(Kind::Claims, Sequence(0), &(user, zone)),
            Row::Wallet(..) => {}
            Row::Method(user, method) => self.add(Kind::Methods, method.added, &(user, method)),
            Row::Line(line) => self.add(Kind::Lines, line.id.sequence(), line),
            Row::Payment(row) => {
                self.add(Kind::Payments, row.payment.sequence, &row.payment);
                self.add(Kind::FirstWords, row.payment.sequence, &(row.previous, &row.reference));
            }
            Row::Request(sequence, id, at) => self.add_request(*sequence, id, *at),
        }
    }

    /// What the tables hold otherwise than the entries, `self`, come to.
    pub(super) fn compare(&self, tables: &Self) -> Vec<String> {
        let mut keys: Vec<_> = self.digests.keys().chain(tables.digests.keys()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        let mut problems = Vec::new();
        for (kind, range) in keys {
            let of = |rows: &Self| rows.digests.get(&(kind, range)).copied().unwrap_or_default();
            let (ours, theirs) = (of(self), of(tables));
            if ours == theirs {
                continue;
            }
            let what = match kind {
                Kind::Users => "users".to_owned(),
                Kind::Claims => "users' zones".to_owned(),
                Kind::Methods => format!("payment methods added by entries {}", named(range)),
                Kind::Lines => format!("statement lines of entries {}", named(range)),
                Kind::Payments | Kind::FirstWords => format!("payments made by entries {}", named(range)),
                Kind::Requests => format!("request ids of entries {}", named(range)),
            };
            problems.push(format!("the tables and the journal differ in the {what}: {} rows against {}", theirs.rows, ours.rows));
        }
        problems
    }
}

fn named(range: u64) -> String {
    let first = range * RANGE_ENTRIES;
    format!("{} to {}", first.max(1), first + (RANGE_ENTRIES - 1))
}
