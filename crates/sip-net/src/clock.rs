//! The only clock on the call path; everything below floor 3 takes instants as arguments.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock: deadlines and timers.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time in milliseconds since the UNIX epoch: what is stored or written in messages.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn unix_millis() -> u64 {
    // A machine whose clock stands before 1970 reads as the epoch itself.
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_do_not_run_backwards() {
        let (first, first_millis) = (now(), unix_millis());
        assert!(first <= now());
        assert!(first_millis > 1_700_000_000_000, "wall-clock time is in milliseconds");
    }
}
