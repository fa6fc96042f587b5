//! Callers and callees: the project's own load client, for every element the same.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::element::Element;
use super::process;

pub(super) const DOMAIN: &str = "bench.test";
pub(super) const CALLER: &str = "alice";
pub(super) const CALLEE: &str = "bob";
pub(super) const PASSWORD: &str = "secret";
const CALLEE_ADDRESS: &str = "127.63.30.1:5060";
const CALLER_ADDRESS: &str = "127.63.31.1:0";

/// What became of a round of calls.
pub(super) struct Report {
    pub calls: u64,
    pub failed: u64,
    pub answer_ms: [f64; 3],
}

/// Figure-4 calls that send nothing twice.
pub(super) fn calls(
    program: &Path,
    targets: &[SocketAddr],
    rate: u32,
    seconds: u32,
) -> Result<Report> {
    let mut command = Command::new(program);
    command.args(["load", "uac", "--json", "--no-retransmission"]);
    command.args(["--local", CALLER_ADDRESS, "--domain", DOMAIN, "--callee", CALLEE]);
    command.args(["--user", &format!("{CALLER}:{PASSWORD}")]);
    command.args(["--schedule", &format!("{rate}@{seconds}s")]);
    for target in targets {
        command.args(["--target", &target.to_string()]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("the callers do not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().context("the callers say nothing")?;
    let report: Value = serde_json::from_str(last)?;
    let answer = |name: &str| report["answer_ms"][name].as_f64().unwrap_or(f64::NAN);
    Ok(Report {
        calls: report["calls"].as_u64().context("the callers count their calls")?,
        failed: report["failed"].as_u64().context("the callers count their calls")?,
        answer_ms: [answer("p50"), answer("p99"), answer("p999")],
    })
}

/// The callee of all calls.
pub(super) struct Callees {
    child: Child,
    address: SocketAddr,
}

impl Callees {
    pub(super) fn start(program: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["load", "uas", "--local", CALLEE_ADDRESS, "--domain", DOMAIN])
            .stdout(Stdio::piped())
            .spawn()
            .context("the callee does not start")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { child, address: CALLEE_ADDRESS.parse()? })
    }

    pub(super) fn register<'a>(
        &self,
        elements: impl Iterator<Item = &'a dyn Element>,
    ) -> Result<()> {
        for element in elements {
            element
                .register(self.address)
                .with_context(|| format!("{} does not take the callee", element.name()))?;
        }
        Ok(())
    }
}

impl Drop for Callees {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}
