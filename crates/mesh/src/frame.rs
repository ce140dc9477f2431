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
    match flag {
        0 => {}
        1 => {
            return Err(Fault::new(
                Code::Unimplemented,
                "COMPRESSION_NOT_SUPPORTED",
                "the request is compressed, and the mesh reads plain messages only: send it without grpc-encoding",
            ));
        }
        flag => return Err(malformed(format!("the request begins with byte {flag}, which is no gRPC message"))),
    }
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(Fault::new(
            Code::ResourceExhausted,
            "MESSAGE_TOO_LARGE",
            format!("the request has {length} bytes, and {MESSAGE_BYTES_MAX} is the most"),
        ));
    }
    Ok(rest.get(..length))
}

/// How far the first message of bytes that come in pieces has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    prefix: [u8; PREFIX_BYTES],
    bytes: usize,
}

impl Progress {
    /// Takes note of the next piece. True: the message is whole.
    pub(crate) fn add(&mut self, piece: &[u8]) -> bool {
        for (place, byte) in self.prefix.iter_mut().skip(self.bytes).zip(piece) {
            *place = *byte;
        }
        self.bytes = self.bytes.saturating_add(piece.len());
        let [_, length @ ..] = self.prefix;
        self.bytes.checked_sub(PREFIX_BYTES).is_some_and(|bytes| bytes >= u32::from_be_bytes(length) as usize)
    }
}

/// The request ended before its first message did.
pub(crate) fn truncated() -> Fault {
    malformed("the request ends before its message does")
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
            let (mut progress, mut end) = (Progress::default(), 0);
            for piece in bytes.chunks(piece) {
                end += piece.len();
                prop_assert_eq!(progress.add(piece), first_message(&bytes[..end]).expect("plain").is_some());
            }
        }

        #[test]
        fn any_bytes_give_a_part_of_themselves_or_a_fault(bytes: Vec<u8>) {
            if let Ok(Some(message)) = first_message(&bytes) {
                prop_assert_eq!(message, &bytes[PREFIX_BYTES..PREFIX_BYTES + message.len()]);
            }
        }
    }
}
