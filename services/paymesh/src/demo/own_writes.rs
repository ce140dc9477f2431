//! The demo's reads: what is written through one region is read at once from the copy of another, and never found missing.

use std::time::Instant;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use paymesh_client::{Client, Options, Session};
use paymesh_contract::{
    common::v1::Money,
    payments::v1::{CreatePaymentRequest, GetPaymentRequest},
};
use paymesh_types::RegionName;
use serde::Serialize;

use super::users;
use crate::{client::Mesh, say};

/// Payments that are made and read back, one after the other.
const PAYMENTS: u64 = 200;
/// What takes longer counts as this.
const TIME_MAX_US: u64 = 60_000_000;

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Where they were made.
    written_at: RegionName,
    /// Where they were read.
    read_at: RegionName,
    pub(super) payments: u64,
    /// Those that the region's own copy had in time; the others were read at the home.
    read_from_copy: u64,
    p50_us: u64,
    p99_us: u64,
}

/// Writes through the region that leads a zone, and reads in the first of the zone that leads nothing. None: there is no such region.
pub(super) async fn run(mesh: &Mesh, payments_csv: &str) -> anyhow::Result<Option<Report>> {
    let topology = &mesh.topology;
    let Some(reader) = topology.entries().find(|region| topology.led_by(&region.name).is_empty()) else { return Ok(None) };
    let leader = topology.shards().into_iter().find(|shard| shard.zone == reader.zone).and_then(|shard| topology.leader(&shard).cloned());
    let Some(leader) = leader else { return Ok(None) };
    let users = users(payments_csv, |country| topology.zone_of_country(country) == Some(&reader.zone));
    anyhow::ensure!(users.len() >= 2, "the file enrols fewer than two users of zone {} with an account in EUR", reader.zone);

    let client = |region: &RegionName| {
        let scheme = if mesh.trust.is_some() { "https" } else { "http" };
        let endpoint = topology.region(region).map(|region| format!("{scheme}://{}", region.grpc)).unwrap_or_default();
        Client::connect([endpoint], Options { trust: mesh.trust.clone(), ..Options::default() })
    };
    let (there, here) = (client(&leader)?, client(&reader.name)?);
    let mut took = Histogram::<u64>::new_with_bounds(1, TIME_MAX_US, 3).expect("the bounds are in order");
    let mut read_from_copy = 0;
    for number in 0..PAYMENTS as usize {
        let written = Session::new();
        let request = CreatePaymentRequest {
            payer_id: users[number % users.len()],
            payee_id: users[(number + 1) % users.len()],
            amount: Some(Money { minor_units: 1, currency_code: "EUR".to_owned() }),
            ..CreatePaymentRequest::default()
        };
        let answer = there.call(&written, request).await.context("a payment that is to be read back")?;
        let payment_id = answer.payment.map(|payment| payment.payment_id).unwrap_or_default();
        // As if another process, in the other region, were told of it.
        let told: Session = written.token().parse().context("the session's own token")?;
        let asked = Instant::now();
        let request = GetPaymentRequest { payment_id: payment_id.clone(), ..GetPaymentRequest::default() };
        let answer = here.call(&told, request).await.with_context(|| format!("{payment_id} is not found in {}", reader.name))?;
        took.saturating_record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        anyhow::ensure!(
            answer.payment.is_some_and(|payment| payment.payment_id == payment_id),
            "another payment than {payment_id} was read"
        );
        read_from_copy += u64::from(answer.source.is_some_and(|source| source.region == reader.name.as_str()));
    }
    let (p50_us, p99_us) = (took.value_at_quantile(0.5), took.value_at_quantile(0.99));
    say!(
        "{PAYMENTS} payments were made through {leader} and each was read back at once in {}, {read_from_copy} from its own copy: p50 {p50_us} us, p99 {p99_us} us",
        reader.name
    );
    Ok(Some(Report { written_at: leader, read_at: reader.name.clone(), payments: PAYMENTS, read_from_copy, p50_us, p99_us }))
}
