//! The bottom of the stack: a call goes to this node's services, or on to the region that leads the shard it belongs to. A read
//! that says so is answered from this node's copy of the shard.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use paymesh_audit::Record;
use paymesh_contract::{Fault, KeyValue, MethodPolicy, Target};
use paymesh_types::RegionName;
use tonic::{Code, Status, body::Body, service::Routes};
use tower::Service;

use crate::{
    body::{self, Replay},
    call::Call,
    forward::forward,
    frame,
    layers::{Answering, admit::denied},
    mesh::{Mesh, Waiting},
    route::{self, Plan},
};

/// When to try again on a node that comes up.
const RETRY_AFTER_MS: u64 = 500;

/// Where a call enters the router: that decides what is counted.
#[derive(Clone)]
pub(crate) enum Entry {
    /// From the listener.
    Edge,
    /// From a handler of this node.
    Inside,
    /// From a handler of this node, for a region that it names.
    To(RegionName),
}

/// Routes by the contract's annotations.
#[derive(Clone)]
pub(crate) struct Router {
    mesh: Mesh,
    local: Option<Routes>,
    entry: Entry,
}

impl Router {
    pub(crate) fn new(mesh: Mesh, local: Option<Routes>, entry: Entry) -> Self {
        Self { mesh, local, entry }
    }
}

impl Service<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let Self { mesh, local, entry } = self.clone();
        Box::pin(async move {
            let call = match request.extensions().get::<Call>() {
                Some(call) => call.clone(),
                None => Call::entering(mesh.region(), request.uri().path()),
            };
            let (parts, body) = request.into_parts();
            let (region, body, _waiting) = match destination(&mesh, &entry, &call, body).await {
                Ok(Destination { region, body, waiting }) => (region, body, waiting),
                Err(fault) => return Ok(body::reply(fault)),
            };
            if let (Entry::Edge, Some(_)) = (&entry, call.method) {
                mesh.counts().add(&region, call.is_from_peer());
            }
            // What the contract does not have is answered here, also by an edge, of which its own region's node is a peer.
            match call.method.and_then(|_| mesh.peer(&region)) {
                Some(peer) => Ok(forward(mesh.region(), peer, &call, parts, body).await),
                // The only region without a peer is our own.
                None => match local {
                    Some(mut local) => local.call(Request::from_parts(parts, body)).await,
                    None => Ok(body::reply(Fault::unavailable(
                        "NODE_STARTING",
                        "the node's services are not up yet",
                        Duration::from_millis(RETRY_AFTER_MS),
                    ))),
                },
            }
        })
    }
}

/// Where a call goes.
struct Destination {
    /// The region that answers it.
    region: RegionName,
    /// Its whole body again.
    body: Body,
    /// That it waits for its answer, at an edge.
    waiting: Option<Waiting>,
}

async fn destination(mesh: &Mesh, entry: &Entry, call: &Call, mut body: Body) -> Result<Destination, Fault> {
    if let Entry::To(region) = entry {
        return Ok(Destination { region: region.clone(), body, waiting: call.method.and_then(|_| mesh.waits()) });
    }
    // What the contract does not have (health, reflection, a typing error) is for this node to answer.
    let Some(method) = call.method.filter(|method| method.policy.target != Target::Local) else {
        return Ok(Destination { region: mesh.region().clone(), body, waiting: call.method.and_then(|_| mesh.waits()) });
    };
    let read = read_first(&mut body).await?;
    // From when there is something to answer: also while the directory's home is asked whose the user is. More edges would not help those who send nothing.
    let waiting = mesh.waits();
    let region = home(mesh, entry, call, method.policy, &read).await?;
    if matches!(entry, Entry::Edge) && region != *mesh.region() && !mesh.forwards() {
        let message = format!("{} is a vault alone, and forwards nothing: call a node of another region", mesh.region());
        return Err(Fault::new(Code::FailedPrecondition, "NOT_FORWARDED", message));
    }
    Ok(Destination { region, body: Replay::body(read, body), waiting })
}

async fn home(mesh: &Mesh, entry: &Entry, call: &Call, policy: &MethodPolicy, read: &Bytes) -> Result<RegionName, Fault> {
    let message = frame::first_message(read)?.ok_or_else(frame::truncated)?;
    let plan = route::plan(policy, message)?;
    if let (Entry::Edge, Some(trail)) = (entry, &call.trail) {
        let id = policy.request_id.as_ref().and_then(|path| path.extract(message).ok().flatten());
        trail.note(|record| note(record, &plan, id.as_ref()));
    }
    // What starts inside was looked at where the call came in that it is part of; what nodes alone send has no caller.
    let of_caller = matches!(entry, Entry::Edge) && !policy.nodes_only;
    if of_caller {
        // Before anybody is asked about a user who is none of the caller's.
        route::allowed_to_ask(&plan, call.caller()).map_err(denied)?;
    }
    let zone = match plan {
        Plan::User(user) | Plan::CardsOf(user) | Plan::PaymentOf(user) => match mesh.directory().zone_of(user).await {
            // Its own region's node has a copy of the directory, and looks at all that is looked at here.
            Err(fault) if mesh.is_edge() && is_no_answer(&fault) => return Ok(mesh.region().clone()),
            found => found?,
        },
        _ => None,
    };
    if of_caller {
        route::allowed(mesh.topology(), &plan, zone.as_ref(), call.caller()).map_err(denied)?;
    }
    let named = |fault: Fault| match (&plan, &policy.key) {
        // Only here is it known in which of the message's fields the user stands.
        (Plan::User(_) | Plan::CardsOf(_) | Plan::PaymentOf(_) | Plan::VaultOf(_), Some(key)) => fault.with_field(key.as_str()),
        _ => fault,
    };
    if let Some(region) = route::vault(mesh.topology(), &plan, zone.as_ref()).map_err(named)? {
        return Ok(region.clone());
    }
    if let Some(region) = route::fraud(mesh.topology(), &plan, zone.as_ref()).map_err(named)? {
        return Ok(region.clone());
    }
    match route::shard(mesh.topology(), &plan, zone.as_ref()).map_err(named)? {
        // By now it is known that there is such a shard, and which.
        Some(shard) => {
            let leader = route::leader(mesh.topology(), &shard)?;
            // Whether there is a copy that can be read is for an edge's own region's node to say.
            let readable = mesh.is_edge() || mesh.can_read(&shard);
            let here = leader != mesh.region() && route::reads_here(policy, message)? && readable;
            Ok(if here { mesh.region() } else { leader }.clone())
        }
        None => Ok(mesh.region().clone()),
    }
}

/// Whether the directory's home has said nothing: it is away, or took longer than a look-up may, which is less than a call has.
fn is_no_answer(fault: &Fault) -> bool {
    matches!(fault.code, Code::Unavailable | Code::DeadlineExceeded)
}

/// Notes whom a call is about, and what its caller calls it.
fn note(record: &mut Record, plan: &Plan, id: Option<&KeyValue<'_>>) {
    match plan {
        Plan::User(user) | Plan::Resident(_, user) | Plan::Directory(user) | Plan::CardsOf(user) | Plan::PaymentOf(user) => {
            record.subjects.add_user(*user)
        }
        Plan::Payment(payment) => record.subjects.add_payment(payment),
        Plan::Card(token) => record.subjects.add_card(token),
        Plan::Local | Plan::Journal(_) | Plan::VaultOf(_) => {}
    }
    if let Some(KeyValue::Text(id)) = id {
        record.request_id = id.parse().ok();
    }
}

/// Reads a body until its first message is whole: what was read, which may be more. Usually one frame, which is not copied.
async fn read_first(body: &mut Body) -> Result<Bytes, Fault> {
    let mut read = Bytes::new();
    loop {
        let Some(frame) = body.frame().await else { return Err(frame::truncated()) };
        let frame = frame.map_err(|status| broken_off(&status))?;
        let Ok(data) = frame.into_data() else { return Err(frame::truncated()) };
        read = if read.is_empty() {
            data
        } else {
            // Grows with what has come, not with what the prefix promises.
            let mut joined = read.try_into_mut().unwrap_or_else(|read| BytesMut::from(&read[..]));
            joined.extend_from_slice(&data);
            joined.freeze()
        };
        if frame::first_message(&read)?.is_some() {
            return Ok(read);
        }
        if body.is_end_stream() {
            return Err(frame::truncated());
        }
    }
}

fn broken_off(status: &Status) -> Fault {
    // A layer above that ends a request says why; a connection that breaks has no details.
    if !status.details().is_empty() {
        return Fault::from_status(status);
    }
    Fault::new(Code::Cancelled, "CANCELLED", format!("the request broke off: {}", status.message()))
}
