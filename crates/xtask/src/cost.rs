//! `cargo xtask cost`: what a message costs in counts, against what `crates/xtask/cost.toml` says it
//! costs. Counts are the same on a busy machine, so a test may hold them; the benchmarks' times may not.

mod ledger;
mod valgrind;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::house;
use ledger::{Builder, Cost, Ledger};
use valgrind::Profile;

/// Where the agreed costs stand, from the root.
const FILE: &str = "crates/xtask/cost.toml";
/// Functions that a profile names.
const PROFILE_LINES: usize = 40;

/// What to do besides comparing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The file takes what was found.
    pub write: bool,
    /// Say where the instructions go.
    pub profile: bool,
}

/// What is counted, and for how many units of it one run of the harness with one pair of phones stands.
#[derive(Clone, Copy, Debug)]
struct Part {
    element: &'static str,
    scene: &'static str,
    units: u32,
}

/// Through a balancer pass 18 messages of a Figure-4 call to a registered callee, and four of a
/// registration.
const PARTS: [Part; 4] = [
    Part { element: "balancer", scene: "call", units: 18 },
    Part { element: "balancer", scene: "registration", units: 4 },
    Part { element: "proxy", scene: "call", units: 1 },
    Part { element: "proxy", scene: "registration", units: 1 },
];

/// Counts, and compares or writes.
pub(crate) fn run(plan: Plan) -> Result<()> {
    let root = house::root()?;
    let program = build(&root)?;
    let mut found = Ledger::new(Builder::present()?);
    for part in PARTS {
        let (cost, profile) = count(&program, part)?;
        println!("cost: {} {}: {cost}", part.element, part.scene);
        if plan.profile {
            profile.print(PROFILE_LINES);
        }
        found.note(part.element, part.scene, cost);
    }
    let path = root.join(FILE);
    if plan.write {
        return found.write(&path);
    }
    let verdict = Ledger::read(&path)?.compare(&found);
    for line in &verdict.skipped {
        println!("SKIPPED: {line}");
    }
    for line in &verdict.complaints {
        eprintln!("cost: {line}");
    }
    match verdict.complaints.len() {
        0 => Ok(()),
        count => bail!(
            "{count} costs are not what {FILE} says; if that is meant, run cargo xtask cost --write \
             and say in the commit what it brought or bought"
        ),
    }
}

/// The harness, as `profile.cost` builds it.
fn build(root: &Path) -> Result<PathBuf> {
    let install = Command::new(root.join("scripts/install-tools")).arg("--tests").status()?;
    if !install.success() {
        bail!("scripts/install-tools --tests did not install what is missing");
    }
    let build = ["build", "--profile", "cost", "--quiet", "-p", "xtask", "--bench", "cost"];
    let output = Command::new("cargo")
        .args(build)
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(root)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo could not start")?;
    if !output.status.success() {
        bail!("cargo {} failed", build.join(" "));
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut benches = messages.filter(|it| it["target"]["kind"][0] == "bench");
    let executable = benches.find_map(|it| it["executable"].as_str().map(PathBuf::from));
    executable.context("cargo names no executable of the bench")
}

/// Loopback delivers in order to one core only.
fn on_one_core(program: impl AsRef<OsStr>) -> Command {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = allowed.and_then(|list| list.trim().split([',', '-']).next()).unwrap_or("0");
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", first]).arg(program);
    command
}

fn count(program: &Path, part: Part) -> Result<(Cost, Profile)> {
    let arguments = [part.scene, part.element];
    let output = on_one_core(program).args(arguments).output()?;
    if !output.status.success() {
        bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let said: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{arguments:?} says what it counted"))?;
    let number = |name: &str| said[name].as_f64().with_context(|| format!("it counts {name}"));
    let units = number("laps")? * f64::from(part.units);
    let profile = valgrind::profile(program, &arguments)?;
    let cost = Cost {
        allocations: number("allocations")? / units,
        allocated_bytes: number("allocated_bytes")? / units,
        copied_bytes: valgrind::copied_bytes(program, &arguments)? as f64 / units,
        system_calls: profile.system_calls() / units,
        instructions: profile.instructions() / units,
    };
    Ok((cost.rounded(), profile.per(units)))
}
