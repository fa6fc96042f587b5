//! `CSeq` (RFC 3261 §20.16).
//!
//! ```abnf
//! CSeq = "CSeq" HCOLON 1*DIGIT LWS Method
//! ```

use crate::error::HeaderError;
use crate::header::HeaderName;
use crate::method::Method;
use crate::span::Span;
use crate::syntax::{Cursor, is_token, number};

/// The place of a request in its dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Senders stay below 2^31 (§8.1.1.5); we carry what 32 bits hold.
    pub number: u32,
    pub method: Method<'a>,
}

/// The number, and where the method lies.
pub(crate) fn read(message: &[u8], span: Span) -> Result<(u32, Span), HeaderError> {
    let name = HeaderName::CSEQ;
    let mut cursor = Cursor::new(message, span);
    let at = cursor.at();
    let digits = cursor.run(|byte| byte.is_ascii_digit());
    let value = number(digits.slice(message)).ok_or(HeaderError::Malformed { name, at })?;
    let after = cursor.at();
    cursor.skip_lws();
    let method = cursor.run(is_token);
    if method.is_empty() || method.start as usize == after || !cursor.is_done() {
        return Err(HeaderError::Malformed { name, at: cursor.at() });
    }
    let value = value.and_then(|value| value.try_into().ok());
    Ok((value.ok_or(HeaderError::OutOfRange { name, at })?, method))
}
