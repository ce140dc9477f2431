//! What fraud detection says of a payment, before anything is done for it: [`Scorer`], for the region that leads the payer's shard.
//!
//! A payment is asked about once, by its own request id, and not for longer than its zone allows. Where no score comes in time, whatever the reason, the zone's policy
//! in fraud.yaml says by the amount what is done: the payment goes on and is to be looked at, or it does not. Nothing here waits for longer than that
//! deadline, and no answer of fraud detection's is an error of the payment's.
//!
//! A zone of which no region runs fraud detection has none: its payments are accepted without a score.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use paymesh_contract::{
    Fault,
    fraud::v1::{Assessment, Decision, ScoreRequest, ScoredPayment, fraud_service_client::FraudServiceClient},
};
use paymesh_mesh::{Mesh, MeshChannel};
use paymesh_topology::{Fraud, Unscored, ZonePolicy};
use paymesh_types::{Money, RequestId, Score, ZoneName};
use tokio::{sync::watch, time::Instant};

/// How much longer than the deadline an answer is waited for: the mesh ends calls by itself, with words that say more.
const GRACE: Duration = Duration::from_millis(20);

/// Verdicts, by what they are.
const VERDICTS: &str = "paymesh_fraud_verdicts_total";

/// Says in `/metrics` what this module counts.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        VERDICTS,
        "Payments that fraud detection was asked about, by what became of them: accept, review and decline by their score; open and closed \
         by the zone's policy, without one"
    );
    for verdict in ["accept", "review", "decline", "open", "closed"] {
        metrics::counter!(VERDICTS, "verdict" => verdict).increment(0);
    }
}

/// What is to become of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What.
    pub outcome: Outcome,
    /// Its score. None: it has none.
    pub score: Option<Score>,
    /// The version of the rules that it was decided by. None: there were none.
    pub rules_version: Option<String>,
}

/// What is to become of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Accept,
    /// It goes on, and is to be looked at.
    Review(Why),
    /// It does not.
    Decline(Declined),
}

/// Why a payment is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its score is above the zone's threshold for that.
    Score,
    /// It has no score, and the zone's policy is open for its amount.
    Unscored,
}

/// Why a payment does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// Its score is above the zone's threshold.
    FraudDetected,
    /// It has no score, and the zone's policy is closed for its amount.
    FraudUnavailable,
}

impl Declined {
    /// The reason that a payment's answer carries.
    pub fn reason(self) -> &'static str {
        match self {
            Self::FraudDetected => "FRAUD_DETECTED",
            Self::FraudUnavailable => "FRAUD_UNAVAILABLE",
        }
    }
}

/// Asks fraud detection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Scorer {
    mesh: Mesh,
    client: FraudServiceClient<MeshChannel>,
    rules: watch::Receiver<Option<Arc<Fraud>>>,
    /// Whether the last payment was not scored: it is said once, and once when it is over.
    failing: Arc<AtomicBool>,
}

impl Scorer {
    /// A scorer that goes by these rules, as they change.
    pub fn new(mesh: Mesh, rules: watch::Receiver<Option<Arc<Fraud>>>) -> Self {
        let client = FraudServiceClient::new(mesh.channel());
        Self { mesh, client, rules, failing: Arc::default() }
    }

    /// What is to become of a payment of `amount` of a user of `zone`; what `payment` says of the amount is overwritten. Ends by the zone's deadline, or by
    /// `deadline` where that is earlier: what is not scored by then is not scored. The same request may be asked about again: it is the same answer, and counts once.
    ///
    /// The question is the node's own and carries no caller: whoever may pay is scored, whatever its scopes.
    pub async fn verdict(
        &self,
        zone: &ZoneName,
        request: RequestId,
        amount: Money,
        payment: ScoredPayment,
        deadline: Option<Instant>,
    ) -> Verdict {
        if !self.mesh.topology().scores_fraud(zone) {
            return Verdict { outcome: Outcome::Accept, score: None, rules_version: None };
        }
        let rules = self.rules.borrow().clone();
        let standard = ZonePolicy::default();
        let policy = rules.as_ref().map_or(&standard, |rules| rules.policy(zone));
        let ends = Instant::now() + policy.deadline;
        let wait = deadline.map_or(ends, |deadline| deadline.min(ends)).saturating_duration_since(Instant::now());
        let payment = ScoredPayment { amount: Some(amount.into()), ..payment };
        let verdict = match self.score(request, payment, wait).await {
            Ok(verdict) => {
                if self.failing.swap(false, Relaxed) {
                    tracing::info!(%zone, "payments are scored again");
                }
                verdict
            }
            Err(why) => {
                let version = rules.as_ref().map(|rules| rules.version().to_owned());
                let unscored = policy.unscored(rules.as_ref().and_then(|rules| rules.to_reference(amount)));
                if !self.failing.swap(true, Relaxed) {
                    tracing::warn!(%zone, %why, "payments are not scored, and the zone's policy decides by their amounts");
                }
                let outcome = match unscored {
                    Unscored::Open => Outcome::Review(Why::Unscored),
                    Unscored::Closed => Outcome::Decline(Declined::FraudUnavailable),
                };
                Verdict { outcome, score: None, rules_version: version }
            }
        };
        metrics::counter!(VERDICTS, "verdict" => word(verdict.outcome)).increment(1);
        verdict
    }

    /// The score's own verdict.
    ///
    /// # Errors
    /// Why there is none.
    async fn score(&self, request: RequestId, payment: ScoredPayment, wait: Duration) -> Result<Verdict, Fault> {
        let mut asked = tonic::Request::new(ScoreRequest { request_id: request.to_string(), payment: Some(payment) });
        asked.set_timeout(wait);
        let mut client = self.client.clone();
        let slow = || unusable("nothing came within the zone's deadline");
        let answered = tokio::time::timeout(wait + GRACE, client.score(asked)).await.map_err(|_| slow())?;
        let assessment = answered.map_err(|status| Fault::from_status(&status))?.into_inner().assessment;
        let Assessment { score, decision, rules_version, .. } = assessment.ok_or_else(|| unusable("the answer has no assessment"))?;
        let score = Score::new(score).ok_or_else(|| unusable("the score is none"))?;
        let outcome = match Decision::try_from(decision) {
            Ok(Decision::Accept) => Outcome::Accept,
            Ok(Decision::Review) => Outcome::Review(Why::Score),
            Ok(Decision::Decline) => Outcome::Decline(Declined::FraudDetected),
            Ok(Decision::Unspecified) | Err(_) => return Err(unusable("the decision is none")),
        };
        Ok(Verdict { outcome, score: Some(score), rules_version: Some(rules_version) })
    }
}

/// Never answered to anybody: the zone's policy takes its place.
fn unusable(message: &'static str) -> Fault {
    Fault::new(tonic::Code::Unavailable, "FRAUD_UNAVAILABLE", message)
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accept => "accept",
        Outcome::Review(Why::Score) => "review",
        Outcome::Review(Why::Unscored) => "open",
        Outcome::Decline(Declined::FraudDetected) => "decline",
        Outcome::Decline(Declined::FraudUnavailable) => "closed",
    }
}
