//! A mesh for one test: its configuration, its nodes, and clients of them.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use paymesh_contract::{
    common::v1::Money,
    directory::v1::{EnrollUserRequest, directory_service_client::DirectoryServiceClient},
    payments::v1::{CreatePaymentRequest, payment_service_client::PaymentServiceClient},
    wallet::v1::{DepositRequest, GetBalanceRequest, wallet_service_client::WalletServiceClient},
};
use paymesh_identity::Trust;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// The program under test.
pub(crate) const PAYMESH: &str = env!("CARGO_BIN_EXE_paymesh");
/// How long a node may take to be ready, on a machine that is busy with other tests.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a connection may take to be made, likewise.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a line of a node's log may take to be written, likewise.
const LOG_TIME_MAX: Duration = Duration::from_secs(10);
/// Below the ports that the system gives to outgoing connections, so that none of those takes one between choice and use.
const PORTS: std::ops::Range<u32> = 10_000..30_000;

/// All four regions of the shipped configuration, with two shards a zone.
pub(crate) const FOUR_REGIONS: &str = "
mesh: test
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
  us_west: {primary: false, services: [payment_processor], database: read_replica}
  eu_west: {primary: false, services: [payment_processor], database: regional_master, compliance: [GDPR, PSD2]}
  asia_pacific: {primary: false, services: [payment_processor], database: read_replica}
zones:
  global: {shards: 2, regions: [us_east, us_west, asia_pacific], countries: [US, JP]}
  eu: {shards: 2, regions: [eu_west], countries: [DE, FR]}
";

/// The same, with a vault in each zone.
pub(crate) fn four_regions_with_vaults() -> String {
    ["database: primary_master", "database: regional_master"].into_iter().fold(FOUR_REGIONS.to_owned(), |config, database| {
        config.replace(&format!("[payment_processor], {database}"), &format!("[payment_processor, vault], {database}"))
    })
}

/// One region alone.
pub(crate) const ONE_REGION: &str = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor], database: primary_master}
zones:
  eu: {shards: 2, regions: [eu_west], countries: [DE, FR]}
";

/// Who may call: the operator, whose certificate all of a test's calls show that show no other.
pub(crate) const ACCESS: &str = "
issuers:
  development: {issuer: test-issuer, audience: test, keys: {file: issuer/jwks.json}}
principals:
  operator:
    certificate: true
    scopes: [payments.read, payments.write, payments.report_fraud, wallets.read, wallets.write, users.read, users.write, events.read, mesh.read, audit.read, vault.read, vault.write, vault.erase, vault.rotate, vault.charge, fraud.score, fraud.read]
    zones: any
    users: any
  service:
    tokens: {issuer: development, claims: {client_id: service}}
    scopes: [payments.read, payments.write, payments.report_fraud, wallets.read, wallets.write, users.read, users.write, events.read, mesh.read, audit.read, vault.read, vault.write, vault.erase, vault.rotate, vault.charge, fraud.score, fraud.read]
    zones: any
    users: any
  europe:
    tokens: {issuer: development, claims: {client_id: europe}}
    certificate: true
    scopes: [payments.read, payments.write, payments.report_fraud, wallets.read, wallets.write, users.read, users.write, events.read, mesh.read, audit.read, vault.read, vault.write, vault.erase, vault.rotate, vault.charge, fraud.score, fraud.read]
    zones: [eu]
    users: any
  app:
    tokens: {issuer: development, claims: {client_id: app}}
    scopes: [payments.read, payments.write, payments.report_fraud, wallets.read, wallets.write, users.read, users.write, events.read, mesh.read, audit.read, vault.read, vault.write, vault.erase, vault.rotate, vault.charge, fraud.score, fraud.read]
    zones: any
    users: own
  slow:
    tokens: {issuer: development, claims: {client_id: slow}}
    scopes: [payments.read, wallets.read, events.read]
    zones: any
    users: any
    limits: {calls_per_second: 2, calls_in_progress: 1}
";

/// What the operator calls with.
pub(crate) fn operator(credentials: &Path) -> Trust {
    Trust::load_with_certificate(credentials, &credentials.join("operator")).unwrap()
}

/// A mesh on loopback.
pub(crate) struct TestMesh {
    directory: TempDir,
    addresses: BTreeMap<String, Addresses>,
    /// Nodes that are not started like the others.
    launches: BTreeMap<String, Launch>,
    nodes: BTreeMap<String, Child>,
    /// Whether nodes lead with the journals that they have, without asking those who follow them.
    trusting: bool,
}

/// Where a region's node listens.
struct Addresses {
    host: String,
    grpc: u16,
    http: u16,
}

/// How a node is started that is not started like the others.
#[derive(Default)]
pub(crate) struct Launch {
    /// The folder of its own configuration; the mesh's when absent.
    pub(crate) config: Option<PathBuf>,
    /// What is put before the program: it must end as that program (exec), so that signals reach it.
    pub(crate) before: Vec<String>,
}

impl TestMesh {
    /// The configuration of these regions, with free ports. Nothing runs yet. Where there are several, they know each other by
    /// certificates; one alone speaks in plain text.
    pub(crate) fn new(config: &str) -> Self {
        Self::on_hosts(config, |_| "127.0.0.1".to_owned())
    }

    /// The same, each region on the host of its number, counted in the order of the configuration from 0.
    pub(crate) fn on_hosts(config: &str, host: impl Fn(usize) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let regions = config.lines().skip_while(|line| *line != "regions:").skip(1).take_while(|line| *line != "zones:");
        let mut addresses = BTreeMap::new();
        let mut endpoints = String::from("endpoints:\n");
        for (number, region) in regions.map(|line| line.trim().split(':').next().unwrap().to_owned()).enumerate() {
            let (host, grpc, http) = (host(number), free_port(), free_port());
            endpoints.push_str(&format!("  {region}: {{grpc: '{host}:{grpc}', http: '{host}:{http}'}}\n"));
            addresses.insert(region, Addresses { host, grpc, http });
        }
        let mesh = Self { directory, addresses, launches: BTreeMap::new(), nodes: BTreeMap::new(), trusting: false };
        fs::create_dir(mesh.config()).unwrap();
        fs::write(mesh.config().join("regions.yaml"), format!("{config}{endpoints}")).unwrap();
        fs::write(mesh.config().join("access.yaml"), ACCESS).unwrap();
        if mesh.addresses.len() > 1 {
            let made = mesh.run(&["certs", mesh.directory.path().join("credentials").to_str().unwrap()]);
            assert_eq!(made.code, 0, "{made:?}");
        }
        mesh
    }

    /// The same, with every node running and ready.
    pub(crate) fn started(config: &str) -> Self {
        let mut mesh = Self::new(config);
        mesh.start_all();
        mesh
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("region-config")
    }

    /// Where the mesh's credentials are. None: it speaks in plain text.
    pub(crate) fn credentials(&self) -> Option<PathBuf> {
        Some(self.directory.path().join("credentials")).filter(|directory| directory.exists())
    }

    /// To be called before the program's own words are added.
    fn set_up(&self, command: &mut Command) {
        command.env("PAYMESH_CONFIG", self.config()).env_remove("RUST_LOG");
        match self.credentials() {
            Some(credentials) => command.env("PAYMESH_CREDENTIALS", credentials),
            None => command.arg("--plain-text"),
        };
    }

    pub(crate) fn data(&self, region: &str) -> PathBuf {
        self.directory.path().join(region)
    }

    /// A file in the mesh's directory.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn grpc_port(&self, region: &str) -> u16 {
        self.addresses[region].grpc
    }

    /// `host:port` where a region's node takes calls.
    pub(crate) fn grpc_address(&self, region: &str) -> String {
        format!("{}:{}", self.addresses[region].host, self.addresses[region].grpc)
    }

    pub(crate) fn regions(&self) -> Vec<String> {
        self.addresses.keys().cloned().collect()
    }

    /// From now on, that node is started so.
    #[allow(dead_code, reason = "only the tests of faults have nodes that are not like the others")]
    pub(crate) fn launch(&mut self, region: &str, launch: Launch) {
        self.launches.insert(region.to_owned(), launch);
    }

    /// Whether nodes that are started from now on lead with the journals that they have, without asking those who follow them.
    #[allow(dead_code, reason = "in the tests of faults all regions run, and none loses its data")]
    pub(crate) fn trust_own_journals(&mut self, trusting: bool) {
        self.trusting = trusting;
    }

    /// The program with the mesh's configuration.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PAYMESH);
        self.set_up(&mut command);
        command.args(args);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::from(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    pub(crate) fn start_all(&mut self) {
        for region in self.regions() {
            self.spawn(&region);
        }
        for region in self.regions() {
            self.wait_ready(&region);
        }
    }

    /// Starts a node and waits until it is ready.
    pub(crate) fn start(&mut self, region: &str) {
        self.spawn(region);
        self.wait_ready(region);
    }

    /// Starts a node with more log than usual: every level that the environment's filter names.
    pub(crate) fn spawn_logging(&mut self, region: &str, filter: &str) {
        let mut command = self.node_command(region);
        command.env("RUST_LOG", filter);
        self.spawn_command(region, command);
    }

    /// The same, with its traces sent to a collector.
    pub(crate) fn spawn_traced(&mut self, region: &str, filter: &str, collector: &str) {
        let mut command = self.node_command(region);
        command.env("RUST_LOG", filter).args(["--otlp", collector]);
        self.spawn_command(region, command);
    }

    /// Starts a node whose log goes to a pipe: the end that nobody reads yet.
    pub(crate) fn spawn_unread(&mut self, region: &str, filter: &str) -> ChildStderr {
        let mut command = self.node_command(region);
        let child = command.env("RUST_LOG", filter).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let unread = child.stderr.take().unwrap();
        self.nodes.insert(region.to_owned(), child);
        unread
    }

    /// Starts a node and does not wait.
    pub(crate) fn spawn(&mut self, region: &str) {
        let command = self.node_command(region);
        self.spawn_command(region, command);
    }

    fn node_command(&self, region: &str) -> Command {
        let data = self.data(region);
        let mut args = vec!["node", "--supervised", "--region", region, "--data", data.to_str().unwrap()];
        args.extend(self.trusting.then_some("--trust-own-journals"));
        let Some(Launch { config, before }) = self.launches.get(region) else { return self.command(&args) };
        let mut words = before.iter().map(String::as_str).chain([PAYMESH]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        self.set_up(&mut command);
        command.args(args).env("PAYMESH_CONFIG", config.clone().unwrap_or_else(|| self.config()));
        command
    }

    pub(crate) fn spawn_command(&mut self, region: &str, mut command: Command) {
        let log = fs::File::options().create(true).append(true).open(self.log_path(region)).unwrap();
        // Standard input is held by this process: the node ends with it.
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.nodes.insert(region.to_owned(), command.spawn().unwrap());
    }

    pub(crate) fn wait_ready(&mut self, region: &str) {
        let deadline = Instant::now() + READY_TIME_MAX;
        while self.http(region, "/ready").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = self.nodes.get_mut(region).unwrap().try_wait().unwrap() {
                panic!("{region} ended before it was ready: {status}\n{}", self.logs(region));
            }
            assert!(Instant::now() < deadline, "{region} is not ready\n{}", self.logs(region));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, region: &str) {
        let mut node = self.nodes.remove(region).unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    /// A path as the node sees it, where the node has mounts of its own.
    pub(crate) fn outside(&self, region: &str, path: &Path) -> PathBuf {
        let node = PathBuf::from(format!("/proc/{}/root", self.nodes[region].id()));
        node.join(path.strip_prefix("/").unwrap())
    }

    /// Closes the node's standard input and waits until it has drained.
    pub(crate) fn stop(&mut self, region: &str) -> ExitStatus {
        let mut node = self.nodes.remove(region).unwrap();
        drop(node.stdin.take());
        node.wait().unwrap()
    }

    /// A running node's process id.
    #[allow(dead_code, reason = "only the tests of attacks look at a node's memory")]
    pub(crate) fn process(&self, region: &str) -> u32 {
        self.nodes[region].id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, region: &str, name: &str) {
        signal(self.nodes[region].id(), name);
    }

    /// What a node has logged so far.
    pub(crate) fn logs(&self, region: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path(region)).unwrap_or_default()).into_owned()
    }

    /// Waits until a node's log has these words: lines are written a moment after what they tell of.
    pub(crate) fn wait_logged(&self, region: &str, words: &str) {
        let deadline = Instant::now() + LOG_TIME_MAX;
        while !self.logs(region).contains(words) {
            assert!(Instant::now() < deadline, "the log of {region} does not say `{words}`:\n{}", self.logs(region));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_path(&self, region: &str) -> PathBuf {
        self.directory.path().join(format!("{region}.log"))
    }

    /// GET of a node's HTTP endpoint: status and body. `None` when it does not answer.
    pub(crate) fn http(&self, region: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((self.addresses[region].host.as_str(), self.addresses[region].http)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// A connection to a region's node, made when first used.
    pub(crate) fn channel(&self, region: &str) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc_address(region))).unwrap();
        match self.credentials() {
            None => endpoint.connect_lazy(),
            Some(directory) => {
                let Addresses { host, grpc, .. } = &self.addresses[region];
                endpoint.connect_with_connector_lazy(operator(&directory).connector(host, *grpc, CONNECT_WAIT_MAX))
            }
        }
    }

    pub(crate) fn wallet(&self, region: &str) -> WalletServiceClient<Channel> {
        WalletServiceClient::new(self.channel(region))
    }

    pub(crate) fn payments(&self, region: &str) -> PaymentServiceClient<Channel> {
        PaymentServiceClient::new(self.channel(region))
    }

    /// Enrols a user with an account in EUR and so much in it.
    pub(crate) async fn enrol(&self, via: &str, user: u64, country: &str, minor: i64) {
        let request = EnrollUserRequest {
            request_id: Uuid::new_v4().to_string(),
            user_id: user,
            residence_country: country.to_owned(),
            currency_codes: vec!["EUR".to_owned()],
        };
        DirectoryServiceClient::new(self.channel(via)).enroll_user(request).await.unwrap();
        if minor > 0 {
            let request = DepositRequest {
                request_id: Uuid::new_v4().to_string(),
                user_id: user,
                amount: Some(euro(minor)),
                reference: String::new(),
            };
            self.wallet(via).deposit(request).await.unwrap();
        }
    }

    /// A user's booked balance in EUR, in cents.
    pub(crate) async fn balance(&self, via: &str, user: u64) -> i64 {
        let answer = self.wallet(via).get_balance(GetBalanceRequest { user_id: user, read: None }).await.unwrap().into_inner();
        answer.balances.iter().find(|balance| balance.currency_code == "EUR").map_or(0, |balance| balance.booked_minor_units)
    }

    /// `paymesh verify` must find that everything adds up.
    pub(crate) fn assert_books(&self) -> serde_json::Value {
        let run = self.run(&["verify", "--json"]);
        assert_eq!(run.code, 0, "{run:?}");
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// The sequence number of every shard's last entry, once acknowledgements between shards (every 100 ms) have come to rest.
    pub(crate) fn heads(&self) -> BTreeMap<String, u64> {
        let mut heads = self.heads_now();
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.heads_now();
            if now == heads {
                return heads;
            }
            heads = now;
        }
        panic!("the journals grow although nobody writes: {heads:?}");
    }

    fn heads_now(&self) -> BTreeMap<String, u64> {
        let run = self.run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let shards = status["shards"].as_array().unwrap();
        shards.iter().map(|shard| (shard["shard"].as_str().unwrap().to_owned(), shard["head_sequence"].as_u64().unwrap())).collect()
    }
}

impl Drop for TestMesh {
    fn drop(&mut self) {
        for node in self.nodes.values_mut() {
            // A node that was paused would not hear anything else.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Waits for a child, and kills it when it takes longer.
pub(crate) fn wait_within(mut child: Child, limit: Duration) -> Run {
    let deadline = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("still running after {limit:?}: {:?}", Run::from(child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Run::from(child.wait_with_output().unwrap())
}

/// Sends a signal by its name.
pub(crate) fn signal(process: u32, name: &str) {
    assert!(Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status().unwrap().success());
}

/// So many cents.
pub(crate) fn euro(minor: i64) -> Money {
    Money { minor_units: minor, currency_code: "EUR".to_owned() }
}

/// A payment in EUR, captured at once.
pub(crate) fn payment(payer: u64, payee: u64, minor: i64) -> CreatePaymentRequest {
    CreatePaymentRequest {
        // Both kinds of ids that callers send: the newer are looked up less.
        request_id: if minor % 2 == 0 { Uuid::new_v4() } else { Uuid::now_v7() }.to_string(),
        payer_id: payer,
        payee_id: payee,
        amount: Some(euro(minor)),
        ..CreatePaymentRequest::default()
    }
}

/// A port of 127.0.0.1 that nobody has, and that no other test of this program is given.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    loop {
        let number = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + number % span).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A seed for what a test does at random, printed; with `SEED=...` in the environment, a run is repeated.
#[allow(clippy::print_stdout, reason = "shown when the test fails")]
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("SEED={seed}");
    seed
}
