//! A run that nobody played: the paper's plan, with parts that behave by simple rules.

use super::*;

const EACH: f64 = 200.0;
const SCALE: f64 = 10.0;
/// The drain of a leaving proxy, seconds of the wall.
const DRAIN_S: f64 = 4.0;

/// The paper's experiment at ten times its speed, with thresholds kept to the letter, boots of 15 s
/// of the wall, CPU that is linear in the load, and shares that are even.
pub(crate) fn run_of_a_test() -> Run {
    let mut run = Run {
        time_scale: SCALE,
        sample_interval_s: 1.0,
        policy: Policy { capacity_each: EACH, threshold: Some(0.85) },
        caption: "store sqlite, policy paper, played 10 times faster".to_owned(),
        plan: (0..675)
            .flat_map(|second| [second, second + 1].map(|at| (f64::from(at), f64::from(second))))
            .map(|(at, second)| (at, planned_cps(second + 0.5)))
            .collect(),
        setting: vec![("store".to_owned(), "sqlite".to_owned())],
        samples: Vec::new(),
        moments: Vec::new(),
        decisions: Vec::new(),
        failures: Vec::new(),
        calls: Calls::default(),
        is_cut_short: false,
    };
    let (mut in_service, mut wanted, mut ready_at, mut left_at) = (1, 1, 0.0, f64::NEG_INFINITY);
    let mut calls = Calls::default();
    for second in 1..=675_u32 {
        let at_s = f64::from(second);
        let cps = planned_cps(at_s);
        calls.made += cps as u64;
        calls.succeeded = calls.made;
        let threshold = |proxies: u32| 0.85 * EACH * f64::from(proxies);
        let change = |before: u32, desired: u32| Decision {
            at_s,
            before,
            desired,
            load_cps: cps,
            reason: format!("beyond {} cps for 5 polls", threshold(before.min(desired))),
        };
        if wanted == in_service && wanted < 4 && cps > threshold(wanted) {
            run.decisions.push(change(wanted, wanted + 1));
            (wanted, ready_at) = (wanted + 1, at_s + 15.0);
        } else if wanted == in_service && wanted > 1 && cps < threshold(wanted - 1) {
            run.decisions.push(change(wanted, wanted - 1));
            (wanted, in_service, left_at) = (wanted - 1, wanted - 1, at_s);
        }
        if wanted > in_service && at_s >= ready_at {
            in_service = wanted;
        }
        run.moments.push(Moment { at_s, wanted_cps: cps, in_service, calls });
        let draining = at_s < left_at + DRAIN_S;
        add_samples(&mut run, at_s, cps, in_service, draining);
    }
    run.calls = calls;
    run
}

fn planned_cps(at_s: f64) -> f64 {
    let step = (at_s * SCALE / 90.0).floor();
    if step < 63.0 { 140.0 + 10.0 * step } else { (760.0 - 60.0 * (step - 62.0)).max(0.0) }
}

fn add_samples(run: &mut Run, at_s: f64, cps: f64, in_service: u32, draining: bool) {
    let sample = |part, instance: String, cps: f64, us_per_call: f64| Sample {
        at_s,
        part,
        instance,
        state: "in service".to_owned(),
        cpu_percent: Some(1.0 + cps * us_per_call / 10_000.0),
        received_bytes_per_s: Some(cps * 3_100.0),
        sent_bytes_per_s: Some(cps * 3_400.0),
        calls_per_s: cps,
        transactions: (cps * 7.0) as u64,
        generation: "1.1".to_owned(),
        store_queries_per_s: cps * 3.0,
    };
    run.samples.push(sample(Part::Balancer, "balancer-1".to_owned(), cps, 130.0));
    run.samples.push(sample(Part::Store, "cassandra-1".to_owned(), cps, 500.0));
    for number in 1..=in_service {
        let share = cps / f64::from(in_service);
        run.samples.push(sample(Part::Proxy, format!("proxy-{number}"), share, 300.0));
    }
    if draining {
        let mut leaving = sample(Part::Proxy, format!("proxy-{}", in_service + 1), 0.0, 0.0);
        leaving.state = "draining".to_owned();
        run.samples.push(leaving);
    }
}
