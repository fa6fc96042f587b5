//! `cargo xtask bench`: what our elements cost beside those that people use today, on the same work, in
//! turns, in one run. A figure here is CPU time of a process tree; the ratio is what counts.

mod table;

use anyhow::Result;

use crate::rig::calls::{CALLEE_ADDRESS, Callees, Order};
use crate::rig::cloud::{Cloud, Plan as CloudPlan};
use crate::rig::database::Database;
use crate::rig::element::{self, Element, Nothing, Round};
use crate::rig::kamailio::Kamailio;
use crate::rig::process::{Place, now};
use crate::rig::{Cores, Options, Rig};

/// Messages that each forwarder takes per round and kind of burst.
const MESSAGES_PER_ROUND: u32 = 24_000;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Calls per second, in turn.
    #[arg(long, value_delimiter = ',', default_value = "100,200,300")]
    rates: Vec<u32>,
    /// Rounds per rate and element; one more warms up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of calls per round.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Workers of each proxy and threads of each balancer, in turn.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<u16>,
    /// One part alone.
    #[arg(long)]
    only: Option<Part>,
    /// Proxies with one worker on a core of their own, everything else on the others: as on machines of
    /// their own. In a table beside the other ones.
    #[arg(long, conflicts_with = "only")]
    own_core: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Balancer,
    Proxy,
}

impl Plan {
    /// Within five minutes.
    fn quick(self) -> Self {
        Self { rates: vec![200], rounds: 3, seconds: 5, workers: vec![1], ..self }
    }
}

/// Measures and prints; with `--write` the tables go into the documentation as well.
pub(crate) fn run(plan: Plan) -> Result<()> {
    let plan = if plan.options.quick { plan.quick() } else { plan };
    let rig = Rig::new(&plan.options)?;
    if plan.own_core {
        let cores = Cores::split()?;
        let text = proxies(&rig, &plan, 1, (&cores.element(), &cores.others()))?;
        return rig.tell("performance.md", "bench --own-core", &text);
    }
    let mut text = String::new();
    if plan.only != Some(Part::Proxy) {
        for workers in &plan.workers {
            text += &balancers(&rig, &plan, *workers)?;
        }
    }
    if plan.only != Some(Part::Balancer) {
        for workers in &plan.workers {
            text += &proxies(&rig, &plan, *workers, (&Place::Anywhere, &Place::Anywhere))?;
        }
    }
    rig.tell("performance.md", "bench", &text)
}

/// The balancer's own bench knows the messages; here only its table is made.
fn balancers(rig: &Rig, plan: &Plan, workers: u16) -> Result<String> {
    let (messages, rounds) = (MESSAGES_PER_ROUND.to_string(), plan.rounds.to_string());
    let threads = workers.to_string();
    let arguments = ["--messages", &messages, "--rounds", &rounds, "--threads", &threads, "--json"];
    let lines = rig.bench("load-balancer", "forward", &arguments, &Place::Anywhere)?;
    table::balancers(&lines, workers)
}

/// Our proxy over each store, and Kamailio, all running, one under load at a time; the elements at one
/// place and the rest at another.
fn proxies(
    rig: &Rig,
    plan: &Plan,
    workers: u16,
    (place, others): (&Place, &Place),
) -> Result<String> {
    let _callees = Callees::start(&rig.program, others, &[])?;
    let database = rig.database(&plan.options, others)?;
    let mut elements: Vec<Box<dyn Element>> =
        vec![Box::new(Kamailio::start(&rig.folder, workers, place)?), Box::new(Nothing::new()?)];
    for (number, (name, store)) in stores(plan.options.with_cassandra(), workers).iter().enumerate()
    {
        eprintln!("bench: starting {name}");
        let cloud = CloudPlan {
            proxy: place.clone(),
            others: others.clone(),
            ..CloudPlan::new(name, number, store, workers)
        };
        let cloud = Cloud::start(rig, &cloud)?;
        cloud.add_users()?;
        elements.push(Box::new(cloud));
    }
    for element in &elements {
        element.register(CALLEE_ADDRESS.parse()?)?;
    }
    let database = database.as_ref().map_or_else(Vec::new, Database::processes);
    let rounds = in_turns(rig, plan, (workers, others), &elements, &database)?;
    let names: Vec<&str> = elements.iter().map(|element| element.name()).collect();
    Ok(table::proxies(&names, &plan.rates, &rounds, workers))
}

/// Name and `[store]` of each of our clouds.
fn stores(with_cassandra: bool, workers: u16) -> Vec<(&'static str, String)> {
    let mut stores = vec![
        ("SipCloud, memory", "kind = \"memory\"\n".to_owned()),
        ("SipCloud, SQLite", "kind = \"sqlite\"\n".to_owned()),
    ];
    if with_cassandra {
        // One node serves clouds with one worker and with two.
        let keys = |name: &str| Database::store_keys(&format!("{name}_{workers}"));
        let cache = "credential_cache_lifetime_s = 60\n";
        stores.push(("SipCloud, Cassandra", keys("plain")));
        stores.push(("SipCloud, Cassandra, cache", keys("cached") + cache));
    }
    stores
}

/// `[rate][element]`: its rounds. One round before all others warms up caches, tables, a Java machine.
fn in_turns(
    rig: &Rig,
    plan: &Plan,
    (workers, callers): (u16, &Place),
    elements: &[Box<dyn Element>],
    database: &[u32],
) -> Result<Vec<Vec<Vec<Round>>>> {
    let turns = plan.rates.len() * plan.rounds as usize + 1;
    let (begun, mut turn) = (now(), 0);
    let mut rounds = Vec::new();
    for (place, rate) in plan.rates.iter().enumerate() {
        let mut at_rate = vec![Vec::new(); elements.len()];
        let first = u32::from(place > 0);
        for round in first..=plan.rounds {
            for (element, done) in elements.iter().zip(&mut at_rate) {
                let order = Order {
                    is_challenged: element.challenges(),
                    place: callers.clone(),
                    ..Order::new(element.targets(), *rate, plan.seconds)
                };
                let asked = if element.has_database() { database } else { &[] };
                let figures = element::measure(rig, element.as_ref(), asked, &order)?;
                if round > 0 {
                    eprintln!(
                        "bench: {rate} cps, {workers} workers, round {round}: {}: {figures}",
                        element.name()
                    );
                    done.push(figures);
                }
            }
            turn += 1;
            let left_s = begun.elapsed().as_secs() as usize * (turns - turn) / turn;
            eprintln!("bench: turn {turn} of {turns} done, {left_s} s left with {workers} workers");
        }
        rounds.push(at_rate);
    }
    Ok(rounds)
}
