//! PaymentMethodService: the cards that users keep, at the user's home; what only reads, also from a copy.
//!
//! Which cards a user keeps is the ledger's to say, and what they look like the vault's (`details`). A card is asked about before it is kept, and a
//! vault that has deleted one tells the home; the two take turns for a user, so that none is kept that was deleted meanwhile.

mod details;
mod following;

use std::{convert::Infallible, sync::Arc};

use futures::{StreamExt as _, stream};
use paymesh_cache::Cache;
use paymesh_contract::{
    Fault, timestamp,
    wallet::v1::{
        AddPaymentMethodRequest, AddPaymentMethodResponse, ForgetDeletedCardsRequest, ForgetDeletedCardsResponse,
        ListPaymentMethodsRequest, ListPaymentMethodsResponse, PaymentMethod as Message, RemovePaymentMethodRequest,
        RemovePaymentMethodResponse, payment_method_service_server::PaymentMethodService,
    },
};
use paymesh_ledger::{Command, Rejection, Request as Wanted, differing_field};
use paymesh_mesh::Call;
use paymesh_shard::{Answer, Error, Shard};
use paymesh_types::{Position, UserId, VaultToken};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status};

use self::details::{Details, Shown};
use crate::{
    answer,
    cards::{self, vaults::Vaults},
    door, error,
    homes::Homes,
    reads::Read,
};

/// Says in `/metrics` what this module counts.
pub(crate) fn describe_metrics() {
    details::describe_metrics();
}

/// Cards of a user that the vault is asked about at once.
const ASKED_AT_ONCE: usize = 8;

/// Users are told apart by so many places: what is done for one may wait for what is done for another, and seldom does.
const PLACES: usize = 256;

/// The user's place among [`PLACES`].
fn place(user: UserId) -> usize {
    // Fibonacci hashing: the users of a shard are all of the same rest.
    usize::try_from(user.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56).unwrap_or(0) % PLACES
}

/// The service. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Methods {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    homes: Arc<Homes>,
    vaults: Vaults,
    details: Details,
    /// Held for a user from when the vault is asked about a card until what that leads to is in the books.
    turns: Vec<Mutex<()>>,
}

impl Methods {
    pub(crate) fn new(homes: Arc<Homes>, cache: Arc<dyn Cache>) -> Self {
        let vaults = Vaults::new(homes.mesh().clone());
        let details = Details::new(&homes, cache, vaults.clone());
        let turns = (0..PLACES).map(|_| Mutex::new(())).collect();
        Self { inner: Arc::new(Inner { homes, vaults, details, turns }) }
    }

    /// Lets go of what is cached of cards that are removed, for as long as it is polled.
    pub(crate) async fn follow(&self) -> Infallible {
        following::all(&self.inner.homes, &self.inner.details).await
    }
}

impl Inner {
    /// The user's turn.
    async fn turn(&self, user: UserId, until: Instant) -> Result<MutexGuard<'_, ()>, Fault> {
        timeout_at(until, self.turns[place(user)].lock()).await.map_err(|_| error::busy(user))
    }

    async fn add(&self, shard: &Shard, user: UserId, request: Wanted, token: &VaultToken, until: Instant) -> Result<Answer, Fault> {
        let _turn = self.turn(user, until).await?;
        let described = if token.zone() == &shard.reference().zone {
            self.vaults.describe(token, user, until).await.map(drop)
        } else {
            Err(cards::vaults::not_found(token, user))
        };
        let Err(fault) = described else { return shard.submit(request).await.map_err(error::failed) };
        // The same request again is answered whatever has become of the card and its vault since.
        match request.id.map(|id| shard.outcome(id)) {
            Some(recorded) => match recorded.await {
                Ok(Some(recorded)) => match differing_field(&recorded.entry, &request) {
                    None => Ok(recorded),
                    Some(field) => Err(error::rejected(Rejection::RequestIdReused { field })),
                },
                _ => Err(fault),
            },
            None => Err(fault),
        }
    }

    /// Removes what the vault has no more: the card, or any that the user keeps. Says where that is durable.
    async fn forget(&self, shard: &Shard, user: UserId, token: Option<&VaultToken>, until: Instant) -> Result<Position, Fault> {
        let _turn = self.turn(user, until).await?;
        let found = shard.methods(user).await.map_err(error::failed)?;
        // An id that was claimed and never enrolled keeps none.
        let here = || Position { shard: shard.reference().clone(), epoch: shard.epoch(), sequence: shard.tail().head() };
        let (methods, mut position) = found.unwrap_or_else(|| (Vec::new(), here()));
        let asked = methods.into_iter().map(|method| method.token).filter(|kept| token.is_none_or(|token| token == kept));
        let described = stream::iter(asked).map(|token| async move {
            let described = self.vaults.describe(&token, user, until).await.map(drop);
            (token, described)
        });
        let mut described = described.buffered(ASKED_AT_ONCE);
        while let Some((token, described)) = described.next().await {
            match described {
                Ok(()) => continue,
                Err(fault) if fault.reason == cards::vaults::TOKEN_NOT_FOUND => {}
                Err(fault) => return Err(fault),
            }
            match shard.submit(Wanted { id: None, command: Command::RemoveMethod { user, token } }).await {
                Ok(answer) => position = answer.position,
                // By the user, meanwhile.
                Err(Error::Rejected(Rejection::MethodNotFound { .. })) => position = here(),
                Err(error) => return Err(error::failed(error)),
            }
        }
        Ok(position)
    }
}

#[tonic::async_trait]
impl PaymentMethodService for Methods {
    async fn add_payment_method(&self, request: Request<AddPaymentMethodRequest>) -> Result<Response<AddPaymentMethodResponse>, Status> {
        let (id, user) = (door::request_id(&request.get_ref().request_id)?, door::user(request.get_ref().user_id, "user_id")?);
        let token = about_card(&request, &request.get_ref().vault_token)?;
        let shard = self.inner.homes.shard_of(user, "user_id").await?.clone();
        let until = cards::until(Call::of(&request).and_then(Call::deadline));
        let inner = Arc::clone(&self.inner);
        // In a task of its own, so that the user's turn is not over before the command is, whoever goes away.
        let adding = tokio::spawn(async move {
            let request = Wanted { id: Some(id), command: Command::AddMethod { user, token: token.clone() } };
            inner.add(&shard, user, request, &token, until).await
        });
        let answer = adding.await.map_err(|died| error::died(&died))??;
        Ok(Response::new(AddPaymentMethodResponse { position: answer::position(&answer.position) }))
    }

    async fn list_payment_methods(
        &self,
        request: Request<ListPaymentMethodsRequest>,
    ) -> Result<Response<ListPaymentMethodsResponse>, Status> {
        let read = Read::new(&request, request.get_ref().read.as_ref())?;
        let user = door::user(request.get_ref().user_id, "user_id")?;
        let Inner { homes, details, .. } = &*self.inner;
        let home = homes.home_of(user, "user_id").await?;
        let begun = details.begin(user);
        let seen = read.view(homes, home, None).await?;
        let found = seen.view.methods(user).await.map_err(error::failed)?;
        let found = found.ok_or_else(|| seen.missing(error::user_not_found(user, "user_id")))?;
        let shown = details.of(begun, seen.view.position(), found, read.until()).await;
        let (mut methods, mut cards_missing) = (Vec::with_capacity(shown.len()), false);
        for (method, shown) in shown {
            let card = match shown {
                Shown::Card(card) => Some(card),
                // Deleted, and the home is not told yet.
                Shown::Gone => continue,
                Shown::Unknown => None,
            };
            cards_missing |= card.is_none();
            methods.push(Message { vault_token: method.token.to_string(), added_at: Some(timestamp(method.added_at)), card });
        }
        Ok(Response::new(ListPaymentMethodsResponse { methods, cards_missing, position: seen.position(), source: seen.source() }))
    }

    async fn remove_payment_method(
        &self,
        request: Request<RemovePaymentMethodRequest>,
    ) -> Result<Response<RemovePaymentMethodResponse>, Status> {
        let (id, user) = (door::request_id(&request.get_ref().request_id)?, door::user(request.get_ref().user_id, "user_id")?);
        let token = about_card(&request, &request.get_ref().vault_token)?;
        let shard = self.inner.homes.shard_of(user, "user_id").await?;
        let wanted = Wanted { id: Some(id), command: Command::RemoveMethod { user, token } };
        let answer = shard.submit(wanted).await.map_err(error::failed)?;
        Ok(Response::new(RemovePaymentMethodResponse { position: answer::position(&answer.position) }))
    }

    async fn forget_deleted_cards(
        &self,
        request: Request<ForgetDeletedCardsRequest>,
    ) -> Result<Response<ForgetDeletedCardsResponse>, Status> {
        let user = door::user(request.get_ref().user_id, "user_id")?;
        let token = match request.get_ref().vault_token.as_str() {
            "" => None,
            token => Some(about_card(&request, token)?),
        };
        let shard = self.inner.homes.shard_of(user, "user_id").await?;
        let until = cards::until(Call::of(&request).and_then(Call::deadline));
        let position = self.inner.forget(shard, user, token.as_ref(), until).await?;
        Ok(Response::new(ForgetDeletedCardsResponse { position: answer::position(&position) }))
    }
}

/// The token that a request names, which the record of the call then has too.
fn about_card<T>(request: &Request<T>, token: &str) -> Result<VaultToken, Fault> {
    let token = door::token(token)?;
    if let Some(call) = Call::of(request) {
        call.is_about_card(&token);
    }
    Ok(token)
}
