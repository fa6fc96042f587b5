//! `Call-ID` (RFC 3261 §20.8). Case-sensitive, compared octet by octet.
//!
//! ```abnf
//! Call-ID = ( "Call-ID" / "i" ) HCOLON callid
//! callid  = word [ "@" word ]
//! ```

use super::value::has_lws;

/// Whether a Call-ID can be one. Any octet but white space passes: we only compare it.
pub(crate) fn is_call_id(value: &[u8]) -> bool {
    !value.is_empty() && !has_lws(value)
}
