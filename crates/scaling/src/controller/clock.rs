//! The clock jumps: waits that have begun go on as if it had not.

use crate::view::{Memory, Timing};

/// A step that comes this many poll intervals after the one before, or before it, tells of a clock
/// that was set, or of a manager that stood still: in both nothing was observed meanwhile, and no
/// wait may have ended by it.
const INTERVALS_MAX: u32 = 10;

/// Moves what is remembered of the past along with a jump of the clock to `now_ms`.
pub(super) fn follow(memory: &mut Memory, timing: &Timing, now_ms: u64) {
    let before_ms = memory.step_ms.replace(now_ms);
    let interval_ms = super::millis(timing.poll_interval);
    let Some(before_ms) = before_ms else { return };
    let expected_ms = before_ms.saturating_add(interval_ms);
    let latest_ms = before_ms.saturating_add(interval_ms * u64::from(INTERVALS_MAX));
    if (before_ms..=latest_ms).contains(&now_ms) {
        // Whose calls were cut off when nobody looked has not been seen to come back; and a clock that
        // was set a little must not let more machines be launched.
        let unseen_ms = now_ms.saturating_sub(expected_ms);
        let launches = memory.launches_ms.iter_mut().map(|(_, at_ms)| at_ms);
        let times = memory.cut_off_ms.iter_mut().chain(launches);
        times.for_each(|at_ms| *at_ms = at_ms.saturating_add(unseen_ms));
        return;
    }
    // As if no time had passed: a wait may be longer for it, never shorter.
    let moved = |time_ms: u64| match now_ms.checked_sub(before_ms) {
        Some(forward_ms) => time_ms.saturating_add(forward_ms),
        None => time_ms.saturating_sub(before_ms.saturating_sub(now_ms)),
    };
    let retiring = memory.retiring.values_mut().flat_map(|one| {
        let since = std::iter::once(&mut one.since_ms);
        since.chain(&mut one.withdrawn_at_ms).chain(&mut one.released_at_ms)
    });
    let failed_starts = memory.failed_starts.values_mut().map(|(_, at_ms)| at_ms);
    let returns = memory.returns.values_mut().map(|(_, at_ms)| at_ms);
    let cut_off = memory.cut_off_ms.iter_mut().chain(failed_starts).chain(returns);
    let launches = memory.launches_ms.iter_mut().map(|(_, at_ms)| at_ms);
    let times = memory.acknowledged_ms.values_mut().chain(memory.first_seen_ms.values_mut());
    let times = times
        .chain(memory.strays_seen_ms.values_mut())
        .chain(memory.unreached_ms.values_mut())
        .chain(launches)
        .chain(memory.slow_since_ms.values_mut())
        .chain(retiring)
        .chain(cut_off);
    times.for_each(|time_ms| *time_ms = moved(*time_ms));
}
