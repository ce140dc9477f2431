//! Vaults of other services, wherever they are: reached through the mesh.

use paymesh_cards::Brand;
use paymesh_contract::{
    Fault,
    vault::v1::{CardBrand, DescribeTokenRequest, vault_service_client::VaultServiceClient},
};
use paymesh_mesh::Mesh;
use paymesh_types::{UserId, VaultToken};
use tokio::time::Instant;

/// What a vault says of a card that a payment is to be made by.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) brand: Brand,
}

/// The vaults of the mesh.
#[derive(Debug, Clone)]
pub(super) struct Vaults {
    mesh: Mesh,
}

impl Vaults {
    pub(super) fn new(mesh: Mesh) -> Self {
        Self { mesh }
    }

    /// Describes a card of `payer`'s.
    ///
    /// # Errors
    /// NOT_FOUND `TOKEN_NOT_FOUND`, the same for a card of another user; what the vault or the way there says.
    pub(super) async fn describe(&self, token: &VaultToken, payer: UserId, until: Instant) -> Result<Described, Fault> {
        let mut request = tonic::Request::new(DescribeTokenRequest { vault_token: token.to_string() });
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        let answer = VaultServiceClient::new(self.mesh.channel()).describe_token(request).await;
        let described = match answer {
            Ok(answer) => answer.into_inner().description.unwrap_or_default(),
            Err(status) => return Err(Fault::from_status(&status)),
        };
        if described.user_id != payer.get() {
            return Err(Fault::not_found("TOKEN_NOT_FOUND", format!("user {payer} has no card {token}")).with_field("card.vault_token"));
        }
        Ok(Described { brand: brand(described.brand()) })
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
