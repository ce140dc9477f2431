//! `paymesh acquirer` as a process: what it answered is there after it was killed, and its list agrees with what its callers heard.

#![forbid(unsafe_code)]

mod vault;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use paymesh_acquirers::{Acquirer, Authentication, Authorization, Capture, Decision, Settlement, Sought, connector};
use paymesh_cards::{Card, CardNumber, Expiry};
use paymesh_topology::{BreakerRule, ConnectorKind, Cost, Gateway, ZoneGrant};
use paymesh_types::{Currency, Money, Timestamp};
use tokio::time::Instant;

/// Callers at the same time.
const CALLERS: usize = 16;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: it has no say in it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(address: SocketAddr, data: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paymesh"));
    command.args(["acquirer", "--listen", &address.to_string(), "--data"]).arg(data);
    let process = Process(command.stderr(Stdio::null()).spawn().expect("it starts"));
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(std::time::Instant::now() < until, "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    process
}

/// All charges: state and sum captured, by reference.
fn listed(address: SocketAddr) -> BTreeMap<String, (String, i64)> {
    let (mut all, mut after) = (BTreeMap::new(), 0);
    loop {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "GET /charges?after={after}&limit=100 HTTP/1.1\r\nhost: acquirer\r\nconnection: close\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (_, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let page: serde_json::Value = serde_json::from_str(body).expect("JSON");
        for charge in page["charges"].as_array().expect("a list") {
            let state = charge["state"].as_str().expect("a state").to_owned();
            let captured = charge["captured_minor"].as_i64().expect("a sum");
            let before = all.insert(charge["reference"].as_str().expect("a reference").to_owned(), (state, captured));
            assert!(before.is_none(), "one charge for each reference");
        }
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => return all,
        }
    }
}

fn acquirer(address: SocketAddr) -> Arc<dyn Acquirer> {
    let gateway = Gateway {
        name: "simulator".to_owned(),
        connector: ConnectorKind::Simulator,
        url: format!("http://{address}"),
        authorities: None,
        credentials: None,
        return_url: None,
        zones: ZoneGrant::Any,
        cost: Cost::default(),
        timeout: Duration::from_secs(1),
        calls_in_flight: 64,
        breaker: BreakerRule { failures: 3, open_for: Duration::from_secs(30), probes: 1 },
    };
    connector(&gateway, Path::new(""), Arc::new(now)).expect("a connector")
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(u64::try_from(since.as_micros()).expect("it fits"))
}

/// Authorizes and captures until the acquirer is gone. Returns what it heard: the sum captured, by reference.
async fn call(acquirer: Arc<dyn Acquirer>, caller: usize, round: usize) -> BTreeMap<String, i64> {
    let card = Card { number: CardNumber::parse("4242424242424242").expect("a number"), expiry: Expiry::new(12, 2034).expect("an expiry") };
    let amount = Money::new(1_000, Currency::from_code("EUR").expect("EUR")).expect("an amount");
    let mut heard = BTreeMap::new();
    for number in 0.. {
        let asked = Authorization {
            reference: format!("p{round}.{caller}.{number}").parse().expect("a reference"),
            begun_at: now(),
            amount,
            authentication: Authentication::IssuerDecides,
            recurring: false,
            sets_up: false,
        };
        let deadline = || Instant::now() + Duration::from_secs(5);
        match acquirer.authorize(&card, &asked, deadline()).await {
            Ok(Decision::Approved(_)) => heard.insert(asked.reference.to_string(), 0),
            Ok(other) => panic!("{other:?}"),
            Err(_) => return heard,
        };
        let capture = Capture {
            charge: Sought { reference: asked.reference.clone(), begun_at: asked.begun_at, amount, charge: None },
            reference: format!("{}.capture", asked.reference).parse().expect("a reference"),
            amount,
        };
        match acquirer.capture(&capture, deadline()).await {
            Ok(Settlement::Done(charge)) => heard.insert(asked.reference.to_string(), charge.captured_minor),
            Ok(other) => panic!("{other:?}"),
            Err(_) => return heard,
        };
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_a_kill_is_there_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let mut heard: BTreeMap<String, i64> = BTreeMap::new();
    for round in 0..3 {
        let process = start(address, folder.path());
        let acquirer = acquirer(address);
        let callers: Vec<_> = (0..CALLERS).map(|caller| tokio::spawn(call(Arc::clone(&acquirer), caller, round))).collect();
        tokio::time::sleep(Duration::from_millis(700)).await;
        drop(process);
        for caller in callers {
            heard.extend(caller.await.expect("it does not panic"));
        }
        let _process = start(address, folder.path());
        let listed = listed(address);
        for (reference, captured) in &heard {
            let (state, there) = listed.get(reference).unwrap_or_else(|| panic!("{reference} was answered and is gone"));
            assert!(there >= captured, "{reference}: {captured} was answered, {there} is there");
            assert_eq!(state, if *there > 0 { "captured" } else { "authorized" }, "{reference}");
        }
        // What was done and not answered: one for each caller at most.
        assert!(listed.len() <= heard.len() + CALLERS * (round + 1), "{} listed, {} heard", listed.len(), heard.len());
        println!("round {round}: {} answered, {} listed", heard.len(), listed.len());
    }
    assert!(heard.len() > 100, "{} charges are too few to say anything", heard.len());
}

#[test]
fn the_help_has_the_test_numbers_and_says_what_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_paymesh")).args(["acquirer", "--help"]).output().expect("it runs");
    let help = String::from_utf8_lossy(&output.stdout);
    for words in ["simulator", "4000000000009995", "4000009999000014", "outside", "123456"] {
        assert!(help.contains(words), "{words}: {help}");
    }
}

#[test]
fn what_cannot_be_used_ends_with_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("charges.jsonl"), "nothing\n").expect("written");
    let paymesh = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_paymesh")).arg("acquirer").args(arguments).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let data = folder.path().to_string_lossy();
    let (code, words) = paymesh(&["--listen", "127.0.0.1:0", "--data", &data]);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("charges.jsonl:1: is no charge"), "{words}");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (code, words) = paymesh(&["--listen", &taken.local_addr().expect("an address").to_string()]);
    assert_eq!(code, Some(2), "{words}");
    assert_eq!(paymesh(&["--fail-rate", "101"]).0, Some(2));
}

#[test]
fn a_node_does_not_start_with_a_mistake_in_gateways_yaml_and_names_its_line() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../region-config");
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["regions.yaml", "access.yaml"] {
        std::fs::copy(shipped.join(file), folder.path().join(file)).expect("copied");
    }
    let gateways = std::fs::read_to_string(shipped.join("gateways.yaml")).expect("it ships");
    std::fs::write(folder.path().join("gateways.yaml"), gateways.replace("{simulator_a: 70,", "{simulator_c: 70,")).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_paymesh"));
    command.args(["--plain-text", "--config"]).arg(folder.path()).args(["node", "--region", "eu_west", "--data"]);
    let output = command.arg(folder.path().join("data")).output().expect("it runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    let line = gateways.lines().position(|line| line.contains("{simulator_a: 70,")).expect("it is there") + 1;
    let wanted = format!("gateways.yaml:{line}: rules[1].use.simulator_c: no gateway is called `simulator_c`");
    assert!(words.contains(&wanted), "{words}");
}
