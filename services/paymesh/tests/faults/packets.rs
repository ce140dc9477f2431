//! The ways between regions as networks of their own: a network namespace for each region, and packets that are delayed and
//! dropped one by one.
//!
//! The kernels that tests run on may lack what delays packets (netem), so this does: every region's interface to the others
//! (`wan`) is a VXLAN device, whose packets come over a veth pair to a relay in the test, as UDP. The relay holds each
//! as long as its link says, and sends it on or drops it. To the nodes it is an Ethernet with all that follows from it: packets
//! lost, TCP that sends again, connections that cannot be made.
//!
//! Nodes listen on loopback addresses only, so the regions have such: 127.77.N.1, which their namespaces may route. The test
//! itself reaches them from 127.78.0.1 over the veth pairs, and no fault concerns that way.
//!
//! All of it lies in namespaces that the test's own process is put in first ([`inside`]), and vanishes with it. It takes the right
//! to make namespaces: root's, usually.

use std::{
    env, fs, io,
    net::{IpAddr, SocketAddr},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::links::Links;

/// Set in the process that has a network of its own.
const INSIDE: &str = "PAYMESH_FAULTS_INSIDE";
/// How a process gets a network of its own, and dies with the one that started it.
const UNSHARE: [&str; 4] = ["--net", "--mount", "--fork", "--kill-child"];
/// What sets up what no region has of its own. `/run` is where `ip netns` keeps names, which nobody else is to see.
const SET_UP: &str = "mount -t tmpfs paymesh /run && ip link set lo up && ip addr add 127.78.0.1/32 dev lo && \
                      ip route del local 127.0.0.0/8 dev lo table local && ip route add local 127.0.0.0/16 dev lo table local";
/// The port of VXLAN (RFC 7348).
const VXLAN_PORT: u16 = 4_789;
/// The largest packet, and more.
const PACKET_BYTES_MAX: usize = 64 << 10;
/// Packets on their way on one link at most; more are dropped, as a full router does.
const PACKETS_MAX: usize = 4_096;
/// On a slow link, what may wait: half a second's worth, or this if that is more.
const SLOW_QUEUE_BYTES_MIN: u64 = 32 << 10;
/// Where things begin in a packet that comes out of the tunnel: after VXLAN's header an Ethernet frame, and in that IPv4.
const FRAME: usize = 8;
const FRAME_TO_LAST: usize = FRAME + 5;
const FRAME_TYPE: usize = FRAME + 12;
const IP: usize = FRAME + 14;
const TYPE_IPV4: [u8; 2] = [8, 0];
const PROTOCOL_TCP: u8 = 6;

/// The address of a region's node.
pub(crate) fn host(region: usize) -> String {
    format!("127.77.{}.1", region + 1)
}

/// Whether this machine gives a test networks of its own.
pub(crate) fn possible() -> bool {
    let try_it = format!("{SET_UP} && ip netns add r && ip -n r link add wan type vxlan id 1 remote 127.78.0.1 dstport {VXLAN_PORT}");
    let probe = Command::new("unshare").args(UNSHARE).args(["sh", "-c", &try_it]).stdin(Stdio::null()).output();
    let nsenter = Command::new("nsenter").arg("--version").stdin(Stdio::null()).output();
    [probe, nsenter].iter().all(|output| output.as_ref().is_ok_and(|output| output.status.success()))
}

/// Whether this process has a network of its own.
pub(crate) fn inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs a test of this program in a process with a network of its own, and waits until it has passed.
pub(crate) fn run_inside(test: &str) {
    let program = env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(UNSHARE)
        .args(["sh", "-c", &format!("{SET_UP} && exec \"$@\""), "sh"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test}, in a network of its own: {status}");
}

/// The networks of a mesh's regions. Their relay ends with it.
#[derive(Debug)]
pub(crate) struct Packets {
    _tasks: JoinSet<()>,
}

impl Packets {
    /// Makes a network for each region. Once in a process, and only [`inside`].
    pub(crate) async fn start(links: &Arc<Links>) -> io::Result<Self> {
        assert!(inside(), "this would change the machine's own network");
        for region in 0..links.regions() {
            make_region(region, links.regions());
        }
        let socket = Arc::new(UdpSocket::bind(("0.0.0.0", VXLAN_PORT)).await?);
        let mut tasks = JoinSet::new();
        let mut ways: Vec<Vec<Option<Way>>> = (0..links.regions()).map(|_| (0..links.regions()).map(|_| None).collect()).collect();
        for (from, to) in links.ways() {
            let (packets, queue) = mpsc::channel(PACKETS_MAX);
            let waiting_bytes = Arc::new(AtomicUsize::new(0));
            ways[from][to] = Some(Way { packets, waiting_bytes: waiting_bytes.clone() });
            tasks.spawn(deliver(queue, waiting_bytes, links.clone(), (from, to), socket.clone()));
        }
        tasks.spawn(relay(socket, links.clone(), ways));
        Ok(Self { _tasks: tasks })
    }

    /// What a program is to be put behind to run in a region's network.
    pub(crate) fn before(region: usize) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", name(region))]
    }
}

fn name(region: usize) -> String {
    format!("region{}", region + 1)
}

fn make_region(region: usize, regions: usize) {
    let (name, number) = (name(region), region + 1);
    let own = host(region);
    let mut script = format!(
        "set -e
         ip netns add {name}
         ip link add to{number} type veth peer name test netns {name}
         ip addr add 10.77.{number}.1/30 dev to{number}
         ip link set to{number} up
         echo 1 > /proc/sys/net/ipv4/conf/to{number}/route_localnet
         ip -n {name} link set lo up
         ip -n {name} route del local 127.0.0.0/8 dev lo table local
         ip -n {name} addr add 10.77.{number}.2/30 dev test
         ip -n {name} link set test up
         ip -n {name} link add wan address 02:00:00:00:00:{number:02x} type vxlan id 1 remote 10.77.{number}.1 dstport {VXLAN_PORT} nolearning
         ip -n {name} link set wan gso_max_segs 1 addrgenmode none up
         ip -n {name} addr add {own}/16 dev wan
         nsenter --net=/run/netns/{name} sh -c 'for i in all test wan; do echo 1 > /proc/sys/net/ipv4/conf/$i/route_localnet; done'
         ip -n {name} route add 127.78.0.1 via 10.77.{number}.1 dev test src {own}
         ip route add {own} via 10.77.{number}.2 dev to{number} src 127.78.0.1\n"
    );
    for other in (0..regions).filter(|other| *other != region) {
        script += &format!("ip -n {name} neigh add {} lladdr 02:00:00:00:00:{:02x} dev wan nud permanent\n", host(other), other + 1);
    }
    let Output { status, stderr, .. } = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(status.success(), "the network of {name} cannot be made: {}", String::from_utf8_lossy(&stderr));
    assert!(fs::exists(format!("/run/netns/{name}")).unwrap());
}

/// One way, as the relay sees it.
struct Way {
    packets: mpsc::Sender<(Instant, Vec<u8>)>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// Takes every packet out of the tunnels and puts it on its way.
async fn relay(socket: Arc<UdpSocket>, links: Arc<Links>, ways: Vec<Vec<Option<Way>>>) {
    let all: Vec<Vec<_>> = (0..links.regions()).map(|from| (0..links.regions()).map(|to| links.watch(from, to)).collect()).collect();
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    loop {
        // An error here is of one packet, such as one that a region that is going could not be sent.
        let Ok((length, sender)) = socket.recv_from(&mut bytes).await else { continue };
        let packet = &mut bytes[..length];
        let Some((from, to)) = ends(packet, sender) else { continue };
        let Some(way) = ways.get(from).and_then(|ways| ways.get(to)).and_then(Option::as_ref) else { continue };
        let link = *all[from][to].borrow();
        let waiting = way.waiting_bytes.load(Ordering::Relaxed) as u64;
        let full = link.bytes_per_s.is_some_and(|rate| waiting > (rate / 2).max(SLOW_QUEUE_BYTES_MIN));
        if link.cut || full {
            continue;
        }
        fill_in_checksum(packet);
        way.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        // One that finds no room is dropped.
        if way.packets.try_send((Instant::now() + link.delay, packet.to_vec())).is_err() {
            way.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
        }
    }
}

/// From which region to which.
fn ends(packet: &[u8], sender: SocketAddr) -> Option<(usize, usize)> {
    let IpAddr::V4(address) = sender.ip() else { return None };
    if packet.len() < IP + 20 || packet[FRAME_TYPE..IP] != TYPE_IPV4 || packet[FRAME] != 2 {
        return None;
    }
    let from = usize::from(address.octets()[2]).checked_sub(1)?;
    let to = usize::from(packet[FRAME_TO_LAST]).checked_sub(1)?;
    Some((from, to))
}

/// The kernel leaves TCP's checksum to the network card, which there is none of on this way.
fn fill_in_checksum(packet: &mut [u8]) {
    let (head, length) = (usize::from(packet[IP] & 0xF) * 4, usize::from(u16::from_be_bytes([packet[IP + 2], packet[IP + 3]])));
    if packet[IP + 9] != PROTOCOL_TCP || length < head + 20 || packet.len() < IP + length {
        return;
    }
    let addresses: [u8; 8] = packet[IP + 12..IP + 20].try_into().unwrap();
    let segment = &mut packet[IP + head..IP + length];
    segment[16..18].fill(0);
    let words =
        |bytes: &[u8]| -> u64 { bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum() };
    let mut sum = words(&addresses) + u64::from(PROTOCOL_TCP) + segment.len() as u64 + words(segment);
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    segment[16..18].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
}

/// Hands a link's packets over, each when it is due.
async fn deliver(
    mut queue: mpsc::Receiver<(Instant, Vec<u8>)>,
    waiting_bytes: Arc<AtomicUsize>,
    links: Arc<Links>,
    (from, to): (usize, usize),
    socket: Arc<UdpSocket>,
) {
    let link = links.watch(from, to);
    let target: SocketAddr = format!("10.77.{}.2:{VXLAN_PORT}", to + 1).parse().unwrap();
    let mut free_at = Instant::now();
    while let Some((due, packet)) = queue.recv().await {
        sleep_until(due.max(free_at)).await;
        // What does not get there is lost, as packets are.
        let _ = socket.send_to(&packet, target).await;
        waiting_bytes.fetch_sub(packet.len(), Ordering::Relaxed);
        free_at = Instant::now() + link.borrow().time_for(packet.len());
    }
}
