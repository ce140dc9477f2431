//! The contract: generated stubs, the descriptor set, and what its annotations say.
//!
//! The `.proto` files are the only policy. This crate promises that every method has a route and scopes, that every field
//! has a class, that messages with sensitive fields do not print them, that no message is decoded that would take far more
//! memory than its bytes, and that one [`Fault`] is the shape of every error that leaves a node. Enforcing routes and scopes
//! is left to `paymesh-mesh`.

#![forbid(unsafe_code)]

pub mod codec;
mod convert;
mod fault;
mod key;
pub mod policy;
mod redact;

pub use convert::{instant, timestamp};
pub use fault::{DOMAIN, Fault, code_name};
pub use key::{KeyError, KeyPath, KeyValue, has_more_fields};
pub use options::v1::DataClass;
pub use policy::{MethodPolicy, Policies, Target, policies};

/// Every `.proto` file with its imports, comments and annotations, encoded as a `google.protobuf.FileDescriptorSet`:
/// what gRPC server reflection serves and what [`policies`] reads.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));

/// Declares `pub mod $domain { pub mod v1 { the generated code } }`.
macro_rules! generated {
    ($($domain:ident: $doc:literal),+ $(,)?) => {$(
        #[doc = $doc]
        pub mod $domain {
            /// Version 1.
            #[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code keeps its generator's style")]
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/paymesh.", stringify!($domain), ".v1.rs"));
            }
        }
    )+};
}

generated! {
    options: "The annotations.",
    common: "What every domain shares.",
    wallet: "Wallets: accounts, balances, statements.",
    payments: "Payments from one user to another.",
    directory: "Users and their zones.",
    events: "What journals hold, and how to tail them.",
    replication: "Journals between regions.",
    audit: "What was asked of a node, by whom, and what came of it.",
    fraud: "How likely a payment is to be fraud, and why.",
    vault: "Cards, and the tokens that stand for them.",
    mesh: "Topology, status, and the proof of the books.",
}
