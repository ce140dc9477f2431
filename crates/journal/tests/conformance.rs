//! Every engine does what the ports say.

#![forbid(unsafe_code)]

use std::{io, path::Path};

use paymesh_journal::{Error, Holding, Identity, Store, conformance, memory::MemoryStore, sqlite};

struct Sqlite;

impl conformance::Engine for Sqlite {
    type Place = tempfile::TempDir;

    async fn place(&self) -> Self::Place {
        tempfile::tempdir().expect("a directory")
    }

    async fn open(&self, place: &Self::Place, identity: &Identity) -> Result<Store, Error> {
        sqlite::open(place.path(), identity).await
    }

    /// What a process that is killed leaves behind is the files as they are, also those that it has open.
    async fn crash(&self, place: Self::Place) -> Self::Place {
        // A connection that is being closed may fold its log into the file and remove it: what was copied by then is of no moment.
        for _ in 0..10 {
            let found = tempfile::tempdir().expect("a directory");
            match copy(place.path(), found.path()) {
                Ok(()) => return found,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}"),
            }
        }
        panic!("files go while they are copied");
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for file in std::fs::read_dir(from)? {
        let file = file?;
        // The index of the write-ahead log lives in memory that processes share; the next one makes it again.
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(())
}

struct Memory;

impl conformance::Engine for Memory {
    type Place = MemoryStore;

    async fn place(&self) -> Self::Place {
        MemoryStore::new(&conformance::identity())
    }

    async fn open(&self, place: &Self::Place, identity: &Identity) -> Result<Store, Error> {
        place.open(identity)
    }

    async fn crash(&self, place: Self::Place) -> Self::Place {
        place.crash()
    }
}

#[tokio::test]
async fn the_sqlite_journal_conforms() {
    conformance::journal(&Sqlite).await;
}

#[tokio::test]
async fn the_sqlite_tables_conform() {
    conformance::tables(&Sqlite).await;
}

#[tokio::test]
async fn the_memory_journal_conforms() {
    conformance::journal(&Memory).await;
}

#[tokio::test]
async fn the_memory_tables_conform() {
    conformance::tables(&Memory).await;
}

/// The segments of several shards of one node share commits: each shard's journal is as if it were alone, whatever becomes
/// of the others'.
#[tokio::test(flavor = "multi_thread")]
async fn shards_that_share_a_file_and_its_commits_do_not_mix() {
    use paymesh_journal::{Chain, Segment, SegmentBuilder, conformance::stream::Stream};
    use paymesh_types::{Epoch, Sequence, ShardRef};

    const SHARDS: u16 = 40;
    let directory = tempfile::tempdir().expect("a directory");
    let identity = |index: u16| {
        let zone = if index.is_multiple_of(2) { "eu" } else { "us" };
        Identity {
            mesh: "conformance".to_owned(),
            shard: ShardRef { zone: zone.parse().expect("a zone's name"), index: index / 2 },
            shards: 64,
            holding: Holding::Whole,
        }
    };
    let engine = sqlite::Engine::new(directory.path());
    let segments = |index: u16| -> Vec<Segment> {
        let shard = identity(index).shard;
        let entries = Stream::with(u64::from(index) + 100, 120).committed().to_vec();
        let mut chain = Chain::start(shard.clone());
        let mut segments = Vec::new();
        for some in entries.chunks(3 + usize::from(index) % 5) {
            let mut builder = SegmentBuilder::new(shard.clone(), Epoch(1), chain.last().next(), chain.hash(), [index as u8; 32]);
            some.iter().for_each(|(_, entry)| builder.push(entry));
            let segment = builder.finish();
            chain.link(&segment).expect("it follows");
            segments.push(segment);
        }
        segments
    };
    let mut writers = tokio::task::JoinSet::new();
    for index in 0..SHARDS {
        let (engine, identity, segments) = (engine.clone(), identity(index), segments(index));
        writers.spawn(async move {
            let journal = engine.store(&identity).await.expect("the storage opens").journal;
            journal.lead().await.expect("a term begins");
            for (place, segment) in segments.iter().enumerate() {
                if place % 7 == 3 {
                    // In the same group as others' that are good.
                    let wrong = Segment { first: Sequence(segment.first.0 + 1), ..segment.clone() };
                    let refused = journal.append(&wrong).await.expect_err("it does not follow");
                    assert!(matches!(refused, Error::NotNext { head, .. } if head.next() == segment.first), "{refused}");
                }
                if place == 11 && index % 3 == 0 {
                    journal.lead().await.expect("another term begins");
                    let refused = journal.append(segment).await.expect_err("its term is over");
                    assert!(matches!(refused, Error::Fenced { held: Epoch(2), offered: Epoch(1) }), "{refused}");
                    return (index, place);
                }
                journal.append(segment).await.expect("a segment that follows is appended");
            }
            (index, segments.len())
        });
    }
    let written: Vec<(u16, usize)> = writers.join_all().await;
    assert_eq!(written.len(), usize::from(SHARDS));
    // As another process finds it.
    let found = tempfile::tempdir().expect("a directory");
    copy(directory.path(), found.path()).expect("files are copied");
    let found = sqlite::Engine::new(found.path());
    for (index, count) in written {
        let journal = found.store(&identity(index)).await.expect("the storage opens").journal;
        assert_eq!(journal.read(Sequence(1), usize::MAX).await.expect("segments are read"), segments(index)[..count], "shard {index}");
    }
}

#[tokio::test]
async fn sqlite_checkpoints_conform() {
    conformance::checkpoints(&Sqlite).await;
}

#[tokio::test]
async fn memory_checkpoints_conform() {
    conformance::checkpoints(&Memory).await;
}
