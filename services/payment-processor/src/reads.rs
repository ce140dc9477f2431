//! Reads as their callers want them: at the home, or from this region's copy of a shard, no older than asked.
//!
//! The mesh has routed the call, by its level, to the home or to a node with a copy. What is led here is read at its leader, whatever
//! the level; what is not, from the copy, and only by who asked for that.

use std::time::Duration;

use paymesh_contract::{
    Fault,
    common::v1::{self as common, ReadLevel, ReadOptions, ReadSource},
};
use paymesh_mesh::{Call, DEADLINE_DEFAULT_MS};
use paymesh_shard::{Bounds, Copies, Reader, View};
use paymesh_topology::Topology;
use paymesh_types::{Position, Sequence, ShardRef, UserId, ZoneName};
use tokio::time::Instant;
use tonic::{Request, Status};

use crate::{answer, error, homes::Homes};

/// Positions of one read at most.
const POSITIONS_MAX: usize = 256;

/// How much earlier than the call's deadline a read that waits gives up, so that its answer still gets there: a quarter of what
/// is left, where that is less.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// What a caller asks of a read.
#[derive(Debug)]
pub(crate) struct Read {
    local: bool,
    positions: Vec<Position>,
    staleness_max: Option<Duration>,
    came: Instant,
    until: Instant,
}

impl Read {
    /// Of a call that has just come.
    ///
    /// # Errors
    /// INVALID_ARGUMENT `INVALID_FIELD`, `TOO_MANY_ITEMS`.
    pub(crate) fn new<T>(request: &Request<T>, options: Option<&ReadOptions>) -> Result<Self, Fault> {
        let came = Instant::now();
        let deadline = Call::of(request).and_then(Call::deadline);
        let deadline = deadline.unwrap_or_else(|| came + Duration::from_millis(DEADLINE_DEFAULT_MS));
        let left = deadline.saturating_duration_since(came);
        let until = came + (left - (left / 4).min(ANSWER_MARGIN));
        let Some(options) = options else {
            return Ok(Self { local: false, positions: Vec::new(), staleness_max: None, came, until });
        };
        let level = ReadLevel::try_from(options.level)
            .map_err(|_| Fault::invalid_field("read.level", format!("there is no read level {}", options.level)))?;
        if options.at_least.len() > POSITIONS_MAX {
            let message = format!("a read names at most {POSITIONS_MAX} positions, not {}", options.at_least.len());
            return Err(Fault::new(tonic::Code::InvalidArgument, "TOO_MANY_ITEMS", message).with_field("read.at_least"));
        }
        let positions = options.at_least.iter().map(|position| Position::try_from(position).map_err(|fault| fault.under("read.at_least")));
        Ok(Self {
            local: level == ReadLevel::Local,
            positions: positions.collect::<Result<_, _>>()?,
            staleness_max: options.max_staleness_ms.map(Duration::from_millis),
            came,
            until,
        })
    }

    /// Until when it may be waited for, so that the answer still gets to the caller.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Of a shard: the position of that shard that is furthest.
    fn bounds(&self, shard: &ShardRef) -> Bounds {
        let of_shard = self.positions.iter().filter(|position| position.shard == *shard);
        Bounds { at_least: of_shard.map(|position| (position.epoch, position.sequence)).max(), staleness_max: self.staleness_max }
    }

    /// Where the shard is read.
    ///
    /// # Errors
    /// `SHARD_NOT_SERVING`, `SHARD_HISTORY_MISSING`.
    pub(crate) fn reader(&self, homes: &Homes, shard: &ShardRef) -> Result<Reader, Fault> {
        let led_here = homes.topology().leader(shard) == Some(homes.mesh().region());
        if self.local
            && !led_here
            && let Some(replica) = homes.copies().get(shard)
        {
            return Ok(Reader::Copied(replica));
        }
        Ok(Reader::Led(homes.led(shard)?.clone()))
    }

    /// The shard's tables, once they are no older than asked. `entry`: an entry that the request names besides, such as the one where
    /// its page goes on; a copy waits for it, and at the home it is there or was never told.
    ///
    /// # Errors
    /// `SHARD_NOT_SERVING`, `REPLICA_BEHIND`, `POSITION_IN_THE_FUTURE`.
    pub(crate) async fn view(&self, homes: &Homes, shard: &ShardRef, entry: Option<Sequence>) -> Result<Seen, Fault> {
        let reader = self.reader(homes, shard)?;
        let mut bounds = self.bounds(shard);
        if let (Reader::Copied(_), Some(entry)) = (&reader, entry) {
            let (epoch, sequence) = bounds.at_least.unwrap_or_default();
            bounds.at_least = Some((epoch, sequence.max(entry)));
        }
        self.seen(homes, &reader, &bounds).await
    }

    /// As [`Self::view`], where the reader was chosen before and `entry` holds for the home too.
    ///
    /// # Errors
    /// As of [`Self::view`].
    pub(crate) async fn begin(&self, homes: &Homes, reader: &Reader, entry: Sequence) -> Result<Seen, Fault> {
        let mut bounds = self.bounds(reader.reference());
        let (epoch, sequence) = bounds.at_least.unwrap_or_default();
        bounds.at_least = Some((epoch, sequence.max(entry)));
        self.seen(homes, reader, &bounds).await
    }

    async fn seen(&self, homes: &Homes, reader: &Reader, bounds: &Bounds) -> Result<Seen, Fault> {
        let region = homes.mesh().region().to_string();
        match reader.view(bounds, self.came, self.until).await {
            Ok(view) => Ok(Seen { view, region }),
            Err(error) => Err(error::failed(error).with_metadata("region", region)),
        }
    }
}

/// What a reader sees, and where.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) view: View,
    region: String,
}

impl Seen {
    pub(crate) fn position(&self) -> Option<common::Position> {
        answer::position(self.view.position())
    }

    pub(crate) fn source(&self) -> Option<ReadSource> {
        Some(ReadSource { region: self.region.clone(), age_ms: self.view.age().map(error::milliseconds) })
    }

    /// A fault about what is not there, saying where it was looked for: elsewhere, or a moment later, it may be.
    pub(crate) fn missing(&self, fault: Fault) -> Status {
        error::placed(fault, self.view.position(), self.view.age()).with_metadata("region", self.region.as_str()).into()
    }
}

/// The copies of a node, as the mesh asks for them.
#[derive(Debug)]
pub(crate) struct LocalCopies {
    pub(crate) copies: Copies,
    pub(crate) topology: std::sync::Arc<Topology>,
}

#[tonic::async_trait]
impl paymesh_mesh::Copies for LocalCopies {
    fn can_read(&self, shard: &ShardRef) -> bool {
        self.copies.get(shard).is_some()
    }

    async fn zones_of(&self, users: &[UserId]) -> Vec<(UserId, ZoneName)> {
        // All are of one shard of the directory.
        let Some(first) = users.first() else { return Vec::new() };
        let Some(replica) = self.copies.get(&self.topology.directory_shard(*first)) else { return Vec::new() };
        let now = Instant::now();
        let known = match Reader::Copied(replica).view(&Bounds::default(), now, now).await {
            Ok(view) => view.claims(users).await,
            Err(error) => Err(error),
        };
        known.unwrap_or_else(|error| {
            // Its home is asked instead.
            tracing::debug!(%error, "the copy of the directory cannot be read");
            Vec::new()
        })
    }
}
