//! What stands between callers and callees, and one round of calls through it.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::{load, process};

/// A proxy under measurement. It ends when it is dropped.
pub(super) trait Element {
    fn name(&self) -> &str;
    /// Where callers send to, in turn.
    fn targets(&self) -> &[SocketAddr];
    /// Its processes at this moment.
    fn processes(&self) -> Vec<u32>;
    /// Makes the callee known.
    fn register(&self, callee: SocketAddr) -> Result<()>;
}

/// What one round of calls cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub calls: u64,
    pub failed: u64,
    /// CPU of the element per call, microseconds.
    pub cpu_us: f64,
    /// From the INVITE with credentials to its 200, milliseconds: p50, p99, p99.9.
    pub answer_ms: [f64; 3],
    pub memory_kib: u64,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, failed, cpu_us, answer_ms: [p50, p99, _], .. } = self;
        write!(
            f,
            "{calls} calls, {failed} failed, {cpu_us:.0} µs, p50 {p50:.2} ms, p99 {p99:.2} ms"
        )
    }
}

/// `seconds` of calls at `rate` per second.
pub(super) fn measure(
    program: &Path,
    element: &dyn Element,
    rate: u32,
    seconds: u32,
) -> Result<Round> {
    let processes = element.processes();
    let before = process::cpu_ns(&processes);
    let report = load::calls(program, element.targets(), rate, seconds)?;
    let used_ns = process::cpu_ns(&processes).saturating_sub(before);
    Ok(Round {
        calls: report.calls,
        failed: report.failed,
        cpu_us: used_ns as f64 / 1_000.0 / report.calls.max(1) as f64,
        answer_ms: report.answer_ms,
        memory_kib: process::memory_kib(&processes),
    })
}
