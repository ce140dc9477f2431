//! `application/x-www-form-urlencoded`, in one buffer that is zeroed.

use zeroize::Zeroizing;

/// Bytes that there are for a form: all at once, as a vector that grows leaves copies behind.
const FORM_BYTES: usize = 4096;

pub(super) struct Form(Zeroizing<Vec<u8>>);

impl Form {
    pub(super) fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(FORM_BYTES)))
    }

    pub(super) fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(b'&');
        }
        self.encode(name);
        self.0.push(b'=');
        self.encode(value);
    }

    pub(super) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    fn encode(&mut self, text: &str) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                self.0.push(byte);
            } else {
                self.0.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_a_form_is_escaped() {
        let mut form = Form::new();
        form.add("card[number]", "1 2");
        form.add("url", "https://a.example/?b=c&d=ä");
        let text = String::from_utf8(form.into_bytes().to_vec()).expect("ASCII");
        assert_eq!(text, "card%5Bnumber%5D=1%202&url=https%3A%2F%2Fa.example%2F%3Fb%3Dc%26d%3D%C3%A4");
    }
}
