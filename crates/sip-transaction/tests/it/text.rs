//! Requests and responses for the tests, as short as they may be.

use std::time::Instant;

use bytes::Bytes;
use sip_message::{Framing, Index, Message, Reply, StatusCode, parse, write_reply};

/// Some instant to count from.
#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
pub(crate) fn epoch() -> Instant {
    Instant::now()
}

/// What a test request consists of; everything else is the same in all of them.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) uri: String,
    /// Branch of a balancer's Via above the sender's.
    pub(crate) balancer: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) sent_by: String,
    pub(crate) call_id: String,
    pub(crate) from_tag: String,
    pub(crate) to_tag: Option<String>,
    pub(crate) cseq: u32,
}

impl Request {
    pub(crate) fn new(method: &str) -> Self {
        Self {
            method: method.to_owned(),
            uri: "sip:bob@example.com".to_owned(),
            balancer: None,
            branch: Some("z9hG4bKone".to_owned()),
            sent_by: "192.0.2.1:5060".to_owned(),
            call_id: "call".to_owned(),
            from_tag: "alice".to_owned(),
            to_tag: None,
            cseq: 1,
        }
    }

    pub(crate) fn bytes(&self) -> Bytes {
        let mut text = format!("{} {} SIP/2.0\r\n", self.method, self.uri);
        if let Some(branch) = &self.balancer {
            text += &format!("Via: SIP/2.0/UDP 192.0.2.9:5060;branch={branch}\r\n");
        }
        let branch = self.branch.as_ref().map(|it| format!(";branch={it}")).unwrap_or_default();
        let to_tag = self.to_tag.as_ref().map(|it| format!(";tag={it}")).unwrap_or_default();
        text += &format!(
            "Via: SIP/2.0/UDP {}{branch}\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@example.com>;tag={}\r\nTo: <sip:bob@example.com>{to_tag}\r\n\
             Call-ID: {}\r\nCSeq: {} {}\r\nContent-Length: 0\r\n\r\n",
            self.sent_by, self.from_tag, self.call_id, self.cseq, self.method
        );
        text.into()
    }
}

/// The response to `request` with `status`.
pub(crate) fn response(request: &[u8], status: StatusCode) -> Bytes {
    let mut out = Vec::new();
    read(request, |request| {
        let reply = Reply { status, reason: None, to_tag: Some(b"bob"), fields: &[], body: b"" };
        write_reply(request, &reply, &mut out);
    });
    out.into()
}

/// Parses `bytes` and looks at the message.
pub(crate) fn read<T>(bytes: &[u8], look: impl FnOnce(&Message<'_>) -> T) -> T {
    let mut index = Index::new();
    look(&parse(bytes, &mut index, Framing::Datagram).expect("tests write valid messages"))
}
