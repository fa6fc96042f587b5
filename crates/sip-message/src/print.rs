//! Messages that we make ourselves: replies, and the ACK and CANCEL that follow from an INVITE.

use std::io::Write;

use crate::edits::Edits;
use crate::header::HeaderName;
use crate::message::Message;
use crate::status::StatusCode;

/// A response to a request.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    pub status: StatusCode,
    /// Instead of the recommended phrase.
    pub reason: Option<&'a str>,
    /// Added to the To if it has no tag yet and the status is not 100.
    pub to_tag: Option<&'a [u8]>,
    /// Further fields, in order.
    pub fields: &'a [(&'a str, &'a [u8])],
    pub body: &'a [u8],
}

impl<'a> Reply<'a> {
    /// A reply with nothing but a status.
    pub const fn new(status: StatusCode) -> Self {
        Self { status, reason: None, to_tag: None, fields: &[], body: b"" }
    }
}

/// Appends the response (RFC 3261 §8.2.6.2). Copied fields leave as they came.
pub fn write_reply(request: &Message<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
    write_reply_edited(request, reply, &Edits::new(), out);
}

/// Appends the response to the request as `edits` would change it: with `received` in the top
/// Via, say. Only changes to copied fields matter.
pub fn write_reply_edited(
    request: &Message<'_>,
    reply: &Reply<'_>,
    edits: &Edits,
    out: &mut Vec<u8>,
) {
    let bytes = request.bytes();
    let reason = reply.reason.unwrap_or_else(|| reply.status.reason());
    append(out, format_args!("SIP/2.0 {} {reason}\r\n", reply.status));
    for field in request.all(HeaderName::VIA) {
        edits.apply_within(bytes, field.line, out);
    }
    write_first(request, HeaderName::FROM, out);
    write_to(request, reply, out);
    write_first(request, HeaderName::CALL_ID, out);
    write_first(request, HeaderName::CSEQ, out);
    if reply.status == StatusCode::TRYING {
        write_first(request, HeaderName::TIMESTAMP, out);
    }
    for (name, value) in reply.fields {
        write_field(name, value, out);
    }
    append(out, format_args!("Content-Length: {}\r\n\r\n", reply.body.len()));
    out.extend_from_slice(reply.body);
}

/// Writing to memory does not fail.
fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_first(message: &Message<'_>, name: HeaderName, out: &mut Vec<u8>) {
    if let Some(field) = message.field(name) {
        write_line(message.text(field.line), out);
    }
}

/// A line as it came; a line end that was not CR LF is mended.
fn write_line(line: &[u8], out: &mut Vec<u8>) {
    if line.ends_with(b"\r\n") {
        out.extend_from_slice(line);
    } else {
        out.extend_from_slice(line.trim_ascii_end());
        out.extend_from_slice(b"\r\n");
    }
}

fn write_to(request: &Message<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let Some(field) = request.field(HeaderName::TO) else { return };
    let wants_tag = reply.status != StatusCode::TRYING && request.to_tag().is_none();
    match reply.to_tag.filter(|_| wants_tag) {
        Some(tag) => {
            let length = field.value_span.end.saturating_sub(field.line.start) as usize;
            let line = request.text(field.line);
            out.extend_from_slice(line.get(..length).unwrap_or(line));
            out.extend_from_slice(b";tag=");
            out.extend_from_slice(tag);
            out.extend_from_slice(b"\r\n");
        }
        None => write_line(request.text(field.line), out),
    }
}

/// Appends the ACK to a response that is not a 2xx: it belongs to the INVITE's transaction, so it
/// has its Via, Request-URI and Route (RFC 3261 §17.1.1.3).
pub fn write_ack(invite: &Message<'_>, response: &Message<'_>, out: &mut Vec<u8>) {
    write_follower(invite, "ACK", response, out);
}

/// Appends the CANCEL of a request that we sent (RFC 3261 §9.1).
pub fn write_cancel(invite: &Message<'_>, out: &mut Vec<u8>) {
    write_follower(invite, "CANCEL", invite, out);
}

/// A request that follows an INVITE hop by hop; its To is that of `to`.
fn write_follower(invite: &Message<'_>, method: &str, to: &Message<'_>, out: &mut Vec<u8>) {
    append(out, format_args!("{method} "));
    out.extend_from_slice(invite.request_uri_bytes());
    out.extend_from_slice(b" SIP/2.0\r\n");
    if let Ok(via) = invite.top_via() {
        write_field("Via", via.value.text, out);
    }
    for route in invite.all(HeaderName::ROUTE) {
        write_line(invite.text(route.line), out);
    }
    let hops = invite.max_forwards().unwrap_or_default();
    append(out, format_args!("Max-Forwards: {hops}\r\n"));
    write_first(invite, HeaderName::FROM, out);
    write_first(to, HeaderName::TO, out);
    write_first(invite, HeaderName::CALL_ID, out);
    append(
        out,
        format_args!("CSeq: {} {method}\r\nContent-Length: 0\r\n\r\n", invite.cseq().number),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Framing, Index, parse};

    const INVITE: &str = "INVITE sip:bob@192.0.2.4 SIP/2.0\r\n\
        Via: SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b;branch=z9hG4bK2\r\n\
        v: SIP/2.0/TCP c\r\n\
        Max-Forwards: 69\r\n\
        Route: <sip:r1;lr>,\r\n <sip:r2;lr>\r\n\
        f: Alice <sip:alice@example.com>;tag=1\r\n\
        To : Bob <sip:bob@example.com>  \r\n\
        Timestamp: 54\r\n\
        i: call\r\n\
        CSeq: 0007 INVITE\r\n\
        Route: <sip:r3;lr>\r\n\
        \r\n";

    fn text(write: impl FnOnce(&Message<'_>, &mut Vec<u8>)) -> String {
        let mut index = Index::new();
        let invite = parse(INVITE.as_bytes(), &mut index, Framing::Datagram).unwrap();
        let mut out = Vec::new();
        write(&invite, &mut out);
        assert!(parse(&out, &mut Index::new(), Framing::Stream).is_ok());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn reply_copies_what_brings_it_home() {
        let reply = Reply {
            status: StatusCode::BUSY_HERE,
            reason: Some("Engaged"),
            to_tag: Some(b"t2"),
            fields: &[("Retry-After", b"5")],
            body: b"later",
        };
        assert_eq!(
            text(|invite, out| write_reply(invite, &reply, out)),
            "SIP/2.0 486 Engaged\r\n\
             Via: SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b;branch=z9hG4bK2\r\n\
             v: SIP/2.0/TCP c\r\n\
             f: Alice <sip:alice@example.com>;tag=1\r\n\
             To : Bob <sip:bob@example.com>;tag=t2\r\n\
             i: call\r\n\
             CSeq: 0007 INVITE\r\n\
             Retry-After: 5\r\n\
             Content-Length: 5\r\n\r\nlater"
        );
    }

    #[test]
    fn trying_has_the_timestamp_and_no_tag() {
        let reply = Reply { to_tag: Some(b"t2"), ..Reply::new(StatusCode::TRYING) };
        let text = text(|invite, out| write_reply(invite, &reply, out));
        assert!(text.starts_with("SIP/2.0 100 Trying\r\n"));
        assert!(text.contains("Timestamp: 54\r\n") && !text.contains("t2"));
    }

    #[test]
    fn reply_takes_the_changes_to_its_via() {
        let text = text(|invite, out| {
            let mut edits = Edits::new();
            edits.insert(invite.top_via().unwrap().end(), b";received=192.0.2.1");
            edits.insert(invite.headers_start(), b"");
            edits.remove_first(invite, HeaderName::ROUTE, 1);
            write_reply_edited(invite, &Reply::new(StatusCode::OK), &edits, out);
        });
        assert!(
            text.contains("Via: SIP/2.0/UDP a;branch=z9hG4bK1;received=192.0.2.1, SIP"),
            "{text}"
        );
    }

    #[test]
    fn ack_has_the_top_via_the_routes_and_the_tag_of_the_answer() {
        let response = INVITE
            .replace("INVITE sip:bob@192.0.2.4 SIP/2.0", "SIP/2.0 486 Busy Here")
            .replace("bob@example.com>", "bob@example.com>;tag=b");
        let mut index = Index::new();
        let response = parse(response.as_bytes(), &mut index, Framing::Datagram).unwrap();
        assert_eq!(
            text(|invite, out| write_ack(invite, &response, out)),
            "ACK sip:bob@192.0.2.4 SIP/2.0\r\n\
             Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
             Route: <sip:r1;lr>,\r\n <sip:r2;lr>\r\n\
             Route: <sip:r3;lr>\r\n\
             Max-Forwards: 69\r\n\
             f: Alice <sip:alice@example.com>;tag=1\r\n\
             To : Bob <sip:bob@example.com>;tag=b  \r\n\
             i: call\r\n\
             CSeq: 7 ACK\r\n\
             Content-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn cancel_is_that_of_the_invite() {
        let text = text(write_cancel);
        assert!(text.starts_with(
            "CANCEL sip:bob@192.0.2.4 SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n"
        ));
        assert!(
            text.contains("To : Bob <sip:bob@example.com>  \r\n")
                && text.contains("CSeq: 7 CANCEL\r\n")
        );
    }
}
