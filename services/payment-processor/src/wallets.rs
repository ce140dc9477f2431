//! WalletService: accounts, money in from outside and out to it, balances and statements, at the user's home; what only reads,
//! also from a copy.

use std::sync::Arc;

use paymesh_contract::{
    Fault,
    wallet::v1::{
        CloseAccountRequest, CloseAccountResponse, DepositRequest, DepositResponse, GetBalanceRequest, GetBalanceResponse,
        GetStatementRequest, GetStatementResponse, OpenAccountRequest, OpenAccountResponse, WithdrawRequest, WithdrawResponse,
        WithdrawalStatus, wallet_service_server::WalletService,
    },
};
use paymesh_ledger::{Body, Command, LineId, Reason, Request as Wanted};
use paymesh_shard::Answer;
use paymesh_types::{RequestId, UserId};
use tonic::{Request, Response, Status};

use crate::{answer, door, error, homes::Homes, page, reads::Read};

/// The service.
#[derive(Debug)]
pub(crate) struct Wallets {
    homes: Arc<Homes>,
}

impl Wallets {
    pub(crate) fn new(homes: Arc<Homes>) -> Self {
        Self { homes }
    }

    /// Has a command about a user's accounts decided at the user's home.
    async fn change(&self, user: UserId, id: RequestId, command: Command) -> Result<Answer, Fault> {
        let shard = self.homes.shard_of(user, "user_id").await?;
        shard.submit(Wanted { id: Some(id), command }).await.map_err(error::failed)
    }
}

#[tonic::async_trait]
impl WalletService for Wallets {
    async fn open_account(&self, request: Request<OpenAccountRequest>) -> Result<Response<OpenAccountResponse>, Status> {
        let request = request.get_ref();
        let (id, user) = (door::request_id(&request.request_id)?, door::user(request.user_id, "user_id")?);
        let currency = door::currency(&request.currency_code)?;
        let answer = self.change(user, id, Command::OpenAccount { user, currency }).await?;
        Ok(Response::new(OpenAccountResponse { position: answer::position(&answer.position) }))
    }

    async fn close_account(&self, request: Request<CloseAccountRequest>) -> Result<Response<CloseAccountResponse>, Status> {
        let request = request.get_ref();
        let (id, user) = (door::request_id(&request.request_id)?, door::user(request.user_id, "user_id")?);
        let currency = door::currency(&request.currency_code)?;
        let answer = self.change(user, id, Command::CloseAccount { user, currency }).await?;
        Ok(Response::new(CloseAccountResponse { position: answer::position(&answer.position) }))
    }

    async fn deposit(&self, request: Request<DepositRequest>) -> Result<Response<DepositResponse>, Status> {
        let request = request.into_inner();
        let (id, user) = (door::request_id(&request.request_id)?, door::user(request.user_id, "user_id")?);
        let money = door::amount(request.amount.as_ref())?;
        door::reference(&request.reference)?;
        let answer = self.change(user, id, Command::Deposit { user, money, reference: request.reference }).await?;
        Ok(Response::new(DepositResponse {
            balance: answer::balance_after(&answer.entry, user, money.currency()),
            position: answer::position(&answer.position),
        }))
    }

    async fn withdraw(&self, request: Request<WithdrawRequest>) -> Result<Response<WithdrawResponse>, Status> {
        let request = request.into_inner();
        let (id, user) = (door::request_id(&request.request_id)?, door::user(request.user_id, "user_id")?);
        let money = door::amount(request.amount.as_ref())?;
        door::reference(&request.reference)?;
        let answer = self.change(user, id, Command::Withdraw { user, money, reference: request.reference }).await?;
        let declined = match &answer.entry.body {
            Body::Withdrawn { declined, .. } => *declined,
            other => unreachable!("a withdrawal's command leads to a withdrawal's entry, not to {other:?}"),
        };
        let status = if declined.is_some() { WithdrawalStatus::Declined } else { WithdrawalStatus::Booked };
        Ok(Response::new(WithdrawResponse {
            status: status.into(),
            decline_reason: declined.map_or("", Reason::as_str).to_owned(),
            balance: answer::balance_after(&answer.entry, user, money.currency()),
            position: answer::position(&answer.position),
        }))
    }

    async fn get_balance(&self, request: Request<GetBalanceRequest>) -> Result<Response<GetBalanceResponse>, Status> {
        let read = Read::new(&request, request.get_ref().read.as_ref())?;
        let user = door::user(request.get_ref().user_id, "user_id")?;
        let home = self.homes.home_of(user, "user_id").await?;
        let seen = read.view(&self.homes, home, None).await?;
        // An id that was claimed and never enrolled is not a user yet.
        let found = seen.view.wallets(user).await.map_err(error::failed)?;
        let wallets = found.ok_or_else(|| seen.missing(error::user_not_found(user, "user_id")))?;
        let mut balances: Vec<_> = wallets.iter().map(|(currency, wallet)| answer::balance(*currency, wallet)).collect();
        balances.sort_unstable_by(|one, other| one.currency_code.cmp(&other.currency_code));
        Ok(Response::new(GetBalanceResponse { balances, position: seen.position(), source: seen.source() }))
    }

    async fn get_statement(&self, request: Request<GetStatementRequest>) -> Result<Response<GetStatementResponse>, Status> {
        let read = Read::new(&request, request.get_ref().read.as_ref())?;
        let request = request.get_ref();
        let (user, currency) = (door::user(request.user_id, "user_id")?, door::currency(&request.currency_code)?);
        let (list, limit) = (page::List::Statement(user, currency), page::size(request.page_size)?);
        let from = list.place(&request.page_token)?.map(LineId);
        let home = self.homes.home_of(user, "user_id").await?;
        let seen = read.view(&self.homes, home, from.map(LineId::sequence)).await?;
        let found = seen.view.statement(user, currency, from, limit).await.map_err(error::failed)?;
        let no_account = || Fault::not_found("ACCOUNT_NOT_FOUND", format!("user {user} has no account in {currency}"));
        let page = found.ok_or_else(|| seen.missing(no_account()))?;
        Ok(Response::new(GetStatementResponse {
            lines: page.items.into_iter().map(answer::line).collect(),
            next_page_token: page.next.map(|LineId(place)| list.token(place)).unwrap_or_default(),
            position: seen.position(),
            source: seen.source(),
        }))
    }
}
