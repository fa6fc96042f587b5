//! The answers to what the paper's §4.2 says of its own run.

use crate::evenness::{Busiest, Sharing, busiest, sharing};
use crate::record::{Decision, Moment, Part, Run, Sample};
use crate::statistics::{Line, fit};

/// How long after a proxy left the table its neighbours are watched, seconds of the experiment:
/// the paper's spikes last minutes.
const SPIKE_WINDOW_S: f64 = 120.0;

/// A decision of the manager, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub decision: Decision,
    /// The threshold that the load had passed, if the policy has one.
    pub threshold_cps: Option<f64>,
    /// From the plan's passing of the threshold to the decision, seconds of the experiment.
    pub waited_s: Option<f64>,
    /// From the decision to the first sample with that many proxies in service; `None` if it was
    /// taken back before.
    pub took_s: Option<f64>,
}

/// The number of proxies in service changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CapacityStep {
    pub at_s: f64,
    pub proxies: u32,
    pub capacity_cps: f64,
    pub wanted_cps: f64,
}

/// What its leaving did to the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Departure {
    pub instance: String,
    /// It was out of the table.
    pub at_s: f64,
    /// From then until it was gone, seconds of the experiment.
    pub drained_s: Option<f64>,
    /// Its neighbours meanwhile; `None` if fewer than two were left.
    pub others: Option<Busiest>,
}

/// CPU over load.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuLine {
    /// `balancer`, `each proxy`, `store`.
    pub what: &'static str,
    /// Percent of a core per call and second.
    pub slope: f64,
    pub intercept: f64,
    pub r_squared: f64,
    /// Minutes that it rests on.
    pub points: usize,
}

/// Everything that the report tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    pub changes: Vec<Change>,
    pub steps: Vec<CapacityStep>,
    pub sharing: Vec<Sharing>,
    pub departures: Vec<Departure>,
    pub cpu: Vec<CpuLine>,
    /// Seconds of the experiment in which the plan asked for more than the capacity in service.
    pub above_capacity_s: f64,
    /// Seconds of the experiment at whose end some proxy had, over the last 60 of them, more calls
    /// than it counts for; and the highest such mean, calls per second.
    pub proxy_above_s: f64,
    pub proxy_peak_cps: f64,
}

impl Findings {
    pub fn of(run: &Run) -> Self {
        let (proxy_above_s, proxy_peak_cps) = proxies_above(run);
        let change = |decision: &Decision| {
            let threshold_cps = threshold(run, decision);
            Change {
                decision: decision.clone(),
                threshold_cps,
                waited_s: threshold_cps.and_then(|cps| waited(run, decision, cps)),
                took_s: took(run, decision),
            }
        };
        Self {
            changes: run.decisions.iter().map(change).collect(),
            steps: steps(run),
            sharing: sharing(run),
            departures: departures(run),
            cpu: cpu_lines(run),
            above_capacity_s: above_capacity(run),
            proxy_above_s,
            proxy_peak_cps,
        }
    }

    /// The most proxies that were in service at once.
    pub fn proxies_max(&self) -> u32 {
        self.steps.iter().map(|step| step.proxies).max().unwrap_or(0)
    }
}

/// Between `n` and `n + 1` proxies lies the share of the capacity of `n`.
fn threshold(run: &Run, decision: &Decision) -> Option<f64> {
    let lower = decision.before.min(decision.desired);
    run.policy.threshold.map(|share| share * run.policy.capacity_each * f64::from(lower))
}

/// How long the plan had been beyond the threshold when the manager decided; `None` if it was not.
fn waited(run: &Run, decision: &Decision, threshold_cps: f64) -> Option<f64> {
    let is_beyond = |cps: f64| match decision.is_launch() {
        true => cps > threshold_cps,
        false => cps < threshold_cps,
    };
    let mut since = None;
    for pair in run.plan.windows(2).rev() {
        let [(begin, from), (end, to)] = *pair else { continue };
        if begin > decision.at_s {
            continue;
        }
        let share =
            if end > begin { ((decision.at_s - begin) / (end - begin)).min(1.0) } else { 1.0 };
        if !is_beyond(from + (to - from) * share) {
            break;
        }
        if !is_beyond(from) {
            let crossing = (threshold_cps - from) / (to - from);
            since = Some(begin + (end - begin) * crossing);
            break;
        }
        since = Some(begin);
    }
    since.map(|since| run.seconds(decision.at_s - since))
}

fn took(run: &Run, decision: &Decision) -> Option<f64> {
    let is_there = |in_service: u32| match decision.is_launch() {
        true => in_service >= decision.desired,
        false => in_service <= decision.desired,
    };
    let takes_back =
        |it: &&Decision| it.at_s > decision.at_s && it.is_launch() != decision.is_launch();
    let taken_back_s = run.decisions.iter().find(takes_back).map_or(f64::INFINITY, |it| it.at_s);
    let mut meanwhile =
        run.moments.iter().filter(|it| it.at_s > decision.at_s && it.at_s <= taken_back_s);
    let moment = meanwhile.find(|it| is_there(it.in_service))?;
    Some(run.seconds(moment.at_s - decision.at_s))
}

fn steps(run: &Run) -> Vec<CapacityStep> {
    let mut steps: Vec<CapacityStep> = Vec::new();
    for moment in &run.moments {
        if steps.last().is_none_or(|last| last.proxies != moment.in_service) {
            steps.push(CapacityStep {
                at_s: moment.at_s,
                proxies: moment.in_service,
                capacity_cps: f64::from(moment.in_service) * run.policy.capacity_each,
                wanted_cps: moment.wanted_cps,
            });
        }
    }
    steps
}

fn departures(run: &Run) -> Vec<Departure> {
    let mut departures = Vec::new();
    for (_, name, samples) in run.instances(&[Part::Proxy]) {
        for (number, pair) in samples.windows(2).enumerate() {
            let [before, after] = pair else { continue };
            if !before.is_in_service() || after.is_in_service() {
                continue;
            }
            let end = before.at_s + SPIKE_WINDOW_S / run.time_scale;
            let gone = samples[number + 1..].iter().take_while(|it| !it.is_in_service()).last();
            departures.push(Departure {
                instance: name.to_owned(),
                at_s: after.at_s,
                drained_s: gone.map(|last| run.seconds(last.at_s - before.at_s)),
                others: busiest(run, name, before.at_s, end.max(after.at_s)),
            });
        }
    }
    departures.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    departures
}

fn cpu_lines(run: &Run) -> Vec<CpuLine> {
    let whole = |moment_s: f64| -> Option<f64> {
        let of_proxies = run.samples.iter().filter(|it| it.part == Part::Proxy);
        let within: Vec<f64> = of_proxies
            .filter(|it| it.at_s > moment_s && it.at_s <= moment_s + run.minute_s())
            .map(|it| it.calls_per_s * run.sample_interval_s)
            .collect();
        (!within.is_empty()).then(|| within.iter().sum::<f64>() / run.minute_s())
    };
    let lines: [(&'static str, Part); 3] =
        [("balancer", Part::Balancer), ("each proxy", Part::Proxy), ("store", Part::Store)];
    let mut found = Vec::new();
    for (what, part) in lines {
        let mut points = Vec::new();
        for (_, _, samples) in run.instances(&[part]) {
            for (begin, calls, cpu) in minutes(run, &samples) {
                let load = if part == Part::Store { whole(begin) } else { Some(calls) };
                points.extend(load.map(|load| (load, cpu)));
            }
        }
        if let Some(Line { slope, intercept, r_squared }) = fit(&points) {
            found.push(CpuLine { what, slope, intercept, r_squared, points: points.len() });
        }
    }
    found
}

/// Whole minutes of one instance in service: begin, mean load, mean CPU.
fn minutes(run: &Run, samples: &[&Sample]) -> Vec<(f64, f64, f64)> {
    let minute_s = run.minute_s();
    let expected = (minute_s / run.sample_interval_s * 0.8) as usize;
    let mut found = Vec::new();
    let count = (run.duration_s() / minute_s).floor() as u32;
    for minute in 0..count {
        let begin = f64::from(minute) * minute_s;
        let within = samples.iter().filter(|it| it.at_s > begin && it.at_s <= begin + minute_s);
        let within: Vec<(f64, f64)> = within
            .filter(|it| it.is_in_service())
            .filter_map(|it| Some((it.calls_per_s, it.cpu_percent?)))
            .collect();
        if within.len() < expected.max(1) {
            continue;
        }
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| {
            within.iter().map(of).sum::<f64>() / within.len() as f64
        };
        found.push((begin, mean(&|it| it.0), mean(&|it| it.1)));
    }
    found
}

fn above_capacity(run: &Run) -> f64 {
    let each = run.policy.capacity_each;
    let is_above = |it: &&Moment| it.wanted_cps > f64::from(it.in_service) * each + 1e-9;
    let count = run.moments.iter().filter(is_above).count() as f64;
    run.seconds(count * run.sample_interval_s)
}

/// Rolling means of each proxy over 60 s of the experiment.
fn proxies_above(run: &Run) -> (f64, f64) {
    let window = run.minute_s();
    let mut above: Vec<f64> = Vec::new();
    let mut peak: f64 = 0.0;
    for (_, _, samples) in run.instances(&[Part::Proxy]) {
        for (number, last) in samples.iter().enumerate() {
            let begin = last.at_s - window + run.sample_interval_s / 2.0;
            let within = samples[..=number].iter().rev().take_while(|it| it.at_s >= begin);
            let calls: f64 = within.map(|it| it.calls_per_s * run.sample_interval_s).sum();
            let mean = calls / window;
            peak = peak.max(mean);
            if mean > run.policy.capacity_each {
                above.push(last.at_s);
            }
        }
    }
    above.sort_by(f64::total_cmp);
    above.dedup_by(|a, b| (*a - *b).abs() < run.sample_interval_s / 2.0);
    (run.seconds(above.len() as f64 * run.sample_interval_s), peak)
}
