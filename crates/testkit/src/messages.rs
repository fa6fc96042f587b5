//! Messages from the text that a test shows its reader.

use bytes::Bytes;
use sip_message::{Framing, Index, OwnedMessage, Reply, StatusCode, parse, write_reply};

/// What a message must have, for tests that do not care.
const REQUEST_DEFAULTS: [(&str, &str, &str); 6] = [
    ("Via", "v", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKtest1;rport"),
    ("Max-Forwards", "", "70"),
    ("From", "f", "Alice <sip:alice@example.com>;tag=alice1"),
    ("To", "t", "Bob <sip:bob@example.com>"),
    ("Call-ID", "i", "call1@192.0.2.1"),
    ("CSeq", "", "1 "),
];

/// A text as it stands on the wire: lines end in CR LF, indentation that all lines share goes,
/// the empty line is there, and Content-Length is filled in unless the text has one.
pub fn wire(text: &str) -> Vec<u8> {
    let text = dedent(text);
    let (head, body) = split(&text);
    let body = body.replace('\n', "\r\n");
    let mut out = head.replace('\n', "\r\n");
    if !has_field(head, "Content-Length", "l") {
        out.push_str(&format!("\r\nContent-Length: {}", body.len()));
    }
    out.push_str("\r\n\r\n");
    out.push_str(&body);
    out.into_bytes()
}

/// Header section and body.
fn split(text: &str) -> (&str, &str) {
    text.split_once("\n\n").unwrap_or_else(|| (text.trim_end_matches('\n'), ""))
}

fn dedent(text: &str) -> String {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let text = text.trim_end_matches(' ');
    let indent = text.len() - text.trim_start_matches(' ').len();
    let cut = |line: &str| {
        let blanks = line.len() - line.trim_start_matches(' ').len();
        line.chars().skip(indent.min(blanks)).collect::<String>()
    };
    text.lines().map(|line| cut(line) + "\n").collect()
}

fn has_field(head: &str, name: &str, compact: &str) -> bool {
    head.lines().skip(1).filter_map(|line| line.split_once(':')).any(|(found, _)| {
        let found = found.trim_end();
        found.eq_ignore_ascii_case(name)
            || !compact.is_empty() && found.eq_ignore_ascii_case(compact)
    })
}

/// The message that a text shows, complete as it stands.
///
/// # Panics
///
/// If it is no message.
pub fn message(text: &str) -> OwnedMessage {
    owned(wire(text))
}

fn owned(bytes: Vec<u8>) -> OwnedMessage {
    let shown = bytes.escape_ascii().to_string();
    OwnedMessage::parse(Bytes::from(bytes), Framing::Datagram)
        .unwrap_or_else(|error| panic!("{error}: {shown}"))
}

/// A request from its start line and whatever else matters to the test; the fields that every
/// request has are filled in if the text does not have them.
///
/// # Panics
///
/// If that makes no request.
pub fn request(text: &str) -> OwnedMessage {
    let text = dedent(text);
    let method = text.split(' ').next().unwrap_or_default().to_owned();
    message(&completed(&text, &method))
}

/// A response, completed likewise; its CSeq names INVITE unless the text has one.
///
/// # Panics
///
/// If that makes no response.
pub fn response(text: &str) -> OwnedMessage {
    let text = dedent(text);
    message(&completed(&text, "INVITE").replace("Max-Forwards: 70\n", ""))
}

fn completed(text: &str, method: &str) -> String {
    let (head, body) = split(text);
    let mut lines = head.split('\n');
    let mut out = String::from(lines.next().unwrap_or_default());
    out.push('\n');
    for (name, compact, value) in REQUEST_DEFAULTS {
        if !has_field(head, name, compact) {
            let method = if name == "CSeq" { method } else { "" };
            out.push_str(&format!("{name}: {value}{method}\n"));
        }
    }
    for line in lines {
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
    out.push_str(body);
    out
}

/// The response that a server with this tag gives to a request.
///
/// # Panics
///
/// If the code is none.
pub fn response_to(request: &OwnedMessage, code: u16, to_tag: &str) -> OwnedMessage {
    let status = StatusCode::new(code).unwrap_or_else(|| panic!("{code} is no status code"));
    let reply = Reply { to_tag: Some(to_tag.as_bytes()), ..Reply::new(status) };
    let mut out = Vec::new();
    write_reply(&request.view(), &reply, &mut out);
    let mut index = Index::new();
    match parse(&out, &mut index, Framing::Datagram) {
        Ok(message) => OwnedMessage::from(&message),
        Err(malformed) => panic!("{}: {}", malformed.error, out.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_a_message_with_its_length() {
        let bytes = wire(
            "
            OPTIONS sip:a SIP/2.0
            X: 1
              folded

            line one
            line two
            ",
        );
        let wanted = "OPTIONS sip:a SIP/2.0\r\nX: 1\r\n  folded\r\nContent-Length: 20\r\n\r\n\
                      line one\r\nline two\r\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), wanted);
    }

    #[test]
    fn start_line_alone_makes_a_request() {
        let invite = request("INVITE sip:bob@example.com SIP/2.0\nCall-ID: mine");
        let invite = invite.view();
        assert_eq!(invite.call_id(), b"mine");
        assert_eq!(invite.from_tag(), Some(&b"alice1"[..]));
        assert_eq!(invite.cseq().number, 1);
    }

    #[test]
    fn response_follows_its_request() {
        let invite = request("INVITE sip:bob@example.com SIP/2.0");
        let busy = response_to(&invite, 486, "bob1");
        assert_eq!(busy.view().to_tag(), Some(&b"bob1"[..]));
        assert_eq!(busy.view().call_id(), invite.view().call_id());
        assert_eq!(response("SIP/2.0 180 Ringing").view().cseq(), invite.view().cseq());
    }
}
