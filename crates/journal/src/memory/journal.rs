//! The journal in memory.

use std::sync::Arc;

use async_trait::async_trait;
use paymesh_types::{Epoch, Sequence, ShardRef};

use super::{Dice, Fault, Machine, Operation};
use crate::{Error, Head, Journal, Origin, Segment};

/// A handle to a journal in memory.
#[derive(Debug)]
pub struct MemoryJournal {
    pub(super) machine: Arc<Machine>,
}

/// What the journal holds.
#[derive(Debug, Clone)]
pub(super) struct Log {
    epoch: Epoch,
    origin: Origin,
    /// What was synced, and only that is read.
    segments: Vec<Arc<Segment>>,
    /// What was written and not synced. The next append overwrites it.
    unsynced: Vec<Arc<Segment>>,
}

impl Log {
    pub(super) fn new(shard: &ShardRef) -> Self {
        Self { epoch: Epoch(0), origin: Origin::beginning(shard), segments: Vec::new(), unsynced: Vec::new() }
    }

    /// The log as it is found after a crash: what was not synced may have reached the disk all the same.
    pub(super) fn after_crash(&self, dice: &mut Dice) -> Self {
        let mut segments = self.segments.clone();
        if dice.happens(500) {
            segments.extend(self.unsynced.iter().cloned());
        }
        Self { epoch: self.epoch, origin: self.origin.clone(), segments, unsynced: Vec::new() }
    }

    pub(super) fn damage(&mut self, first: Sequence, damage: impl FnOnce(&mut Segment)) -> bool {
        let found = self.segments.iter_mut().find(|segment| segment.first == first);
        found.map(|segment| damage(Arc::make_mut(segment))).is_some()
    }

    fn head(&self) -> Head {
        let Origin { epoch, sequence, hash, .. } = self.origin;
        let none = Head { epoch, sequence, hash: (sequence > Sequence(0)).then_some(hash) };
        self.segments.last().map_or(none, |last| Head { epoch: last.epoch, sequence: last.last(), hash: Some(last.hash) })
    }

    fn check(&self, segments: &[Arc<Segment>]) -> Result<(), Error> {
        let mut head = self.head().sequence;
        for segment in segments {
            self.check_one(head, segment)?;
            head = segment.last();
        }
        Ok(())
    }

    fn check_one(&self, head: Sequence, segment: &Segment) -> Result<(), Error> {
        if self.epoch > segment.epoch {
            return Err(Error::Fenced { held: self.epoch, offered: segment.epoch });
        }
        if segment.first != head.next() {
            return Err(Error::NotNext { head, offered: segment.first });
        }
        Ok(())
    }

    fn write(&mut self, segments: &[Arc<Segment>]) {
        self.unsynced = segments.to_vec();
    }

    fn sync(&mut self) {
        self.segments.append(&mut self.unsynced);
    }
}

impl MemoryJournal {
    /// Changes where the log begins, as far as the next fault has it.
    fn change(&self, change: impl FnOnce(&mut Log) -> Result<(), Error>) -> Result<(), Error> {
        let mut disk = self.machine.disk()?;
        let mut changed = disk.journal.clone();
        change(&mut changed)?;
        let fault = disk.fault(Operation::Prune);
        if matches!(fault, None | Some(Fault::Ambiguous | Fault::PowerCutAfter)) {
            disk.journal = changed;
        }
        disk.down = matches!(fault, Some(Fault::PowerCutBefore | Fault::PowerCutAfter));
        fault.map_or(Ok(()), |fault| Err(self.machine.injected(fault)))
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn lead(&self) -> Result<Epoch, Error> {
        let mut disk = self.machine.disk()?;
        disk.journal.epoch.0 += 1;
        Ok(disk.journal.epoch)
    }

    async fn append(&self, segment: &Segment) -> Result<(), Error> {
        self.extend(&[Arc::new(segment.clone())]).await
    }

    async fn extend(&self, segments: &[Arc<Segment>]) -> Result<(), Error> {
        self.machine.appends.pass().await;
        let mut disk = self.machine.disk()?;
        disk.journal.check(segments)?;
        let fault = disk.fault(Operation::Append);
        match fault {
            None | Some(Fault::Ambiguous | Fault::PowerCutAfter) => {
                disk.journal.write(segments);
                disk.journal.sync();
            }
            Some(Fault::Unsynced) => disk.journal.write(segments),
            Some(Fault::Full | Fault::Refused | Fault::PowerCutBefore) => {}
        }
        disk.down = matches!(fault, Some(Fault::PowerCutBefore | Fault::PowerCutAfter));
        fault.map_or(Ok(()), |fault| Err(self.machine.injected(fault)))
    }

    async fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, Error> {
        let disk = self.machine.reading()?;
        let Log { segments, origin, .. } = &disk.journal;
        let first = origin.sequence.next();
        if from.max(Sequence(1)) < first {
            return Err(Error::NotKept { first, wanted: from });
        }
        // Damaged headers must not hide what follows them: the place is counted by the segments' beginnings.
        let begin = segments.partition_point(|segment| segment.first <= from).saturating_sub(1);
        let mut read = Vec::new();
        let mut bytes = 0;
        for segment in segments[begin..].iter().skip_while(|segment| segment.last() < from) {
            bytes += segment.payload.len();
            read.push(segment.as_ref().clone());
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(read)
    }

    async fn head(&self) -> Result<Head, Error> {
        Ok(self.machine.reading()?.journal.head())
    }

    async fn origin(&self) -> Result<Origin, Error> {
        Ok(self.machine.reading()?.journal.origin.clone())
    }

    async fn prune(&self, epoch: Epoch, origin: &Origin) -> Result<(), Error> {
        self.change(|log| {
            if log.epoch > epoch {
                return Err(Error::Fenced { held: log.epoch, offered: epoch });
            }
            let ends = log.segments.iter().any(|segment| segment.last() == origin.sequence && segment.hash == origin.hash);
            if !ends {
                return Err(Error::NotNext { head: log.head().sequence, offered: origin.sequence });
            }
            log.segments.retain(|segment| segment.first > origin.sequence);
            log.origin = origin.clone();
            Ok(())
        })
    }

    async fn jump(&self, origin: &Origin) -> Result<(), Error> {
        self.change(|log| {
            let head = log.head().sequence;
            if head > origin.sequence {
                return Err(Error::NotNext { head, offered: origin.sequence });
            }
            log.segments.clear();
            log.origin = origin.clone();
            Ok(())
        })
    }
}
