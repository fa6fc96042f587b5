//! What became of the calls, and what this side itself lost.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::connections::ConnectionCounts;
use crate::latency::Latency;

/// Causes of failures that are told apart; the others are one.
const CAUSES_MAX: usize = 64;

/// A call whose flow was not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When it was noticed: milliseconds since the UNIX epoch, to be laid beside a journal.
    pub unix_ms: u64,
    /// The same since the start of the run.
    pub at: Duration,
    pub call_id: String,
    /// What would have been right: `180 or 200 to INVITE`.
    pub expected: &'static str,
    /// What happened instead: `503 Service Unavailable`, `nothing`.
    pub came: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, call_id, expected, came, .. } = self;
        write!(f, "{:.3} s  {call_id}  expected {expected}, came {came}", at.as_secs_f64())
    }
}

/// Losses of this side: not the service's fault, and a reason to distrust the figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnLosses {
    /// Datagrams that the kernel dropped because our receive buffer was full.
    pub receive_drops: u64,
    /// Datagrams that we could not send because our send buffer stayed full.
    pub send_drops: u64,
    /// Datagrams that the kernel refused to send: nobody there, no way.
    pub send_errors: u64,
    /// Datagrams that were no SIP.
    pub unreadable: u64,
    /// Calls that started more than 20 ms after their time.
    pub late_starts: u64,
    /// The worst of them.
    pub lateness_max: Duration,
}

impl OwnLosses {
    /// Whether messages were lost on this side.
    pub fn lost_messages(&self) -> bool {
        self.receive_drops + self.send_drops > 0
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub duration: Duration,
    pub started: u64,
    pub succeeded: u64,
    pub failed: u64,
    /// Calls cut off because the run was stopped: neither succeeded nor failed.
    pub unfinished: u64,
    /// Of those that succeeded, the ones that needed a repetition or another target.
    pub healed: u64,
    /// Requests that were sent to another target because the first was dead.
    pub failed_over: u64,
    /// The longest time between two calls that succeeded, while calls were started.
    pub longest_gap: Duration,
    /// Each kind of the plan's mix, in its order.
    pub kinds: Vec<KindCounts>,
    /// Failed calls by what was expected and what came.
    pub causes: BTreeMap<String, u64>,
    /// Of streams; over UDP all zero.
    pub connections: ConnectionCounts,
    /// The first failures, up to `Plan::failures_kept_max`.
    pub failures: Vec<Failure>,
    /// From the INVITE with credentials (or the only one) to the first 180.
    pub ringing: Latency,
    /// From the same to the 200.
    pub answer: Latency,
    /// From the BYE with credentials (or the only one) to its 200.
    pub bye: Latency,
    pub own: OwnLosses,
}

/// What became of one kind of call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindCounts {
    /// As the mix writes it: `talk/20s`.
    pub kind: String,
    pub started: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub healed: u64,
}

impl Report {
    /// Counts a failure under its cause.
    pub(crate) fn count_cause(&mut self, expected: &str, came: &str) {
        let cause = format!("{came} in place of {expected}");
        let is_known = self.causes.contains_key(&cause) || self.causes.len() < CAUSES_MAX;
        let cause = if is_known { cause } else { "others".to_owned() };
        *self.causes.entry(cause).or_default() += 1;
    }
}

/// Finds the longest time without a success.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GapMeter {
    last: Option<Instant>,
    longest: Duration,
}

impl GapMeter {
    /// A call has succeeded, or the run has ended. `starts_end`: when the last call was started, if
    /// no more are; what is missing after it is missing for want of calls.
    pub(crate) fn mark(&mut self, now: Instant, starts_end: Option<Instant>) {
        let now = starts_end.map_or(now, |end| now.min(end));
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now.saturating_duration_since(last));
        }
    }

    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }
}

/// One second of a run, for a live line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The end of the second, from the start of the run.
    pub at: Duration,
    /// What the schedule asks for at its end, in calls per second.
    pub rate: f64,
    /// Totals so far.
    pub started: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub healed: u64,
    pub in_flight: u64,
    /// In this second alone.
    pub started_now: u64,
    pub succeeded_now: u64,
    pub failed_now: u64,
    /// Time to the 200 of the calls answered in this second.
    pub answer_now: Latency,
    pub own: OwnLosses,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, succeeded, failed, unfinished, failed_over, own, .. } = self;
        writeln!(f, "calls       {started} made, {succeeded} succeeded, {failed} failed")?;
        if *unfinished > 0 {
            writeln!(f, "            {unfinished} unfinished when the run was stopped")?;
        }
        if *failed_over > 0 {
            writeln!(f, "            {failed_over} requests repeated at another target")?;
        }
        let gap = self.longest_gap.as_secs_f64();
        let healed = self.healed;
        writeln!(f, "            {healed} healed by repetition, longest gap {gap:.3} s")?;
        for kind in self.kinds.iter().filter(|_| self.kinds.len() > 1) {
            let KindCounts { kind, started, failed, healed, .. } = kind;
            writeln!(f, "  {kind:<10} {started} made, {failed} failed, {healed} healed")?;
        }
        for (cause, calls) in &self.causes {
            writeln!(f, "  failed    {calls}: {cause}")?;
        }
        let ConnectionCounts { opened, lost, reopened, longest_gap } = self.connections;
        if opened > 0 {
            let gap = longest_gap.as_secs_f64();
            writeln!(
                f,
                "connections {opened} opened, {lost} lost, {reopened} opened again, at most {gap:.3} s \
                 without"
            )?;
        }
        let latencies = [
            ("to the 180", &self.ringing),
            ("to the 200", &self.answer),
            ("BYE to 200", &self.bye),
        ];
        for (name, latency) in latencies.into_iter().filter(|(_, it)| it.count() > 0) {
            let [p50, p95, p99] = [50.0, 95.0, 99.0]
                .map(|percent| latency.percentile(percent).as_secs_f64() * 1_000.0);
            let max = latency.max().as_secs_f64() * 1_000.0;
            writeln!(f, "{name}  p50 {p50:.1} ms, p95 {p95:.1}, p99 {p99:.1}, max {max:.1}")?;
        }
        let OwnLosses { receive_drops, send_drops, send_errors, unreadable, late_starts, .. } = own;
        if receive_drops + send_drops + send_errors + unreadable + late_starts > 0 {
            let lateness = own.lateness_max.as_millis();
            writeln!(
                f,
                "own losses  {receive_drops} received, {send_drops} unsent, {send_errors} refused, \
                 {unreadable} unreadable, {late_starts} calls late (up to {lateness} ms)"
            )?;
        }
        for failure in &self.failures {
            writeln!(f, "  {failure}")?;
        }
        let kept = self.failures.len() as u64;
        if *failed > kept {
            writeln!(f, "  and {} failures more", failed - kept)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_ends_with_a_success_or_with_the_calls() {
        let start = sip_net::clock::now();
        let at = |second| start + Duration::from_secs(second);
        let mut meter = GapMeter::default();
        for second in [3, 4, 6] {
            meter.mark(at(second), None);
        }
        assert_eq!(meter.longest(), Duration::from_secs(2), "before the first there is none");
        meter.mark(at(60), Some(at(9)));
        meter.mark(at(90), Some(at(9)));
        assert_eq!(meter.longest(), Duration::from_secs(3));
    }

    #[test]
    fn causes_are_bounded() {
        let mut report = Report::default();
        for number in 0..CAUSES_MAX + 5 {
            report.count_cause("200", &number.to_string());
        }
        assert_eq!(report.causes.len(), CAUSES_MAX + 1);
        assert_eq!(report.causes.get("others"), Some(&5));
    }
}
