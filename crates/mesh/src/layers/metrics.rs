//! Counts every call by method, outcome and sender, and how long it took to its last byte.
//!
//! Errors are counted by the reason that they give too, so that each bound that refuses calls has a count of its own.
//!
//! Labels are the contract's words, never the caller's: what is not in the contract is `unknown`, so nobody can make
//! series at will. Handles are looked up once for each series, not once for each call.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, Request, Response};
use metrics::{Counter, Histogram, counter, histogram};
use paymesh_contract::{Fault, code_name};
use tonic::{Code, Status, body::Body};
use tower::Service;

use super::{Answer, Answering};
use crate::{
    body,
    call::Call,
    methods::{self, Method},
};

pub(crate) const CALLS: &str = "paymesh_calls_total";
pub(crate) const CALL_SECONDS: &str = "paymesh_call_seconds";
pub(crate) const CALL_ERRORS: &str = "paymesh_call_errors_total";

/// Reasons of errors that have a series of their own at most: more than the contract has, whatever another region's node says.
const REASONS_MAX: usize = 256;
/// What the others are counted as.
const OTHER_REASON: &str = "OTHER";

/// gRPC's codes, 0 to 16.
const CODES: usize = 17;

/// Counts what passes.
#[derive(Clone)]
pub(crate) struct Metrics<S> {
    series: Arc<Vec<MethodSeries>>,
    reasons: Arc<Reasons>,
    inner: S,
}

impl<S> Metrics<S> {
    pub(crate) fn new(inner: S) -> Self {
        // One line for each method, and one for what is not in the contract.
        let lines = methods::methods().len() + 1;
        Self { series: Arc::new((0..lines).map(|_| MethodSeries::default()).collect()), reasons: Arc::default(), inner }
    }
}

impl<S: Answer> Service<Request<Body>> for Metrics<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let began = Instant::now();
        let (method, from_peer) = request.extensions().get::<Call>().map_or((None, false), |call| (call.method, call.is_from_peer()));
        let (series, reasons) = (Arc::clone(&self.series), Arc::clone(&self.reasons));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let counted = Counted { series, reasons, method, from_peer, began };
            let answer = answer.await?;
            Ok(body::observe(answer, move |code, said_in| counted.end(code, said_in)))
        })
    }
}

/// A call that is being measured.
struct Counted {
    series: Arc<Vec<MethodSeries>>,
    reasons: Arc<Reasons>,
    method: Option<&'static Method>,
    from_peer: bool,
    began: Instant,
}

impl Counted {
    fn end(&self, code: Code, said_in: Option<&HeaderMap>) {
        if code != Code::Ok {
            self.reasons.count(code, said_in);
        }
        let line = self.method.map_or(self.series.len() - 1, |method| method.index);
        let Series { codes, seconds } = &self.series[line].senders[usize::from(self.from_peer)];
        let labels = || {
            let (service, method) =
                self.method.map_or(("unknown", "unknown"), |method| (method.policy.service.as_str(), method.policy.method.as_str()));
            (service, method, if self.from_peer { "peer" } else { "caller" })
        };
        let counter = codes[code as usize % CODES].get_or_init(|| {
            let (service, method, from) = labels();
            counter!(CALLS, "service" => service, "method" => method, "from" => from, "code" => code_name(code))
        });
        counter.increment(1);
        let histogram = seconds.get_or_init(|| {
            let (service, method, from) = labels();
            histogram!(CALL_SECONDS, "service" => service, "method" => method, "from" => from)
        });
        histogram.record(self.began.elapsed().as_secs_f64());
    }
}

/// Errors by their reasons.
#[derive(Default)]
struct Reasons {
    counters: Mutex<HashMap<String, Counter>>,
}

impl Reasons {
    fn count(&self, code: Code, said_in: Option<&HeaderMap>) {
        let fault = said_in.and_then(Status::from_header_map).map(|status| Fault::from_status(&status));
        let reason = fault.as_ref().map_or(code_name(code), |fault| &fault.reason);
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get(reason) {
            counter.increment(1);
            return;
        }
        let reason = if counters.len() < REASONS_MAX { reason } else { OTHER_REASON }.to_owned();
        let counter = counter!(CALL_ERRORS, "reason" => reason.clone());
        counter.increment(1);
        counters.insert(reason, counter);
    }
}

/// A method's series: from callers, from peers.
#[derive(Default)]
struct MethodSeries {
    senders: [Series; 2],
}

#[derive(Default)]
struct Series {
    codes: [OnceLock<Counter>; CODES],
    seconds: OnceLock<Histogram>,
}

#[cfg(test)]
mod tests {
    use paymesh_telemetry::Metrics as Recorded;

    use super::*;
    use crate::layers::mock;

    #[tokio::test]
    async fn calls_are_counted_by_method_code_and_sender_and_unknown_methods_share_a_line() {
        let (recorder, recorded) = Recorded::recorder("us_east").expect("a recorder");
        let _recording = metrics::set_default_local_recorder(&recorder);
        let mut layer = Metrics::new(mock::answering(|_| mock::ok(b"answer")));
        let path = "/paymesh.wallet.v1.WalletService/GetBalance";
        mock::read(layer.call(mock::request(path)).await).await;
        mock::read(layer.call(mock::request_from_peer(path)).await).await;
        mock::read(layer.call(mock::request("/made.up/ByACaller")).await).await;
        drop(layer.call(mock::request(path)).await);
        let text = recorded.render();
        for wanted in [
            r#"service="paymesh.wallet.v1.WalletService",method="GetBalance",from="caller",code="OK"} 1"#,
            r#"service="paymesh.wallet.v1.WalletService",method="GetBalance",from="peer",code="OK"} 1"#,
            r#"service="paymesh.wallet.v1.WalletService",method="GetBalance",from="caller",code="CANCELLED"} 1"#,
            r#"service="unknown",method="unknown",from="caller",code="OK"} 1"#,
            r#"paymesh_call_seconds_count{region="us_east",service="paymesh.wallet.v1.WalletService",method="GetBalance",from="caller"} 2"#,
        ] {
            assert!(text.contains(wanted), "{wanted} is not in {text}");
        }
        assert!(!text.contains("made.up"), "{text}");
    }

    #[tokio::test]
    async fn errors_are_counted_by_reason_and_no_more_reasons_than_there_may_be() {
        let (recorder, recorded) = Recorded::recorder("us_east").expect("a recorder");
        let _recording = metrics::set_default_local_recorder(&recorder);
        let path = "/paymesh.wallet.v1.WalletService/GetBalance";
        let mut refusing = Metrics::new(mock::answering(|_| body::reply(Fault::not_found("USER_NOT_FOUND", "nobody"))));
        for _ in 0..2 {
            mock::read(refusing.call(mock::request(path)).await).await;
        }
        drop(refusing.call(mock::request(path)).await);
        let text = recorded.render();
        assert!(text.contains(r#"reason="USER_NOT_FOUND"} 3"#), "{text}");
        let numbers = std::sync::atomic::AtomicU32::new(0);
        let mut inventive = Metrics::new(mock::answering(move |_| {
            let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            body::reply(Fault::not_found(format!("REASON_{number}"), "nobody"))
        }));
        for _ in 0..2 * REASONS_MAX {
            mock::read(inventive.call(mock::request(path)).await).await;
        }
        let text = recorded.render();
        assert!(text.contains(&format!(r#"reason="OTHER"}} {REASONS_MAX}"#)), "{text}");
        assert_eq!(text.matches("reason=\"REASON_").count(), REASONS_MAX);
    }
}
