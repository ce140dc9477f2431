//! Checkpoints in memory.

use std::sync::Arc;

use async_trait::async_trait;
use paymesh_types::Sequence;

use super::{Fault, Machine, Operation};
use crate::{Checkpoints, Error, Hash, Manifest, checkpoint::Draft};

/// A handle to checkpoints in memory.
#[derive(Debug)]
pub struct MemoryCheckpoints {
    pub(super) machine: Arc<Machine>,
}

/// What there is of them. All of it is synced.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    latest: Option<(Manifest, Vec<Vec<u8>>)>,
    draft: Option<(Option<Manifest>, Vec<Vec<u8>>)>,
}

impl Kept {
    pub(super) fn damage(&mut self, index: usize, damage: impl FnOnce(&mut Vec<u8>)) -> bool {
        let chunk = self.latest.as_mut().and_then(|(_, chunks)| chunks.get_mut(index));
        chunk.map(damage).is_some()
    }
}

impl MemoryCheckpoints {
    /// Makes a change, as far as the next fault has it.
    fn change(&self, change: impl FnOnce(&mut Kept) -> Result<(), Error>) -> Result<(), Error> {
        let mut disk = self.machine.disk()?;
        let mut changed = disk.checkpoints.clone();
        change(&mut changed)?;
        let fault = disk.fault(Operation::Checkpoint);
        if matches!(fault, None | Some(Fault::Ambiguous | Fault::PowerCutAfter)) {
            disk.checkpoints = changed;
        }
        disk.down = matches!(fault, Some(Fault::PowerCutBefore | Fault::PowerCutAfter));
        fault.map_or(Ok(()), |fault| Err(self.machine.injected(fault)))
    }
}

/// The chunks there are and the one that is offered, as [`Error::NotNext`] has them.
fn not_next(chunks: usize, offered: usize) -> Error {
    Error::NotNext { head: Sequence(chunks as u64), offered: Sequence(offered as u64) }
}

#[async_trait]
impl Checkpoints for MemoryCheckpoints {
    async fn latest(&self) -> Result<Option<Manifest>, Error> {
        Ok(self.machine.reading()?.checkpoints.latest.as_ref().map(|(manifest, _)| manifest.clone()))
    }

    async fn chunk(&self, root: &Hash, index: u32) -> Result<Option<Vec<u8>>, Error> {
        let disk = self.machine.reading()?;
        let latest = disk.checkpoints.latest.as_ref().filter(|(manifest, _)| manifest.root() == *root);
        Ok(latest.and_then(|(_, chunks)| chunks.get(index as usize)).cloned())
    }

    async fn draft(&self) -> Result<Option<Draft>, Error> {
        let disk = self.machine.reading()?;
        let draft = disk.checkpoints.draft.as_ref();
        Ok(draft.map(|(announced, chunks)| Draft { announced: announced.clone(), chunks: u32::try_from(chunks.len()).unwrap_or(u32::MAX) }))
    }

    async fn begin(&self, announced: Option<&Manifest>) -> Result<(), Error> {
        self.change(|kept| {
            kept.draft = Some((announced.cloned(), Vec::new()));
            Ok(())
        })
    }

    async fn add(&self, index: u32, chunk: &[u8]) -> Result<(), Error> {
        self.change(|kept| {
            let Some((_, chunks)) = &mut kept.draft else { return Err(not_next(0, index as usize)) };
            let index = index as usize;
            if index + 1 == chunks.len() {
                chunks.pop();
            }
            if index != chunks.len() {
                return Err(not_next(chunks.len(), index));
            }
            chunks.push(chunk.to_vec());
            Ok(())
        })
    }

    async fn finish(&self, manifest: &Manifest) -> Result<(), Error> {
        self.change(|kept| match kept.draft.take() {
            Some((_, chunks)) if chunks.len() == manifest.chunks.len() => {
                kept.latest = Some((manifest.clone(), chunks));
                Ok(())
            }
            other => Err(not_next(other.map_or(0, |(_, chunks)| chunks.len()), manifest.chunks.len())),
        })
    }

    async fn close(&self) {}
}
