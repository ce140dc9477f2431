//! A mesh whose regions lie in a network that can fail, and the faults that happen to it.

use std::{
    env, fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{task::JoinSet, time::Instant};
use tonic::transport::Channel;

use crate::{
    links::Links,
    packets::{self, Packets},
    plan::{Fault, What},
    proxies::Proxies,
    support::{Launch, TestMesh},
};

/// The regions, by their numbers: in the order of [`CONFIG`].
pub(crate) const REGIONS: [&str; 4] = ["us_east", "us_west", "eu_west", "eu_south"];
/// Three leaders, two of them in one zone, and a region that only follows.
const CONFIG: &str = "
mesh: faults
regions:
  us_east: {primary: true, services: [payment_processor], database: primary_master}
  us_west: {primary: false, services: [payment_processor], database: regional_master}
  eu_west: {primary: false, services: [payment_processor], database: regional_master, compliance: [GDPR]}
  eu_south: {primary: false, services: [payment_processor], database: read_replica, compliance: [GDPR]}
zones:
  global: {shards: 2, regions: [us_east, us_west], countries: [US, JP], leaders: {us_east: '0', us_west: '1'}}
  eu: {shards: 2, regions: [eu_west, eu_south], countries: [DE, FR]}
";
/// How long what is sent takes, in milliseconds: each pair of regions has its own.
const DELAY_MS: std::ops::RangeInclusive<u64> = 40..=120;
/// Which network is used; the best that the machine gives when absent.
const NETWORK: &str = "PAYMESH_FAULTS_NETWORK";

/// What carries the bytes between regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// See [`packets`].
    Packets,
    /// See [`crate::proxies`].
    Proxies,
}

impl Carrier {
    /// The one that this run uses. [`Carrier::Packets`] is answered only in a process with a network of its own; `None` when the test has
    /// been run in such a process, and there is nothing left to do.
    pub(crate) fn choose(test: &str) -> Option<Self> {
        let wanted = env::var(NETWORK).ok();
        match wanted.as_deref() {
            _ if packets::inside() => Some(Self::Packets),
            Some("proxies") => Some(Self::Proxies),
            None if !packets::possible() => Some(Self::Proxies),
            None | Some("namespaces") => {
                packets::run_inside(test);
                None
            }
            Some(other) => panic!("{NETWORK} is `namespaces` or `proxies`, not `{other}`"),
        }
    }
}

/// The carrier at work.
#[derive(Debug)]
enum Network {
    Packets { _network: Packets },
    Proxies { _network: Proxies },
}

/// The mesh.
pub(crate) struct World {
    mesh: Mutex<TestMesh>,
    pub(crate) links: Arc<Links>,
    /// Where requests enter, by the regions' numbers. No fault concerns the way from the test to a node.
    pub(crate) entries: Vec<Channel>,
    pub(crate) config: PathBuf,
    _network: Network,
}

impl World {
    /// The mesh, with every node running and ready and no fault yet.
    pub(crate) async fn start(carrier: Carrier, seed: u64) -> Arc<Self> {
        let links = Arc::new(Links::new(REGIONS.len()));
        let mut random = StdRng::seed_from_u64(seed);
        for (one, other) in links.ways().filter(|(one, other)| one < other) {
            links.set_delay(one, other, Duration::from_millis(random.random_range(DELAY_MS)));
        }
        let (mut mesh, network) = match carrier {
            Carrier::Packets => {
                let network = Packets::start(&links).await.unwrap();
                let mut mesh = TestMesh::on_hosts(CONFIG, packets::host);
                for (number, region) in REGIONS.into_iter().enumerate() {
                    mesh.launch(region, Launch { config: None, before: Packets::before(number) });
                }
                (mesh, Network::Packets { _network: network })
            }
            Carrier::Proxies => {
                let mut mesh = TestMesh::new(CONFIG);
                let targets: Vec<_> = REGIONS.iter().map(|region| mesh.grpc_address(region)).collect();
                let network = Proxies::start(&links, &targets).await.unwrap();
                for (number, region) in REGIONS.into_iter().enumerate() {
                    let config = config_of(&mesh, number, &targets, &network);
                    mesh.launch(region, Launch { config: Some(config), before: Vec::new() });
                }
                (mesh, Network::Proxies { _network: network })
            }
        };
        let entries = REGIONS.iter().map(|region| mesh.channel(region)).collect();
        let config = mesh.config();
        let mesh = tokio::task::spawn_blocking(move || {
            mesh.start_all();
            mesh
        });
        Arc::new(Self { mesh: Mutex::new(mesh.await.unwrap()), links, entries, config, _network: network })
    }

    pub(crate) fn mesh(&self) -> MutexGuard<'_, TestMesh> {
        self.mesh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes these faults happen, each at its time after now. When it returns all are over, and every node runs.
    pub(crate) async fn suffer(self: &Arc<Self>, plan: Vec<Fault>) {
        let begun = Instant::now();
        let mut all = JoinSet::new();
        for fault in plan {
            let world = self.clone();
            all.spawn(async move {
                tokio::time::sleep_until(begun + fault.at).await;
                world.begin(fault.what);
                tokio::time::sleep(fault.lasts).await;
                world.end(fault.what);
            });
        }
        all.join_all().await;
    }

    fn begin(&self, what: What) {
        match what {
            What::Cut(one, other) => self.links.cut(one, other),
            What::CutOneWay(from, to) => self.links.cut_one_way(from, to),
            What::Slow(one, other, bytes_per_s) => self.links.slow(one, other, bytes_per_s),
            What::Pause(region) => self.mesh().signal(REGIONS[region], "STOP"),
            What::Kill(region) => self.mesh().kill(REGIONS[region]),
        }
    }

    fn end(&self, what: What) {
        match what {
            What::Cut(one, other) | What::CutOneWay(one, other) | What::Slow(one, other, _) => self.links.heal(one, other),
            What::Pause(region) => self.mesh().signal(REGIONS[region], "CONT"),
            What::Kill(region) => self.mesh().spawn(REGIONS[region]),
        }
    }

    /// The ends of all logs, for a test that fails.
    pub(crate) fn logs(&self) -> String {
        const LINES_MAX: usize = 60;
        let mesh = self.mesh();
        let mut text = String::new();
        for region in REGIONS {
            let log = mesh.logs(region);
            let lines: Vec<_> = log.lines().collect();
            text += &format!("--- the log of {region} ends so\n{}\n", lines[lines.len().saturating_sub(LINES_MAX)..].join("\n"));
        }
        text
    }
}

/// Writes the configuration by which a region finds the others at its proxies.
fn config_of(mesh: &TestMesh, region: usize, targets: &[String], proxies: &Proxies) -> PathBuf {
    let mut text = fs::read_to_string(mesh.config().join("regions.yaml")).unwrap();
    for other in (0..REGIONS.len()).filter(|other| *other != region) {
        text = text.replace(&format!("grpc: '{}'", targets[other]), &format!("grpc: '{}'", proxies.address(region, other)));
    }
    let folder = mesh.data(&format!("region-config-of-{}", REGIONS[region]));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("regions.yaml"), text).unwrap();
    folder
}
