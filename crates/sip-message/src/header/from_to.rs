//! `From` and `To` (RFC 3261 §20.20, §20.39): one value each, told apart by their tags.
//!
//! ```abnf
//! From       = ( "From" / "f" ) HCOLON ( name-addr / addr-spec ) *( SEMI from-param )
//! To         = ( "To" / "t" ) HCOLON ( name-addr / addr-spec ) *( SEMI to-param )
//! from-param = tag-param / generic-param
//! tag-param  = "tag" EQUAL token
//! ```

use super::name_addr::NameAddrParts;
use crate::error::HeaderError;
use crate::header::HeaderName;
use crate::span::Span;
use crate::syntax::Cursor;

/// The single value of a From or To; a second one is a fault.
pub(crate) fn read(
    message: &[u8],
    span: Span,
    name: HeaderName,
) -> Result<NameAddrParts, HeaderError> {
    let mut cursor = Cursor::new(message, span);
    let parts = NameAddrParts::read(message, &mut cursor)
        .map_err(|at| HeaderError::Malformed { name, at })?;
    if cursor.is_done() { Ok(parts) } else { Err(HeaderError::Malformed { name, at: cursor.at() }) }
}
