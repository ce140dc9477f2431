//! What the tests of the ledger share.

pub(crate) mod network;
pub(crate) mod table;
