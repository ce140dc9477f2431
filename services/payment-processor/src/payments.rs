//! PaymentService: payments out of wallets, at the payer's home; what only reads, also from a copy.

use std::sync::Arc;

use futures::stream::BoxStream;
use paymesh_access::Caller;
use paymesh_contract::{
    Fault,
    payments::v1::{
        self as payments, CancelMandateRequest, CancelMandateResponse, CapturePaymentRequest, CapturePaymentResponse,
        ConfirmPaymentRequest, ConfirmPaymentResponse, CreatePaymentRequest, CreatePaymentResponse, CreatePaymentsRequest,
        CreatePaymentsResponse, GetPaymentRequest, GetPaymentResponse, GetRequestOutcomeRequest, GetRequestOutcomeResponse,
        ListPaymentsRequest, ListPaymentsResponse, RefundPaymentRequest, RefundPaymentResponse, RefundStatus, ReportFraudRequest,
        ReportFraudResponse, StreamPaymentsRequest, StreamPaymentsResponse, VoidPaymentRequest, VoidPaymentResponse,
        payment_service_server::PaymentService,
    },
    timestamp,
};
use paymesh_ledger::{Body, CardStep, Command, Entry, Request as Wanted};
use paymesh_mesh::{Call, route};
use paymesh_shard::Answer;
use paymesh_types::{PaymentId, RequestId, Sequence, UserId};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    answer, batch,
    cards::{Cards, Changed, Circumstances},
    counts::Tally,
    door, error,
    homes::Homes,
    page,
    reads::Read,
    stream,
    whose::{self, Change},
};

/// The service.
#[derive(Debug)]
pub(crate) struct Payments {
    homes: Arc<Homes>,
    cards: Cards,
}

impl Payments {
    pub(crate) fn new(homes: Arc<Homes>, cards: Cards) -> Self {
        Self { homes, cards }
    }

    async fn create(&self, asked: &Asked, request: CreatePaymentRequest) -> Result<Changed, Fault> {
        let new = door::NewPayment::try_from(&request)?;
        let home = self.homes.slot_of(new.payer, "payer_id").await?;
        let home_shard = &self.homes.place(home).shard;
        let shard = self.homes.led(home_shard)?;
        let payee = self.homes.slot_of(new.payee, "payee_id").await?;
        batch::may_pay(&self.homes, &asked.caller, new.payee, payee)?;
        let payee_shard = (payee != home).then(|| self.homes.place(payee).shard.clone());
        if new.card().is_some() {
            let create = new.create(payee_shard, request.reference);
            return self.cards.create(shard, &new, create, &asked.circumstances).await;
        }
        shard.submit(new.command(payee_shard, request.reference)).await.map(Changed::of).map_err(error::failed)
    }

    /// Has a command about a payment decided at the payment's home, and waits for the acquirer where that is asked for something.
    async fn change(&self, asked: &Asked, payment: &PaymentId, id: RequestId, command: Command) -> Result<Changed, Fault> {
        let shard = self.homes.shard_of_payment(payment)?;
        let change = match command {
            Command::RefundPayment { .. } => Change::Refund,
            Command::ConfirmPayment { .. } => Change::Confirm,
            Command::CancelMandate { .. } => Change::Mandate,
            Command::ReportFraud { .. } => Change::ReportFraud,
            _ => Change::Hold,
        };
        whose::may_change(&asked.caller, shard, payment, change).await?;
        self.cards.submit(shard, Wanted { id: Some(id), command }, Vec::new(), asked.circumstances.until).await
    }
}

#[tonic::async_trait]
impl PaymentService for Payments {
    async fn create_payment(&self, request: Request<CreatePaymentRequest>) -> Result<Response<CreatePaymentResponse>, Status> {
        let mut tally = Tally::start();
        let asked = Asked::of(&request);
        let request = request.into_inner();
        // The last entry of a payment by card is not the one with the caller's words.
        let reference = request.card.is_some().then(|| request.reference.clone());
        let made = self.create(&asked, request).await.map(|made| {
            let (payment, position) = made.answer();
            let payment = payment.map(|payment| payments::Payment { reference: reference.unwrap_or(payment.reference), ..payment });
            CreatePaymentResponse { payment, position }
        });
        match made.as_ref().ok().and_then(|made| made.payment.as_ref()) {
            Some(payment) => match &payment.card {
                Some(card) => tally.recorded_by_card(payment.status(), &card.gateway),
                None => tally.recorded(payment.status()),
            },
            None => tally.failed(),
        }
        tally.publish();
        Ok(Response::new(made?))
    }

    async fn create_payments(&self, request: Request<CreatePaymentsRequest>) -> Result<Response<CreatePaymentsResponse>, Status> {
        let sender = batch::Sender::of(&request);
        let payments = request.into_inner().payments;
        batch::check_size(&payments)?;
        let outcomes = batch::create(&self.homes, &self.cards, &sender, payments).await;
        Ok(Response::new(CreatePaymentsResponse { outcomes }))
    }

    type StreamPaymentsStream = BoxStream<'static, Result<StreamPaymentsResponse, Status>>;

    async fn stream_payments(
        &self,
        request: Request<Streaming<StreamPaymentsRequest>>,
    ) -> Result<Response<Self::StreamPaymentsStream>, Status> {
        let sender = batch::Sender::of(&request);
        Ok(Response::new(stream::answers(Arc::clone(&self.homes), self.cards.clone(), sender, request.into_inner())))
    }

    async fn confirm_payment(&self, request: Request<ConfirmPaymentRequest>) -> Result<Response<ConfirmPaymentResponse>, Status> {
        let (asked, request) = (Asked::of(&request), request.into_inner());
        let (id, payment) = (door::request_id(&request.request_id)?, door::payment_id(&request.payment_id)?);
        let changed = self.change(&asked, &payment, id, Command::ConfirmPayment { payment: payment.clone() }).await?;
        let (payment, position) = changed.answer_to(&asked.caller);
        Ok(Response::new(ConfirmPaymentResponse { payment, position }))
    }

    async fn capture_payment(&self, request: Request<CapturePaymentRequest>) -> Result<Response<CapturePaymentResponse>, Status> {
        let (asked, request) = (Asked::of(&request), request.into_inner());
        let (id, payment) = (door::request_id(&request.request_id)?, door::payment_id(&request.payment_id)?);
        let amount = door::part(request.amount_minor_units)?;
        let changed = self.change(&asked, &payment, id, Command::CapturePayment { payment: payment.clone(), amount }).await?;
        let (payment, position) = changed.answer_to(&asked.caller);
        Ok(Response::new(CapturePaymentResponse { payment, position }))
    }

    async fn void_payment(&self, request: Request<VoidPaymentRequest>) -> Result<Response<VoidPaymentResponse>, Status> {
        let (asked, request) = (Asked::of(&request), request.into_inner());
        let (id, payment) = (door::request_id(&request.request_id)?, door::payment_id(&request.payment_id)?);
        let changed = self.change(&asked, &payment, id, Command::VoidPayment { payment: payment.clone() }).await?;
        let (payment, position) = changed.answer_to(&asked.caller);
        Ok(Response::new(VoidPaymentResponse { payment, position }))
    }

    async fn cancel_mandate(&self, request: Request<CancelMandateRequest>) -> Result<Response<CancelMandateResponse>, Status> {
        let (asked, request) = (Asked::of(&request), request.into_inner());
        let (id, payment) = (door::request_id(&request.request_id)?, door::payment_id(&request.payment_id)?);
        let changed = self.change(&asked, &payment, id, Command::CancelMandate { payment: payment.clone() }).await?;
        let (payment, position) = changed.answer_to(&asked.caller);
        Ok(Response::new(CancelMandateResponse { payment, position }))
    }

    async fn refund_payment(&self, request: Request<RefundPaymentRequest>) -> Result<Response<RefundPaymentResponse>, Status> {
        let (asked, request) = (Asked::of(&request), request.into_inner());
        let (id, payment) = (door::request_id(&request.request_id)?, door::payment_id(&request.payment_id)?);
        let amount = door::part(request.amount_minor_units)?;
        let changed = self.change(&asked, &payment, id, Command::RefundPayment { payment: payment.clone(), amount }).await?;
        let (status, amount_minor_units) = refunded(&changed);
        let (payment, position) = changed.answer_to(&asked.caller);
        Ok(Response::new(RefundPaymentResponse { status: status.into(), amount_minor_units, payment, position }))
    }

    async fn report_fraud(&self, request: Request<ReportFraudRequest>) -> Result<Response<ReportFraudResponse>, Status> {
        let (asked, request) = (Asked::of(&request), request.into_inner());
        let (id, payment) = (door::request_id(&request.request_id)?, door::payment_id(&request.payment_id)?);
        let changed = self.change(&asked, &payment, id, Command::ReportFraud { payment: payment.clone() }).await?;
        let (payment, position) = changed.answer_to(&asked.caller);
        Ok(Response::new(ReportFraudResponse { payment, position }))
    }

    async fn get_payment(&self, request: Request<GetPaymentRequest>) -> Result<Response<GetPaymentResponse>, Status> {
        let read = Read::new(&request, request.get_ref().read.as_ref())?;
        let id = door::payment_id(&request.get_ref().payment_id)?;
        route::shard(self.homes.topology(), &route::Plan::Payment(id.clone()), None)?;
        let seen = read.view(&self.homes, id.shard(), None).await?;
        let found = seen.view.payment(&id).await.map_err(error::failed)?;
        whose::may_know(&whose::caller(&request), found.as_ref())?;
        let missing = || seen.missing(Fault::not_found("PAYMENT_NOT_FOUND", format!("there is no payment {id}")));
        let payment = Some(answer::for_caller(answer::seen(found.ok_or_else(missing)?, id.shard()), &whose::caller(&request)));
        Ok(Response::new(GetPaymentResponse { payment, position: seen.position(), source: seen.source() }))
    }

    async fn list_payments(&self, request: Request<ListPaymentsRequest>) -> Result<Response<ListPaymentsResponse>, Status> {
        let read = Read::new(&request, request.get_ref().read.as_ref())?;
        let request = request.get_ref();
        let payer = door::user(request.payer_id, "payer_id")?;
        let (list, limit) = (page::List::Payments(payer), page::size(request.page_size)?);
        let before = list.place(&request.page_token)?.map(Sequence);
        let home = self.homes.home_of(payer, "payer_id").await?;
        let seen = read.view(&self.homes, home, before).await?;
        let page = seen.view.payments(payer, before, limit).await.map_err(error::failed)?.ok_or_else(page::no_such_place)?;
        Ok(Response::new(ListPaymentsResponse {
            payments: page.items.into_iter().map(|view| answer::seen(view, home)).collect(),
            next_page_token: page.next.map(|Sequence(place)| list.token(place)).unwrap_or_default(),
            position: seen.position(),
            source: seen.source(),
        }))
    }

    async fn get_request_outcome(&self, request: Request<GetRequestOutcomeRequest>) -> Result<Response<GetRequestOutcomeResponse>, Status> {
        let caller = whose::caller(&request);
        let request = request.get_ref();
        let user = door::user(request.user_id, "user_id")?;
        let id = door::request_id(&request.request_id)?;
        let shard = self.homes.shard_of(user, "user_id").await?;
        let recorded = shard.outcome(id).await.map_err(error::failed)?;
        // Another user's write is not this user's to see, even where both live on one shard.
        let answer = recorded.filter(|answer| is_of(answer, user)).ok_or_else(|| {
            let message = format!(
                "nothing is recorded of request {id} for user {user} at the home of that one; it may be on its way until its deadline. What was \
                 done to a payment is recorded at its payer's: ask for the payment"
            );
            Fault::not_found("REQUEST_NOT_FOUND", message)
        })?;
        Ok(Response::new(GetRequestOutcomeResponse {
            position: answer::position(&answer.position),
            recorded_at: Some(timestamp(answer.entry.at)),
            kind: answer.entry.kind().to_owned(),
            payment: answer::written(&answer).map(|payment| answer::for_caller(payment, &caller)),
        }))
    }
}

/// Who asks for something, and what comes with it.
struct Asked {
    caller: Caller,
    circumstances: Circumstances,
}

impl Asked {
    fn of<T>(request: &Request<T>) -> Self {
        Self { caller: whose::caller(request), circumstances: Circumstances::of(Call::of(request)) }
    }
}

/// How far a refund is, and what it sends back in minor units.
fn refunded(changed: &Changed) -> (RefundStatus, i64) {
    match &changed.asked.entry.body {
        Body::RefundCompleted { amount, .. } => (RefundStatus::Completed, *amount),
        Body::RefundRequested { amount, .. } => (RefundStatus::Pending, *amount),
        Body::Card { step: CardStep::RefundAsked { amount, .. }, .. } => {
            (if changed.is_settled() { RefundStatus::Completed } else { RefundStatus::Pending }, *amount)
        }
        other => unreachable!("a refund's command leads to a refund's entry, not to {other:?}"),
    }
}

/// Whether a write was this user's: made at that one's home, or done to a payment by its payee, who lives there too.
fn is_of(answer: &Answer, of: UserId) -> bool {
    let entry: &Entry = &answer.entry;
    match &entry.body {
        Body::UserEnrolled { user, .. }
        | Body::UserClaimed { user, .. }
        | Body::AccountOpened { user, .. }
        | Body::AccountClosed { user, .. }
        | Body::MethodAdded { user, .. }
        | Body::MethodRemoved { user, .. }
        | Body::Deposited { user, .. }
        | Body::Withdrawn { user, .. } => *user == of,
        Body::PaymentCreated(new) => new.payer == of,
        _ => entry.payment(&answer.position).is_some_and(|payment| payment.payer == of || payment.payee == of),
    }
}
