//! Reads a submit file line by line, on a thread of its own, with bounded memory.
//!
//! Promises that every line that is not blank comes out once, with its number and where it ends, as an instruction or as
//! the reason why it is none. A byte order mark is skipped; LF and CRLF end a line; so does the end of the file.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use paymesh_types::RegionName;
use tokio::sync::mpsc;

use super::{
    line::{Columns, Instruction},
    resume::{Identity, Place},
};
use crate::exit;

/// Bytes of a line at most. Far more than the longest valid one.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;
/// Lines read ahead of the ones that are scheduled.
const READ_AHEAD_LINES_MAX: usize = 1_024;
/// Bytes read from the file at once.
const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Ids that are remembered, to tell a line that has the id of an earlier one: about 40 bytes each. A later repetition is
/// found by the mesh, which takes it for the same line again or names the field that differs.
const IDS_REMEMBERED_MAX: usize = 2_000_000;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line of the file.
pub(crate) struct Line {
    /// Where the line ends.
    pub(crate) end: Place,
    /// What it asks for, or why nothing.
    pub(crate) instruction: Result<Instruction, String>,
}

/// Hashes the file and counts its lines, in one pass.
pub(crate) fn identify(path: &Path) -> anyhow::Result<(Identity, u64)> {
    let mut file = BufReader::with_capacity(READ_BUFFER_BYTES, open(path)?);
    let (mut hasher, mut bytes, mut lines, mut last) = (blake3::Hasher::new(), 0, 0, b'\n');
    loop {
        let chunk = file.fill_buf().with_context(|| format!("cannot read {}", path.display()))?;
        let Some(end) = chunk.last() else { break };
        last = *end;
        hasher.update(chunk);
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        let length = chunk.len();
        bytes += length as u64;
        file.consume(length);
    }
    let unended = u64::from(last != b'\n');
    Ok((Identity { bytes, blake3: hasher.finalize().to_hex().to_string() }, lines + unended))
}

/// A file whose header is understood.
pub(crate) struct Reader {
    path: PathBuf,
    lines: Lines<BufReader<File>>,
    columns: Columns,
}

impl Reader {
    /// Reads the header.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let mut lines = Lines::new(BufReader::with_capacity(READ_BUFFER_BYTES, open(path)?));
        let unusable = |reason: String| exit::unusable(format!("{}: line 1: {reason}", path.display()));
        let columns = match lines.next().with_context(|| format!("cannot read {}", path.display()))? {
            None => return Err(unusable("the file is empty; its first line must be the header".to_owned())),
            Some(Err(reason)) => return Err(unusable(reason)),
            Some(Ok(header)) => Columns::from_header(header.strip_prefix(BYTE_ORDER_MARK).unwrap_or(header)).map_err(unusable)?,
        };
        Ok(Self { path: path.to_owned(), lines, columns })
    }

    /// Reads the lines from `start` on through the channel that is returned. The thread ends with the file or when the
    /// receiver is dropped; what cannot be read ends it with an error, sent last.
    pub(crate) fn read(
        self,
        start: Place,
        namespace: String,
        regions: Vec<RegionName>,
    ) -> anyhow::Result<mpsc::Receiver<anyhow::Result<Line>>> {
        let Self { path, mut lines, columns } = self;
        if start.line > 0 {
            lines.skip_to(start).with_context(|| format!("cannot read {}", path.display()))?;
        }
        let (sender, receiver) = mpsc::channel(READ_AHEAD_LINES_MAX);
        std::thread::Builder::new().name("submit-reader".to_owned()).spawn(move || {
            let mut ids = HashMap::new();
            loop {
                let instruction = match lines.next() {
                    Ok(None) => return,
                    Ok(Some(Ok(b""))) => continue,
                    Ok(Some(Ok(text))) => columns.parse(text, &namespace, |region| regions.contains(region)),
                    Ok(Some(Err(reason))) => Err(reason),
                    Err(error) => {
                        let what = format!("cannot read {} after line {}", path.display(), lines.end.line);
                        let _ = sender.blocking_send(Err(anyhow::Error::new(error).context(what)));
                        return;
                    }
                };
                let instruction = instruction.and_then(|instruction| match ids.get(&instruction.request_id) {
                    Some(first) => Err(format!("its id is that of line {first}")),
                    None => {
                        if ids.len() < IDS_REMEMBERED_MAX {
                            ids.insert(instruction.request_id, lines.end.line);
                        }
                        Ok(instruction)
                    }
                });
                if sender.blocking_send(Ok(Line { end: lines.end, instruction })).is_err() {
                    return;
                }
            }
        })?;
        Ok(receiver)
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    let file = File::open(path).map_err(|error| exit::unusable(format!("cannot open {}: {error}", path.display())))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(exit::unusable(format!("{} is not a file", path.display()))),
        Err(error) => Err(exit::unusable(format!("cannot open {}: {error}", path.display()))),
    }
}

/// The lines of a reader, without their ends, each at most [`LINE_BYTES_MAX`] long.
struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Where the last line that was returned ends.
    end: Place,
}

impl<R: BufRead> Lines<R> {
    fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), end: Place::default() }
    }

    /// The next line; `None` at the end of the file; `Err` inside for a line that is too long, which is skipped.
    fn next(&mut self) -> io::Result<Option<Result<&[u8], String>>> {
        self.buffer.clear();
        let (mut bytes, mut ended) = (0, false);
        while !ended {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            let length = match chunk.iter().position(|byte| *byte == b'\n') {
                Some(newline) => {
                    ended = true;
                    newline + 1
                }
                None => chunk.len(),
            };
            // One byte past the bound is kept, so that a line that is too long is known to be.
            let room = (LINE_BYTES_MAX + 2).saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&chunk[..length.min(room)]);
            bytes += length;
            self.reader.consume(length);
        }
        if bytes == 0 {
            return Ok(None);
        }
        self.end = Place { line: self.end.line + 1, byte: self.end.byte + bytes as u64 };
        if bytes > LINE_BYTES_MAX {
            return Ok(Some(Err(format!("a line has at most {LINE_BYTES_MAX} bytes, this one has {bytes}"))));
        }
        let text = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        Ok(Some(Ok(text.strip_suffix(b"\r").unwrap_or(text))))
    }
}

impl Lines<BufReader<File>> {
    /// Goes on after `place`.
    fn skip_to(&mut self, place: Place) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(place.byte))?;
        self.end = place;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], capacity: usize) -> Vec<(u64, u64, Result<Vec<u8>, String>)> {
        let mut lines = Lines::new(BufReader::with_capacity(capacity, text));
        let mut all = Vec::new();
        while let Some(line) = lines.next().expect("memory can be read") {
            let line = line.map(<[u8]>::to_vec);
            all.push((lines.end.line, lines.end.byte, line));
        }
        all
    }

    #[test]
    fn lines_end_in_lf_crlf_or_the_end_of_the_file_wherever_the_buffer_ends() {
        for capacity in 1..12 {
            assert_eq!(
                lines(b"a\r\n\nbc\nd", capacity),
                [(1, 3, Ok(b"a".to_vec())), (2, 4, Ok(vec![])), (3, 7, Ok(b"bc".to_vec())), (4, 8, Ok(b"d".to_vec()))],
                "capacity {capacity}"
            );
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_is_read() {
        let mut text = vec![b'x'; LINE_BYTES_MAX * 3];
        text.extend_from_slice(b"\nnext\n");
        let all = lines(&text, 100);
        assert!(all[0].2.as_ref().is_err_and(|reason| reason.contains("at most")));
        assert_eq!((all[1].0, &all[1].2), (2, &Ok(b"next".to_vec())));
    }

    #[test]
    fn a_line_whose_id_an_earlier_line_has_is_reported_with_that_lines_number() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("file.csv");
        let text = "id,kind,user,counterparty,amount,currency,country,via,reference\n\
                    a,deposit,7,,1,EUR,,,\nb,gift,7,,1,EUR,,,\nb,deposit,7,,1,EUR,,,\n\na,withdrawal,7,,1,EUR,,,\nc,deposit,7,,1,EUR,,,\n";
        std::fs::write(&path, text).expect("it can be written");
        let mut lines = Reader::new(&path).and_then(|reader| reader.read(Place::default(), String::new(), Vec::new())).expect("a reader");
        let mut reasons = Vec::new();
        while let Some(line) = lines.blocking_recv() {
            let line = line.expect("a file can be read");
            reasons.push((line.end.line, line.instruction.err().unwrap_or_default()));
        }
        // The id of a line that was not understood is free.
        assert_eq!(reasons[3], (6, "its id is that of line 2".to_owned()));
        assert_eq!(reasons.iter().filter(|(_, reason)| !reason.is_empty()).count(), 2, "{reasons:?}");
    }
}
