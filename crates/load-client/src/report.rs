//! What became of the calls, and what this side itself lost.

use std::fmt;
use std::time::Duration;

use crate::latency::Latency;

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
    /// Requests that were sent to another target because nobody answered at the first.
    pub failed_over: u64,
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
