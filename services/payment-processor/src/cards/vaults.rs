//! The vaults of the mesh, wherever they are: what payments and payment methods need of them.

use paymesh_acquirers::{
    Authentication, Authorization, Challenge, Charge, ChargeId, ChargeState, Class, Decision, Decline, DeclineReason, Exemption, Failure,
};
use paymesh_cards::Brand;
use paymesh_contract::{
    Fault,
    common::v1::Money,
    timestamp,
    vault::v1::{
        AuthorizationOutcome, AuthorizeRequest, AuthorizeResponse, CardBrand, CardholderAuthentication, DescribeTokenRequest, ScaExemption,
        TokenDescription, vault_service_client::VaultServiceClient,
    },
    wallet::v1::KeptCard,
};
use paymesh_mesh::Mesh;
use paymesh_types::{GatewayName, UserId, VaultToken};
use tokio::time::Instant;
use tonic::Code;

/// A card, and whose it is.
#[derive(Debug, Clone)]
pub(super) struct CardOf {
    pub(super) user: UserId,
    pub(super) token: VaultToken,
}

/// What became of an authorization that was asked for through a vault.
#[derive(Debug)]
pub(super) enum Authorized {
    /// What the acquirer says.
    Decision(Decision),
    /// The acquirer was not asked: the vault has no such card of the user.
    NoCard,
}

/// Why a vault describes no card, as a fault's reason.
pub(crate) const TOKEN_NOT_FOUND: &str = "TOKEN_NOT_FOUND";

/// NOT_FOUND `TOKEN_NOT_FOUND`, the same for a card of another user.
pub(crate) fn not_found(token: &VaultToken, user: UserId) -> Fault {
    Fault::not_found(TOKEN_NOT_FOUND, format!("user {user} has no card {token}")).with_field("vault_token")
}

/// What a vault says of a user's card.
#[derive(Clone)]
pub(crate) struct Described {
    pub(super) brand: Brand,
    /// The first six or eight digits.
    pub(super) bin: String,
    /// The vault's.
    pub(super) fingerprint: Vec<u8>,
    /// What its user is shown of it.
    pub(crate) kept: KeptCard,
}

/// The vaults of the mesh.
#[derive(Debug, Clone)]
pub(crate) struct Vaults {
    mesh: Mesh,
}

impl Vaults {
    pub(crate) fn new(mesh: Mesh) -> Self {
        Self { mesh }
    }

    /// Describes a card of a user's.
    ///
    /// # Errors
    /// [`not_found`]; what the vault or the way there says.
    pub(crate) async fn describe(&self, token: &VaultToken, user: UserId, until: Instant) -> Result<Described, Fault> {
        let mut request = tonic::Request::new(DescribeTokenRequest { vault_token: token.to_string() });
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        let answer = VaultServiceClient::new(self.mesh.channel()).describe_token(request).await;
        let described = match answer {
            Ok(answer) => answer.into_inner().description.unwrap_or_default(),
            Err(status) => match Fault::from_status(&status) {
                fault if fault.reason == TOKEN_NOT_FOUND => TokenDescription::default(),
                fault => return Err(fault),
            },
        };
        if described.user_id != user.get() {
            return Err(not_found(token, user));
        }
        let kept = KeptCard {
            brand: described.brand,
            last_four: described.last_four.clone(),
            expiry_month: described.expiry_month,
            expiry_year: described.expiry_year,
        };
        Ok(Described { brand: brand(described.brand()), bin: described.bin, fingerprint: described.fingerprint, kept })
    }

    /// Has the vault of the card's zone ask a gateway's acquirer to hold an amount on the card.
    ///
    /// # Errors
    /// The acquirer's failure as the vault saw it; or the vault's own, as [`Class::Ours`].
    pub(super) async fn authorize(
        &self,
        gateway: &GatewayName,
        card: &CardOf,
        authorization: &Authorization,
        deadline: Instant,
    ) -> Result<Authorized, Failure> {
        let Authorization { reference, begun_at, amount, authentication, recurring, sets_up } = authorization;
        let (known, challenge_answer, exemption) = authentication_of(authentication);
        let mut request = tonic::Request::new(AuthorizeRequest {
            vault_token: card.token.to_string(),
            user_id: card.user.get(),
            gateway: gateway.to_string(),
            reference: reference.to_string(),
            begun_at: Some(timestamp(*begun_at)),
            amount: Some(Money { minor_units: amount.minor(), currency_code: amount.currency().code().to_owned() }),
            authentication: known.into(),
            challenge_answer,
            exemption: exemption.into(),
            recurring: *recurring,
            sets_up: *sets_up,
        });
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        match VaultServiceClient::new(self.mesh.channel()).authorize(request).await {
            Ok(answer) => authorized(answer.into_inner(), authorization),
            Err(status) => not_asked(&Fault::from_status(&status)),
        }
    }
}

/// What a call that ended with an error says. The vault has asked no gateway then, unless it did not come to its own word: the call's time was up, or the way to the vault
/// broke.
fn not_asked(fault: &Fault) -> Result<Authorized, Failure> {
    if fault.reason == TOKEN_NOT_FOUND {
        return Ok(Authorized::NoCard);
    }
    let what = format!("the vault says {}", fault.reason);
    let certain = match fault.code {
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => true,
        Code::Unavailable => fault.reason == "VAULT_UNAVAILABLE",
        Code::DataLoss => fault.reason == "VAULT_DAMAGED",
        _ => false,
    };
    Err(if certain { Failure::not_done(Class::Ours, what) } else { Failure::unknown(Class::Ours, what) })
}

fn authorized(answer: AuthorizeResponse, asked: &Authorization) -> Result<Authorized, Failure> {
    use AuthorizationOutcome as Outcome;

    let malformed = || Failure::unknown(Class::Ours, "the vault's answer is none that this version knows");
    let id = || answer.charge_id.parse::<ChargeId>().map_err(|_| malformed());
    let class = || Class::ALL.into_iter().find(|class| class.as_str() == answer.failure_class).unwrap_or(Class::Ours);
    let decision = match answer.outcome() {
        Outcome::Approved => Decision::Approved(Charge {
            id: id()?,
            reference: asked.reference.clone(),
            state: ChargeState::Authorized,
            amount: asked.amount,
            captured_minor: 0,
            refunded_minor: 0,
            decline: None,
        }),
        Outcome::Declined => {
            let reason = DeclineReason::from_word(&answer.decline_reason).unwrap_or(DeclineReason::Other);
            Decision::Declined(Decline::new(reason, &answer.decline_code))
        }
        Outcome::ActionRequired => {
            let url = Some(answer.challenge_url.clone()).filter(|url| !url.is_empty());
            Decision::ActionRequired { charge: id()?, challenge: Challenge { id: answer.challenge_id.clone(), url } }
        }
        Outcome::NotDone => return Err(Failure::not_done(class(), answer.failure_detail.clone())),
        Outcome::Unknown => return Err(Failure::unknown(class(), answer.failure_detail.clone())),
        Outcome::Unspecified => return Err(malformed()),
    };
    Ok(Authorized::Decision(decision))
}

fn authentication_of(authentication: &Authentication) -> (CardholderAuthentication, String, ScaExemption) {
    let exemption = |exemption: &Exemption| match exemption {
        Exemption::LowValue => ScaExemption::LowValue,
        Exemption::TransactionRisk => ScaExemption::TransactionRisk,
        Exemption::TrustedBeneficiary => ScaExemption::TrustedBeneficiary,
        Exemption::Recurring => ScaExemption::Recurring,
        Exemption::SecureCorporate => ScaExemption::SecureCorporate,
    };
    match authentication {
        Authentication::IssuerDecides => (CardholderAuthentication::IssuerDecides, String::new(), ScaExemption::Unspecified),
        Authentication::Challenge => (CardholderAuthentication::Challenge, String::new(), ScaExemption::Unspecified),
        Authentication::Exempt(why) => (CardholderAuthentication::Exempt, String::new(), exemption(why)),
        Authentication::Answered { answer } => {
            (CardholderAuthentication::Answered, answer.clone().unwrap_or_default(), ScaExemption::Unspecified)
        }
    }
}

fn brand(brand: CardBrand) -> Brand {
    match brand {
        CardBrand::Visa => Brand::Visa,
        CardBrand::Mastercard => Brand::Mastercard,
        CardBrand::Amex => Brand::Amex,
        CardBrand::Diners => Brand::Diners,
        CardBrand::Discover => Brand::Discover,
        CardBrand::Jcb => Brand::Jcb,
        CardBrand::UnionPay => Brand::UnionPay,
        CardBrand::Maestro => Brand::Maestro,
        CardBrand::Mir => Brand::Mir,
        CardBrand::Unspecified | CardBrand::Other => Brand::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What says that nothing was done lets another gateway be asked: what does not belong here charges a card twice.
    #[test]
    fn only_what_a_vault_says_of_itself_is_certain() {
        let every = (0..=16).map(Code::from);
        let certain = |code, reason| match not_asked(&Fault::new(code, reason, "for a test")) {
            Err(failure) => failure.is_certain(),
            Ok(authorized) => panic!("{code:?} {reason}: {authorized:?}"),
        };
        let refused = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition, Code::PermissionDenied, Code::Unauthenticated];
        for code in every {
            assert_eq!(certain(code, "OF_NO_KNOWN_REASON"), refused.contains(&code), "{code:?}");
        }
        assert!(certain(Code::Unavailable, "VAULT_UNAVAILABLE") && certain(Code::DataLoss, "VAULT_DAMAGED"));
        assert!(matches!(not_asked(&Fault::new(Code::NotFound, "TOKEN_NOT_FOUND", "for a test")), Ok(Authorized::NoCard)));
    }
}
