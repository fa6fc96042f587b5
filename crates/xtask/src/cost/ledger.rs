//! The costs that are agreed on, in a file of the repository, and how far a build may be from them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

const HEAD: &str = "\
# What one message costs a balancer, and one call of the paper's Figure 4 (to a registered callee, in
# bursts of 32) or one registration a proxy: counts, from `crates/xtask/benches/cost`, built with
# `profile.cost`. `cargo xtask cost` compares and `cargo xtask cost --write` writes. Instructions are
# those of the element's own code and its libraries, not the kernel's; system calls are with those
# that read the clock, which are none outside valgrind; copied bytes are those of memcpy and its like.

";

/// What one unit costs: a message at a balancer, a call or a registration at a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cost {
    pub(super) allocations: f64,
    pub(super) allocated_bytes: f64,
    pub(super) copied_bytes: f64,
    pub(super) system_calls: f64,
    pub(super) instructions: f64,
}

/// One of them, what it may be off by in per cent, and whether it depends on compiler and machine.
struct Aspect {
    name: &'static str,
    tolerance: f64,
    follows_compiler: bool,
    of: fn(&Cost) -> f64,
}

/// Tables with a secret of their own per run make the last few per mille of a proxy's counts.
const ASPECTS: [Aspect; 5] = [
    Aspect {
        name: "allocations",
        tolerance: 0.5,
        follows_compiler: false,
        of: |cost| cost.allocations,
    },
    Aspect {
        name: "allocated bytes",
        tolerance: 1.0,
        follows_compiler: false,
        of: |cost| cost.allocated_bytes,
    },
    Aspect {
        name: "copied bytes",
        tolerance: 1.0,
        follows_compiler: true,
        of: |cost| cost.copied_bytes,
    },
    Aspect {
        name: "system calls",
        tolerance: 1.0,
        follows_compiler: false,
        of: |cost| cost.system_calls,
    },
    Aspect {
        name: "instructions",
        tolerance: 2.0,
        follows_compiler: true,
        of: |cost| cost.instructions,
    },
];

impl Cost {
    /// As precise as is meant.
    pub(super) fn rounded(self) -> Self {
        let to = |value: f64, steps: f64| (value * steps).round() / steps;
        Self {
            allocations: to(self.allocations, 100.0),
            allocated_bytes: to(self.allocated_bytes, 1.0),
            copied_bytes: to(self.copied_bytes, 1.0),
            system_calls: to(self.system_calls, 1_000.0),
            instructions: to(self.instructions, 1.0),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aspects = ASPECTS.iter().map(|it| format!("{} {}", (it.of)(self), it.name));
        f.write_str(&aspects.collect::<Vec<_>>().join(", "))
    }
}

/// What instructions depend on besides the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Builder {
    rust: String,
    target: String,
}

impl Builder {
    pub(super) fn present() -> Result<Self> {
        let output = Command::new("rustc").arg("--version").output().context("rustc is missing")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let rust = text.split(' ').nth(1).context("rustc says no version")?.to_owned();
        Ok(Self { rust, target: std::env::consts::ARCH.to_owned() })
    }
}

/// Costs by element and scene.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    builder: Builder,
    cost: BTreeMap<String, BTreeMap<String, Cost>>,
}

/// What a comparison has found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) complaints: Vec<String>,
    pub(super) skipped: Vec<String>,
}

impl Ledger {
    pub(super) fn new(builder: Builder) -> Self {
        Self { builder, cost: BTreeMap::new() }
    }

    pub(super) fn note(&mut self, element: &str, scene: &str, cost: Cost) {
        self.cost.entry(element.to_owned()).or_default().insert(scene.to_owned(), cost);
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{}", path.display()))
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, HEAD.to_owned() + &toml::to_string(self)?)?)
    }

    /// Whether `found` costs what is agreed here. What costs less is a complaint as well, or the gain
    /// could be lost again unseen.
    pub(super) fn compare(&self, found: &Self) -> Verdict {
        let mut verdict = Verdict::default();
        let is_same_builder = self.builder == found.builder;
        if !is_same_builder {
            verdict.skipped.push(format!(
                "instructions and copied bytes are agreed on for rust {} on {}, and this is {} on {}",
                self.builder.rust, self.builder.target, found.builder.rust, found.builder.target
            ));
        }
        for (element, scenes) in &found.cost {
            for (scene, cost) in scenes {
                let agreed = self.cost.get(element).and_then(|scenes| scenes.get(scene));
                let Some(agreed) = agreed else {
                    verdict.complaints.push(format!("{element} {scene}: nothing is agreed on"));
                    continue;
                };
                for aspect in ASPECTS.iter().filter(|it| is_same_builder || !it.follows_compiler) {
                    let (agreed, cost) = ((aspect.of)(agreed), (aspect.of)(cost));
                    let Aspect { name, tolerance, .. } = aspect;
                    if (cost - agreed).abs() > agreed * tolerance / 100.0 {
                        verdict.complaints.push(format!(
                            "{element} {scene} costs {cost} {name}, the file says {agreed}, \
                             tolerance {tolerance} %"
                        ));
                    }
                }
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(rust: &str, allocations: f64, instructions: f64) -> Ledger {
        let builder = Builder { rust: rust.to_owned(), target: "x86_64".to_owned() };
        let mut ledger = Ledger::new(builder);
        let cost = Cost {
            allocations,
            allocated_bytes: 0.0,
            copied_bytes: 600.0,
            system_calls: 0.063,
            instructions,
        };
        ledger.note("balancer", "call", cost);
        ledger
    }

    /// Goal: drift in both directions is seen, noise is not, and nothing may be allocated where nothing
    /// is agreed on.
    #[test]
    fn drift_beyond_the_tolerance_is_a_complaint_with_its_figures() {
        let agreed = ledger("1.95.0", 0.0, 2_000.0);
        assert!(agreed.compare(&ledger("1.95.0", 0.0, 2_039.0)).complaints.is_empty());
        for dearer_or_cheaper in [2_041.0, 1_959.0] {
            let found = agreed.compare(&ledger("1.95.0", 0.0, dearer_or_cheaper)).complaints;
            let wanted = format!(
                "balancer call costs {dearer_or_cheaper} instructions, the file says 2000, \
                 tolerance 2 %"
            );
            assert_eq!(found, [wanted]);
        }
        let found = agreed.compare(&ledger("1.95.0", 0.01, 2_000.0)).complaints;
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn another_compiler_is_said_aloud_and_does_not_excuse_allocations() {
        let agreed = ledger("1.95.0", 0.0, 2_000.0);
        let verdict = agreed.compare(&ledger("1.96.0", 1.0, 9_000.0));
        assert_eq!((verdict.skipped.len(), verdict.complaints.len()), (1, 1), "{verdict:?}");
    }

    #[test]
    fn what_is_not_in_the_file_is_a_complaint() {
        let mut found = ledger("1.95.0", 0.0, 2_000.0);
        let agreed = found.clone();
        found.note("proxy", "call", found.cost["balancer"]["call"]);
        assert_eq!(agreed.compare(&found).complaints.len(), 1);
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let written = ledger("1.95.0", 0.5, 2_000.0);
        let text = HEAD.to_owned() + &toml::to_string(&written).expect("a table");
        assert_eq!(toml::from_str::<Ledger>(&text).expect("read again"), written);
    }
}
