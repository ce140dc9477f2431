//! Short names for the generated modules of the contract.

pub(crate) use paymesh_contract::{
    common::v1 as common, directory::v1 as directory, mesh::v1 as mesh, payments::v1 as payments, replication::v1 as replication,
    vault::v1 as vault, wallet::v1 as wallet,
};
