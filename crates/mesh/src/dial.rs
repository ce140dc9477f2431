//! How connections to a region's nodes are made: in TLS, where both sides show who they are, or in plain text.

use std::time::Duration;

use paymesh_access::Callers;
use paymesh_identity::{Connector, Identity};
use paymesh_topology::Region;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to be made: an ocean's round trips for TCP and for TLS, twice over.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);

/// How a node knows its peers and its callers.
#[derive(Debug, Clone)]
pub enum Security {
    /// By what they show: what says that it comes from a node is believed only if it does, and a caller may do what it is granted.
    Certificates {
        /// Who this node is, and whom it believes.
        identity: Identity,
        /// Who may call.
        callers: Callers,
    },
    /// Not at all: whoever reaches the listener is believed, and may do everything. For loopback alone.
    PlainText,
}

/// Makes a region's connections.
#[derive(Clone)]
pub(crate) struct Dialer {
    /// None: in plain text.
    connector: Option<Connector>,
    authority: String,
}

impl Dialer {
    pub(crate) fn new(security: &Security, region: &Region) -> Self {
        let connector = match security {
            Security::PlainText => None,
            Security::Certificates { identity, .. } => {
                Some(identity.connector(&region.name, region.grpc.host(), region.grpc.port(), CONNECT_WAIT_MAX))
            }
        };
        Self { connector, authority: region.grpc.to_string() }
    }

    /// Where it dials.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, tonic::transport::Error> {
        // Also in TLS: tonic's part in a connection is to hand it over, and it would refuse `https` without a TLS of its own.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.authority))?;
        Ok(endpoint.connect_timeout(CONNECT_WAIT_MAX).tcp_nodelay(true))
    }

    /// A connection that is made when it is first used.
    pub(crate) fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        match &self.connector {
            None => endpoint.connect_lazy(),
            Some(connector) => endpoint.connect_with_connector_lazy(connector.clone()),
        }
    }
}
