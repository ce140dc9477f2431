//! The acquirer alone: what a payment by card makes it do, without a mesh, through the connector that the mesh uses.

use std::{cell::RefCell, collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use paymesh_acquirers::{Acquirer, Authentication, Authorization, Capture, Charge, Decision, Reference, Settlement, Sought, connector};
use paymesh_topology::{BreakerRule, ConnectorKind, Cost, Gateway, ZoneGrant};
use paymesh_types::{Currency, Money, Timestamp};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;
use uuid::Uuid;

use super::{CURRENCY, FIRST_USER, PAYMENT_MINOR_MAX, Plan, cards::card, client::Meter, pace::Pace, payments::now_us};

/// How long a call may take, as in the mesh.
const CALL_MAX: Duration = Duration::from_secs(10);

/// What the next charge is.
struct Next {
    user: u64,
    minor: i64,
    name: Uuid,
}

/// Authorizes and captures at the plan's endpoint, at a pace.
pub(super) async fn charge(plan: &Plan, pace: Pace, meter: impl Fn() -> anyhow::Result<Meter>) -> anyhow::Result<Meter> {
    let acquirer = connector(&gateway(&plan.endpoint), Path::new(""), Arc::new(now))?;
    let currency = Currency::from_code(CURRENCY)?;
    let rng = RefCell::new(StdRng::seed_from_u64(plan.seed));
    let next = || {
        let mut rng = rng.borrow_mut();
        let user = rng.random_range(FIRST_USER..FIRST_USER + plan.accounts);
        Next { user, minor: rng.random_range(1..=PAYMENT_MINOR_MAX), name: Uuid::from_u128(rng.random()) }
    };
    pace.run(meter()?, async || one(&*acquirer, currency, next()).await).await
}

async fn one(acquirer: &dyn Acquirer, currency: Currency, next: Next) -> anyhow::Result<()> {
    let (card, begun_at) = (card(next.user)?, now());
    let amount = Money::new(next.minor, currency).context("what is paid is an amount")?;
    let reference = |what: &str| format!("bench.{}.{what}", next.name.simple()).parse::<Reference>();
    let authorization = Authorization {
        reference: reference("authorize.0")?,
        begun_at,
        amount,
        authentication: Authentication::IssuerDecides,
        recurring: false,
        sets_up: false,
    };
    let charge: Charge = match acquirer.authorize(&card, &authorization, Instant::now() + CALL_MAX).await {
        Ok(Decision::Approved(charge)) => charge,
        other => bail!("an authorization ended as {other:?}"),
    };
    let sought = Sought { reference: authorization.reference, begun_at, amount, charge: Some(charge.id) };
    let capture = Capture { charge: sought, reference: reference("capture.1")?, amount };
    match acquirer.capture(&capture, Instant::now() + CALL_MAX).await {
        Ok(Settlement::Done(_)) => Ok(()),
        other => bail!("a capture ended as {other:?}"),
    }
}

fn gateway(url: &str) -> Gateway {
    Gateway {
        name: "alone".to_owned(),
        connector: ConnectorKind::Simulator,
        url: url.to_owned(),
        authorities: None,
        credentials: None,
        return_url: None,
        zones: ZoneGrant::Any,
        cost: Cost { millionths: 0, fixed: BTreeMap::new() },
        timeout: CALL_MAX,
        calls_in_flight: u32::MAX,
        // What a gate does with it is not measured here: there is none around a connector.
        breaker: BreakerRule { failures: 1, open_for: CALL_MAX, probes: 1 },
    }
}

fn now() -> Timestamp {
    Timestamp(now_us())
}
