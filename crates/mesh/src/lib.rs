//! The mesh: what every call passes on its way into a node, and the way to the region where it belongs.
//!
//! [`Mesh`] knows who leads what and has a connection to every other region. Its [`Edge`] stands around the services on
//! the node's listener: traces, counts, bounds and routes every call by the contract's annotations. Its [`MeshChannel`] is
//! the same road for calls that start inside: a transport for any generated client. A call that belongs elsewhere is sent
//! on as the bytes it came in; no message is decoded and none is encoded again.
//!
//! Promised: every call ends by its deadline, with an answer that says why, and at once where its region has been silent for three seconds
//! (while the node serves: who only attaches services watches nobody); a call is forwarded twice at most; calls,
//! streams and connections are bounded, each apart from the others ([`Limits`]); a connection that makes the node work without making calls is
//! closed; the mesh keeps nothing of a request's content
//! in logs, spans or metrics.
//!
//! Who a call is from and what it may do is looked at where it enters and again at its home, by the credential that it shows and that goes along
//! (`paymesh-access`); which node is at the other end of a connection is known from its certificate ([`Security`]). In plain text, which
//! is for loopback, whoever reaches the listener is believed.
//!
//! Left to others: what the services answer; and whose a payment or each payment of a batch is, which only they know.

#![forbid(unsafe_code)]

mod addresses;
mod body;
mod call;
mod conduct;
mod connections;
mod counts;
mod credential;
mod dial;
mod directory;
mod edge;
mod forward;
pub mod frame;
mod http2;
mod incoming;
mod layers;
mod mesh;
mod methods;
mod patience;
mod peer;
mod places;
pub mod route;
mod router;
mod silence;
mod trail;
mod usage;
mod worded;
mod zone_cache;

pub use crate::{
    call::{Call, ENTRY_REGION_HEADER, HOPS_HEADER, HOPS_MAX},
    counts::RouteCount,
    credential::CALLER_CERTIFICATE_HEADER,
    dial::Security,
    directory::{Directory, ZoneSource},
    edge::{Edge, Limits},
    frame::MESSAGE_BYTES_MAX,
    layers::deadline::DEADLINE_DEFAULT_MS,
    mesh::{Copies, Mesh, MeshChannel, describe_edge_metrics, describe_metrics},
    worded::{Worded, unreadable},
};

/// Why a node cannot take part in the mesh.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's own region is not in region-config.
    #[error("region `{region}` is not in region-config; start the node with one of: {known}")]
    UnknownRegion {
        /// The region as given.
        region: paymesh_types::RegionName,
        /// The regions there are.
        known: String,
    },
    /// A region's endpoint cannot be dialled.
    #[error("region `{region}` cannot be dialled at `{endpoint}`: {source}; correct its endpoint in region-config")]
    Endpoint {
        /// The region.
        region: paymesh_types::RegionName,
        /// Its endpoint.
        endpoint: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// The listener failed.
    #[error("the gRPC listener failed: {0}")]
    Listener(#[source] tonic::transport::Error),
}
