//! What valgrind counts within the harness's `counted_turn`: instructions and system calls by function
//! (callgrind), and bytes that memcpy and its like have moved (DHAT).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The function of the harness that calls what is counted.
const COUNTED: &str = "counted_turn";

/// Instructions of every function, callees not included, and the system calls of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Profile {
    instructions: BTreeMap<String, f64>,
    system_calls: f64,
}

impl Profile {
    pub(super) fn instructions(&self) -> f64 {
        self.instructions.values().sum()
    }

    /// Those that read the clock are among them: under valgrind they are system calls, outside not.
    pub(super) fn system_calls(&self) -> f64 {
        self.system_calls
    }

    /// The share of one unit.
    pub(super) fn per(mut self, units: f64) -> Self {
        for own in self.instructions.values_mut() {
            *own /= units;
        }
        self.system_calls /= units;
        self
    }

    /// The dearest functions.
    pub(super) fn print(&self, lines: usize) {
        let mut dearest: Vec<_> = self.instructions.iter().collect();
        dearest.sort_by(|a, b| b.1.total_cmp(a.1));
        println!("{:>12}  function", "instructions");
        for (name, own) in dearest.into_iter().take(lines) {
            println!("{own:12.1}  {name}");
        }
    }

    /// Reads callgrind's format with full names: lines of costs belong to the last `fn=`, except for the
    /// one after `calls=`, which is what the callee has cost. Instructions are collected within the
    /// counted function alone; system calls everywhere, so those of its callers' lines are taken.
    fn read(text: &str) -> Result<Self> {
        let events = text.lines().find_map(|line| line.strip_prefix("events: "));
        let events: Vec<&str> = events.context("no events")?.split(' ').collect();
        let place = |name: &str| events.iter().position(|event| *event == name);
        let (instructions, system_calls) =
            (place("Ir").context("no instructions")?, place("sysCount").context("no calls")?);
        let mut profile = Self::default();
        let (mut function, mut callee) = ("", "");
        let mut is_callees = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = name;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = name;
            } else if line.starts_with("calls=") {
                is_callees = true;
            } else if line.starts_with(|c: char| c.is_ascii_digit()) {
                // A line number, then the costs; zeros at the end are left out.
                let costs: Vec<&str> = line.split(' ').skip(1).collect();
                let cost = |place: usize| -> f64 {
                    costs.get(place).and_then(|text| text.parse().ok()).unwrap_or_default()
                };
                if !std::mem::take(&mut is_callees) {
                    let own = profile.instructions.entry(function.to_owned()).or_default();
                    *own += cost(instructions);
                } else if callee.ends_with(COUNTED) {
                    profile.system_calls += cost(system_calls);
                }
            }
        }
        Ok(profile)
    }
}

/// What the harness does within its counted turns.
pub(super) fn profile(program: &Path, arguments: &[&str]) -> Result<Profile> {
    let toggle = format!("--toggle-collect=*{COUNTED}*");
    let options = [
        "--tool=callgrind",
        "--collect-systime=yes",
        "--compress-strings=no",
        "--compress-pos=no",
        toggle.as_str(),
    ];
    let text = run(program, arguments, &options, "callgrind-out-file")?;
    let profile = Profile::read(&text).context("callgrind's output")?;
    if profile.instructions() == 0.0 {
        bail!("callgrind has found no {COUNTED}");
    }
    Ok(profile)
}

/// Bytes that were copied within the counted turns.
pub(super) fn copied_bytes(program: &Path, arguments: &[&str]) -> Result<u64> {
    let options = ["--tool=dhat", "--mode=copy", "--num-callers=100"];
    let text = run(program, arguments, &options, "dhat-out-file")?;
    sum_of_copies(&serde_json::from_str(&text)?)
}

/// Every program point with a frame of the counted function.
fn sum_of_copies(out: &Value) -> Result<u64> {
    let frames = out["ftbl"].as_array().context("DHAT names no frames")?;
    let is_counted = |frame: &Value| {
        let place = frame.as_u64().and_then(|place| usize::try_from(place).ok());
        let text = place.and_then(|place| frames.get(place)).and_then(Value::as_str);
        text.is_some_and(|text| text.contains(COUNTED))
    };
    let points = out["pps"].as_array().context("DHAT names no program points")?;
    let counted = points
        .iter()
        .filter(|point| point["fs"].as_array().is_some_and(|frames| frames.iter().any(is_counted)));
    Ok(counted.filter_map(|point| point["tb"].as_u64()).sum())
}

/// What the tool has written into the file that `file_option` names.
fn run(program: &Path, arguments: &[&str], options: &[&str], file_option: &str) -> Result<String> {
    let file: PathBuf = std::env::temp_dir().join(format!("cost-{}", std::process::id()));
    let output = super::on_one_core("valgrind")
        .arg("--quiet")
        .args(options)
        .arg(format!("--{file_option}={}", file.display()))
        .arg(program)
        .args(arguments)
        .output()
        .context("valgrind could not start")?;
    let text = fs::read_to_string(&file);
    fs::remove_file(&file).ok();
    if !output.status.success() {
        bail!("{options:?} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(text?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn own_costs_are_told_from_those_of_callees() {
        let text = "events: Ir sysCount sysTime\n\nfl=a.rs\nfn=main\n9 10\ncfn=cost::counted_turn\n\
                    calls=3 20\n12 900 6 7\n13 1 5\nfn=cost::counted_turn\n20 400\ncfn=inner\n\
                    calls=3 20\n12 500 6 7\nfn=inner\n1 500 6\n";
        let profile = Profile::read(text).expect("readable");
        assert_eq!(profile.instructions(), 911.0);
        assert_eq!(profile.system_calls(), 6.0, "of the counted function alone");
    }

    #[test]
    fn copies_count_where_the_counted_function_called() {
        let out = json!({
            "ftbl": ["[root]", "0x1: memcpy", "0x2: cost::counted_turn (main.rs:1)", "0x3: main"],
            "pps": [{"tb": 600, "fs": [1, 2, 3]}, {"tb": 40, "fs": [1, 3]}, {"tb": 5, "fs": [2]}],
        });
        assert_eq!(sum_of_copies(&out).expect("readable"), 605);
    }
}
