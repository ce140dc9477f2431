//! What writes a log.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use paymesh_contract::audit::v1::{AnonymousCalls, CallsRefused, LogClosed, LogOpened, log_note::Event};

use crate::{
    BYTES, KEPT_BYTES, RECORDS, SYNC_SECONDS, Standing, Unwritten, format::put_record, log::Shared, queue::Group, record::note_bytes,
    retention::Keeper, store::Store,
};

/// How often it is looked after what is no record: the mark, the files, retention.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same while something is on its way out.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Between two tries to write what could not be written.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Writes a log's records, and keeps its files.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

/// Tells whoever has the log that nobody writes it any more, however that came about.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Opens the log and writes it until it is closed. Blocks its thread: to be run on one of its own, by an owner that takes its end for the
    /// node's. A disk that fails does not end it: it is tried again, and no slots are given out meanwhile.
    ///
    /// # Errors
    /// The log was closed while it could not be written.
    pub fn run(self) -> Result<(), Unwritten> {
        // Should it panic: nobody waits for what nobody does.
        let _ending = Ending(self.shared.clone());
        let Some((store, cut_bytes)) = self.opened() else { return Ok(()) };
        let mut running = Running { store, keeper: Keeper::default(), notes: Vec::new(), looked: Instant::now(), shared: self.shared };
        running.notes.push(Event::Opened(LogOpened { version: running.shared.settings.version.clone(), cut_bytes }));
        // Written before the first call's, and before there are any.
        running.write(Group { bytes: Vec::new(), records: 0, handed_over: 0, damage: None, closing: false })?;
        running.run()
    }

    /// Opens the log, however often it takes; `None` where it is closed before that.
    fn opened(&self) -> Option<(Store, u64)> {
        let Shared { settings, owner, directory, .. } = &*self.shared;
        loop {
            match Store::open(directory, owner, settings.file_bytes_max, (settings.clock)()) {
                Ok(opened) => return Some(opened),
                Err(error) => {
                    let why = format!("{}: {error}", directory.path().display());
                    tracing::error!(error = %why, "the audit log cannot be opened, and no calls are taken");
                    self.shared.stand(Standing::Failing(why));
                }
            }
            if self.shared.queue.pause(RETRY_PAUSE) {
                return None;
            }
        }
    }
}

/// A writer at work.
struct Running {
    shared: Arc<Shared>,
    store: Store,
    keeper: Keeper,
    /// Records of the log itself that are written with the next group.
    notes: Vec<Event>,
    looked: Instant,
}

impl Running {
    fn run(mut self) -> Result<(), Unwritten> {
        let mut spare = Vec::new();
        loop {
            let look_every = if self.keeper.is_busy() { LOOK_AGAIN } else { LOOK_EVERY };
            let group = self.shared.queue.take(spare, self.shared.settings.linger, look_every);
            let closing = group.closing;
            let found = group.damage.clone();
            if closing {
                self.count_anonymous();
                let held = self.shared.held().saturating_sub(group.records) as u64;
                self.notes.push(Event::Closed(LogClosed { calls_cut_off: held }));
            }
            spare = self.write(group)?;
            if let Some(damage) = found {
                self.begin_anew(&damage);
            }
            if closing {
                let _ = self.store.sync_mark().inspect_err(|error| tracing::warn!(%error, "the audit log's mark cannot be synced"));
                return Ok(());
            }
            if self.looked.elapsed() >= look_every {
                self.looked = Instant::now();
                self.look();
            }
        }
    }

    /// Makes a group durable, with what the log itself has to say, however often it takes.
    fn write(&mut self, group: Group) -> Result<Vec<u8>, Unwritten> {
        let Group { mut bytes, records, handed_over, closing, .. } = group;
        let clock = self.shared.settings.clock.clone();
        let refused = self.shared.take_refused();
        if refused > 0 {
            self.notes.push(Event::CallsRefused(CallsRefused { calls: refused }));
        }
        let notes = self.notes.len();
        for note in self.notes.drain(..) {
            put_record(&mut bytes, &note_bytes(clock(), note));
        }
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let began = Instant::now();
        let mut last_try = closing;
        while let Err(source) = self.store.append(&bytes, clock()) {
            self.fails(&source);
            if last_try {
                return Err(Unwritten { records, source });
            }
            last_try = self.shared.queue.pause(RETRY_PAUSE);
        }
        self.shared.queue.written();
        metrics::histogram!(SYNC_SECONDS).record(began.elapsed().as_secs_f64());
        metrics::counter!(RECORDS).increment((records + notes) as u64);
        metrics::counter!(BYTES).increment(self.store.written());
        self.advance();
        self.shared.written(handed_over, records);
        self.let_go();
        bytes.clear();
        Ok(bytes)
    }

    /// Lets go of the oldest file, where what was written just now says so. Whoever reads is told before it is gone: a file that is missing is
    /// taken for damage otherwise.
    fn let_go(&mut self) {
        let Some(origin) = self.keeper.told() else { return };
        let told = self.store.keep_after(origin).map(|()| self.advance());
        match told.and_then(|()| self.store.remove_oldest()) {
            Ok(()) => {
                tracing::info!(through = %origin.sequence, "the audit log has let go of records that are past their retention");
                self.keeper.gone();
                self.advance();
            }
            Err(error) => tracing::warn!(%error, "a file of the audit log cannot be removed; it is tried again"),
        }
    }

    fn fails(&self, error: &io::Error) {
        tracing::error!(%error, "the audit log cannot be written, and no calls are taken");
        self.shared.stand(Standing::Failing(error.to_string()));
    }

    fn advance(&self) {
        self.shared.advance(self.store.chain(), self.store.origin(), self.store.head());
        metrics::gauge!(KEPT_BYTES).set(self.store.bytes() as f64);
    }

    /// Has the log say how many callers whom nobody knows left no record of their own.
    fn count_anonymous(&mut self) {
        let calls = self.shared.anonymous.take_unrecorded();
        if calls > 0 {
            self.notes.push(Event::AnonymousCalls(AnonymousCalls { calls }));
        }
    }

    /// Looks after the log's files.
    fn look(&mut self) {
        self.count_anonymous();
        // After a crash of the machine, what was cut from the log since then is not missed.
        let _ = self.store.sync_mark().inspect_err(|error| tracing::warn!(%error, "the audit log's mark cannot be synced"));
        match self.store.missing() {
            Ok(None) => {}
            Ok(Some(damage)) => return self.begin_anew(&damage),
            Err(error) => tracing::warn!(%error, "the audit log's files cannot be looked at"),
        }
        let Shared { settings, owner, directory, .. } = &*self.shared;
        match self.keeper.look(&self.store, settings, owner, directory) {
            Ok(Some(note)) => self.notes.push(note),
            Ok(None) => {}
            Err(damage) => self.begin_anew(&damage),
        }
    }

    /// Sets the chain aside and goes on in another. Where that cannot be done now, the chain is found to be damaged again.
    fn begin_anew(&mut self, damage: &crate::Damage) {
        tracing::error!(%damage, "the audit log is damaged: it is set aside, and another chain begins");
        match self.store.begin_anew(damage, (self.shared.settings.clock)()) {
            Ok(()) => {
                self.keeper = Keeper::default();
                self.advance();
            }
            Err(error) => tracing::error!(%error, "no other chain of the audit log can be begun: the damaged one is written on"),
        }
    }
}
