//! Why a vault did not do as asked, and the one place where that becomes the contract's codes and reasons.

use std::time::Duration;

use paymesh_contract::Fault;
use paymesh_types::{UserId, VaultToken};
use tonic::Code;

use crate::{
    keys::{self, KekId},
    store,
};

/// When to try again at a vault whose storage or keys cannot be had.
const UNAVAILABLE_RETRY_AFTER_MS: u64 = 1_000;

/// Why a vault did not do as asked. No message has anything of a card.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such card: never was, or was deleted or erased. Final.
    #[error("there is no card of token {0}")]
    TokenNotFound(VaultToken),
    /// The request id stands for another request. Final.
    #[error("the request id was used for another request, which differs in `{field}`")]
    RequestIdReused {
        /// In which field.
        field: &'static str,
    },
    /// The request was made before the user was erased, and what it took in is gone. Final.
    #[error("user {0} was erased after this request was made: what it took in is gone")]
    UserErased(UserId),
    /// The card has ended. Final.
    #[error("the card has expired")]
    CardExpired,
    /// The user has as many cards as may be. Final, until one is deleted.
    #[error("user {0} has {max} cards, as many as may be", max = store::CARDS_PER_USER_MAX)]
    TooManyCards(UserId),
    /// There is no sealing key of that id, or not any more. Final: what is sealed is sealed again, to the key that there is.
    #[error("there is no sealing key of that id any more: ask for the vault's key again")]
    SealingKeyNotFound,
    /// What is sealed is not what was sealed to that key for that user. Final.
    #[error("the sealed card is not what was sealed to the vault's key for user {0}")]
    NotSealedForUser(UserId),
    /// What was sealed, or is stored, is no card. Of what was sealed: final.
    #[error("what is sealed is no card: {0}")]
    SealedNonsense(paymesh_cards::Error),
    /// What is stored does not open. Final: an operator must look.
    #[error("what is kept of token {0} is not what was written")]
    Damaged(VaultToken),
    /// A step had to be taken again too often, because others changed the same user's cards. May pass.
    #[error("others change the cards of user {0}")]
    Contended(UserId),
    /// The configuration has no such gateway. Final.
    #[error("no gateway is called {0:?} in this vault's gateways.yaml")]
    GatewayNotFound(String),
    /// The gateway may not be given this zone's cards. Final.
    #[error("the gateway {0} does not serve the vault's zone")]
    GatewayNotInZone(String),
    /// The store is new, and the keys are those of one that was in use. Final: an operator must look.
    #[error(
        "the vault's store is new, and there are keys of an older one, the last of them key-encryption key {0}: put that store back, \
         or, to begin anew without its cards, move its keys away"
    )]
    StoreMissing(KekId),
    /// The key provider.
    #[error(transparent)]
    Keys(#[from] keys::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (code, reason) = match &error {
            Error::TokenNotFound(_) => (Code::NotFound, "TOKEN_NOT_FOUND"),
            Error::RequestIdReused { .. } => (Code::AlreadyExists, "REQUEST_ID_REUSED"),
            Error::UserErased(_) => (Code::FailedPrecondition, "USER_ERASED"),
            Error::CardExpired => (Code::FailedPrecondition, "CARD_EXPIRED"),
            Error::TooManyCards(_) => (Code::ResourceExhausted, "TOO_MANY_CARDS"),
            Error::SealingKeyNotFound => (Code::FailedPrecondition, "SEALING_KEY_NOT_FOUND"),
            Error::GatewayNotFound(_) => (Code::FailedPrecondition, "GATEWAY_NOT_FOUND"),
            Error::GatewayNotInZone(_) => (Code::FailedPrecondition, "GATEWAY_NOT_IN_ZONE"),
            Error::NotSealedForUser(_) => (Code::InvalidArgument, "CARD_NOT_SEALED_FOR_USER"),
            Error::SealedNonsense(_) => return Fault::invalid_field("sealed_card", message),
            Error::Damaged(_) => return damaged(&error, message),
            Error::StoreMissing(_) => return damaged(&error, "what the vault keeps is not there".to_owned()),
            Error::Keys(keys::Error::Missing { .. } | keys::Error::NotWrapped { .. }) | Error::Store(store::Error::Damaged { .. }) => {
                return damaged(&error, "what the vault keeps cannot be read".to_owned());
            }
            Error::Contended(_) => return unavailable(message),
            Error::Keys(_) | Error::Store(_) => {
                // Callers have no use for the engine's words; operators do.
                tracing::error!(%error, "the vault's storage or keys failed");
                return unavailable("the vault's storage or keys cannot be had".to_owned());
            }
        };
        let fault = Fault::new(code, reason, message);
        match error {
            Error::RequestIdReused { field } => fault.with_field(field),
            Error::TokenNotFound(_) => fault.with_field("vault_token"),
            Error::GatewayNotFound(_) | Error::GatewayNotInZone(_) => fault.with_field("gateway"),
            Error::SealingKeyNotFound | Error::NotSealedForUser(_) => fault.with_field("sealed_card"),
            _ => fault,
        }
    }
}

fn damaged(error: &Error, message: String) -> Fault {
    tracing::error!(%error, "what the vault keeps is damaged, or its key is gone");
    Fault::new(Code::DataLoss, "VAULT_DAMAGED", message)
}

pub(crate) fn unavailable(message: String) -> Fault {
    Fault::unavailable("VAULT_UNAVAILABLE", message, Duration::from_millis(UNAVAILABLE_RETRY_AFTER_MS))
}
