//! What stands between callers and callees, and one round of calls through it.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::Rig;
use super::calls::{self, CALLEE_ADDRESS, Order, Report};
use super::{process, usage};

/// Something under measurement. It ends when it is dropped.
pub(crate) trait Element {
    /// For people.
    fn name(&self) -> &str;
    /// Where callers send to, in turn.
    fn targets(&self) -> &[SocketAddr];
    /// Its processes at this moment.
    fn processes(&self) -> Vec<u32>;
    /// Makes the callee known.
    fn register(&self, callee: SocketAddr) -> Result<()>;
    /// Whether it asks callers for credentials.
    fn challenges(&self) -> bool {
        true
    }
    /// Whether the database works for it.
    fn has_database(&self) -> bool {
        false
    }
}

/// Nothing between callers and callees: what the two cost by themselves.
pub(crate) struct Nothing([SocketAddr; 1]);

impl Nothing {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self([CALLEE_ADDRESS.parse().context("an address")?]))
    }
}

impl Element for Nothing {
    fn name(&self) -> &str {
        "nothing between"
    }

    fn targets(&self) -> &[SocketAddr] {
        &self.0
    }

    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    fn register(&self, _: SocketAddr) -> Result<()> {
        Ok(())
    }

    fn challenges(&self) -> bool {
        false
    }
}

/// What one round of calls cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub report: Report,
    /// CPU per call, microseconds: of the element, and of the database behind it.
    pub cpu_us: f64,
    pub database_us: f64,
    /// Share of one core that the element used.
    pub busy: f64,
    pub memory_kib: u64,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { calls, failed, answer_ms: [p50, p99, _], .. } = self.report;
        write!(
            f,
            "{calls} calls, {failed} failed, {:.0} µs, p50 {p50:.2} ms, p99 {p99:.2} ms",
            self.cpu_us
        )
    }
}

/// Makes the calls and looks at what the element and `database` (processes) have used meanwhile.
pub(crate) fn measure(
    rig: &Rig,
    element: &dyn Element,
    database: &[u32],
    order: &Order,
) -> Result<Round> {
    let processes = element.processes();
    let (begun, before) = (process::now(), usage::cpu_ns(&processes));
    let database_before = usage::cpu_ns(database);
    let report = calls::make(&rig.program, order)?;
    let used =
        |processes: &[u32], before: u64| usage::cpu_ns(processes).saturating_sub(before) as f64;
    let (used_ns, database_ns) = (used(&processes, before), used(database, database_before));
    let per_call = |ns: f64| ns / 1_000.0 / report.calls.max(1) as f64;
    Ok(Round {
        report,
        cpu_us: per_call(used_ns),
        database_us: per_call(database_ns),
        busy: used_ns / begun.elapsed().as_nanos() as f64,
        memory_kib: usage::memory_kib(&processes),
    })
}
