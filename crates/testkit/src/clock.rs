//! The moment at which virtual time begins.

use std::sync::OnceLock;
use std::time::Instant;

/// The same instant at every call in one process; add durations to it.
pub fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "an Instant has no constructor but the clock")]
    *EPOCH.get_or_init(Instant::now)
}
