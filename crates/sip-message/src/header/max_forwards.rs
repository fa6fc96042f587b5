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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_0_to_255_is_a_number_of_hops() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("0070", Some(70)),
            ("255", Some(255)),
            ("256", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("7 0", None),
        ] {
            assert_eq!(
                MaxForwards::read(text.as_bytes(), 0).ok().map(MaxForwards::hops),
                wanted,
                "{text}"
            );
        }
        assert_eq!(MaxForwards::new(1).forwarded(), Some(MaxForwards::new(0)));
        assert_eq!(MaxForwards::new(0).forwarded(), None);
    }
}
