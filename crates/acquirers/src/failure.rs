//! A call that got no answer to go by: whether it is certain that nothing was done, and what kind of trouble it was.

use std::{borrow::Cow, fmt};

/// Characters of a detail at most.
const DETAIL_CHARS_MAX: usize = 200;

/// Whether the acquirer may have done what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Certainty {
    /// This call did nothing, and never will. Only after such a call may the operation be tried again elsewhere.
    NotDone,
    /// Nobody knows. What helps is to look the charge up, or to do the same operation again under the same reference.
    Unknown,
}

/// What kind of trouble it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// No connection was made: refused, no such host, no handshake in time. The request was not sent.
    Unreachable,
    /// The connection broke once the request was under way.
    Broken,
    /// No answer within the time there was.
    Timeout,
    /// It has too much to do and says so.
    Overloaded,
    /// It says that it failed.
    ServerError,
    /// What it answered cannot be read: HTML, half of a document, another shape.
    Malformed,
    /// It answered about another amount, currency or reference than it was asked for.
    Mismatch,
    /// It answered that it has not decided yet.
    Undecided,
    /// It does not take the request, for a reason that lies in the request.
    Refused,
    /// It does not take us: credentials, or what it is configured for.
    Configuration,
    /// Not called: the breaker is open.
    Open,
    /// Not called: as many calls are in flight as may be.
    Full,
    /// Not called: no time is left.
    Late,
    /// Not called: too many calls have been made again lately.
    Spent,
    /// Trouble of our own on the way to the gateway, such as a vault that does not answer.
    Ours,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 15] = [
        Self::Unreachable,
        Self::Broken,
        Self::Timeout,
        Self::Overloaded,
        Self::ServerError,
        Self::Malformed,
        Self::Mismatch,
        Self::Undecided,
        Self::Refused,
        Self::Configuration,
        Self::Open,
        Self::Full,
        Self::Late,
        Self::Spent,
        Self::Ours,
    ];

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Malformed => "malformed",
            Self::Mismatch => "mismatch",
            Self::Undecided => "undecided",
            Self::Refused => "refused",
            Self::Configuration => "configuration",
            Self::Open => "open",
            Self::Full => "full",
            Self::Late => "late",
            Self::Spent => "spent",
            Self::Ours => "ours",
        }
    }

    /// Whether it says something against the gateway, so that its breaker counts it. A request that is wrong would be so anywhere, what was
    /// not called has not failed, and who has to wait for somebody else does what it can.
    pub fn is_against_the_gateway(self) -> bool {
        !matches!(self, Self::Undecided | Self::Refused | Self::Open | Self::Full | Self::Late | Self::Spent | Self::Ours)
    }
}

/// A call that got no answer to go by.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whether it may have been done all the same. It is this call's: an operation whose outcome was unknown before stays so, whatever a later call says.
    pub certainty: Certainty,
    /// What kind of trouble it was.
    pub class: Class,
    detail: Cow<'static, str>,
}

impl Failure {
    /// Nothing was done. `detail` is words of ours, never of an acquirer's answer: that may repeat a card's number.
    pub fn not_done(class: Class, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { certainty: Certainty::NotDone, class, detail: bounded(detail.into()) }
    }

    /// Nobody knows what was done. `detail` as in [`Self::not_done`].
    pub fn unknown(class: Class, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { certainty: Certainty::Unknown, class, detail: bounded(detail.into()) }
    }

    /// What happened, without anything of a card.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether the operation may be tried again, here or elsewhere, without a look-up.
    pub fn is_certain(&self) -> bool {
        self.certainty == Certainty::NotDone
    }

    /// The same of a call that cannot move money, whatever became of it.
    pub(crate) fn of_a_call_that_moves_nothing(self) -> Self {
        Self { certainty: Certainty::NotDone, ..self }
    }
}

fn bounded(detail: Cow<'static, str>) -> Cow<'static, str> {
    match detail.char_indices().nth(DETAIL_CHARS_MAX) {
        Some((cut, _)) => Cow::Owned(format!("{}…", &detail[..cut])),
        None => detail,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certainty = match self.certainty {
            Certainty::NotDone => "nothing was done",
            Certainty::Unknown => "whether it was done is not known",
        };
        write!(f, "{}: {} ({certainty})", self.class.as_str(), self.detail)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}
