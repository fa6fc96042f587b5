//! Why a query was not answered.

/// A query without an answer. `Display` reads after "failed to …: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer in time, is locked, gone, or shutting down.
    #[error("store unavailable: {detail}")]
    Unavailable { detail: String },

    /// Too many queries in flight; this one was not begun.
    #[error("too many store queries in flight")]
    Overloaded,

    /// A row that cannot be read. Other rows are still served.
    #[error("unreadable row: {row}")]
    Corrupt { row: String },
}

impl StoreError {
    /// Whether the same query may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Overloaded => true,
            Self::Corrupt { .. } => false,
        }
    }
}
