//! What messages are written with.

use bytes::Bytes;
use sip_message::Edits;

/// Memory for one message at a time; reused, so that each message is allocated once, as long as it is.
/// Transactions keep many of them for half a minute.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) edits: Edits,
    /// A line that goes into the message.
    pub(crate) line: Vec<u8>,
    pub(crate) text: Vec<u8>,
}

impl Draft {
    /// The message that was written.
    pub(crate) fn finish(&self) -> Bytes {
        Bytes::copy_from_slice(&self.text)
    }
}
