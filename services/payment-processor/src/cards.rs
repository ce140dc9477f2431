//! Payments by card: what callers ask for goes into the books first, then the acquirer is asked, and callers wait for what it says.
//!
//! What is asked of an acquirer has a task of its own (`desk`): one try at it is an `operation`, over the gateways of the region (`outside`). A caller
//! that does not wait loses nothing but the answer.

mod desk;
mod operation;
mod outside;
mod vaults;
mod words;

use std::{sync::Arc, time::Duration};

use paymesh_acquirers::{Route, WhyLeft};
use paymesh_contract::Fault;
use paymesh_ledger::{ByCard, Command, CreatePayment, Reason, Request};
use paymesh_shard::{Answer, Clock, Shard};
use paymesh_types::{GatewayName, PaymentId};
use tokio::time::{Instant, timeout_at};
use tonic::Code;

pub(crate) use self::desk::{Desk, describe_metrics};
pub use self::outside::{Authorized, CardOf, CardVault, Outside};
use self::{desk::Followed, vaults::Vaults};
use crate::{door::NewPayment, error, homes::Homes};

/// How long a caller without a deadline waits for an acquirer.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// What is left of a caller's time for the answer to reach it.
const WAY_BACK: Duration = Duration::from_millis(100);

/// What payments by card need of a node.
#[derive(Clone)]
pub struct Acquiring {
    /// The gateways of the region.
    pub outside: Arc<Outside>,
    /// The node's.
    pub clock: Clock,
}

impl std::fmt::Debug for Acquiring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquiring").field("outside", &self.outside).finish_non_exhaustive()
    }
}

/// Payments by card of the region.
#[derive(Debug, Clone)]
pub(crate) struct Cards {
    homes: Arc<Homes>,
    /// `None`: no gateways are configured.
    desk: Option<Desk>,
    vaults: Vaults,
}

impl Cards {
    pub(crate) fn new(homes: Arc<Homes>, desk: Option<Desk>) -> Self {
        let vaults = Vaults::new(homes.mesh().clone());
        Self { homes, desk, vaults }
    }

    fn desk(&self) -> Result<&Desk, Fault> {
        let message = "no acquirers are configured at the payer's home: it has no gateways.yaml";
        self.desk.as_ref().ok_or_else(|| Fault::new(Code::FailedPrecondition, "NO_GATEWAYS", message))
    }

    /// Makes a payment by card, and waits for the acquirer until `until`.
    pub(crate) async fn create(&self, shard: &Shard, new: NewPayment, create: CreatePayment, until: Instant) -> Result<Answer, Fault> {
        let desk = self.desk()?;
        let token = new.token().ok_or_else(|| Fault::new(Code::Internal, "NO_CARD", "a payment without a card came to be one by card"))?;
        if token.zone() != &shard.reference().zone {
            let message = format!("a card of zone {} does not pay for a user of zone {}", token.zone(), shard.reference().zone);
            return Err(Fault::invalid_field("card.vault_token", message));
        }
        let card = self.vaults.describe(&token, new.payer, until).await?;
        let route = desk.outside().route(&paymesh_acquirers::Payment {
            amount: create.money,
            brand: card.brand,
            country: None,
            zone: shard.reference().zone.clone(),
        });
        let (gateway, fall_back, declined) = in_order(&route)?;
        let create = CreatePayment { card: Some(ByCard { token, gateway, declined }), ..create };
        let request = Request { id: Some(new.id), command: Command::CreatePayment(create) };
        self.submit(shard, request, fall_back, until).await
    }

    /// Has something about a payment by card decided, and waits for what the acquirer makes of it.
    pub(crate) async fn submit(
        &self,
        shard: &Shard,
        request: Request,
        fall_back: Vec<GatewayName>,
        until: Instant,
    ) -> Result<Answer, Fault> {
        let asked = shard.submit(request).await.map_err(error::failed)?;
        let Some(desk) = &self.desk else { return Ok(asked) };
        let followed = match asked.entry.payment(&asked.position) {
            Some(payment) if asked.replayed => desk.under_way(shard.reference(), payment.sequence),
            _ => desk.begin_asked(shard, &asked, fall_back),
        };
        Ok(match followed {
            Some(followed) => follow(followed, until).await.unwrap_or(asked),
            None => asked,
        })
    }

    /// Looks for what acquirers are asked for and nobody asks, for as long as it is polled.
    pub(crate) async fn sweep(&self) -> std::convert::Infallible {
        match &self.desk {
            Some(desk) => desk.sweep().await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn gateways(&self) -> Vec<paymesh_acquirers::GateSnapshot> {
        self.desk.as_ref().map(|desk| desk.outside().snapshots()).unwrap_or_default()
    }
}

/// Until when a caller waits, by its deadline.
pub(crate) fn until(deadline: Option<Instant>) -> Instant {
    let most = Instant::now() + WAIT_MAX;
    deadline.map_or(most, |deadline| deadline.checked_sub(WAY_BACK).unwrap_or(deadline).min(most))
}

/// The last that comes of an operation by `until`.
async fn follow(mut followed: Followed, until: Instant) -> Option<Answer> {
    // It ends when nothing more comes.
    let _ = timeout_at(until, async { while followed.changed().await.is_ok() {} }).await;
    followed.borrow().clone()
}

/// The gateway to ask first and those after it, or why nobody is to be asked.
fn in_order(route: &Route) -> Result<(GatewayName, Vec<GatewayName>, Option<Reason>), Fault> {
    let parsed = |name: &str| name.parse::<GatewayName>().ok();
    let mut candidates = route.candidates.iter().filter_map(|candidate| parsed(&candidate.gateway));
    if let Some(first) = candidates.next() {
        return Ok((first, candidates.collect(), None));
    }
    // All that there are for it are open: it is declined at the first of them.
    let open = route.left.iter().filter(|left| left.why == WhyLeft::Open).find_map(|left| parsed(&left.gateway));
    match open {
        Some(open) => Ok((open, Vec::new(), Some(Reason::GatewayUnavailable))),
        None => {
            let message = format!("no gateway of rule `{}` in gateways.yaml serves the payer's zone", route.rule);
            Err(Fault::new(Code::FailedPrecondition, "NO_GATEWAYS", message))
        }
    }
}

/// Names the payment of an answer.
pub(crate) fn id_of(answer: &Answer) -> Option<PaymentId> {
    answer.entry.payment(&answer.position).map(|payment| payment.id(&answer.position.shard))
}
