//! `paymesh token`: tokens for a mesh on one machine.

use std::time::{Duration, SystemTime};

use paymesh_access::{TokenIssuer, Wanted};
use paymesh_contract::policies;
use paymesh_topology::{ACCESS_FILE_NAME, Access};

use crate::{
    args::{Setting, TokenArgs},
    client,
    exit::{Exit, unusable},
    note, say,
};

/// Runs the command.
pub(crate) fn run(setting: &Setting, args: &TokenArgs) -> anyhow::Result<Exit> {
    let topology = client::load(&setting.config)?;
    let file = setting.config.join(ACCESS_FILE_NAME);
    let access = Access::load(&setting.config, &topology, &policies().caller_scopes()).map_err(unusable)?;
    let access = access.ok_or_else(|| unusable(format!("{} does not exist: it says who may call", file.display())))?;
    let principal = access.principals().iter().find(|principal| principal.name == args.principal).ok_or_else(|| {
        let known: Vec<&str> = access.principals().iter().map(|principal| principal.name.as_str()).collect();
        unusable(format!("{} has no principal `{}`; it has {}", file.display(), args.principal, known.join(", ")))
    })?;
    let issuer = principal.tokens.as_ref().and_then(|tokens| access.issuers().iter().find(|issuer| issuer.name == tokens.issuer));
    let issuer = issuer.ok_or_else(|| unusable(format!("{} is not known by tokens, but by a certificate", principal.name)))?;
    let credentials = setting.credentials.as_deref().ok_or_else(|| unusable("in plain text nobody needs a token"))?;
    let wanted =
        Wanted { holds: Duration::from_secs(u64::from(args.minutes) * 60), scopes: args.scopes.clone(), users: args.users.clone() };
    let own = TokenIssuer::open(credentials)
        .map_err(|error| unusable(format!("{error}; `paymesh certs {}` makes an issuer for development", credentials.display())))?;
    let issued = own.issue(issuer, principal, &wanted, SystemTime::now()).map_err(unusable)?;
    say!("{}", issued.token);
    note!("it is {}'s for {} minutes", principal.name, args.minutes);
    Ok(Exit::Good)
}
