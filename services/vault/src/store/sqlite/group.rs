//! Cards and keys that come at the same time share a commit: each would wait for the disk by itself otherwise, one after the other.
//!
//! Whoever has the turn writes what has queued up until then, in one transaction, and tells the others. There is no task of its own that could die, and who
//! is alone waits for nobody.

use std::sync::{Mutex, PoisonError};

use sqlx::SqliteConnection;
use tokio::sync::{Mutex as Turn, oneshot};

use super::SqliteStore;
use crate::store::{AddedCard, AddedKey, Error, NewCard, WrappedKey};

/// Writes of a commit at most.
const WRITES_MAX: usize = 256;

/// What is to be written.
pub(super) enum Write {
    Key(WrappedKey),
    Card(NewCard),
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Wrote {
    Key(AddedKey),
    Card(AddedCard),
}

type Told = oneshot::Sender<Result<Wrote, Error>>;

/// What waits for the next commit. Bounded by the calls that a node takes.
#[derive(Default)]
pub(super) struct Group {
    waiting: Mutex<Vec<(Write, Told)>>,
    turn: Turn<()>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Group")
    }
}

impl Group {
    fn next(&self) -> Vec<(Write, Told)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Whose caller has gone before its turn came was told nothing, and nothing is done.
        waiting.retain(|(_, told)| !told.is_closed());
        let many = waiting.len().min(WRITES_MAX);
        waiting.drain(..many).collect()
    }
}

impl SqliteStore {
    /// Writes it durably, with whatever else is to be written now.
    pub(super) async fn write(&self, write: Write) -> Result<Wrote, Error> {
        let (tell, mut told) = oneshot::channel();
        self.group.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((write, tell));
        loop {
            tokio::select! {
                biased;
                told = &mut told => return told.unwrap_or_else(|_| Err(self.died())),
                _turn = self.group.turn.lock() => {
                    // Also where this caller is gone in the middle: others wait for it.
                    let store = self.clone();
                    let written = tokio::spawn(async move { store.write_all(store.group.next()).await }).await;
                    if written.is_err() {
                        return Err(self.died());
                    }
                }
            }
        }
    }

    /// Whether it was written is not known; the same request finds out.
    fn died(&self) -> Error {
        Error::Engine { place: self.place.to_string(), source: "the task that wrote to it died".into() }
    }

    async fn write_all(&self, writes: Vec<(Write, Told)>) {
        let (writes, mut told): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        match self.write_together(&writes).await {
            Ok(wrote) => told.into_iter().zip(wrote).for_each(|(told, wrote)| drop(told.send(Ok(wrote)))),
            Err(error) if writes.len() == 1 => drop(told.remove(0).send(Err(error))),
            // One of them cannot be written, or none: which, each finds out by itself.
            Err(_) => {
                for (write, told) in writes.iter().zip(told) {
                    let wrote = self.write_together(std::slice::from_ref(write)).await;
                    drop(told.send(wrote.map(|mut wrote| wrote.pop().expect("one for one"))));
                }
            }
        }
    }

    async fn write_together(&self, writes: &[Write]) -> Result<Vec<Wrote>, Error> {
        let mut transaction = self.begin().await?;
        let mut wrote = Vec::with_capacity(writes.len());
        for write in writes {
            wrote.push(self.write_in(&mut transaction, write).await?);
        }
        self.commit(transaction).await?;
        Ok(wrote)
    }

    async fn write_in(&self, connection: &mut SqliteConnection, write: &Write) -> Result<Wrote, Error> {
        Ok(match write {
            Write::Key(key) => Wrote::Key(self.add_key_in(connection, key).await?),
            Write::Card(card) => Wrote::Card(self.add_card_in(connection, card).await?),
        })
    }
}
