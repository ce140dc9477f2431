//! Payments by card: what callers ask for goes into the books first, then the acquirer is asked, and callers wait for what it says.
//!
//! What is asked of an acquirer has a task of its own (`desk`): one try at it is an `operation`, over the gateways of the region (`outside`). A caller
//! that does not wait loses nothing but the answer.

mod desk;
mod operation;
mod outside;
mod rates;
pub(crate) mod vaults;
mod words;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use paymesh_access::Caller;
use paymesh_acquirers::{Acquirer, Route, WhyLeft};
use paymesh_contract::{
    Fault,
    common::v1 as common,
    fraud::v1::{PaymentKind, ScoredCard, ScoredPayment},
    payments::v1 as payments,
};
use paymesh_ledger::{Body, ByCard, CardStep, Command, CreatePayment, NewPayment as NewPaymentEntry, Reason, Request, Risk};
use paymesh_mesh::Call;
use paymesh_shard::{Answer, Clock, PaymentView, Shard};
use paymesh_topology::{Fraud, Gateways};
use paymesh_types::GatewayName;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tonic::Code;

use self::{
    desk::{Desk, Followed},
    outside::Outside,
    rates::Rates,
    vaults::Vaults,
};
use crate::{
    answer,
    door::{Card, NewPayment},
    error,
    fraud::{self, Declined, Scorer},
    homes::Homes,
};

/// Says in `/metrics` what payments by card are counted by.
pub(crate) fn describe_metrics() {
    desk::describe_metrics();
    rates::describe_metrics();
}

/// How long a caller without a deadline waits for an acquirer.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// What is left of a caller's time for the answer to reach it.
const WAY_BACK: Duration = Duration::from_millis(100);

/// What payments by card need of a node.
#[derive(Clone)]
pub struct Acquiring {
    /// The gateways and how they are chosen.
    pub gateways: Gateways,
    /// A connector for each gateway.
    pub connectors: BTreeMap<GatewayName, Arc<dyn Acquirer>>,
    /// What payments are scored by, as it changes.
    pub rules: watch::Receiver<Option<Arc<Fraud>>>,
    /// The node's.
    pub clock: Clock,
}

impl std::fmt::Debug for Acquiring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquiring").field("gateways", &self.connectors.keys()).finish_non_exhaustive()
    }
}

/// What a request led to, and the last that has come of it. The same where no acquirer is asked for anything, or has not answered yet.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) asked: Answer,
    last: Answer,
    /// The payment by card as it stands, where the request was made before or its entry does not tell.
    now: Option<PaymentView>,
}

impl Changed {
    /// By a request that no acquirer is asked for.
    pub(crate) fn of(answer: Answer) -> Self {
        Self { asked: answer.clone(), last: answer, now: None }
    }

    /// The payment as it stands as far as is known, and where that became durable.
    pub(crate) fn answer(&self) -> (Option<payments::Payment>, Option<common::Position>) {
        let payment = match &self.now {
            Some(view) => Some(answer::seen(view.clone(), &self.asked.position.shard)),
            None => answer::written(&self.last),
        };
        (payment, answer::position(&self.last.position))
    }

    /// The same, as this caller may have it.
    pub(crate) fn answer_to(&self, caller: &Caller) -> (Option<payments::Payment>, Option<common::Position>) {
        let (payment, position) = self.answer();
        (payment.map(|payment| answer::for_caller(payment, caller)), position)
    }

    /// Whether the acquirer has said what it makes of what the request asked it for.
    pub(crate) fn is_settled(&self) -> bool {
        let after = match &self.now {
            Some(view) => Some(view.row.payment.clone()),
            None => self.last.entry.payment(&self.last.position),
        };
        let asked = self.asked.entry.payment(&self.asked.position).and_then(|payment| payment.card);
        let number = asked.and_then(|charge| charge.operations.last().map(|operation| operation.number));
        let in_progress = |number| after.and_then(|payment| payment.card).is_some_and(|charge| charge.operation(number).is_some());
        !number.is_some_and(in_progress)
    }
}

/// Payments by card of the region.
#[derive(Debug, Clone)]
pub(crate) struct Cards {
    /// `None`: no gateways are configured.
    open: Option<Open>,
    vaults: Vaults,
}

/// What there is where gateways are configured.
#[derive(Debug, Clone)]
struct Open {
    homes: Arc<Homes>,
    desk: Desk,
    scorer: Scorer,
    batch_in_flight: usize,
    rates: Rates,
}

/// What a payment by card comes with beside its own fields.
#[derive(Debug)]
pub(crate) struct Circumstances {
    /// The region where it entered the mesh.
    pub(crate) entry_region: String,
    /// Until when its acquirer may be waited for.
    pub(crate) until: Instant,
}

impl Cards {
    pub(crate) fn new(homes: &Arc<Homes>, acquiring: Option<Acquiring>) -> Self {
        let vaults = Vaults::new(homes.mesh().clone());
        let open = acquiring.map(|Acquiring { gateways, connectors, rules, clock }| Open {
            batch_in_flight: gateways.batch_in_flight() as usize,
            homes: Arc::clone(homes),
            desk: Desk::new(Arc::clone(homes), Arc::new(Outside::new(gateways, connectors, vaults.clone())), Arc::clone(&clock)),
            scorer: Scorer::new(homes.mesh().clone(), rules.clone()),
            rates: Rates::new(Arc::clone(homes), rules, clock),
        });
        Self { open, vaults }
    }

    /// Payments of one batch whose acquirers are waited for at once.
    pub(crate) fn batch_in_flight(&self) -> usize {
        self.open.as_ref().map_or(1, |open| open.batch_in_flight)
    }

    fn open(&self) -> Result<&Open, Fault> {
        let message = "no acquirers are configured at the payer's home: it has no gateways.yaml";
        self.open.as_ref().ok_or_else(|| Fault::new(Code::FailedPrecondition, "NO_GATEWAYS", message))
    }

    /// Makes a payment by card, and waits for the acquirer.
    pub(crate) async fn create(
        &self,
        shard: &Shard,
        new: &NewPayment,
        create: CreatePayment,
        circumstances: &Circumstances,
    ) -> Result<Changed, Fault> {
        let (card, fall_back) = match self.prepare(shard, new, &create, circumstances).await {
            Ok(prepared) => prepared,
            // The same request again is answered whatever has become of the card, its vault and the gateways since.
            Err(fault) => match (new.card(), shard.outcome(new.id).await) {
                (Some(card), Ok(Some(recorded))) => (as_recorded(card, &recorded), Vec::new()),
                _ => return Err(fault),
            },
        };
        let request = Request { id: Some(new.id), command: Command::CreatePayment(CreatePayment { card: Some(card), ..create }) };
        self.submit(shard, request, fall_back, circumstances.until).await
    }

    /// How the card is to be charged, and the gateways that are asked after the first.
    async fn prepare(
        &self,
        shard: &Shard,
        new: &NewPayment,
        create: &CreatePayment,
        circumstances: &Circumstances,
    ) -> Result<(ByCard, Vec<GatewayName>), Fault> {
        let Open { homes, desk, scorer, rates, .. } = self.open()?;
        let card = new.card().ok_or_else(|| Fault::invalid_field("card", "a card is needed"))?;
        let (zone, until) = (&shard.reference().zone, circumstances.until);
        if card.token.zone() != zone {
            let message = format!("a card of zone {} does not pay for a user of zone {zone}", card.token.zone());
            return Err(Fault::invalid_field("card.vault_token", message));
        }
        let described = self.vaults.describe(&card.token, new.payer, until).await.map_err(|fault| match fault.reason.as_ref() {
            vaults::TOKEN_NOT_FOUND => fault.under("card"),
            _ => fault,
        })?;
        let country = shard.country(new.payer).await.map_err(error::failed)?;
        let route =
            desk.outside().route(&paymesh_acquirers::Payment { amount: create.money, brand: described.brand, country, zone: zone.clone() });
        let scored = ScoredPayment {
            payer_id: new.payer.get(),
            payee_id: new.payee.get(),
            amount: None,
            kind: PaymentKind::Card.into(),
            card: Some(ScoredCard { fingerprint: described.fingerprint, bin: described.bin, country: String::new() }),
            device: card.device.0.clone(),
            entry_region: circumstances.entry_region.clone(),
            residence_country: country.map(|country| country.code().to_owned()).unwrap_or_default(),
            asked_at: None,
        };
        let verdict = scorer.verdict(zone, new.id, create.money, scored, Some(until)).await;
        let (gateway, fall_back, unavailable) = in_order(&route)?;
        let declined = match verdict.outcome {
            fraud::Outcome::Decline(Declined::FraudDetected) => Some(Reason::FraudDetected),
            fraud::Outcome::Decline(Declined::FraudUnavailable) => Some(Reason::FraudUnavailable),
            fraud::Outcome::Accept | fraud::Outcome::Review(_) => unavailable,
        };
        let review = matches!(verdict.outcome, fraud::Outcome::Review(_));
        let risk = (verdict.score.is_some() || verdict.rules_version.is_some()).then(|| Risk {
            score: verdict.score,
            review,
            rules: verdict.rules_version.unwrap_or_default(),
        });
        let psd2 = homes.topology().is_under_psd2(zone);
        let analysis = if psd2 { rates.analysis(zone) } else { None };
        Ok((ByCard { token: card.token.clone(), gateway, declined, risk, psd2, agreement: card.agreement.clone(), analysis }, fall_back))
    }

    /// Has something about a payment by card decided, and waits for what the acquirer makes of it.
    pub(crate) async fn submit(
        &self,
        shard: &Shard,
        request: Request,
        fall_back: Vec<GatewayName>,
        until: Instant,
    ) -> Result<Changed, Fault> {
        let Some(Open { desk, .. }) = &self.open else {
            return shard.submit(request).await.map(Changed::of).map_err(error::failed);
        };
        let (asked, followed) = desk.submit(shard, request, fall_back).await.map_err(error::failed)?;
        let last = match followed {
            Some(followed) => follow(followed, until).await,
            None => None,
        };
        let last = last.unwrap_or_else(|| asked.clone());
        // What the first call was told may be long out of date, and fraud may be reported of money that is still on its way.
        let look = asked.replayed || matches!(asked.entry.body, Body::Card { step: CardStep::FraudReported, .. });
        let by_card = asked.entry.payment(&asked.position).filter(|payment| look && payment.card.is_some());
        let now = match by_card {
            Some(payment) => shard.payment(&payment.id(shard.reference())).await.map_err(error::failed)?.map(|(view, _)| view),
            None => None,
        };
        Ok(Changed { asked, last, now })
    }

    /// Looks for what acquirers are asked for and nobody asks, and at the zones' fraud rates, for as long as it is polled.
    pub(crate) async fn sweep(&self) -> std::convert::Infallible {
        match &self.open {
            Some(open) => tokio::select! {
                never = open.desk.sweep() => never,
                never = open.rates.watch() => never,
            },
            None => std::future::pending().await,
        }
    }

    pub(crate) fn gateways(&self) -> Vec<paymesh_acquirers::GateSnapshot> {
        self.open.as_ref().map(|open| open.desk.outside().snapshots()).unwrap_or_default()
    }
}

impl Circumstances {
    /// Of a call; without one, the payment was asked for inside of the node.
    pub(crate) fn of(call: Option<&Call>) -> Self {
        Self {
            entry_region: call.map(|call| call.entry_region().to_string()).unwrap_or_default(),
            until: until(call.and_then(Call::deadline)),
        }
    }
}

/// A card as a request that was recorded had it, as far as the ledger does not compare it.
fn as_recorded(card: &Card, recorded: &Answer) -> ByCard {
    let gateway = match &recorded.entry.body {
        Body::PaymentCreated(NewPaymentEntry { card: Some(charge), .. }) => charge.gateway.clone(),
        // The ledger says in which field the two differ.
        _ => "none".parse().expect("a gateway's name"),
    };
    ByCard {
        token: card.token.clone(),
        gateway,
        declined: None,
        risk: None,
        // Nothing of it is compared: it is for a request that is forgotten before it is looked for again, which would be challenged then.
        psd2: true,
        agreement: card.agreement.clone(),
        analysis: None,
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
