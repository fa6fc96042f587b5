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
