//! HTTP/2's frames (RFC 9113, section 4.1), as far as it takes to see how a connection behaves without a part in it.
//!
//! Pure: bytes in as they come, in pieces of any size, and each frame's head out once the frame is whole. Nothing of a payload is
//! kept but the beginning of what says why a connection ends.

/// Bytes of a frame's head.
const HEAD_BYTES: usize = 9;

/// Bytes of a payload that are kept: h2's words for why it closes a connection are shorter.
const KEPT_BYTES: usize = 40;

/// The types of frames (RFC 9113, section 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

const END_HEADERS: u8 = 0x4;

/// The last stream that a GOAWAY may name: it says nothing of which were taken.
const LAST_STREAM: u32 = (1 << 31) - 1;
/// The error code for who asks too much (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// Bytes of its payload.
    pub(crate) length: usize,
    pub(crate) kind: u8,
    flags: u8,
}

impl Head {
    fn of(bytes: [u8; HEAD_BYTES]) -> Self {
        let [high, middle, low, kind, flags, ..] = bytes;
        Self { length: u32::from_be_bytes([0, high, middle, low]) as usize, kind, flags }
    }

    /// Of HEADERS, PUSH_PROMISE and CONTINUATION: the last of its block.
    pub(crate) fn ends_headers(&self) -> bool {
        self.flags & END_HEADERS != 0
    }
}

/// Finds the frames in bytes that come in pieces.
#[derive(Debug)]
pub(crate) struct Frames {
    bytes: [u8; HEAD_BYTES],
    /// How many of them have come.
    head_bytes: usize,
    /// Of the frame whose payload comes.
    head: Head,
    payload_left: usize,
    kept: [u8; KEPT_BYTES],
    kept_bytes: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { bytes: [0; HEAD_BYTES], head_bytes: 0, head: Head::default(), payload_left: 0, kept: [0; KEPT_BYTES], kept_bytes: 0 }
    }
}

impl Frames {
    /// Takes note of the next piece. `each` hears of every frame that is whole by it, and how a GOAWAY's payload begins.
    pub(crate) fn take(&mut self, mut piece: &[u8], mut each: impl FnMut(Head, &[u8])) {
        while !piece.is_empty() {
            if self.payload_left == 0 {
                let (head, rest) = piece.split_at(piece.len().min(HEAD_BYTES - self.head_bytes));
                self.bytes[self.head_bytes..][..head.len()].copy_from_slice(head);
                self.head_bytes += head.len();
                piece = rest;
                if self.head_bytes < HEAD_BYTES {
                    return;
                }
                self.head = Head::of(self.bytes);
                self.payload_left = self.head.length;
                self.kept_bytes = 0;
            } else {
                let (payload, rest) = piece.split_at(piece.len().min(self.payload_left));
                if self.head.kind == GOAWAY {
                    let kept = payload.len().min(KEPT_BYTES - self.kept_bytes);
                    self.kept[self.kept_bytes..][..kept].copy_from_slice(&payload[..kept]);
                    self.kept_bytes += kept;
                }
                self.payload_left -= payload.len();
                piece = rest;
            }
            if self.payload_left == 0 {
                self.head_bytes = 0;
                each(self.head, &self.kept[..self.kept_bytes]);
            }
        }
    }

    /// Whether the last frame is whole, and the next has not begun.
    pub(crate) fn is_between(&self) -> bool {
        self.head_bytes == 0
    }

    /// The type of the frame that is not whole, where its head is.
    pub(crate) fn kind(&self) -> Option<u8> {
        (self.payload_left > 0).then_some(self.head.kind)
    }
}

/// The error code in a GOAWAY's payload, and the words after it.
pub(crate) fn goaway(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (_, rest) = payload.split_first_chunk::<4>()?;
    let (code, words) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*code), words))
}

/// A GOAWAY that tells the other end why its connection ends.
pub(crate) fn enhance_your_calm(why: &str) -> Vec<u8> {
    let length = u32::try_from(8 + why.len()).unwrap_or_default().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], GOAWAY, 0, 0, 0, 0, 0];
    frame.extend(LAST_STREAM.to_be_bytes());
    frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend(why.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_frame_is_told_of_when_it_is_whole() {
        let bytes = frame(HEADERS, 0x5, b"xyz");
        let mut frames = Frames::default();
        for end in 1..bytes.len() {
            frames.take(&bytes[end - 1..end], |_, _| panic!("{end} bytes of {}", bytes.len()));
            assert!(!frames.is_between(), "{end}");
        }
        assert_eq!(frames.kind(), Some(HEADERS));
        let mut told = 0;
        frames.take(&bytes[bytes.len() - 1..], |head, _| {
            assert!(head.kind == HEADERS && head.length == 3 && head.ends_headers());
            told += 1;
        });
        assert!(told == 1 && frames.is_between() && frames.kind().is_none());
    }

    #[test]
    fn a_goodbye_says_why() {
        let mut told = Vec::new();
        Frames::default().take(&enhance_your_calm("resets"), |head, kept| {
            let (code, words) = goaway(kept).expect("a goodbye");
            told.push((head.kind, code, words.to_vec()));
        });
        assert_eq!(told, [(GOAWAY, ENHANCE_YOUR_CALM, b"resets".to_vec())]);
        assert_eq!(goaway(b"short"), None);
    }

    proptest! {
        #[test]
        fn frames_are_the_same_in_pieces_of_any_size(
            wanted in prop::collection::vec((0..12u8, any::<u8>(), 0..90usize), 0..20),
            piece in 1..40usize,
        ) {
            let bytes: Vec<u8> = wanted.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, &vec![7; *length])).collect();
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(piece) {
                frames.take(piece, |head, kept| {
                    assert_eq!(kept.len(), if head.kind == GOAWAY { head.length.min(KEPT_BYTES) } else { 0 });
                    found.push((head.kind, head.flags, head.length));
                });
            }
            prop_assert_eq!(found, wanted);
            prop_assert!(frames.is_between());
        }
    }
}
