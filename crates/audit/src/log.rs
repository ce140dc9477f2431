//! The log as calls see it.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use paymesh_types::{RegionName, Timestamp};
use tokio::sync::watch;
use tonic::Code;

use crate::{
    Caller, Damage, LOST, Link, Outcome, REFUSED, Record, SET_ASIDE, UNSYNCED_SECONDS, Unavailable, Writer, anonymous::Anonymous,
    files::Directory, format::Owner, queue::Queue, record::with_bytes,
};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Bytes after which a file is followed by another.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Records that are not durable yet, or belong to calls that have not ended, at most. A node takes some ten thousand calls and streams; the
/// others may wait while a disk stands still, and take some twenty megabytes.
const RECORDS_MAX: usize = 65_536;
/// How long the first record of a group waits for others. A sync takes as long again on a slow disk, and both are to be less than 50 ms.
const LINGER_MS: u64 = 25;
/// When records wait for so long, the disk is about to stand still.
const UNSYNCED_WARN: Duration = Duration::from_secs(5);

/// How a log is kept.
#[derive(Clone)]
pub struct Settings {
    /// The mesh's name.
    pub mesh: String,
    /// The region of the node whose log it is.
    pub region: RegionName,
    /// The version of its program, for the log's own records.
    pub version: String,
    /// What its own records are stamped with, and what retention goes by.
    pub clock: Clock,
    /// How long records are kept.
    pub retention: Retention,
    /// Bytes after which a file is followed by another; what is let go of is whole files.
    pub file_bytes_max: u64,
    /// Records that are not durable yet, or belong to calls that have not ended, at most.
    pub records_max: usize,
    /// How long the first record of a group waits for others.
    pub linger: Duration,
}

impl Settings {
    /// Of this node's log: everything is kept, and what an operator need not think about is as it should be.
    pub fn new(mesh: impl Into<String>, region: RegionName, version: impl Into<String>, clock: Clock) -> Self {
        Self {
            mesh: mesh.into(),
            region,
            version: version.into(),
            clock,
            retention: Retention::default(),
            file_bytes_max: FILE_BYTES_MAX,
            records_max: RECORDS_MAX,
            linger: Duration::from_millis(LINGER_MS),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("mesh", &self.mesh)
            .field("region", &self.region)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

/// How long records are kept: as long as both bounds allow. Whole files go, the oldest first, and never the one that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// For so long at least, and for as long again as it takes to fill a file.
    pub time: Option<Duration>,
    /// So many bytes, give or take a file.
    pub bytes: Option<u64>,
}

/// A node's audit log. Cheap to clone; all clones are the same log.
#[derive(Debug, Clone)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) owner: Owner,
    pub(crate) directory: Directory,
    /// Whether there are slots, but for how many.
    takes: AtomicBool,
    /// Slots that nobody has.
    free: AtomicUsize,
    /// Calls that were refused since the log last said so.
    refused: AtomicU64,
    pub(crate) anonymous: Anonymous,
    pub(crate) queue: Queue,
    state: watch::Sender<State>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Whether a log takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is being opened.
    Opening,
    /// It does.
    Open,
    /// It cannot be opened or written, and why; it is tried again every second.
    Failing(String),
    /// It has ended.
    Closed,
}

/// How far a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Whether it takes records.
    pub standing: Standing,
    /// The number of the chain that is written; 0 before the log is open.
    pub chain: u32,
    /// The last record that is not kept.
    pub origin: Link,
    /// The last record that is durable.
    pub head: Link,
    /// Records handed over that are durable.
    pub(crate) durable: u64,
}

/// How a log is, for a node's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It is being opened.
    Opening,
    /// All is well.
    Good,
    /// It takes records, and may soon not.
    Warns(String),
    /// It takes no records, or is not what was written.
    Fails(String),
}

impl Log {
    /// A log in this directory, and what writes it. Nothing is done before [`Writer::run`] runs: it opens the log, and tries again where that
    /// fails, as on a disk that is full.
    pub fn open(directory: impl Into<PathBuf>, settings: Settings) -> (Self, Writer) {
        let owner = Owner { mesh: settings.mesh.clone(), region: settings.region.clone() };
        let state = State { standing: Standing::Opening, chain: 0, origin: Link::NOTHING, head: Link::NOTHING, durable: 0 };
        let shared = Shared {
            owner,
            directory: Directory::new(directory.into()),
            takes: AtomicBool::new(false),
            free: AtomicUsize::new(settings.records_max),
            refused: AtomicU64::new(0),
            anonymous: Anonymous::default(),
            queue: Queue::default(),
            state: watch::Sender::new(state),
            settings,
        };
        let log = Self { shared: Arc::new(shared) };
        (log.clone(), Writer::new(log.shared))
    }

    /// A place for the record of a call that is about to be done. Never waits.
    ///
    /// # Errors
    /// There is none: the call must not be done, and [`Unavailable`] says so to its caller.
    pub fn reserve(&self, record: Record) -> Result<Slot, Unavailable> {
        let shared = &self.shared;
        let taken = if shared.takes.load(Ordering::Acquire) {
            shared.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1)).map_err(|_| Unavailable::Full)
        } else {
            Err(match self.state().standing {
                Standing::Opening => Unavailable::Opening,
                Standing::Closed => Unavailable::Closed,
                _ if shared.queue.is_closing() => Unavailable::Closed,
                // Or it has come back this moment.
                Standing::Open | Standing::Failing(_) => Unavailable::Failing,
            })
        };
        taken.map(|_| Slot { shared: self.shared.clone(), record: Some(record) })
    }

    /// A call was refused, for want of a slot. The log says how many once it can be written.
    pub fn refused(&self, why: Unavailable) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        metrics::counter!(REFUSED, "why" => why.label()).increment(1);
    }

    /// The region of the node whose log it is.
    pub fn region(&self) -> &RegionName {
        &self.shared.settings.region
    }

    /// How far the log is.
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// The same, each time it changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// Waits until the log is open, or cannot be opened now.
    pub async fn settled(&self) {
        let mut state = self.watch();
        // The sender is in `self`.
        let _ = state.wait_for(|state| state.standing != Standing::Opening).await;
    }

    /// How long the oldest record that is not durable has waited; `None` where all are.
    pub fn unsynced_for(&self) -> Option<Duration> {
        self.shared.queue.unsynced_for()
    }

    /// What is wrong with the chains that were set aside, and are kept until somebody moves them away. Reads the log's directory.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn set_aside(&self) -> io::Result<Vec<Damage>> {
        let State { chain, .. } = self.state();
        if chain == 0 { Ok(Vec::new()) } else { self.shared.directory.set_aside(chain) }
    }

    /// How the log is, in words for an operator; sets the gauges that nobody else does. Reads the log's directory.
    pub fn condition(&self) -> Condition {
        let unsynced_for = self.unsynced_for();
        // Said here, since a writer that a disk holds up says nothing.
        metrics::gauge!(UNSYNCED_SECONDS).set(unsynced_for.unwrap_or_default().as_secs_f64());
        match self.state().standing {
            Standing::Opening => return Condition::Opening,
            Standing::Failing(why) => return Condition::Fails(format!("it cannot be written, and calls are refused: {why}")),
            Standing::Closed => return Condition::Fails("it is closed".to_owned()),
            Standing::Open => {}
        }
        let damages = match self.set_aside() {
            Ok(damages) => damages,
            Err(error) => return Condition::Fails(format!("its directory cannot be read: {error}")),
        };
        metrics::gauge!(SET_ASIDE).set(damages.len() as f64);
        if let Some(first) = damages.first() {
            let path = self.shared.directory.path().display();
            return Condition::Fails(format!(
                "{} damaged and set aside, the log goes on in another: {first}. Keep what is there as evidence, find out who or what changed it, \
                 and move it out of {path}",
                if damages.len() == 1 { "a chain is".to_owned() } else { format!("{} chains are", damages.len()) },
            ));
        }
        let free = self.shared.free.load(Ordering::Relaxed);
        match unsynced_for {
            Some(age) if age > UNSYNCED_WARN => Condition::Warns(format!("records have waited for {} s to be written", age.as_secs())),
            _ if free < self.shared.settings.records_max / 4 => Condition::Warns("it is nearly full: calls will be refused".to_owned()),
            _ => Condition::Good,
        }
    }

    /// Has the writer write what there is and end, and waits until it has. To be called once no calls come any more: those that have not ended
    /// leave no record, and are counted in the log's last.
    pub async fn close(&self) {
        let mut state = self.watch();
        self.shared.takes.store(false, Ordering::Release);
        self.shared.queue.close();
        let _ = state.wait_for(|state| state.standing == Standing::Closed).await;
    }
}

impl Shared {
    /// Says why the log does not take records.
    pub(crate) fn stand(&self, standing: Standing) {
        debug_assert!(standing != Standing::Open, "it is open once something was written");
        self.takes.store(false, Ordering::Release);
        self.state.send_if_modified(|state| {
            let changed = state.standing != standing;
            state.standing = standing;
            changed
        });
    }

    /// Says how far the log is.
    pub(crate) fn advance(&self, chain: u32, origin: Link, head: Link) {
        self.state.send_modify(|state| *state = State { chain, origin, head, ..state.clone() });
    }

    /// Says that `records` more of those handed over are durable, `durable` in all, and that the log takes others again where it did not.
    pub(crate) fn written(&self, durable: u64, records: usize) {
        self.free.fetch_add(records, Ordering::Relaxed);
        self.state.send_modify(|state| {
            state.durable = durable;
            // Where it took some all the while, it may be closing by now.
            if state.standing != Standing::Open && !self.queue.is_closing() {
                state.standing = Standing::Open;
                self.takes.store(true, Ordering::Release);
            }
        });
    }

    /// Slots that belong to calls.
    pub(crate) fn held(&self) -> usize {
        self.settings.records_max.saturating_sub(self.free.load(Ordering::Relaxed))
    }

    /// The calls that were refused since this was last asked.
    pub(crate) fn take_refused(&self) -> u64 {
        if self.refused.load(Ordering::Relaxed) == 0 { 0 } else { self.refused.swap(0, Ordering::Relaxed) }
    }

    fn lost(&self, records: usize) {
        self.free.fetch_add(records, Ordering::Relaxed);
        metrics::counter!(LOST).increment(records as u64);
    }

    /// Nobody writes any more.
    pub(crate) fn end(&self) {
        self.takes.store(false, Ordering::Release);
        let left = self.queue.end();
        self.lost(left);
        self.stand(Standing::Closed);
    }
}

/// A call's place in the log. It leaves a record there however the call ends: one that is dropped says CANCELLED.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    /// `None` once it was handed over.
    record: Option<Record>,
}

impl Slot {
    /// The call's record, for what becomes known of it while it is under way.
    pub fn record_mut(&mut self) -> &mut Record {
        self.record.as_mut().expect("a slot has its record until it is handed over")
    }

    /// Hands the record over, without waiting. It is durable within 50 ms, unless the disk stands still. Of callers whom nobody knows, when very many
    /// come at once, most are counted only; and of what an edge's connection brings that is refused.
    pub fn record(mut self, outcome: Outcome) {
        self.hand_over(&outcome, false);
    }

    /// Hands the record over at once, and ends when it is durable: for what must not have happened without a trace. Others that are handed over
    /// meanwhile share its sync.
    ///
    /// # Errors
    /// The log has ended before it was written.
    pub fn record_durably(mut self, outcome: Outcome) -> impl Future<Output = Result<(), Unavailable>> + Send + use<> {
        let handed_over = self.hand_over(&outcome, true);
        let mut state = self.shared.state.subscribe();
        async move {
            let mine = handed_over.ok_or(Unavailable::Closed)?;
            let state = state.wait_for(|state| state.durable >= mine || state.standing == Standing::Closed).await;
            state.ok().filter(|state| state.durable >= mine).map(drop).ok_or(Unavailable::Closed)
        }
    }

    fn hand_over(&mut self, outcome: &Outcome, urgent: bool) -> Option<u64> {
        let record = self.record.take()?;
        let is_nobodys = match record.caller {
            Caller::Anonymous => true,
            // Who has taken one over, too, can be refused without end.
            Caller::Edge(_) => outcome.code != Code::Ok,
            _ => false,
        };
        if !urgent && is_nobodys && !self.shared.anonymous.leaves_record() {
            self.shared.free.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let handed_over = with_bytes(&record, outcome, |bytes| self.shared.queue.push(bytes, urgent));
        if handed_over.is_none() {
            self.shared.lost(1);
        }
        handed_over
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.hand_over(&Outcome::new(Code::Cancelled, "", Duration::ZERO), false);
    }
}
