//! The demo's payments by card: cards are sealed in one region and kept by the vault of another, charged at simulated acquirers, held, captured, refunded and
//! declined; and in the end the acquirers' lists and the books say the same.

use std::{path::Path, time::SystemTime};

use anyhow::Context as _;
use paymesh_client::{Card, CardNumber, Client, Expiry, Options, Session, VaultKey, Vaults, seal};
use paymesh_contract::{
    common::v1::Money,
    payments::v1::{ByCard, CaptureMode, CapturePaymentRequest, CreatePaymentRequest, Payment, PaymentStatus, RefundPaymentRequest},
    vault::v1::{GetVaultKeyRequest, TokenizeRequest},
};
use paymesh_topology::{Gateways, Topology};
use paymesh_types::{RegionName, ShardRef, UserId, ZoneName};
use serde::Serialize;
use tokio::{net::TcpListener, task::JoinSet};

use super::users;
use crate::{acquirer, client::Mesh, output::money, say, verify};

/// The simulator's number of a card without enough on it. All that it does not list are approved.
const TOO_LITTLE: &str = "4000000000009995";
/// What each is charged, in cents. Small: larger ones would have European cardholders asked.
const AMOUNT: i64 = 1_000;
/// Of a hold, this is captured, and of that, this refunded.
const CAPTURED: i64 = 700;
const REFUNDED: i64 = 250;
/// Payers of each zone.
const PAYERS: usize = 6;
const CURRENCY: &str = "EUR";

/// What is outside of the demo's mesh.
pub(super) struct Acquirers {
    gateways: Gateways,
    // They end with it.
    _simulators: JoinSet<anyhow::Result<()>>,
}

impl Acquirers {
    /// Starts two on free ports, and has the configuration in `config` name them.
    pub(super) async fn start(config: &Path, topology: &Topology, data: &Path) -> anyhow::Result<Self> {
        let mut yaml = String::from("gateways:\n");
        for gateway in ["simulator_a", "simulator_b"] {
            let address = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?;
            yaml.push_str(&format!("  {gateway}: {{connector: simulator, url: 'http://{address}', zones: any}}\n"));
        }
        yaml.push_str("rules:\n  - {name: all, use: {simulator_a: 70, simulator_b: 30}}\n");
        std::fs::write(config.join(paymesh_topology::GATEWAYS_FILE_NAME), yaml)?;
        let gateways = Gateways::load(config, topology)?.context("the demo's own gateways")?;
        let (_, simulators) = acquirer::stand_in(&gateways, data).await?;
        Ok(Self { gateways, _simulators: simulators })
    }

    /// What they have taken from cards less what they have sent back, in minor units.
    async fn taken(&self) -> anyhow::Result<i64> {
        let mut taken = 0;
        for gateway in self.gateways.gateways() {
            taken += acquirer::taken(&gateway.url).await.with_context(|| format!("the list of charges of {}", gateway.name))?;
        }
        Ok(taken)
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) payments: u64,
    completed: u64,
    declined: u64,
    refunds: u64,
    /// What the acquirers have taken from cards less what they sent back, in cents.
    taken_minor_units: i64,
}

/// Pays by card in every zone that has a vault. None: there is none.
pub(super) async fn run(mesh: &Mesh, acquirers: &Acquirers, payments_csv: &str) -> anyhow::Result<Option<Report>> {
    let topology = &mesh.topology;
    let zones: Vec<(ZoneName, RegionName)> =
        topology.zones().filter_map(|zone| Some((zone.name.clone(), topology.vault(&zone.name)?.clone()))).collect();
    if zones.is_empty() {
        return Ok(None);
    }
    // Of a mesh in plain text nothing is signed.
    let vaults = mesh
        .trust
        .clone()
        .map(|trust| Vaults::new(trust, topology.mesh(), zones.iter().cloned()).context("the mesh's name"))
        .transpose()?;
    let mut report = Report { payments: 0, completed: 0, declined: 0, refunds: 0, taken_minor_units: 0 };
    for (zone, vault) in &zones {
        let of_zone = users(payments_csv, |country| topology.zone_of_country(country) == Some(zone));
        anyhow::ensure!(
            of_zone.len() > PAYERS,
            "the file enrols fewer than {} users of zone {zone} with an account in {CURRENCY}",
            PAYERS + 1
        );
        // Entered where neither the payers live nor their vault is, if there is such a place.
        let via = topology.entries().find(|region| region.zone != *zone).map_or(vault, |region| &region.name);
        let client = client(mesh, via)?;
        for (number, payer) in of_zone[..PAYERS].iter().enumerate() {
            let too_little = number == 2;
            let card = if too_little { CardNumber::parse(TOO_LITTLE)? } else { approved(*payer)? };
            let token = take_in(&client, vaults.as_ref(), *payer, card).await.with_context(|| format!("a card of user {payer}"))?;
            let held = number % 2 == 1;
            // What is to be refunded has to be there: in the payer's own shard it is at once.
            let is_near = |other: &u64| other != payer && (!held || shard(topology, zone, *other) == shard(topology, zone, *payer));
            let payee = of_zone.iter().copied().find(is_near).unwrap_or(of_zone[number + 1]);
            let paid = pay(&client, *payer, payee, &token, held).await?;
            report.payments += 1;
            match paid.status() {
                PaymentStatus::Completed | PaymentStatus::InTransit => report.completed += 1,
                PaymentStatus::Declined if too_little && paid.reason == "CARD_INSUFFICIENT_FUNDS" => report.declined += 1,
                other => anyhow::bail!("a payment by card of user {payer} is {}: {}", other.as_str_name(), paid.reason),
            }
            if paid.refunded_minor_units > 0 {
                report.refunds += 1;
            }
        }
    }
    report.taken_minor_units = acquirers.taken().await?;
    say!(
        "{} payments by card, each card sealed outside of its zone: {} completed, {} declined by the acquirer, {} refunded in part; the acquirers have taken {}",
        report.payments,
        report.completed,
        report.declined,
        report.refunds,
        money(report.taken_minor_units.into(), CURRENCY)
    );
    Ok(Some(report))
}

/// What the books say of cards against what the acquirers do.
pub(super) fn against_acquirers(report: &Report, verify: &verify::Report) -> Option<String> {
    let booked: i64 = verify.shards.iter().filter_map(|shard| shard.currencies.get(CURRENCY)).map(|sum| sum.cards).sum();
    (booked != -report.taken_minor_units).then(|| {
        let (taken, booked) = (money(report.taken_minor_units.into(), CURRENCY), money((-booked).into(), CURRENCY));
        format!("the acquirers have taken {taken} from cards, and the books say {booked}")
    })
}

fn client(mesh: &Mesh, region: &RegionName) -> anyhow::Result<Client> {
    let scheme = if mesh.trust.is_some() { "https" } else { "http" };
    let endpoint = mesh.topology.region(region).map(|region| format!("{scheme}://{}", region.grpc)).unwrap_or_default();
    Ok(Client::connect([endpoint], Options { trust: mesh.trust.clone(), ..Options::default() })?)
}

fn shard(topology: &Topology, zone: &ZoneName, user: u64) -> Option<ShardRef> {
    topology.home(zone, UserId::try_from(user).ok()?)
}

/// A number of a card that is this user's alone: one card of many users is what fraud detection looks for.
fn approved(user_id: u64) -> anyhow::Result<CardNumber> {
    let with_check = |check: u8| CardNumber::parse(&format!("424242{user_id:09}{check}")).ok();
    (0..10).find_map(with_check).with_context(|| format!("user {user_id} has no number of a card"))
}

/// Has a card taken in by the vault of its user's zone, sealed to that: no node on the way sees its number.
async fn take_in(client: &Client, vaults: Option<&Vaults>, user_id: u64, number: CardNumber) -> anyhow::Result<String> {
    let session = Session::new();
    let answer = client.call(&session, GetVaultKeyRequest { user_id }).await?;
    let key = match vaults {
        Some(vaults) => vaults.key(user_id, &answer, SystemTime::now())?,
        None => VaultKey::unproven(user_id, &answer)?,
    };
    let card = Card { number, expiry: Expiry::new(12, 2040)? };
    let sealed_card = Some(seal(&card, &key)?);
    let taken = client.call(&session, TokenizeRequest { user_id, sealed_card, ..TokenizeRequest::default() }).await?;
    Ok(taken.description.context("the answer has no token")?.vault_token)
}

/// Pays at once, or by a hold that is captured in part and refunded in part.
async fn pay(client: &Client, payer_id: u64, payee_id: u64, token: &str, held: bool) -> anyhow::Result<Payment> {
    let session = Session::new();
    let capture_mode = if held { CaptureMode::Manual } else { CaptureMode::Automatic };
    let request = CreatePaymentRequest {
        payer_id,
        payee_id,
        amount: Some(Money { minor_units: AMOUNT, currency_code: CURRENCY.to_owned() }),
        capture_mode: capture_mode.into(),
        card: Some(ByCard { vault_token: token.to_owned(), device: format!("demo-{payer_id}"), ..ByCard::default() }),
        ..CreatePaymentRequest::default()
    };
    let made = client.call(&session, request).await.context("a payment by card")?.payment.context("the answer has no payment")?;
    if made.status() != PaymentStatus::Authorized {
        return Ok(made);
    }
    let payment_id = made.payment_id;
    let capture =
        CapturePaymentRequest { payment_id: payment_id.clone(), amount_minor_units: Some(CAPTURED), ..CapturePaymentRequest::default() };
    let captured = client.call(&session, capture).await.context("a capture")?.payment.context("the answer has no payment")?;
    // Money for another shard can be sent back once it is there.
    if captured.status() == PaymentStatus::Completed {
        let refund = RefundPaymentRequest { payment_id, amount_minor_units: Some(REFUNDED), ..RefundPaymentRequest::default() };
        return client.call(&session, refund).await.context("a refund")?.payment.context("the answer has no payment");
    }
    Ok(captured)
}
