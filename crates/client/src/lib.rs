//! The client library of internal services: one call, and what it takes to make it safely.
//!
//! [`Client::call`] takes any request of the contract that moves money, is about cards, or reads, and
//!
//! - ends by its deadline, whatever happens on the way;
//! - gives a write its request id, once, so that sending it again has one effect;
//! - sends again what may be sent again, at another endpoint where there is one, after a pause that grows and varies, as long as
//!   the retry budget that all calls of the client share is not used up;
//! - reads near by, and never less than the [`Session`] has written or was told that it read: at the node that it reached where that
//!   keeps a copy that has come so far, and else at the home.
//!
//! ```no_run
//! use paymesh_client::{Client, Options, Session, Token, Trust};
//! use paymesh_contract::{
//!     common::v1::Money,
//!     directory::v1::EnrollUserRequest,
//!     wallet::v1::{DepositRequest, GetBalanceRequest},
//! };
//!
//! # async fn example() -> Result<(), paymesh_client::Error> {
//! let trust = Trust::load("credentials".as_ref()).expect("the authorities that are believed");
//! let options = Options { trust: Some(trust), token: Some(Token::File("/run/secrets/paymesh/token".into())), ..Options::default() };
//! let client = Client::connect(["https://127.0.0.1:7102"], options)?;
//! let session = Session::new();
//! // With an id of its own, so that another run of this asks for the same once more and gets the same answer.
//! let enrol = EnrollUserRequest {
//!     request_id: "0190b8f5-0000-7000-8000-000000000005".to_owned(),
//!     user_id: 4_102,
//!     residence_country: "DE".to_owned(),
//!     currency_codes: vec!["EUR".to_owned()],
//! };
//! client.call(&session, enrol).await?;
//! let amount = Some(Money { minor_units: 1_000, currency_code: "EUR".to_owned() });
//! client.call(&session, DepositRequest { user_id: 4_102, amount, ..DepositRequest::default() }).await?;
//! // At a copy in this region, if it has the deposit by now.
//! let answer = client.call(&session, GetBalanceRequest { user_id: 4_102, ..GetBalanceRequest::default() }).await?;
//! println!("{} read at {:?}", answer.balances.len(), answer.source);
//! // Another process, perhaps in another region, goes on from here.
//! let token = session.token();
//! # let _ = token;
//! # Ok(())
//! # }
//! ```
//!
//! [`seal`] seals a card to the vault's key that [`GetVaultKeyRequest`](paymesh_contract::vault::v1::GetVaultKeyRequest) asks for, so that no node on the way sees it. [`Vaults`] tells whether
//! the key is the vault's, or one that somebody between has put in its place:
//!
//! ```no_run
//! use std::time::SystemTime;
//!
//! use paymesh_client::{Card, CardNumber, Client, Expiry, Session, Trust, Vaults, seal};
//! use paymesh_contract::vault::v1::{GetVaultKeyRequest, TokenizeRequest};
//!
//! # async fn example(client: Client, trust: Trust) -> Result<(), Box<dyn std::error::Error>> {
//! let vaults = [("eu".parse()?, "eu_west".parse()?), ("global".parse()?, "us_east".parse()?)];
//! let vaults = Vaults::new(trust, "paymesh-dev", vaults).expect("the mesh's name, as region-config has it");
//! let session = Session::new();
//! let answer = client.call(&session, GetVaultKeyRequest { user_id: 4_102 }).await?;
//! let key = vaults.key(4_102, &answer, SystemTime::now())?;
//! let card = Card { number: CardNumber::parse("4242424242424242")?, expiry: Expiry::new(7, 2031)? };
//! let sealed_card = Some(seal(&card, &key)?);
//! client.call(&session, TokenizeRequest { user_id: 4_102, sealed_card, ..TokenizeRequest::default() }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A write whose end is not known when its time is over is [`Error::Unknown`], with the id under which it can be sent again, or
//! asked about with [`Client::outcome`]. Left to the caller: what a decline means, batches and streams.

#![forbid(unsafe_code)]

mod budget;
mod calls;
mod client;
mod sealing;
mod session;
mod token;

pub use calls::Call;
pub use client::{Client, Options};
pub use paymesh_cards::{Card, CardNumber, Expiry};
pub use paymesh_identity::Trust;
pub use sealing::{SealError, VaultKey, Vaults, seal};
pub use session::{POSITIONS_MAX, Session, TokenError};
pub use token::Token;

use paymesh_contract::Fault;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An endpoint cannot be dialled.
    #[error("the endpoint `{endpoint}` cannot be dialled: {source}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// There is no endpoint.
    #[error("a client needs at least one endpoint")]
    NoEndpoints,
    /// Nobody is believed who answers at an `https` endpoint.
    #[error("{endpoint} needs the authorities that are believed there: Options::trust")]
    NoTrust {
        /// The endpoint.
        endpoint: String,
    },
    /// There is no token to be shown. Nothing was sent by this try.
    #[error("{place}: {why}")]
    Token {
        /// The file, where it is one.
        place: String,
        /// Why not.
        why: String,
    },
    /// It was refused, and is not to be sent again as it is; or every try was turned away before anything was done, as the fault's reason
    /// says (NODE_OVERLOADED, PEER_SILENT and such); or it only reads, and no answer came in time.
    #[error(transparent)]
    Refused(Box<Fault>),
    /// A write may have had its effect, now or until its last deadline has passed. Sending it again with this id is safe.
    #[error("what became of request {request_id} is not known: {fault}")]
    Unknown {
        /// The write's request id.
        request_id: String,
        /// What the last try ended with.
        fault: Box<Fault>,
    },
}
