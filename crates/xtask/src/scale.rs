//! `cargo xtask scale`: what grows with subscribers, with calls in flight, with connections and with the
//! fleet, and how much.

mod memory;
mod population;
mod table;

use std::path::PathBuf;

use anyhow::Result;

use crate::rig::calls::Callees;
use crate::rig::cloud::{Cloud, Plan as CloudPlan};
use crate::rig::database::Database;
use crate::rig::process::{Place, now};
use crate::rig::{Rig, page};
use population::{Costs, Loaded, Population};

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub subscribers: Vec<u32>,
    /// Calls per second, for so many seconds, in so many rounds.
    pub rate: u32,
    pub seconds: u32,
    pub rounds: u32,
    pub with_cassandra: bool,
    pub only: Option<Part>,
    pub binary: Option<PathBuf>,
    /// Put the tables into docs/scaling.md.
    pub write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Subscribers in SQLite and in Cassandra.
    Subscribers,
    /// Transactions and connections of real processes.
    Memory,
    /// The table of owners and its way to the balancers.
    Fleet,
}

impl Plan {
    /// A few minutes: 10³ and 10⁵ subscribers, no Cassandra.
    pub(crate) fn quick(self) -> Self {
        Self { subscribers: vec![1_000, 100_000], rounds: 2, with_cassandra: false, ..self }
    }
}

/// Measures and prints; with `write` the tables go into the documentation, each as soon as it is there.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let rig = Rig::new(plan.binary.as_deref())?;
    let wanted = |part| plan.only.is_none_or(|only| only == part);
    if wanted(Part::Fleet) {
        finish(&rig, plan, "scale fleet", &fleet(&rig)?)?;
    }
    if wanted(Part::Memory) {
        finish(&rig, plan, "scale memory", &memory::measure(&rig)?)?;
    }
    if wanted(Part::Subscribers) {
        finish(&rig, plan, "scale subscribers", &subscribers(&rig, plan)?)?;
    }
    Ok(())
}

fn finish(rig: &Rig, plan: &Plan, marks: &str, text: &str) -> Result<()> {
    println!("{text}");
    if plan.write {
        page::write(&rig.root.join("docs/scaling.md"), marks, text)?;
    }
    Ok(())
}

/// The benches of the table and of its way print tables of their own.
fn fleet(rig: &Rig) -> Result<String> {
    let table = rig.bench("sip-core", "selection", &[], &Place::Anywhere)?;
    let way = rig.bench("lsm", "publish", &[], &Place::Anywhere)?;
    Ok(format!("{table}\n{way}"))
}

/// Everything of one store with so many subscribers.
struct Line {
    store: &'static str,
    count: u32,
    loaded: Loaded,
    calls: Vec<Costs>,
    registrations: Vec<Costs>,
}

/// A cloud for each store and number, all loaded first, then under load in turns: what else happens
/// on the machine, and how warm a Java machine is, falls on all alike.
fn subscribers(rig: &Rig, plan: &Plan) -> Result<String> {
    let database = plan
        .with_cassandra
        .then(|| Database::start(&rig.root, &rig.folder, &Place::Anywhere))
        .transpose()?;
    let stores = if plan.with_cassandra { &["SQLite", "Cassandra"][..] } else { &["SQLite"] };
    let (mut clouds, mut lines) = (Vec::new(), Vec::new());
    for store in stores {
        for count in &plan.subscribers {
            let keys = match *store {
                "SQLite" => "kind = \"sqlite\"\n".to_owned(),
                _ => Database::store_keys(&format!("scale_{count}")),
            };
            let name = format!("{store}, {count} subscribers");
            let cloud = Cloud::start(rig, &CloudPlan::new(&name, clouds.len(), &keys, 1))?;
            let population = Population::new(*count);
            let loaded = population.load(rig, &cloud)?;
            eprintln!("scale: {name}: {loaded}");
            clouds.push((cloud, population));
            let (calls, registrations) = (Vec::new(), Vec::new());
            lines.push(Line { store, count: *count, loaded, calls, registrations });
        }
    }
    let _callees = Callees::start(&rig.program, &Place::Anywhere, &[])?;
    let database = database.as_ref().map_or_else(Vec::new, Database::processes);
    let begun = now();
    for round in 0..=plan.rounds {
        for ((cloud, population), line) in clouds.iter().zip(&mut lines) {
            let calls = population.call(rig, cloud, &database, plan, round)?;
            let registrations = population.register(rig, cloud, &database, round)?;
            // The first round warms up.
            if round > 0 {
                eprintln!("scale: {}, {}: {calls}; {registrations}", line.store, line.count);
                line.calls.push(calls);
                line.registrations.push(registrations);
            }
        }
        let left = begun.elapsed() / (round + 1) * (plan.rounds - round);
        eprintln!("scale: round {round} of {} done, {} s left", plan.rounds, left.as_secs());
    }
    Ok(table::subscribers(&lines, plan))
}
