//! The services of a region over the shards that it leads, and for reads the copies that it keeps of others: PaymentService, WalletService,
//! PaymentMethodService, DirectoryService, EventService and MeshService.
//!
//! A request is turned into a ledger command once, at the `door`; the shard decides and commits it; the answer is made of
//! the entry that it led to (`answer`), so that a replay answers what the first call did. What goes wrong becomes the
//! contract's words in one place (`error`). Nothing here trusts the routing: a shard that is not led here is refused.
//!
//! Whose a payment is, and each user of a batch, only the services see; they look it up with the caller in one place (`whose`).
//!
//! Left to others: routing, deadlines and who may call (`paymesh-mesh`), order and durability (`paymesh-shard`).

#![forbid(unsafe_code)]

mod answer;
mod batch;
mod cards;
mod counts;
mod directory;
mod door;
mod error;
mod events;
pub mod fraud;
mod homes;
mod mesh_service;
mod methods;
mod page;
mod payments;
mod reads;
mod stream;
mod wallets;
mod whose;

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use futures::future::BoxFuture;
use paymesh_cache::Cache;
use paymesh_contract::{
    directory::v1::directory_service_server::DirectoryServiceServer,
    events::v1::event_service_server::EventServiceServer,
    mesh::v1::{ComponentProblem, mesh_service_server::MeshServiceServer},
    payments::v1::payment_service_server::PaymentServiceServer,
    wallet::v1::{payment_method_service_server::PaymentMethodServiceServer, wallet_service_server::WalletServiceServer},
};
use paymesh_mesh::{Mesh, Worded};
use paymesh_shard::{Copies, Shards};
use tonic::service::Routes;

pub use crate::cards::Acquiring;
use crate::{cards::Cards, homes::Homes, methods::Methods};

/// Says in `/metrics` what this crate counts. To be called once the recorder is installed.
pub fn describe_metrics() {
    counts::describe_metrics();
    cards::describe_metrics();
    fraud::describe_metrics();
    methods::describe_metrics();
}

/// Bytes of a request message at most: a batch of 8,192 payments with the longest ids and references, twice over.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is wrong with the parts of a node that are not its shards and copies. Asked for each status, and must not wait for anything.
pub type Problems = Arc<dyn Fn() -> Vec<ComponentProblem> + Send + Sync>;

/// Every service of the region, for its listener and for calls that start inside ([`Mesh::serve`], [`Mesh::attach`]).
///
/// `shards` are those that the mesh's region leads; a shard that is missing in it is answered as not serving. `copies` are those
/// that it keeps of other regions' shards; from now on the mesh knows of them too, and has reads answered from them. `problems` says what
/// is wrong with the node itself. Without `acquiring`, no card is charged at the region. `cache` has what cards of users look like.
pub fn services(
    shards: Shards,
    copies: Copies,
    mesh: Mesh,
    problems: Problems,
    acquiring: Option<Acquiring>,
    cache: Arc<dyn Cache>,
) -> Services {
    mesh.read_from(Arc::new(reads::LocalCopies { copies: copies.clone(), topology: Arc::clone(mesh.topology()) }));
    let homes = Arc::new(Homes::new(shards, copies, mesh));
    let cards = Cards::new(&homes, acquiring);
    let payments = PaymentServiceServer::new(payments::Payments::new(Arc::clone(&homes), cards.clone()));
    let wallets = WalletServiceServer::new(wallets::Wallets::new(Arc::clone(&homes)));
    let methods = Methods::new(Arc::clone(&homes), cache);
    let directory = DirectoryServiceServer::new(directory::Directory::new(Arc::clone(&homes)));
    let events = EventServiceServer::new(events::Events::new(Arc::clone(&homes)));
    let mesh = MeshServiceServer::new(mesh_service::MeshOperations::new(homes, problems, cards.clone()));
    let routes = Routes::new(Worded(payments.max_decoding_message_size(MESSAGE_BYTES_MAX)))
        .add_service(Worded(wallets))
        .add_service(Worded(PaymentMethodServiceServer::new(methods.clone())))
        .add_service(Worded(directory))
        .add_service(Worded(events))
        .add_service(Worded(mesh));
    let sweep = async move {
        tokio::select! {
            never = cards.sweep() => never,
            never = methods.follow() => never,
        }
    };
    Services { routes, sweep: Box::pin(sweep) }
}

/// What operators ask of a node that has no shards and no copies: MeshService alone.
pub fn operations(mesh: Mesh, problems: Problems) -> Routes {
    let homes = Arc::new(Homes::new(Shards::new(BTreeMap::new()), Copies::new(BTreeMap::new()), mesh));
    let cards = Cards::new(&homes, None);
    Routes::new(Worded(MeshServiceServer::new(mesh_service::MeshOperations::new(homes, problems, cards))))
}

/// The services of a region, and what has to be done for them meanwhile.
pub struct Services {
    /// The services.
    pub routes: Routes,
    /// Asks acquirers for what the books say that they are asked for and nobody does, and lets go of what is cached of cards that are removed: to be polled
    /// for as long as the shards are led here.
    pub sweep: BoxFuture<'static, Infallible>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services")
    }
}
