//! Carries one instruction into the mesh, trying again where that is safe.
//!
//! Each try has the same request id, so however many of them arrive the write happens once. Tries are bounded in number and
//! in time; pauses between them grow and are jittered. A line without `via` is tried at another region when one fails.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use paymesh_contract::{
    Fault,
    common::v1 as common,
    directory::v1::{EnrollUserRequest, directory_service_client::DirectoryServiceClient},
    payments::v1::{ByCard, CaptureMode, CreatePaymentRequest, PaymentStatus, payment_service_client::PaymentServiceClient},
    wallet::v1::{DepositRequest, WithdrawRequest, WithdrawalStatus, wallet_service_client::WalletServiceClient},
};
use paymesh_types::{Position, RegionName, ShardRef};
use tonic::{Status, transport::Channel};

use super::{
    line::{Action, Instruction},
    report::{End, Outcome},
};
use crate::client::{self, Mesh};

/// Deadline of one try.
const TRY_DEADLINE: Duration = Duration::from_secs(10);
/// Tries of one line at most. Those that were turned away because a region is silent cost nothing, and do not count.
const TRIES_MAX: u32 = 10;
/// No other try begins after a line has been at it for so long.
const RETRY_TIME_MAX: Duration = Duration::from_secs(30);
/// What a line takes at most, give or take: the last try may begin just before its time is over.
pub(super) const LINE_TIME_MAX: Duration = Duration::from_secs(RETRY_TIME_MAX.as_secs() + TRY_DEADLINE.as_secs());
/// The first pause; each is twice the one before, up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_LAST: Duration = Duration::from_secs(3);

/// Sends instructions. Shared by all lines in flight.
pub(crate) struct Sender {
    channels: Vec<(RegionName, Channel)>,
    /// The head of each shard when the run began: an answer from at or before it was recorded by an earlier run.
    heads: BTreeMap<ShardRef, u64>,
    jitter: AtomicU64,
}

/// What the mesh answered.
struct Answer {
    /// Why it was declined, if it was.
    declined: Option<String>,
    position: Option<common::Position>,
}

impl Sender {
    pub(crate) fn new(mesh: &Mesh, heads: BTreeMap<ShardRef, u64>) -> Arc<Self> {
        let channels = mesh.entries().map(|region| (region.clone(), mesh.channel(region))).collect();
        Arc::new(Self { channels, heads, jitter: AtomicU64::new(client::jitter_seed()) })
    }

    /// Carries out one instruction. `turn` picks the region of a line that names none.
    pub(crate) async fn send(&self, instruction: Instruction, turn: u64) -> Outcome {
        let started = Instant::now();
        let regions = self.channels.len() as u64;
        let chosen = match &instruction.via {
            Some(via) => {
                self.channels.iter().position(|(region, _)| region == via).expect("the line's region was checked when it was read")
            }
            None => index(turn % regions),
        };
        let mut place = chosen;
        let (mut tries, mut turned_away) = (0, 0);
        loop {
            tries += 1;
            let (region, channel) = &self.channels[place];
            let (end, position) = match self.attempt(&instruction, channel.clone()).await {
                Ok(answer) => self.accept(answer),
                Err(status) if !client::is_retryable(&status) => {
                    (End::Failed { reason: client::explain(&status), unreachable: false }, None)
                }
                Err(status) => {
                    let pause = self.pause(tries, client::retry_after(&status));
                    turned_away += u32::from(Fault::from_status(&status).reason == "PEER_SILENT");
                    if tries - turned_away < TRIES_MAX && started.elapsed() + pause < RETRY_TIME_MAX {
                        tokio::time::sleep(pause).await;
                        if instruction.via.is_none() {
                            place = (place + 1) % self.channels.len();
                        }
                        continue;
                    }
                    let reason = format!("gave up after {tries} tries; last at {region}: {}", client::explain(&status));
                    (End::Failed { reason, unreachable: true }, None)
                }
            };
            let (kind, moved) = (Some(kind(&instruction.action)), moved(&instruction.action));
            return Outcome { region: Some(region.clone()), end, took: started.elapsed(), kind, moved, position };
        }
    }

    async fn attempt(&self, instruction: &Instruction, channel: Channel) -> Result<Answer, Status> {
        let request_id = instruction.request_id.to_string();
        let reference = instruction.reference.clone();
        match &instruction.action {
            Action::Enrol { user, country, currencies } => {
                let message = EnrollUserRequest {
                    request_id,
                    user_id: user.get(),
                    residence_country: country.code().to_owned(),
                    currency_codes: currencies.iter().map(|currency| currency.code().to_owned()).collect(),
                };
                let mut client = DirectoryServiceClient::new(channel);
                let answer = client::call(TRY_DEADLINE, message, async |request| client.enroll_user(request).await).await?;
                Ok(Answer { declined: None, position: answer.position })
            }
            Action::Deposit { user, amount } => {
                let message = DepositRequest { request_id, user_id: user.get(), amount: Some((*amount).into()), reference };
                let mut client = WalletServiceClient::new(channel);
                let answer = client::call(TRY_DEADLINE, message, async |request| client.deposit(request).await).await?;
                Ok(Answer { declined: None, position: answer.position })
            }
            Action::Withdrawal { user, amount } => {
                let message = WithdrawRequest { request_id, user_id: user.get(), amount: Some((*amount).into()), reference };
                let mut client = WalletServiceClient::new(channel);
                let answer = client::call(TRY_DEADLINE, message, async |request| client.withdraw(request).await).await?;
                let declined = (answer.status() == WithdrawalStatus::Declined).then_some(answer.decline_reason);
                Ok(Answer { declined, position: answer.position })
            }
            Action::Payment { payer, payee, amount, card } => {
                let message = CreatePaymentRequest {
                    request_id,
                    payer_id: payer.get(),
                    payee_id: payee.get(),
                    amount: Some((*amount).into()),
                    capture_mode: CaptureMode::Automatic.into(),
                    hold_duration: None,
                    reference,
                    card: card.as_ref().map(|token| ByCard { vault_token: token.to_string(), ..ByCard::default() }),
                };
                let mut client = PaymentServiceClient::new(channel);
                let answer = client::call(TRY_DEADLINE, message, async |request| client.create_payment(request).await).await?;
                let payment = answer.payment.unwrap_or_default();
                let declined = match payment.status() {
                    PaymentStatus::Declined | PaymentStatus::Voided => Some(payment.reason),
                    // Nobody here can do what the cardholder is asked for; it is let go of when its time is up.
                    PaymentStatus::RequiresAction => Some("REQUIRES_ACTION".to_owned()),
                    // Recorded, and its acquirer is being asked: the same again says what came of it.
                    PaymentStatus::Pending | PaymentStatus::Authorized => return Err(still_asked(&payment.payment_id)),
                    _ => None,
                };
                Ok(Answer { declined, position: answer.position })
            }
        }
    }

    /// What an answer means, and where it is booked. One whose position is not past the head of its shard at the beginning of the run repeats what
    /// an earlier run had recorded.
    fn accept(&self, answer: Answer) -> (End, Option<Position>) {
        let failed = |reason: &str| (End::Failed { reason: reason.to_owned(), unreachable: false }, None);
        let Some(position) = answer.position else { return failed("the node's answer has no position") };
        let Ok(position) = Position::try_from(&position) else { return failed("the node's answer has no valid position") };
        let replay = self.heads.get(&position.shard).is_some_and(|head| position.sequence.0 <= *head);
        let end = match answer.declined {
            Some(reason) => End::Declined { reason, replay },
            None => End::Accepted { replay },
        };
        (end, Some(position))
    }

    /// The pause before the next try: what the node asks for, or the doubled one; half of it by chance.
    fn pause(&self, tries: u32, asked: Option<Duration>) -> Duration {
        let doubled = PAUSE_FIRST.saturating_mul(1 << (tries - 1).min(16)).min(PAUSE_LAST);
        let whole = asked.unwrap_or_default().clamp(doubled, RETRY_TIME_MAX);
        let half_us = u64::try_from(whole.as_micros() / 2).expect("a pause is shorter than a minute");
        Duration::from_micros(half_us + half_us * u64::from(self.chance()) / u64::from(u32::MAX))
    }

    /// A number by chance (SplitMix64, Steele, Lea and Flood 2014).
    fn chance(&self) -> u32 {
        let mut state = self.jitter.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (state >> 32) as u32
    }
}

fn still_asked(payment: &str) -> Status {
    let message = format!("the acquirer of {payment} has not answered yet");
    Fault::unavailable("PAYMENT_PENDING", message, PAUSE_FIRST).into()
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("it is less than the number of regions")
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Enrol { .. } => "enrol",
        Action::Deposit { .. } => "deposit",
        Action::Withdrawal { .. } => "withdrawal",
        Action::Payment { .. } => "payment",
    }
}

/// What the action, once accepted, adds to the mesh's money.
fn moved(action: &Action) -> Option<(&'static str, i64)> {
    match action {
        Action::Deposit { amount, .. } => Some((amount.currency().code(), amount.minor())),
        Action::Withdrawal { amount, .. } => Some((amount.currency().code(), -amount.minor())),
        Action::Enrol { .. } | Action::Payment { .. } => None,
    }
}
