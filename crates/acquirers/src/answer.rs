//! What acquirers answer, in our words.

use std::fmt;

use paymesh_types::Money;

use crate::{ChargeId, Reference};

/// Bytes of an acquirer's code at most.
const CODE_BYTES_MAX: usize = 64;
/// So many digits one after the other may be a card's number.
const DIGITS_MAX: usize = 7;

/// What became of an authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The amount is held for us.
    Approved(Charge),
    /// It is not, and will not be under this reference.
    Declined(Decline),
    /// Not before the cardholder has shown who it is. Then the same authorization under the same reference, with
    /// [`Authentication::Answered`](crate::Authentication::Answered), goes on with it.
    ActionRequired {
        /// What is waiting.
        charge: ChargeId,
        /// What is to be shown to the cardholder.
        challenge: Challenge,
    },
}

/// What became of a capture, a void or a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It is done; the charge as it is now.
    Done(Charge),
    /// It is not, and will not be under this reference.
    Declined(Decline),
}

/// What a cardholder has to be shown. It does not print: whoever has it may answer it.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    /// What the acquirer, or its code in a browser, calls it.
    pub id: String,
    /// Where the cardholder goes. None where the acquirer's own code in a browser takes the id.
    pub url: Option<String>,
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(challenge withheld)")
    }
}

/// A charge as its acquirer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// What the acquirer calls it.
    pub id: ChargeId,
    /// The reference that it was authorized under.
    pub reference: Reference,
    /// How far it is.
    pub state: ChargeState,
    /// What was asked for, and is or was held once it was authorized.
    pub amount: Money,
    /// Of that, in minor units: 0 to `amount`.
    pub captured_minor: i64,
    /// Of what was captured, in minor units: 0 to `captured_minor`.
    pub refunded_minor: i64,
    /// Why not, where it was declined.
    pub decline: Option<Decline>,
}

/// How far a charge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChargeState {
    /// Nothing is held, and something may be at any time: an authorization is under way, or could still arrive. To void the charge ends that.
    Undecided,
    /// It waits for the cardholder. Nothing is held.
    ActionRequired,
    /// The amount is held.
    Authorized,
    /// Captured, once and for all: what was not captured is held no more.
    Captured,
    /// Nothing is held, and nothing will be.
    Voided,
    /// Nothing is held, and nothing will be under this reference.
    Declined,
}

impl ChargeState {
    /// Whether nothing that is under way can still change what was decided.
    pub fn is_decided(self) -> bool {
        !matches!(self, Self::Undecided | Self::ActionRequired)
    }
}

/// No, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decline {
    /// In our words.
    pub reason: DeclineReason,
    /// In the acquirer's: 1 to 64 of a-z, 0-9 and `_`.
    pub code: String,
}

impl Decline {
    /// Of a code that [`DeclineReason::of_code`] knows.
    pub(crate) fn of_code(code: &str) -> Self {
        Self::new(DeclineReason::of_code(code), code)
    }

    /// Of an acquirer's code. What is no such word is not repeated: it could be anything, a card's number among it.
    pub fn new(reason: DeclineReason, code: &str) -> Self {
        let mut run = 0;
        let plain = (1..=CODE_BYTES_MAX).contains(&code.len())
            && code.bytes().all(|byte| {
                run = if byte.is_ascii_digit() { run + 1 } else { 0 };
                (byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') && run <= DIGITS_MAX
            });
        Self { reason, code: if plain { code.to_owned() } else { "withheld".to_owned() } }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why an acquirer, or the issuer behind it, says no.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DeclineReason {
            $($(#[$doc])* $name,)*
        }

        impl DeclineReason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word for it, as contracts and journals have it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The reason with this word.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
            }
        }
    };
}

reasons! {
    /// The issuer does not say why.
    DoNotHonor = "DO_NOT_HONOR",
    /// There is not enough money.
    InsufficientFunds = "INSUFFICIENT_FUNDS",
    /// The card has ended, or the expiry is wrong.
    ExpiredCard = "EXPIRED_CARD",
    /// There is no such card.
    InvalidCard = "INVALID_CARD",
    /// The card was lost or stolen. Not to be told to whoever shows it.
    LostOrStolen = "LOST_OR_STOLEN",
    /// Not this kind of card, or not for this.
    NotSupported = "NOT_SUPPORTED",
    /// More, or more often, than the card is good for.
    LimitExceeded = "LIMIT_EXCEEDED",
    /// The issuer wants the cardholder to show who it is: a soft decline, after which one may ask again with a challenge.
    AuthenticationRequired = "AUTHENTICATION_REQUIRED",
    /// The cardholder did not show who it is.
    AuthenticationFailed = "AUTHENTICATION_FAILED",
    /// The acquirer takes it for fraud. Not to be told to whoever shows the card.
    SuspectedFraud = "SUSPECTED_FRAUD",
    /// Trouble at the issuer's, where nothing was done.
    IssuerUnavailable = "ISSUER_UNAVAILABLE",
    /// The amount is not one that it takes.
    InvalidAmount = "INVALID_AMOUNT",
    /// More than was authorized or captured.
    AmountTooLarge = "AMOUNT_TOO_LARGE",
    /// The charge is not in a state in which that can be done: an authorization that has ended, a second capture, something voided.
    WrongState = "WRONG_STATE",
    /// Something that our words have no place for.
    Other = "OTHER",
}

impl DeclineReason {
    /// By Stripe's codes (docs.stripe.com/declines/codes), which the simulator uses too.
    pub(crate) fn of_code(code: &str) -> Self {
        match code {
            "generic_decline"
            | "do_not_honor"
            | "card_declined"
            | "call_issuer"
            | "no_action_taken"
            | "revocation_of_authorization"
            | "revocation_of_all_authorizations"
            | "security_violation"
            | "stop_payment_order"
            | "transaction_not_allowed" => Self::DoNotHonor,
            "insufficient_funds" => Self::InsufficientFunds,
            "expired_card" | "invalid_expiry_month" | "invalid_expiry_year" => Self::ExpiredCard,
            "incorrect_number"
            | "invalid_number"
            | "invalid_account"
            | "incorrect_cvc"
            | "invalid_cvc"
            | "incorrect_zip"
            | "incorrect_address"
            | "new_account_information_available" => Self::InvalidCard,
            "lost_card" | "stolen_card" | "pickup_card" | "restricted_card" => Self::LostOrStolen,
            "card_not_supported" | "currency_not_supported" | "not_permitted" | "service_not_allowed" | "testmode_decline" => {
                Self::NotSupported
            }
            "card_velocity_exceeded" | "withdrawal_count_limit_exceeded" | "pin_try_exceeded" => Self::LimitExceeded,
            "authentication_required" | "authentication_not_handled" | "offline_pin_required" | "online_or_offline_pin_required" => {
                Self::AuthenticationRequired
            }
            "authentication_failed" | "payment_intent_authentication_failure" => Self::AuthenticationFailed,
            "fraudulent" | "merchant_blacklist" => Self::SuspectedFraud,
            "processing_error" | "issuer_not_available" | "reenter_transaction" | "try_again_later" | "approve_with_id" => {
                Self::IssuerUnavailable
            }
            "invalid_amount" | "amount_too_small" => Self::InvalidAmount,
            "amount_too_large" => Self::AmountTooLarge,
            "wrong_state"
            | "voided"
            | "capture_charge_authorization_expired"
            | "charge_already_captured"
            | "charge_already_refunded"
            | "payment_intent_unexpected_state" => Self::WrongState,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_could_be_a_number_are_not_repeated() {
        for good in ["insufficient_funds", "05", "code_1234567"] {
            assert_eq!(Decline::new(DeclineReason::Other, good).code, good);
        }
        for bad in ["", "4242424242424242", "card 4242", "x\n", "Generic", "code_12345678", &"a".repeat(65)] {
            assert_eq!(Decline::new(DeclineReason::Other, bad).code, "withheld", "{bad}");
        }
    }

    #[test]
    fn reasons_are_found_by_their_words() {
        for reason in DeclineReason::ALL {
            assert_eq!(DeclineReason::from_word(reason.as_str()), Some(*reason));
        }
        assert_eq!(DeclineReason::from_word("NO"), None);
    }
}
