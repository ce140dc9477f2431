//! VaultService over a vault, once that is open.

use paymesh_access::{Caller, Refusal};
use paymesh_acquirers::{Decision, Failure};
use paymesh_cards::{Brand, SEALING_KEY_PURPOSE, sealing_key_statement};
use paymesh_contract::{
    Fault, timestamp,
    vault::v1::{
        self as proto, AuthorizeRequest, AuthorizeResponse, DeleteTokenRequest, DeleteTokenResponse, DescribeTokenRequest,
        DescribeTokenResponse, EraseUserRequest, EraseUserResponse, GetVaultKeyRequest, GetVaultKeyResponse, RotateKeysRequest,
        RotateKeysResponse, RotationState, TokenizeRequest, TokenizeResponse, VaultKeySignature,
        vault_service_server::{VaultService, VaultServiceServer},
    },
};
use paymesh_mesh::{Call, Mesh, Worded};
use paymesh_types::{UserId, VaultToken};
use tokio::{sync::watch, time::Instant};
use tonic::{Code, Request, Response, Status};

use crate::{Acquirers, Description, Error, Offered, Vault, door, error::unavailable, homes};

/// The service of a vault, for a node's listener. `vault` has it once it is open: until then calls are told to come again. `acquirers` are those that it sends
/// cards to.
pub fn service(vault: watch::Receiver<Option<Vault>>, mesh: Mesh, acquirers: Acquirers) -> Worded<VaultServiceServer<impl VaultService>> {
    Worded(VaultServiceServer::new(Service { vault, mesh, acquirers }))
}

struct Service {
    vault: watch::Receiver<Option<Vault>>,
    mesh: Mesh,
    acquirers: Acquirers,
}

impl Service {
    fn vault(&self) -> Result<Vault, Fault> {
        self.vault.borrow().clone().ok_or_else(|| unavailable("the vault is not open".to_owned()))
    }

    /// The vault, where it is that of the user's zone.
    async fn vault_of(&self, user: UserId) -> Result<Vault, Fault> {
        let vault = self.vault()?;
        match self.mesh.directory().zone_of(user).await? {
            Some(zone) if zone == *vault.zone() => Ok(vault),
            // The mesh brings no such call here; what it does not bring is not a user of this zone.
            _ => Err(Fault::not_found("USER_NOT_FOUND", format!("user {user} is no user of zone {}", vault.zone())).with_field("user_id")),
        }
    }

    /// The vault, and whose card a token stands for, where the caller acts for that one. Who acts for some users only is told the same of a token that does
    /// not exist.
    async fn vault_for<T>(&self, request: &Request<T>, token: &VaultToken) -> Result<(Vault, UserId), Fault> {
        let (call, nobody) = (Call::of(request), Caller::Nobody);
        let caller = call.map_or(&nobody, Call::caller);
        let vault = self.vault()?;
        // Homes have cards charged, and those are of the zone: a node of another has nothing to ask for on its own behalf.
        if let Caller::Node(region) = caller
            && !self.mesh.topology().is_of(region, vault.zone())
        {
            return Err(Refusal::NotYourZone.into());
        }
        match vault.owner(token).await {
            Ok(user) => {
                caller.acts_for(user, Some(vault.zone()))?;
                if let Some(call) = call {
                    call.is_about([user].into_iter());
                }
                Ok((vault, user))
            }
            Err(Error::TokenNotFound(_)) if caller.is_bound_to_users() => Err(Refusal::NotYourUser.into()),
            Err(Error::TokenNotFound(token)) => {
                caller.acts_in(vault.zone())?;
                Err(Error::TokenNotFound(token).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[tonic::async_trait]
impl VaultService for Service {
    async fn get_vault_key(&self, request: Request<GetVaultKeyRequest>) -> Result<Response<GetVaultKeyResponse>, Status> {
        let user = door::user(request.get_ref().user_id)?;
        let vault = self.vault_of(user).await?;
        let key = vault.sealing_key().await.map_err(Fault::from)?;
        // It goes back through any hands, and whoever's key is sealed to reads the card. For this user, who is of this zone: another zone's vault says it of no other.
        let statement = sealing_key_statement(user, vault.zone(), key.ends_at, &key.public);
        let signed = self.mesh.sign(SEALING_KEY_PURPOSE, &statement).map_err(|error| unavailable(error.to_string()))?;
        let signature = signed.map(|signed| VaultKeySignature {
            scheme: signed.scheme.into(),
            signature: signed.signature,
            certificates: signed.certificates,
        });
        Ok(Response::new(GetVaultKeyResponse {
            signature,
            key_id: key.id,
            public_key: key.public,
            zone: vault.zone().to_string(),
            ends_at: Some(timestamp(key.ends_at)),
        }))
    }

    async fn tokenize(&self, request: Request<TokenizeRequest>) -> Result<Response<TokenizeResponse>, Status> {
        let call = Call::of(&request).cloned();
        let TokenizeRequest { request_id, user_id, card, sealed_card } = request.into_inner();
        // Before anything else can end the call: the number as it was decoded is zeroed here.
        let offered = door::offered(card, sealed_card)?;
        let (request_id, user) = (door::request_id(&request_id)?, door::user(user_id)?);
        let vault = self.vault_of(user).await?;
        if matches!(offered, Offered::Clear(_)) && self.mesh.topology().zone(vault.zone()).is_some_and(|zone| zone.sealed_cards) {
            return Err(Fault::new(
                Code::FailedPrecondition,
                "CARD_NOT_SEALED",
                format!(
                    "zone {} takes sealed cards only: seal it to the key of GetVaultKey, as SealedCard in vault.proto says",
                    vault.zone()
                ),
            )
            .with_field("sealed_card")
            .into());
        }
        let description = vault.tokenize(request_id, user, offered).await.map_err(Fault::from)?;
        if let Some(call) = call {
            call.is_about_card(&description.token);
        }
        Ok(Response::new(TokenizeResponse { description: Some(described(description)) }))
    }

    async fn describe_token(&self, request: Request<DescribeTokenRequest>) -> Result<Response<DescribeTokenResponse>, Status> {
        let token = door::token(&request.get_ref().vault_token)?;
        let (vault, _) = self.vault_for(&request, &token).await?;
        let description = vault.describe(&token).await.map_err(Fault::from)?;
        Ok(Response::new(DescribeTokenResponse { description: Some(described(description)) }))
    }

    async fn delete_token(&self, request: Request<DeleteTokenRequest>) -> Result<Response<DeleteTokenResponse>, Status> {
        let (id, token) = (door::request_id(&request.get_ref().request_id)?, door::token(&request.get_ref().vault_token)?);
        let user = match self.vault_for(&request, &token).await {
            Ok((vault, user)) => {
                vault.delete(id, &token).await.map_err(Fault::from)?;
                user
            }
            Err(fault) => {
                let vault = self.vault()?;
                // The same request again, or one that found nothing.
                let user = vault.deleted_by(id, &token).await.map_err(Fault::from)?.ok_or(fault)?;
                let caller = Call::of(&request).map_or(Caller::Nobody, |call| call.caller().clone());
                caller.acts_for(user, Some(vault.zone())).map_err(Fault::from)?;
                user
            }
        };
        // Also by the same request again: the first may not have got so far.
        let position = homes::tell(&self.mesh, Call::of(&request), user, Some(&token)).await?;
        Ok(Response::new(DeleteTokenResponse { position }))
    }

    async fn erase_user(&self, request: Request<EraseUserRequest>) -> Result<Response<EraseUserResponse>, Status> {
        let (id, user) = (door::request_id(&request.get_ref().request_id)?, door::user(request.get_ref().user_id)?);
        let erased_tokens = self.vault_of(user).await?.erase(id, user).await.map_err(Fault::from)?;
        let position = homes::tell(&self.mesh, Call::of(&request), user, None).await?;
        Ok(Response::new(EraseUserResponse { erased_tokens, position }))
    }

    async fn authorize(&self, request: Request<AuthorizeRequest>) -> Result<Response<AuthorizeResponse>, Status> {
        let asked = request.get_ref();
        let (token, user) = (door::token(&asked.vault_token)?, door::user(asked.user_id)?);
        // First whether the caller may, which is nobody's to find out by what is wrong with the rest.
        let (vault, _) = self.vault_for(&request, &token).await?;
        let authorization = door::authorization(asked)?;
        let gateway = self.acquirers.choose(&asked.gateway, vault.zone()).map_err(Fault::from)?;
        let deadline = gateway.deadline(Instant::now(), Call::of(&request).and_then(Call::deadline));
        let authorized = vault.authorize(&token, user, &*gateway.acquirer, &authorization, deadline).await.map_err(Fault::from)?;
        Ok(Response::new(authorized_as(authorized)))
    }

    async fn rotate_keys(&self, request: Request<RotateKeysRequest>) -> Result<Response<RotateKeysResponse>, Status> {
        let RotateKeysRequest { request_id, zone } = request.get_ref();
        let (id, zone) = (door::request_id(request_id)?, door::zone(zone)?);
        let vault = self.vault()?;
        if zone != *vault.zone() {
            // The mesh brings no such call here.
            return Err(Fault::not_found("ZONE_NOT_FOUND", format!("this is the vault of zone {}", vault.zone()))
                .with_field("zone")
                .into());
        }
        Call::of(&request).map_or(&Caller::Nobody, Call::caller).acts_for_all_of(&zone).map_err(Fault::from)?;
        let standing = vault.begin_rotation(id).await.map_err(Fault::from)?;
        Ok(Response::new(RotateKeysResponse {
            key_number: standing.kek.get(),
            state: if standing.left.is_some() { RotationState::InProgress } else { RotationState::Over }.into(),
            keys_left: standing.left.unwrap_or_default(),
            begun_by_request: standing.begun,
        }))
    }
}

fn authorized_as(authorized: Result<Decision, Failure>) -> AuthorizeResponse {
    use proto::AuthorizationOutcome as Outcome;

    let mut response = AuthorizeResponse::default();
    let outcome = match authorized {
        Ok(Decision::Approved(charge)) => {
            response.charge_id = charge.id.to_string();
            Outcome::Approved
        }
        Ok(Decision::Declined(decline)) => {
            decline.reason.as_str().clone_into(&mut response.decline_reason);
            response.decline_code = decline.code;
            Outcome::Declined
        }
        Ok(Decision::ActionRequired { charge, challenge }) => {
            response.charge_id = charge.to_string();
            response.challenge_id = challenge.id;
            response.challenge_url = challenge.url.unwrap_or_default();
            Outcome::ActionRequired
        }
        Err(failure) => {
            failure.class.as_str().clone_into(&mut response.failure_class);
            failure.detail().clone_into(&mut response.failure_detail);
            if failure.is_certain() { Outcome::NotDone } else { Outcome::Unknown }
        }
    };
    response.outcome = outcome.into();
    response
}

fn described(description: Description) -> proto::TokenDescription {
    proto::TokenDescription {
        vault_token: description.token.to_string(),
        user_id: description.user.get(),
        brand: brand(description.brand).into(),
        bin: description.bin,
        last_four: description.last_four,
        expiry_month: u32::from(description.expiry.month()),
        expiry_year: u32::from(description.expiry.year()),
        fingerprint: description.fingerprint.to_vec(),
    }
}

fn brand(brand: Brand) -> proto::CardBrand {
    match brand {
        Brand::Visa => proto::CardBrand::Visa,
        Brand::Mastercard => proto::CardBrand::Mastercard,
        Brand::Amex => proto::CardBrand::Amex,
        Brand::Diners => proto::CardBrand::Diners,
        Brand::Discover => proto::CardBrand::Discover,
        Brand::Jcb => proto::CardBrand::Jcb,
        Brand::UnionPay => proto::CardBrand::UnionPay,
        Brand::Maestro => proto::CardBrand::Maestro,
        Brand::Mir => proto::CardBrand::Mir,
        Brand::Other => proto::CardBrand::Other,
    }
}
