//! The contract's calls, as the client makes them.

use paymesh_contract::{
    common::v1::{Position, ReadLevel, ReadOptions},
    directory::v1::{EnrollUserRequest, EnrollUserResponse, directory_service_client::DirectoryServiceClient},
    payments::v1::{
        CancelMandateRequest, CancelMandateResponse, CapturePaymentRequest, CapturePaymentResponse, CreatePaymentRequest,
        CreatePaymentResponse, GetPaymentRequest, GetPaymentResponse, GetRequestOutcomeRequest, GetRequestOutcomeResponse,
        ListPaymentsRequest, ListPaymentsResponse, RefundPaymentRequest, RefundPaymentResponse, ReportFraudRequest, ReportFraudResponse,
        VoidPaymentRequest, VoidPaymentResponse, payment_service_client::PaymentServiceClient,
    },
    vault::v1::{
        DeleteTokenRequest, DeleteTokenResponse, DescribeTokenRequest, DescribeTokenResponse, EraseUserRequest, EraseUserResponse,
        GetVaultKeyRequest, GetVaultKeyResponse, TokenizeRequest, TokenizeResponse, vault_service_client::VaultServiceClient,
    },
    wallet::v1::{
        AddPaymentMethodRequest, AddPaymentMethodResponse, CloseAccountRequest, CloseAccountResponse, DepositRequest, DepositResponse,
        GetBalanceRequest, GetBalanceResponse, GetStatementRequest, GetStatementResponse, ListPaymentMethodsRequest,
        ListPaymentMethodsResponse, OpenAccountRequest, OpenAccountResponse, RemovePaymentMethodRequest, RemovePaymentMethodResponse,
        WithdrawRequest, WithdrawResponse, payment_method_service_client::PaymentMethodServiceClient,
        wallet_service_client::WalletServiceClient,
    },
};
use tonic::{Request, Response, Status, transport::Channel};
use uuid::Uuid;

/// A request of the contract that [`Client::call`](crate::Client::call) makes: one that moves money, is about cards, or reads.
pub trait Call: Clone + Send + Sync + sealed::Sealed {
    /// What it is answered with.
    type Answer: Send;

    /// The request's own field: a write's id.
    #[doc(hidden)]
    fn request_id(&mut self) -> Option<&mut String> {
        None
    }

    /// The request's own field: how old the answer may be.
    #[doc(hidden)]
    fn read(&mut self) -> Option<&mut Option<ReadOptions>> {
        None
    }

    #[doc(hidden)]
    fn position(answer: &Self::Answer) -> Option<&Position>;

    #[doc(hidden)]
    fn send(request: Request<Self>, channel: Channel) -> impl Future<Output = Result<Response<Self::Answer>, Status>> + Send
    where
        Self: Sized;
}

mod sealed {
    pub trait Sealed {}
}

/// Gives a write an id, where it has none, so that every try has the same: version 7, which homes need not look up.
pub(crate) fn name<C: Call>(call: &mut C) -> Option<String> {
    let id = call.request_id()?;
    if id.is_empty() {
        *id = Uuid::now_v7().to_string();
    }
    Some(id.clone())
}

/// Sends a read home, where no answer is too old.
pub(crate) fn go_home<C: Call>(call: &mut C) {
    if let Some(Some(read)) = call.read() {
        read.level = ReadLevel::Home.into();
    }
}

macro_rules! calls {
    ($($client:ident { $($method:ident($request:ident) -> $answer:ident [$($field:ident)?] $($nowhere:ident)?),+ $(,)? })+) => {$($(
        impl sealed::Sealed for $request {}

        impl Call for $request {
            type Answer = $answer;

            $(calls!(@field $field);)?

            calls!(@position $answer $($nowhere)?);

            async fn send(request: Request<Self>, channel: Channel) -> Result<Response<$answer>, Status> {
                $client::new(channel).$method(request).await
            }
        }
    )+)+};
    (@position $answer:ident) => {
        fn position(answer: &$answer) -> Option<&Position> {
            answer.position.as_ref()
        }
    };
    (@position $answer:ident nowhere) => {
        fn position(_: &$answer) -> Option<&Position> {
            None
        }
    };
    (@field request_id) => {
        fn request_id(&mut self) -> Option<&mut String> {
            Some(&mut self.request_id)
        }
    };
    (@field read) => {
        fn read(&mut self) -> Option<&mut Option<ReadOptions>> {
            Some(&mut self.read)
        }
    };
}

calls! {
    DirectoryServiceClient {
        enroll_user(EnrollUserRequest) -> EnrollUserResponse [request_id],
    }
    WalletServiceClient {
        open_account(OpenAccountRequest) -> OpenAccountResponse [request_id],
        close_account(CloseAccountRequest) -> CloseAccountResponse [request_id],
        deposit(DepositRequest) -> DepositResponse [request_id],
        withdraw(WithdrawRequest) -> WithdrawResponse [request_id],
        get_balance(GetBalanceRequest) -> GetBalanceResponse [read],
        get_statement(GetStatementRequest) -> GetStatementResponse [read],
    }
    PaymentMethodServiceClient {
        add_payment_method(AddPaymentMethodRequest) -> AddPaymentMethodResponse [request_id],
        list_payment_methods(ListPaymentMethodsRequest) -> ListPaymentMethodsResponse [read],
        remove_payment_method(RemovePaymentMethodRequest) -> RemovePaymentMethodResponse [request_id],
    }
    PaymentServiceClient {
        create_payment(CreatePaymentRequest) -> CreatePaymentResponse [request_id],
        capture_payment(CapturePaymentRequest) -> CapturePaymentResponse [request_id],
        void_payment(VoidPaymentRequest) -> VoidPaymentResponse [request_id],
        cancel_mandate(CancelMandateRequest) -> CancelMandateResponse [request_id],
        refund_payment(RefundPaymentRequest) -> RefundPaymentResponse [request_id],
        report_fraud(ReportFraudRequest) -> ReportFraudResponse [request_id],
        get_payment(GetPaymentRequest) -> GetPaymentResponse [read],
        list_payments(ListPaymentsRequest) -> ListPaymentsResponse [read],
        // It reads, and names the id of another: nothing is to be filled in.
        get_request_outcome(GetRequestOutcomeRequest) -> GetRequestOutcomeResponse [],
    }
    // A vault is no journal: what is read there is what there is.
    VaultServiceClient {
        get_vault_key(GetVaultKeyRequest) -> GetVaultKeyResponse [] nowhere,
        tokenize(TokenizeRequest) -> TokenizeResponse [request_id] nowhere,
        describe_token(DescribeTokenRequest) -> DescribeTokenResponse [] nowhere,
        // At the user's home.
        delete_token(DeleteTokenRequest) -> DeleteTokenResponse [request_id],
        erase_user(EraseUserRequest) -> EraseUserResponse [request_id],
    }
}
