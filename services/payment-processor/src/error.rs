//! The one place where what the ledger and the shards refuse becomes the contract's codes and reasons.

use std::time::Duration;

use paymesh_contract::Fault;
use paymesh_ledger::Rejection;
use paymesh_shard::Error;
use paymesh_types::{Position, ShardRef, UserId};
use tonic::Code;

/// When to try again at a shard whose queue is full: some group commits later.
const OVERLOADED_RETRY_AFTER_MS: u64 = 50;

/// When to try again at a payment whose acquirer is being asked for something: most say what they make of it within that.
const OPERATION_RETRY_AFTER_MS: u64 = 250;

/// When to try again at a shard that does not serve.
const NOT_SERVING_RETRY_AFTER_MS: u64 = 1_000;

/// When to try again at a shard that an operator must see to first.
const HISTORY_MISSING_RETRY_AFTER_MS: u64 = 30_000;

/// When to try again at a copy that has not come to what was asked for.
const BEHIND_RETRY_AFTER_MS: u64 = 100;

/// What the ledger said no to.
pub(crate) fn rejected(rejection: Rejection) -> Fault {
    let message = rejection.to_string();
    let (code, reason) = match &rejection {
        Rejection::UserExists { .. } => (Code::AlreadyExists, "USER_EXISTS"),
        Rejection::UserNotFound { .. } => (Code::NotFound, "USER_NOT_FOUND"),
        Rejection::UserInAnotherZone { .. } => (Code::AlreadyExists, "USER_IN_ANOTHER_ZONE"),
        Rejection::AccountExists { .. } => (Code::AlreadyExists, "ACCOUNT_EXISTS"),
        Rejection::AccountNotFound { .. } => (Code::NotFound, "ACCOUNT_NOT_FOUND"),
        Rejection::AccountClosed { .. } => (Code::FailedPrecondition, "ACCOUNT_CLOSED"),
        Rejection::AccountNotEmpty { .. } => (Code::FailedPrecondition, "ACCOUNT_NOT_EMPTY"),
        Rejection::MethodExists { .. } => (Code::AlreadyExists, "PAYMENT_METHOD_EXISTS"),
        Rejection::MethodNotFound { .. } => (Code::NotFound, "PAYMENT_METHOD_NOT_FOUND"),
        Rejection::TooManyMethods { .. } => (Code::ResourceExhausted, "TOO_MANY_PAYMENT_METHODS"),
        Rejection::OutOfRange => (Code::OutOfRange, "AMOUNT_OUT_OF_RANGE"),
        Rejection::ClearingFull { .. } => (Code::ResourceExhausted, "CLEARING_FULL"),
        Rejection::PaymentNotFound => (Code::NotFound, "PAYMENT_NOT_FOUND"),
        Rejection::NotAuthorized { .. } | Rejection::HoldExpired => (Code::FailedPrecondition, "PAYMENT_NOT_AUTHORIZED"),
        Rejection::NoActionRequired { .. } => (Code::FailedPrecondition, "NO_ACTION_REQUIRED"),
        Rejection::OperationInProgress => (Code::Aborted, "OPERATION_IN_PROGRESS"),
        Rejection::MandateNotFound => (Code::NotFound, "MANDATE_NOT_FOUND"),
        Rejection::MandateNotAuthenticated => (Code::FailedPrecondition, "MANDATE_NOT_AUTHENTICATED"),
        Rejection::MandateCancelled => (Code::FailedPrecondition, "MANDATE_CANCELLED"),
        Rejection::MandateEnded => (Code::FailedPrecondition, "MANDATE_ENDED"),
        Rejection::MandateDiffers { .. } => (Code::InvalidArgument, "MANDATE_DIFFERS"),
        Rejection::TooManyRefunds => (Code::ResourceExhausted, "TOO_MANY_REFUNDS"),
        Rejection::NothingCaptured => (Code::FailedPrecondition, "PAYMENT_NOT_CAPTURED"),
        Rejection::FraudReported => (Code::AlreadyExists, "FRAUD_REPORTED"),
        Rejection::NotRefundable { .. } => (Code::FailedPrecondition, "PAYMENT_NOT_REFUNDABLE"),
        Rejection::ExceedsAuthorization { .. } => (Code::OutOfRange, "AMOUNT_EXCEEDS_AUTHORIZATION"),
        Rejection::ExceedsCapture { .. } => (Code::OutOfRange, "AMOUNT_EXCEEDS_CAPTURE"),
        Rejection::PayeeInsufficientFunds => (Code::FailedPrecondition, "PAYEE_INSUFFICIENT_FUNDS"),
        Rejection::RequestIdReused { .. } => (Code::AlreadyExists, "REQUEST_ID_REUSED"),
        // What only shards and timers ask for; a caller cannot.
        Rejection::NotExpiredYet | Rejection::AlreadyReceived { .. } | Rejection::NothingNew | Rejection::Implausible { .. } => {
            (Code::Internal, "UNEXPECTED_REJECTION")
        }
    };
    let fault = Fault::new(code, reason, message);
    match rejection {
        Rejection::RequestIdReused { field } | Rejection::MandateDiffers { field } => fault.with_field(field),
        // The ledger misses a user only where an account is opened or a card kept; elsewhere it is the account that is not there.
        Rejection::UserNotFound { .. } => fault.with_field("user_id"),
        Rejection::MethodExists { .. } | Rejection::MethodNotFound { .. } => fault.with_field("vault_token"),
        Rejection::OperationInProgress => fault.with_retry(Duration::from_millis(OPERATION_RETRY_AFTER_MS)),
        Rejection::ExceedsAuthorization { .. } | Rejection::ExceedsCapture { .. } => fault.with_field("amount_minor_units"),
        _ => fault,
    }
}

/// Why a shard did not do as asked.
pub(crate) fn failed(error: Error) -> Fault {
    match error {
        Error::Rejected(rejection) => rejected(rejection),
        Error::Overloaded { .. } => {
            Fault::unavailable("SHARD_OVERLOADED", error.to_string(), Duration::from_millis(OVERLOADED_RETRY_AFTER_MS))
        }
        Error::NotServing { .. } => not_serving(error.to_string()),
        // Who proves the books must not take it for wrong.
        Error::Opening { .. } => not_serving(error.to_string()).with_metadata("state", "starting"),
        Error::HistoryMissing { .. } => {
            Fault::unavailable("SHARD_HISTORY_MISSING", error.to_string(), Duration::from_millis(HISTORY_MISSING_RETRY_AFTER_MS))
        }
        Error::Behind { ref position, age } => {
            let wait = Duration::from_millis(BEHIND_RETRY_AFTER_MS);
            placed(Fault::unavailable("REPLICA_BEHIND", error.to_string(), wait), position, age)
        }
        Error::InTheFuture { .. } => Fault::new(Code::OutOfRange, "POSITION_IN_THE_FUTURE", error.to_string()),
        Error::NotKept { first, .. } => {
            Fault::new(Code::OutOfRange, "POSITION_NOT_KEPT", error.to_string()).with_metadata("first_sequence", first.to_string())
        }
        Error::Storage { shard, source } => {
            // Callers have no use for the engine's words; operators do.
            tracing::error!(%shard, error = %source, "a shard's storage failed");
            not_serving(format!("the storage of shard {shard} failed"))
        }
    }
}

/// The fault, with where it was found.
pub(crate) fn placed(fault: Fault, position: &Position, age: Option<Duration>) -> Fault {
    let fault = fault
        .with_metadata("shard", position.shard.to_string())
        .with_metadata("epoch", position.epoch.to_string())
        .with_metadata("sequence", position.sequence.to_string());
    match age {
        Some(age) => fault.with_metadata("age_ms", milliseconds(age).to_string()),
        None => fault,
    }
}

/// Whole milliseconds, none left out: an age is never said to be less than it is.
pub(crate) fn milliseconds(age: Duration) -> u64 {
    u64::try_from(age.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}

fn not_serving(message: String) -> Fault {
    Fault::unavailable("SHARD_NOT_SERVING", message, Duration::from_millis(NOT_SERVING_RETRY_AFTER_MS))
}

/// UNAVAILABLE `PAYMENT_METHODS_BUSY`.
pub(crate) fn busy(user: UserId) -> Fault {
    let message = format!("others change the payment methods of user {user}, or wait for the vault to do so");
    Fault::unavailable("PAYMENT_METHODS_BUSY", message, Duration::from_millis(OPERATION_RETRY_AFTER_MS))
}

/// A task of the node's own ended before what it was for, which may have been done: the same request again tells.
pub(crate) fn died(error: &tokio::task::JoinError) -> Fault {
    tracing::error!(%error, "a task of a call died");
    not_serving("what was to be done for the call ended early".to_owned())
}

/// NOT_FOUND `USER_NOT_FOUND`, the request's `field` naming the user.
pub(crate) fn user_not_found(user: UserId, field: &'static str) -> Fault {
    Fault::not_found("USER_NOT_FOUND", format!("user {user} is not enrolled")).with_field(field)
}

/// NOT_FOUND `SHARD_NOT_FOUND`.
pub(crate) fn shard_not_found(shard: &ShardRef) -> Fault {
    Fault::not_found("SHARD_NOT_FOUND", format!("there is no shard {shard} here"))
}
