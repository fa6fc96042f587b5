//! Callers and callees: the project's own load client, for every element the same.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::FAILED_SHARE_MAX;
use super::process::{self, Place, Running};

pub(crate) const DOMAIN: &str = "bench.test";
pub(crate) const CALLER: &str = "alice";
pub(crate) const CALLEE: &str = "bob";
pub(crate) const PASSWORD: &str = "secret";
pub(crate) const CALLEE_ADDRESS: &str = "127.63.30.1:5060";
const CALLER_ADDRESS: &str = "127.63.31.1:0";

/// Beyond the calls themselves: those that are never answered, and the end of the process.
const OVERTIME: Duration = Duration::from_secs(90);

/// Figure-4 calls that send nothing twice.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Where they go, in turn.
    pub targets: Vec<SocketAddr>,
    /// Calls per second.
    pub rate: u32,
    pub seconds: u32,
    /// Callers and callees, in turn; all callers have one password.
    pub callers: Vec<String>,
    pub callees: Vec<String>,
    /// The callers' T1, on which depends when an unanswered call has failed.
    pub t1_ms: u32,
    /// Whether it is a failure if nobody asks for credentials.
    pub is_challenged: bool,
    pub place: Place,
}

impl Order {
    /// From one caller to one callee.
    pub(crate) fn new(targets: &[SocketAddr], rate: u32, seconds: u32) -> Self {
        Self {
            targets: targets.to_vec(),
            rate,
            seconds,
            callers: vec![CALLER.to_owned()],
            callees: vec![CALLEE.to_owned()],
            t1_ms: 500,
            is_challenged: true,
            place: Place::Anywhere,
        }
    }
}

/// What became of the calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Report {
    pub calls: u64,
    pub failed: u64,
    /// Calls that began more than 20 ms after their time.
    pub late: u64,
    /// From the INVITE with credentials to its 200, milliseconds: p50, p99, p99.9.
    pub answer_ms: [f64; 3],
}

impl Report {
    /// Whether so few calls failed that the others count.
    pub(crate) fn counts(&self) -> bool {
        self.calls > 0 && self.failed as f64 <= self.calls as f64 * FAILED_SHARE_MAX
    }
}

/// Makes the calls and waits for the last of them.
pub(crate) fn make(program: &Path, order: &Order) -> Result<Report> {
    let mut command = order.place.command(program);
    command.args(["load", "uac", "--json", "--no-retransmission"]);
    command.args(["--local", CALLER_ADDRESS, "--domain", DOMAIN]);
    command.args(["--schedule", &format!("{}@{}s", order.rate, order.seconds)]);
    command.args(["--t1", &format!("{}ms", order.t1_ms)]);
    if !order.is_challenged {
        command.arg("--challenge-optional");
    }
    command.args(order.targets.iter().map(|target| format!("--target={target}")));
    command.args(order.callers.iter().map(|user| format!("--user={user}:{PASSWORD}")));
    command.args(order.callees.iter().map(|user| format!("--callee={user}")));
    let limit = Duration::from_secs(order.seconds.into()) + OVERTIME;
    // Its exit code says whether a call failed, and so does what it prints.
    let ended = process::run_whatever_comes(&mut command, limit).context("the callers")?;
    let last = ended.output.lines().last().context("the callers say nothing")?;
    read(last).context("what the callers say")
}

fn read(line: &str) -> Result<Report> {
    let report: Value = serde_json::from_str(line)?;
    let count = |name: &str| report[name].as_u64().with_context(|| format!("no {name}"));
    let answer = |name: &str| report["answer_ms"][name].as_f64().unwrap_or(f64::NAN);
    Ok(Report {
        calls: count("calls")?,
        failed: count("failed")? + count("unfinished")?,
        late: report["own_losses"]["late_starts"].as_u64().unwrap_or_default(),
        answer_ms: [answer("p50"), answer("p99"), answer("p999")],
    })
}

/// Running callees.
pub(crate) struct Callees {
    process: Running,
    output: BufReader<ChildStdout>,
}

impl Callees {
    /// Whoever is called at [`CALLEE_ADDRESS`] answers.
    pub(crate) fn start(program: &Path, place: &Place, more: &[&str]) -> Result<Self> {
        Self::start_at(CALLEE_ADDRESS, program, place, more)
    }

    /// The same elsewhere, with further arguments.
    pub(crate) fn start_at(
        address: &str,
        program: &Path,
        place: &Place,
        more: &[&str],
    ) -> Result<Self> {
        let mut command = place.command(program);
        command.args(["load", "uas", "--json", "--local", address, "--domain", DOMAIN]);
        let mut process = Running::start(command.args(more).stdout(Stdio::piped()))?;
        let mut output = BufReader::new(process.0.stdout.take().context("a pipe")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if !line.contains("listening") {
            anyhow::bail!("the callees do not listen on {address}: {line}");
        }
        Ok(Self { process, output })
    }

    /// Ends them and returns what they have counted.
    pub(crate) fn end(mut self) -> Result<Value> {
        drop(self.process);
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        serde_json::from_str(text.lines().last().context("the callees say nothing")?)
            .context("what the callees say")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_in_a_thousand_may_fail() {
        let report = |calls, failed| Report { calls, failed, late: 0, answer_ms: [1.0; 3] };
        assert!(report(1_000, 1).counts());
        assert!(!report(1_000, 2).counts() && !report(0, 0).counts());
    }

    #[test]
    fn a_call_that_was_cut_off_has_failed() {
        let line = r#"{"calls":9,"failed":1,"unfinished":2,"own_losses":{"late_starts":3},
                       "answer_ms":{"p50":0.5,"p99":2.0,"p999":3.0}}"#;
        let wanted = Report { calls: 9, failed: 3, late: 3, answer_ms: [0.5, 2.0, 3.0] };
        assert_eq!(read(line).expect("a report"), wanted);
        assert!(read(r#"{"calls":9}"#).is_err());
    }
}
