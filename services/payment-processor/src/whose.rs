//! Whose a payment is, and each user of a list: what the mesh cannot see of a request, and looks up with the caller all the same.
//!
//! A call that came through the mesh has its caller. One without comes from nobody, who may do nothing.

use paymesh_access::{Caller, Refusal};
use paymesh_contract::Fault;
use paymesh_mesh::Call;
use paymesh_shard::{Bounds, PaymentView, Reader, Shard};
use paymesh_types::PaymentId;
use tokio::time::Instant;
use tonic::Request;

use crate::error;

/// Who sends a request.
pub(crate) fn caller<T>(request: &Request<T>) -> Caller {
    Call::of(request).map_or(Caller::Nobody, |call| call.caller().clone())
}

/// Whether a caller may know of a payment that is or is not there: it acts for payer or payee. Who acts for some users only is told the same
/// of one that is not there and of one that is others'.
///
/// # Errors
/// `NOT_YOUR_USER`.
pub(crate) fn may_know(caller: &Caller, found: Option<&PaymentView>) -> Result<(), Fault> {
    let verdict = match found {
        Some(found) => caller.acts_for_either(found.row.payment.payer, found.row.payment.payee),
        None if caller.is_bound_to_users() => Err(Refusal::NotYourUser),
        None => Ok(()),
    };
    verdict.map_err(Fault::from)
}

/// The same for a payment that is about to be changed, led here. Its ends never change, so what was seen before holds.
///
/// # Errors
/// `NOT_YOUR_USER`; `SHARD_NOT_SERVING`, where it cannot be seen.
pub(crate) async fn may_change(caller: &Caller, shard: &Shard, payment: &PaymentId) -> Result<(), Fault> {
    // Most callers act for all users of their zones, which the mesh has looked at: they wait for no table.
    if !caller.is_bound_to_users() {
        return Ok(());
    }
    let now = Instant::now();
    let view = Reader::Led(shard.clone()).view(&Bounds::default(), now, now).await.map_err(error::failed)?;
    let found = view.payment(payment).await.map_err(error::failed)?;
    may_know(caller, found.as_ref())
}
