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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerKey(pub(crate) Key);

/// What finds a client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKey(pub(crate) Key);

/// What is the same in an INVITE and its repetition by a client that has failed over: Call-ID, From
/// tag, CSeq and Request-URI. Its branch and its Vias are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TwinKey(Key);

impl TwinKey {
    /// `None` for anything that has no twin: only an INVITE outside a dialog may.
    ///
    /// # Cost
    ///
    /// One keyed hash of about 100 bytes; no allocation.
    pub fn of(request: &Message<'_>, hash_key: [u8; 16]) -> Option<Self> {
        if !matches!(request.method(), Some(Method::Invite)) || request.to_tag().is_some() {
            return None;
        }
        let from_tag = request.from_tag()?;
        let mut fields = Fields::new(b't', hash_key);
        fields.push(&request.cseq().number.to_be_bytes());
        fields.push(request.call_id());
        fields.push(from_tag);
        fields.push(request.request_uri_bytes());
        Some(Self(fields.finish()))
    }
}

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

/// Longer fields are hashed where they stand; shorter ones are put together with their length.
const SHORT: usize = 64;
const LENGTH: usize = size_of::<usize>();

impl Fields {
    fn new(domain: u8, hash_key: [u8; 16]) -> Self {
        let mut hasher = SipHasher13::new_with_key(&hash_key);
        hasher.write_u8(domain);
        Self { hasher }
    }

    fn push(&mut self, field: &[u8]) {
        let length = field.len().to_ne_bytes();
        let mut together = [0; LENGTH + SHORT];
        if let Some(place) = together.get_mut(..LENGTH + field.len()) {
            let (front, back) = place.split_at_mut(LENGTH);
            front.copy_from_slice(&length);
            back.copy_from_slice(field);
            self.hasher.write(place);
        } else {
            self.hasher.write(&length);
            self.hasher.write(field);
        }
    }

    /// Host and port apart: spaces may surround the colon, and hosts have no case.
    fn push_sent_by(&mut self, via: Option<&Via<'_>>) {
        let host = via.map(Via::host).unwrap_or_default();
        let mut lower = [0; SHORT];
        if let Some(place) = lower.get_mut(..host.len()) {
            place.copy_from_slice(host);
            place.make_ascii_lowercase();
            self.push(place);
        } else {
            self.push(&host.to_ascii_lowercase());
        }
        self.hasher.write_u16(via.and_then(Via::port).unwrap_or_default());
    }

    fn finish(self) -> Key {
        let hash = self.hasher.finish128();
        Key { high: hash.h1, low: hash.h2 }
    }
}

#[cfg(test)]
mod tests {
    use sip_message::{Framing, OwnedMessage};

    use super::*;

    /// The key of a request with the client's Via and From tag, as the balancer at `balancer` brings
    /// it.
    fn key(method: &str, balancer: &str, client_via: &str, from_tag: &str) -> ServerKey {
        let text = format!(
            "{method} sip:bob@example.com SIP/2.0\r\n\
             Via: SIP/2.0/UDP {balancer};branch=z9hG4bK{balancer}\r\nVia: {client_via}\r\n\
             From: <sip:a@example.com>;tag={from_tag}\r\nTo: <sip:bob@example.com>\r\n\
             Call-ID: call\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        );
        let request = OwnedMessage::parse(text.into(), Framing::Datagram).expect("well-formed");
        ServerKey::of(&request.view(), Hop::ThroughBalancer, [7; 16])
    }

    /// Whichever balancer brings a request, and through whichever connection, it is the client's
    /// transaction; another client's is never taken for it.
    #[test]
    fn a_clients_transaction_is_one_whichever_balancer_brings_it() {
        let via = "SIP/2.0/TCP 192.0.2.1:5060;branch=z9hG4bK1";
        let invite = key("INVITE", "10.0.0.1", via, "tag");
        assert_eq!(key("INVITE", "10.0.0.2", &format!("{via};received=192.0.2.9"), "tag"), invite);
        assert_eq!(key("ACK", "10.0.0.2", via, "tag"), invite, "to a refusal");
        for (what, other) in [
            ("method", key("CANCEL", "10.0.0.1", via, "tag")),
            ("From tag", key("INVITE", "10.0.0.1", via, "other")),
            ("branch", key("INVITE", "10.0.0.1", &via.replace("bK1", "bK2"), "tag")),
            ("sent-by", key("INVITE", "10.0.0.1", &via.replace("192.0.2.1", "192.0.2.2"), "tag")),
        ] {
            assert_ne!(other, invite, "{what}");
        }
    }
}
