//! The peers that a node is compared with. Each is a server process: a hidden subcommand of this program.
//!
//! Those that take payments serve the same PaymentService as a node through [`Peer`], and differ in what stands behind it.

pub(crate) mod echo;
pub(crate) mod naive;
pub(crate) mod postgres;

use std::{future::Future, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::proto::{
    common::ItemError,
    payments::{
        CapturePaymentRequest, CapturePaymentResponse, ConfirmPaymentRequest, ConfirmPaymentResponse, CreatePaymentRequest,
        CreatePaymentResponse, CreatePaymentsRequest, CreatePaymentsResponse, GetPaymentRequest, GetPaymentResponse,
        GetRequestOutcomeRequest, GetRequestOutcomeResponse, ListPaymentsRequest, ListPaymentsResponse, PaymentOutcome, PaymentReceipt,
        RefundPaymentRequest, RefundPaymentResponse, ReportFraudRequest, ReportFraudResponse, StreamPaymentsRequest,
        StreamPaymentsResponse, VoidPaymentRequest, VoidPaymentResponse,
        payment_outcome::Outcome,
        payment_service_server::{PaymentService, PaymentServiceServer},
    },
};

/// Answered batches that wait for the caller to read them.
const ANSWERS_MAX: usize = 16;

/// What stands behind a peer's service.
pub(crate) trait Books: Send + Sync + 'static {
    /// Makes one payment, durably as far as this peer is durable.
    fn pay(&self, request: CreatePaymentRequest) -> impl Future<Output = Result<CreatePaymentResponse, Status>> + Send;
}

/// Serves `books` at `listen` until standard input ends, which is when the process that started this one has.
pub(crate) async fn serve(books: impl Books, listen: SocketAddr) -> anyhow::Result<()> {
    let service = PaymentServiceServer::new(Peer(Arc::new(books)));
    let (sender, orphaned) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(sender);
    });
    tokio::select! {
        ended = Server::builder().add_service(service).serve(listen) => ended.with_context(|| format!("cannot serve at {listen}")),
        _ = orphaned => Ok(()),
    }
}

/// PaymentService over any books: single payments, and batches as a loop of single payments.
#[derive(Debug)]
struct Peer<B>(Arc<B>);

async fn pay_each(books: &impl Books, payments: Vec<CreatePaymentRequest>) -> Vec<PaymentOutcome> {
    let mut outcomes = Vec::with_capacity(payments.len());
    for payment in payments {
        let outcome = match books.pay(payment).await {
            Ok(CreatePaymentResponse { payment: Some(payment), .. }) => {
                Outcome::Receipt(PaymentReceipt { payment_id: payment.payment_id, status: payment.status, reason: payment.reason })
            }
            Ok(CreatePaymentResponse { payment: None, .. }) => Outcome::Error(ItemError::default()),
            Err(status) => {
                Outcome::Error(ItemError { code: status.code().into(), message: status.message().to_owned(), ..ItemError::default() })
            }
        };
        outcomes.push(PaymentOutcome { outcome: Some(outcome) });
    }
    outcomes
}

fn not_served<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this peer serves payments only"))
}

#[tonic::async_trait]
impl<B: Books> PaymentService for Peer<B> {
    type StreamPaymentsStream = ReceiverStream<Result<StreamPaymentsResponse, Status>>;

    async fn create_payment(&self, request: Request<CreatePaymentRequest>) -> Result<Response<CreatePaymentResponse>, Status> {
        self.0.pay(request.into_inner()).await.map(Response::new)
    }

    async fn create_payments(&self, request: Request<CreatePaymentsRequest>) -> Result<Response<CreatePaymentsResponse>, Status> {
        let outcomes = pay_each(self.0.as_ref(), request.into_inner().payments).await;
        Ok(Response::new(CreatePaymentsResponse { outcomes }))
    }

    async fn stream_payments(
        &self,
        request: Request<Streaming<StreamPaymentsRequest>>,
    ) -> Result<Response<Self::StreamPaymentsStream>, Status> {
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        let (books, mut requests) = (Arc::clone(&self.0), request.into_inner());
        // Ends with the call: when the caller is gone, the next read or send fails.
        tokio::spawn(async move {
            loop {
                let answer = match requests.message().await {
                    Ok(Some(StreamPaymentsRequest { batch_id, payments })) => {
                        Ok(StreamPaymentsResponse { batch_id, outcomes: pay_each(books.as_ref(), payments).await })
                    }
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                let failed = answer.is_err();
                if sender.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn confirm_payment(&self, _: Request<ConfirmPaymentRequest>) -> Result<Response<ConfirmPaymentResponse>, Status> {
        not_served()
    }

    async fn capture_payment(&self, _: Request<CapturePaymentRequest>) -> Result<Response<CapturePaymentResponse>, Status> {
        not_served()
    }

    async fn void_payment(&self, _: Request<VoidPaymentRequest>) -> Result<Response<VoidPaymentResponse>, Status> {
        not_served()
    }

    async fn refund_payment(&self, _: Request<RefundPaymentRequest>) -> Result<Response<RefundPaymentResponse>, Status> {
        not_served()
    }

    async fn report_fraud(&self, _: Request<ReportFraudRequest>) -> Result<Response<ReportFraudResponse>, Status> {
        not_served()
    }

    async fn get_payment(&self, _: Request<GetPaymentRequest>) -> Result<Response<GetPaymentResponse>, Status> {
        not_served()
    }

    async fn list_payments(&self, _: Request<ListPaymentsRequest>) -> Result<Response<ListPaymentsResponse>, Status> {
        not_served()
    }

    async fn get_request_outcome(&self, _: Request<GetRequestOutcomeRequest>) -> Result<Response<GetRequestOutcomeResponse>, Status> {
        not_served()
    }
}
