//! The fraud rates of the zones under PSD2: what all shards of a zone come to together, looked at again and again.
//!
//! Whether a payment is of low risk is decided by its shard, from the shard's own counters, which are exact. A provider's rate is of all of its payments
//! (Commission Delegated Regulation (EU) 2018/389, Article 19), so a zone whose rate is too high as a whole has no such payments either, though
//! some of its shards might: what is allowed at most is lowered here, by what the shards that are led or copied here were seconds ago. It is never raised.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use paymesh_ledger::{Day, Means, Monitored, RiskAnalysis, Totals};
use paymesh_shard::{Clock, Error};
use paymesh_topology::Fraud;
use paymesh_types::{ShardRef, ZoneName};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, timeout},
};

use crate::homes::Homes;

/// How often the shards are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long one look at a zone may take.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// How old what a copy says may be. A copy that is older is waited for, and then nothing is known.
const COPY_AGE_MAX: Duration = Duration::from_secs(10);
/// Minor units of a euro.
const MINOR_PER_EUR: i64 = 100;

const CAPTURED: &str = "paymesh_card_monitored_minor_units";
const PAYMENTS: &str = "paymesh_card_monitored_payments";
const FRAUD: &str = "paymesh_card_fraud_minor_units";
const FRAUDS: &str = "paymesh_card_frauds";
const THRESHOLD: &str = "paymesh_card_exemption_threshold_minor_units";

/// Says what the metrics of fraud rates are, once for each process.
pub(super) fn describe_metrics() {
    metrics::describe_gauge!(
        CAPTURED,
        "What was captured of payments by card in EUR in 90 days, in minor units, by shard led here and means"
    );
    metrics::describe_gauge!(PAYMENTS, "How many payments that was");
    metrics::describe_gauge!(
        FRAUD,
        "What was reported as fraud of payments by card in EUR in 90 days, in minor units, by shard led here and means"
    );
    metrics::describe_gauge!(FRAUDS, "How many payments that was");
    metrics::describe_gauge!(
        THRESHOLD,
        "The largest exemption threshold value that the zone's fraud rate allows, in minor units of EUR; 0 while not all of its shards are \
         known here"
    );
}

/// What is known of the zones' rates. Cheap to clone.
#[derive(Clone)]
pub(super) struct Rates {
    homes: Arc<Homes>,
    rules: watch::Receiver<Option<Arc<Fraud>>>,
    clock: Clock,
    thresholds: Arc<Mutex<BTreeMap<ZoneName, i64>>>,
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rates").field("thresholds", &self.thresholds).finish_non_exhaustive()
    }
}

impl Rates {
    pub(super) fn new(homes: Arc<Homes>, rules: watch::Receiver<Option<Arc<Fraud>>>, clock: Clock) -> Self {
        Self { homes, rules, clock, thresholds: Arc::default() }
    }

    /// Which payments of a zone may be exempt for their low risk, as its rules and its rate allow; `None`: none.
    pub(super) fn analysis(&self, zone: &ZoneName) -> Option<RiskAnalysis> {
        let rules = self.rules.borrow().clone()?;
        let policy = &rules.policy(zone).transaction_risk;
        let allowed = self.thresholds.lock().unwrap_or_else(PoisonError::into_inner).get(zone).copied().unwrap_or(0);
        let exempt_minor_max = allowed.min(i64::from(policy.exempt_up_to_eur) * MINOR_PER_EUR);
        (exempt_minor_max > 0).then_some(RiskAnalysis { exempt_minor_max, history_days: policy.history_days, score_max: policy.score_max })
    }

    /// Looks at the zones of which a shard is led here, for as long as it is polled.
    pub(super) async fn watch(&self) -> Infallible {
        let topology = self.homes.topology();
        let led: Vec<&ShardRef> = self.homes.shards().iter().map(|(shard, _)| shard).collect();
        let zones = topology.zones().filter(|zone| topology.is_under_psd2(&zone.name) && led.iter().any(|shard| shard.zone == zone.name));
        let zones: Vec<(ZoneName, u16)> = zones.map(|zone| (zone.name.clone(), zone.shards)).collect();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            for (zone, shards) in &zones {
                // Nothing is allowed by a rate that is not known.
                let total = timeout(LOOK_MAX, self.total(zone, *shards)).await.ok().flatten();
                let threshold = total.map_or(0, Totals::threshold);
                metrics::gauge!(THRESHOLD, "zone" => zone.to_string()).set(threshold as f64);
                self.thresholds.lock().unwrap_or_else(PoisonError::into_inner).insert(zone.clone(), threshold);
            }
        }
    }

    /// What the payments of all shards of a zone come to; `None` where one of them cannot be read here.
    async fn total(&self, zone: &ZoneName, shards: u16) -> Option<Totals> {
        let today = Day::of((self.clock)());
        let mut total = Some(Totals::default());
        for index in 0..shards {
            let shard = ShardRef { zone: zone.clone(), index };
            let seen = self.monitored(&shard, today).await.unwrap_or_else(|error| {
                tracing::debug!(%shard, %error, "what its payments by card come to cannot be read yet");
                None
            });
            total = total.zip(seen).map(|(total, seen)| total.plus(seen.total(today)));
        }
        total
    }

    async fn monitored(&self, shard: &ShardRef, today: Day) -> Result<Option<Monitored>, Error> {
        if !self.homes.shards().iter().any(|(led, _)| led == shard) {
            return match self.homes.copies().get(shard) {
                Some(copy) => copy.monitored(COPY_AGE_MAX).await,
                None => Ok(None),
            };
        }
        let monitored = self.homes.shards().get(shard)?.monitored().await?;
        publish(shard, &monitored.by_means(today));
        Ok(Some(monitored))
    }
}

fn publish(shard: &ShardRef, sums: &BTreeMap<Means, Totals>) {
    for means in Means::ALL {
        let Totals { payments, minor, frauds, fraud_minor } = sums.get(&means).copied().unwrap_or_default();
        let labels = [("shard", shard.to_string()), ("means", means.as_str().to_owned())];
        metrics::gauge!(CAPTURED, &labels).set(minor as f64);
        metrics::gauge!(PAYMENTS, &labels).set(payments as f64);
        metrics::gauge!(FRAUD, &labels).set(fraud_minor as f64);
        metrics::gauge!(FRAUDS, &labels).set(frauds as f64);
    }
}
