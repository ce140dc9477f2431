//! Batches over a stream: some in flight at once, answered in the order in which they came.
//!
//! The back-pressure is HTTP/2's: while as many batches or items are in flight as may be, or while the caller does not
//! read its answers, no further request is read.

use std::{collections::VecDeque, sync::Arc};

use futures::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream, FuturesOrdered},
};
use paymesh_contract::payments::v1::{StreamPaymentsRequest, StreamPaymentsResponse};
use paymesh_mesh::unreadable;
use tonic::{Status, Streaming};

use crate::{
    batch::{self, Sender},
    cards::Cards,
    homes::Homes,
};

/// Batches of a stream in flight at most.
pub(crate) const BATCHES_IN_FLIGHT_MAX: usize = 16;

/// Items of a stream in flight after which no further batch is read: half of a shard's queue, so that one stream of full
/// batches, all for one shard, is slowed down and not refused.
const ITEMS_IN_FLIGHT_MAX: usize = 32_768;

/// The answers to a stream of batches.
pub(crate) fn answers(
    homes: Arc<Homes>,
    cards: Cards,
    sender: Sender,
    input: Streaming<StreamPaymentsRequest>,
) -> BoxStream<'static, Result<StreamPaymentsResponse, Status>> {
    let work =
        Work { homes, cards, sender, input: Some(input), in_flight: FuturesOrdered::new(), sizes: VecDeque::new(), items: 0, end: None };
    stream::unfold(work, |mut work| async move { work.next().await.map(|answer| (answer, work)) }).boxed()
}

struct Work {
    homes: Arc<Homes>,
    cards: Cards,
    sender: Sender,
    /// None once it has ended.
    input: Option<Streaming<StreamPaymentsRequest>>,
    in_flight: FuturesOrdered<BoxFuture<'static, StreamPaymentsResponse>>,
    /// Items of each batch in flight, in order.
    sizes: VecDeque<usize>,
    items: usize,
    /// Why the stream ends, once what is in flight is answered.
    end: Option<Status>,
}

impl Work {
    async fn next(&mut self) -> Option<Result<StreamPaymentsResponse, Status>> {
        loop {
            let room = self.in_flight.len() < BATCHES_IN_FLIGHT_MAX && self.items < ITEMS_IN_FLIGHT_MAX;
            let input = self.input.as_mut().filter(|_| room);
            if input.is_none() && self.in_flight.is_empty() {
                return self.end.take().map(Err);
            }
            tokio::select! {
                // What has come is sent on its way before answers are: it can be worked on meanwhile.
                biased;
                message = async { input.expect("the branch is taken with input only").message().await }, if input.is_some() => {
                    self.take(message);
                }
                Some(answer) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.items -= self.sizes.pop_front().expect("each batch in flight has its size");
                    return Some(Ok(answer));
                }
            }
        }
    }

    fn take(&mut self, message: Result<Option<StreamPaymentsRequest>, Status>) {
        let request = match message {
            Ok(Some(request)) => request,
            Ok(None) => return self.input = None,
            Err(status) => return self.end_with(unreadable(&status)),
        };
        if let Err(fault) = batch::check_size(&request.payments) {
            return self.end_with(fault.into());
        }
        let StreamPaymentsRequest { batch_id, payments } = request;
        self.sizes.push_back(payments.len());
        self.items += payments.len();
        let (homes, cards, sender) = (Arc::clone(&self.homes), self.cards.clone(), self.sender.clone());
        self.in_flight.push_back(Box::pin(async move {
            let outcomes = batch::create(&homes, &cards, &sender, payments).await;
            StreamPaymentsResponse { batch_id, outcomes }
        }));
    }

    fn end_with(&mut self, status: Status) {
        self.input = None;
        self.end = Some(status);
    }
}
