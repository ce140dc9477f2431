//! Two simulators behind gates: one fails at random and dies. No payment is charged twice, and hardly a call reaches the dead one.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a test says its seed")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{Simulated, acquirer, authorization, card, euros};
use paymesh_acquirer_simulator::Settings;
use paymesh_acquirers::{Acquirer, Attempt, ChargeState, Class, Decision, Gates, Payment, Settlement, Sought, Void, route};
use paymesh_cards::Brand;
use paymesh_topology::{Gateways, Topology};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{io::AsyncReadExt as _, net::TcpListener, time::Instant};

const TOPOLOGY: &str = r#"
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor], database: primary_master}
zones:
  eu: {shards: 2, regions: [eu_west], countries: [DE]}
endpoints:
  eu_west: {grpc: "127.0.0.1:1", http: "127.0.0.1:2"}
"#;

/// Failures that open the breaker.
const FAILURES: usize = 3;
/// Seconds for which it is open, at least one.
const OPEN_SECONDS: u64 = 1;

struct Mesh {
    gateways: Gateways,
    gates: Gates,
    acquirers: BTreeMap<String, Arc<dyn Acquirer>>,
    random: StdRng,
}

/// What became of a payment: where it is authorized; nowhere; or nobody knows.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    At(String),
    Nowhere,
    Unknown,
}

impl Mesh {
    fn new(a: &str, b: &str, seed: u64) -> Self {
        let topology = Topology::parse("regions.yaml", TOPOLOGY).expect("a topology");
        let yaml = format!(
            "defaults: {{timeout_ms: 1000, breaker: {{failures: {FAILURES}, open_seconds: {OPEN_SECONDS}, probes: 1}}}}\n\
             gateways:\n  a: {{connector: simulator, url: \"{a}\", zones: any}}\n  b: {{connector: simulator, url: \"{b}\", zones: any}}\n\
             rules:\n  - {{name: all, use: {{a: 1}}, then: [b]}}\n"
        );
        let gateways = Gateways::parse("gateways.yaml", &yaml, &topology).expect("gateways");
        let acquirers = [("a".to_owned(), acquirer(a)), ("b".to_owned(), acquirer(b))].into();
        Self { gates: Gates::new(&gateways), gateways, acquirers, random: StdRng::seed_from_u64(seed) }
    }

    /// As the processor does it: the next gateway only when it is certain that the one before has not charged.
    async fn pay(&mut self, name: &str, minor: i64) -> Outcome {
        let payment = Payment { amount: euros(minor), brand: Brand::Visa, country: None, zone: "eu".parse().expect("a zone") };
        let Self { gateways, gates, acquirers, random } = self;
        let route = route(gateways, &payment, |gateway| gates.health(gateway), &mut |bound: u64| random.random_range(0..bound));
        let deadline = Instant::now() + Duration::from_secs(5);
        for (index, candidate) in route.candidates.iter().enumerate() {
            let (gate, acquirer) = (gates.gate(&candidate.gateway).expect("a gate"), &acquirers[&candidate.gateway]);
            let asked = authorization(&format!("{name}.{index}"), minor);
            let attempt = if index == 0 { Attempt::First } else { Attempt::Again };
            let card = card("4242424242424242");
            match gate.call(attempt, deadline, |deadline| acquirer.authorize(&card, &asked, deadline)).await {
                Ok(Decision::Approved(_)) => return Outcome::At(candidate.gateway.clone()),
                Ok(other) => panic!("{other:?}"),
                Err(failure) if failure.is_certain() => continue,
                Err(_) => {}
            }
            // Not known: voided, it is decided.
            let sought = Sought { reference: asked.reference.clone(), begun_at: asked.begun_at, amount: asked.amount, charge: None };
            let void = Void { charge: sought, reference: format!("{name}.{index}.void").parse().expect("a reference") };
            let mut voided = false;
            for _ in 0..5 {
                match gate.call(Attempt::Again, deadline, |deadline| acquirer.void(&void, deadline)).await {
                    Ok(Settlement::Done(charge)) => voided = charge.state == ChargeState::Voided,
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => continue,
                }
                break;
            }
            if !voided {
                return Outcome::Unknown;
            }
        }
        Outcome::Nowhere
    }
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    println!("SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_payment_is_charged_twice_while_a_gateway_fails_at_random() {
    let seed = seed();
    let a = Simulated::start(Settings { fail_permille: 300, seed, ..Settings::default() }).await;
    let b = Simulated::start(Settings::default()).await;
    let mut mesh = Mesh::new(&a.url, &b.url, seed);
    let (mut unknown, mut at) = (0, BTreeMap::<String, usize>::new());
    for number in 0..300 {
        let name = format!("random.{number}");
        let outcome = mesh.pay(&name, 1_000 + number).await;
        let mut held = Vec::new();
        for (gateway, index) in [("a", 0), ("b", 0), ("b", 1)] {
            let asked = authorization(&format!("{name}.{index}"), 1_000 + number);
            let sought = Sought { reference: asked.reference.clone(), begun_at: asked.begun_at, amount: asked.amount, charge: None };
            let found = mesh.acquirers[gateway].look_up(&sought, Instant::now() + Duration::from_secs(5)).await.expect("a look-up");
            held.extend(found.filter(|charge| charge.state == ChargeState::Authorized).map(|_| gateway));
        }
        match &outcome {
            Outcome::At(gateway) => assert_eq!(held, [gateway.as_str()], "{name}"),
            Outcome::Nowhere => assert_eq!(held, [""; 0], "{name}"),
            // Held at the one that did not say, or nowhere; never elsewhere as well.
            Outcome::Unknown => assert!(held.is_empty() || held == ["a"], "{name}: {held:?}"),
        }
        match outcome {
            Outcome::At(gateway) => *at.entry(gateway).or_default() += 1,
            _ => unknown += 1,
        }
    }
    println!("{at:?}, {unknown} unknown or nowhere");
    assert!(at["a"] > 0 && at["b"] > 0, "both were used: {at:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_gateway_is_reached_by_the_calls_that_open_its_breaker_and_its_probes_alone() {
    let seed = seed();
    let a = Simulated::start(Settings { fail_permille: 100, seed, ..Settings::default() }).await;
    let b = Simulated::start(Settings::default()).await;
    let mut mesh = Mesh::new(&a.url, &b.url, seed);
    for number in 0..50 {
        mesh.pay(&format!("before.{number}"), 1_000).await;
    }
    let address = a.url.strip_prefix("http://").expect("a URL").to_owned();
    a.stop().await;
    // In its place, something that takes connections and lets go of them.
    let reached = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind(&address).await.expect("the port is free again");
    let counted = Arc::clone(&reached);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Every other one has taken the request first: whether that was done, nobody knows.
            if counted.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                let _ = stream.read(&mut [0; 1024]).await;
            }
            drop(stream);
        }
    });
    let begun = Instant::now();
    let (mut paid, mut unknown, mut payments) = (0, 0, 0);
    while begun.elapsed() < Duration::from_millis(2_500) {
        payments += 1;
        match mesh.pay(&format!("after.{payments}"), 1_000).await {
            Outcome::At(gateway) => {
                assert_eq!(gateway, "b");
                paid += 1;
            }
            _ => unknown += 1,
        }
    }
    let periods = usize::try_from(begun.elapsed().as_secs() / OPEN_SECONDS).expect("few");
    let most = FAILURES + periods + 1;
    let reached = reached.load(Ordering::Relaxed);
    println!("{payments} payments: {paid} paid at b, {unknown} not; {reached} calls reached the dead gateway, at most {most} may");
    assert!(reached <= most, "{reached} calls");
    assert!(paid > 100, "{paid} of {payments}");
    assert!(unknown <= most, "{unknown}");
    let snapshot = mesh.gates.gate("a").expect("a gate").snapshot();
    assert_eq!(snapshot.calls_in_flight, 0);
    assert!(snapshot.opened_ago.is_some());
    // A class of its own, so that whoever reads the attempts knows that nothing was sent.
    let refused =
        mesh.gates.gate("a").expect("a gate").call(Attempt::First, Instant::now() + Duration::from_secs(1), |_| async { Ok(()) }).await;
    if let Err(failure) = refused {
        assert_eq!(failure.class, Class::Open);
    }
}
