//! Reads one annotated field out of an encoded request, without decoding the message.
//!
//! The mesh routes by it and forwards the bytes as they are. [`KeyPath::extract`] gives what decoding the whole message
//! would give for that field, or an error; it never panics, allocates nothing, and is linear in the message's length.
//! Whether the value names a user, a payment or a shard is for the caller to say.

use std::fmt;

use prost_reflect::{Cardinality, Kind, MessageDescriptor};

/// Fields in a path at most: the depth of the recursion that follows it.
const KEY_PATH_FIELDS_MAX: usize = 8;

/// Bytes of an encoded 64-bit varint at most.
const VARINT_BYTES_MAX: usize = 10;

/// Bytes of an encoded field at least: a tag, and a value or its length.
const FIELD_BYTES_MIN: usize = 2;

/// Where a request's key is: the numbers of the fields that lead to it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPath {
    text: Box<str>,
    parents: Box<[u32]>,
    leaf: u32,
    kind: LeafKind,
    repeated: bool,
}

/// The kinds of field that can be a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LeafKind {
    U32,
    U64,
    Text,
}

/// A key's value. Zero and the empty text stand for "absent" and are never given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyValue<'a> {
    /// Of a `uint32` or `uint64` field.
    Number(u64),
    /// Of a `string` field.
    Text(&'a str),
}

/// Why a request's bytes could not be read as far as its key. The caller's fault: INVALID_ARGUMENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A field reaches past the end of the bytes around it.
    #[error("the request is cut off in the middle of a field")]
    Truncated,
    /// A varint of more than ten bytes or 64 bits.
    #[error("the request holds a varint of more than 64 bits")]
    Varint,
    /// A tag that no field can have.
    #[error("the request holds an invalid field tag")]
    Tag,
    /// A group, which proto3 does not have.
    #[error("the request holds a group, which proto3 does not have")]
    Group,
    /// The key's field, or one on the way to it, is encoded as another type.
    #[error("the request's routing field is encoded as another type")]
    Type,
    /// The key's text is not UTF-8.
    #[error("the request's routing field is not UTF-8")]
    Utf8,
}

impl KeyPath {
    /// Finds `path` (dotted field names) in a request type. Errors with what is wrong with it.
    ///
    /// Members of a oneof and map fields are refused: on the wire, one member takes another's value away.
    pub(crate) fn resolve(request: &MessageDescriptor, path: &str) -> Result<Self, &'static str> {
        let resolved = Self::resolve_kind(request, path, |kind| match kind {
            Kind::Uint32 => Some(LeafKind::U32),
            Kind::Uint64 => Some(LeafKind::U64),
            Kind::String => Some(LeafKind::Text),
            _ => None,
        });
        resolved?.ok_or("is not a uint32, uint64 or string")
    }

    /// The same for an enum, whose value is given as its number; one that is negative, as the number of its 32 bits.
    pub(crate) fn resolve_enum(request: &MessageDescriptor, path: &str) -> Result<Self, &'static str> {
        let resolved = Self::resolve_kind(request, path, |kind| matches!(kind, Kind::Enum(_)).then_some(LeafKind::U32));
        resolved?.ok_or("is not an enum")
    }

    /// `None` where the field is of another kind.
    fn resolve_kind(
        request: &MessageDescriptor,
        path: &str,
        leaf_kind: impl Fn(Kind) -> Option<LeafKind>,
    ) -> Result<Option<Self>, &'static str> {
        let mut message = request.clone();
        let mut parents = Vec::new();
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            if parents.len() == KEY_PATH_FIELDS_MAX {
                return Err("has too many parts");
            }
            let field = message.get_field_by_name(name).ok_or("is not a field of the request")?;
            if field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) {
                return Err("is or passes through a member of a oneof");
            }
            let repeated = field.cardinality() == Cardinality::Repeated;
            if names.peek().is_some() {
                let (Kind::Message(next), false) = (field.kind(), repeated) else {
                    return Err("passes through a field that is not one message");
                };
                parents.push(field.number());
                message = next;
                continue;
            }
            let kind = leaf_kind(field.kind());
            return Ok(kind.map(|kind| Self { text: path.into(), parents: parents.into(), leaf: field.number(), kind, repeated }));
        }
        Err("is empty")
    }

    /// The dotted path, as annotated.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key in an encoded request: of a singular field the last value, of a repeated one the first element (packed or
    /// not). `None` when it is absent, zero or empty.
    ///
    /// Fields that are not on the path are stepped over, not checked: a request may have a key and still not decode.
    pub fn extract<'a>(&self, message: &'a [u8]) -> Result<Option<KeyValue<'a>>, KeyError> {
        let mut found = None;
        self.walk(&self.parents, message, &mut found)?;
        Ok(found.filter(|value| !matches!(value, KeyValue::Number(0) | KeyValue::Text(""))))
    }

    fn walk<'a>(&self, parents: &[u32], message: &'a [u8], found: &mut Option<KeyValue<'a>>) -> Result<(), KeyError> {
        let mut bytes = Wire(message);
        while !bytes.0.is_empty() {
            let (number, wire_type) = bytes.tag()?;
            match parents.split_first() {
                // A message that comes in several pieces is merged, so each piece may hold the key's last value.
                Some((parent, below)) if *parent == number => match wire_type {
                    WIRE_LEN => self.walk(below, bytes.delimited()?, found)?,
                    _ => return Err(KeyError::Type),
                },
                None if self.leaf == number => {
                    let value = self.leaf_value(&mut bytes, wire_type)?;
                    if !(self.repeated && found.is_some()) {
                        *found = value.or(*found);
                    }
                }
                _ => bytes.skip(wire_type)?,
            }
        }
        Ok(())
    }

    /// The value at hand; `None` for an empty packed list.
    fn leaf_value<'a>(&self, bytes: &mut Wire<'a>, wire_type: u8) -> Result<Option<KeyValue<'a>>, KeyError> {
        let number = |value: u64| match self.kind {
            // Decoders keep the low 32 bits.
            LeafKind::U32 => KeyValue::Number(value & u64::from(u32::MAX)),
            _ => KeyValue::Number(value),
        };
        match (self.kind, wire_type) {
            (LeafKind::Text, WIRE_LEN) => {
                let text = std::str::from_utf8(bytes.delimited()?).map_err(|_| KeyError::Utf8)?;
                Ok(Some(KeyValue::Text(text)))
            }
            (LeafKind::U32 | LeafKind::U64, WIRE_VARINT) => Ok(Some(number(bytes.varint()?))),
            (LeafKind::U32 | LeafKind::U64, WIRE_LEN) if self.repeated => {
                let mut packed = Wire(bytes.delimited()?);
                if packed.0.is_empty() { Ok(None) } else { Ok(Some(number(packed.varint()?))) }
            }
            _ => Err(KeyError::Type),
        }
    }
}

impl fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const WIRE_VARINT: u8 = 0;
const WIRE_64_BIT: u8 = 1;
const WIRE_LEN: u8 = 2;
const WIRE_GROUP_START: u8 = 3;
const WIRE_GROUP_END: u8 = 4;
const WIRE_32_BIT: u8 = 5;

/// Whether an encoded message has more fields than so many, each element of a list that is not packed being one.
///
/// # Errors
/// The bytes are no message as far as they were read: what is not understood cannot be counted.
pub fn has_more_fields(message: &[u8], fields_max: usize) -> Result<bool, KeyError> {
    // No field has less than two bytes, and most messages are small.
    if message.len() / FIELD_BYTES_MIN <= fields_max {
        return Ok(false);
    }
    let (mut bytes, mut fields) = (Wire(message), 0);
    while !bytes.0.is_empty() && fields <= fields_max {
        let (_, wire_type) = bytes.tag()?;
        bytes.skip(wire_type)?;
        fields += 1;
    }
    Ok(fields > fields_max)
}

/// What is left to read. Every step takes at least one byte or fails.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], KeyError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(KeyError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, KeyError> {
        let mut value = 0;
        for (index, byte) in self.0.iter().copied().enumerate().take(VARINT_BYTES_MAX) {
            // The tenth byte has room for the 64th bit only, and nothing may follow it.
            if index == VARINT_BYTES_MAX - 1 && byte > 1 {
                return Err(KeyError::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(KeyError::Truncated)
    }

    fn tag(&mut self) -> Result<(u32, u8), KeyError> {
        let tag = u32::try_from(self.varint()?).map_err(|_| KeyError::Tag)?;
        let (number, wire_type) = (tag >> 3, (tag & 7) as u8);
        if number == 0 || wire_type > WIRE_32_BIT { Err(KeyError::Tag) } else { Ok((number, wire_type)) }
    }

    fn delimited(&mut self) -> Result<&'a [u8], KeyError> {
        let length = usize::try_from(self.varint()?).map_err(|_| KeyError::Truncated)?;
        self.take(length)
    }

    fn skip(&mut self, wire_type: u8) -> Result<(), KeyError> {
        match wire_type {
            WIRE_VARINT => self.varint().map(drop),
            WIRE_64_BIT => self.take(8).map(drop),
            WIRE_LEN => self.delimited().map(drop),
            WIRE_32_BIT => self.take(4).map(drop),
            WIRE_GROUP_START | WIRE_GROUP_END => Err(KeyError::Group),
            _ => Err(KeyError::Tag),
        }
    }
}

#[cfg(test)]
mod tests;
