//! Lets go of the oldest files: looked through first, since damaged evidence is kept, and told of in the log itself before they go.

use std::thread::{self, JoinHandle};

use paymesh_contract::audit::v1::{LetGo, log_note::Event};
use paymesh_types::Timestamp;

use crate::{
    Damage, Settings,
    files::{Directory, file_name},
    format::{Link, Owner},
    open::Kept,
    store::Store,
    walk::{Step, Walk},
};

/// Where the oldest file is on its way out. One goes at a time.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// It is being read, by a thread of its own: what is written does not wait for that.
    looked_through: Option<JoinHandle<std::io::Result<Result<Link, Damage>>>>,
    /// That it goes, up to here, is in what is written next.
    told: Option<Link>,
    /// One is gone, and the next may be to go too.
    next: bool,
}

impl Keeper {
    /// Whether something is on its way out.
    pub(crate) fn is_busy(&self) -> bool {
        self.looked_through.is_some() || self.told.is_some() || self.next
    }

    /// Goes on with what is past its retention; gives the note that it goes, or what is wrong with it.
    pub(crate) fn look(
        &mut self,
        store: &Store,
        settings: &Settings,
        owner: &Owner,
        directory: &Directory,
    ) -> Result<Option<Event>, Damage> {
        if self.told.is_some() {
            return Ok(None);
        }
        let Some(reading) = self.looked_through.take() else {
            self.next = false;
            if let Some((oldest, next)) = due(store, settings) {
                let (owner, directory) = (owner.clone(), directory.clone());
                let chain = store.chain();
                let started = thread::Builder::new().name("audit-retention".to_owned());
                match started.spawn(move || look_through(&directory, &owner, chain, &oldest, next.header.previous)) {
                    Ok(reading) => self.looked_through = Some(reading),
                    Err(error) => tracing::warn!(%error, "no thread can be started: the audit log is kept for longer"),
                }
            }
            return Ok(None);
        };
        if !reading.is_finished() {
            self.looked_through = Some(reading);
            return Ok(None);
        }
        match reading.join() {
            Ok(Ok(Ok(through))) => {
                self.told = Some(through);
                Ok(Some(Event::LetGo(LetGo { through_sequence: through.sequence.0, through_hash: through.hash.to_vec() })))
            }
            Ok(Ok(Err(damage))) => Err(damage),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a file of the audit log cannot be read, and is kept for longer");
                Ok(None)
            }
            Err(_) => {
                tracing::error!("whoever looked through a file of the audit log died; it is kept for longer");
                Ok(None)
            }
        }
    }

    /// What the log has said that it lets go of, once that is durable.
    pub(crate) fn told(&self) -> Option<Link> {
        self.told
    }

    /// It is gone.
    pub(crate) fn gone(&mut self) {
        (self.told, self.next) = (None, true);
    }
}

/// The oldest file, where it is to go, and the one after it.
fn due(store: &Store, settings: &Settings) -> Option<(Kept, Kept)> {
    let files = store.files();
    let (oldest, next) = (*files.front()?, *files.get(1)?);
    let Timestamp(now) = (settings.clock)();
    // Every call in it had ended when the next was begun.
    let old = settings.retention.time.is_some_and(|time| u128::from(next.header.begun_at.0) + time.as_micros() < u128::from(now));
    let much = settings.retention.bytes.is_some_and(|bytes| store.bytes() > bytes);
    (old || much).then_some((oldest, next))
}

/// Reads a file that is not written any more, up to where the next one continues it.
pub(crate) fn look_through(
    directory: &Directory,
    owner: &Owner,
    chain: u32,
    file: &Kept,
    end: Link,
) -> std::io::Result<Result<Link, Damage>> {
    let first = file.header.first();
    let damage = |sequence, what| Ok(Err(Damage { file: file_name(chain, first), sequence, what }));
    let mut walk = match Walk::open(&directory.file(chain, first), owner, chain)? {
        Ok(walk) => walk,
        Err(what) => return damage(first, what),
    };
    loop {
        let next = walk.last().sequence.next();
        match walk.step()? {
            Step::Record(..) => {}
            Step::Broken(what) => return damage(next, what),
            Step::End => break,
        }
    }
    if walk.last() == end {
        Ok(Ok(end))
    } else {
        damage(walk.last().sequence.next(), "the next file does not continue this one".to_owned())
    }
}
