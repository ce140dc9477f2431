//! A batch of payments: parted by the payers' homes, sent to all of them at once, put together again in order.
//!
//! Each item is on its own: what one fails of is its own error. Items whose home is here go to its shard in one piece;
//! those of another region go there in one call, where they are at home. The work for an item is synchronous and takes
//! no lock; only users whose zone is not known here cost a question, one for all of them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::{
    StreamExt as _,
    future::{join_all, join3},
};
use paymesh_access::Caller;
use paymesh_contract::{
    Fault,
    common::v1::ItemError,
    payments::v1::{
        CreatePaymentRequest, CreatePaymentsRequest, PaymentOutcome, PaymentReceipt, payment_outcome::Outcome,
        payment_service_client::PaymentServiceClient,
    },
};
use paymesh_ledger::{CreatePayment, Rejection, Request};
use paymesh_mesh::Call;
use paymesh_shard::Answer;
use paymesh_types::{RegionName, UserId};
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use crate::{
    MESSAGE_BYTES_MAX, answer,
    cards::{Cards, Changed, Circumstances},
    counts::Tally,
    door::NewPayment,
    error,
    homes::{Homes, Slot},
    whose,
};

/// Items of a batch at most.
pub(crate) const BATCH_ITEMS_MAX: usize = 8_192;

/// How long an item by card is waited for: one that is slow is PENDING then, and keeps nobody.
const CARD_WAIT_MAX: Duration = Duration::from_secs(20);

/// How much longer than its acquirer an item by card is waited for.
const CARD_GRACE: Duration = Duration::from_secs(2);

/// How long a shard may take for its part. Calls have deadlines of their own; streams do not.
const SHARD_WAIT_MAX_MS: u64 = 30_000;

/// # Errors
/// INVALID_ARGUMENT: `TOO_MANY_ITEMS`, or `INVALID_FIELD` for none.
pub(crate) fn check_size(items: &[CreatePaymentRequest]) -> Result<(), Fault> {
    match items.len() {
        0 => Err(Fault::invalid_field("payments", format!("a batch has 1 to {BATCH_ITEMS_MAX} payments"))),
        1..=BATCH_ITEMS_MAX => Ok(()),
        many => {
            let message = format!("a batch has at most {BATCH_ITEMS_MAX} payments, not {many}");
            Err(Fault::new(Code::InvalidArgument, "TOO_MANY_ITEMS", message).with_field("payments"))
        }
    }
}

/// Who sends a batch, and the call that it is part of.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    call: Option<Call>,
    caller: Caller,
}

impl Sender {
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        Self { call: Call::of(request).cloned(), caller: whose::caller(request) }
    }
}

/// Whether a caller's users may pay this one, who lives there. Who may not is told what is said of a user who does not exist.
///
/// # Errors
/// `USER_NOT_FOUND`.
pub(crate) fn may_pay(homes: &Homes, caller: &Caller, payee: UserId, lives: Slot) -> Result<(), Fault> {
    if caller.pays_into(&homes.place(lives).shard.zone) { Ok(()) } else { Err(error::user_not_found(payee, "payee_id")) }
}

/// Makes the payments, each on its own: one outcome for each, in order.
pub(crate) async fn create(homes: &Homes, cards: &Cards, sender: &Sender, items: Vec<CreatePaymentRequest>) -> Vec<PaymentOutcome> {
    let mut outcomes = Outcomes { items: vec![PaymentOutcome::default(); items.len()], tally: Tally::start() };
    let mut asked = Vec::new();
    let checked: Vec<Option<Item>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| match NewPayment::try_from(item) {
            Ok(new) => Some(Item::new(homes, new, &mut asked)),
            Err(fault) => {
                outcomes.fail(index, fault);
                None
            }
        })
        .collect();
    if let Some(call) = &sender.call {
        call.is_about(checked.iter().flatten().map(|item| item.new.payer));
    }
    let found = look_up(homes, &asked).await;
    let mut parts = Parts::default();
    for (index, (message, item)) in items.into_iter().zip(checked).enumerate() {
        if let Some(item) = item
            && let Err(fault) = parts.add(homes, &sender.caller, &found, index, item, message)
        {
            outcomes.fail(index, fault);
        }
    }
    let here = join_all(parts.here.into_iter().map(|(slot, part)| submit(homes, slot, part)));
    let elsewhere = join_all(parts.elsewhere.into_iter().map(|(region, part)| forward(homes, sender.call.as_ref(), region, part)));
    let circumstances = Circumstances::of(sender.call.as_ref());
    let circumstances = Circumstances { until: circumstances.until.min(Instant::now() + CARD_WAIT_MAX), ..circumstances };
    let by_card = parts.by_card.into_iter().map(|item| item.pay(homes, cards, &circumstances));
    let by_card = futures::stream::iter(by_card).buffer_unordered(cards.batch_in_flight()).collect::<Vec<_>>();
    let (here, elsewhere, by_card) = join3(here, elsewhere, by_card).await;
    by_card.into_iter().for_each(|(index, changed)| outcomes.take_by_card(index, changed));
    here.into_iter().for_each(|(indexes, answers)| outcomes.take_answers(indexes, answers));
    elsewhere.into_iter().for_each(|(indexes, answers)| outcomes.take_outcomes(indexes, answers));
    outcomes.tally.publish();
    outcomes.items
}

/// A checked payment, and what is known without asking of where its users live.
struct Item {
    new: NewPayment,
    payer: Option<Slot>,
    payee: Option<Slot>,
}

impl Item {
    fn new(homes: &Homes, new: NewPayment, asked: &mut Vec<UserId>) -> Self {
        let payer = homes.known_slot(new.payer);
        // Where another region is the payer's home, the payee is its business.
        let elsewhere = payer.is_some_and(|slot| homes.place(slot).elsewhere.is_some());
        let payee = if elsewhere { None } else { homes.known_slot(new.payee) };
        if payer.is_none() {
            asked.push(new.payer);
        }
        if payee.is_none() && !elsewhere {
            asked.push(new.payee);
        }
        Self { new, payer, payee }
    }
}

/// Where users live whose zone was not known here. None: not enrolled.
type Found = Result<HashMap<UserId, Option<Slot>>, Fault>;

async fn look_up(homes: &Homes, asked: &[UserId]) -> Found {
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let zones = homes.mesh().directory().zones_of(asked).await?;
    asked
        .iter()
        .zip(zones)
        .map(|(user, zone)| {
            let slot = zone.map(|zone| homes.slot(&zone, *user)).transpose()?;
            Ok((*user, slot))
        })
        .collect()
}

fn located(known: Option<Slot>, found: &Found, user: UserId, field: &'static str) -> Result<Slot, Fault> {
    match (known, found) {
        (Some(slot), _) => Ok(slot),
        (None, Ok(found)) => found.get(&user).copied().flatten().ok_or_else(|| error::user_not_found(user, field)),
        (None, Err(fault)) => Err(fault.clone()),
    }
}

/// Items and their places in the batch.
struct Part<T> {
    indexes: Vec<usize>,
    items: Vec<T>,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self { indexes: Vec::new(), items: Vec::new() }
    }
}

impl<T> Part<T> {
    fn push(&mut self, index: usize, item: T) {
        self.indexes.push(index);
        self.items.push(item);
    }
}

/// An item by card, whose home is here.
struct CardItem {
    index: usize,
    payer: Slot,
    new: NewPayment,
    create: CreatePayment,
}

impl CardItem {
    async fn pay(self, homes: &Homes, cards: &Cards, circumstances: &Circumstances) -> (usize, Result<Changed, Fault>) {
        let paid = async {
            let shard = homes.led(&homes.place(self.payer).shard)?;
            // What is asked for goes on; what is not in the books by then may still come to be.
            match timeout_at(circumstances.until + CARD_GRACE, cards.create(shard, &self.new, self.create, circumstances)).await {
                Ok(created) => created,
                Err(_) => Err(late(shard.reference())),
            }
        };
        (self.index, paid.await)
    }
}

#[derive(Default)]
struct Parts {
    here: BTreeMap<Slot, Part<Request>>,
    by_card: Vec<CardItem>,
    elsewhere: BTreeMap<RegionName, Part<CreatePaymentRequest>>,
}

impl Parts {
    fn add(
        &mut self,
        homes: &Homes,
        caller: &Caller,
        found: &Found,
        index: usize,
        item: Item,
        message: CreatePaymentRequest,
    ) -> Result<(), Fault> {
        let located_payer = located(item.payer, found, item.new.payer, "payer_id");
        match &located_payer {
            // Before anything is said of whether there is such a user.
            Err(fault) if fault.code == Code::NotFound => caller.acts_for(item.new.payer, None)?,
            // Where the directory did not answer, nothing is known.
            Err(_) => {}
            Ok(slot) => caller.acts_for(item.new.payer, Some(&homes.place(*slot).shard.zone))?,
        }
        let slot = located_payer?;
        if let Some(region) = &homes.place(slot).elsewhere {
            match self.elsewhere.get_mut(region) {
                Some(part) => part.push(index, message),
                None => self.elsewhere.entry(region.clone()).or_default().push(index, message),
            }
            return Ok(());
        }
        let payee = located(item.payee, found, item.new.payee, "payee_id")?;
        may_pay(homes, caller, item.new.payee, payee)?;
        let payee_shard = (payee != slot).then(|| homes.place(payee).shard.clone());
        if item.new.card().is_some() {
            let create = item.new.create(payee_shard, message.reference);
            self.by_card.push(CardItem { index, payer: slot, new: item.new, create });
        } else {
            self.here.entry(slot).or_default().push(index, item.new.command(payee_shard, message.reference));
        }
        Ok(())
    }
}

type Answers = Result<Vec<Result<Answer, Rejection>>, Fault>;

async fn submit(homes: &Homes, slot: Slot, part: Part<Request>) -> (Vec<usize>, Answers) {
    let answers = async {
        let shard = homes.led(&homes.place(slot).shard)?;
        let wait = Duration::from_millis(SHARD_WAIT_MAX_MS);
        match tokio::time::timeout(wait, shard.submit_all(part.items)).await {
            Ok(answers) => answers.map_err(error::failed),
            Err(_) => Err(late(shard.reference())),
        }
    };
    (part.indexes, answers.await)
}

fn late(shard: &paymesh_types::ShardRef) -> Fault {
    let message = format!("shard {shard} did not answer in {SHARD_WAIT_MAX_MS} ms; GetRequestOutcome says what became of a write");
    Fault::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message)
}

/// Has another region make the payments that are at home there. It may part them again while leaders change; the mesh
/// bounds how often.
async fn forward(
    homes: &Homes,
    call: Option<&Call>,
    region: RegionName,
    part: Part<CreatePaymentRequest>,
) -> (Vec<usize>, Result<Vec<PaymentOutcome>, Fault>) {
    let count = part.items.len();
    let answers = async {
        let channel = homes.mesh().to_region(&region).ok_or_else(|| {
            let message = format!("region {region} leads the shard and is not in region-config");
            Fault::new(Code::FailedPrecondition, "REGION_NOT_FOUND", message)
        })?;
        let mut client = PaymentServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut request = tonic::Request::new(CreatePaymentsRequest { payments: part.items });
        if let Some(call) = call {
            call.carry(&mut request);
        }
        let answer = client.create_payments(request).await.map_err(|status| Fault::from_status(&status))?;
        let outcomes = answer.into_inner().outcomes;
        if outcomes.len() != count {
            let message = format!("region {region} answered {} outcomes for {count} payments", outcomes.len());
            return Err(Fault::new(Code::Internal, "PEER_MALFORMED", message));
        }
        Ok(outcomes)
    };
    (part.indexes, answers.await)
}

struct Outcomes {
    items: Vec<PaymentOutcome>,
    tally: Tally,
}

impl Outcomes {
    fn fail(&mut self, index: usize, fault: Fault) {
        self.tally.failed();
        self.items[index].outcome = Some(Outcome::Error(ItemError::from(fault)));
    }

    fn record(&mut self, index: usize, answer: &Answer) {
        let receipt = answer::receipt(answer);
        self.tally.recorded(receipt.status());
        self.items[index].outcome = Some(Outcome::Receipt(receipt));
    }

    /// As it stands when its acquirer has been waited for.
    fn take_by_card(&mut self, index: usize, changed: Result<Changed, Fault>) {
        match changed.map(|changed| changed.answer().0.unwrap_or_default()) {
            Ok(payment) => {
                let gateway = payment.card.as_ref().map_or("", |card| card.gateway.as_str());
                self.tally.recorded_by_card(payment.status(), gateway);
                let receipt = PaymentReceipt { payment_id: payment.payment_id, status: payment.status, reason: payment.reason };
                self.items[index].outcome = Some(Outcome::Receipt(receipt));
            }
            Err(fault) => self.fail(index, fault),
        }
    }

    fn fail_all(&mut self, indexes: Vec<usize>, fault: &Fault) {
        indexes.into_iter().for_each(|index| self.fail(index, fault.clone()));
    }

    fn take_answers(&mut self, indexes: Vec<usize>, answers: Answers) {
        match answers {
            Ok(answers) => indexes.into_iter().zip(answers).for_each(|(index, answer)| match answer {
                Ok(answer) => self.record(index, &answer),
                Err(rejection) => self.fail(index, error::rejected(rejection)),
            }),
            Err(fault) => self.fail_all(indexes, &fault),
        }
    }

    fn take_outcomes(&mut self, indexes: Vec<usize>, outcomes: Result<Vec<PaymentOutcome>, Fault>) {
        match outcomes {
            Ok(outcomes) => indexes.into_iter().zip(outcomes).for_each(|(index, outcome)| self.items[index] = outcome),
            Err(fault) => self.fail_all(indexes, &fault),
        }
    }
}
