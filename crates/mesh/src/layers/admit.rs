//! Who a call is from, and whether it may be made at all: denied is what nobody has granted.
//!
//! What depends on whom the call is about is looked at by the router, which knows it; here it is the method alone. A stream
//! ends with the credential that it began with, and when the files by which its caller is known no longer say what they said.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use futures::future::Either;
use http::{Request, Response};
use paymesh_access::{Caller, InProgress, Refusal};
use paymesh_contract::Fault;
use paymesh_topology::{Region, Topology};
use paymesh_types::RegionName;
use tokio::time::Instant;
use tonic::{Code, body::Body};
use tower::Service;

use super::{Answer, Answering, shed::overloaded};
use crate::{
    Security,
    body::{self, Bounded},
    call::Call,
    credential::{self, CALLER_CERTIFICATE_HEADER},
    incoming::OtherEnd,
    methods::Method,
    places::{Place, Places},
};

/// Edges of a region have this part of the calls that a node takes at once for what they ask on their own behalf: whose a user is, which takes no time.
const EDGES_PARTS: usize = 16;

pub(crate) const DENIED: &str = "paymesh_calls_denied_total";

/// Lets calls pass that may be made.
#[derive(Clone)]
pub(crate) struct Admit<S> {
    security: Security,
    topology: Arc<Topology>,
    /// What the edges of a region ask on their own behalf, all of them together: whose certificate it is, and not how many processes have it, is known.
    edges: Arc<BTreeMap<RegionName, Places>>,
    /// The same for those of regions that were added since this node has read the configuration.
    strangers: Places,
    inner: S,
}

/// A call in progress, until it is dropped: of a principal's, or of an edge's own.
enum Taken {
    Principal(#[expect(dead_code, reason = "it is there to be dropped")] InProgress),
    Edge(#[expect(dead_code, reason = "it is there to be dropped")] Place),
}

impl<S> Admit<S> {
    pub(crate) fn new(security: Security, topology: Arc<Topology>, inner: S) -> Self {
        let each = (topology.limits().calls / EDGES_PARTS).max(1);
        let edges = topology.regions().map(|region| (region.name.clone(), Places::new(each))).collect();
        Self { security, topology, edges: Arc::new(edges), strangers: Places::new(each), inner }
    }

    /// Takes a call's part of what its caller may take.
    fn begin(&self, caller: &Caller) -> Result<Option<Taken>, Fault> {
        if let Caller::Edge(region) = caller {
            let places = self.edges.get(region).unwrap_or(&self.strangers);
            let full =
                || overloaded(format!("edges of {region} have {} calls of their own in progress at this node, their most", places.max()));
            let place = places.take().ok_or_else(full)?;
            return Ok(Some(Taken::Edge(place)));
        }
        caller.begin(Instant::now()).map(|place| place.map(Taken::Principal)).map_err(denied)
    }

    /// Who sends the request, where it may.
    fn admitted(&self, request: &Request<Body>) -> Result<Caller, Fault> {
        let call = request.extensions().get::<Call>();
        // Whatever becomes of the call, and whatever it says, it is known whose connection it came by.
        let connected = request.extensions().get::<OtherEnd>().and_then(|OtherEnd(connected)| connected.as_ref());
        if let (Some(edge), Some(trail)) =
            (connected.and_then(|other| other.edge(SystemTime::now())), call.and_then(|call| call.trail.as_ref()))
        {
            trail.note(|record| {
                record.edge_region = Some(edge.region().clone());
                // Until a token says more.
                record.caller = paymesh_audit::Caller::Edge(edge.region().clone());
            });
        }
        if let Some(fault) = call.and_then(|call| call.refused.clone()) {
            if fault.code == Code::PermissionDenied {
                metrics::counter!(DENIED, "reason" => fault.reason.to_string()).increment(1);
            }
            return Err(fault);
        }
        self.allowed(call, request).map_err(denied)
    }

    fn allowed(&self, call: Option<&Call>, request: &Request<Body>) -> Result<Caller, Refusal> {
        // What the contract does not have, gRPC's own health and reflection, is for everybody: balancers watch by the one, and the other tells
        // the contract, which is no secret.
        let Some((call, method)) = call.and_then(|call| Some((call, call.method?))) else { return Ok(Caller::Nobody) };
        let from_node = call.node().is_some();
        if method.policy.nodes_only && !from_node {
            return Err(Refusal::NodesOnly { path: method.policy.path.clone() });
        }
        // It has seen certificates of callers, and forwards nothing: whoever took one over could act for them everywhere.
        if let Some(region) = call.node()
            && request.headers().contains_key(CALLER_CERTIFICATE_HEADER)
            && self.topology.region(region).is_some_and(Region::is_vault_alone)
        {
            return Err(Refusal::NothingToPassOn { region: region.to_string() });
        }
        // What callers have shown it else would be its word alone.
        if let Some(region) = call.edge()
            && request.headers().contains_key(CALLER_CERTIFICATE_HEADER)
        {
            return Err(Refusal::TokensOnly { region: region.to_string() });
        }
        let caller = match &self.security {
            Security::PlainText => Caller::Unproven,
            Security::Certificates { identity, callers } => credential::caller(request, call, identity, callers, SystemTime::now())?,
        };
        // Also of one that is refused it is known who it was.
        if let Some(trail) = &call.trail {
            trail.note(|record| record.caller = caller.audited());
        }
        caller.may_call(method.policy, from_node)?;
        Ok(caller)
    }

    /// The end of what a call rests on as its answer's end, where the call is a stream: its caller's grant; or the certificate of the node
    /// that sends it on its own behalf, which comes back with its new one.
    fn end(&self, caller: &Caller, method: Option<&Method>, not_after: Option<SystemTime>) -> Option<body::End> {
        let Security::Certificates { callers, .. } = &self.security else { return None };
        method.filter(|method| method.is_streaming())?;
        match caller {
            Caller::Known(grant) => {
                let (callers, grant) = (callers.clone(), grant.clone());
                Some(Box::pin(async move { denied(callers.ended(grant, SystemTime::now).await) }))
            }
            Caller::Node(_) => {
                let left = not_after?.duration_since(SystemTime::now()).unwrap_or_default();
                Some(Box::pin(async move {
                    tokio::time::sleep(left).await;
                    denied(Refusal::Expired)
                }))
            }
            // No stream is an edge's own.
            Caller::Nobody | Caller::Unproven | Caller::Edge(_) => None,
        }
    }
}

fn count(refusal: &Refusal) {
    metrics::counter!(DENIED, "reason" => refusal.reason()).increment(1);
}

/// A refusal as an answer, counted.
pub(crate) fn denied(refusal: Refusal) -> Fault {
    count(&refusal);
    refusal.into()
}

impl<S: Answer> Service<Request<Body>> for Admit<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    // Most answers are handed on as they are, and need no box of their own.
    type Future = Either<S::Future, Answering>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let refuse = |fault| Either::Right(Box::pin(async { Ok(body::reply(fault)) }) as Answering);
        let caller = match self.admitted(&request) {
            Ok(caller) => caller,
            Err(fault) => return refuse(fault),
        };
        let not_after = request.extensions().get::<OtherEnd>().and_then(|OtherEnd(connected)| connected.as_ref()?.not_after());
        let (mut place, mut end) = (None, None);
        if let Some(call) = request.extensions_mut().get_mut::<Call>() {
            // Where it enters the mesh, and at no node twice. What edges count is theirs alone, and there can be many of them.
            if call.node().is_none() {
                place = match self.begin(&caller) {
                    Ok(place) => place,
                    Err(fault) => return refuse(fault),
                };
            }
            end = self.end(&caller, call.method, not_after);
            call.caller = caller;
        }
        let answer = self.inner.call(request);
        if place.is_none() && end.is_none() {
            return Either::Left(answer);
        }
        Either::Right(Box::pin(async move {
            let answer = match &mut end {
                None => answer.await?,
                // A stream is answered when its first message has come, which may be long after its headers were looked at.
                Some(end) => tokio::select! {
                    biased;
                    fault = end => return Ok(body::reply(fault)),
                    answer = answer => answer?,
                },
            };
            let answer = answer.map(|inner| Bounded::body(inner, None, end));
            Ok(match place {
                Some(place) => body::observe(answer, move |_, _| drop(place)),
                None => answer,
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::mock;

    /// The peer of [`mock::request_from_peer`] is a vault alone.
    fn topology() -> Arc<Topology> {
        let yaml = "
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
  eu_west: {primary: false, services: [vault], database: none}
zones:
  global: {shards: 1, regions: [us_east, eu_west], countries: [US]}
endpoints:
  us_east: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
  eu_west: {grpc: '127.0.0.1:7102', http: '127.0.0.1:7202'}
";
        Arc::new(Topology::parse("test", yaml).unwrap_or_else(|errors| panic!("{errors}")))
    }

    /// It has seen certificates of callers, and none of their keys.
    #[tokio::test]
    async fn a_vault_alone_acts_for_no_caller() {
        let mut layer = Admit::new(Security::PlainText, topology(), mock::answering(|_| mock::ok(b"answer")));
        for policy in paymesh_contract::policies().methods() {
            let mut request = mock::request_from_peer(&policy.path);
            request.headers_mut().insert(CALLER_CERTIFICATE_HEADER, "Y2VydGlmaWNhdGU=".parse().expect("a value"));
            let fault = mock::fault(layer.call(request).await).await;
            assert_eq!((fault.code, fault.reason.as_ref()), (Code::PermissionDenied, "NOT_THAT_NODE"), "{}", policy.path);
        }
    }

    #[tokio::test]
    async fn what_is_for_nodes_passes_from_nodes_only() {
        let mut layer = Admit::new(Security::PlainText, topology(), mock::answering(|_| mock::ok(b"answer")));
        for policy in paymesh_contract::policies().methods() {
            let fault = mock::fault(layer.call(mock::request(&policy.path)).await).await;
            let wanted = if policy.nodes_only { (Code::PermissionDenied, "NODES_ONLY") } else { (Code::Ok, "") };
            assert_eq!(fault.code, wanted.0, "{}", policy.path);
            assert!(fault.reason == wanted.1 || !policy.nodes_only, "{fault}");
            assert_eq!(mock::fault(layer.call(mock::request_from_peer(&policy.path)).await).await.code, Code::Ok, "{}", policy.path);
        }
    }
}
