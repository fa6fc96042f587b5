//! Subscribers of one cloud: loaded from files as an operator would, calling and registering through
//! the balancer in an order that no cache likes.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Plan;
use crate::rig::calls::{self, CALLEE_ADDRESS, Callees, DOMAIN, Order, PASSWORD};
use crate::rig::cloud::Cloud;
use crate::rig::process::{self, Place, now};
use crate::rig::{Rig, usage};

/// A million must be loaded within this.
const LOAD_TIME_MAX: Duration = Duration::from_secs(900);
/// REGISTERs per round, and how many of them the load client starts per second.
const REGISTRATIONS: u32 = 400;
const REGISTRATIONS_PER_S: u32 = 200;
/// The registering phones; not where the callees are.
const PHONES: &str = "127.63.32.1:5060";

pub(super) struct Population {
    count: u32,
}

/// How long loading took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Loaded {
    pub users_s: f64,
    pub registrations_s: f64,
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users_s, registrations_s } = self;
        write!(f, "users loaded in {users_s:.1} s, registrations in {registrations_s:.1} s")
    }
}

/// What so many calls, or registrations, cost: CPU each, microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Costs {
    pub number: u64,
    pub failed: u64,
    pub balancer_us: f64,
    pub proxy_us: f64,
    pub database_us: f64,
    /// To the 200 of a call: p50 and p99.
    pub answer_ms: [f64; 2],
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, failed, balancer_us, proxy_us, database_us, .. } = self;
        write!(
            f,
            "{number}, {failed} failed, {balancer_us:.0} + {proxy_us:.0} + {database_us:.0} µs"
        )
    }
}

/// CPU of balancer, proxy and database so far.
struct Meter {
    groups: [Vec<u32>; 3],
    before: [u64; 3],
}

impl Meter {
    fn start(cloud: &Cloud, database: &[u32]) -> Result<Self> {
        let one = |name: &str| cloud.pid_of(name).with_context(|| format!("{name} has gone"));
        let groups = [vec![one("balancer-1")?], vec![one("proxy-1")?], database.to_vec()];
        let before = groups.each_ref().map(|group| usage::cpu_ns(group));
        Ok(Self { groups, before })
    }

    fn each_us(&self, number: u64) -> [f64; 3] {
        let mut before = self.before.iter();
        self.groups.each_ref().map(|group| {
            let used = usage::cpu_ns(group).saturating_sub(*before.next().unwrap_or(&0));
            used as f64 / 1_000.0 / number.max(1) as f64
        })
    }
}

impl Population {
    pub(super) fn new(count: u32) -> Self {
        Self { count }
    }

    /// Users and registrations, from files.
    pub(super) fn load(&self, rig: &Rig, cloud: &Cloud) -> Result<Loaded> {
        let (users, contacts) = (rig.folder.join("users.csv"), rig.folder.join("contacts.csv"));
        let mut user_lines = BufWriter::new(File::create(&users)?);
        let mut contact_lines = BufWriter::new(File::create(&contacts)?);
        for number in 1..=self.count {
            let user = name(number);
            writeln!(user_lines, "{user}@{DOMAIN},{PASSWORD}")?;
            writeln!(contact_lines, "{user}@{DOMAIN},sip:{user}@{CALLEE_ADDRESS}")?;
        }
        user_lines.flush()?;
        contact_lines.flush()?;
        let import = |arguments: &[&str], file: &std::path::Path| -> Result<f64> {
            let begun = now();
            let mut command = cloud.command(arguments);
            process::run(command.arg(file), LOAD_TIME_MAX)?;
            Ok(begun.elapsed().as_secs_f64())
        };
        let users_s = import(&["user", "import"], &users)?;
        let registrations_s = import(&["registration", "import", "--direct"], &contacts)?;
        Ok(Loaded { users_s, registrations_s })
    }

    /// Calls among those with even numbers, through the balancer.
    pub(super) fn call(
        &self,
        rig: &Rig,
        cloud: &Cloud,
        database: &[u32],
        plan: &Plan,
        round: u32,
    ) -> Result<Costs> {
        let wanted = (plan.rate * plan.seconds).min(self.count / 2);
        let first = round * wanted * 2;
        let user = |place| name(2 * scattered(place, self.count / 2) + 2);
        let order = Order {
            callers: (first..first + wanted).map(user).collect(),
            // One further than the callers: nobody calls itself.
            callees: (first + wanted + 1..=first + wanted * 2).map(user).collect(),
            ..Order::new(&[cloud.balancer()?], plan.rate, plan.seconds)
        };
        let meter = Meter::start(cloud, database)?;
        let report = calls::make(&rig.program, &order)?;
        let [balancer_us, proxy_us, database_us] = meter.each_us(report.calls);
        let [p50, p99, _] = report.answer_ms;
        Ok(Costs {
            number: report.calls,
            failed: report.failed,
            balancer_us,
            proxy_us,
            database_us,
            answer_ms: [p50, p99],
        })
    }

    /// Registrations of some with odd numbers, through the balancer.
    pub(super) fn register(
        &self,
        rig: &Rig,
        cloud: &Cloud,
        database: &[u32],
        round: u32,
    ) -> Result<Costs> {
        let wanted = REGISTRATIONS.min(self.count / 2);
        let users = (round * wanted..(round + 1) * wanted).map(|place| {
            format!("--user={}:{PASSWORD}", name(2 * scattered(place, self.count / 2) + 1))
        });
        let mut arguments = vec![format!("--register={}", cloud.balancer()?)];
        arguments.extend(users);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let meter = Meter::start(cloud, database)?;
        let phones = Callees::start_at(PHONES, &rig.program, &Place::Anywhere, &arguments)?;
        // All have begun by then, and the last of them has an answer soon after.
        process::pause(Duration::from_secs((wanted / REGISTRATIONS_PER_S + 1).into()));
        let [balancer_us, proxy_us, database_us] = meter.each_us(wanted.into());
        let registered = phones.end()?["registered"].as_u64().context("phones count themselves")?;
        Ok(Costs {
            number: registered,
            failed: u64::from(wanted).saturating_sub(registered),
            balancer_us,
            proxy_us,
            database_us,
            answer_ms: [f64::NAN; 2],
        })
    }
}

fn name(number: u32) -> String {
    format!("user-{number}")
}

/// Places in an order that no cache likes, each once before any comes again (`count` being no multiple
/// of the step).
fn scattered(place: u32, count: u32) -> u32 {
    (u64::from(place) * 7_919 % u64::from(count.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_comes_once_before_anybody_comes_again() {
        for count in [500, 5_000, 50_000] {
            let places: BTreeSet<u32> = (0..count).map(|place| scattered(place, count)).collect();
            assert_eq!(places.len(), count as usize);
        }
    }
}
