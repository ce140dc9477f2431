//! Every engine does what the ports say.

use std::path::Path;

use paymesh_journal::{Error, Identity, Store, conformance, memory::MemoryStore, sqlite};

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
        let found = tempfile::tempdir().expect("a directory");
        copy(place.path(), found.path());
        found
    }
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).expect("the directory is there") {
        let file = file.expect("a file");
        // The index of the write-ahead log lives in memory that processes share; the next one makes it again.
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(file.path(), to.join(file.file_name())).expect("a file is copied");
        }
    }
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
