//! What a test can do to the ways between regions.
//!
//! A link leads one way, from one region to another, by their numbers. What carries the bytes ([`crate::packets`] or
//! [`crate::proxies`]) looks its link up for everything it carries.

use std::time::Duration;

use tokio::sync::watch;

/// How a link is at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// How long what is sent takes.
    pub(crate) delay: Duration,
    /// Whether nothing gets through.
    pub(crate) cut: bool,
    /// Bytes that get through in a second; any number when absent.
    pub(crate) bytes_per_s: Option<u64>,
}

impl Link {
    /// How long so many bytes keep it busy.
    pub(crate) fn time_for(self, bytes: usize) -> Duration {
        self.bytes_per_s.map_or(Duration::ZERO, |rate| Duration::from_micros(bytes as u64 * 1_000_000 / rate))
    }
}

/// Every link among some regions.
#[derive(Debug)]
pub(crate) struct Links {
    regions: usize,
    all: Vec<watch::Sender<Link>>,
}

impl Links {
    /// Links that do nothing yet.
    pub(crate) fn new(regions: usize) -> Self {
        Self { regions, all: (0..regions * regions).map(|_| watch::Sender::default()).collect() }
    }

    /// How many regions there are.
    pub(crate) fn regions(&self) -> usize {
        self.regions
    }

    /// Every pair of two regions, one way and the other.
    pub(crate) fn ways(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let regions = self.regions;
        (0..regions).flat_map(move |from| (0..regions).filter(move |to| *to != from).map(move |to| (from, to)))
    }

    /// The link as it is, and its changes.
    pub(crate) fn watch(&self, from: usize, to: usize) -> watch::Receiver<Link> {
        self.link(from, to).subscribe()
    }

    /// Sets how long what is sent takes, in both directions.
    pub(crate) fn set_delay(&self, one: usize, other: usize, delay: Duration) {
        for (from, to) in [(one, other), (other, one)] {
            self.link(from, to).send_modify(|link| link.delay = delay);
        }
    }

    /// Nothing gets through from one to the other; the other way is as it was.
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) {
        self.link(from, to).send_modify(|link| link.cut = true);
    }

    /// Nothing gets through between the two.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Only so much gets through between the two, each way.
    pub(crate) fn slow(&self, one: usize, other: usize, bytes_per_s: u64) {
        for (from, to) in [(one, other), (other, one)] {
            self.link(from, to).send_modify(|link| link.bytes_per_s = Some(bytes_per_s));
        }
    }

    /// Everything gets through between the two again. The delay stays.
    pub(crate) fn heal(&self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            self.link(from, to).send_modify(|link| *link = Link { delay: link.delay, ..Link::default() });
        }
    }

    fn link(&self, from: usize, to: usize) -> &watch::Sender<Link> {
        assert!(from < self.regions && to < self.regions, "no link from {from} to {to}");
        &self.all[from * self.regions + to]
    }
}
