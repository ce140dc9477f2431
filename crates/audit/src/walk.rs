//! Walks through the records of one file and checks the chain from one to the next.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    path::Path,
};

use crate::format::{FRAME_BYTES, HASH_BYTES, HEADER_BYTES, Hash, Header, LENGTH_BYTES, Link, Owner, RECORD_BYTES_MAX};

/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;

/// A file's records, from the first.
#[derive(Debug)]
pub(crate) struct Walk {
    reader: BufReader<File>,
    header: Header,
    /// The last record so far; before the first, its hash is the header's.
    link: Link,
    /// Where the next record begins.
    at: u64,
    payload: Vec<u8>,
}

/// What comes next in a file.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A record that continues the chain, and its bytes.
    Record(Link, &'a [u8]),
    /// The file ends here.
    End,
    /// What comes is no record that continues the chain, and why.
    Broken(String),
}

impl Walk {
    /// Opens a file. The inner error says what is wrong with its header.
    pub(crate) fn open(path: &Path, owner: &Owner, chain: u32) -> io::Result<Result<Self, String>> {
        let mut reader = BufReader::with_capacity(READ_BYTES, File::open(path)?);
        let mut bytes = [0; HEADER_BYTES];
        match reader.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Err("it ends within its header".to_owned())),
            Err(error) => return Err(error),
        }
        let Some((header, link)) = Header::decode(&bytes, owner) else {
            return Ok(Err("its header is not what was written, or is another node's".to_owned()));
        };
        if header.chain != chain {
            return Ok(Err(format!("it is a file of chain {}", header.chain)));
        }
        Ok(Ok(Self { reader, header, link, at: HEADER_BYTES as u64, payload: Vec::new() }))
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The last record so far; before the file's first, the one before the file.
    pub(crate) fn last(&self) -> Link {
        if self.link.sequence == self.header.previous.sequence { self.header.previous } else { self.link }
    }

    /// Where the next record begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next record. Not to be asked again after anything else.
    pub(crate) fn step(&mut self) -> io::Result<Step<'_>> {
        let mut length = [0; LENGTH_BYTES];
        match self.fill(&mut length)? {
            0 => return Ok(Step::End),
            LENGTH_BYTES => {}
            _ => return Ok(Step::Broken("it is cut off within its length".to_owned())),
        }
        let length = u32::from_le_bytes(length) as usize;
        if !(1..=RECORD_BYTES_MAX).contains(&length) {
            return Ok(Step::Broken(format!("its length is {length}, and no record has that")));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(length, 0);
        let mut hash: Hash = [0; HASH_BYTES];
        let whole = self.fill(&mut payload)? == length && self.fill(&mut hash)? == HASH_BYTES;
        self.payload = payload;
        if !whole {
            return Ok(Step::Broken("it is cut off".to_owned()));
        }
        let next = self.link.then(&self.payload);
        if next.hash != hash {
            return Ok(Step::Broken("it does not continue the hash chain".to_owned()));
        }
        self.link = next;
        self.at += (FRAME_BYTES + length) as u64;
        Ok(Step::Record(next, &self.payload))
    }

    /// Reads as much as there is.
    fn fill(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.reader.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
