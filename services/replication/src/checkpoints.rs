//! The leader's side of a follower's beginning: where the journal begins, and in the zone the chunks of a checkpoint.

use std::sync::Arc;

use futures::{StreamExt as _, stream, stream::BoxStream};
use paymesh_contract::{
    Fault,
    events::v1::Checkpoint,
    replication::v1::{CheckpointPiece, CheckpointStart, ReadCheckpointResponse, read_checkpoint_response::Message},
};
use paymesh_journal::{Holding, Manifest};
use paymesh_shard::Shard;
use paymesh_types::Sequence;
use tonic::{Code, Status};

use crate::{plan::is_directory, serving::unavailable, wire};

type Stream = BoxStream<'static, Result<ReadCheckpointResponse, Status>>;

/// What a follower begins with that has so many chunks of the checkpoint of that root.
pub(crate) async fn read(shard: &Shard, holding: &Holding, root: &[u8], chunks: u32) -> Result<Stream, Fault> {
    let none = || {
        let message = format!("the journal of shard {} is kept from its first entry", shard.reference());
        Fault::new(Code::FailedPrecondition, "CHECKPOINT_NOT_FOUND", message)
    };
    // First where the journal begins: a checkpoint that is made meanwhile is of a later entry.
    let begins = shard.tail().origin().await.map_err(|error| unavailable(error.to_string()))?;
    if begins.sequence == Sequence(0) {
        return Err(none());
    }
    let begins = Some(wire::origin_message(&begins, holding));
    let start = |checkpoint, first_chunk| {
        let start = CheckpointStart { origin: begins, checkpoint, first_chunk };
        stream::iter([Ok(ReadCheckpointResponse { message: Some(Message::Start(start)) })])
    };
    if *holding != Holding::Whole {
        return Ok(start(None, 0).boxed());
    }
    let checkpoints = shard.store().checkpoints.clone();
    let manifest = checkpoints.latest().await.map_err(|error| unavailable(error.to_string()))?.ok_or_else(none)?;
    let total = u32::try_from(manifest.chunks.len()).unwrap_or(u32::MAX);
    let first = if manifest.root().as_slice() == root { chunks.min(total) } else { 0 };
    let start = start(Some(Checkpoint::from(&manifest)), first);
    Ok(start.chain(pieces(shard.clone(), manifest, first, total)).boxed())
}

/// The chunks, each read when there is room for it.
fn pieces(shard: Shard, manifest: Manifest, first: u32, total: u32) -> Stream {
    let (root, manifest) = (manifest.root(), Arc::new(manifest));
    let pieces = stream::unfold(Some(first), move |next| {
        let (shard, manifest) = (shard.clone(), manifest.clone());
        async move {
            let index = next.filter(|index| *index < total)?;
            let piece = match shard.store().checkpoints.chunk(&root, index).await {
                Ok(Some(payload)) => {
                    let check = if is_directory(&manifest.shard) { Manifest::check_all_open } else { Manifest::check };
                    match check(&manifest, index as usize, &payload) {
                        Ok(()) => Ok(ReadCheckpointResponse { message: Some(Message::Chunk(CheckpointPiece { payload })) }),
                        Err(corrupt) => {
                            tracing::error!(shard = %manifest.shard, %corrupt, "a checkpoint is damaged: nobody gets it, and another is made");
                            shard.suspect_checkpoint();
                            Err(unavailable(format!("the checkpoint of {} is damaged", manifest.shard)).into())
                        }
                    }
                }
                Ok(None) => Err(Fault::new(Code::Aborted, "CHECKPOINT_REPLACED", "there is a newer checkpoint").into()),
                Err(error) => Err(unavailable(error.to_string()).into()),
            };
            let next = piece.is_ok().then_some(index + 1);
            Some((piece, next))
        }
    });
    pieces.boxed()
}
