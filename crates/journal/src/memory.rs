//! The engine that forgets: a shard's storage in memory, for tests and simulation, with what may befall a disk.
//!
//! It promises what an engine must, and loses in a crash what an engine may lose: an append is there when it was synced,
//! which [`Journal::append`](crate::Journal::append) waits for; the tables sync now and then, so that after a crash they
//! are as they were some projections ago, rows and cursor alike. Everything that happens follows from the calls and the
//! seed. It does no I/O, and is no place to keep anything.

mod checkpoints;
mod faults;
mod journal;
mod tables;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

pub use checkpoints::MemoryCheckpoints;
pub use faults::{Dice, Fault, Faults, Operation};
pub use journal::MemoryJournal;
pub use tables::MemoryTables;

use crate::{Error, Identity, Store};

/// The storage of one shard, as a handle to it. Clones are handles to the same.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    machine: Arc<Machine>,
}

/// What the handles share.
#[derive(Debug)]
struct Machine {
    place: String,
    disk: Mutex<Disk>,
    appends: Hold,
    projections: Hold,
}

/// Where operations of a kind can be made to wait before anything is written.
#[derive(Debug)]
struct Hold {
    held: watch::Sender<bool>,
    /// How many wait.
    waiting: watch::Sender<usize>,
}

#[derive(Debug)]
struct Disk {
    identity: Identity,
    /// After a crash: nothing is done any more, whoever still holds a handle.
    down: bool,
    dice: Dice,
    faults: Faults,
    /// Faults that a test asked for by name: they come before those of the dice.
    scripted: VecDeque<Scripted>,
    journal: journal::Log,
    tables: tables::Lazy,
    checkpoints: checkpoints::Kept,
}

/// A fault to come.
#[derive(Debug)]
struct Scripted {
    operation: Operation,
    /// Operations of the kind that go well before.
    passes: usize,
    fault: Fault,
}

impl MemoryStore {
    /// An empty storage that does not fail.
    pub fn new(identity: &Identity) -> Self {
        Self::with_faults(identity, Faults::none())
    }

    /// An empty storage that fails as `faults` has it.
    pub fn with_faults(identity: &Identity, faults: Faults) -> Self {
        Self::of(Disk {
            identity: identity.clone(),
            down: false,
            dice: Dice::new(faults.seed),
            faults,
            scripted: VecDeque::new(),
            journal: journal::Log::new(&identity.shard),
            tables: tables::Lazy::default(),
            checkpoints: checkpoints::Kept::default(),
        })
    }

    fn of(disk: Disk) -> Self {
        let shard = &disk.identity.shard;
        let place = format!("memory of {}-{}", shard.zone, shard.index);
        let machine = Machine { place, disk: Mutex::new(disk), appends: Hold::new(), projections: Hold::new() };
        Self { machine: Arc::new(machine) }
    }

    /// Opens it, as often as wanted, as several processes would.
    ///
    /// # Errors
    /// It belongs to something else, or is down.
    pub fn open(&self, identity: &Identity) -> Result<Store, Error> {
        let disk = self.machine.disk()?;
        if disk.identity != *identity {
            let (found, wanted) = (disk.identity.to_string(), identity.to_string());
            return Err(Error::Identity { place: self.machine.place.clone(), found, wanted });
        }
        drop(disk);
        Ok(Store {
            journal: Arc::new(MemoryJournal { machine: self.machine.clone() }),
            tables: Arc::new(MemoryTables { machine: self.machine.clone() }),
            checkpoints: Arc::new(MemoryCheckpoints { machine: self.machine.clone() }),
        })
    }

    /// The machine stops, and another finds what was synced. Whoever still holds this one, or a store of it, gets errors
    /// from now on and can write no more. Scripted faults and held appends do not carry over; the dice roll on.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut disk = self.machine.lock();
        disk.down = true;
        let disk = &mut *disk;
        let journal = disk.journal.after_crash(&mut disk.dice);
        let tables = disk.tables.after_crash(&mut disk.dice);
        let checkpoints = disk.checkpoints.clone();
        Self::of(Disk {
            identity: disk.identity.clone(),
            down: false,
            dice: disk.dice.clone(),
            faults: disk.faults.clone(),
            scripted: VecDeque::new(),
            journal,
            tables,
            checkpoints,
        })
    }

    /// Whether it is down: by [`Self::crash`], or by a fault.
    pub fn is_down(&self) -> bool {
        self.machine.lock().down
    }

    /// From now on it fails as `faults` has it, and no longer as it was asked to. The dice go on where they are.
    pub fn set_faults(&self, faults: Faults) {
        let mut disk = self.machine.lock();
        disk.faults = faults;
        disk.scripted.clear();
    }

    /// Has the next operation of a kind end in a fault. Several asked for come in the order that they were asked for.
    pub fn fail_next(&self, operation: Operation, fault: Fault) {
        self.fail_after(0, operation, fault);
    }

    /// As [`Self::fail_next`], after so many operations of the kind that go well.
    pub fn fail_after(&self, passes: usize, operation: Operation, fault: Fault) {
        self.machine.lock().scripted.push_back(Scripted { operation, passes, fault });
    }

    /// From now on appends wait, before anything is written, for [`Self::release_appends`].
    pub fn hold_appends(&self) {
        self.machine.appends.held.send_replace(true);
    }

    /// Lets appends go on.
    pub fn release_appends(&self) {
        self.machine.appends.held.send_replace(false);
    }

    /// Waits until an append waits.
    pub async fn append_waits(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.machine.appends.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }

    /// From now on projections wait, before anything is written, for [`Self::release_projections`].
    pub fn hold_projections(&self) {
        self.machine.projections.held.send_replace(true);
    }

    /// Lets projections go on.
    pub fn release_projections(&self) {
        self.machine.projections.held.send_replace(false);
    }

    /// Whether a projection waits.
    pub fn projection_waits(&self) -> bool {
        *self.machine.projections.waiting.borrow() > 0
    }

    /// Changes what is stored behind everybody's back, as a bad disk does. Gives back whether there was such a segment.
    pub fn damage_segment(&self, first: paymesh_types::Sequence, damage: impl FnOnce(&mut crate::Segment)) -> bool {
        self.machine.lock().journal.damage(first, damage)
    }

    /// The storage as it is now, as an operator copies it to put it back one day. It does not fail.
    #[must_use]
    pub fn backup(&self) -> Self {
        let disk = self.machine.lock();
        Self::of(Disk {
            identity: disk.identity.clone(),
            down: false,
            dice: disk.dice.clone(),
            faults: Faults::none(),
            scripted: VecDeque::new(),
            journal: disk.journal.clone(),
            tables: disk.tables.clone(),
            checkpoints: disk.checkpoints.clone(),
        })
    }

    /// As [`Self::damage_segment`], for a chunk of the latest checkpoint.
    pub fn damage_chunk(&self, index: usize, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.machine.lock().checkpoints.damage(index, damage)
    }

    /// As [`Self::damage_segment`], for the tables, which are gone afterwards.
    pub fn lose_tables(&self) {
        self.machine.lock().tables = tables::Lazy::default();
    }

    /// As [`Self::damage_segment`], for an account of the tables.
    pub fn damage_wallet(
        &self,
        user: paymesh_types::UserId,
        currency: paymesh_types::Currency,
        damage: impl FnOnce(&mut paymesh_ledger::Wallet),
    ) -> bool {
        self.machine.lock().tables.damage_wallet((user, currency), damage)
    }

    /// As [`Self::damage_segment`], for a statement line, which is gone afterwards.
    pub fn lose_line(&self, line: paymesh_ledger::LineId) -> bool {
        self.machine.lock().tables.lose_line(line)
    }
}

impl Machine {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, where it works.
    fn disk(&self) -> Result<MutexGuard<'_, Disk>, Error> {
        let disk = self.lock();
        if disk.down { Err(self.failed("it is down")) } else { Ok(disk) }
    }

    fn failed(&self, what: &str) -> Error {
        Error::Engine { place: self.place.clone(), source: what.to_owned().into() }
    }

    /// What a fault looks like to the caller.
    fn injected(&self, fault: Fault) -> Error {
        match fault {
            Fault::Full => Error::Full { place: self.place.clone() },
            Fault::Refused => self.failed("injected: it failed and nothing was written"),
            Fault::Ambiguous => self.failed("injected: it failed after it was written"),
            Fault::Unsynced => self.failed("injected: it was written and not synced"),
            Fault::PowerCutBefore | Fault::PowerCutAfter => self.failed("it is down"),
        }
    }
}

impl Hold {
    fn new() -> Self {
        Self { held: watch::Sender::new(false), waiting: watch::Sender::new(0) }
    }

    /// Waits while it is held.
    async fn pass(&self) {
        if !*self.held.borrow() {
            return;
        }
        let _waiting = Waiting::new(&self.waiting);
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
    }
}

/// Counts one that waits, until it does no more.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
