//! `cargo xtask scale`: what grows with subscribers, with calls in flight, with connections and with the
//! fleet, and how much.

mod memory;
mod population;
mod table;

use anyhow::Result;

use crate::rig::calls::Callees;
use crate::rig::cloud::{Cloud, Plan as CloudPlan};
use crate::rig::database::Database;
use crate::rig::process::{Place, now};
use crate::rig::{Options, Rig};
use population::{Costs, Loaded, Population};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Numbers of subscribers, the fewest first.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    subscribers: Vec<u32>,
    /// Calls per second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Seconds of calls per round.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Rounds; one more warms up.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// One part alone.
    #[arg(long)]
    only: Option<Part>,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The table of owners and its way to the balancers.
    Fleet,
    /// Transactions and connections of real processes.
    Memory,
    /// Subscribers in SQLite and in Cassandra.
    Subscribers,
}

/// Measures and prints; with `--write` the tables go into the documentation, each as soon as it is
/// there.
pub(crate) fn run(plan: Plan) -> Result<()> {
    let subscribers = if plan.options.quick { vec![1_000, 100_000] } else { plan.subscribers };
    let plan = Plan { subscribers, ..plan };
    let rig = Rig::new(&plan.options)?;
    let is_wanted = |part| plan.only.is_none_or(|only| only == part);
    let tell = |marks: &str, text: &str| rig.tell("scaling.md", marks, text);
    if is_wanted(Part::Fleet) {
        tell("scale fleet", &fleet(&rig)?)?;
    }
    if is_wanted(Part::Memory) {
        tell("scale memory", &memory::measure(&rig)?)?;
    }
    if is_wanted(Part::Subscribers) {
        tell("scale subscribers", &subscribers_of(&rig, &plan)?)?;
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
fn subscribers_of(rig: &Rig, plan: &Plan) -> Result<String> {
    let database = rig.database(&plan.options, &Place::Anywhere)?;
    let stores = if database.is_some() { &["SQLite", "Cassandra"][..] } else { &["SQLite"] };
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
            // SQLite runs inside the proxy.
            let database = if line.store == "Cassandra" { database.as_slice() } else { &[] };
            let calls = population.call(rig, cloud, database, plan, round)?;
            let registrations = population.register(rig, cloud, database, round)?;
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
