//! The stop-watch of the drivers: it measures how long queries took and decides nothing.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "measures the database only, below the call path")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
