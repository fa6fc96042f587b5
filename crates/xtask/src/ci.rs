//! One command, one truth: what CI runs is what a developer runs.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::house;

/// Runs every check in order and stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    let steps: [(&str, &[&str]); 5] = [
        ("format", &["fmt", "--all", "--check"]),
        ("lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
        ("tidy", &["xtask", "tidy"]),
        ("build", &["build", "--workspace", "--quiet"]),
        ("tests", &["test", "--workspace", "--no-fail-fast"]),
    ];
    for (name, arguments) in steps {
        eprintln!("xtask ci: {name}: cargo {}", arguments.join(" "));
        let status = Command::new("cargo")
            .args(arguments)
            .current_dir(house::root()?)
            .status()
            .with_context(|| format!("cargo {} could not start", arguments.join(" ")))?;
        if !status.success() {
            bail!("{name} failed; repeat it with: cargo {}", arguments.join(" "));
        }
    }
    Ok(())
}
