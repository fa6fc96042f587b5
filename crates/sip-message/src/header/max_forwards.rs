//! `Max-Forwards` (RFC 3261 §20.22).
//!
//! ```abnf
//! Max-Forwards = "Max-Forwards" HCOLON 1*DIGIT
//! ```

use std::fmt;

use crate::error::HeaderError;
use crate::header::HeaderName;
use crate::syntax::number;

/// How many more hops a request may take, 0–255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaxForwards(u8);

impl MaxForwards {
    /// What a proxy writes when the header is missing (RFC 3261 §16.6 step 3).
    pub const DEFAULT: Self = Self(70);

    /// A budget of `hops` more forwardings.
    pub const fn new(hops: u8) -> Self {
        Self(hops)
    }

    /// The remaining hops.
    pub const fn hops(self) -> u8 {
        self.0
    }

    /// The value for the forwarded copy, or `None` if this element may not forward at all.
    ///
    /// `None` means: answer 483 (Too Many Hops) (RFC 3261 §16.3 step 3).
    pub const fn forwarded(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(hops) => Some(Self(hops)),
            None => None,
        }
    }

    /// Reads a value that lies at `at`.
    pub(crate) fn read(value: &[u8], at: usize) -> Result<Self, HeaderError> {
        let name = HeaderName::MAX_FORWARDS;
        let hops = number(value).ok_or(HeaderError::Malformed { name, at })?;
        let hops = hops.and_then(|hops| hops.try_into().ok());
        hops.map(Self).ok_or(HeaderError::OutOfRange { name, at })
    }
}

impl fmt::Display for MaxForwards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Default for MaxForwards {
    fn default() -> Self {
        Self::DEFAULT
    }
}
