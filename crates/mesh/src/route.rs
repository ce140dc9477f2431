//! Where a call belongs: from its method's annotations and its message's bytes to a shard and the region that leads it.
//!
//! Pure. [`plan`] reads the key and says what it names; [`shard`] turns that into a shard, given the user's zone where one is
//! needed (only the directory knows it, and asking it takes time, so that is left to the caller); [`leader`] names the region.

use paymesh_access::{Caller, Refusal};
use paymesh_contract::{Fault, KeyPath, KeyValue, MethodPolicy, Target, common::v1::ReadLevel};
use paymesh_topology::Topology;
use paymesh_types::{Country, PaymentId, RegionName, ShardRef, UserId, VaultToken, ZoneName};
use tonic::Code;

/// What a call's key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: the node that was reached answers.
    Local,
    /// A user, who lives in the zone that the directory knows.
    User(UserId),
    /// A payment, which carries its home.
    Payment(PaymentId),
    /// A user to enrol, and the country of residence that decides the zone.
    Resident(Country, UserId),
    /// A user to be claimed or looked up in the directory.
    Directory(UserId),
    /// A journal.
    Journal(ShardRef),
    /// The cards of a user, who lives in the zone that the directory knows.
    CardsOf(UserId),
    /// A card that a vault keeps; it carries its zone.
    Card(VaultToken),
    /// A payment of a user that is to be scored.
    PaymentOf(UserId),
    /// The vault of a zone.
    VaultOf(ZoneName),
}

/// Reads what a call's message names by its method's annotations, without decoding the message.
///
/// # Errors
/// INVALID_ARGUMENT: `MALFORMED_REQUEST` when the bytes are no message, `INVALID_FIELD` when the key is absent or no such key.
pub fn plan(policy: &MethodPolicy, message: &[u8]) -> Result<Plan, Fault> {
    let key = || Key::of(policy, policy.key.as_ref(), message);
    let shard_key = || Key::of(policy, policy.shard_key.as_ref(), message);
    match policy.target {
        Target::Local => Ok(Plan::Local),
        Target::Replica if policy.shard_key.is_some() => {
            let zone = key()?;
            let zone = zone.parse(zone.text()?)?;
            // Shard 0 looks like an absent field on the wire.
            let index = match policy.shard_key.as_ref().map(|path| path.extract(message)).transpose()?.flatten() {
                None => 0,
                Some(KeyValue::Number(index)) => u16::try_from(index).map_err(|_| shard_not_found())?,
                Some(KeyValue::Text(_)) => return Err(misannotated(policy)),
            };
            Ok(Plan::Journal(ShardRef { zone, index }))
        }
        Target::Home | Target::Replica => {
            let key = key()?;
            match key.value {
                KeyValue::Number(_) => Ok(Plan::User(key.user()?)),
                KeyValue::Text(text) => Ok(Plan::Payment(key.parse(text)?)),
            }
        }
        Target::Zone => {
            let country = key()?;
            let country = country.parse(country.text()?)?;
            Ok(Plan::Resident(country, shard_key()?.user()?))
        }
        Target::Directory => Ok(Plan::Directory(key()?.user()?)),
        Target::Vault => {
            let key = key()?;
            match key.value {
                KeyValue::Number(_) => Ok(Plan::CardsOf(key.user()?)),
                KeyValue::Text(text) => Ok(Plan::Card(key.parse(text)?)),
            }
        }
        Target::Fraud => Ok(Plan::PaymentOf(key()?.user()?)),
        Target::VaultOfZone => {
            let zone = key()?;
            Ok(Plan::VaultOf(zone.parse(zone.text()?)?))
        }
    }
}

/// Whether a copy at this node may answer the call: its method says that it reads, and its message that it may be read here.
///
/// # Errors
/// INVALID_ARGUMENT `MALFORMED_REQUEST`.
pub fn reads_here(policy: &MethodPolicy, message: &[u8]) -> Result<bool, Fault> {
    let level = policy.read_level.as_ref().map(|path| path.extract(message)).transpose()?.flatten();
    Ok(level == Some(KeyValue::Number(ReadLevel::Local as u64)))
}

/// The shard that a plan leads to; `zone` is the user's, for [`Plan::User`]. None for [`Plan::Local`], and for what a [`vault`] or [`fraud`]
/// detection answers.
///
/// # Errors
/// NOT_FOUND `USER_NOT_FOUND`, `PAYMENT_NOT_FOUND` or `SHARD_NOT_FOUND`; FAILED_PRECONDITION `COUNTRY_NOT_SERVED`.
pub fn shard(topology: &Topology, plan: &Plan, zone: Option<&ZoneName>) -> Result<Option<ShardRef>, Fault> {
    let shard = match plan {
        Plan::Local | Plan::CardsOf(_) | Plan::Card(_) | Plan::PaymentOf(_) | Plan::VaultOf(_) => return Ok(None),
        Plan::User(user) => {
            let zone = zone.ok_or_else(|| user_not_found(*user))?;
            topology.home(zone, *user).ok_or_else(|| {
                let message = format!("user {user} belongs to zone `{zone}`, which is not in this node's region-config");
                Fault::new(Code::FailedPrecondition, "COUNTRY_NOT_SERVED", message)
            })?
        }
        Plan::Payment(payment) => {
            let shard = payment.shard();
            // The directory has a leader and no payments.
            if topology.zone(&shard.zone).is_none_or(|zone| shard.index >= zone.shards) {
                return Err(Fault::not_found("PAYMENT_NOT_FOUND", format!("payment {payment} is of a shard that the mesh does not have")));
            }
            shard.clone()
        }
        Plan::Resident(country, user) => {
            let not_served = || {
                let message = "no zone takes residents of that country: add it to a zone's countries in region-config";
                Fault::new(Code::FailedPrecondition, "COUNTRY_NOT_SERVED", message)
            };
            let zone = topology.zone_of_country(*country).ok_or_else(not_served)?;
            topology.home(zone, *user).ok_or_else(not_served)?
        }
        Plan::Directory(user) => topology.directory_shard(*user),
        Plan::Journal(shard) => shard.clone(),
    };
    Ok(Some(shard))
}

/// The region whose vault answers; `zone` is the user's, for [`Plan::CardsOf`]. None: what the plan names is no vault's.
///
/// # Errors
/// NOT_FOUND `USER_NOT_FOUND`, `TOKEN_NOT_FOUND` or `ZONE_NOT_FOUND`; FAILED_PRECONDITION `VAULT_NOT_IN_ZONE`.
pub fn vault<'a>(topology: &'a Topology, plan: &Plan, zone: Option<&ZoneName>) -> Result<Option<&'a RegionName>, Fault> {
    let zone = match plan {
        Plan::CardsOf(user) => zone.ok_or_else(|| user_not_found(*user))?,
        Plan::Card(token) if topology.zone(token.zone()).is_none() => {
            return Err(Fault::not_found("TOKEN_NOT_FOUND", format!("token {token} is of a zone that the mesh does not have")));
        }
        Plan::Card(token) => token.zone(),
        Plan::VaultOf(zone) if topology.zone(zone).is_none() => {
            return Err(Fault::not_found("ZONE_NOT_FOUND", format!("the mesh has no zone `{zone}`")));
        }
        Plan::VaultOf(zone) => zone,
        _ => return Ok(None),
    };
    topology.vault(zone).map(Some).ok_or_else(|| {
        let message = format!("no region of zone `{zone}` runs a vault: add `vault` to the services of one in region-config");
        Fault::new(Code::FailedPrecondition, "VAULT_NOT_IN_ZONE", message)
    })
}

/// The region whose fraud detection answers; `zone` is the user's, for [`Plan::PaymentOf`]. None: what the plan names is not fraud detection's.
///
/// # Errors
/// NOT_FOUND `USER_NOT_FOUND`; FAILED_PRECONDITION `FRAUD_NOT_IN_ZONE`.
pub fn fraud<'a>(topology: &'a Topology, plan: &Plan, zone: Option<&ZoneName>) -> Result<Option<&'a RegionName>, Fault> {
    let Plan::PaymentOf(user) = plan else { return Ok(None) };
    let zone = zone.ok_or_else(|| user_not_found(*user))?;
    topology.fraud(zone, *user).map(Some).ok_or_else(|| {
        let message =
            format!("no region of zone `{zone}` runs fraud detection: add `fraud_detection` to the services of one in region-config");
        Fault::new(Code::FailedPrecondition, "FRAUD_NOT_IN_ZONE", message)
    })
}

/// Whether a caller may make a call at all about what the plan names, whatever the zone is of its user: what is known without asking the directory. Not that it may:
/// see [`allowed`].
///
/// # Errors
/// As of [`allowed`].
pub fn allowed_to_ask(plan: &Plan, caller: &Caller) -> Result<(), Refusal> {
    match plan {
        Plan::User(user) | Plan::CardsOf(user) | Plan::PaymentOf(user) => caller.acts_for_id(*user),
        _ => Ok(()),
    }
}

/// Whether a caller may make a call about what the plan names; `zone` is the user's, for [`Plan::User`], [`Plan::CardsOf`] and [`Plan::PaymentOf`]. Whose a payment or
/// a card is, and each user of a list, is known to the services alone.
///
/// # Errors
/// What the caller is refused with. It is the same for a user who is not there and for one whom the caller does not act for.
pub fn allowed(topology: &Topology, plan: &Plan, zone: Option<&ZoneName>, caller: &Caller) -> Result<(), Refusal> {
    match plan {
        Plan::Local => Ok(()),
        Plan::User(user) | Plan::CardsOf(user) | Plan::PaymentOf(user) => caller.acts_for(*user, zone),
        Plan::Payment(payment) => caller.acts_in(&payment.shard().zone),
        Plan::Card(token) => caller.acts_in(token.zone()),
        Plan::Resident(country, user) => caller.acts_for(*user, topology.zone_of_country(*country)),
        Plan::Directory(_) => caller.acts_for_all(),
        Plan::Journal(shard) => caller.acts_for_all_of(&shard.zone),
        Plan::VaultOf(zone) => caller.acts_for_all_of(zone),
    }
}

/// The region that leads a shard.
///
/// # Errors
/// NOT_FOUND `SHARD_NOT_FOUND`.
pub fn leader<'a>(topology: &'a Topology, shard: &ShardRef) -> Result<&'a RegionName, Fault> {
    topology.leader(shard).ok_or_else(shard_not_found)
}

fn user_not_found(user: UserId) -> Fault {
    Fault::not_found("USER_NOT_FOUND", format!("user {user} is not enrolled"))
}

fn shard_not_found() -> Fault {
    Fault::not_found("SHARD_NOT_FOUND", "the mesh has no such shard")
}

/// The contract's tests rule it out; a panic would still be the wrong answer to a caller.
fn misannotated(policy: &MethodPolicy) -> Fault {
    Fault::new(Code::Internal, "CONTRACT_MALFORMED", format!("the key of {} is of a type that does not fit its target", policy.path))
}

/// A key and where it was found.
struct Key<'a> {
    policy: &'a MethodPolicy,
    path: &'a KeyPath,
    value: KeyValue<'a>,
}

impl<'a> Key<'a> {
    fn of(policy: &'a MethodPolicy, path: Option<&'a KeyPath>, message: &'a [u8]) -> Result<Self, Fault> {
        let path = path.ok_or_else(|| misannotated(policy))?;
        match path.extract(message)? {
            Some(value) => Ok(Self { policy, path, value }),
            None => Err(Fault::invalid_field(path.as_str(), format!("`{path}` is missing, and the call is routed by it"))),
        }
    }

    fn user(&self) -> Result<UserId, Fault> {
        let KeyValue::Number(number) = self.value else { return Err(misannotated(self.policy)) };
        UserId::try_from(number).map_err(|error| Fault::invalid_field(self.path.as_str(), error.to_string()))
    }

    fn text(&self) -> Result<&'a str, Fault> {
        match self.value {
            KeyValue::Text(text) => Ok(text),
            KeyValue::Number(_) => Err(misannotated(self.policy)),
        }
    }

    fn parse<T: std::str::FromStr<Err = paymesh_types::Invalid>>(&self, text: &str) -> Result<T, Fault> {
        text.parse().map_err(|error: paymesh_types::Invalid| Fault::invalid_field(self.path.as_str(), error.to_string()))
    }
}

#[cfg(test)]
mod tests;
