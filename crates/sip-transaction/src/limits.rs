//! How much one layer may hold.

/// The bounds of a [`Layer`](crate::Layer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Server transactions, and likewise client transactions, that may live at once. At the limit
    /// a new one is refused with [`TableFull`](crate::TableFull).
    pub transactions_max: usize,
}

impl Default for Limits {
    /// A hundred thousand of each: about 60 MB of tables besides the messages that they keep.
    fn default() -> Self {
        Self { transactions_max: 100_000 }
    }
}

/// Receivers of one server transaction: the client's own way and those that joined it. A client
/// that fails over more often than this is refused as if the table were full.
pub const PATHS_MAX: usize = 8;
