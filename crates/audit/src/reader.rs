//! Reads a log's records in order, and follows it as it grows. Blocking, but for the waiting: to be run where that is no harm.

use std::{io, sync::Arc};

use paymesh_contract::audit::v1::AuditRecord;
use paymesh_types::Sequence;
use prost::Message as _;
use tokio::sync::watch;

use crate::{
    Damage, Hash, Log, ReadError, Standing, State, Unavailable,
    files::file_name,
    log::Shared,
    walk::{Step, Walk},
};

/// Records of a batch at most.
const BATCH_RECORDS_MAX: usize = 1_024;
/// Bytes of a batch, give or take a record: far below what a message may have.
const BATCH_BYTES: usize = 512 << 10;

/// Some records, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The records; none where the log has come no further.
    pub records: Vec<AuditRecord>,
    /// The chain's hash at the last of them.
    pub last_hash: Option<Hash>,
    /// The last record that was durable.
    pub head: Sequence,
}

/// A place in a log.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    chain: u32,
    /// The record that comes next.
    next: Sequence,
    /// In its file; `None` where that is to be looked for.
    walk: Option<Walk>,
}

impl Log {
    /// Reads from this record on; from the first that is kept, where it is 0.
    ///
    /// # Errors
    /// The log is not open, is kept from a later record on, or has not come so far.
    pub fn read(&self, from: Sequence) -> Result<Reader, ReadError> {
        let state = self.watch();
        let State { chain, origin, head, .. } = state.borrow().clone();
        if chain == 0 {
            return Err(ReadError::Unavailable(Unavailable::Opening));
        }
        let next = if from == Sequence(0) { origin.sequence.next() } else { from };
        if next <= origin.sequence {
            return Err(ReadError::NotKept { first: origin.sequence.next() });
        }
        if next > head.sequence.next() {
            return Err(ReadError::InTheFuture { head: head.sequence });
        }
        Ok(Reader { shared: self.shared.clone(), state, chain, next, walk: None })
    }
}

impl Reader {
    /// The next records that are durable. Reads files.
    ///
    /// # Errors
    /// A record is not what was written, or has been let go of meanwhile; or the files cannot be read.
    pub fn batch(&mut self) -> Result<Batch, ReadError> {
        let head = self.state.borrow().head.sequence;
        let mut batch = Batch { records: Vec::new(), last_hash: None, head };
        let mut bytes = 0;
        while self.next <= head && batch.records.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES {
            let mut walk = match self.walk.take() {
                Some(walk) => walk,
                None => self.find()?,
            };
            let (first, last) = (walk.header().first(), walk.last().sequence);
            let file = file_name(self.chain, first);
            let damaged = |what: String| ReadError::Damaged(Damage { file, sequence: self.next, what });
            match walk.step()? {
                Step::Record(link, payload) => {
                    debug_assert!(link.sequence <= self.next);
                    if link.sequence == self.next {
                        let mut record =
                            AuditRecord::decode(payload).map_err(|error| damaged(format!("it is no audit record: {error}")))?;
                        record.sequence = link.sequence.0;
                        self.shared.owner.region.as_str().clone_into(&mut record.region);
                        bytes += payload.len();
                        batch.records.push(record);
                        batch.last_hash = Some(link.hash);
                        self.next = link.sequence.next();
                    }
                    self.walk = Some(walk);
                }
                // It goes on in the next file.
                Step::End if last.next() == self.next && first < self.next => {}
                Step::End => return Err(damaged("the file ends before it".to_owned())),
                Step::Broken(what) => return Err(damaged(what)),
            }
        }
        Ok(batch)
    }

    /// The record that comes next.
    pub fn next(&self) -> Sequence {
        self.next
    }

    /// Waits until there is more to read; `false` where there never will be.
    pub async fn more(&mut self) -> bool {
        let next = self.next;
        let state = self.state.wait_for(|state| state.head.sequence >= next || state.standing == Standing::Closed).await;
        state.is_ok_and(|state| state.head.sequence >= next)
    }

    /// The file that has the next record: of the last chain that begins before it.
    fn find(&mut self) -> Result<Walk, ReadError> {
        let Shared { directory, owner, .. } = &*self.shared;
        let mut found = None;
        for chain in directory.chains()?.into_iter().filter(|chain| *chain >= self.chain) {
            if let Some(first) = directory.files(chain)?.into_iter().rfind(|first| *first <= self.next) {
                found = Some((chain, first));
            }
        }
        let not_kept = || ReadError::NotKept { first: self.state.borrow().origin.sequence.next() };
        let (chain, first) = found.ok_or_else(not_kept)?;
        let damaged = |what| Err(ReadError::Damaged(Damage { file: file_name(chain, first), sequence: first, what }));
        match Walk::open(&directory.file(chain, first), owner, chain) {
            Ok(Ok(walk)) if walk.header().first() == first => {
                self.chain = chain;
                Ok(walk)
            }
            Ok(Ok(walk)) => damaged(format!("it is the file that begins with record {}", walk.header().first())),
            Ok(Err(what)) => damaged(what),
            // It was let go of this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_kept()),
            Err(error) => Err(error.into()),
        }
    }
}
