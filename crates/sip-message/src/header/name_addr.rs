//! `name-addr` and `addr-spec` with parameters: what From, To, Contact, Route and Path hold.
//!
//! ```abnf
//! name-addr    = [ display-name ] LAQUOT addr-spec RAQUOT
//! addr-spec    = SIP-URI / SIPS-URI / absoluteURI
//! display-name = *( token LWS ) / quoted-string
//! ```
//!
//! Without angle brackets a URI ends at `;` and may hold neither `,` nor `?` (RFC 3261 §20.10).

use super::param::{self, Params, unquoted};
use crate::error::{HeaderError, UriError};
use crate::header::HeaderName;
use crate::span::Span;
use crate::syntax::{Cursor, is_lws, is_token, number, trim, uri_prefix};
use crate::uri::Uri;

/// Where the parts of one value lie.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NameAddrParts {
    pub(crate) value: Span,
    display: Option<Span>,
    pub(crate) uri: Span,
    params_start: u32,
    pub(crate) tag: Option<Span>,
}

impl NameAddrParts {
    /// Reads one value; the cursor stops at the comma or the end. `Err` is the place of the fault.
    pub(crate) fn read(message: &[u8], cursor: &mut Cursor<'_>) -> Result<Self, usize> {
        cursor.skip_lws();
        let start = cursor.at();
        let mut parts = Self::default();
        if cursor.peek() == Some(b'"') {
            parts.display = Some(cursor.quoted().ok_or(start)?);
            cursor.skip_lws();
            if cursor.peek() != Some(b'<') {
                return Err(cursor.at());
            }
        } else if cursor.peek() != Some(b'<') {
            let text = cursor.run(|byte| !matches!(byte, b'<' | b';' | b',' | b'"'));
            let text = trim(message, text);
            if cursor.peek() == Some(b'<') {
                // Octets beyond ASCII are not tokens; phones write them all the same.
                let is_display = |byte: &u8| is_token(*byte) || is_lws(*byte) || !byte.is_ascii();
                if !text.slice(message).iter().all(is_display) {
                    return Err(start);
                }
                parts.display = Some(text);
            } else {
                check_spec(message, text)?;
                if let Some(at) = memchr::memchr(b'?', text.slice(message)) {
                    return Err(text.start as usize + at);
                }
                parts.uri = text;
                cursor.jump(text.end as usize);
            }
        }
        if cursor.eat(b'<') {
            parts.uri = cursor.uri();
            if cursor.peek() != Some(b'>') {
                cursor.jump(parts.uri.start as usize);
                return Err(angle_fault(message, cursor));
            }
            check_scheme(message, parts.uri)?;
            cursor.bump();
        }
        parts.params_start = cursor.at() as u32;
        parts.value = Span::of(start, cursor.at());
        while let Some(raw) = param::next(cursor)? {
            parts.value.end = raw.span.end;
            if raw.name.len() == 3 && raw.name.slice(message).eq_ignore_ascii_case(b"tag") {
                let tag = raw.value.ok_or(raw.span.start as usize)?;
                parts.tag = parts.tag.or(Some(tag));
            }
        }
        cursor.skip_lws();
        match cursor.peek() {
            None | Some(b',') => Ok(parts),
            Some(_) => Err(cursor.at()),
        }
    }
}

/// Where the text behind an angle bracket is no URI, or where it begins if it never ends.
fn angle_fault(message: &[u8], cursor: &Cursor<'_>) -> usize {
    let at = cursor.at();
    let end = memchr::memchr(b'>', cursor.rest()).map(|length| at + length);
    end.and_then(|end| check_spec(message, Span::of(at, end)).err()).unwrap_or(at)
}

/// A scheme, a colon, and no octet that a URI may not hold. The rest is understood on demand.
fn check_spec(message: &[u8], span: Span) -> Result<(), usize> {
    check_scheme(message, span)?;
    let text = span.slice(message);
    match uri_prefix(text) {
        clean if clean == text.len() => Ok(()),
        clean => Err(span.start as usize + clean),
    }
}

fn check_scheme(message: &[u8], span: Span) -> Result<(), usize> {
    let text = span.slice(message);
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let scheme = text.iter().position(|byte| !is_scheme(byte)).unwrap_or(text.len());
    let is_spec = scheme > 0 && text.get(scheme) == Some(&b':') && text.len() > scheme + 1;
    if is_spec { Ok(()) } else { Err(span.start as usize) }
}

/// A URI with the name shown for it and the parameters around it.
#[derive(Clone, Copy, Debug)]
pub struct NameAddr<'a> {
    /// As written: quotes included if there are any.
    pub display: Option<&'a [u8]>,
    /// Where the value lies, parameters included.
    pub value_span: Span,
    message: &'a [u8],
    parts: NameAddrParts,
}

impl<'a> NameAddr<'a> {
    /// Reads a value that stands alone, as a stored Path or Contact does.
    pub fn from_text(text: &'a [u8]) -> Result<Self, HeaderError> {
        Self::parse(text, Span::of(0, text.len()), HeaderName::OTHER)
    }

    pub(crate) fn parse(
        message: &'a [u8],
        span: Span,
        name: HeaderName,
    ) -> Result<Self, HeaderError> {
        let malformed = |at| HeaderError::Malformed { name, at };
        let mut cursor = Cursor::new(message, span);
        let parts = NameAddrParts::read(message, &mut cursor).map_err(malformed)?;
        if cursor.is_done() {
            Ok(Self::from_parts(message, parts))
        } else {
            Err(malformed(cursor.at()))
        }
    }

    pub(crate) fn from_parts(message: &'a [u8], parts: NameAddrParts) -> Self {
        let display = parts.display.filter(|display| !display.is_empty());
        Self {
            display: display.map(|display| display.slice(message)),
            value_span: parts.value,
            message,
            parts,
        }
    }

    /// The URI as written, without angle brackets.
    pub fn uri_bytes(&self) -> &'a [u8] {
        self.parts.uri.slice(self.message)
    }

    /// Where the URI lies.
    pub const fn uri_span(&self) -> Span {
        self.parts.uri
    }

    /// The URI understood.
    pub fn uri(&self) -> Result<Uri<'a>, UriError> {
        Uri::parse(self.uri_bytes())
    }

    /// The header parameters; those of the URI are [`Uri::params`].
    pub fn params(&self) -> Params<'a> {
        Params::new(self.message, Span::new(self.parts.params_start, self.parts.value.end))
    }

    /// The value of a parameter: `Some(None)` if it stands without one.
    pub fn param(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        param::find(self.params(), name)
    }

    /// The tag of a From or To.
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.parts.tag.map(|tag| tag.slice(self.message))
    }

    /// The preference in thousandths, 0–1000 (RFC 3261 §25.1 qvalue).
    pub fn q(&self) -> Option<u16> {
        let text = self.param(b"q")??;
        let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
            Some(dot) => (text.get(..dot)?, text.get(dot + 1..)?),
            None => (text, &[][..]),
        };
        let whole = match whole {
            b"0" | b"" if !text.is_empty() => 0,
            b"1" => 1000,
            _ => return None,
        };
        if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let digits = fraction.iter().chain(b"000").take(3);
        let thousandths = digits.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        Some(whole + thousandths).filter(|q| *q <= 1000)
    }

    /// The `expires` parameter in seconds; too large a number counts as the largest.
    pub fn expires(&self) -> Option<u32> {
        let seconds = number(unquoted(self.param(b"expires")??))?;
        Some(seconds.and_then(|seconds| seconds.try_into().ok()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (text, display, uri, params) in [
            ("<sip:a@b>", None, "sip:a@b", 0),
            ("sip:a@b;tag=1;x", None, "sip:a@b", 2),
            ("sip:a@b ; tag = 1", None, "sip:a@b", 1),
            ("<sip:a@b;lr?h=v>;tag=1", None, "sip:a@b;lr?h=v", 1),
            ("A. B <sip:a@b>", Some("A. B"), "sip:a@b", 0),
            ("A<sip:a@b>", Some("A"), "sip:a@b", 0),
            ("Zo\u{eb} <sip:a@b>", Some("Zo\u{eb}"), "sip:a@b", 0),
            ("\"A, \\\"B\\\" <c>\"\r\n <sip:a@b>", Some("\"A, \\\"B\\\" <c>\""), "sip:a@b", 0),
            ("\"\" <sip:a,b@c>;p=\"x;y\"", Some("\"\""), "sip:a,b@c", 1),
            ("<urn:x:y>", None, "urn:x:y", 0),
        ] {
            let address = NameAddr::from_text(text.as_bytes()).unwrap();
            assert_eq!(address.display, display.map(str::as_bytes), "{text}");
            assert_eq!(address.uri_bytes(), uri.as_bytes(), "{text}");
            assert_eq!(address.params().count(), params, "{text}");
        }
    }

    #[test]
    fn malformed_addresses_are_refused_where_they_break() {
        for (text, at) in [
            ("", 0),
            ("a", 0),
            ("<>", 1),
            ("<sip:>", 1),
            ("< sip:a@b>", 1),
            ("<sip:a@b", 1),
            ("<sip:a b>", 6),
            ("\"A <sip:a@b>", 0),
            ("\"A\" sip:a@b", 4),
            ("A, B <sip:a@b>", 0),
            ("sip:a@b?h=v", 7),
            ("<sip:a@b>;", 10),
            ("<sip:a@b>;;x", 10),
            ("<sip:a@b> x", 10),
            ("<sip:a@b>, <sip:c@d>", 9),
            ("<sip:a@b>;tag", 9),
        ] {
            let error = NameAddr::from_text(text.as_bytes()).unwrap_err();
            assert_eq!(error, HeaderError::Malformed { name: HeaderName::OTHER, at }, "{text}");
        }
    }

    #[test]
    fn preference_and_expiry_are_numbers() {
        let address = |params: &str| format!("<sip:a@b>{params}");
        for (params, q) in [
            ("", None),
            (";q=0", Some(0)),
            (";q=1", Some(1000)),
            (";q=1.000", Some(1000)),
            (";q=0.5", Some(500)),
            (";Q=0.123", Some(123)),
            (";q=.7", Some(700)),
            (";q=1.001", None),
            (";q=2", None),
            (";q=0.1234", None),
            (";q=x", None),
            (";q", None),
        ] {
            assert_eq!(NameAddr::from_text(address(params).as_bytes()).unwrap().q(), q, "{params}");
        }
        for (params, expires) in [
            ("", None),
            (";expires=0", Some(0)),
            (";expires=3600", Some(3600)),
            (";expires=\"60\"", Some(60)),
            (";expires=99999999999999999999999", Some(u32::MAX)),
            (";expires=-1", None),
            (";expires", None),
        ] {
            let text = address(params);
            assert_eq!(
                NameAddr::from_text(text.as_bytes()).unwrap().expires(),
                expires,
                "{params}"
            );
        }
    }
}
