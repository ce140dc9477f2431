//! `Debug` for messages with fields of class PERSONAL, CARDHOLDER or SECRET: those print as withheld, the rest as usual.
//!
//! The build script finds the messages by their annotations and writes the code. Withheld is a whole field, whatever its
//! kind, so nothing of a nested message shows either. `Display` and serialization are untouched.

use std::{fmt, marker::PhantomData};

/// What prints in a sensitive field's place.
struct Withheld;

impl fmt::Debug for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(withheld)")
    }
}

/// An enum field, which prints its value's name, or its number when this version has no name for it.
struct EnumOf<E>(i32, PhantomData<E>);

impl<E> EnumOf<E> {
    fn new(number: i32) -> Self {
        Self(number, PhantomData)
    }
}

impl<E: TryFrom<i32> + fmt::Debug> fmt::Debug for EnumOf<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match E::try_from(self.0) {
            Ok(value) => value.fmt(f),
            Err(_) => self.0.fmt(f),
        }
    }
}

mod generated {
    include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
}

#[cfg(test)]
mod tests;
