//! All rows of the tables as of one moment, to compare them with a journal.

use std::hash::{Hash, Hasher};

use async_trait::async_trait;
use paymesh_ledger::{Payment, PaymentMethod, Records, Wallet};
use paymesh_types::{Country, Currency, RequestId, Sequence, Timestamp, UserId, ZoneName};

use crate::{Error, Line, PaymentRow};

/// The tables as they were when it was taken, whatever is projected meanwhile.
///
/// While it is held, storage that was given free since stays taken: hold it no longer than the rows are read.
#[async_trait]
pub trait Snapshot: Send + std::fmt::Debug {
    /// The last entry that the tables held.
    fn cursor(&self) -> Sequence;

    /// The clearing accounts and the cursors on other shards.
    fn books(&self) -> &Records;

    /// The rows after those given before, some thousands; none at the end.
    ///
    /// # Errors
    /// The engine failed.
    async fn next(&mut self) -> Result<Vec<Row>, Error>;
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A user.
    User(UserId, Country),
    /// A user's zone, in the directory.
    Claim(UserId, ZoneName),
    /// An account.
    Wallet((UserId, Currency), Wallet),
    /// A card that a user keeps.
    Method(UserId, PaymentMethod),
    /// A line of a statement.
    Line(Line),
    /// A payment. How far it was delivered is not part of the row.
    Payment(PaymentRow),
    /// A request id, the entry it was recorded with and when.
    Request(Sequence, RequestId, Timestamp),
}

/// What rows come to, in whatever order they are added: equal for equal rows, and with a probability of 2^-64 or less for
/// others that come from damage. No proof against a forger, who can have the rows that add up to the same: the journal's
/// chain is that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// How many.
    pub rows: u64,
    sum: u128,
}

impl Digest {
    /// The sum as bytes, without the count.
    pub fn to_bytes(self) -> [u8; 16] {
        self.sum.to_le_bytes()
    }

    /// So many rows that come to a sum.
    pub fn from_bytes(rows: u64, sum: [u8; 16]) -> Self {
        Self { rows, sum: u128::from_le_bytes(sum) }
    }

    /// Adds a row.
    pub fn add(&mut self, row: &impl Hash) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(row));
    }

    /// Adds a row by its bytes: what it then comes to is the same for every build.
    pub fn add_bytes(&mut self, row: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(half(blake3::Hasher::new().update(row)));
    }

    /// Takes a row away. One that was not added leaves a digest that no rows have.
    pub fn remove(&mut self, row: &impl Hash) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(row));
    }

    /// Takes a payment from one state to another.
    pub fn replace(&mut self, before: &Payment, after: &Payment) {
        self.remove(before);
        self.add(after);
    }
}

fn hash(row: &impl Hash) -> u128 {
    struct Fields(blake3::Hasher);
    impl Hasher for Fields {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            unreachable!("the whole hash is taken, not 64 bits of it")
        }
    }
    let mut fields = Fields(blake3::Hasher::new());
    row.hash(&mut fields);
    half(&fields.0)
}

fn half(hasher: &blake3::Hasher) -> u128 {
    let mut half = [0; 16];
    hasher.finalize_xof().fill(&mut half);
    u128::from_le_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(rows: &[(u64, &str)]) -> Digest {
        let mut digest = Digest::default();
        rows.iter().for_each(|row| digest.add(row));
        digest
    }

    #[test]
    fn rows_count_and_their_order_does_not() {
        assert_eq!(digest(&[(1, "a"), (2, "b")]), digest(&[(2, "b"), (1, "a")]));
        for other in [&[(1, "a")][..], &[(1, "b"), (2, "a")], &[(1, "a"), (2, "b"), (2, "b")], &[(1, "a"), (3, "b")], &[]] {
            assert_ne!(digest(&[(1, "a"), (2, "b")]), digest(other), "{other:?}");
        }
        let mut taken = digest(&[(1, "a"), (2, "b"), (3, "c")]);
        taken.remove(&(2u64, "b"));
        assert_eq!(taken, digest(&[(1, "a"), (3, "c")]));
        taken.remove(&(9u64, "never there"));
        assert_ne!(taken, digest(&[(1, "a")]));
    }
}
