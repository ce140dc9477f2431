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

/// What a call holds while it lasts; each has places of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request and its answer.
    Call,
    /// A stream, which lasts as long as its caller wants.
    Stream,
    /// A stream between nodes, which lasts as long as they do: as many as there are shards to follow.
    Feed,
}

impl Method {
    /// What a call of it holds.
    pub(crate) fn kind(&self) -> Kind {
        match (self.is_streaming(), self.policy.nodes_only) {
            (false, _) => Kind::Call,
            (true, false) => Kind::Stream,
            (true, true) => Kind::Feed,
        }
    }

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
