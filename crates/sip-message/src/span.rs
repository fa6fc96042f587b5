//! A place in a message: where something lies, without holding it.

use std::ops::Range;

/// Octets `start..end` of [`crate::Message::bytes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first octet.
    pub start: u32,
    /// One past the last octet.
    pub end: u32,
}

impl Span {
    /// The octets from `start` up to, not including, `end`.
    pub const fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }

    /// Positions inside one message always fit: a message is at most 65,535 octets long.
    pub(crate) const fn of(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// As indices of a slice.
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// How many octets.
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The octets themselves; nothing if the span does not belong to `bytes`.
    pub fn slice(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.range()).unwrap_or_default()
    }
}
