//! Users' homes, which keep cards as payment methods: they are told of cards that are deleted, before whoever deleted them is.
//!
//! A home believes nobody: it asks the vault about each card. So what it is told is no more than where to look.

use std::time::Duration;

use paymesh_contract::{
    Fault,
    common::v1::Position,
    wallet::v1::{ForgetDeletedCardsRequest, payment_method_service_client::PaymentMethodServiceClient},
};
use paymesh_mesh::{Call, Mesh};
use paymesh_types::{UserId, VaultToken};
use tokio::time::Instant;
use tonic::Code;

/// How long a home is waited for.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// What is left of a caller's time for the answer to reach it.
const WAY_BACK: Duration = Duration::from_millis(100);
/// When to send a request again whose user's home was not told.
const NOT_TOLD_RETRY_AFTER_MS: u64 = 1_000;

/// Tells a user's home that a card is deleted, or that any of the user's may be. Says where it is durable there that none of those is a payment method.
///
/// # Errors
/// UNAVAILABLE `HOME_NOT_TOLD`.
pub(crate) async fn tell(mesh: &Mesh, call: Option<&Call>, user: UserId, token: Option<&VaultToken>) -> Result<Option<Position>, Fault> {
    let deadline = call.and_then(Call::deadline).map(|deadline| deadline.checked_sub(WAY_BACK).unwrap_or(deadline));
    let left = deadline.map_or(WAIT_MAX, |deadline| deadline.saturating_duration_since(Instant::now()).min(WAIT_MAX));
    let vault_token = token.map(ToString::to_string).unwrap_or_default();
    // The node's own call: who may delete a card need not be one who may change payment methods.
    let mut request = tonic::Request::new(ForgetDeletedCardsRequest { user_id: user.get(), vault_token });
    request.set_timeout(left);
    match PaymentMethodServiceClient::new(mesh.channel()).forget_deleted_cards(request).await {
        Ok(answer) => Ok(answer.into_inner().position),
        // A node of a version before there were payment methods keeps none.
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => {
            let why = Fault::from_status(&status);
            tracing::warn!(%user, %why, "a user's home could not be told that cards are deleted");
            let message = format!("what was asked for is done here, and the home of user {user} could not be told: {}", why.reason);
            Err(Fault::unavailable("HOME_NOT_TOLD", message, Duration::from_millis(NOT_TOLD_RETRY_AFTER_MS)))
        }
    }
}
