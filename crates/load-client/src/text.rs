//! The messages that phones write, and the addresses that they read out of others'.

use std::io::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use sip_message::{HeaderName, Message, NameAddr, Transport, Uri, uri::parse_ip};

/// A request about to be written.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) uri: &'a str,
    /// Our own address, for the Via.
    pub(crate) sent_by: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) branch: &'a str,
    /// Values of From and To, with their tags.
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) call_id: &'a str,
    pub(crate) cseq: u32,
    /// Values of Route, topmost first.
    pub(crate) routes: &'a [String],
    /// Further header lines, each with its CRLF.
    pub(crate) lines: &'a str,
    /// An SDP body, or nothing.
    pub(crate) body: &'a str,
}

impl Request<'_> {
    pub(crate) fn bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(1_024);
        let Self { method, uri, sent_by, branch, from, to, call_id, cseq, lines, body, .. } = self;
        let transport = self.transport.as_str();
        // Writing into memory does not fail.
        let _ = write!(
            out,
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {sent_by};branch={branch};rport\r\n\
             Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n"
        );
        for route in self.routes {
            let _ = write!(out, "Route: {route}\r\n");
        }
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let length = body.len();
        let _ = write!(out, "{lines}{kind}Content-Length: {length}\r\n\r\n{body}");
        out.into()
    }
}

/// Our own address as the others are to reach us.
pub(crate) fn contact(user: &str, local: SocketAddr, transport: Transport) -> String {
    let parameter = if transport == Transport::Tcp { ";transport=tcp" } else { "" };
    format!("<sip:{user}@{local}{parameter}>")
}

/// A session description: one voice stream that nobody will send.
pub(crate) fn sdp(local: SocketAddr) -> String {
    let family = if local.is_ipv4() { "IP4" } else { "IP6" };
    let ip = local.ip();
    format!(
        "v=0\r\no=sipcloud 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio 6000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )
}

/// What the caller knows of a dialog after its 200 (RFC 3261 §12.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dialog {
    /// The To of the 200, with the callee's tag.
    pub(crate) to: String,
    pub(crate) remote_target: String,
    /// Topmost first: the Record-Routes in reverse order.
    pub(crate) routes: Vec<String>,
    /// Where its requests go, if the next hop is a literal address.
    pub(crate) next_hop: Option<SocketAddr>,
}

impl Dialog {
    /// `None` if the 200 names no contact.
    pub(crate) fn of(response: &Message<'_>) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let contact = response.values(HeaderName::CONTACT).next()?;
        let contact = NameAddr::from_text(contact.text).ok()?;
        let routes: Vec<_> = response.values(HeaderName::RECORD_ROUTE).map(|it| it.text).collect();
        let next_hop = match routes.last() {
            Some(route) => NameAddr::from_text(route).ok().and_then(|it| literal(&it)),
            None => literal(&contact),
        };
        Some(Self {
            to: text(response.field(HeaderName::TO)?.value),
            remote_target: text(contact.uri_bytes()),
            routes: routes.into_iter().rev().map(text).collect(),
            next_hop,
        })
    }
}

/// The address that a URI names by number.
fn literal(address: &NameAddr<'_>) -> Option<SocketAddr> {
    let uri: Uri<'_> = address.uri().ok()?;
    Some(SocketAddr::new(parse_ip(uri.host())?, uri.port().unwrap_or(5_060)))
}

/// `180 Ringing`.
pub(crate) fn status_line(response: &Message<'_>) -> String {
    let code = response.status().map_or(0, |status| status.code());
    format!("{code} {}", String::from_utf8_lossy(response.reason()))
}
