//! `Via` (RFC 3261 §20.42, RFC 3581 §3).
//!
//! ```abnf
//! Via             = ( "Via" / "v" ) HCOLON via-parm *( COMMA via-parm )
//! via-parm        = sent-protocol LWS sent-by *( SEMI via-params )
//! sent-protocol   = protocol-name SLASH protocol-version SLASH transport
//! sent-by         = host [ COLON port ]
//! via-params      = via-ttl / via-maddr / via-received / via-branch / response-port / via-extension
//! response-port   = "rport" [ EQUAL 1*DIGIT ]
//! ```

use std::net::IpAddr;

use super::param::{self, KnownParams, Param, Params};
use super::value::Value;
use crate::error::HeaderError;
use crate::header::HeaderName;
use crate::span::Span;
use crate::syntax::{Cursor, is_host, is_token, number};
use crate::transport::Transport;
use crate::uri::parse_ip;

/// The branch of an RFC 3261 element begins so (§8.1.1.7).
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// The `rport` parameter (RFC 3581).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rport {
    /// The client did not ask.
    #[default]
    Absent,
    /// The client asks for the port that we see.
    Empty,
    /// Filled in by the server.
    Port(u16),
}

/// Where the parts of one Via value lie.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ViaParts {
    pub(crate) value: Span,
    transport: Span,
    host: Span,
    port: Option<u16>,
    sent_by_end: u32,
    branch: Option<Span>,
    received: Option<Span>,
    rport: Rport,
    params: KnownParams,
    /// The first octet that the grammar does not allow, if the hop can be read all the same.
    pub(crate) flaw: Option<u32>,
}

impl ViaParts {
    /// Reads one value; the cursor stops at the comma, the end, or the flaw.
    pub(crate) fn read(message: &[u8], cursor: &mut Cursor<'_>) -> Result<Self, HeaderError> {
        let malformed = |at| HeaderError::Malformed { name: HeaderName::VIA, at };
        cursor.skip_lws();
        let mut parts = Self { value: Span::of(cursor.at(), cursor.at()), ..Self::default() };
        parts.transport = read_protocol(cursor).ok_or_else(|| malformed(cursor.at()))?;
        parts.host = read_host(message, cursor).ok_or_else(|| malformed(cursor.at()))?;
        parts.sent_by_end = cursor.at() as u32;
        cursor.skip_lws();
        if cursor.eat(b':') {
            cursor.skip_lws();
            let digits = cursor.run(|byte| byte.is_ascii_digit());
            let port =
                number(digits.slice(message)).flatten().and_then(|port| port.try_into().ok());
            parts.port = Some(port.ok_or_else(|| malformed(digits.start as usize))?);
            parts.sent_by_end = cursor.at() as u32;
        }
        parts.value.end = parts.sent_by_end;
        if let Err(at) = parts.read_params(message, cursor) {
            parts.flaw = Some(at as u32);
        }
        Ok(parts)
    }

    fn read_params(&mut self, message: &[u8], cursor: &mut Cursor<'_>) -> Result<(), usize> {
        while let Some(raw) = param::next(cursor)? {
            self.value.end = raw.span.end;
            self.params.push(&raw);
            match raw.name.slice(message) {
                name if name.len() == 6 && name.eq_ignore_ascii_case(b"branch") => {
                    self.branch = self.branch.or(raw.value);
                }
                name if name.len() == 8 && name.eq_ignore_ascii_case(b"received") => {
                    self.received = self.received.or(raw.value);
                }
                name if name.len() == 5 && name.eq_ignore_ascii_case(b"rport") => {
                    self.rport = match raw.value {
                        None => Rport::Empty,
                        Some(value) => number(value.slice(message))
                            .flatten()
                            .and_then(|port| port.try_into().ok())
                            .map(Rport::Port)
                            .ok_or(value.start as usize)?,
                    };
                }
                _ => {}
            }
        }
        cursor.skip_lws();
        match cursor.peek() {
            None | Some(b',') => Ok(()),
            Some(_) => Err(cursor.at()),
        }
    }
}

/// `SIP/2.0/UDP` and the white space behind it: where the transport lies.
fn read_protocol(cursor: &mut Cursor<'_>) -> Option<Span> {
    if cursor.rest().starts_with(b"SIP/2.0/") {
        cursor.jump(cursor.at() + 8);
        cursor.skip_lws();
    } else {
        for _ in 0..2 {
            if cursor.run(is_token).is_empty() {
                return None;
            }
            cursor.skip_lws();
            if !cursor.eat(b'/') {
                return None;
            }
            cursor.skip_lws();
        }
    }
    let transport = cursor.run(is_token);
    let end = cursor.at();
    cursor.skip_lws();
    (!transport.is_empty() && cursor.at() > end).then_some(transport)
}

fn read_host(message: &[u8], cursor: &mut Cursor<'_>) -> Option<Span> {
    if cursor.peek() != Some(b'[') {
        return Some(cursor.run(is_host)).filter(|host| !host.is_empty());
    }
    let start = cursor.at();
    let length = memchr::memchr(b']', cursor.rest())?;
    let host = Span::of(start, start + length + 1);
    parse_ip(host.slice(message))?;
    cursor.jump(start + length + 1);
    Some(host)
}

/// One hop of a message: who sent it, and where its responses go.
#[derive(Clone, Copy, Debug)]
pub struct Via<'a> {
    /// The value in its list.
    pub value: Value<'a>,
    message: &'a [u8],
    parts: ViaParts,
}

impl<'a> Via<'a> {
    pub(crate) fn parse(message: &'a [u8], value: Value<'a>) -> Result<Self, HeaderError> {
        let mut cursor = Cursor::new(message, value.span);
        let parts = ViaParts::read(message, &mut cursor)?;
        Ok(Self { value, message, parts })
    }

    pub(crate) const fn from_parts(message: &'a [u8], value: Value<'a>, parts: ViaParts) -> Self {
        Self { value, message, parts }
    }

    /// As written, `UDP` as a rule; nobody promises that we know it.
    pub fn transport(&self) -> &'a [u8] {
        self.parts.transport.slice(self.message)
    }

    /// The transport, if we know it.
    pub fn transport_kind(&self) -> Option<Transport> {
        Transport::from_bytes(self.transport())
    }

    /// Name or address; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &'a [u8] {
        self.parts.host.slice(self.message)
    }

    /// Where the host lies.
    pub const fn host_span(&self) -> Span {
        self.parts.host
    }

    /// The port, if one is written.
    pub const fn port(&self) -> Option<u16> {
        self.parts.port
    }

    /// Host and port as written.
    pub fn sent_by(&self) -> &'a [u8] {
        Span::new(self.parts.host.start, self.parts.sent_by_end).slice(self.message)
    }

    /// The branch, if there is one: elements of RFC 2543 write none.
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.parts.branch.map(|branch| branch.slice(self.message))
    }

    /// Whether the branch names a transaction by itself (§8.1.1.7).
    pub fn has_magic_cookie(&self) -> bool {
        self.branch().is_some_and(|branch| {
            branch.len() > MAGIC_COOKIE.len() && branch.starts_with(MAGIC_COOKIE)
        })
    }

    /// The text of `received`.
    pub fn received(&self) -> Option<&'a [u8]> {
        self.parts.received.map(|received| received.slice(self.message))
    }

    /// The address in `received`, with or without brackets (RFC 5118 §4.5).
    pub fn received_ip(&self) -> Option<IpAddr> {
        self.received().and_then(parse_ip)
    }

    /// Whether the client wants its port back, and which it is.
    pub const fn rport(&self) -> Rport {
        self.parts.rport
    }

    /// The value of a parameter: `Some(None)` if it stands without one.
    pub fn param(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        param::find(self.params(), name)
    }

    /// Every parameter in order.
    pub fn params(&self) -> Params<'a> {
        let span = Span::new(self.parts.sent_by_end, self.parts.value.end);
        Params::with(self.message, span, self.parts.params)
    }

    /// One parameter with its place.
    pub fn find_param(&self, name: &[u8]) -> Option<Param<'a>> {
        self.params().find(|param| param.name.eq_ignore_ascii_case(name))
    }

    /// Where `;name=value` may be added.
    pub const fn end(&self) -> u32 {
        self.parts.value.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ViaParts, HeaderError> {
        let bytes = text.as_bytes();
        ViaParts::read(bytes, &mut Cursor::new(bytes, Span::of(0, bytes.len())))
    }

    fn via<'a>(text: &'a str, check: impl FnOnce(Via<'a>)) {
        let parts = read(text).unwrap();
        assert_eq!(parts.flaw, None, "{text}");
        let value = Value::in_line(text.as_bytes(), parts.value, parts.value, (None, None));
        check(Via::from_parts(text.as_bytes(), value, parts));
    }

    #[test]
    fn parts_are_found() {
        via(
            "SIP/2.0/UDP 192.0.2.1:5062;rport;branch=z9hG4bKa;received=192.0.2.9;x=\"a;b\"",
            |via| {
                assert_eq!(via.transport_kind(), Some(Transport::Udp));
                assert_eq!(
                    (via.host(), via.port(), via.sent_by()),
                    (&b"192.0.2.1"[..], Some(5062), &b"192.0.2.1:5062"[..])
                );
                assert_eq!(via.branch(), Some(&b"z9hG4bKa"[..]));
                assert!(via.has_magic_cookie());
                assert_eq!(via.received_ip(), Some("192.0.2.9".parse().unwrap()));
                assert_eq!(via.rport(), Rport::Empty);
                assert_eq!(via.param(b"X"), Some(Some(&b"\"a;b\""[..])));
                assert_eq!(via.find_param(b"rport").unwrap().span, Span::new(26, 32));
                assert_eq!(via.params().count(), 4);
            },
        );
        via("SIP / 2.0 / TLS  [2001:db8::1] : 5061 ; branch = z9hG4bK ;rport=4711", |via| {
            assert_eq!(via.transport(), b"TLS");
            assert_eq!((via.host(), via.port()), (&b"[2001:db8::1]"[..], Some(5061)));
            assert!(!via.has_magic_cookie(), "the cookie alone names nothing");
            assert_eq!(via.rport(), Rport::Port(4711));
        });
        via("SIP/2.0/PIGEON roof", |via| {
            assert_eq!((via.transport_kind(), via.branch(), via.end()), (None, None, 19));
        });
    }

    /// Goal: parameters that were remembered are those that stand there. Method: fewer, as many and more
    /// than are remembered, and read from the text alone.
    #[test]
    fn remembered_parameters_are_those_of_the_text() {
        for text in [
            "SIP/2.0/UDP a",
            "SIP/2.0/UDP a:1;rport",
            "SIP/2.0/UDP a ; branch = z9hG4bKa;x;q=\"a;b\" ;sc-b=1",
            "SIP/2.0/UDP a;a;b=2;c;d=4;e;f=\"6\";g",
        ] {
            via(text, |via| {
                let span = Span::new(via.parts.sent_by_end, via.parts.value.end);
                let unread: Vec<_> = Params::new(text.as_bytes(), span).collect();
                assert_eq!(via.params().collect::<Vec<_>>(), unread, "{text}");
            });
        }
    }

    #[test]
    fn unreadable_hops_are_refused() {
        for text in [
            "",
            "SIP/2.0 host",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/2.0/UDPhost:1",
            "SIP/2.0/UDP [::1",
            "SIP/2.0/UDP [nonsense]",
            "SIP/2.0/UDP a:",
            "SIP/2.0/UDP a:65536",
            "SIP/2.0/UDP a:x",
            "//UDP a",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flaws_behind_the_host_leave_the_hop_readable() {
        for (text, at) in [
            ("SIP/2.0/UDP a;;", 14),
            ("SIP/2.0/UDP a;branch=", 21),
            ("SIP/2.0/UDP a b", 14),
            ("SIP/2.0/UDP a;rport=x", 20),
            ("SIP/2.0/UDP a;q=\"open", 16),
        ] {
            assert_eq!(read(text).unwrap().flaw, Some(at), "{text}");
        }
    }
}
