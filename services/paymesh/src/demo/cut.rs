//! The demo's cut: the process of one region is frozen while payments go on through the others, and must catch up by itself.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::{StreamExt as _, stream};
use paymesh_contract::{
    common::v1::Money,
    payments::v1::{CreatePaymentRequest, PaymentStatus, payment_service_client::PaymentServiceClient},
    replication::v1::ReplicaState,
};
use paymesh_types::{RegionName, ShardRef};
use serde::Serialize;
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    client::{self, Mesh},
    say,
    supervisor::Node,
};

/// Payments while the region is cut off.
const PAYMENTS: u64 = 2_000;
/// Of them in flight.
const IN_FLIGHT: usize = 64;
/// Users who pay each other.
const USERS_MAX: usize = 400;
/// How long the region is cut off at least.
const CUT_TIME_MIN: Duration = Duration::from_secs(3);
/// How long one payment may take.
const PAYMENT_TIME_MAX: Duration = Duration::from_secs(20);
/// How long the region's copies may take to be where their leaders are.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks at whether they are.
const POLL: Duration = Duration::from_millis(50);

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The region that was cut off.
    region: RegionName,
    cut_off_ms: u64,
    /// Payments that were made meanwhile.
    pub(super) payments: u64,
    declined: u64,
    /// How many entries its copies were behind when it came back.
    behind_entries: u64,
    /// How long they took to have them all.
    caught_up_ms: u64,
}

/// Cuts off the first region that leads nothing: all payments can be made without it. None: every region leads something.
pub(super) async fn run(mesh: &Mesh, nodes: &[Node], payments_csv: &str) -> anyhow::Result<Option<Report>> {
    let Some(node) =
        nodes.iter().find(|node| mesh.entries().any(|entry| *entry == node.region) && mesh.topology.led_by(&node.region).is_empty())
    else {
        return Ok(None);
    };
    let region = node.region.clone();
    let others: Vec<RegionName> = mesh.entries().filter(|other| **other != region).cloned().collect();
    let users = users(payments_csv);
    anyhow::ensure!(users.len() >= 2, "the file enrols fewer than two users with an account in EUR");

    let cut = Instant::now();
    let frozen = node.freeze().with_context(|| format!("cannot freeze the node of {region}"))?;
    let declined = pay(mesh, &others, &users).await?;
    let (heads, behind_entries) = behind(mesh, &others, &region).await?;
    sleep(CUT_TIME_MIN.saturating_sub(cut.elapsed())).await;
    drop(frozen);
    let (cut_off, back) = (cut.elapsed(), Instant::now());
    say!(
        "{region} was frozen for {:.1} s. {PAYMENTS} payments went through the other regions meanwhile, and its copies fell {behind_entries} entries behind",
        cut_off.as_secs_f64()
    );
    caught_up(mesh, &region, &heads).await?;
    let caught_up_ms = millis(back.elapsed());
    say!("{region} had caught up {caught_up_ms} ms after it was back");
    Ok(Some(Report { region, cut_off_ms: millis(cut_off), payments: PAYMENTS, declined, behind_entries, caught_up_ms }))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Some users who hold EUR, from all over the file: of every zone.
fn users(payments_csv: &str) -> Vec<u64> {
    let enrolled = payments_csv.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split(',').collect();
        let holds_euro = columns.get(1) == Some(&"enrol") && columns.get(5)?.split(';').any(|code| code == "EUR");
        columns.get(2).filter(|_| holds_euro)?.parse().ok()
    });
    let all: Vec<u64> = enrolled.collect();
    let step = all.len().div_ceil(USERS_MAX).max(1);
    all.into_iter().step_by(step).collect()
}

/// Everybody pays the user half the list away a cent, by turns through these regions. Says how many were declined.
async fn pay(mesh: &Mesh, regions: &[RegionName], users: &[u64]) -> anyhow::Result<u64> {
    let clients: Vec<_> = regions.iter().map(|region| PaymentServiceClient::new(mesh.channel(region))).collect();
    let payments = (0..PAYMENTS as usize).map(|number| {
        let mut client = clients[number % clients.len()].clone();
        let request = CreatePaymentRequest {
            request_id: Uuid::now_v7().to_string(),
            payer_id: users[number % users.len()],
            payee_id: users[(number + users.len() / 2) % users.len()],
            amount: Some(Money { minor_units: 1, currency_code: "EUR".to_owned() }),
            ..CreatePaymentRequest::default()
        };
        async move {
            let answer = client::call(PAYMENT_TIME_MAX, request, async |request| client.create_payment(request).await).await;
            let answer = answer.map_err(|status| anyhow::anyhow!("a payment while a region is cut off: {}", client::explain(&status)))?;
            Ok::<_, anyhow::Error>(answer.payment.is_some_and(|payment| payment.status() == PaymentStatus::Declined))
        }
    });
    let mut declined = 0;
    let mut answers = stream::iter(payments).buffer_unordered(IN_FLIGHT);
    while let Some(answer) = answers.next().await {
        declined += u64::from(answer?);
    }
    Ok(declined)
}

/// Where the leaders' journals end, and how many entries of them a region's copies lack, as the leaders know it.
async fn behind(mesh: &Mesh, leaders: &[RegionName], region: &RegionName) -> anyhow::Result<(BTreeMap<ShardRef, u64>, u64)> {
    let mut heads = BTreeMap::new();
    let mut stored = Vec::new();
    for leader in leaders {
        let status = mesh.status(leader).await;
        let status = status.map_err(|status| anyhow::anyhow!("{leader}: {}", client::explain(&status)))?;
        for shard in status.shards {
            heads.insert(crate::place::shard(shard.shard.as_ref())?, shard.head_sequence);
        }
        let said = mesh.replication(leader).await.map_err(|status| anyhow::anyhow!("{leader}: {}", client::explain(&status)))?;
        for follower in said.followers.into_iter().filter(|follower| follower.region == region.as_str()) {
            stored.push((crate::place::shard(follower.shard.as_ref())?, follower.stored_sequence));
        }
    }
    let behind = stored.iter().map(|(shard, stored)| heads.get(shard).map_or(0, |head| head.saturating_sub(*stored))).sum();
    Ok((heads, behind))
}

/// Waits until all copies of a region have what their leaders had. A region that was away does not know yet how far that is: it would say that it has all.
async fn caught_up(mesh: &Mesh, region: &RegionName, heads: &BTreeMap<ShardRef, u64>) -> anyhow::Result<()> {
    let deadline = Instant::now() + CATCH_UP_TIME_MAX;
    loop {
        let open: Vec<String> = match mesh.replication(region).await {
            Ok(said) => {
                let mut open = Vec::new();
                for replica in &said.replicas {
                    let shard = crate::place::shard(replica.shard.as_ref())?;
                    let head = heads.get(&shard).copied().unwrap_or_default();
                    if replica.state() != ReplicaState::Streaming || replica.stored_sequence < head {
                        open.push(format!("{shard} is {:?} at {} of {head}", replica.state(), replica.stored_sequence));
                    }
                }
                open
            }
            Err(status) => vec![client::explain(&status)],
        };
        if open.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{region} has not caught up within {CATCH_UP_TIME_MAX:?}: {}", open.join("; "));
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_those_who_are_enrolled_with_euro() {
        let csv = "id,kind,user,counterparty,amount,currency,country,via,reference\n\
                   a,enrol,7,,,USD;EUR,ES,us_east,\nb,enrol,8,,,USD,US,us_east,\nc,deposit,7,,5,EUR,,us_east,\nd,enrol,9,,,EUR,DE,,\n";
        assert_eq!(users(csv), [7, 9]);
    }
}
