//! `Content-Length` (RFC 3261 §20.14): where the body ends. The strictest of all fields, because
//! two readers that disagree about it read two different messages.
//!
//! ```abnf
//! Content-Length = ( "Content-Length" / "l" ) HCOLON 1*DIGIT
//! ```

use crate::syntax::number;

/// The octets that a value announces; `None` unless it is digits and fits.
pub(crate) fn read(value: &[u8]) -> Option<usize> {
    number(value)?.and_then(|length| usize::try_from(length).ok())
}
