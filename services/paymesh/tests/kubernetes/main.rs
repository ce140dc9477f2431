//! deploy/kubernetes: that it is what region-config makes, that a cluster would take it, and that it fits the binary.
//!
//! What an overlay builds to is looked at as a whole, which takes kubectl (`kubectl kustomize`, no cluster); and held against Kubernetes' own schemas, which takes the Python
//! package kubernetes-validate, in the folder that `PAYMESH_KUBERNETES_VALIDATE` names. Where one of the two is not here, its tests say so and pass.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "in a test, what cannot be had ends it")]
#![allow(clippy::print_stderr, reason = "what could not be looked at is said")]

mod built;
mod container;
mod policies;
mod rendered;
mod schemas;
mod served;
#[path = "../mesh/support.rs"]
#[allow(dead_code, reason = "shared with the tests in mesh, which use more of it")]
mod support;
