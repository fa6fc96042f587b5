//! What measurements are made with: clouds, databases and peers on this machine, calls through them,
//! and what their processes use. Everything that is started ends with the value that stands for it.

pub(crate) mod calls;
pub(crate) mod cloud;
pub(crate) mod database;
pub(crate) mod element;
pub(crate) mod interrupt;
pub(crate) mod kamailio;
pub(crate) mod page;
pub(crate) mod process;
pub(crate) mod search;
#[cfg(test)]
mod tests;
pub(crate) mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::house;
use process::Place;

/// Of calls at most this share may fail, or they count for nothing.
pub(crate) const FAILED_SHARE_MAX: f64 = 0.001;

const BUILD_TIME_MAX: Duration = Duration::from_secs(3_600);
const BENCH_TIME_MAX: Duration = Duration::from_secs(1_200);

/// The program under measurement, and a folder for what it leaves.
pub(crate) struct Rig {
    pub root: PathBuf,
    pub program: PathBuf,
    pub folder: PathBuf,
}

impl Rig {
    /// Installs what is missing and builds the program, unless it is given.
    pub(crate) fn new(program: Option<&Path>) -> Result<Self> {
        let root = house::root()?;
        // It may ask, and Ctrl-C is an answer: it is not started as the others are.
        let install = Command::new(root.join("scripts/install-tools")).arg("--bench").status()?;
        if !install.success() {
            bail!("scripts/install-tools --bench did not install what is missing");
        }
        interrupt::listen()?;
        let program = match program {
            Some(program) => program.canonicalize().context("the program to measure")?,
            None => build(&root)?,
        };
        let folder = std::env::temp_dir().join(format!("sipcloud-rig-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self { root, program, folder })
    }

    /// Standard output of one of the project's own benches.
    pub(crate) fn bench(
        &self,
        package: &str,
        name: &str,
        arguments: &[&str],
        place: &Place,
    ) -> Result<String> {
        let what = || format!("the bench {name} of {package}");
        let bench = ["bench", "--quiet", "-p", package, "--bench", name];
        // Built on all cores, whatever is run on.
        let mut build = Command::new("cargo");
        build.args(bench).arg("--no-run").current_dir(&self.root);
        process::run(&mut build, BUILD_TIME_MAX).with_context(what)?;
        let mut command = place.command("cargo");
        command.args(bench).arg("--").args(arguments).current_dir(&self.root);
        process::run(&mut command, BENCH_TIME_MAX).with_context(what)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn build(root: &Path) -> Result<PathBuf> {
    eprintln!("building the release binary");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--package", "sipcloud"]).current_dir(root);
    process::run(&mut cargo, BUILD_TIME_MAX).context("cargo build")?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/sipcloud"))
}

/// Which core an element has for itself, and which the rest of a measurement shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    pub element: usize,
    /// All cores below this one.
    pub others: usize,
}

impl Cores {
    /// The last core for the element.
    pub(crate) fn split() -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        if cores < 2 {
            bail!("an element needs a core for itself, and this machine has only one");
        }
        Ok(Self { element: cores - 1, others: cores - 1 })
    }

    pub(crate) fn element(self) -> Place {
        Place::Cores(self.element.to_string())
    }

    pub(crate) fn others(self) -> Place {
        Place::Cores(format!("0-{}", self.others - 1))
    }
}
