//! Pairs of clearing accounts: what one shard says it sent, and what the other says it received.
//!
//! Pure. Whether the two were read at a consistent cut is the caller's matter: `verify` sees to it, `status` does not.

use std::collections::BTreeMap;

use paymesh_contract::mesh::v1::Clearing;
use paymesh_types::ShardRef;

use crate::place;

/// Money on one way, in one currency: from whom, to whom, ISO 4217 code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) from: ShardRef,
    pub(crate) to: ShardRef,
    pub(crate) currency: String,
}

/// Totals since the beginning, in minor units. Absent: that side was not asked or did not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) sent: Option<i64>,
    pub(crate) received: Option<i64>,
    /// How long the oldest that was sent on the way, in whatever currency, waits to be acknowledged, in milliseconds.
    pub(crate) unacknowledged_ms: Option<u64>,
}

/// Totals of every way.
#[derive(Debug, Default)]
pub(crate) struct Ways(BTreeMap<Way, Totals>);

impl Ways {
    /// What `shard` says it sent. Ways that it does not list are left out: see [`Ways::fill`].
    pub(crate) fn add_sent(&mut self, shard: &ShardRef, clearing: &[Clearing]) -> anyhow::Result<()> {
        for line in clearing.iter().filter(|line| line.sent_minor_units != 0) {
            let way = Way { from: shard.clone(), to: place::shard(line.peer.as_ref())?, currency: line.currency_code.clone() };
            let totals = self.0.entry(way).or_default();
            (totals.sent, totals.unacknowledged_ms) = (Some(line.sent_minor_units), line.unacknowledged_ms);
        }
        Ok(())
    }

    /// What `shard` says it received.
    pub(crate) fn add_received(&mut self, shard: &ShardRef, clearing: &[Clearing]) -> anyhow::Result<()> {
        for line in clearing.iter().filter(|line| line.received_minor_units != 0) {
            let way = Way { from: place::shard(line.peer.as_ref())?, to: shard.clone(), currency: line.currency_code.clone() };
            self.0.entry(way).or_default().received = Some(line.received_minor_units);
        }
        Ok(())
    }

    /// A shard that answered and does not list a way had nothing on it: zero, not unknown.
    pub(crate) fn fill(&mut self, answered: impl Fn(&ShardRef) -> bool) {
        for (way, totals) in &mut self.0 {
            if totals.sent.is_none() && answered(&way.from) {
                totals.sent = Some(0);
            }
            if totals.received.is_none() && answered(&way.to) {
                totals.received = Some(0);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Way, &Totals)> {
        self.0.iter()
    }
}

impl Totals {
    /// Sent and not received yet, where both sides are known. Negative when more arrived than left.
    pub(crate) fn in_transit(self) -> Option<i128> {
        Some(i128::from(self.sent?) - i128::from(self.received?))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn shard(text: &str) -> ShardRef {
        let (zone, index) = text.split_once('/').expect("zone/index");
        ShardRef { zone: zone.parse().expect("a zone"), index: index.parse().expect("a number") }
    }

    pub(crate) fn clearing(peer: &str, sent: i64, received: i64) -> Clearing {
        Clearing {
            peer: Some((&shard(peer)).into()),
            currency_code: "EUR".to_owned(),
            sent_minor_units: sent,
            received_minor_units: received,
            unacknowledged_ms: None,
        }
    }

    #[test]
    fn what_left_and_has_not_arrived_is_in_transit() {
        let mut ways = Ways::default();
        ways.add_sent(&shard("eu/0"), &[clearing("eu/1", 100, 7), clearing("us/0", 50, 0)]).expect("valid");
        ways.add_received(&shard("eu/1"), &[clearing("eu/0", 7, 60)]).expect("valid");
        ways.fill(|shard| shard.zone.as_str() == "eu");
        let found: Vec<_> = ways.iter().map(|(way, totals)| (way.to.to_string(), totals.in_transit())).collect();
        assert_eq!(found, [("eu/1".to_owned(), Some(40)), ("us/0".to_owned(), None)]);
    }
}
