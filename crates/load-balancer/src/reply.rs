//! Answers that the balancer makes itself: stateless, as a stateless UAS (RFC 3261 §8.2.7).

use sip_core::flow_token::{ToTag, to_tag};
use sip_core::mac::KeyRing;
use sip_message::{Edits, Message, Method, Reply, StatusCode, write_reply_edited};

/// What the tier understands, for an OPTIONS to it (RFC 3261 §11.2).
const CAPABILITIES: [(&str, &[u8]); 3] = [
    ("Allow", b"INVITE, ACK, CANCEL, OPTIONS, BYE, REGISTER"),
    ("Accept", b"application/sdp"),
    ("Supported", b"path, outbound"),
];

/// The answer to `request`, whose topmost Via becomes what `edits` make of it.
pub(crate) fn write(
    ring: &KeyRing,
    request: &Message<'_>,
    status: StatusCode,
    edits: &Edits,
) -> Vec<u8> {
    let fields = ToTag {
        call_id: request.call_id(),
        from_tag: request.from_tag().unwrap_or_default(),
        cseq: request.cseq().number,
    };
    let mut tag = Vec::with_capacity(32);
    to_tag(ring, &fields, &mut tag);
    let is_options = request.method() == Some(Method::Options) && status == StatusCode::OK;
    let reply = Reply {
        to_tag: Some(&tag),
        fields: if is_options { &CAPABILITIES } else { &[] },
        ..Reply::new(status)
    };
    let mut out = Vec::with_capacity(request.bytes().len() + 64);
    write_reply_edited(request, &reply, edits, &mut out);
    out
}
