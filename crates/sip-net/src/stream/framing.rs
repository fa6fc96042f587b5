//! Where a byte stream becomes messages. TCP and TLS cut by Content-Length (RFC 3261 §18.3);
//! WebSocket, when it comes, is one message per frame (RFC 7118 §4.2) and another variant here.

use bytes::Bytes;
use sip_message::{Frame, FrameError, Framer};

/// What one look at a stream gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Message(Bytes),
    /// The peer asks whether we live (RFC 5626 §3.5.1).
    KeepAlive,
    /// The stream cannot be cut from here on; what had come of the message.
    Malformed {
        error: FrameError,
        bytes: Bytes,
    },
}

/// The state between two reads.
#[derive(Debug)]
pub(super) struct Framing {
    framer: Framer,
}

impl Framing {
    pub(super) fn new() -> Self {
        Self { framer: Framer::new() }
    }

    /// More of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.framer.push(bytes);
    }

    /// The next unit, if all of it has come. After `Malformed` do not ask again.
    pub(super) fn next(&mut self) -> Option<Unit> {
        match self.framer.next() {
            Ok(Some(Frame::Message(bytes))) => Some(Unit::Message(bytes)),
            Ok(Some(Frame::KeepAlive)) => Some(Unit::KeepAlive),
            Ok(None) => None,
            Err(error) => {
                let bytes = Bytes::copy_from_slice(self.framer.buffered());
                Some(Unit::Malformed { error, bytes })
            }
        }
    }

    /// Whether no message has begun that is still incomplete.
    pub(super) fn is_between_messages(&self) -> bool {
        self.framer.buffered().is_empty()
    }
}
