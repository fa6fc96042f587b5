//! A message that outlives its buffer: shared octets and a compact index.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::ParseError;
use crate::message::{Head, Index, Message, Slot};
use crate::parse::{Framing, parse};

/// A message of its own. Cheap to clone: everything is shared.
#[derive(Clone)]
pub struct OwnedMessage {
    bytes: Bytes,
    index: Arc<CompactIndex>,
}

struct CompactIndex {
    head: Head,
    slots: Box<[Slot]>,
}

impl OwnedMessage {
    /// Reads and keeps the octets without copying them.
    pub fn parse(bytes: Bytes, framing: Framing) -> Result<Self, ParseError> {
        let mut index = Index::new();
        let message = parse(&bytes, &mut index, framing).map_err(|malformed| malformed.error)?;
        Ok(Self { bytes: bytes.slice_ref(message.bytes()), index: CompactIndex::of(&message) })
    }

    /// The message.
    pub fn view(&self) -> Message<'_> {
        Message::new(&self.bytes, &self.index.head, &self.index.slots)
    }

    /// Its octets.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl CompactIndex {
    fn of(message: &Message<'_>) -> Arc<Self> {
        Arc::new(Self { head: *message.head(), slots: message.slots().into() })
    }
}

impl From<&Message<'_>> for OwnedMessage {
    /// Copies the octets once; nothing is parsed again.
    fn from(message: &Message<'_>) -> Self {
        Self { bytes: Bytes::copy_from_slice(message.bytes()), index: CompactIndex::of(message) }
    }
}

impl std::fmt::Debug for OwnedMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.view().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_message_outlives_its_buffer() {
        let text =
            b"\r\nOPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nFrom: <sip:a@b>;tag=1\r\n\
            To: <sip:b@c>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\nl: 1\r\n\r\nabc";
        let parsed = OwnedMessage::parse(Bytes::from_static(text), Framing::Datagram).unwrap();
        let copied = {
            let buffer = text.to_vec();
            let mut index = Index::new();
            OwnedMessage::from(&parse(&buffer, &mut index, Framing::Datagram).unwrap())
        };
        for message in [&parsed, &copied.clone()] {
            assert_eq!(message.view().from_tag(), Some(&b"1"[..]));
            assert_eq!(message.view().body(), b"a");
            assert_eq!(message.bytes(), &text[2..text.len() - 2]);
        }
        assert!(OwnedMessage::parse(Bytes::from_static(b"x"), Framing::Datagram).is_err());
    }
}
