//! What a drill came to: its verdict, its line, and the table of all.

use std::collections::BTreeMap;

use load_client::{Report, UasCounters};
use serde_json::{Value, json};

use super::shares::Shares;

/// How a drill ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed(String),
    Failed(String),
    /// It cannot be played here.
    Skipped(String),
    /// Ctrl-C.
    Interrupted,
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Passed(_) => "passed",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "skipped",
            Self::Interrupted => "interrupted",
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::Passed(reason) | Self::Failed(reason) | Self::Skipped(reason) => reason,
            Self::Interrupted => "Ctrl-C",
        }
    }
}

/// One drill that was played, or not.
pub(super) struct Record {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    pub(super) calls: Calls,
    pub(super) proxies_max: u32,
    pub(super) proxies_end: u32,
    pub(super) notes: Vec<String>,
    pub(super) shares: Shares,
}

/// What callers and callees say.
pub(super) struct Calls {
    pub(super) report: Report,
    pub(super) callees: UasCounters,
}

impl Record {
    /// After the drill, for people.
    pub(super) fn print(&self) {
        for note in &self.notes {
            println!("  {note}");
        }
        for (phase, before) in self.shares.phases() {
            println!("  {}", phase.line(before));
        }
        for line in self.calls.report.to_string().lines() {
            println!("  {line}");
        }
        let UasCounters { failed_over, longest_unregistered, .. } = self.calls.callees;
        if failed_over > 0 {
            let seconds = longest_unregistered.as_secs_f64();
            println!("  callees     {failed_over} registered anew, at most {seconds:.3} s without");
        }
        println!("{}: {}: {}", self.name, self.verdict.word(), self.verdict.reason());
    }

    pub(super) fn json(&self) -> Value {
        let Calls { report, callees } = &self.calls;
        let kinds: BTreeMap<&str, u64> =
            report.kinds.iter().map(|it| (it.kind.as_str(), it.started)).collect();
        let failures: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
        let shares: Vec<Value> =
            self.shares.phases().map(|(phase, before)| phase.json(before)).collect();
        json!({
            "type": "drill",
            "name": self.name,
            "verdict": self.verdict.word().to_lowercase(),
            "reason": self.verdict.reason(),
            "calls": report.started,
            "succeeded": report.succeeded,
            "failed": report.failed,
            "unfinished": report.unfinished,
            "healed": report.healed,
            "failed_over": report.failed_over,
            "longest_gap_ms": report.longest_gap.as_millis() as u64,
            "kinds": kinds,
            "causes": report.causes,
            "failures": failures,
            "own_losses": report.own.receive_drops + report.own.send_drops,
            "late_starts": report.own.late_starts,
            "connections_lost": report.connections.lost,
            "connections_gap_ms": report.connections.longest_gap.as_millis() as u64,
            "callees_failed_over": callees.failed_over,
            "callees_longest_unregistered_ms": callees.longest_unregistered.as_millis() as u64,
            "proxies_max": self.proxies_max,
            "proxies_end": self.proxies_end,
            "notes": self.notes,
            "shares": shares,
        })
    }

    fn row(&self) -> String {
        let report = &self.calls.report;
        format!(
            "{:<17} {:<12} {:>7} {:>7} {:>7} {:>7.2} s  {}",
            self.name,
            self.verdict.word(),
            report.started,
            report.failed,
            report.healed,
            report.longest_gap.as_secs_f64(),
            self.verdict.reason(),
        )
    }
}

/// The end of it all.
pub(super) fn print_table(records: &[Record], as_json: bool) {
    let count = |wanted: &str| records.iter().filter(|it| it.verdict.word() == wanted).count();
    if as_json {
        let line = json!({
            "type": "drills",
            "passed": count("passed"),
            "failed": count("FAILED"),
            "skipped": count("skipped"),
            "interrupted": count("interrupted"),
        });
        println!("{line}");
        return;
    }
    println!(
        "\n{:<17} {:<12} {:>7} {:>7} {:>7} {:>9}",
        "drill", "", "calls", "failed", "healed", "gap"
    );
    for record in records {
        println!("{}", record.row());
    }
}

/// Whether something was played and nothing was lost: a drill that cannot be played here loses
/// nothing.
pub(super) fn all_passed(records: &[Record]) -> bool {
    let is_good = |it: &Record| matches!(it.verdict, Verdict::Passed(_) | Verdict::Skipped(_));
    let has_passed = |it: &Record| matches!(it.verdict, Verdict::Passed(_));
    records.iter().all(is_good) && records.iter().any(has_passed)
}
