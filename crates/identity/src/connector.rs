//! Connections for a gRPC client: what tonic's `connect_with_connector_lazy` takes.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use paymesh_types::RegionName;
use tokio::net::TcpStream;
use tower::Service;

use crate::{Dialed, Identity, Trust};

/// Makes connections to one host. Which URI a request has does not matter.
#[derive(Debug, Clone)]
pub struct Connector {
    who: Who,
    host: String,
    port: u16,
    wait_max: Duration,
}

/// Who calls whom.
#[derive(Debug, Clone)]
enum Who {
    Node(Identity, RegionName),
    Caller(Trust),
}

impl Identity {
    /// Makes connections to a region's node, each with the credentials of that time, and none that takes longer than this.
    pub fn connector(&self, region: &RegionName, host: &str, port: u16, wait_max: Duration) -> Connector {
        Connector { who: Who::Node(self.clone(), region.clone()), host: host.to_owned(), port, wait_max }
    }
}

impl Trust {
    /// Makes connections to the node at this host, none that takes longer than this.
    pub fn connector(&self, host: &str, port: u16, wait_max: Duration) -> Connector {
        Connector { who: Who::Caller(self.clone()), host: host.to_owned(), port, wait_max }
    }
}

impl Connector {
    async fn connect(self) -> io::Result<Dialed> {
        let connected = tokio::time::timeout(self.wait_max, async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            match &self.who {
                Who::Node(identity, region) => identity.dial(region, &self.host, stream).await,
                Who::Caller(trust) => trust.dial(&self.host, stream).await,
            }
        });
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection was made within {:?}", self.wait_max));
        connected.await.map_err(late)?
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Dialed>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connected = self.clone().connect();
        Box::pin(async { Ok(TokioIo::new(connected.await?)) })
    }
}
