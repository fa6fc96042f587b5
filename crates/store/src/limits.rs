//! Every limit of the store, with its unit and what happens beyond it.

use std::time::Duration;

/// Queries of one handle that may be unanswered. One more is answered [`Overloaded`] at once.
///
/// [`Overloaded`]: crate::StoreError::Overloaded
pub const QUERIES_IN_FLIGHT_MAX: usize = 4096;

/// Rows that one page of a listing may hold. A larger `limit` is cut to this.
pub const PAGE_ROWS_MAX: usize = 1000;

/// Rows of one address-of-record, expired ones included. Beyond it a write removes the expired
/// rows that were written longest ago; live rows are never removed (the registrar limits those).
pub const ROWS_PER_AOR_MAX: usize = 128;

/// How long an expired row is kept for its CSeq. Afterwards a sweep removes it.
pub const EXPIRED_ROW_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
