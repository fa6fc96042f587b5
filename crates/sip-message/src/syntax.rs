//! Character classes (RFC 3261 §25.1) and the cursor that walks a header value.

use crate::span::Span;

const TOKEN: u8 = 1;
const HOST: u8 = 2;
const LWS: u8 = 4;
const UNRESERVED: u8 = 8;
const URI: u8 = 16;
const VALUE: u8 = 32;

/// What each octet may be part of.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        let byte = octet as u8;
        let mut class = 0;
        if byte.is_ascii_alphanumeric() {
            class |= TOKEN | HOST | UNRESERVED;
        }
        if matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~') {
            class |= TOKEN;
        }
        if matches!(byte, b'-' | b'.' | b'_') {
            class |= HOST;
        }
        if matches!(byte, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')') {
            class |= UNRESERVED;
        }
        if byte > b' ' && byte != 0x7f {
            // Octets beyond ASCII are not URI characters, yet they do no harm: carried through.
            if !matches!(byte, b'<' | b'>' | b'"') {
                class |= URI;
            }
            if !matches!(byte, b'<' | b'>' | b'"' | b';' | b',') {
                class |= VALUE;
            }
        }
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            class |= LWS;
        }
        table[octet] = class;
        octet += 1;
    }
    table
}

fn has(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

pub(crate) fn is_token(byte: u8) -> bool {
    has(byte, TOKEN)
}

/// Letters, digits, hyphen, dot, and the underscore that some hosts carry all the same.
pub(crate) fn is_host(byte: u8) -> bool {
    has(byte, HOST)
}

/// The length of what a URI may hold, at the front.
pub(crate) fn uri_prefix(text: &[u8]) -> usize {
    prefix(text, URI)
}

/// The length of octets of one class at the front: eight are looked at together, the last ones alone.
fn prefix(text: &[u8], class: u8) -> usize {
    const TOGETHER: usize = 8;
    let is_clean = |chunk: &&[u8]| {
        chunk.iter().fold(class, |all, byte| all & CLASSES[usize::from(*byte)]) != 0
    };
    let clean = TOGETHER * text.chunks_exact(TOGETHER).take_while(is_clean).count();
    let rest = text.get(clean..).unwrap_or_default();
    clean + rest.iter().position(|byte| !has(*byte, class)).unwrap_or(rest.len())
}

/// White space, line ends included: inside a field value these can only be a fold.
pub(crate) fn is_lws(byte: u8) -> bool {
    has(byte, LWS)
}

pub(crate) fn is_unreserved(byte: u8) -> bool {
    has(byte, UNRESERVED)
}

/// Without white space and folds at both ends.
pub(crate) fn trim(bytes: &[u8], mut span: Span) -> Span {
    let text = span.slice(bytes);
    let leading = text.iter().take_while(|byte| is_lws(**byte)).count();
    if leading == text.len() {
        return Span::new(span.start, span.start);
    }
    let trailing = text.iter().rev().take_while(|byte| is_lws(**byte)).count();
    span.start += leading as u32;
    span.end -= trailing as u32;
    span
}

/// `1*DIGIT` as a number: `None` if it is none, `Some(None)` if it is too large for 64 bits.
pub(crate) fn number(digits: &[u8]) -> Option<Option<u64>> {
    if digits.is_empty() {
        return None;
    }
    let mut value = Some(0_u64);
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value
            .and_then(|value| value.checked_mul(10))
            .and_then(|value| value.checked_add(u64::from(digit - b'0')));
    }
    Some(value)
}

/// A walk over part of a message. Positions are those of the message.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Walks `span` of `message`.
    pub(crate) fn new(message: &'a [u8], span: Span) -> Self {
        let bytes = message.get(..span.end as usize).unwrap_or(message);
        Self { bytes, at: (span.start as usize).min(bytes.len()) }
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(crate) const fn bump(&mut self) {
        self.at += 1;
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn jump(&mut self, at: usize) {
        self.at = at.min(self.bytes.len());
    }

    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    pub(crate) fn skip_lws(&mut self) {
        while self.peek().is_some_and(is_lws) {
            self.at += 1;
        }
    }

    /// The octets of one class from here on; may be none.
    #[inline]
    pub(crate) fn run(&mut self, class: impl Fn(u8) -> bool) -> Span {
        let start = self.at;
        let rest = self.rest();
        self.at += rest.iter().position(|byte| !class(*byte)).unwrap_or(rest.len());
        Span::of(start, self.at)
    }

    /// The octets of a URI from here on; may be none.
    pub(crate) fn uri(&mut self) -> Span {
        let start = self.at;
        self.at += uri_prefix(self.rest());
        Span::of(start, self.at)
    }

    /// The octets of an unquoted parameter value from here on; may be none. Liberal, so that IPv6
    /// addresses pass.
    pub(crate) fn value(&mut self) -> Span {
        let start = self.at;
        self.at += prefix(self.rest(), VALUE);
        Span::of(start, self.at)
    }

    /// A quoted string from its opening to its closing quote, both included; `None` if it does
    /// not close.
    pub(crate) fn quoted(&mut self) -> Option<Span> {
        let start = self.at;
        self.at += 1;
        loop {
            let next = memchr::memchr2(b'"', b'\\', self.rest());
            self.at = next.map_or(self.bytes.len(), |length| self.at + length);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(Span::of(start, self.at));
                }
                _ => self.at += 2,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method: each octet at each place of a text that is longer than what is looked at together.
    #[test]
    fn a_value_ends_at_the_first_octet_that_it_may_not_hold() {
        for octet in 0..=255 {
            for place in [0, 7, 15, 16, 31, 32, 39] {
                let mut text = [b'a'; 40];
                text[place] = octet;
                let end = |ends: &[u8]| {
                    let is_end = octet <= b' ' || octet == 0x7f || ends.contains(&octet);
                    if is_end { place } else { text.len() }
                };
                assert_eq!(uri_prefix(&text), end(b"<>\""), "{octet} at {place}");
                let mut cursor = Cursor::new(&text, Span::of(0, text.len()));
                assert_eq!(cursor.value().len(), end(b"<>\";,"), "{octet} at {place}");
            }
        }
        assert_eq!(uri_prefix(b""), 0);
    }
}
