//! How the generated stubs read and write messages: as prost does, but no message of more fields than any should have.
//!
//! Two bytes can be an empty item of a list that takes a hundred times as much once decoded, and four million bytes are
//! a message that passes. So the fields are counted while they are bytes.

use prost::{Message, bytes::Buf as _};
use tonic::{
    Code, Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::{Fault, key::has_more_fields};

/// Fields of a message at most, each element of a list being one: eight full batches. Fields of fields are not counted: no
/// request has lists in its lists. Elements of a packed list are not either: they take eight times their bytes at most.
pub const MESSAGE_FIELDS_MAX: usize = 65_536;

/// prost's codec with a decoder that counts first.
#[derive(Debug)]
pub struct Counted<T, U>(ProstCodec<T, U>);

impl<T, U> Default for Counted<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for Counted<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = CountedDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        self.0.encoder()
    }

    fn decoder(&mut self) -> CountedDecoder<U> {
        CountedDecoder(self.0.decoder())
    }
}

/// The decoder of [`Counted`]. Refuses with INVALID_ARGUMENT `TOO_MANY_ITEMS`.
#[derive(Debug)]
pub struct CountedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for CountedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = buffer.chunk();
        debug_assert_eq!(message.len(), buffer.remaining(), "tonic gives a message in one piece");
        if has_more_fields(message, MESSAGE_FIELDS_MAX).map_err(Fault::from)? {
            let problem = format!("the message has more than {MESSAGE_FIELDS_MAX} fields or items of lists");
            return Err(Fault::new(Code::InvalidArgument, "TOO_MANY_ITEMS", problem).into());
        }
        self.0.decode(buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
