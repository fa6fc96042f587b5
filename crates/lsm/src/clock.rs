//! The manager's only clocks.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock time, which the manager compares with what nodes and the provider report, and a time
/// that never goes back, for its lease.
pub trait Clock: Send + Sync {
    /// UNIX milliseconds.
    fn unix_ms(&self) -> u64;

    /// Since some moment of this process; it never goes back.
    fn monotonic(&self) -> Duration;
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

    fn monotonic(&self) -> Duration {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        #[expect(clippy::disallowed_methods, reason = "the one place where the manager asks")]
        let now = Instant::now();
        now.saturating_duration_since(*FIRST.get_or_init(|| now))
    }
}
