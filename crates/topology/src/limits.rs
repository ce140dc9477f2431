//! What a node bounds, and by how much where the file does not say.
//!
//! One table has every number's key, its bounds, its default and where it goes; the JSON Schema and the commented file say the same
//! for people, and a test holds the two to the table. What the contract promises its callers is not here: a message of 4 MiB, a batch of
//! 8,192 payments and a list of 65,536 elements are taken by every node.

use std::{net::IpAddr, time::Duration};

use crate::Network;

/// The bounds of a node's listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at most.
    pub connections: usize,
    /// Connections from one address at most (of IPv6, from one network of 64 bits), other than those of trusted networks.
    pub connections_per_address: usize,
    /// Networks whose addresses stand for many callers, such as those of load balancers.
    pub trusted_networks: Vec<Network>,
    /// How long a connection may take to begin: to shake hands, and to say that it speaks HTTP/2.
    pub connection_start: Duration,
    /// How long a connection may be without a call.
    pub connection_idle: Duration,
    /// How long what has begun may take to be whole: a frame, a block of headers, a message.
    pub arrival: Duration,
    /// Calls in progress at most that are no streams.
    pub calls: usize,
    /// Callers' streams in progress at most.
    pub streams: usize,
    /// Watches of health and reflections in progress at most. Checks of health are bounded by connection.
    pub probes: usize,
    /// Calls of any kind in progress on one connection at most.
    pub calls_per_connection: u32,
    /// Bytes of a call's headers at most, counted as HTTP/2 does (RFC 9113, section 6.5.2).
    pub header_bytes: u32,
    /// Bytes of requests at most that are not whole yet, of all callers together.
    pub arriving_bytes: usize,
    /// Calls that a connection may break off, in the long run.
    pub resets_per_second: u32,
    /// Frames that are no part of a call and that a connection may send, in the long run.
    pub control_frames_per_second: u32,
}

/// A key that holds a number.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) default: u64,
    pub(crate) set: fn(&mut Limits, u64),
}

/// The key of the trusted networks, the only one that holds no number.
pub(crate) const TRUSTED_NETWORKS: &str = "trusted_networks";

/// Trusted where the file names none: who is on this machine is not a stranger.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

pub(crate) const KEYS: [Key; 13] = [
    Key { name: "connections", min: 16, max: 1_048_576, default: 4_096, set: |limits, value| limits.connections = size(value) },
    // A quarter of all: no address takes them from the others, and one behind which an office or a cluster is has enough.
    Key {
        name: "connections_per_address",
        min: 1,
        max: 1_048_576,
        default: 1_024,
        set: |limits, value| limits.connections_per_address = size(value),
    },
    Key { name: "connection_start_seconds", min: 1, max: 60, default: 5, set: |limits, value| limits.connection_start = seconds(value) },
    // Longer than anybody's pauses who pays all day, shorter than what is forgotten.
    Key {
        name: "idle_connection_seconds",
        min: 1,
        max: 86_400,
        default: 900,
        set: |limits, value| limits.connection_idle = seconds(value),
    },
    // The largest message at 4 Mbit/s.
    Key { name: "arrival_seconds", min: 1, max: 300, default: 10, set: |limits, value| limits.arrival = seconds(value) },
    Key { name: "calls", min: 16, max: 1_048_576, default: 8_192, set: |limits, value| limits.calls = size(value) },
    // More than those that three peers may send here. A slow one may hold some megabytes.
    Key { name: "streams", min: 16, max: 1_048_576, default: 1_024, set: |limits, value| limits.streams = size(value) },
    // Balancers watch by them.
    Key { name: "probes", min: 16, max: 65_536, default: 256, set: |limits, value| limits.probes = size(value) },
    // Nodes send each other as many: fewer than the least would hold their streams up.
    Key {
        name: "calls_per_connection",
        min: 256,
        max: 65_536,
        default: 2_048,
        set: |limits, value| limits.calls_per_connection = u32::try_from(value).unwrap_or(u32::MAX),
    },
    Key {
        name: "header_bytes",
        min: 4_096,
        max: 65_536,
        default: 16_384,
        set: |limits, value| limits.header_bytes = u32::try_from(value).unwrap_or(u32::MAX),
    },
    // Sixty-four of the largest messages at once.
    Key {
        name: "arriving_bytes",
        min: 16 << 20,
        max: 1 << 40,
        default: 256 << 20,
        set: |limits, value| limits.arriving_bytes = size(value),
    },
    Key {
        name: "resets_per_second",
        min: 1,
        max: 1_000_000,
        default: 100,
        set: |limits, value| limits.resets_per_second = u32::try_from(value).unwrap_or(u32::MAX),
    },
    Key {
        name: "control_frames_per_second",
        min: 1,
        max: 1_000_000,
        default: 100,
        set: |limits, value| limits.control_frames_per_second = u32::try_from(value).unwrap_or(u32::MAX),
    },
];

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn seconds(value: u64) -> Duration {
    Duration::from_secs(value)
}

impl Limits {
    /// Whether connections from an address are counted with those of all, and not with its own.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_networks.iter().any(|network| network.contains(address))
    }
}

impl Default for Limits {
    fn default() -> Self {
        let mut limits = Self {
            connections: 0,
            connections_per_address: 0,
            trusted_networks: LOOPBACK.iter().map(|network| network.parse().expect("loopback is a network")).collect(),
            connection_start: Duration::ZERO,
            connection_idle: Duration::ZERO,
            arrival: Duration::ZERO,
            calls: 0,
            streams: 0,
            probes: 0,
            calls_per_connection: 0,
            header_bytes: 0,
            arriving_bytes: 0,
            resets_per_second: 0,
            control_frames_per_second: 0,
        };
        for key in &KEYS {
            (key.set)(&mut limits, key.default);
        }
        limits
    }
}
