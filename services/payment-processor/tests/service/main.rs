//! The services through real generated clients, over shards with SQLite in a temporary folder.

#![forbid(unsafe_code)]

mod batches;
mod bytes;
mod cards;
mod directory;
mod events;
mod mandates;
mod methods;
mod operations;
mod payments;
mod reads;
mod regions;
mod support;
mod wallets;
