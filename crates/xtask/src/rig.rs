//! What measurements are made with: clouds, databases and peers on this machine, calls through them,
//! and what their processes use. Everything that is started ends with the value that stands for it.

pub(crate) mod calls;
pub(crate) mod cloud;
pub(crate) mod database;
pub(crate) mod element;
pub(crate) mod interrupt;
pub(crate) mod kamailio;
mod kamailio_settings;
mod page;
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
use database::Database;
use process::Place;

/// Of calls at most this share may fail, or they count for nothing.
pub(crate) const FAILED_SHARE_MAX: f64 = 0.001;

const BUILD_TIME_MAX: Duration = Duration::from_secs(3_600);
const BENCH_TIME_MAX: Duration = Duration::from_secs(1_200);

/// What all measurements take.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Leave the database out.
    #[arg(long)]
    pub no_cassandra: bool,
    /// Less of everything, and no database: a few minutes.
    #[arg(long)]
    pub quick: bool,
    /// This program in place of a release build of the repository.
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Put the tables into the documentation.
    #[arg(long)]
    pub write: bool,
}

impl Options {
    pub(crate) fn with_cassandra(&self) -> bool {
        !self.no_cassandra && !self.quick
    }
}

/// The program under measurement, and a folder for what it leaves.
pub(crate) struct Rig {
    pub root: PathBuf,
    pub program: PathBuf,
    pub folder: PathBuf,
    /// Whether what is found goes into the documentation.
    write: bool,
}

impl Rig {
    /// Installs what is missing and builds the program, unless it is given.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let root = house::root()?;
        // It may ask, and Ctrl-C is an answer: it is not started as the others are.
        let install = Command::new(root.join("scripts/install-tools")).arg("--bench").status()?;
        if !install.success() {
            bail!("scripts/install-tools --bench did not install what is missing");
        }
        interrupt::listen()?;
        let program = match &options.binary {
            Some(program) => program.canonicalize().context("the program to measure")?,
            None => build(&root)?,
        };
        let folder = std::env::temp_dir().join(format!("sipcloud-rig-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self { root, program, folder, write: options.write })
    }

    /// A node for all that want one, unless it is to be left out.
    pub(crate) fn database(&self, options: &Options, place: &Place) -> Result<Option<Database>> {
        let wanted = options.with_cassandra();
        wanted.then(|| Database::start(&self.root, &self.folder, place)).transpose()
    }

    /// Prints what was found and, if that is wanted, puts it between the marks of `command` in a
    /// page of the documentation.
    pub(crate) fn tell(&self, page: &str, command: &str, text: &str) -> Result<()> {
        println!("{text}");
        if self.write {
            page::write(&self.root.join("docs").join(page), command, text)?;
        }
        Ok(())
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
