//! The contract's methods, found by a call's path at the cost of one hash.

use std::{collections::HashMap, sync::OnceLock};

use paymesh_contract::{MethodPolicy, policies};

/// One method of the contract.
#[derive(Debug)]
pub(crate) struct Method {
    /// What its annotations say.
    pub(crate) policy: &'static MethodPolicy,
    /// Its number, from 0, for tables with a line per method.
    pub(crate) index: usize,
}

impl Method {
    /// Whether requests or answers are streams, which last as long as their caller wants.
    pub(crate) fn is_streaming(&self) -> bool {
        self.policy.client_streaming || self.policy.server_streaming
    }
}

/// The method of a path such as `/paymesh.wallet.v1.WalletService/GetBalance`. None for what the contract does not
/// have, gRPC's health and reflection among it.
pub(crate) fn method(path: &str) -> Option<&'static Method> {
    methods().get(path)
}

/// Every method by its path.
pub(crate) fn methods() -> &'static HashMap<&'static str, Method> {
    static METHODS: OnceLock<HashMap<&'static str, Method>> = OnceLock::new();
    METHODS
        .get_or_init(|| policies().methods().enumerate().map(|(index, policy)| (policy.path.as_str(), Method { policy, index })).collect())
}
