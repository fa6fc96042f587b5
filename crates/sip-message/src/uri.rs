//! URIs: SIP and SIPS taken apart, others carried through (RFC 3261 §19.1).
//!
//! ```abnf
//! SIP-URI  = "sip:" [ userinfo ] hostport uri-parameters [ headers ]
//! userinfo = ( user / telephone-subscriber ) [ ":" password ] "@"
//! hostport = host [ ":" port ]
//! ```

mod compare;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::compare::{equivalent, normalised, unescape};
use crate::error::UriError;
use crate::span::Span;
use crate::syntax::{is_host, number, uri_prefix};

/// What kind of URI it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme<'a> {
    Sip,
    Sips,
    Tel,
    /// As written.
    Other(&'a [u8]),
}

/// A URI taken apart. User, host and parameters are empty unless the scheme is SIP or SIPS.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a> {
    bytes: &'a [u8],
    scheme: Scheme<'a>,
    user: Option<&'a [u8]>,
    password: Option<&'a [u8]>,
    host: &'a [u8],
    host_start: u32,
    port: Option<u16>,
    params: &'a [u8],
    headers: Option<&'a [u8]>,
}

/// A URI parameter, still escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UriParam<'a> {
    pub name: &'a [u8],
    pub value: Option<&'a [u8]>,
}

impl<'a> Uri<'a> {
    /// Takes a URI apart.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, UriError> {
        if uri_prefix(bytes) < bytes.len() {
            return Err(UriError::Octet);
        }
        let (scheme, rest) = split_near(bytes, b':').ok_or(UriError::Scheme)?;
        let scheme = read_scheme(scheme)?;
        let mut uri = Self {
            bytes,
            scheme,
            user: None,
            password: None,
            host: b"",
            host_start: 0,
            port: None,
            params: b"",
            headers: None,
        };
        if matches!(scheme, Scheme::Sip | Scheme::Sips) {
            uri.read_sip(rest)?;
        } else if rest.is_empty() {
            return Err(UriError::Scheme);
        }
        Ok(uri)
    }

    fn read_sip(&mut self, rest: &'a [u8]) -> Result<(), UriError> {
        let mut rest = rest;
        if let Some((userinfo, after)) = split_once(rest, b'@') {
            rest = after;
            let (user, password) = match split_once(userinfo, b':') {
                Some((user, password)) => (user, Some(password)),
                None => (userinfo, None),
            };
            if user.is_empty() || rest.contains(&b'@') {
                return Err(UriError::User);
            }
            self.user = Some(user);
            self.password = password;
        }
        self.host_start = (self.bytes.len() - rest.len()) as u32;
        let host_end = read_host_end(rest)?;
        let (host, rest) = rest.split_at_checked(host_end).ok_or(UriError::Host)?;
        self.host = host;
        let (rest, headers) = match split_near(rest, b'?') {
            Some((rest, headers)) => (rest, Some(headers)),
            None => (rest, None),
        };
        self.headers = headers;
        let (port, params) = match rest.iter().position(|byte| *byte == b';') {
            Some(at) => rest.split_at_checked(at).unwrap_or((rest, b"")),
            None => (rest, &b""[..]),
        };
        if let Some(digits) = port.strip_prefix(b":") {
            let port = number(digits).flatten().and_then(|port| port.try_into().ok());
            self.port = Some(port.ok_or(UriError::Port)?);
        } else if !port.is_empty() {
            return Err(UriError::Host);
        }
        self.params = params;
        if self.params().any(|param| param.name.is_empty()) {
            return Err(UriError::Parameter);
        }
        Ok(())
    }

    /// The URI as written.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What kind of URI it is.
    pub const fn scheme(&self) -> Scheme<'a> {
        self.scheme
    }

    /// Whether it is a SIP or SIPS URI, the only ones taken apart.
    pub const fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// The user part, still escaped, its own parameters included.
    pub const fn user(&self) -> Option<&'a [u8]> {
        self.user
    }

    /// The password, which nobody should use.
    pub const fn password(&self) -> Option<&'a [u8]> {
        self.password
    }

    /// Name or address; an IPv6 address keeps its brackets.
    pub const fn host(&self) -> &'a [u8] {
        self.host
    }

    /// Where the host lies in [`Self::bytes`].
    pub const fn host_span(&self) -> Span {
        Span::of(self.host_start as usize, self.host_start as usize + self.host.len())
    }

    /// The port, if one is written.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The parameters in order, still escaped.
    pub fn params(&self) -> impl Iterator<Item = UriParam<'a>> + Clone + use<'a> {
        let params = self.params.strip_prefix(b";");
        params.into_iter().flat_map(|params| params.split(|byte| *byte == b';')).map(|param| {
            match split_near(param, b'=') {
                Some((name, value)) => UriParam { name, value: Some(value) },
                None => UriParam { name: param, value: None },
            }
        })
    }

    /// The value of a parameter: `Some(None)` if it stands without one.
    pub fn param(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        self.params().find(|param| param.name.eq_ignore_ascii_case(name)).map(|param| param.value)
    }

    /// What follows the question mark.
    pub const fn headers(&self) -> Option<&'a [u8]> {
        self.headers
    }
}

fn read_scheme(scheme: &[u8]) -> Result<Scheme<'_>, UriError> {
    let is_rest = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    match scheme {
        _ if scheme.eq_ignore_ascii_case(b"sip") => Ok(Scheme::Sip),
        _ if scheme.eq_ignore_ascii_case(b"sips") => Ok(Scheme::Sips),
        _ if scheme.eq_ignore_ascii_case(b"tel") => Ok(Scheme::Tel),
        [first, rest @ ..] if first.is_ascii_alphabetic() && rest.iter().all(is_rest) => {
            Ok(Scheme::Other(scheme))
        }
        _ => Err(UriError::Scheme),
    }
}

fn read_host_end(rest: &[u8]) -> Result<usize, UriError> {
    if rest.first() == Some(&b'[') {
        let end = memchr::memchr(b']', rest).ok_or(UriError::Host)? + 1;
        return rest.get(..end).and_then(parse_ip).map(|_| end).ok_or(UriError::Host);
    }
    match rest.iter().position(|byte| !is_host(*byte)).unwrap_or(rest.len()) {
        0 => Err(UriError::Host),
        end => Ok(end),
    }
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    split_at(bytes, memchr::memchr(separator, bytes)?)
}

/// The same where there are only a few octets to look at.
fn split_near(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    split_at(bytes, bytes.iter().position(|byte| *byte == separator)?)
}

fn split_at(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

/// An address: IPv4, IPv6, or IPv6 in brackets. Liberal with the `:::` that the grammar of
/// RFC 3261 allows before an embedded IPv4 address (RFC 5118 §4.10).
pub fn parse_ip(host: &[u8]) -> Option<IpAddr> {
    let inner = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]"));
    let first = host.first()?;
    if inner.is_none() && !first.is_ascii_hexdigit() && *first != b':' {
        return None;
    }
    let text = std::str::from_utf8(inner.unwrap_or(host)).ok()?;
    if let (None, Ok(address)) = (inner, text.parse::<Ipv4Addr>()) {
        return Some(IpAddr::V4(address));
    }
    let address = match text.split_once(":::") {
        Some((before, after)) => collapsed(before, after),
        None => text.parse::<Ipv6Addr>().ok(),
    };
    address.map(IpAddr::V6)
}

/// `before::after`, put together without allocating: addresses are short.
fn collapsed(before: &str, after: &str) -> Option<Ipv6Addr> {
    let mut text = [0; 48];
    let parts = before.bytes().chain(*b"::").chain(after.bytes());
    let mut length = 0;
    for byte in parts {
        *text.get_mut(length)? = byte;
        length += 1;
    }
    std::str::from_utf8(text.get(..length)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_sip_uri_are_found() {
        let uri = Uri::parse(b"sips:al;x=1:pw@[2001:db8::1]:5071;transport=tcp;lr?Subject=a&b=c")
            .unwrap();
        assert_eq!(uri.scheme(), Scheme::Sips);
        assert_eq!(uri.user(), Some(&b"al;x=1"[..]));
        assert_eq!(uri.password(), Some(&b"pw"[..]));
        assert_eq!((uri.host(), uri.port()), (&b"[2001:db8::1]"[..], Some(5071)));
        assert_eq!(uri.host_span().slice(uri.bytes()), uri.host());
        assert_eq!(uri.param(b"Transport"), Some(Some(&b"tcp"[..])));
        assert_eq!(uri.param(b"lr"), Some(None));
        assert_eq!(uri.param(b"maddr"), None);
        assert_eq!(uri.headers(), Some(&b"Subject=a&b=c"[..]));
        let bare = Uri::parse(b"sip:example.com").unwrap();
        assert_eq!((bare.user(), bare.port(), bare.params().count()), (None, None, 0));
    }

    #[test]
    fn other_schemes_are_carried() {
        for (text, scheme) in [
            ("tel:+15550100;ext=1", Scheme::Tel),
            ("TEL:1", Scheme::Tel),
            ("urn:service:sos", Scheme::Other(b"urn")),
            ("a.b+c-d:x", Scheme::Other(b"a.b+c-d")),
        ] {
            let uri = Uri::parse(text.as_bytes()).unwrap();
            assert_eq!((uri.scheme(), uri.bytes()), (scheme, text.as_bytes()));
            assert!(!uri.is_sip());
        }
    }

    #[test]
    fn malformed_uris_are_refused() {
        for (text, error) in [
            ("", UriError::Scheme),
            ("sip", UriError::Scheme),
            (":x", UriError::Scheme),
            ("1a:x", UriError::Scheme),
            ("tel:", UriError::Scheme),
            ("sip:", UriError::Host),
            ("sip:@a", UriError::User),
            ("sip:a@", UriError::Host),
            ("sip:a@b@c", UriError::User),
            ("sip:a b", UriError::Octet),
            ("sip:<a>", UriError::Octet),
            ("sip:a\u{0}", UriError::Octet),
            ("sip:[::1", UriError::Host),
            ("sip:[1.2.3.4.5]", UriError::Host),
            ("sip:::1", UriError::Host),
            ("sip:2001:db8::1", UriError::Port),
            ("sip:a:", UriError::Port),
            ("sip:a:65536", UriError::Port),
            ("sip:a:b", UriError::Port),
            ("sip:a$b", UriError::Host),
            ("sip:a;;b", UriError::Parameter),
            ("sip:a;=b", UriError::Parameter),
        ] {
            assert_eq!(Uri::parse(text.as_bytes()).map(|_| ()), Err(error), "{text}");
        }
    }

    #[test]
    fn addresses_are_told_from_names() {
        for (text, wanted) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("[::1]", Some("::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8:::192.0.2.1]", Some("2001:db8::c000:201")),
            ("[192.0.2.1]", None),
            ("example.com", None),
            ("192.0.2", None),
            ("[::1", None),
            ("", None),
            ("[]", None),
            ("dead.example", None),
            ("[:::1:::2]", None),
        ] {
            assert_eq!(
                parse_ip(text.as_bytes()),
                wanted.map(|text| text.parse().unwrap()),
                "{text}"
            );
        }
    }
}
