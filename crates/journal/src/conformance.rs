//! What every engine must do, as a suite that runs against any of them.
//!
//! [`journal`] and [`tables`] run all checks of a port, one after the other; each panics with what did not hold. An engine
//! takes part by saying how a place for one shard's storage is made, opened and found again after a crash ([`Engine`]).
//! Random runs follow from their seeds, which the panics name. [`stream`] is where their entries come from.

mod chain;
mod checkpoints;
mod history;
mod origin;
mod rows;
pub mod stream;

use std::future::Future;

use paymesh_types::ShardRef;

use crate::{Error, Holding, Identity, Store};

/// An engine under test.
pub trait Engine: Sync {
    /// Where one shard's storage is.
    type Place: Send + Sync;

    /// An empty place.
    fn place(&self) -> impl Future<Output = Self::Place> + Send;

    /// Opens what is there, and makes it where it is missing, as another process would: others may have it open.
    fn open(&self, place: &Self::Place, identity: &Identity) -> impl Future<Output = Result<Store, Error>> + Send;

    /// The place as it is found when the process ends now, without a word to anybody.
    fn crash(&self, place: Self::Place) -> impl Future<Output = Self::Place> + Send;
}

/// Runs the checks of [`crate::Journal`].
///
/// # Panics
/// When the engine does not do as the port says.
pub async fn journal<E: Engine>(engine: &E) {
    chain::an_empty_journal_has_nothing_in_it(engine).await;
    chain::segments_come_back_byte_for_byte(engine).await;
    chain::a_read_begins_with_the_segment_that_holds_the_entry(engine).await;
    chain::a_read_keeps_to_its_bound_but_gives_at_least_one(engine).await;
    chain::what_does_not_follow_the_head_is_refused(engine).await;
    chain::a_leader_is_fenced_off_by_the_next(engine).await;
    chain::segments_of_another_leader_are_added_all_or_none(engine).await;
    chain::each_leader_gets_an_epoch_of_its_own(engine).await;
    chain::one_of_two_that_append_at_once_wins(engine).await;
    chain::a_journal_is_the_same_when_it_is_opened_again(engine).await;
    chain::what_was_appended_survives_a_crash(engine).await;
    chain::storage_of_another_shard_is_refused(engine).await;
    chain::a_stored_journal_follows_its_chain(engine).await;
    origin::what_is_not_kept_is_refused_and_the_rest_is_as_it_was(engine).await;
    origin::a_journal_is_cut_where_a_segment_ends_and_by_its_leader_only(engine).await;
    origin::a_journal_of_which_nothing_is_kept_goes_on(engine).await;
    origin::an_older_copy_jumps_and_a_newer_one_does_not(engine).await;
}

/// Runs the checks of [`crate::Checkpoints`], and of what [`crate::Tables`] have to do with them.
///
/// # Panics
/// When the engine does not do as the port says.
pub async fn checkpoints<E: Engine>(engine: &E) {
    checkpoints::tables_made_of_a_checkpoint_are_those_that_it_was_made_of(engine).await;
    checkpoints::what_is_not_finished_is_no_checkpoint(engine).await;
    checkpoints::one_that_is_fetched_goes_on_where_it_was_cut_off(engine).await;
    checkpoints::the_next_replaces_the_one_before(engine).await;
    checkpoints::tables_that_hold_something_are_not_restored_over(engine).await;
    checkpoints::a_chunk_that_is_not_what_was_written_is_refused(engine).await;
}

/// Runs the checks of [`crate::Tables`].
///
/// # Panics
/// When the engine does not do as the port says.
pub async fn tables<E: Engine>(engine: &E) {
    rows::empty_tables_have_nothing_in_them(engine).await;
    rows::every_kind_of_record_comes_back(engine).await;
    rows::projecting_at_once_is_projecting_one_by_one(engine).await;
    rows::rows_and_cursor_are_written_together_or_not_at_all(engine).await;
    rows::a_projection_that_does_not_follow_the_cursor_is_refused(engine).await;
    rows::a_snapshot_has_every_row_of_one_moment(engine).await;
    rows::tables_are_the_same_when_they_are_opened_again(engine).await;
    rows::after_a_crash_rows_and_cursor_still_belong_together(engine).await;
    history::statements_add_up_and_are_walked_backwards(engine).await;
    history::walks_end_at_their_limit(engine).await;
    history::payments_are_walked_by_account_and_say_whether_they_arrived(engine).await;
    history::holds_are_due_in_the_order_they_run_out(engine).await;
    history::request_ids_are_forgotten_by_age_and_oldest_first(engine).await;
    history::a_request_id_that_was_forgotten_can_be_used_again(engine).await;
    history::numbers_that_nobody_gave_out_name_nothing(engine).await;
}

/// The shard that the checks are about.
pub fn shard() -> ShardRef {
    ShardRef { zone: "eu".parse().expect("a zone's name"), index: 1 }
}

/// Whose storage the checks open.
pub fn identity() -> Identity {
    Identity { mesh: "conformance".to_owned(), shard: shard(), shards: 4, holding: Holding::Whole }
}

async fn open<E: Engine>(engine: &E, place: &E::Place) -> Store {
    engine.open(place, &identity()).await.expect("the storage opens")
}

async fn empty<E: Engine>(engine: &E) -> (E::Place, Store) {
    let place = engine.place().await;
    let store = open(engine, &place).await;
    (place, store)
}
