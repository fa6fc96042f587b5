//! `cargo xtask capacity`: what each part carries on a core of its own, beside Kamailio's (the paper's
//! §4.1, which gives one figure for each of its parts).

mod table;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::rig::calls::{CALLEE_ADDRESS, Callees, Order};
use crate::rig::cloud::{Cloud, Plan as CloudPlan};
use crate::rig::database::Database;
use crate::rig::element::{self, Element, Round};
use crate::rig::kamailio::Kamailio;
use crate::rig::search::{self, Trial};
use crate::rig::{Cores, Options, Rig};

/// Calls per second that every proxy is asked first.
const FIRST_CPS: f64 = 250.0;
/// Of calls so many may begin late; beyond it the callers are what is too slow.
const LATE_SHARE_MAX: f64 = 0.01;
/// Callers give a call up after 64 times this: 3.2 s.
const T1_MS: u32 = 50;

/// Between a rate that is carried and one that is not, at most: a share of the latter.
const PRECISION: f64 = 0.1;
const PRECISION_QUICK: f64 = 0.2;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Seconds of calls per rate that is tried.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    #[command(flatten)]
    options: Options,
}

/// One part and what it carried.
#[derive(Clone, Debug, PartialEq)]
struct Figure {
    part: String,
    /// What is counted, per second.
    unit: &'static str,
    carried: f64,
    /// Share of its core that it used then.
    busy: f64,
    /// What gave out first.
    limit: String,
}

/// Measures and prints; with `--write` the table goes into the documentation as well.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let rig = Rig::new(&plan.options)?;
    let cores = Cores::split()?;
    let mut figures = balancers(&rig, cores)?;
    let database = rig.database(&plan.options, &cores.others())?;
    figures.extend(proxies(&rig, plan, cores)?);
    if let Some(database) = &database {
        database.pin(&cores.element())?;
        figures.push(cassandra(&rig, cores)?);
    }
    rig.tell("performance.md", "capacity", &table::of(&figures, plan.seconds))
}

/// The balancer's own bench replays INVITEs; here its figures are only read.
fn balancers(rig: &Rig, cores: Cores) -> Result<Vec<Figure>> {
    eprintln!("capacity: INVITEs through balancers");
    let core = cores.element.to_string();
    let arguments = ["--capacity", "--json", "--core", &core];
    let lines = rig.bench("load-balancer", "forward", &arguments, &cores.others())?;
    lines.lines().filter(|line| line.starts_with('{')).map(balancer).collect()
}

fn balancer(line: &str) -> Result<Figure> {
    let figure: Value = serde_json::from_str(line)?;
    let text = |name: &str| figure[name].as_str().with_context(|| format!("no {name}"));
    let number = |name: &str| figure[name].as_f64().with_context(|| format!("no {name}"));
    let part = match text("element")? {
        "balancer" => "SipCloud balancer",
        "kamailio" => "Kamailio dispatcher",
        _ => "bare forwarder",
    };
    let limit = match text("limit")? {
        "replay" => "the replay",
        _ => "itself",
    };
    let (carried, busy) = (number("invites_per_s")?, number("busy")?);
    Ok(Figure { part: part.to_owned(), unit: "INVITEs", carried, busy, limit: limit.to_owned() })
}

/// One after the other, each alone on its core.
fn proxies(rig: &Rig, plan: &Plan, cores: Cores) -> Result<Vec<Figure>> {
    let _callees = Callees::start(&rig.program, &cores.others(), &[])?;
    let mut figures = Vec::new();
    let kamailio = Kamailio::start(&rig.folder, 1, &cores.element())?;
    figures.push(proxy(rig, plan, cores, &kamailio)?);
    drop(kamailio);
    let mut stores = vec![("SipCloud, memory", "kind = \"memory\"\n".to_owned())];
    if plan.options.with_cassandra() {
        stores.push(("SipCloud, Cassandra", Database::store_keys("capacity")));
    }
    for (number, (name, store)) in stores.into_iter().enumerate() {
        let cloud = CloudPlan {
            proxy: cores.element(),
            others: cores.others(),
            ..CloudPlan::new(name, number, &store, 1)
        };
        let cloud = Cloud::start(rig, &cloud)?;
        cloud.add_users()?;
        figures.push(proxy(rig, plan, cores, &cloud)?);
    }
    Ok(figures)
}

/// Calls at one rate.
struct Calls {
    rate: f64,
    round: Round,
}

impl Calls {
    fn are_late(&self) -> bool {
        self.round.report.late as f64 > self.round.report.calls as f64 * LATE_SHARE_MAX
    }
}

impl Trial for Calls {
    fn rate(&self) -> f64 {
        self.rate
    }

    fn is_carried(&self) -> bool {
        self.round.report.counts() && !self.are_late()
    }
}

fn proxy(rig: &Rig, plan: &Plan, cores: Cores, element: &dyn Element) -> Result<Figure> {
    element.register(CALLEE_ADDRESS.parse()?)?;
    let precision = if plan.options.quick { PRECISION_QUICK } else { PRECISION };
    let (best, failed) = search::highest(FIRST_CPS, precision, |rate| {
        let order = Order {
            t1_ms: T1_MS,
            place: cores.others(),
            ..Order::new(element.targets(), rate as u32, plan.seconds)
        };
        let calls = Calls { rate, round: element::measure(rig, element, &[], &order)? };
        let busy = calls.round.busy * 100.0;
        eprintln!(
            "capacity: {}: {rate:.0} cps: {}, {} late, {busy:.0} % of the core",
            element.name(),
            calls.round,
            calls.round.report.late
        );
        anyhow::Ok(calls)
    })?;
    let (carried, busy) = best.map_or((0.0, 0.0), |best| (best.rate, best.round.busy));
    let limit = if failed.are_late() { "the callers" } else { "calls failed" };
    let part = format!("{} proxy", element.name());
    Ok(Figure { part, unit: "Figure-4 calls", carried, busy, limit: limit.to_owned() })
}

/// The drivers' own bench asks; the node has the core for itself.
fn cassandra(rig: &Rig, cores: Cores) -> Result<Figure> {
    eprintln!("capacity: authentication queries to one Cassandra node");
    let contact = Database::contact_point();
    let arguments = ["--capacity", "--json", "--contact-point", &contact];
    let lines = rig.bench("store-drivers", "cassandra", &arguments, &cores.others())?;
    let line = lines.lines().rev().find(|line| line.starts_with('{'));
    let figure: Value = serde_json::from_str(line.context("the bench says nothing")?)?;
    let number = |name: &str| figure[name].as_f64().with_context(|| format!("no {name}"));
    let driver = number("driver_cores")?;
    let limit = if driver > 0.9 { "the driver" } else { "itself" };
    Ok(Figure {
        part: "Cassandra node".to_owned(),
        unit: "authentication queries",
        carried: number("per_s")?,
        busy: number("node_cores")?,
        limit: limit.to_owned(),
    })
}
