//! Serves each connection until its other end leaves, nobody has called over it for a while, or the node stops.
//!
//! In the last two the other end is told so (GOAWAY) and what is in progress is finished first: no call is lost by it, and none that is
//! on its way is left in doubt. An other end that does not say that it has heard is not waited for long.

use std::{convert::Infallible, future::Future, pin::pin, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Error, Server};

use crate::{
    Edge,
    incoming::{Connection, REFUSED},
};

/// How long the other end of a connection that is told to end has to say that it has heard: an ocean's round trips, many times over.
const HEARD_WAIT_MAX: Duration = Duration::from_secs(5);

/// Serves what comes in until `shutdown` ends, and then until every connection has ended.
pub(crate) async fn serve(
    server: Server,
    edge: Edge,
    incoming: impl Stream<Item = Connection>,
    idle_wait: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let draining = CancellationToken::new();
    let mut served = JoinSet::new();
    {
        // Closed with this block: a caller that comes while the node drains is turned away by the kernel, at once.
        let (mut incoming, mut shutdown) = (pin!(incoming), pin!(shutdown));
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(connection) = incoming.next() => {
                    served.spawn(until_it_ends(server.clone(), edge.clone(), connection, idle_wait, draining.clone()));
                }
                Some(ended) = served.join_next() => ended.unwrap_or(Ok(()))?,
            }
        }
    }
    draining.cancel();
    while let Some(ended) = served.join_next().await {
        ended.unwrap_or(Ok(()))?;
    }
    Ok(())
}

async fn until_it_ends(
    server: Server,
    edge: Edge,
    connection: Connection,
    idle_wait: Duration,
    draining: CancellationToken,
) -> Result<(), Error> {
    let usage = connection.usage().clone();
    let told = CancellationToken::new();
    let until = async {
        tokio::select! {
            () = usage.gone() => {}
            () = draining.cancelled() => {}
            () = usage.idle(idle_wait) => {
                metrics::counter!(REFUSED, "why" => "idle").increment(1);
                tracing::debug!(?idle_wait, "a connection without calls is closed");
                told.cancel();
            }
        }
    };
    let unheard = async {
        told.cancelled().await;
        tokio::time::sleep(HEARD_WAIT_MAX).await;
        // Calls that were on their way then are finished.
        usage.idle(HEARD_WAIT_MAX).await;
        usage.cut();
        std::future::pending::<Infallible>().await
    };
    // A server of its own for each, as it is the server that tonic can ask to end in good order. Without an end: that is what it is asked for.
    let alone = stream::iter([Ok::<_, Infallible>(connection)]).chain(stream::pending());
    tokio::select! {
        served = server.serve_with_incoming_shutdown(edge, alone, until) => served,
        never = unheard => match never {},
    }
}
