//! Leaves a record of every call of the contract's methods in the node's audit log: who, what, from where, about whom, and what came of it.
//!
//! A call of which no record could be kept is not made, unless it is about nobody: what says how the mesh does, and what nodes tell each other, goes
//! on while a disk is full, or its operators would see nothing and its copies would fall behind. What is known of a call only further down (its caller, whom it is about) is noted
//! there, in the call's trail. gRPC's own health and reflection leave none: they tell nothing of anybody, and are asked for all the time.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use http::{Request, Response};
use paymesh_audit::{Log, Outcome, Record};
use paymesh_contract::{Fault, MethodPolicy, Target};
use paymesh_types::Timestamp;
use tonic::{Status, body::Body};
use tower::Service;

use super::{Answer, Answering};
use crate::{body, call::Call, trail::Trail};

/// The address of a request's connection's other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct From(pub(crate) SocketAddr);

/// Has calls leave records.
#[derive(Clone)]
pub(crate) struct Audit<S> {
    /// None: nothing is recorded, as in tests of what is below.
    log: Option<Arc<Log>>,
    inner: S,
}

impl<S> Audit<S> {
    pub(crate) fn new(log: Option<Arc<Log>>, inner: S) -> Self {
        Self { log, inner }
    }
}

impl<S: Answer> Service<Request<Body>> for Audit<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answering {
        let from = request.extensions().get::<From>().map(|From(address)| *address);
        let call = request.extensions_mut().get_mut::<Call>();
        let recorded = self.log.as_ref().zip(call).and_then(|(log, call)| call.method.map(|method| (log, call, method)));
        let Some((log, call, method)) = recorded else { return Box::pin(self.inner.call(request)) };
        let record = Record {
            entry_region: Some(call.entry_region.clone()),
            peer: from,
            // Of a call that has arrived, it is known only further down.
            ..Record::new(now(), call.caller.audited(), Some(method.policy))
        };
        let trail = match log.reserve(record) {
            Ok(slot) => Trail::new(slot),
            Err(_) if is_about_nobody(method.policy, call) => return Box::pin(self.inner.call(request)),
            Err(why) => {
                log.refused(why);
                let fault = Fault::from(why);
                return Box::pin(async { Ok(body::reply(fault)) });
            }
        };
        call.trail = Some(trail.clone());
        let began = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(body::observe(answer, move |code, said_in| {
                let fault = said_in.filter(|_| code != tonic::Code::Ok).and_then(Status::from_header_map);
                let reason = fault.map(|status| Fault::from_status(&status).reason).unwrap_or_default();
                trail.end(Outcome::new(code, reason, began.elapsed()));
            }))
        })
    }
}

/// Whether a call is between nodes, or reads what only the node that was reached says. Who is not a node gets nothing from what is for nodes. A card that is
/// used is recorded, whoever uses it (PCI DSS 10.2.1.1).
fn is_about_nobody(policy: &MethodPolicy, call: &Call) -> bool {
    let between_nodes = policy.nodes_too && call.node().is_some() && policy.target != Target::Vault;
    policy.nodes_only || between_nodes || (policy.target == Target::Local && policy.read_only)
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use paymesh_audit::Settings;
    use paymesh_contract::policies;

    use super::*;
    use crate::layers::mock;

    /// One whose disk is full, or that is being opened.
    #[tokio::test]
    async fn while_no_record_can_be_kept_only_what_is_about_nobody_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = Settings::new("test", "us_east".parse().expect("a region"), "1", Arc::new(|| Timestamp(1)));
        let (log, _writer) = Log::open(directory.path().join("audit"), settings);
        let mut layer = Audit::new(Some(Arc::new(log)), mock::answering(|_| mock::ok(b"answer")));
        for policy in policies().methods() {
            let from_node = mock::fault(layer.call(mock::request_from_peer(&policy.path)).await).await.code == tonic::Code::Ok;
            let from_caller = mock::fault(layer.call(mock::request(&policy.path)).await).await;
            assert!(from_caller.code == tonic::Code::Ok || from_caller.reason == "AUDIT_UNAVAILABLE", "{from_caller:?}");
            let local_read = policy.target == Target::Local && policy.read_only;
            let between_nodes = policy.nodes_too && policy.target != Target::Vault;
            assert_eq!(from_node, policy.nodes_only || between_nodes || local_read, "{}", policy.path);
            assert_eq!(from_caller.code == tonic::Code::Ok, policy.nodes_only || local_read, "{}", policy.path);
        }
    }
}
