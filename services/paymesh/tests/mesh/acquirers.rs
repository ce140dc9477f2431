//! Acquirers for one test: simulators in processes of their own, which the gateways of a mesh stand for, and their lists of charges.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{PAYMESH, TestMesh, free_port};

const START_TIME_MAX: Duration = Duration::from_secs(20);

/// Gateways `a` and `b`, with a simulator behind each.
pub(crate) struct Acquirers {
    simulators: BTreeMap<&'static str, Simulator>,
}

struct Simulator {
    port: u16,
    data: PathBuf,
    process: Option<Child>,
}

/// A charge as an acquirer lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) gateway: &'static str,
    pub(crate) state: String,
    pub(crate) captured: i64,
    pub(crate) refunded: i64,
}

impl Acquirers {
    /// Starts both, and has the mesh's configuration name them: payments go to `a` first, and to `b` where `a` did nothing.
    pub(crate) fn start(mesh: &TestMesh) -> Self {
        let mut simulators = BTreeMap::new();
        let mut yaml = String::from("defaults: {timeout_ms: 1000}\ngateways:\n");
        for gateway in ["a", "b"] {
            let simulator = Simulator { port: free_port(), data: mesh.data(&format!("acquirer-{gateway}")), process: None };
            yaml.push_str(&format!("  {gateway}: {{connector: simulator, url: 'http://127.0.0.1:{}', zones: any}}\n", simulator.port));
            simulators.insert(gateway, simulator);
        }
        yaml.push_str("rules:\n  - {name: all, use: {a: 1}, then: [b]}\n");
        fs::write(mesh.config().join("gateways.yaml"), yaml).unwrap();
        let mut acquirers = Self { simulators };
        for gateway in ["a", "b"] {
            acquirers.restart(gateway, &[]);
        }
        acquirers
    }

    /// Kills it, if it runs, and starts it again on its data.
    pub(crate) fn restart(&mut self, gateway: &str, args: &[&str]) {
        self.kill(gateway);
        let simulator = self.simulators.get_mut(gateway).unwrap();
        let address = format!("127.0.0.1:{}", simulator.port);
        let mut command = Command::new(PAYMESH);
        command.args(["acquirer", "--listen", &address, "--data"]).arg(&simulator.data).args(args);
        simulator.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + START_TIME_MAX;
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < until, "the simulator of {gateway} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, gateway: &str) {
        if let Some(mut process) = self.simulators.get_mut(gateway).unwrap().process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// The charges of all, by the payment that they were authorized for. A payment may have one at each.
    pub(crate) fn charges(&self) -> BTreeMap<String, Vec<Listed>> {
        let mut all: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
        for (gateway, simulator) in &self.simulators {
            for charge in simulator.listed() {
                let reference = charge["reference"].as_str().unwrap();
                let payment = reference.split('.').next().unwrap().to_owned();
                all.entry(payment).or_default().push(Listed {
                    gateway,
                    state: charge["state"].as_str().unwrap().to_owned(),
                    captured: charge["captured_minor"].as_i64().unwrap(),
                    refunded: charge["refunded_minor"].as_i64().unwrap(),
                });
            }
        }
        all
    }

    /// The one charge of a payment.
    pub(crate) fn charge(&self, payment: &str) -> Listed {
        let charges = self.charges().remove(payment).unwrap_or_default();
        assert_eq!(charges.len(), 1, "the charges of {payment}: {charges:?}");
        charges[0].clone()
    }

    /// Sends a cardholder's answer to a challenge.
    pub(crate) fn answer(&self, url: &str, answer: &str) {
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let body = format!("{{\"answer\": \"{answer}\"}}");
        let head = "Connection: close\r\nContent-Type: application/json";
        let said = exchange(
            address,
            &format!("POST /{path} HTTP/1.1\r\nHost: {address}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        );
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
}

impl Drop for Acquirers {
    fn drop(&mut self) {
        for simulator in self.simulators.values_mut() {
            if let Some(process) = &mut simulator.process {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

impl Simulator {
    fn listed(&self) -> Vec<serde_json::Value> {
        let address = format!("127.0.0.1:{}", self.port);
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/charges?after={after}&limit=100");
            let said = exchange(&address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
            let (_, body) = said.split_once("\r\n\r\n").unwrap();
            let page: serde_json::Value = serde_json::from_str(body).unwrap();
            all.extend(page["charges"].as_array().unwrap().iter().cloned());
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => return all,
            }
        }
    }
}

fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
