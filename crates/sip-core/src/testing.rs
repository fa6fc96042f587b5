//! Messages for tests: a sound request or response with the fields that a test cares about.

use sip_message::{Framing, Index, Message, parse};

use crate::names::LocalNames;

/// Names used throughout the tests: two domains, one service name, a balancer and a proxy.
pub(crate) fn names() -> LocalNames {
    let domains = ["example.com".to_owned(), "example.org".to_owned()];
    let addresses = ["127.0.10.1:5060", "127.0.20.1:5061"];
    let addresses = addresses.map(|it| it.parse().expect("an address")).to_vec();
    LocalNames::new(&domains, &["sip.example.net".to_owned()], addresses)
}

/// A request: `start` without the version, then the usual fields, of which those that `fields`
/// name are left to `fields`. A field without a value is left out.
pub(crate) fn request(start: &str, fields: &[&str]) -> Vec<u8> {
    let method = start.split(' ').next().expect("a method");
    let cseq = format!("CSeq: 1 {method}");
    let usual = [
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKclient",
        "Max-Forwards: 70",
        "From: \"Alice\" <sip:alice@example.com>;tag=from1",
        "To: <sip:bob@example.com>",
        "Call-ID: call-1",
        &cseq,
    ];
    message(&format!("{start} SIP/2.0"), &usual, fields)
}

/// A response, likewise: `start` is status and reason.
pub(crate) fn response(start: &str, fields: &[&str]) -> Vec<u8> {
    let usual = [
        "Via: SIP/2.0/UDP 127.0.20.1:5061;branch=z9hG4bKproxy",
        "From: \"Alice\" <sip:alice@example.com>;tag=from1",
        "To: <sip:bob@example.com>;tag=to1",
        "Call-ID: call-1",
        "CSeq: 1 INVITE",
    ];
    message(&format!("SIP/2.0 {start}"), &usual, fields)
}

fn message(start: &str, usual: &[&str], fields: &[&str]) -> Vec<u8> {
    let name = |field: &str| field.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let kept = usual.iter().filter(|it| fields.iter().all(|field| name(field) != name(it)));
    let given = fields.iter().filter(|field| !field.ends_with(':'));
    let mut text = format!("{start}\r\n");
    for field in kept.chain(given) {
        text.push_str(field);
        text.push_str("\r\n");
    }
    text.push_str("Content-Length: 0\r\n\r\n");
    text.into_bytes()
}

/// Calls `check` with the parsed message.
pub(crate) fn with<R>(bytes: &[u8], check: impl FnOnce(&Message<'_>) -> R) -> R {
    let mut index = Index::new();
    match parse(bytes, &mut index, Framing::Datagram) {
        Ok(message) => check(&message),
        Err(malformed) => panic!("{}: {}", malformed.error, String::from_utf8_lossy(bytes)),
    }
}
