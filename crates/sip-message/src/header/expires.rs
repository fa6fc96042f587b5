//! `Expires` and `Min-Expires` (RFC 3261 §20.19, §20.23), in seconds.
//!
//! ```abnf
//! Expires       = "Expires" HCOLON delta-seconds
//! Min-Expires   = "Min-Expires" HCOLON delta-seconds
//! delta-seconds = 1*DIGIT
//! ```

use crate::error::HeaderError;
use crate::header::HeaderName;
use crate::syntax::number;

/// The seconds of a value that lies at `at`.
pub(crate) fn read(value: &[u8], at: usize) -> Result<u32, HeaderError> {
    let name = HeaderName::EXPIRES;
    let seconds = number(value).ok_or(HeaderError::Malformed { name, at })?;
    seconds.and_then(|seconds| seconds.try_into().ok()).ok_or(HeaderError::OutOfRange { name, at })
}
