//! Strong customer authentication: whether a payment by card has to be authenticated by its cardholder, and what is counted for that.
//!
//! The duty is Article 97 of Directive (EU) 2015/2366 (PSD2); what is exempt from it is in Commission Delegated Regulation (EU) 2018/389 (the RTS). Of its
//! exemptions that of low values (Article 16) is decided here, those of trusted beneficiaries (Article 13) and recurring payments (Article 14) in
//! [`crate::mandate`], and that of low risks (Article 18) in [`crate::monitoring`]. Of Article 16 the regulation lets a payment service provider choose between the
//! bound on the count and the bound on the sum, and counts what went before; here both have to hold, with the payment itself in them.

use paymesh_types::{Currency, Money};

/// What a payment of low value is at most, in minor units of EUR: RTS Article 16(a).
pub const LOW_VALUE_MINOR_MAX: i64 = 3_000;
/// Payments of low value in a row at most, without their payer authenticated: RTS Article 16(c).
pub const EXEMPTED_PAYMENTS_MAX: u32 = 5;
/// What they come to at most, in minor units of EUR: RTS Article 16(b).
pub const EXEMPTED_MINOR_MAX: i64 = 10_000;

/// Whether the cardholder has to authenticate a payment by card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Authentication {
    /// Nothing is owed: the payer's zone is not under PSD2, or nobody was to be asked. An issuer may ask for it all the same.
    #[default]
    NotRequired,
    /// It is owed, and the payment is exempt. The issuer may turn that down.
    Exempt(Exemption),
    /// It is owed, and the issuer is asked to challenge.
    Required,
}

/// Why a payment need not be authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Exemption {
    /// A low value.
    LowValue,
    /// One of a series of the same amount to the same payee.
    Recurring,
    /// To a payee on the payer's list of trusted beneficiaries.
    TrustedPayee,
    /// A low risk: [`crate::RiskAnalysis`].
    TransactionRisk,
}

impl Authentication {
    /// The name that callers see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRequired => "NOT_REQUIRED",
            Self::Exempt(_) => "EXEMPT",
            Self::Required => "REQUIRED",
        }
    }

    /// By which article it is so; `None` where nothing is owed.
    pub fn article(self) -> Option<&'static str> {
        match self {
            Self::NotRequired => None,
            Self::Exempt(Exemption::TrustedPayee) => Some("RTS Article 13"),
            Self::Exempt(Exemption::Recurring) => Some("RTS Article 14"),
            Self::Exempt(Exemption::LowValue) => Some("RTS Article 16"),
            Self::Exempt(Exemption::TransactionRisk) => Some("RTS Article 18"),
            Self::Required => Some("PSD2 Article 97"),
        }
    }
}

/// Payments of low value that a user made since they were last authenticated. Kept with their account in EUR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Exempted {
    /// How many, at most [`EXEMPTED_PAYMENTS_MAX`].
    pub payments: u32,
    /// What they come to in minor units, at most [`EXEMPTED_MINOR_MAX`].
    pub minor: i64,
}

impl Exempted {
    /// With one more; `None` where it is not exempt.
    pub(crate) fn with(self, money: Money) -> Option<Self> {
        if !counts(money.currency()) || money.minor() > LOW_VALUE_MINOR_MAX {
            return None;
        }
        let (payments, minor) = (self.payments.checked_add(1)?, self.minor.checked_add(money.minor())?);
        (payments <= EXEMPTED_PAYMENTS_MAX && minor <= EXEMPTED_MINOR_MAX).then_some(Self { payments, minor })
    }
}

/// Whether payments in the currency are counted: the regulation's amounts are in EUR, and nothing here converts others.
pub(crate) fn counts(currency: Currency) -> bool {
    currency.code() == "EUR"
}
