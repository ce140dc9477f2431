//! EventService: tails a shard's journal, each subscriber at its own pace.
//!
//! Nothing is read before the subscriber has room for it, and little before it has taken what was read: those that take
//! nothing may be many. A subscriber that entered the mesh in another zone gets the
//! open parts of the entries that concern that zone, and no others.

use std::{sync::Arc, vec};

use futures::{StreamExt as _, stream, stream::BoxStream};
use paymesh_contract::{
    Fault,
    common::v1::ReadSource,
    events::v1::{Event, SubscribeRequest, SubscribeResponse, event_service_server::EventService},
};
use paymesh_journal::{Committed, Holding, codec};
use paymesh_mesh::Call;
use paymesh_shard::{Error, Reader};
use paymesh_types::{Sequence, ShardRef};
use tonic::{Request, Response, Status};

use crate::{answer, error, homes::Homes, reads::Read};

/// Events of one message at most.
const MESSAGE_EVENTS_MAX: usize = 512;

/// Entries that a subscriber keeps in memory at most, some 2 MiB: fewer, and a journal of large segments would be read again
/// more often.
const READ_ENTRIES_MAX: usize = 2_048;

/// The service.
#[derive(Debug)]
pub(crate) struct Events {
    homes: Arc<Homes>,
}

impl Events {
    pub(crate) fn new(homes: Arc<Homes>) -> Self {
        Self { homes }
    }

    /// What of the shard's entries the caller may have, by the zone where it entered the mesh; `None` where there is no such region.
    fn granted(&self, call: Option<&Call>, shard: &ShardRef) -> Option<Holding> {
        let entered = call.map_or(self.homes.mesh().region(), Call::entry_region);
        let zone = &self.homes.topology().region(entered)?.zone;
        Some(if *zone == shard.zone { Holding::Whole } else { Holding::For(zone.clone()) })
    }
}

#[tonic::async_trait]
impl EventService for Events {
    type SubscribeStream = BoxStream<'static, Result<SubscribeResponse, Status>>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let SubscribeRequest { zone, shard, from_sequence, read } = request.get_ref();
        let read = Read::new(&request, read.as_ref())?;
        let name = paymesh_contract::common::v1::ShardRef { zone: zone.clone(), shard: *shard };
        let name = ShardRef::try_from(&name)?;
        if self.homes.topology().leader(&name).is_none() {
            return Err(error::shard_not_found(&name).into());
        }
        let granted = self.granted(Call::of(&request), &name).ok_or_else(|| error::shard_not_found(&name))?;
        let (from, source) = (Sequence((*from_sequence).max(1)), read.reader(&self.homes, &name)?);
        let seen = read.begin(&self.homes, &source, Sequence(from.0 - 1)).await?;
        let subscriber = Subscriber { source, granted, next: from, read: Vec::new().into_iter(), begun_at: seen.source(), ended: false };
        Ok(Response::new(stream::unfold(subscriber, Subscriber::step).boxed()))
    }
}

struct Subscriber {
    source: Reader,
    granted: Holding,
    /// The entry to be read after those of `read`.
    next: Sequence,
    /// What was read and not sent yet.
    read: vec::IntoIter<Committed>,
    /// Where it is read, until it was said.
    begun_at: Option<ReadSource>,
    ended: bool,
}

impl Subscriber {
    async fn step(mut self) -> Option<(Result<SubscribeResponse, Status>, Self)> {
        if self.ended {
            return None;
        }
        let answer = self.message().await;
        self.ended = answer.is_err();
        Some((answer.map_err(Status::from), self))
    }

    async fn message(&mut self) -> Result<SubscribeResponse, Fault> {
        // Where none of what was read may be told, there is nothing to say.
        while self.read.len() == 0 {
            let entries = tokio::select! {
                entries = self.source.tail().next_few(self.next, READ_ENTRIES_MAX) => entries,
                why = self.source.stopped() => Err(Error::NotServing { shard: self.source.reference().clone(), why }),
            };
            let mut entries = entries.map_err(error::failed)?;
            self.next = entries.last().map_or(self.next, |(last, _)| last.sequence.next());
            if let Holding::For(zone) = &self.granted {
                entries.retain(|(position, entry)| entry.concerns(position, zone));
            }
            self.read = entries.into_iter();
        }
        let events =
            self.read.by_ref().take(MESSAGE_EVENTS_MAX).map(|committed| event(&committed, self.granted == Holding::Whole)).collect();
        Ok(SubscribeResponse { events, head_sequence: self.source.tail().head().0, source: self.begun_at.take() })
    }
}

fn event((position, entry): &Committed, unseal: bool) -> Event {
    Event {
        position: answer::position(position),
        open: Some(codec::open(entry, position.sequence)),
        sealed: unseal.then(|| codec::sealed(entry, position.sequence)),
    }
}
