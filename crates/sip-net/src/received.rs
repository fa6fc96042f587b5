//! What the receiver of a request writes on its top Via: where it really came from
//! (RFC 3261 §18.2.1, RFC 3581 §4).

use std::fmt;
use std::io::{Cursor, Write};
use std::net::SocketAddr;

use sip_message::header::{HeaderError, Rport};
use sip_message::{Edits, Message};

/// Notes in `edits` that `message` came from `source`: `received` always, `rport` if the client
/// asked for it. Values that the client wrote there itself are replaced.
///
/// `received` is written even when it equals sent-by: so it need not be looked up whether a name
/// means the same address, and the way back never depends on the DNS.
///
/// # Errors
///
/// The top Via cannot be read; the edits are as before.
pub fn edit(
    message: &Message<'_>,
    source: SocketAddr,
    edits: &mut Edits,
) -> Result<(), HeaderError> {
    let via = message.top_via()?;
    let mut received = None;
    let mut rport = None;
    for param in via.params() {
        if param.name.eq_ignore_ascii_case(b"received") {
            received = received.or(Some(param.span));
        } else if param.name.eq_ignore_ascii_case(b"rport") {
            rport = rport.or(Some(param.span));
        }
    }
    let mut text = Text::default();
    if let Some(span) = rport {
        edits.replace(span, text.set(format_args!("rport={}", source.port())));
    }
    let received_text = text.set(format_args!("received={}", source.ip()));
    match received {
        Some(span) => edits.replace(span, received_text),
        None => edits.insert_with(via.end(), |out| {
            out.push(b';');
            out.extend_from_slice(received_text);
        }),
    }
    Ok(())
}

/// One parameter on the stack: this runs for every request of a load balancer.
struct Text {
    bytes: [u8; 64],
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 64] }
    }
}

impl Text {
    /// `text` as bytes; `received=` and the longest IPv6 address are 54.
    fn set(&mut self, text: fmt::Arguments<'_>) -> &[u8] {
        let mut cursor = Cursor::new(self.bytes.as_mut_slice());
        let _ = cursor.write_fmt(text);
        let length = usize::try_from(cursor.position()).unwrap_or_default();
        self.bytes.get(..length).unwrap_or_default()
    }
}
