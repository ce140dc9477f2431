//! Counts every call by method, outcome and sender, and how long it took to its last byte.
//!
//! Labels are the contract's words, never the caller's: what is not in the contract is `unknown`, so nobody can make
//! series at will. Handles are looked up once for each series, not once for each call.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Instant,
};

use http::{Request, Response};
use metrics::{Counter, Histogram, counter, histogram};
use paymesh_contract::code_name;
use tonic::{Code, body::Body};
use tower::Service;

use super::{Answer, Answering};
use crate::{
    body,
    call::Call,
    methods::{self, Method},
};

pub(crate) const CALLS: &str = "paymesh_calls_total";
pub(crate) const CALL_SECONDS: &str = "paymesh_call_seconds";

/// gRPC's codes, 0 to 16.
const CODES: usize = 17;

/// Counts what passes.
#[derive(Clone)]
pub(crate) struct Metrics<S> {
    series: Arc<Vec<MethodSeries>>,
    inner: S,
}

impl<S> Metrics<S> {
    pub(crate) fn new(inner: S) -> Self {
        // One line for each method, and one for what is not in the contract.
        let lines = methods::methods().len() + 1;
        Self { series: Arc::new((0..lines).map(|_| MethodSeries::default()).collect()), inner }
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
        let series = Arc::clone(&self.series);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let counted = Counted { series, method, from_peer, began };
            let answer = answer.await?;
            Ok(body::observe(answer, move |code| counted.end(code)))
        })
    }
}

/// A call that is being measured.
struct Counted {
    series: Arc<Vec<MethodSeries>>,
    method: Option<&'static Method>,
    from_peer: bool,
    began: Instant,
}

impl Counted {
    fn end(&self, code: Code) {
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
}
