//! What the payments by card of each zone under PSD2 come to in 90 days, how much of it was fraud, and what that allows: what a provider watches and reports by Articles
//! 19 to 21 of Commission Delegated Regulation (EU) 2018/389.

use std::collections::BTreeMap;

use paymesh_contract::mesh::v1::{MonitoredPayments, ShardState, ShardStatus};
use paymesh_ledger::Totals;
use paymesh_topology::Topology;
use paymesh_types::ShardRef;
use serde::Serialize;

use crate::output::{Table, money};

/// A rate is shown in so many parts: hundredths of a per cent of hundredths.
const RATE_DIGITS: u32 = 4;

/// A zone's payments by card in EUR.
#[derive(Serialize)]
pub(super) struct ZoneRate {
    zone: String,
    /// Whether all shards of the zone said what theirs are.
    complete: bool,
    captured_minor_units: i64,
    fraud_minor_units: i64,
    /// Fraud by value in per cent, rounded up, with four digits after the point; `None` where nothing was captured.
    fraud_rate_percent: Option<String>,
    /// The largest exemption threshold value that the rate allows, in EUR; 0: none. The zone's fraud.yaml may allow less.
    threshold_eur: i64,
    /// By how the payments came to be authorized.
    by_means: BTreeMap<String, MeansRate>,
}

#[derive(Serialize, Default)]
struct MeansRate {
    payments: u64,
    captured_minor_units: i64,
    frauds: u64,
    fraud_minor_units: i64,
}

/// Adds up what the shards say.
pub(super) fn report(topology: &Topology, shards: &BTreeMap<ShardRef, &ShardStatus>) -> Vec<ZoneRate> {
    let zones = topology.zones().filter(|zone| topology.is_under_psd2(&zone.name));
    zones
        .map(|zone| {
            let (mut total, mut by_means) = (Totals::default(), BTreeMap::<String, MeansRate>::new());
            let own = (0..zone.shards).map(|index| shards.get(&ShardRef { zone: zone.name.clone(), index }));
            let mut complete = true;
            for status in own {
                let Some(status) = status.filter(|status| status.state() == ShardState::Serving) else {
                    complete = false;
                    continue;
                };
                for each in &status.monitored {
                    let totals = totals(each);
                    total = total.plus(totals);
                    let sum = by_means.entry(each.means.clone()).or_default();
                    sum.payments = sum.payments.saturating_add(totals.payments);
                    sum.captured_minor_units = sum.captured_minor_units.saturating_add(totals.minor);
                    sum.frauds = sum.frauds.saturating_add(totals.frauds);
                    sum.fraud_minor_units = sum.fraud_minor_units.saturating_add(totals.fraud_minor);
                }
            }
            ZoneRate {
                zone: zone.name.to_string(),
                complete,
                captured_minor_units: total.minor,
                fraud_minor_units: total.fraud_minor,
                fraud_rate_percent: percent(total),
                threshold_eur: total.threshold() / 100,
                by_means,
            }
        })
        .collect()
}

/// What a node says cannot be less than nothing.
fn totals(said: &MonitoredPayments) -> Totals {
    Totals {
        payments: said.payments,
        minor: said.captured_minor_units.max(0),
        frauds: said.frauds,
        fraud_minor: said.fraud_minor_units.max(0),
    }
}

/// Rounded up, so that a rate that is above a reference never looks as if it were not.
fn percent(total: Totals) -> Option<String> {
    let unit = 10_i128.pow(RATE_DIGITS);
    let captured = i128::from(total.minor);
    let scaled = i128::from(total.fraud_minor) * 100 * unit;
    (captured > 0).then(|| scaled / captured + i128::from(scaled % captured != 0)).map(|rate| {
        let (whole, rest) = (rate / unit, rate % unit);
        format!("{whole}.{rest:04}")
    })
}

/// The rates, zone by zone; nothing where no zone is under PSD2.
pub(super) fn text(zones: &[ZoneRate]) -> String {
    let mut table = Table::new(["zone", "by card in 90 days", "of which fraud", "fraud rate", "would allow up to"]);
    for zone in zones {
        table.row([
            zone.zone.clone(),
            money(zone.captured_minor_units.into(), "EUR"),
            money(zone.fraud_minor_units.into(), "EUR"),
            zone.fraud_rate_percent.as_ref().map_or_else(|| "-".to_owned(), |rate| format!("{rate} %")),
            money(i128::from(zone.threshold_eur) * 100, "EUR"),
        ]);
    }
    if table.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{table}\n");
    for zone in zones.iter().filter(|zone| !zone.complete) {
        text.push_str(&format!("  (not every shard of {} was asked: its rate is of those that were)\n", zone.zone));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_all_shards_and_never_shown_as_less_than_it_is() {
        let yaml = "
mesh: test
regions:
  eu_west: {primary: true, services: [payment_processor], database: primary_master, compliance: [PSD2]}
  us_east: {primary: false, services: [payment_processor], database: regional_master}
zones:
  eu: {shards: 2, regions: [eu_west], countries: [DE]}
  global: {shards: 2, regions: [us_east], countries: [US]}
endpoints:
  eu_west: {grpc: '127.0.0.1:7101', http: '127.0.0.1:7201'}
  us_east: {grpc: '127.0.0.1:7102', http: '127.0.0.1:7202'}
";
        let topology = Topology::parse("test", yaml).unwrap_or_else(|errors| panic!("{errors}"));
        let shard = |index| ShardRef { zone: "eu".parse().expect("a zone"), index };
        let said = |means: &str, captured, fraud| MonitoredPayments {
            means: means.to_owned(),
            payments: 1,
            captured_minor_units: captured,
            frauds: 1,
            fraud_minor_units: fraud,
        };
        let status = |monitored| ShardStatus { state: ShardState::Serving.into(), monitored, ..ShardStatus::default() };
        let first = status(vec![said("authenticated", 900_000, 600), said("other", 50_000, 0)]);
        let second = status(vec![said("authenticated", 50_000, 0)]);
        let rate = |shards: &[(ShardRef, &ShardStatus)]| {
            let mut zones = report(&topology, &shards.iter().cloned().collect());
            assert_eq!(zones.len(), 1, "global owes nothing");
            zones.remove(0)
        };
        let whole = rate(&[(shard(0), &first), (shard(1), &second)]);
        assert_eq!((whole.captured_minor_units, whole.fraud_minor_units, whole.complete), (1_000_000, 600, true));
        assert_eq!((whole.fraud_rate_percent.as_deref(), whole.threshold_eur), (Some("0.0600"), 250));
        assert_eq!(whole.by_means["authenticated"].captured_minor_units, 950_000);
        let more = status(vec![said("authenticated", 50_000, 1)]);
        let above = rate(&[(shard(0), &first), (shard(1), &more)]);
        assert_eq!((above.fraud_rate_percent.as_deref(), above.threshold_eur), (Some("0.0601"), 100));
        let text = text(&[above]);
        assert!(text.contains("0.0601 %") && text.contains("100.00 EUR") && !text.contains("asked"), "{text}");
        let part = rate(&[(shard(1), &second)]);
        assert_eq!((part.complete, part.fraud_rate_percent.as_deref(), part.threshold_eur), (false, Some("0.0000"), 500));
        assert!(super::text(&[part]).contains("not every shard of eu was asked"));
        assert_eq!(rate(&[]).fraud_rate_percent, None);
    }
}
