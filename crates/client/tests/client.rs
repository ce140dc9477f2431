//! The client against a node that misbehaves.

#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use paymesh_client::{Client, Error, Options, Session};
use paymesh_contract::{
    Fault,
    common::v1::{Position, ReadLevel},
    wallet::v1::{
        CloseAccountRequest, CloseAccountResponse, DepositRequest, DepositResponse, GetBalanceRequest, GetBalanceResponse,
        GetStatementRequest, GetStatementResponse, OpenAccountRequest, OpenAccountResponse, WithdrawRequest, WithdrawResponse,
        wallet_service_server::{WalletService, WalletServiceServer},
    },
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};

/// A node that does as it is told, once for each call, and then answers.
#[derive(Clone, Default)]
struct Node {
    turns: Arc<Mutex<VecDeque<Turn>>>,
    deposits: Arc<Mutex<Vec<String>>>,
    reads: Arc<Mutex<Vec<Read>>>,
}

/// The level that was asked for, and the positions.
type Read = (ReadLevel, Vec<Position>);

#[derive(Clone)]
enum Turn {
    Fail(Fault),
    Hang,
}

fn position(sequence: u64) -> Option<Position> {
    Some(Position { zone: "eu".to_owned(), shard: 1, epoch: 1, sequence })
}

fn unavailable(reason: &'static str) -> Turn {
    Turn::Fail(Fault::unavailable(reason, "later", Duration::from_millis(5)))
}

impl Node {
    async fn start(turns: impl IntoIterator<Item = Turn>) -> (Self, String) {
        let node = Self { turns: Arc::new(Mutex::new(turns.into_iter().collect())), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = Server::builder().add_service(WalletServiceServer::new(node.clone()));
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        (node, format!("http://{address}"))
    }

    async fn turn(&self) -> Result<(), Status> {
        let turn = self.turns.lock().expect("the lock").pop_front();
        match turn {
            Some(Turn::Fail(fault)) => Err(fault.into()),
            Some(Turn::Hang) => std::future::pending().await,
            None => Ok(()),
        }
    }

    fn deposits(&self) -> Vec<String> {
        self.deposits.lock().expect("the lock").clone()
    }
}

#[tonic::async_trait]
impl WalletService for Node {
    async fn deposit(&self, request: Request<DepositRequest>) -> Result<Response<DepositResponse>, Status> {
        self.deposits.lock().expect("the lock").push(request.into_inner().request_id);
        self.turn().await?;
        Ok(Response::new(DepositResponse { position: position(7), ..DepositResponse::default() }))
    }

    async fn get_balance(&self, request: Request<GetBalanceRequest>) -> Result<Response<GetBalanceResponse>, Status> {
        let read = request.into_inner().read.unwrap_or_default();
        self.reads.lock().expect("the lock").push((read.level(), read.at_least));
        self.turn().await?;
        Ok(Response::new(GetBalanceResponse { position: position(9), ..GetBalanceResponse::default() }))
    }

    async fn open_account(&self, _: Request<OpenAccountRequest>) -> Result<Response<OpenAccountResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn close_account(&self, _: Request<CloseAccountRequest>) -> Result<Response<CloseAccountResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn withdraw(&self, _: Request<WithdrawRequest>) -> Result<Response<WithdrawResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn get_statement(&self, _: Request<GetStatementRequest>) -> Result<Response<GetStatementResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

fn quick() -> Options {
    Options { try_timeout: Duration::from_millis(300), call_timeout: Duration::from_secs(5), ..Options::default() }
}

#[tokio::test]
async fn a_write_is_sent_again_with_the_same_id_until_it_is_answered() {
    let (node, endpoint) = Node::start([unavailable("SHARD_OVERLOADED"), Turn::Hang, unavailable("NODE_STOPPING")]).await;
    let client = Client::connect([endpoint], quick()).expect("a client");
    client.call(&Session::new(), DepositRequest::default()).await.expect("in the end");
    let ids = node.deposits();
    assert!(ids.len() == 4 && ids[0].len() == 36 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    client.call(&Session::new(), DepositRequest { request_id: "mine".to_owned(), ..DepositRequest::default() }).await.expect("at once");
    assert_eq!(node.deposits()[4], "mine");
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_sent_again() {
    let fault = Fault::new(Code::AlreadyExists, "REQUEST_ID_REUSED", "another body");
    let (node, endpoint) = Node::start([Turn::Fail(fault)]).await;
    let client = Client::connect([endpoint], quick()).expect("a client");
    match client.call(&Session::new(), DepositRequest::default()).await {
        Err(Error::Refused(fault)) => assert_eq!(fault.reason, "REQUEST_ID_REUSED"),
        other => panic!("it came to {other:?}"),
    }
    assert_eq!(node.deposits().len(), 1);
}

#[tokio::test]
async fn a_write_whose_time_is_over_is_unknown_and_names_its_id() {
    let (node, endpoint) = Node::start(vec![Turn::Hang; 20]).await;
    let options = Options { call_timeout: Duration::from_millis(700), ..quick() };
    let client = Client::connect([endpoint], options).expect("a client");
    let started = Instant::now();
    match client.call(&Session::new(), DepositRequest::default()).await {
        Err(Error::Unknown { request_id, .. }) => assert_eq!(request_id, node.deposits()[0]),
        other => panic!("it came to {other:?}"),
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_write_that_was_turned_away_each_time_is_known_not_to_be_done_unless_one_try_may_have_been() {
    for (turns, known) in [
        (vec![unavailable("PEER_SILENT"); 3], true),
        (vec![unavailable("PEER_SILENT"), unavailable("SHARD_OVERLOADED"), unavailable("NODE_STARTING")], true),
        (vec![Turn::Hang, unavailable("PEER_SILENT"), unavailable("PEER_SILENT")], false),
        (vec![unavailable("PEER_UNAVAILABLE"), unavailable("PEER_SILENT"), unavailable("PEER_SILENT")], false),
    ] {
        let (node, endpoint) = Node::start(turns).await;
        let client = Client::connect([endpoint], Options { tries_max: 3, ..quick() }).expect("a client");
        let ended = client.call(&Session::new(), DepositRequest::default()).await.expect_err("it was never answered");
        assert_eq!(node.deposits().len(), 3);
        assert_eq!(matches!(ended, Error::Refused(_)), known, "{ended:?}");
        assert_eq!(matches!(ended, Error::Unknown { .. }), !known, "{ended:?}");
    }
}

#[tokio::test]
async fn a_read_has_what_the_session_has_seen_and_goes_home_when_the_copy_has_not() {
    let (node, endpoint) = Node::start([]).await;
    let client = Client::connect([endpoint], quick()).expect("a client");
    let session = Session::new();
    client.call(&session, DepositRequest::default()).await.expect("a deposit");
    node.turns.lock().expect("the lock").push_back(unavailable("REPLICA_BEHIND"));
    client.call(&session, GetBalanceRequest::default()).await.expect("at the home");
    client.call(&session, GetBalanceRequest::default()).await.expect("near by");
    let seen = |sequence| position(sequence).into_iter().collect::<Vec<_>>();
    let reads = node.reads.lock().expect("the lock").clone();
    // The first answer was of position 9.
    assert_eq!(reads, [(ReadLevel::Local, seen(7)), (ReadLevel::Home, seen(7)), (ReadLevel::Local, seen(9))]);
}

#[tokio::test]
async fn a_read_that_takes_too_long_near_by_has_its_whole_time_at_the_home() {
    let (node, endpoint) = Node::start([Turn::Hang]).await;
    let options = Options { local_timeout: Duration::from_millis(100), ..quick() };
    let client = Client::connect([endpoint], options).expect("a client");
    client.call(&Session::new(), GetBalanceRequest::default()).await.expect("at the home");
    let levels: Vec<ReadLevel> = node.reads.lock().expect("the lock").iter().map(|(level, _)| *level).collect();
    assert_eq!(levels, [ReadLevel::Local, ReadLevel::Home]);
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_passed_over() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let (node, endpoint) = Node::start([]).await;
    let client = Client::connect([format!("http://{gone}"), endpoint], quick()).expect("a client");
    for _ in 0..10 {
        client.call(&Session::new(), DepositRequest::default()).await.expect("at the other");
    }
    assert_eq!(node.deposits().len(), 10);
    assert!(matches!(Client::connect(Vec::<String>::new(), quick()), Err(Error::NoEndpoints)));
}

#[tokio::test]
async fn a_node_in_trouble_is_not_given_several_times_its_load() {
    let (node, endpoint) = Node::start(vec![unavailable("NODE_OVERLOADED"); 10_000]).await;
    let client = Client::connect([endpoint], Options { tries_max: 4, ..quick() }).expect("a client");
    let calls = 200;
    let session = Session::new();
    let all = (0..calls).map(|_| client.call(&session, DepositRequest::default()));
    for call in all {
        call.await.expect_err("it is overloaded");
    }
    let sent = node.deposits().len();
    // Twenty at first, and one for each five calls.
    assert!(sent <= calls + 20 + calls / 5, "{sent} tries of {calls} calls");
}
