//! The manager's only clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Wall-clock time, which the manager compares with what nodes and the provider report.
pub trait Clock: Send + Sync {
    /// UNIX milliseconds.
    fn unix_ms(&self) -> u64;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        #[expect(clippy::disallowed_methods, reason = "the one place where the manager asks")]
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
