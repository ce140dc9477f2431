//! Whole-process tests of a mesh whose regions lie oceans apart, while links fail and nodes are stopped and killed.
//!
//! Every node is the real binary with storage of its own. Between two regions everything takes 40 to 120 ms each way, and is cut,
//! cut one way or slowed down as a plan says that was drawn from a seed ([`plan`]). What carries the bytes is the best that the
//! machine gives: network namespaces of the test's own with packets that are really lost ([`packets`]), or TCP proxies
//! ([`proxies`]), in which case each node has a configuration of its own that names its proxies as the other regions' endpoints. Both
//! are told what to do through [`links`].
//!
//! `SEED=...` repeats a run's plan and requests; `PAYMESH_FAULTS_NETWORK` is `namespaces` or `proxies`; `PAYMESH_SOAK=1` is the nightly
//! form.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "in a test, what cannot be had ends it")]
#![allow(clippy::print_stdout, reason = "seeds and figures are shown when a test fails, and in the nightly form")]

mod cuts;
mod history;
mod links;
mod load;
mod packets;
mod plan;
mod proxies;
mod run;
#[path = "../mesh/support.rs"]
#[allow(dead_code, reason = "shared with the tests in mesh, which use more of it")]
mod support;
mod world;
