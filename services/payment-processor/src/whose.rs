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

/// What a caller is about to do to a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Capture or void it: its payee decides what becomes of what is held. The money is the payer's, in whose zone the mesh has seen the caller act.
    Hold,
    /// Refund it: that is the payee's money.
    Refund,
    /// End the mandate that it has set up: that is its payer's, who gave it.
    Mandate,
    /// Go on with it once its cardholder has done what was asked: for either of its ends, who both want it.
    Confirm,
    /// Report it as fraud: it is the payer's card.
    ReportFraud,
}

/// Whether a caller may change a payment that is led here: it acts for the payee, but for mandates. A payer who could would take back what was paid, or let
/// go of what was held for another; a payee who could end a mandate would undo what the payer agreed to. A payment's ends never change, so what was seen before holds.
///
/// # Errors
/// `NOT_YOUR_USER`; `SHARD_NOT_SERVING`, where it cannot be seen.
pub(crate) async fn may_change(caller: &Caller, shard: &Shard, payment: &PaymentId, change: Change) -> Result<(), Fault> {
    // Most callers act for everybody: they wait for no table.
    if !caller.is_bound() {
        return Ok(());
    }
    let now = Instant::now();
    let view = Reader::Led(shard.clone()).view(&Bounds::default(), now, now).await.map_err(error::failed)?;
    let found = view.payment(payment).await.map_err(error::failed)?;
    let Some(found) = found else { return may_know(caller, None) };
    let of = &found.row.payment;
    let lives = of.payee_shard.as_ref().map_or(&payment.shard().zone, |shard| &shard.zone);
    let verdict = match change {
        Change::Hold => caller.acts_for_id(of.payee),
        Change::Refund => caller.acts_for(of.payee, Some(lives)),
        Change::Mandate | Change::ReportFraud => caller.acts_for_id(of.payer),
        Change::Confirm => caller.acts_for_either(of.payer, of.payee),
    };
    verdict.map_err(Fault::from)
}
