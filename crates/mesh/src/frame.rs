//! gRPC's framing of messages (PROTOCOL-HTTP2.md, "Length-Prefixed-Message"): as much of it as routing needs.
//!
//! Pure: bytes in, the first message's bytes or a fault out. It never panics, whatever the bytes, and asks for no more
//! memory than it was given.

use paymesh_contract::Fault;
use tonic::Code;

/// One flag byte and four of length.
pub const PREFIX_BYTES: usize = 5;

/// A message's bytes at most: gRPC's usual limit, and room for a batch of 8,192 payments.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The first message in a request's bytes. None: its end has not come yet.
///
/// # Errors
/// UNIMPLEMENTED `COMPRESSION_NOT_SUPPORTED`; RESOURCE_EXHAUSTED `MESSAGE_TOO_LARGE`; INVALID_ARGUMENT `MALFORMED_REQUEST`
/// for a flag that gRPC does not know.
pub fn first_message(bytes: &[u8]) -> Result<Option<&[u8]>, Fault> {
    let Some(flag) = bytes.first() else { return Ok(None) };
    check_flag(*flag)?;
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    Ok(rest.get(..length(*prefix)?))
}

/// Only plain messages are read: nothing that a caller sends is ever inflated.
fn check_flag(flag: u8) -> Result<(), Fault> {
    match flag {
        0 => Ok(()),
        1 => Err(compressed()),
        flag => Err(malformed(format!("the request begins with byte {flag}, which is no gRPC message"))),
    }
}

/// UNIMPLEMENTED `COMPRESSION_NOT_SUPPORTED`.
pub(crate) fn compressed() -> Fault {
    let message = "the request is compressed, and the mesh reads plain messages only: send it without grpc-encoding";
    Fault::new(Code::Unimplemented, "COMPRESSION_NOT_SUPPORTED", message)
}

/// The bytes of the message after this prefix.
fn length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, Fault> {
    let [_, length @ ..] = prefix;
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        let message = format!("the request has {length} bytes, and {MESSAGE_BYTES_MAX} is the most");
        return Err(Fault::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", message));
    }
    Ok(length)
}

/// How far the messages of bytes that come in pieces have come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// Of the message that comes, without its prefix.
    bytes_left: usize,
    /// Of the message that comes, prefix and all, so far.
    bytes: usize,
    whole: usize,
}

impl Progress {
    /// Takes note of the next piece.
    ///
    /// # Errors
    /// As those of [`first_message`], for every message.
    pub(crate) fn add(&mut self, mut piece: &[u8]) -> Result<(), Fault> {
        while !piece.is_empty() {
            let taken = if self.prefix_bytes < PREFIX_BYTES {
                let taken = piece.len().min(PREFIX_BYTES - self.prefix_bytes);
                if self.prefix_bytes == 0 {
                    check_flag(piece[0])?;
                }
                self.prefix[self.prefix_bytes..][..taken].copy_from_slice(&piece[..taken]);
                self.prefix_bytes += taken;
                if self.prefix_bytes == PREFIX_BYTES {
                    self.bytes_left = length(self.prefix)?;
                }
                taken
            } else {
                let taken = piece.len().min(self.bytes_left);
                self.bytes_left -= taken;
                taken
            };
            piece = &piece[taken..];
            self.bytes += taken;
            if self.prefix_bytes == PREFIX_BYTES && self.bytes_left == 0 {
                (self.prefix_bytes, self.bytes) = (0, 0);
                self.whole += 1;
            }
        }
        Ok(())
    }

    /// How many messages are whole.
    pub(crate) fn whole(&self) -> usize {
        self.whole
    }

    /// Bytes of the message that has begun and is not whole.
    pub(crate) fn begun_bytes(&self) -> usize {
        self.bytes
    }
}

/// The request ended before its first message did.
pub(crate) fn truncated() -> Fault {
    malformed("the request ends before its message does")
}

/// The request goes on after the one message that its method has.
pub(crate) fn more_than_one() -> Fault {
    malformed("the method takes one message, and the request has more")
}

fn malformed(message: impl Into<String>) -> Fault {
    Fault::new(Code::InvalidArgument, "MALFORMED_REQUEST", message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_found_once_it_is_whole() {
        let bytes = [0, 0, 0, 0, 2, 7, 8, 9];
        for end in 0..7 {
            assert_eq!(first_message(&bytes[..end]), Ok(None), "{end}");
        }
        assert_eq!(first_message(&bytes[..7]), Ok(Some(&[7, 8][..])));
        assert_eq!(first_message(&bytes), Ok(Some(&[7, 8][..])), "what follows is not the message");
        assert_eq!(first_message(&[0; 5]), Ok(Some(&[][..])), "an empty message is a message");
    }

    #[test]
    fn compressed_oversized_and_strange_frames_are_refused_at_once() {
        assert_eq!(first_message(&[1]).expect_err("compressed").code, Code::Unimplemented);
        assert_eq!(first_message(&[0, 0xff, 0xff, 0xff, 0xff]).expect_err("4 GiB").reason, "MESSAGE_TOO_LARGE");
        assert_eq!(first_message(b"GET / HTTP/1.1").expect_err("HTTP").reason, "MALFORMED_REQUEST");
    }

    proptest! {
        #[test]
        fn a_message_in_pieces_is_whole_when_it_is_whole_in_one(length in 0..9u8, rest in 0..20usize, piece in 1..9usize) {
            let mut bytes = vec![0, 0, 0, 0, length];
            bytes.resize(PREFIX_BYTES + rest, 7);
            // Only the first: what follows is no message here.
            bytes.truncate(PREFIX_BYTES + usize::from(length));
            let (mut progress, mut end) = (Progress::default(), 0);
            for piece in bytes.chunks(piece) {
                end += piece.len();
                progress.add(piece).expect("plain");
                let whole = first_message(&bytes[..end]).expect("plain").is_some();
                prop_assert_eq!(progress.whole() == 1, whole);
                prop_assert_eq!(progress.begun_bytes(), if whole { 0 } else { end });
            }
        }

        #[test]
        fn messages_in_a_row_are_counted_in_pieces_of_any_size(
            lengths in prop::collection::vec(0..9u8, 0..9),
            cut in 1..5usize,
            piece in 1..9usize,
        ) {
            let mut bytes: Vec<u8> = lengths.iter().flat_map(|length| [vec![0, 0, 0, 0, *length], vec![7; usize::from(*length)]].concat()).collect();
            bytes.extend(&[0; 5][..cut]);
            let mut progress = Progress::default();
            for piece in bytes.chunks(piece) {
                progress.add(piece).expect("plain");
            }
            prop_assert_eq!((progress.whole(), progress.begun_bytes()), (lengths.len(), cut));
        }

        #[test]
        fn every_message_is_held_to_what_the_first_is(first in 0..9u8, bad in prop::sample::select(vec![&[1][..], &[7], &[0, 0xff, 0xff, 0xff, 0xff]])) {
            let mut bytes = vec![0, 0, 0, 0, first];
            bytes.resize(PREFIX_BYTES + usize::from(first), 7);
            let mut progress = Progress::default();
            progress.add(&bytes).expect("plain");
            prop_assert_eq!(progress.add(bad).expect_err("refused"), first_message(bad).expect_err("refused"));
        }

        #[test]
        fn any_bytes_give_a_part_of_themselves_or_a_fault(bytes: Vec<u8>) {
            if let Ok(Some(message)) = first_message(&bytes) {
                prop_assert_eq!(message, &bytes[PREFIX_BYTES..PREFIX_BYTES + message.len()]);
            }
        }
    }
}
