//! The one shape of every error that leaves a node.
//!
//! Inner code makes a [`Fault`]; only here does it become a gRPC status (`google.rpc.Status` with `ErrorInfo`,
//! `BadRequest` and `RetryInfo`, see <https://google.aip.dev/193>) or a batch item's error, and only here is it read back
//! from one. Texts are cut to bounds, so that an error always fits in HTTP/2 trailers. Keeping personal data out of messages
//! and metadata is left to whoever writes them.

use std::{borrow::Cow, collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{KeyError, common::v1::ItemError};

/// `ErrorInfo.domain` of every error of the mesh.
pub const DOMAIN: &str = "paymesh";

/// Bytes of an outgoing message at most. A status carries its message twice, once percent-encoded at up to three bytes
/// for one, and common clients take 8 KiB of trailers.
const FAULT_MESSAGE_BYTES_MAX: usize = 512;
/// Bytes of an outgoing field path, reason, metadata key or metadata value at most.
const FAULT_TEXT_BYTES_MAX: usize = 128;
/// Metadata pairs of an outgoing error at most.
const FAULT_METADATA_MAX: usize = 8;

/// The metadata key that names the field at fault where [`Code`] does not allow a `BadRequest`.
const FIELD_METADATA: &str = "field";

/// Why a call or one item of a batch failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Fault {
    /// The gRPC code.
    pub code: Code,
    /// The stable reason in upper snake case, part of the contract: for example `USER_NOT_FOUND`.
    pub reason: Cow<'static, str>,
    /// What happened, for a person. No personal data.
    pub message: String,
    /// The request field at fault, as a dotted path.
    pub field: Option<String>,
    /// More facts, by key. No personal data.
    pub metadata: Vec<(String, String)>,
    /// Set where a retry with the same request id is safe: how long to wait first.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault with nothing but the three things that each has.
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), field: None, metadata: Vec::new(), retry_after: None }
    }

    /// INVALID_ARGUMENT `INVALID_FIELD`: a request field that can never be accepted as it is.
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "INVALID_FIELD", message).with_field(field)
    }

    /// NOT_FOUND.
    pub fn not_found(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, reason, message)
    }

    /// UNAVAILABLE, and a retry after `retry_after` is safe.
    pub fn unavailable(reason: impl Into<Cow<'static, str>>, message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(Code::Unavailable, reason, message).with_retry(retry_after)
    }

    /// The same, at fault being `field`.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same, with one more fact.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// The same, where a retry after `retry_after` is safe.
    #[must_use]
    pub fn with_retry(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// The same, seen from the message that holds the faulty one in its field `parent`: `currency_code` under `amount` is
    /// `amount.currency_code`. Without a field, `parent` itself is at fault.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        self.field = Some(match self.field {
            Some(field) => format!("{parent}.{field}"),
            None => parent.to_owned(),
        });
        self
    }

    /// What a status received from a peer says. One that is not of the mesh's making (a broken connection, tonic's own)
    /// gets its code's name as its reason.
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let mut fault = Self::new(status.code(), code_name(status.code()), status.message());
        if let Some(info) = details.error_info().filter(|info| info.domain == DOMAIN) {
            fault.reason = info.reason.clone().into();
            fault.metadata = info.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            fault.metadata.sort();
        }
        fault.field = match details.bad_request().and_then(|bad| bad.field_violations.first()) {
            Some(violation) => Some(violation.field.clone()),
            None => fault.take_field_metadata(),
        };
        fault.retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
        fault
    }

    fn take_field_metadata(&mut self) -> Option<String> {
        let index = self.metadata.iter().position(|(key, _)| key == FIELD_METADATA)?;
        Some(self.metadata.remove(index).1)
    }
}

/// `BadRequest` goes with the codes that blame the request as such (google/rpc/code.proto); with any other, the field at
/// fault is metadata.
impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let message = cut(fault.message, FAULT_MESSAGE_BYTES_MAX);
        let mut metadata: HashMap<String, String> = fault
            .metadata
            .into_iter()
            .take(FAULT_METADATA_MAX)
            .map(|(key, value)| (cut(key, FAULT_TEXT_BYTES_MAX), cut(value, FAULT_TEXT_BYTES_MAX)))
            .collect();
        let mut details = ErrorDetails::new();
        if let Some(field) = fault.field {
            let field = cut(field, FAULT_TEXT_BYTES_MAX);
            if matches!(fault.code, Code::InvalidArgument | Code::OutOfRange) {
                // The status says what is wrong; said once more for each field it would not fit in the trailers.
                details.add_bad_request_violation(field, cut(message.clone(), FAULT_TEXT_BYTES_MAX));
            } else {
                metadata.insert(FIELD_METADATA.to_owned(), field);
            }
        }
        details.set_error_info(cut(fault.reason.into_owned(), FAULT_TEXT_BYTES_MAX), DOMAIN, metadata);
        if let Some(retry_after) = fault.retry_after {
            details.set_retry_info(Some(retry_after));
        }
        Status::with_error_details(fault.code, message, details)
    }
}

/// Metadata has no place in an item's error, other than the field at fault.
impl From<Fault> for ItemError {
    fn from(mut fault: Fault) -> Self {
        let field = fault.field.take().or_else(|| fault.take_field_metadata()).unwrap_or_default();
        Self {
            code: fault.code as i32,
            reason: cut(fault.reason.into_owned(), FAULT_TEXT_BYTES_MAX),
            message: cut(fault.message, FAULT_MESSAGE_BYTES_MAX),
            field: cut(field, FAULT_TEXT_BYTES_MAX),
            retry_after_ms: fault.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// A request whose key cannot be read would not decode either.
impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Self {
        Self::new(Code::InvalidArgument, "MALFORMED_REQUEST", error.to_string())
    }
}

/// At most `bytes_max` bytes, cut between characters.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
    text
}

/// The code's name in google/rpc/code.proto.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests;
