//! Why a payment was not scored, and the one place where that becomes the contract's codes and reasons.

use std::time::Duration;

use paymesh_contract::Fault;
use tonic::Code;

use crate::store;

/// When to try again at fraud detection that is not open, or whose storage cannot be had.
const UNAVAILABLE_RETRY_AFTER_MS: u64 = 1_000;
/// When to try again where too many payments wait.
const OVERLOADED_RETRY_AFTER_MS: u64 = 50;

/// Why a payment was not scored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request id stands for another payment. Final.
    #[error("the request id was used for another payment")]
    RequestIdReused,
    /// More payments wait than may. May pass; nothing was recorded.
    #[error("more payments wait to be scored than may")]
    Overloaded,
    /// There are no rules. May pass.
    #[error("there is no {} in region-config", paymesh_topology::FRAUD_FILE_NAME)]
    NoRules,
    /// The thread that scores is gone. May pass: it is started again.
    #[error("the thread that scores payments has died")]
    Died,
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::RequestIdReused => Self::new(Code::AlreadyExists, "REQUEST_ID_REUSED", message).with_field("payment"),
            Error::Overloaded => Self::unavailable("FRAUD_OVERLOADED", message, Duration::from_millis(OVERLOADED_RETRY_AFTER_MS)),
            Error::NoRules | Error::Died => unavailable(message),
            Error::Store(_) => {
                // Callers have no use for the engine's words; operators do.
                tracing::error!(%error, "the store of fraud detection failed");
                unavailable("the storage of fraud detection cannot be had".to_owned())
            }
        }
    }
}

pub(crate) fn unavailable(message: String) -> Fault {
    Fault::unavailable("FRAUD_UNAVAILABLE", message, Duration::from_millis(UNAVAILABLE_RETRY_AFTER_MS))
}
