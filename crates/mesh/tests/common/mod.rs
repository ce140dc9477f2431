//! Two nodes on loopback with services that keep what they get, and a client that sends raw bytes.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use paymesh_contract::{
    Fault,
    directory::v1::{LookUpUsersRequest, LookUpUsersResponse, UserZone},
};
use paymesh_mesh::{Limits, Mesh, Security};
use paymesh_topology::Topology;
use prost::Message;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tonic::{Status, body::Body, server::NamedService, service::Routes};
use tower::Service;

pub const GET_BALANCE: &str = "/paymesh.wallet.v1.WalletService/GetBalance";
pub const GET_PAYMENT: &str = "/paymesh.payments.v1.PaymentService/GetPayment";

/// us_east is the primary and has zone global, eu_west has zone eu; or the other way round when `swapped`.
pub fn topology(ports: [u16; 2], swapped: bool) -> Topology {
    let (global, eu) = if swapped { ("eu_west", "us_east") } else { ("us_east", "eu_west") };
    let [us_port, eu_port] = ports;
    let yaml = format!(
        "
mesh: test
regions:
  us_east: {{primary: true, services: [payment_processor], database: primary_master}}
  eu_west: {{primary: false, services: [payment_processor], database: regional_master}}
zones:
  global: {{shards: 2, regions: [{global}], countries: [US]}}
  eu: {{shards: 2, regions: [{eu}], countries: [DE]}}
endpoints:
  us_east: {{grpc: '127.0.0.1:{us_port}', http: '127.0.0.2:{us_port}'}}
  eu_west: {{grpc: '127.0.0.1:{eu_port}', http: '127.0.0.3:{eu_port}'}}
"
    );
    Topology::parse("test", &yaml).unwrap_or_else(|errors| panic!("{errors}"))
}

pub async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// What a service does with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    /// Answers an empty message, and says in a trailer which region it is.
    Answer,
    /// Never answers.
    Hang,
    /// Answers a message of 300,000 bytes.
    AnswerMuch,
    /// Begins to answer and breaks off.
    Break,
}

/// Wallet service that keeps headers and bytes.
#[derive(Clone)]
pub struct Wallet {
    pub region: &'static str,
    pub manner: Manner,
    pub seen: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Wallet {
    pub fn new(region: &'static str, manner: Manner) -> Self {
        Self { region, manner, seen: Arc::default() }
    }

    pub fn seen(&self) -> Vec<(HeaderMap, Bytes)> {
        self.seen.lock().expect("the lock").clone()
    }
}

impl NamedService for Wallet {
    const NAME: &'static str = "paymesh.wallet.v1.WalletService";
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Service<Request<Body>> for Wallet {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let wallet = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await else { return Ok(Status::cancelled("broken off").into_http()) };
            wallet.seen.lock().expect("the lock").push((parts.headers, body.to_bytes()));
            let mut trailers = HeaderMap::new();
            Status::ok("").add_header(&mut trailers).expect("a status");
            trailers.insert("x-region", HeaderValue::from_static(wallet.region));
            let message = Ok(Frame::data(framed(b"")));
            let frames = match wallet.manner {
                Manner::Hang => std::future::pending().await,
                Manner::Answer => vec![message, Ok(Frame::trailers(trailers))],
                Manner::AnswerMuch => vec![Ok(Frame::data(framed(&[b'x'; 300_000]))), Ok(Frame::trailers(trailers))],
                Manner::Break => vec![message, Err(Status::internal("broken on purpose"))],
            };
            let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            Ok(response)
        })
    }
}

/// Has nothing to tell, and goes on.
#[derive(Clone)]
pub struct Events;

impl NamedService for Events {
    const NAME: &'static str = "paymesh.events.v1.EventService";
}

impl Service<Request<Body>> for Events {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Answering {
        Box::pin(async {
            let mut response = Response::new(silent());
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            Ok(response)
        })
    }
}

/// A body that never goes on.
pub fn silent() -> Body {
    Body::new(StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Status>>()))
}

/// Knows users 1 to 9,999: the even ones are of zone global, the odd ones of zone eu.
#[derive(Clone)]
pub struct Directory;

impl NamedService for Directory {
    const NAME: &'static str = "paymesh.directory.v1.DirectoryService";
}

impl Service<Request<Body>> for Directory {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        Box::pin(async move {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let question = LookUpUsersRequest::decode(&body[5..]).expect("a question");
            let zone = |user: &u64| (if user.is_multiple_of(2) { "global" } else { "eu" }).to_owned();
            let known = question.user_ids.iter().filter(|user| **user < 10_000);
            let users = known.map(|user| UserZone { user_id: *user, zone: zone(user) }).collect();
            let mut trailers = HeaderMap::new();
            Status::ok("").add_header(&mut trailers).expect("a status");
            let message = framed(&LookUpUsersResponse { users }.encode_to_vec());
            let frames = [Ok::<_, Status>(Frame::data(message)), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            Ok(response)
        })
    }
}

/// A running node.
pub struct Node {
    pub mesh: Mesh,
    pub port: u16,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), paymesh_mesh::Error>>,
}

impl Node {
    pub fn start(topology: &Topology, region: &str, listener: TcpListener, wallet: Wallet) -> Self {
        Self::start_with(topology, region, listener, wallet, Limits::default())
    }

    pub fn start_with(topology: &Topology, region: &str, listener: TcpListener, wallet: Wallet, limits: Limits) -> Self {
        let port = listener.local_addr().expect("an address").port();
        let mesh = Mesh::new(Arc::new(topology.clone()), region.parse().expect("a region"), Security::PlainText).expect("a mesh");
        let (stop, stopped) = oneshot::channel::<()>();
        let services = Routes::new(wallet).add_service(Directory).add_service(Events);
        mesh.attach(services.clone());
        let task = tokio::spawn({
            let mesh = mesh.clone();
            let limits = Limits { drain_wait: Duration::from_millis(500), ..limits };
            async move { mesh.serve(services, listener, limits, async { stopped.await.unwrap_or_default() }).await }
        });
        Self { mesh, port, stop: Some(stop), task }
    }

    pub async fn stop(mut self) -> Mesh {
        self.stop.take().expect("it runs").send(()).expect("it runs");
        self.task.await.expect("no panic").expect("no error");
        self.mesh
    }

    /// A client without a timer of its own: tonic's would race the node's.
    pub async fn client(&self) -> Client {
        self.client_that_takes(1 << 20).await
    }

    /// The same, but no more than so many bytes of each answer are sent before it is read.
    pub async fn client_that_takes(&self, bytes: u32) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("a node");
        stream.set_nodelay(true).expect("a socket");
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let (client, connection) = builder.initial_stream_window_size(bytes).handshake(TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        client
    }
}

/// A connection to a node.
pub type Client = SendRequest<Body>;

/// us_east and eu_west.
pub async fn two_nodes(us: &Wallet, eu: &Wallet) -> [Node; 2] {
    two_nodes_with(us, eu, Limits::default()).await
}

/// The same, both with these limits.
pub async fn two_nodes_with(us: &Wallet, eu: &Wallet, limits: Limits) -> [Node; 2] {
    let ((us_listener, us_port), (eu_listener, eu_port)) = (listener().await, listener().await);
    let topology = topology([us_port, eu_port], false);
    [
        Node::start_with(&topology, "us_east", us_listener, us.clone(), limits.clone()),
        Node::start_with(&topology, "eu_west", eu_listener, eu.clone(), limits),
    ]
}

/// A message behind its prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("a small message"));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The answer's bytes, its trailers, and what its status says.
pub struct Answer {
    pub bytes: Bytes,
    pub trailers: HeaderMap,
    pub fault: Fault,
}

/// Sends raw bytes as a call's body.
pub async fn send(client: &Client, path: &str, headers: &[(&'static str, &str)], body: Bytes) -> Answer {
    read(open(client, path, headers, Body::new(Full::new(body))).await).await
}

/// The beginning of a call's answer.
pub async fn open(client: &Client, path: &str, headers: &[(&'static str, &str)], body: Body) -> Response<Incoming> {
    let uri = format!("http://node{path}");
    let mut request = Request::post(uri).version(http::Version::HTTP_2).body(body).expect("a request");
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).expect("a value"));
    }
    client.clone().send_request(request).await.expect("an answer")
}

/// An answer, read to its end.
pub async fn read(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.expect("a whole answer");
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let status = Status::from_header_map(&parts.headers).or_else(|| Status::from_header_map(&trailers)).expect("a status");
    Answer { bytes: collected.to_bytes(), trailers, fault: Fault::from_status(&status) }
}
