//! What a balancer reads of every request, on an INVITE of an ordinary size.

use sip_message::{Framing, Index, parse};

/// 600 octets, as a phone sends them through an outbound proxy.
pub(crate) const INVITE: &[u8] = b"INVITE sip:bob@example.com SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK776asdhds92;rport\r\n\
Max-Forwards: 70\r\n\
Route: <sip:edge.example.com;lr>\r\n\
From: \"Alice\" <sip:alice@example.com>;tag=1928301774\r\n\
To: Bob <sip:bob@example.com>\r\n\
Call-ID: a84b4c76e66710f2c5@192.0.2.10\r\n\
CSeq: 314159 INVITE\r\n\
Contact: <sip:alice@192.0.2.10:5060>\r\n\
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n\
User-Agent: Example Phones\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 133\r\n\
\r\n\
v=0\r\n\
o=alice 28908 28908 IN IP4 192.0.2.10\r\n\
s=-\r\n\
c=IN IP4 192.0.2.10\r\n\
t=0 0\r\n\
m=audio 49170 RTP/AVP 0 8\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=sendrecv\r\n";

/// Parses and touches what the choice of a proxy needs; returns something that depends on all.
pub(crate) fn read(bytes: &[u8], index: &mut Index) -> Option<usize> {
    let message = parse(bytes, index, Framing::Datagram).ok()?;
    let via = message.top_via().ok()?;
    let route = message.routes().next()?.ok()?;
    Some(
        via.branch()?.len()
            + via.sent_by().len()
            + message.from_tag()?.len()
            + message.cseq().number as usize
            + usize::from(message.max_forwards()?.hops())
            + message.call_id().len()
            + route.address.uri_bytes().len(),
    )
}
