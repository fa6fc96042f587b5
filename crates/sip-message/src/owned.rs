//! A message that outlives its buffer: shared octets and a compact index.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::ParseError;
use crate::message::{Head, Index, Message, Slot};
use crate::parse::{Framing, parse};

/// A message of its own. Cheap to clone: everything is shared.
#[derive(Clone)]
pub struct OwnedMessage {
    kept: Arc<Kept>,
}

struct Kept {
    bytes: Bytes,
    head: Head,
    slots: Slots,
}

/// Where the fields lie: beside the rest, unless there are unusually many.
#[expect(clippy::large_enum_variant, reason = "nearly every message has few")]
enum Slots {
    Few { slots: [Slot; FEW], used: usize },
    Many(Box<[Slot]>),
}

/// Header fields of nearly every message.
const FEW: usize = 20;

impl Slots {
    fn of(message: &Message<'_>) -> Self {
        let given = message.slots();
        if given.len() > FEW {
            return Self::Many(given.into());
        }
        let mut slots = [Slot::UNUSED; FEW];
        slots.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
        Self::Few { slots, used: given.len() }
    }

    fn as_slice(&self) -> &[Slot] {
        match self {
            Self::Few { slots, used } => slots.get(..*used).unwrap_or_default(),
            Self::Many(slots) => slots,
        }
    }
}

impl OwnedMessage {
    /// Reads and keeps the octets without copying them.
    pub fn parse(bytes: Bytes, framing: Framing) -> Result<Self, ParseError> {
        let mut index = Index::new();
        let message = parse(&bytes, &mut index, framing).map_err(|malformed| malformed.error)?;
        Ok(Self::keep(bytes.slice_ref(message.bytes()), &message))
    }

    fn keep(bytes: Bytes, message: &Message<'_>) -> Self {
        let kept = Kept { bytes, head: *message.head(), slots: Slots::of(message) };
        Self { kept: Arc::new(kept) }
    }

    /// The message.
    pub fn view(&self) -> Message<'_> {
        Message::new(&self.kept.bytes, &self.kept.head, self.kept.slots.as_slice())
    }

    /// Its octets.
    pub fn bytes(&self) -> &Bytes {
        &self.kept.bytes
    }
}

impl From<&Message<'_>> for OwnedMessage {
    /// Copies the octets once; nothing is parsed again.
    fn from(message: &Message<'_>) -> Self {
        Self::keep(Bytes::copy_from_slice(message.bytes()), message)
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

    #[test]
    fn many_fields_are_kept_as_few_are() {
        for count in [0, FEW - 6, FEW - 5, 100] {
            let more = "X-More: 1\r\n".repeat(count);
            let text = format!(
                "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nFrom: <sip:a@b>;tag=1\r\n\
                 To: <sip:b@c>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n{more}\r\n"
            );
            let message = OwnedMessage::parse(text.into(), Framing::Datagram).unwrap();
            assert_eq!(message.view().named(b"x-more").count(), count);
            assert_eq!(message.view().fields().count(), count + 5);
        }
    }
}
