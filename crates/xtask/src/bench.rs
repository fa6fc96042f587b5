//! `cargo xtask bench`: what our elements cost beside those that people use today, on the same work, in
//! turns, in one run. A figure here is CPU time of a process tree; the ratio is what counts.

mod cloud;
mod element;
mod kamailio;
mod load;
mod process;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::house;
use cloud::{Cloud, StoreChoice};
use element::{Element, Round};
use kamailio::Kamailio;
use load::Callees;

/// Of calls at most this share may fail on either side, or no ratio is printed.
const FAILED_SHARE_MAX: f64 = 0.001;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub rates: Vec<u32>,
    pub rounds: u32,
    pub seconds: u32,
    pub workers: Vec<u16>,
    pub with_cassandra: bool,
    pub only: Option<Part>,
    /// Put the tables into docs/performance.md.
    pub write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    Balancer,
    Proxy,
}

impl Plan {
    /// A few minutes: one rate, two rounds, the balancer with fewer messages, no Cassandra.
    pub(crate) fn quick(self) -> Self {
        Self {
            rates: vec![200],
            rounds: 2,
            seconds: 8,
            workers: vec![1],
            with_cassandra: false,
            ..self
        }
    }

    fn messages(&self) -> u32 {
        self.rounds * 120_000
    }
}

/// Measures and prints; with `write` the tables go into the documentation as well.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let root = house::root()?;
    let program = build(&root)?;
    let mut text = String::new();
    if plan.only != Some(Part::Proxy) {
        text += &balancers(&root, plan)?;
    }
    if plan.only != Some(Part::Balancer) {
        for workers in &plan.workers {
            text += &proxies(&root, &program, plan, *workers)?;
        }
    }
    println!("{text}");
    if plan.write {
        table::write_into(&root.join("docs/performance.md"), &text)?;
    }
    Ok(())
}

fn build(root: &Path) -> Result<PathBuf> {
    let install = Command::new(root.join("scripts/install-tools")).arg("--bench").status()?;
    if !install.success() {
        bail!("scripts/install-tools --bench did not install what is missing");
    }
    cargo(root, &["build", "--release", "--quiet", "--package", "sipcloud"])?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/sipcloud"))
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("cargo")
        .args(arguments)
        .current_dir(root)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo could not start")?;
    if !output.status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The balancer's own benchmark knows the messages; here only its table is made.
fn balancers(root: &Path, plan: &Plan) -> Result<String> {
    let messages = plan.messages().to_string();
    let bench = ["bench", "--quiet", "-p", "load-balancer", "--bench", "forward", "--"];
    let arguments: Vec<&str> = bench.into_iter().chain([messages.as_str(), "--json"]).collect();
    let lines = cargo(root, &arguments)?;
    table::balancers(&lines)
}

/// Our proxy over each store, and Kamailio, all running, one under load at a time.
fn proxies(root: &Path, program: &Path, plan: &Plan, workers: u16) -> Result<String> {
    let folder = std::env::temp_dir().join(format!("sipcloud-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let outcome = measure_proxies(root, program, plan, workers, &folder);
    fs::remove_dir_all(&folder).ok();
    outcome
}

fn measure_proxies(
    root: &Path,
    program: &Path,
    plan: &Plan,
    workers: u16,
    folder: &Path,
) -> Result<String> {
    let callees = Callees::start(program)?;
    let mut choices = vec![StoreChoice::Memory, StoreChoice::Sqlite];
    if plan.with_cassandra {
        choices.extend([StoreChoice::Cassandra, StoreChoice::CassandraCached]);
    }
    let database = plan.with_cassandra.then(|| cloud::Database::start(root, folder)).transpose()?;
    let mut elements: Vec<Box<dyn Element>> = vec![Box::new(Kamailio::start(folder, workers)?)];
    for (number, choice) in choices.into_iter().enumerate() {
        elements.push(Box::new(Cloud::start(program, folder, choice, workers, number)?));
    }
    callees.register(elements.iter().map(AsRef::as_ref))?;
    let mut rounds: Vec<Vec<Vec<Round>>> = Vec::new();
    for rate in &plan.rates {
        let mut at_rate = vec![Vec::new(); elements.len()];
        for round in 0..=plan.rounds {
            for (element, done) in elements.iter().zip(&mut at_rate) {
                let figures = element::measure(program, element.as_ref(), *rate, plan.seconds)?;
                // The first round warms up: caches, tables, a Java machine.
                if round > 0 {
                    eprintln!(
                        "bench: {rate} cps, {workers} workers, round {round}: {}: {figures}",
                        element.name()
                    );
                    done.push(figures);
                }
            }
        }
        rounds.push(at_rate);
    }
    let names: Vec<String> = elements.iter().map(|element| element.name().to_owned()).collect();
    let text = table::proxies(&names, &plan.rates, &rounds, workers);
    drop(elements);
    drop(database);
    Ok(text)
}
