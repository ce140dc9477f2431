//! A node's view of the mesh, and the way in for calls that start inside.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future::Future,
    sync::{Arc, OnceLock, PoisonError, RwLock, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::join_all;
use http::{Request, Response};
use paymesh_audit::Log;
use paymesh_contract::{
    Fault, Target,
    directory::v1::{LookUpUsersRequest, directory_service_client::DirectoryServiceClient},
};
use paymesh_identity::{CannotSign, Signed};
use paymesh_topology::Topology;
use paymesh_types::{RegionName, ShardRef, UserId, ZoneName};
use tokio::net::TcpListener;
use tonic::{Code, body::Body, service::Routes};
use tower::Service;

use crate::{
    Call, Directory, Edge, Error, Limits, RouteCount, ZoneSource,
    counts::RouteCounts,
    dial::Security,
    directory, edge, incoming,
    layers::{
        Answering,
        admit::DENIED,
        audit::Audit,
        deadline::{Deadline, Stop},
        metrics::{CALL_ERRORS, CALL_SECONDS, CALLS},
        shed::SHED,
    },
    methods,
    peer::{self, Peer},
    router::{Entry, Router},
};

/// How long a question to the directory may take; the call that needs the answer may end before.
const LOOK_UP_WAIT_MAX_MS: u64 = 5_000;

/// A node's view of the mesh. Cheap to clone; all clones are the same.
///
/// It is made before the services that it carries calls to, because they call through it: [`Mesh::new`], then the services
/// with their [`Mesh::channel`]s, then [`Mesh::serve`] with all of them.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

struct Inner {
    topology: Arc<Topology>,
    region: RegionName,
    security: Security,
    /// Whether this is an edge: it has no services of its own, and its own region's node is a peer like any other.
    is_edge: bool,
    /// Every region but our own; of an edge, that too.
    peers: BTreeMap<RegionName, Peer>,
    directory: Directory,
    counts: RouteCounts,
    stop: Stop,
    /// The copies of other regions' shards that this node keeps, once it is known which.
    copies: OnceLock<Arc<dyn Copies>>,
    /// Where calls leave their records, once there is such a place.
    audit: OnceLock<Arc<Log>>,
    /// This node's services, while they serve. They hold clones of this mesh: to part them is what ends both.
    local: RwLock<Option<Routes>>,
}

impl Mesh {
    /// The mesh as a node of `region` sees it. Connects to nothing yet; must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the region is not in the topology, or an endpoint cannot be dialled.
    pub fn new(topology: Arc<Topology>, region: RegionName, security: Security) -> Result<Self, Error> {
        Self::seen_by(topology, region, security, false)
    }

    /// The mesh as an edge of `region` sees it: all calls of the contract go on, to that region's node or to another's.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn of_edge(topology: Arc<Topology>, region: RegionName, security: Security) -> Result<Self, Error> {
        Self::seen_by(topology, region, security, true)
    }

    fn seen_by(topology: Arc<Topology>, region: RegionName, security: Security, is_edge: bool) -> Result<Self, Error> {
        if topology.region(&region).is_none() {
            let known = topology.regions().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownRegion { region, known });
        }
        let others = topology.regions().filter(|other| is_edge || other.name != region);
        let peers = others
            .map(|other| Ok((other.name.clone(), Peer::new(other, topology.led_by(&other.name).len(), topology.limits(), &security)?)))
            .collect::<Result<_, Error>>()?;
        let inner = Arc::new_cyclic(|mesh: &Weak<Inner>| Inner {
            directory: Directory::new(Arc::clone(&topology), Arc::new(OverMesh { mesh: mesh.clone() })),
            counts: RouteCounts::new(&topology),
            topology,
            region,
            security,
            is_edge,
            peers,
            stop: Stop::default(),
            copies: OnceLock::new(),
            audit: OnceLock::new(),
            local: RwLock::new(None),
        });
        Ok(Self { inner })
    }

    /// The topology that the node runs by.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.inner.topology
    }

    /// The node's region.
    pub fn region(&self) -> &RegionName {
        &self.inner.region
    }

    /// Whether calls that come in here may go on to other regions: not through a vault alone.
    pub(crate) fn forwards(&self) -> bool {
        self.inner.topology.region(&self.inner.region).is_none_or(|region| !region.is_vault_alone())
    }

    pub(crate) fn is_edge(&self) -> bool {
        self.inner.is_edge
    }

    /// A call of an edge's that waits for its answer from a node, for as long as this is held. Nodes count what waits at their shards.
    pub(crate) fn waits(&self) -> Option<Waiting> {
        self.is_edge().then(Waiting::begin)
    }

    /// User to zone.
    pub fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// A transport for any generated client, which routes as the edge does: `WalletServiceClient::new(mesh.channel())`.
    ///
    /// A handler's own deadline and way go along when it says so with [`Call::carry`].
    pub fn channel(&self) -> MeshChannel {
        MeshChannel { mesh: self.clone(), entry: Entry::Inside }
    }

    /// A transport to the nodes of one region, this one included, for callers that have done the routing themselves.
    /// None: there is no such region.
    pub fn to_region(&self, region: &RegionName) -> Option<MeshChannel> {
        let known = *region == self.inner.region || self.inner.peers.contains_key(region);
        known.then(|| MeshChannel { mesh: self.clone(), entry: Entry::To(region.clone()) })
    }

    /// What became of the calls that entered the mesh at this node.
    pub fn route_counts(&self) -> Vec<RouteCount> {
        self.inner.counts.snapshot()
    }

    /// Lets calls that start inside reach this node's services before, or without, a listener. [`Self::serve`] does it too.
    pub fn attach(&self, services: Routes) {
        *self.inner.local.write().unwrap_or_else(PoisonError::into_inner) = Some(services.prepare());
    }

    /// Parts the mesh from this node's services again. They hold clones of the mesh, so until then neither is dropped.
    pub fn detach(&self) {
        let services = self.inner.local.write().unwrap_or_else(PoisonError::into_inner).take();
        // Outside the lock: the services may drop their clones of the mesh.
        drop(services);
    }

    /// The whole stack around these services, for a listener of one's own.
    pub fn edge(&self, services: Routes, limits: Limits) -> Edge {
        Edge::new(self.clone(), services.prepare(), &limits)
    }

    /// Lets calls and look-ups be answered from this node's copies of other regions' shards. Once: later copies are not taken.
    pub fn read_from(&self, copies: Arc<dyn Copies>) {
        let _ = self.inner.copies.set(copies);
    }

    /// Has every call that reaches this node's listener leave a record in this log, and refuses those that cannot. Once, and before the node
    /// serves: later logs are not taken.
    pub fn audit_to(&self, log: Log) {
        let _ = self.inner.audit.set(Arc::new(log));
    }

    pub(crate) fn audit(&self) -> Option<Arc<Log>> {
        self.inner.audit.get().cloned()
    }

    /// Whether this node can answer reads of a shard that another region leads.
    pub(crate) fn can_read(&self, shard: &ShardRef) -> bool {
        self.inner.copies.get().is_some_and(|copies| copies.can_read(shard))
    }

    /// Serves these services, and the rest of the mesh through them, until `shutdown` ends and the calls in progress have:
    /// at most `limits.drain_wait` later. Then the mesh has let go of the services.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        &self,
        services: Routes,
        listener: TcpListener,
        limits: Limits,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        self.attach(services.clone());
        let served = tokio::select! {
            served = edge::serve(self, self.edge(services, limits.clone()), listener, limits, shutdown) => served,
            never = self.watch_peers() => match never {},
        };
        self.detach();
        served
    }

    /// Listens which peers are there, for as long as it is polled.
    async fn watch_peers(&self) -> Infallible {
        join_all(self.inner.peers.values().map(|peer| peer.watch(&self.inner.region))).await;
        // There are no others.
        std::future::pending().await
    }

    pub(crate) fn peer(&self, region: &RegionName) -> Option<&Peer> {
        self.inner.peers.get(region)
    }

    /// To be called when the node's credentials have changed: what is sent to peers from now on goes over connections that were made
    /// with the new ones. No call and no stream is broken off.
    pub fn credentials_changed(&self) {
        self.inner.peers.values().for_each(Peer::renew);
    }

    /// Signs what this node says to people who are not at the other end of its connections ([`Identity::sign`](paymesh_identity::Identity::sign)). None: nobody knows in plain text who
    /// anybody is.
    ///
    /// # Errors
    /// The key does not sign.
    pub fn sign(&self, purpose: &str, content: &[u8]) -> Result<Option<Signed>, CannotSign> {
        match &self.inner.security {
            Security::Certificates { identity, .. } => identity.sign(purpose, content).map(Some),
            Security::PlainText => Ok(None),
        }
    }

    pub(crate) fn security(&self) -> &Security {
        &self.inner.security
    }

    pub(crate) fn counts(&self) -> &RouteCounts {
        &self.inner.counts
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.inner.stop
    }

    fn local(&self) -> Option<Routes> {
        self.inner.local.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mesh({})", self.inner.region)
    }
}

/// A client transport over the mesh. Cheap to clone.
///
/// A call to this node's own services is a function call; any other goes to the region where it belongs. It ends by the
/// request's own timeout, by the deadline of the call that it is part of, or by the default, whichever is first.
#[derive(Clone)]
pub struct MeshChannel {
    mesh: Mesh,
    entry: Entry,
}

impl Service<Request<Body>> for MeshChannel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Answering {
        let path = request.uri().path();
        let call = match request.extensions().get::<Call>() {
            // Part of another call, and a method of its own.
            Some(outer) => Call { method: methods::method(path), ..outer.clone() },
            None => Call::entering(self.mesh.region(), path),
        };
        let uses_a_card = call.method.is_some_and(|method| method.policy.target == Target::Vault);
        request.extensions_mut().insert(call);
        let router = Router::new(self.mesh.clone(), self.mesh.local(), self.entry.clone());
        let mut inside = Deadline::new(self.mesh.stop().clone(), router);
        // What is used of a vault leaves a record, also where it is asked from inside of the node that has it.
        if uses_a_card { Audit::new(self.mesh.audit(), inside).call(request) } else { inside.call(request) }
    }
}

impl std::fmt::Debug for MeshChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MeshChannel({})", self.mesh.inner.region)
    }
}

/// The copies of other regions' shards that a node keeps.
#[tonic::async_trait]
pub trait Copies: Send + Sync {
    /// Whether reads of the shard can be answered from a copy here, at any age.
    fn can_read(&self, shard: &ShardRef) -> bool;

    /// The zones of those users that a copy of the directory here knows, in any order. Users that are left out may exist.
    async fn zones_of(&self, users: &[UserId]) -> Vec<(UserId, ZoneName)>;
}

/// The autoscaler's signal (source document, "Kubernetes HPA Setup"), which shards have under the same name.
const QUEUE_LENGTH: &str = "payment_queue_length";

/// A call that waits.
pub(crate) struct Waiting(());

impl Waiting {
    fn begin() -> Self {
        metrics::gauge!(QUEUE_LENGTH).increment(1.0);
        Self(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!(QUEUE_LENGTH).decrement(1.0);
    }
}

/// Says in `/metrics` what an edge counts besides. From the start: what is not there cannot be scaled by.
pub fn describe_edge_metrics() {
    metrics::describe_gauge!(QUEUE_LENGTH, "Calls that this edge has taken and that wait for their answers");
    metrics::gauge!(QUEUE_LENGTH).set(0.0);
}

/// Asks this node's copy of the directory, and of what that does not know its home, wherever it is.
struct OverMesh {
    mesh: Weak<Inner>,
}

#[tonic::async_trait]
impl ZoneSource for OverMesh {
    async fn look_up(&self, users: &[UserId]) -> Result<Vec<(UserId, ZoneName)>, Fault> {
        let inner = self.mesh.upgrade().ok_or_else(crate::layers::deadline::stopping)?;
        // What a copy knows is true for ever; what it does not know yet may be there all the same.
        let mut known = match inner.copies.get() {
            Some(copies) => copies.zones_of(users).await,
            None => Vec::new(),
        };
        let found: BTreeSet<UserId> = known.iter().map(|(user, _)| *user).collect();
        let asked: Vec<u64> = users.iter().filter(|user| !found.contains(user)).map(|user| user.get()).collect();
        if asked.is_empty() {
            return Ok(known);
        }
        metrics::counter!(directory::ASKED).increment(asked.len() as u64);
        let mut client = DirectoryServiceClient::new(Mesh { inner }.channel());
        let mut request = tonic::Request::new(LookUpUsersRequest { user_ids: asked });
        request.set_timeout(Duration::from_millis(LOOK_UP_WAIT_MAX_MS));
        let answer = client.look_up_users(request).await.map_err(|status| Fault::from_status(&status))?;
        let nonsense = |what: String| Fault::new(Code::Internal, "DIRECTORY_MALFORMED", format!("the directory answered {what}"));
        for found in answer.into_inner().users {
            let user = UserId::try_from(found.user_id).map_err(|error| nonsense(error.to_string()))?;
            let zone = found.zone.parse().map_err(|error: paymesh_types::Invalid| nonsense(error.to_string()))?;
            known.push((user, zone));
        }
        Ok(known)
    }
}

/// Says in `/metrics` what this crate counts. To be called once the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(CALLS, "Calls that ended, by method, sender and gRPC code");
    metrics::describe_counter!(CALL_ERRORS, "Calls that ended with an error, by its reason: each bound that refuses calls has its own");
    metrics::describe_histogram!(CALL_SECONDS, metrics::Unit::Seconds, "From a call's headers to the last byte of its answer");
    metrics::describe_gauge!(
        peer::UP,
        "1 while something comes from another region's node, 0 from when nothing has for three seconds: calls to it are refused then"
    );
    metrics::describe_counter!(DENIED, "Calls and streams that were not let in or not let go on, by the reason that they were told");
    metrics::describe_counter!(SHED, "Calls refused because too many were in progress");
    metrics::describe_counter!(
        incoming::REFUSED,
        "Connections that were closed or not accepted, by why. Not accepted: limit, address, accept. Not begun: preface, tls. Without calls: \
         idle. Not whole in time: slow_headers, slow_frame. Too many of: resets, errors, pings, settings, priorities, windows, \
         data, headers, continuations, control. Not HTTP/2: protocol"
    );
    metrics::describe_counter!(
        directory::MISSES,
        "Users whose zone was not in memory: it is looked up in a copy of the directory, or asked for"
    );
    metrics::describe_counter!(directory::ASKED, "Users whose zone had to be asked for at the directory's home");
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt::Write;

    use super::*;

    /// Regions us_east (primary), eu_west, ... as many as there are ports; zone global is of the first, zone eu of the others.
    pub(crate) fn topology(ports: &[u16]) -> Topology {
        const REGIONS: [&str; 3] = ["us_east", "eu_west", "eu_north"];
        let mut yaml = "mesh: test\nregions:\n".to_owned();
        let names = &REGIONS[..ports.len()];
        for (index, name) in names.iter().enumerate() {
            let (primary, database) = if index == 0 { (true, "primary_master") } else { (false, "regional_master") };
            writeln!(yaml, "  {name}: {{primary: {primary}, services: [payment_processor], database: {database}}}").expect("a string");
        }
        let eu = names[1..].join(", ");
        writeln!(yaml, "zones:\n  global: {{shards: 2, regions: [us_east], countries: [US]}}").expect("a string");
        writeln!(yaml, "  eu: {{shards: 2, regions: [{eu}], countries: [DE]}}\nendpoints:").expect("a string");
        for (index, (name, port)) in names.iter().zip(ports).enumerate() {
            // The http ports are never opened here; they only must not be another's.
            writeln!(yaml, "  {name}: {{grpc: '127.0.0.1:{port}', http: '127.0.0.{}:{port}'}}", index + 2).expect("a string");
        }
        Topology::parse("test", &yaml).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"))
    }

    #[tokio::test]
    async fn a_region_that_is_not_configured_is_named_with_those_that_are() {
        let topology = Arc::new(topology(&[1, 2]));
        let error = Mesh::new(topology, "mars".parse().expect("a name"), Security::PlainText).expect_err("mars is not a region");
        assert_eq!(error.to_string(), "region `mars` is not in region-config; start the node with one of: us_east, eu_west");
    }

    #[tokio::test]
    async fn a_mesh_without_services_says_that_the_node_starts() {
        let mesh = Mesh::new(Arc::new(topology(&[1, 2])), "us_east".parse().expect("a name"), Security::PlainText).expect("a mesh");
        let fault = mesh.directory().zone_of(UserId::try_from(7).expect("a user")).await.expect_err("nobody answers");
        assert_eq!(fault.reason, "NODE_STARTING");
        assert!(mesh.to_region(&"mars".parse().expect("a name")).is_none());
    }
}
