//! A forwarded call is one trace across two nodes, and its spans say nothing of its content.

#![forbid(unsafe_code)]

mod common;

use std::sync::{Arc, Mutex};

use common::{GET_BALANCE, Manner, Wallet, framed, listener, send, two_nodes};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use paymesh_contract::wallet::v1::DepositRequest;
use paymesh_telemetry::Config;
use prost::Message;
use tonic::{Code, transport::server::TcpIncoming};

const DEPOSIT: &str = "/paymesh.wallet.v1.WalletService/Deposit";
const CANARY: &str = "canary-5c1f";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER_SPAN: &str = "00f067aa0ba902b7";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().expect("the lock").push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarded_call_is_one_trace_without_its_content() {
    let collector = Collector::default();
    let (collector_listener, port) = listener().await;
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(collector_listener)));
    let guard = paymesh_telemetry::init(&Config {
        service_name: "paymesh".to_owned(),
        region: None,
        json_logs: false,
        otlp_endpoint: Some(format!("http://127.0.0.1:{port}")),
        filter: "warn".to_owned(),
    })
    .expect("telemetry");

    let (us, eu) = (Wallet::new("us_east", Manner::Answer), Wallet::new("eu_west", Manner::Answer));
    let [us_node, eu_node] = two_nodes(&us, &eu).await;
    let client = us_node.client().await;
    let traceparent = format!("00-{TRACE_ID}-{CALLER_SPAN}-01");
    let deposit = DepositRequest { user_id: 7, reference: CANARY.to_owned(), request_id: CANARY.to_owned(), ..Default::default() };
    let headers = [("traceparent", traceparent.as_str()), ("x-note", CANARY)];
    let answer = send(&client, DEPOSIT, &headers, framed(&deposit.encode_to_vec())).await;
    assert_eq!(answer.fault.code, Code::Ok);
    // A path that the contract does not have is the caller's own words too.
    send(&client, &format!("/{CANARY}/{CANARY}"), &headers[1..], framed(b"")).await;
    assert_ne!(send(&client, GET_BALANCE, &headers[1..], framed(CANARY.as_bytes())).await.fault.code, Code::Ok);
    // Spans end with the answers' last bytes, and the nodes with their last calls.
    drop(client);
    us_node.stop().await;
    eu_node.stop().await;
    drop(guard);

    let requests = collector.0.lock().expect("the lock").clone();
    assert!(!format!("{requests:?}").contains(CANARY), "the canary is in a span");
    let spans: Vec<Span> = requests
        .into_iter()
        .flat_map(|request| request.resource_spans)
        .flat_map(|spans| spans.scope_spans)
        .flat_map(|spans| spans.spans)
        .collect();
    let child_of = |parent: &str, name: &str| {
        let child = spans.iter().find(|span| span.name == name && hex(&span.parent_span_id) == parent);
        let child = child.unwrap_or_else(|| panic!("no span {name} under {parent} in {spans:#?}"));
        assert_eq!(hex(&child.trace_id), TRACE_ID);
        hex(&child.span_id)
    };
    let entered = child_of(CALLER_SPAN, "call");
    let forwards: Vec<_> = spans.iter().filter(|span| hex(&span.parent_span_id) == entered).map(|span| hex(&span.span_id)).collect();
    let at_home = forwards.iter().flat_map(|forward| spans.iter().filter(move |span| hex(&span.parent_span_id) == *forward));
    let regions: Vec<_> = at_home
        .flat_map(|span| &span.attributes)
        .filter(|attribute| attribute.key == "paymesh.region")
        .map(|attribute| format!("{:?}", attribute.value))
        .collect();
    assert!(regions.iter().any(|region| region.contains("eu_west")), "{regions:?} of {spans:#?}");
}
