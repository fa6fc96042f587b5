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
