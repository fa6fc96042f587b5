//! Messages out of a byte stream, by Content-Length (RFC 3261 §18.3, RFC 5626 §3.5.1).

use bytes::{Buf, Bytes, BytesMut};

use crate::header::{HeaderName, content_length};
use crate::limits::{HEADER_SECTION_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::parse::{field_name, line_end};
use crate::span::Span;
use crate::syntax::trim;

/// What a stream held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole message.
    Message(Bytes),
    /// A ping: answer it with one CR LF.
    KeepAlive,
}

/// Why a stream cannot be read on: nobody knows where the next message begins. Close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("header section larger than allowed")]
    HeadersTooLarge,
    #[error("message of {bytes} octets is larger than allowed")]
    MessageTooLarge { bytes: usize },
    #[error("malformed content-length")]
    ContentLength,
    #[error("content-lengths disagree")]
    LengthConflict,
    #[error("line does not end in CR LF")]
    LineEnd,
}

/// The unread octets of one stream. Every frame but a keep-alive is handed out once, whole.
///
/// A message without Content-Length has no body here (parse it with `Framing::Stream`).
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
    /// How far the end of the header section was looked for.
    scanned: usize,
    /// One CR LF was passed over; another makes it a ping.
    half_ping: bool,
    /// The length of the message at the front, once known.
    message: Option<usize>,
}

impl Framer {
    /// A stream of which nothing was read.
    pub fn new() -> Self {
        Self::default()
    }

    /// Octets that were read from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The octets that belong to no complete frame yet; after an error, the message that has it.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// The next frame; `None` until more is pushed.
    ///
    /// # Errors
    ///
    /// The stream is out of step for good; each further call says so again.
    #[expect(
        clippy::should_implement_trait,
        reason = "an error does not end it, and more may come"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.message.is_none() {
            while self.buffer.starts_with(b"\r\n") {
                self.buffer.advance(2);
                self.scanned = 0;
                self.half_ping = !self.half_ping;
                if !self.half_ping {
                    return Ok(Some(Frame::KeepAlive));
                }
            }
            if self.buffer.is_empty() || &self.buffer[..] == b"\r" {
                return Ok(None);
            }
            self.half_ping = false;
            self.message = self.measure()?;
        }
        match self.message {
            Some(length) if length <= self.buffer.len() => {
                self.message = None;
                self.scanned = 0;
                Ok(Some(Frame::Message(self.buffer.split_to(length).freeze())))
            }
            _ => Ok(None),
        }
    }

    /// The length of the message at the front, if its header section is complete.
    fn measure(&mut self) -> Result<Option<usize>, FrameError> {
        let from = self.scanned.saturating_sub(3);
        let unseen = self.buffer.get(from..).unwrap_or_default();
        let Some(found) = memchr::memmem::find(unseen, b"\r\n\r\n") else {
            self.scanned = self.buffer.len();
            if self.scanned > HEADER_SECTION_BYTES_MAX {
                return Err(FrameError::HeadersTooLarge);
            }
            return Ok(None);
        };
        let head = from + found + 4;
        if head > HEADER_SECTION_BYTES_MAX {
            return Err(FrameError::HeadersTooLarge);
        }
        let length = announced(self.buffer.get(..head).unwrap_or_default())?;
        match head.checked_add(length) {
            Some(bytes) if bytes <= MESSAGE_BYTES_MAX => Ok(Some(bytes)),
            bytes => Err(FrameError::MessageTooLarge { bytes: bytes.unwrap_or(usize::MAX) }),
        }
    }
}

/// What the Content-Length fields of a header section say: the same as `parse` reads in them.
fn announced(head: &[u8]) -> Result<usize, FrameError> {
    let mut length = None;
    let mut at = 0;
    while let Some(line) = line_end(head, at) {
        let (mut text_end, mut next, mut flaw) = (line.text_end, line.next, line.flaw);
        while matches!(head.get(next), Some(b' ' | b'\t')) {
            let Some(fold) = line_end(head, next) else { break };
            (text_end, next, flaw) = (fold.text_end, fold.next, flaw.or(fold.flaw));
        }
        if flaw.is_some() {
            return Err(FrameError::LineEnd);
        }
        let text = head.get(at..text_end).unwrap_or_default();
        at = next;
        let Some((name, colon)) = field_name(text) else { continue };
        if HeaderName::from_bytes(name) != HeaderName::CONTENT_LENGTH {
            continue;
        }
        let value = trim(text, Span::of(colon + 1, text.len())).slice(text);
        let value = content_length::read(value).ok_or(FrameError::ContentLength)?;
        if length.is_some_and(|length| length != value) {
            return Err(FrameError::LengthConflict);
        }
        length = Some(value);
    }
    Ok(length.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(pieces: &[&[u8]]) -> (Vec<String>, Result<(), FrameError>) {
        let mut framer = Framer::new();
        let mut found = Vec::new();
        for piece in pieces {
            framer.push(piece);
            loop {
                match framer.next() {
                    Ok(Some(Frame::Message(bytes))) => found.push(bytes.escape_ascii().to_string()),
                    Ok(Some(Frame::KeepAlive)) => found.push("ping".into()),
                    Ok(None) => break,
                    Err(error) => return (found, Err(error)),
                }
            }
        }
        (found, Ok(()))
    }

    #[test]
    fn messages_are_cut_wherever_the_stream_breaks() {
        let stream = b"\r\nA b SIP/2.0\r\nContent-Length :\r\n 3\r\n\r\nabc\r\n\r\nB c SIP/2.0\r\n\r\nC d SIP/2.0\r\nl: 0\r\n\r\n";
        let wanted = [
            "A b SIP/2.0\\r\\nContent-Length :\\r\\n 3\\r\\n\\r\\nabc",
            "ping",
            "B c SIP/2.0\\r\\n\\r\\n",
            "C d SIP/2.0\\r\\nl: 0\\r\\n\\r\\n",
        ];
        for size in 1..stream.len() {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(frames(&pieces), (wanted.map(String::from).to_vec(), Ok(())), "{size}");
        }
    }

    #[test]
    fn single_line_ends_are_no_ping() {
        assert_eq!(
            frames(&[b"\r\nA b\r\n\r\n", b"\r\nB c\r\n\r\n"]).0,
            ["A b\\r\\n\\r\\n", "B c\\r\\n\\r\\n"]
        );
        assert_eq!(frames(&[b"\r", b"\n\r", b"\n", b"\r\n\r\n"]).0, ["ping", "ping"]);
    }

    #[test]
    fn stream_out_of_step_is_an_error() {
        let long = vec![b'a'; HEADER_SECTION_BYTES_MAX + 1];
        for (text, error) in [
            (&b"A b\r\nl: -1\r\n\r\n"[..], FrameError::ContentLength),
            (b"A b\r\nl: 1\r\nContent-Length: 2\r\n\r\n", FrameError::LengthConflict),
            (b"A b\nl: 1\r\n\r\n", FrameError::LineEnd),
            (b"A b\r\nl: 65535\r\n\r\n", FrameError::MessageTooLarge { bytes: 65_552 }),
            (
                b"A b\r\nl: 18446744073709551615\r\n\r\n",
                FrameError::MessageTooLarge { bytes: usize::MAX },
            ),
            (b"A b\r\nl: 99999999999999999999999\r\n\r\n", FrameError::ContentLength),
            (&long, FrameError::HeadersTooLarge),
        ] {
            assert_eq!(frames(&[text]).1, Err(error));
        }
        let mut framer = Framer::new();
        framer.push(b"A b\r\nl: x\r\n\r\nrest");
        assert!(framer.next().is_err() && framer.next().is_err());
        assert_eq!(framer.buffered(), b"A b\r\nl: x\r\n\r\nrest");
    }
}
