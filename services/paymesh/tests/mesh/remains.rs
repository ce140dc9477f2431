//! Where bytes are found afterwards: in files, in what journals have compressed, and in the memory of a process, which is what a core of it would hold.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use memchr::memmem;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// Unpacked bytes of a segment at most.
const SEGMENT_BYTES_MAX: usize = 64 << 20;

/// Whether the bytes are among those.
pub(crate) fn has(content: &[u8], bytes: &[u8]) -> bool {
    memmem::find(content, bytes).is_some()
}

/// Every file in a directory and those in it, with its bytes. What a running process takes away meanwhile remains nowhere.
pub(crate) fn files_below(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut directories, mut files) = (vec![directory.to_owned()], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match fs::read(&path) {
                Ok(content) => files.push((path, content)),
                Err(error) if error.kind() == ErrorKind::IsADirectory => directories.push(path),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{}: {error}", path.display()),
            }
        }
    }
    files
}

/// The journals' file of a node, which is not running. Who is done with it closes it: a dropped connection takes the files beside it away
/// some time later, under the hands of whoever reads the directory then.
pub(crate) async fn journals(data: &Path) -> SqliteConnection {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(data.join("journal.sqlite"))).await.unwrap()
}

/// What each segment in the journals' file of a node holds, with its zone.
pub(crate) async fn unpacked_segments(data: &Path) -> Vec<(String, Vec<u8>)> {
    let mut file = journals(data).await;
    let payloads: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT zone, payload FROM segments JOIN shards USING (slot) WHERE payload != x''")
            .fetch_all(&mut file)
            .await
            .unwrap();
    file.close().await.unwrap();
    payloads.into_iter().map(|(zone, payload)| (zone, zstd::bulk::decompress(&payload, SEGMENT_BYTES_MAX).unwrap())).collect()
}

/// Whether a process has the bytes in memory that it can write to. None: this process may not look.
pub(crate) fn is_in_memory(process: u32, bytes: &[u8]) -> Option<bool> {
    times_in_memory(process, &[bytes]).map(|times| times[0] > 0)
}

/// How often a process has each of these in memory that it can write to. None: this process may not look.
pub(crate) fn times_in_memory(process: u32, wanted: &[&[u8]]) -> Option<Vec<usize>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let memory = fs::File::open(format!("/proc/{process}/mem")).ok()?;
    let (mut looked_at, mut times, mut content) = (0, vec![0; wanted.len()], Vec::new());
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next()?, words.next()?);
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        content.resize(usize::try_from(to - from).ok()?, 0);
        // What is mapped and cannot be read holds nothing.
        if memory.read_exact_at(&mut content, from).is_ok() {
            looked_at += content.len();
            for (times, bytes) in times.iter_mut().zip(wanted) {
                *times += memmem::find_iter(&content, bytes).count();
            }
        }
    }
    (looked_at > 1 << 20).then_some(times)
}
