//! Which transaction a message belongs to (RFC 3261 §17.1.3 and §17.2.3), as a keyed hash.
//!
//! Behind a balancer a server transaction is found by the Via *directly below* the balancer's: the
//! client's own branch, which is the same by whatever balancer the request came.

use std::hash::Hasher;

use sip_message::{Message, Method, Via};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::table::Key;

/// Branches that begin so are unique (RFC 3261 §8.1.1.7).
const MAGIC_COOKIE: &[u8] = b"z9hG4bK";

/// How a request reached us, and so which Via is its sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// From its sender: the top Via counts.
    Direct,
    /// Through a balancer, whose Via was authenticated: the one below counts.
    ThroughBalancer,
}

/// What finds a server transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerKey(pub(crate) Key);

/// What finds a client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKey(pub(crate) Key);

impl ServerKey {
    /// The transaction of a request. An ACK has the key of the INVITE that it acknowledges, if it
    /// acknowledges a non-2xx response; a CANCEL has one of its own.
    ///
    /// # Cost
    ///
    /// One keyed hash of about 100 bytes; no allocation.
    pub fn of(request: &Message<'_>, hop: Hop, hash_key: [u8; 16]) -> Self {
        let method = request.cseq().method;
        let class = match method {
            Method::Ack => Method::Invite,
            other => other,
        };
        Self::in_class(request, class, hop, hash_key)
    }

    /// The INVITE that a CANCEL wants to cancel (RFC 3261 §9.2).
    pub fn invite_of_cancel(cancel: &Message<'_>, hop: Hop, hash_key: [u8; 16]) -> Self {
        Self::in_class(cancel, Method::Invite, hop, hash_key)
    }

    fn in_class(request: &Message<'_>, class: Method<'_>, hop: Hop, hash_key: [u8; 16]) -> Self {
        let mut fields = Fields::new(b's', hash_key);
        let via = sender_via(request, hop);
        let branch = via.as_ref().and_then(Via::branch).unwrap_or_default();
        let has_cookie = starts_with_cookie(branch);
        fields.push(branch);
        fields.push_sent_by(via.as_ref());
        fields.push(request.call_id());
        fields.push(request.from_tag().unwrap_or_default());
        fields.push(&request.cseq().number.to_be_bytes());
        fields.push(class.as_bytes());
        if !has_cookie {
            // The older rule, of RFC 2543, compares more. The To tag of an ACK is that of our
            // response and cannot be known beforehand, so the INVITE class goes without.
            fields.push(request.request_uri_bytes());
            if class.as_bytes() != b"INVITE" {
                fields.push(request.to_tag().unwrap_or_default());
            }
        }
        Self(fields.finish())
    }
}

impl ClientKey {
    /// The transaction of a request of ours, and of every response to it: branch and sent-by of
    /// the top Via, and the method of the CSeq.
    pub fn of(message: &Message<'_>, hash_key: [u8; 16]) -> Self {
        let via = message.top_via().ok();
        let branch = via.as_ref().and_then(Via::branch).unwrap_or_default();
        let sent_by = via.as_ref().map(Via::sent_by).unwrap_or_default();
        Self::new(branch, sent_by, message.cseq().method, hash_key)
    }

    /// The same from its parts, as they stand in the Via.
    pub fn new(branch: &[u8], sent_by: &[u8], method: Method<'_>, hash_key: [u8; 16]) -> Self {
        let mut fields = Fields::new(b'c', hash_key);
        fields.push(branch);
        fields.push(sent_by);
        fields.push(method.as_bytes());
        Self(fields.finish())
    }
}

fn sender_via<'a>(request: &Message<'a>, hop: Hop) -> Option<Via<'a>> {
    let mut vias = request.vias();
    let top = vias.next();
    let via = match hop {
        Hop::Direct => top,
        // A balancer's own probe has no Via below.
        Hop::ThroughBalancer => vias.next().or(top),
    };
    via.and_then(Result::ok)
}

fn starts_with_cookie(branch: &[u8]) -> bool {
    branch.get(..MAGIC_COOKIE.len()).is_some_and(|start| start.eq_ignore_ascii_case(MAGIC_COOKIE))
}

/// Hashes a list of octet strings, each with its length, so that no two lists look alike.
struct Fields {
    hasher: SipHasher13,
}

impl Fields {
    fn new(domain: u8, hash_key: [u8; 16]) -> Self {
        let mut hasher = SipHasher13::new_with_key(&hash_key);
        hasher.write_u8(domain);
        Self { hasher }
    }

    fn push(&mut self, field: &[u8]) {
        self.hasher.write_usize(field.len());
        self.hasher.write(field);
    }

    /// Host and port apart: spaces may surround the colon, and hosts have no case.
    fn push_sent_by(&mut self, via: Option<&Via<'_>>) {
        let host = via.map(Via::host).unwrap_or_default();
        self.hasher.write_usize(host.len());
        for byte in host {
            self.hasher.write_u8(byte.to_ascii_lowercase());
        }
        self.hasher.write_u16(via.and_then(Via::port).unwrap_or_default());
    }

    fn finish(self) -> Key {
        let hash = self.hasher.finish128();
        Key { high: hash.h1, low: hash.h2 }
    }
}
