//! Credentials and challenges: `Authorization`, `Proxy-Authorization`, `WWW-Authenticate`,
//! `Proxy-Authenticate` (RFC 3261 §25.1, RFC 8760). Each field holds one of them.
//!
//! ```abnf
//! credentials = auth-scheme LWS auth-param *( COMMA auth-param )
//! challenge   = auth-scheme LWS auth-param *( COMMA auth-param )
//! auth-param  = token EQUAL ( token / quoted-string )
//! ```

use std::borrow::Cow;

use super::param::unquoted;
use crate::span::Span;
use crate::syntax::{Cursor, is_token};

/// The parameters of one set of credentials or one challenge.
#[derive(Clone, Copy, Debug)]
pub struct AuthParams<'a> {
    scheme: &'a [u8],
    rest: &'a [u8],
}

impl<'a> AuthParams<'a> {
    /// Reads a field's value; `None` if it does not begin with a scheme.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(value, Span::of(0, value.len()));
        cursor.skip_lws();
        let scheme = cursor.run(is_token);
        (!scheme.is_empty()).then(|| Self { scheme: scheme.slice(value), rest: cursor.rest() })
    }

    /// As written; compare case-insensitively.
    pub const fn scheme(&self) -> &'a [u8] {
        self.scheme
    }

    /// Whether the scheme is Digest.
    pub fn is_digest(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(b"Digest")
    }

    /// Every parameter in order, as written: quotes and escapes stay. Ends at the first fault.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let rest = self.rest;
        let mut cursor = Cursor::new(rest, Span::of(0, rest.len()));
        std::iter::from_fn(move || {
            next(&mut cursor).map(|(name, value)| (name.slice(rest), value.slice(rest)))
        })
    }

    /// The value of the first parameter of that name as written, quotes included.
    pub fn raw(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value without quotes and escapes.
    pub fn get(&self, name: &[u8]) -> Option<Cow<'a, [u8]>> {
        self.raw(name).map(plain)
    }

    /// The same for several names in one pass.
    pub fn get_all<const N: usize>(&self, names: [&[u8]; N]) -> [Option<Cow<'a, [u8]>>; N] {
        let mut found = [const { None }; N];
        for (name, value) in self.iter() {
            let place = names.iter().position(|wanted| wanted.eq_ignore_ascii_case(name));
            if let Some(place) = place.and_then(|place| found.get_mut(place))
                && place.is_none()
            {
                *place = Some(plain(value));
            }
        }
        found
    }
}

/// A value as written, without quotes and escapes.
fn plain(raw: &[u8]) -> Cow<'_, [u8]> {
    let text = unquoted(raw);
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut octets = text.iter();
    while let Some(octet) = octets.next() {
        let octet = if *octet == b'\\' { octets.next().unwrap_or(octet) } else { octet };
        plain.push(*octet);
    }
    Cow::Owned(plain)
}

fn next(cursor: &mut Cursor<'_>) -> Option<(Span, Span)> {
    cursor.skip_lws();
    while cursor.eat(b',') {
        cursor.skip_lws();
    }
    let name = cursor.run(is_token);
    cursor.skip_lws();
    if name.is_empty() || !cursor.eat(b'=') {
        return None;
    }
    cursor.skip_lws();
    let value = if cursor.peek() == Some(b'"') { cursor.quoted()? } else { cursor.value() };
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_without_quotes_and_escapes() {
        let value = b"dIgEsT username=\"al\\\"ice\", realm = \"a, b\",\r\n nonce=\"n=1\",uri=\"sip:b@c;x=\\\\y\", \
            nc=00000001 , qop=auth,response=\"\"";
        let auth = AuthParams::parse(value).unwrap();
        assert!(auth.is_digest());
        assert_eq!(auth.iter().count(), 7);
        for (name, wanted) in [
            ("username", "al\"ice"),
            ("REALM", "a, b"),
            ("nonce", "n=1"),
            ("uri", "sip:b@c;x=\\y"),
            ("nc", "00000001"),
            ("qop", "auth"),
            ("response", ""),
        ] {
            assert_eq!(auth.get(name.as_bytes()).as_deref(), Some(wanted.as_bytes()), "{name}");
        }
        assert_eq!(auth.raw(b"nonce"), Some(&b"\"n=1\""[..]));
        let [uri, missing, user] = auth.get_all([b"URI", b"cnonce", b"username"]);
        assert_eq!((uri.as_deref(), missing), (Some(&b"sip:b@c;x=\\y"[..]), None));
        assert_eq!(user.as_deref(), Some(&b"al\"ice"[..]));
        assert_eq!(auth.get(b"cnonce"), None);
    }

    #[test]
    fn broken_credentials_end_at_the_fault() {
        for (value, count) in [
            ("Digest", 0),
            ("Digest a=1, b", 1),
            ("Digest a=\"open", 0),
            ("Basic QWxhZGRpbg==", 1),
            ("Digest ,,a=1", 1),
        ] {
            assert_eq!(
                AuthParams::parse(value.as_bytes()).unwrap().iter().count(),
                count,
                "{value}"
            );
        }
        assert!(AuthParams::parse(b"").is_none());
        assert!(AuthParams::parse(b"\"x\"").is_none());
    }
}
