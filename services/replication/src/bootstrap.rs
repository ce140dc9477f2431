//! The follower's side of a beginning: a copy whose leader's journal does not reach back to its end begins where that does.
//!
//! In the zone the checkpoint's chunks come first, each checked and stored before the next is taken: whoever is cut off, or
//! killed, asks for what is missing. Only then does the copy's journal begin later; the tables are made when it is opened.
//!
//! Nobody has what lies between the copy's end and where the leader's journal begins, so nothing proves that the one goes on to the other.
//! What the leader has let go of has taken effect everywhere, though, so where its history is another than that which money was
//! taken from, it has sent what was taken at other places, or not at all: then the copy stays as it is, and says so.

use std::sync::Arc;

use paymesh_contract::{
    Fault,
    common::v1 as common,
    replication::v1::{
        CheckpointStart, ReadCheckpointRequest, ReadCheckpointResponse, read_checkpoint_response::Message,
        replication_service_client::ReplicationServiceClient,
    },
};
use paymesh_journal::{Chain, Checkpoints, Corrupt, Error, Holding, Journal, Manifest, Origin};
use paymesh_mesh::Mesh;
use paymesh_types::Sequence;
use tonic::Streaming;

use crate::{
    Ended, Followed, Following, counts,
    following::{MESSAGE_BYTES_MAX, RETRY_FIRST, RETRY_MAX, SILENCE_MAX},
    plan::is_directory,
    wire,
};

/// Payload bytes of the copy that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Why nothing came of a try.
enum Failed {
    /// It may be tried again.
    Lost(String),
    /// It is no use to try again.
    ForGood(String),
    /// Neither is it: the leader has another history than the copy.
    Another(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        if error.is_retryable() { Self::Lost(error.to_string()) } else { Self::ForGood(error.to_string()) }
    }
}

impl Following {
    /// Has the copy, which nobody has open, begin where its leader's journal does, however often it takes. In the zone,
    /// `checkpoints` are the copy's. Where money was `taken` from it, it does not go on with what shows to be another history.
    ///
    /// # Errors
    /// What is wrong does not pass by itself: [`Ended::Diverged`] where it is another history.
    pub async fn bootstrap(
        &self,
        journal: &Arc<dyn Journal>,
        checkpoints: Option<&Arc<dyn Checkpoints>>,
        mesh: &Mesh,
        taken: bool,
    ) -> Result<(), Ended> {
        let (shard, leader) = (&self.followed().shard, &self.followed().leader);
        tracing::warn!(%shard, %leader, "a replica begins with a checkpoint: its leader's journal does not reach back to its end");
        metrics::counter!(counts::BOOTSTRAPS, "shard" => shard.to_string()).increment(1);
        let mut pause = RETRY_FIRST;
        let mut before = (!taken).then(|| Origin::beginning(shard));
        loop {
            match self.begin_anew(journal, checkpoints, mesh, &mut before).await {
                Ok(origin) => {
                    tracing::info!(%shard, %leader, first = %origin.sequence.next(), "a replica has what it begins with");
                    return Ok(());
                }
                Err(Failed::ForGood(why)) => {
                    tracing::error!(%shard, %leader, %why, "a replica cannot begin");
                    self.refuse(why.clone());
                    return Err(Ended::Stopped(why));
                }
                Err(Failed::Another(why)) => {
                    tracing::error!(%shard, %leader, %why, "a replica does not begin with another history");
                    self.refuse(why.clone());
                    self.note_diverged();
                    return Err(Ended::Diverged(why));
                }
                Err(Failed::Lost(why)) => tracing::debug!(%shard, %leader, %why, "a replica tries again to begin"),
            }
            tokio::time::sleep(rand::random_range(pause / 2..=pause)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// `before` is what the copy had come to, once that is known.
    async fn begin_anew(
        &self,
        journal: &Arc<dyn Journal>,
        checkpoints: Option<&Arc<dyn Checkpoints>>,
        mesh: &Mesh,
        before: &mut Option<Origin>,
    ) -> Result<Origin, Failed> {
        let before = match before {
            Some(before) => before,
            None => before.insert(self.came_to(journal).await?),
        };
        let draft = match checkpoints {
            Some(checkpoints) => checkpoints.draft().await?,
            None => None,
        };
        let have = draft.and_then(|draft| Some((draft.announced?.root(), draft.chunks)));
        let request = ReadCheckpointRequest {
            shard: Some(common::ShardRef::from(&self.followed().shard)),
            region: mesh.region().to_string(),
            root_hash: have.map(|(root, _)| root.to_vec()).unwrap_or_default(),
            chunks: have.map_or(0, |(_, chunks)| chunks),
        };
        let leader = &self.followed().leader;
        let channel = mesh.to_region(leader).ok_or_else(|| Failed::ForGood(format!("there is no region {leader}")))?;
        let mut client = ReplicationServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let asked = tokio::time::timeout(SILENCE_MAX, client.read_checkpoint(request)).await;
        let asked = asked.map_err(|_| Failed::Lost(format!("the leader did not answer within {SILENCE_MAX:?}")))?;
        let mut answers = asked.map_err(|status| Failed::Lost(Fault::from_status(&status).message))?.into_inner();
        let Message::Start(start) = next(&mut answers).await? else {
            return Err(Failed::ForGood("the leader begins with a chunk".to_owned()));
        };
        let CheckpointStart { origin, checkpoint, first_chunk } = start;
        let refused = |what: String| Failed::ForGood(format!("what the leader begins with is refused: {what}"));
        let origin = origin.ok_or_else(|| refused("it does not say where".to_owned()))?;
        let origin = wire::origin(&origin, &self.followed().holding).map_err(refused)?;
        origin.may_follow(before).map_err(|why| {
            let (end, first) = (before.sequence, origin.sequence.next());
            Failed::Another(format!(
                "the copy ends at entry {end}, and the leader's journal, which is kept from entry {first} on, did not come through there: {why}; \
                 it is not a copy of this journal"
            ))
        })?;
        if let (Holding::Whole, Some(checkpoints)) = (&self.followed().holding, checkpoints) {
            let checkpoint = checkpoint.ok_or_else(|| refused("there is no checkpoint".to_owned()))?;
            let manifest = Manifest::try_from(&checkpoint).map_err(|error| refused(error.to_string()))?;
            if is_directory(&manifest.shard) {
                manifest.check_books_all_open().map_err(|corrupt| refused(corrupt.to_string()))?;
            }
            if manifest.shard != self.followed().shard || manifest.sequence < origin.sequence || origin.sequence == Sequence(0) {
                return Err(refused(format!(
                    "a checkpoint of {} as of {} for a journal that begins after {}",
                    manifest.shard, manifest.sequence, origin.sequence
                )));
            }
            self.fetch(checkpoints, &manifest, have, first_chunk, &mut answers).await?;
        } else if checkpoint.is_some() {
            return Err(refused("a checkpoint, which is more than may be held here".to_owned()));
        }
        if let Some((last, hash)) = journal.witness().await?
            && last <= origin.sequence
            && (last, hash) != (origin.sequence, origin.hash)
        {
            return Err(refused(format!(
                "it begins after entry {last}, to which a copy had come that was set aside: nothing shows that it is the same history"
            )));
        }
        // Where it begins with the end of the copy that was set aside, whoever opens it finds that, and notes that the one is shown to go on to
        // the other. Noted before, and stopped in between, it would take any other history that its leader has by then.
        journal.jump(&origin).await?;
        Ok(origin)
    }

    /// Where the copy's journal ends, and how far the shard and others had come with each other by then.
    async fn came_to(&self, journal: &Arc<dyn Journal>) -> Result<Origin, Failed> {
        let mut end = journal.origin().await?;
        loop {
            let segments = journal.read(end.sequence.next(), READ_BYTES).await?;
            if segments.is_empty() {
                return Ok(end.within(&self.followed().holding));
            }
            let Followed { shard, holding, .. } = self.followed().clone();
            let passed = tokio::task::spawn_blocking(move || {
                let mut chain = Chain::after(shard.clone(), &end);
                for segment in &segments {
                    chain.link(segment)?;
                    end.pass(segment, &holding.entries(segment, &shard)?);
                }
                Ok::<_, Corrupt>(end)
            });
            end = passed.await.map_err(|died| Failed::ForGood(format!("reading the copy died: {died}")))?.map_err(Error::from)?;
        }
    }

    /// Takes the chunks that are missing.
    async fn fetch(
        &self,
        checkpoints: &Arc<dyn Checkpoints>,
        manifest: &Manifest,
        have: Option<([u8; 32], u32)>,
        first_chunk: u32,
        answers: &mut Streaming<ReadCheckpointResponse>,
    ) -> Result<(), Failed> {
        let root = manifest.root();
        if checkpoints.latest().await?.is_some_and(|latest| latest.root() == root) {
            return Ok(());
        }
        let have = have.filter(|(drafted, _)| *drafted == root).map(|(_, chunks)| chunks);
        if have.is_none() {
            checkpoints.begin(Some(manifest)).await?;
        }
        if first_chunk != have.unwrap_or(0) {
            return Err(Failed::Lost(format!("chunk {first_chunk} was to come, and {} are here", have.unwrap_or(0))));
        }
        let total = u32::try_from(manifest.chunks.len()).unwrap_or(u32::MAX);
        self.note_chunks(first_chunk, total);
        for index in first_chunk..total {
            let Message::Chunk(chunk) = next(answers).await? else {
                return Err(Failed::ForGood("the leader begins twice".to_owned()));
            };
            let refused = |corrupt| {
                // It may make another, which is then fetched.
                tracing::error!(shard = %manifest.shard, leader = %self.followed().leader, %corrupt, "a piece of a checkpoint is refused");
                Failed::Lost(format!("what the leader sends is refused: {corrupt}"))
            };
            // The directory's comes whole across the border, and may have nothing that does not cross it.
            let check = if is_directory(&manifest.shard) { Manifest::check_all_open } else { Manifest::check };
            check(manifest, index as usize, &chunk.payload).map_err(refused)?;
            checkpoints.add(index, &chunk.payload).await?;
            self.note_chunks(index + 1, total);
        }
        Ok(checkpoints.finish(manifest).await?)
    }
}

async fn next(answers: &mut Streaming<ReadCheckpointResponse>) -> Result<Message, Failed> {
    match tokio::time::timeout(SILENCE_MAX, answers.message()).await {
        Ok(Ok(Some(ReadCheckpointResponse { message: Some(message) }))) => Ok(message),
        Ok(Ok(Some(_))) => Err(Failed::ForGood("the leader says nothing that this version knows".to_owned())),
        Ok(Ok(None)) => Err(Failed::Lost("the leader ended it".to_owned())),
        Ok(Err(status)) => Err(Failed::Lost(status.message().to_owned())),
        Err(_) => Err(Failed::Lost(format!("the leader was silent for {SILENCE_MAX:?}"))),
    }
}
