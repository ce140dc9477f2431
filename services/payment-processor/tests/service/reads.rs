//! Reads at either level: who answers, how old that is, and what is said when it is not there yet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use paymesh_contract::{
    Fault,
    common::v1::{Position, ReadLevel, ReadOptions},
    events::v1::SubscribeRequest,
    payments::v1::{GetPaymentRequest, ListPaymentsRequest},
    wallet::v1::{GetBalanceRequest, GetBalanceResponse, GetStatementRequest},
};
use paymesh_journal::{Holding, Identity, Segment, memory::MemoryStore};
use paymesh_mesh::Limits;
use paymesh_payment_processor::services;
use paymesh_shard::{Copies, Options, Replica, ReplicaOptions, Retention};
use paymesh_topology::Topology;
use paymesh_types::{Epoch, Sequence, ShardRef};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::Instant};
use tonic::{Code, Request, Status};

use crate::support::{Node, cache, deposit, no_problems, pay, refusal, refused};

/// us_east leads zone eu (the tests' users are residents of Germany); us_west keeps a copy of eu/0 that the test feeds, and none of eu/1.
pub(crate) struct Pair {
    pub(crate) home: Node,
    pub(crate) west: Node,
    pub(crate) copy: Replica,
    serving: JoinHandle<()>,
}

impl Pair {
    async fn start() -> Self {
        Self::with("payment_processor").await
    }

    pub(crate) async fn with_a_vault_in_the_west() -> Self {
        Self::with("payment_processor, vault").await
    }

    /// With these services in us_west.
    async fn with(west: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let yaml = format!(
            "
mesh: test
regions:
  us_east: {{primary: true, services: [payment_processor], database: primary_master}}
  us_west: {{primary: false, services: [{west}], database: read_replica}}
zones:
  eu: {{shards: 2, regions: [us_east, us_west], countries: [DE]}}
endpoints:
  us_east: {{grpc: '127.0.0.1:{port}', http: '127.0.0.2:{port}'}}
  us_west: {{grpc: '127.0.0.3:{port}', http: '127.0.0.4:{port}'}}
"
        );
        let topology = Arc::new(Topology::parse("test", &yaml).unwrap_or_else(|errors| panic!("{errors}")));
        let home = Node::of(Arc::clone(&topology), "us_east", Options::default()).await;
        let (mesh, routes) =
            (home.mesh.clone(), services(home.shards.clone(), home.copies.clone(), home.mesh.clone(), no_problems(), None, cache()).routes);
        let serving = tokio::spawn(async move {
            mesh.serve(routes, listener, Limits::default(), std::future::pending()).await.expect("it serves");
        });
        let shard = ShardRef { zone: "eu".parse().expect("a zone"), index: 0 };
        let identity = Identity { mesh: "test".to_owned(), shard: shard.clone(), shards: 2, holding: Holding::Whole };
        let store = MemoryStore::new(&identity).open(&identity).expect("it opens");
        let options = ReplicaOptions { outcome_retention: Duration::from_secs(86_400), retention: Retention::default() };
        let copy = Replica::open(&identity, store.journal.clone(), Some(store), options).await.expect("it opens");
        let place = watch::Sender::new(Some(copy.clone()));
        let copies = Copies::new(BTreeMap::from([(shard, place.subscribe())]));
        let west = Node::with_copies(topology, "us_west", Options::default(), copies).await;
        Self { home, west, copy, serving }
    }

    /// Brings the copy up to date, and lets it know that it is.
    pub(crate) async fn feed(&self) {
        let shard = self.home.shards.get(self.copy.reference()).expect("it is led there");
        let (asked_at, head, after) = (Instant::now(), shard.tail().head(), self.copy.end().await.sequence);
        if head > after {
            let segments = shard.tail().segments(after.next(), usize::MAX).await.expect("they are read");
            self.copy.add(segments.iter().map(|segment| Segment::clone(segment)).collect()).await.expect("they are added");
        }
        self.copy.heard(shard.epoch(), head, Some(asked_at));
        while self.copy.projected() != Some(head) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn balance(&self, user_id: u64, read: ReadOptions) -> Result<GetBalanceResponse, Status> {
        let mut request = Request::new(GetBalanceRequest { user_id, read: Some(read) });
        request.set_timeout(Duration::from_secs(2));
        self.west.wallets().get_balance(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn stop(self) {
        self.serving.abort();
        self.copy.close().await;
        self.west.close().await;
        self.home.close().await;
    }
}

fn local() -> ReadOptions {
    ReadOptions { level: ReadLevel::Local.into(), ..ReadOptions::default() }
}

fn told(answer: &GetBalanceResponse) -> (i64, &str, bool) {
    let source = answer.source.as_ref().expect("it says where");
    (answer.balances[0].booked_minor_units, &source.region, source.age_ms.is_some())
}

#[tokio::test]
async fn a_copy_answers_who_asks_for_it_and_the_home_everyone_else() {
    let pair = Pair::start().await;
    pair.home.users(&[(2, 100), (3, 100), (4, 0)]).await;
    // Nothing has come: the home is asked.
    assert_eq!(told(&pair.balance(2, local()).await.expect("a balance")), (100, "us_east", true));
    pair.feed().await;
    let written = pair.home.wallets().deposit(deposit(2, 5)).await.expect("a deposit").into_inner().position.expect("a position");
    let old = pair.balance(2, local()).await.expect("a balance");
    assert_eq!(told(&old), (100, "us_west", true));
    assert!(old.position.as_ref().expect("a position").sequence < written.sequence);
    assert_eq!(told(&pair.balance(2, ReadOptions::default()).await.expect("a balance")), (105, "us_east", true));
    // There is no copy of the other shard.
    assert_eq!(told(&pair.balance(3, local()).await.expect("a balance")), (100, "us_east", true));

    // What was written is waited for, and here it does not come.
    let mine = ReadOptions { at_least: vec![written.clone()], ..local() };
    let started = Instant::now();
    let fault = Fault::from_status(&pair.balance(2, mine.clone()).await.expect_err("it is not there"));
    assert!(started.elapsed() > Duration::from_millis(1_500), "it was waited for {:?}", started.elapsed());
    assert_eq!((fault.code, fault.reason.as_ref()), (Code::Unavailable, "REPLICA_BEHIND"), "{fault}");
    assert!(fault.retry_after.is_some());
    let metadata: BTreeMap<_, _> = fault.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!((metadata["shard"], metadata["region"]), ("eu/0", "us_west"));
    assert!(metadata["sequence"].parse::<u64>().expect("a number") < written.sequence && metadata.contains_key("age_ms"), "{metadata:?}");
    let fresh = ReadOptions { max_staleness_ms: Some(0), ..local() };
    assert_eq!(refused(pair.balance(2, fresh.clone()).await).1, "REPLICA_BEHIND");

    pair.feed().await;
    assert_eq!(told(&pair.balance(2, mine).await.expect("it has come")), (105, "us_west", true));
    // A position of another shard says nothing of this one.
    let other = Position { shard: 1, sequence: 9_999, ..written.clone() };
    let read = ReadOptions { at_least: vec![other], max_staleness_ms: Some(60_000), ..local() };
    assert_eq!(told(&pair.balance(2, read).await.expect("it is not asked for")), (105, "us_west", true));
    // Freshness is asked for, and the answer may come at once.
    let (answer, ()) = tokio::join!(pair.balance(2, fresh), async {
        tokio::time::timeout(Duration::from_secs(20), pair.copy.wants_to_know()).await.expect("it is asked for");
        pair.feed().await;
    });
    let answer = answer.expect("it is fresh");
    assert_eq!((told(&answer), answer.source.as_ref().expect("set").age_ms), ((105, "us_west", true), Some(0)));

    // A copy that has stopped is not asked.
    pair.copy.refuse("it has diverged".to_owned());
    assert_eq!(told(&pair.balance(2, local()).await.expect("a balance")), (105, "us_east", true));
    pair.stop().await;
}

#[tokio::test]
async fn every_read_of_a_copy_is_what_its_home_says() {
    let pair = Pair::start().await;
    pair.home.users(&[(2, 1_000), (4, 0)]).await;
    let mut made = Vec::new();
    for cents in 1..=5 {
        let answer = pair.home.payments().create_payment(pay(2, 4, cents)).await.expect("a payment").into_inner();
        made.push(answer.payment.expect("a payment").payment_id);
    }
    pair.feed().await;
    let (mut west, mut home) = (pair.west.payments(), pair.home.payments());
    for id in &made {
        let request = |read| GetPaymentRequest { payment_id: id.clone(), read };
        let here = west.get_payment(request(Some(local()))).await.expect("a payment").into_inner();
        let there = home.get_payment(request(None)).await.expect("a payment").into_inner();
        assert_eq!((here.payment, here.position), (there.payment, there.position));
        assert_eq!([here.source, there.source].map(|source| source.expect("set").region), ["us_west", "us_east"]);
    }
    // Pages may be read at different places.
    let mut pages = Vec::new();
    let (mut page_token, mut turn) = (String::new(), 0);
    loop {
        turn += 1;
        let read = (turn % 2 == 0).then(local);
        let request = ListPaymentsRequest { payer_id: 2, page_size: 2, page_token, read };
        let page = west.list_payments(request).await.expect("a page").into_inner();
        pages.extend(page.payments.into_iter().map(|payment| payment.payment_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    made.reverse();
    assert_eq!(pages, made);
    let statement = |read| GetStatementRequest { user_id: 4, currency_code: "EUR".to_owned(), read, ..GetStatementRequest::default() };
    let here = pair.west.wallets().get_statement(statement(Some(local()))).await.expect("a page").into_inner();
    let there = pair.home.wallets().get_statement(statement(None)).await.expect("a page").into_inner();
    assert_eq!((&here.lines, &here.position), (&there.lines, &there.position));
    assert_eq!(here.lines.len(), 5);

    // A page that begins where the copy has not come to is waited for.
    pair.home.wallets().deposit(deposit(4, 1)).await.expect("a deposit");
    let token = pair
        .home
        .wallets()
        .get_statement(GetStatementRequest { page_size: 1, ..statement(None) })
        .await
        .expect("a page")
        .into_inner()
        .next_page_token;
    let page = GetStatementRequest { page_token: token, ..statement(Some(local())) };
    assert_eq!(pair.west.wallets().get_statement(page).await.expect("it is there").into_inner().lines, here.lines);

    // What a copy does not have, it says with its position.
    let request = GetPaymentRequest { payment_id: "pay_eu_0_1_9000".to_owned(), read: Some(local()) };
    let fault = Fault::from_status(&west.get_payment(request).await.expect_err("there is none"));
    assert_eq!(fault.reason, "PAYMENT_NOT_FOUND");
    assert!(fault.metadata.contains(&("region".to_owned(), "us_west".to_owned())), "{:?}", fault.metadata);

    // And the journal itself.
    let request = |read| SubscribeRequest { zone: "eu".to_owned(), shard: 0, from_sequence: 1, read };
    let mut events = Vec::new();
    for read in [Some(local()), None] {
        let mut stream = pair.west.events().subscribe(request(read)).await.expect("a stream").into_inner();
        let first = stream.message().await.expect("events").expect("more");
        let (region, mut told) = (first.source.expect("set").region, first.events);
        while told.len() < 5 {
            let message = stream.message().await.expect("events").expect("more");
            assert!(message.source.is_none(), "it is said once");
            told.extend(message.events);
        }
        events.push((region, told[..5].to_vec()));
    }
    assert_eq!((events[0].0.as_str(), events[1].0.as_str()), ("us_west", "us_east"));
    assert_eq!(events[0].1, events[1].1);
    pair.stop().await;
}

#[tokio::test]
async fn what_a_read_cannot_ask_names_its_field() {
    let node = Node::start().await;
    node.users(&[(3, 1)]).await;
    let position =
        |zone: &str, epoch: Epoch, sequence: Sequence| Position { zone: zone.to_owned(), shard: 0, epoch: epoch.0, sequence: sequence.0 };
    let at_least = |position: Position| ReadOptions { at_least: vec![position], ..ReadOptions::default() };
    for (read, refusal) in [
        (ReadOptions { level: 9, ..ReadOptions::default() }, refusal(Code::InvalidArgument, "INVALID_FIELD", "read.level")),
        (at_least(position("EU", Epoch(1), Sequence(1))), refusal(Code::InvalidArgument, "INVALID_FIELD", "read.at_least.zone")),
        (
            ReadOptions { at_least: vec![position("eu", Epoch(1), Sequence(1)); 257], ..ReadOptions::default() },
            refusal(Code::InvalidArgument, "TOO_MANY_ITEMS", "read.at_least"),
        ),
        (at_least(position("eu", Epoch(1), Sequence(9_999))), refusal(Code::OutOfRange, "POSITION_IN_THE_FUTURE", "")),
        (at_least(position("eu", Epoch(7), Sequence(1))), refusal(Code::Unavailable, "REPLICA_BEHIND", "")),
    ] {
        let answer = node.wallets().get_balance(GetBalanceRequest { user_id: 3, read: Some(read) }).await;
        assert_eq!(refused(answer), refusal);
    }
    node.close().await;
}
