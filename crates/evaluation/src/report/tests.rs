//! The answers are those that the run was made with.

use super::*;
use crate::record::{Decision, Part, run_of_a_test};

#[test]
fn launches_and_removals_are_told_with_load_threshold_and_time() {
    let findings = Findings::of(&run_of_a_test());
    let all: Vec<(u32, u32, Option<f64>)> = findings
        .changes
        .iter()
        .map(|it| (it.decision.before, it.decision.desired, it.threshold_cps))
        .collect();
    let up = [(1, 2, Some(170.0)), (2, 3, Some(340.0)), (3, 4, Some(510.0))];
    let down = [(4, 3, Some(510.0)), (3, 2, Some(340.0)), (2, 1, Some(170.0))];
    assert_eq!(all, [up, down].concat());
    for launch in &findings.changes[..3] {
        assert_eq!(launch.took_s, Some(150.0), "the boot of the run: {launch:?}");
        assert_eq!(launch.waited_s, Some(0.0), "decided when it stepped up: {launch:?}");
    }
}

/// Goal: the time beyond a threshold is exact, wherever the samples lie. Method: a plan that steps
/// and one that climbs, and decisions in between.
#[test]
fn the_wait_for_a_decision_is_counted_from_the_plan() {
    let mut run = run_of_a_test();
    let decision = |at_s: f64, before: u32, desired: u32| Decision {
        at_s,
        before,
        desired,
        load_cps: 0.0,
        reason: String::new(),
    };
    let waits = |run: &Run| -> Vec<Option<f64>> {
        Findings::of(run).changes.iter().map(|it| it.waited_s).collect()
    };
    run.time_scale = 2.0;
    // Beyond 170 from 10 s on, below it again from 30 s on; 180 is not above it for long.
    run.plan = vec![(0.0, 160.0), (10.0, 160.0), (10.0, 180.0), (30.0, 180.0), (30.0, 100.0)];
    run.plan.push((60.0, 100.0));
    run.decisions = vec![decision(10.25, 1, 2), decision(25.0, 1, 2), decision(31.5, 2, 1)];
    assert_eq!(waits(&run), [Some(0.5), Some(30.0), Some(3.0)]);
    run.decisions = vec![decision(5.0, 1, 2), decision(40.0, 1, 2)];
    assert_eq!(waits(&run), [None, None], "the plan was not beyond");
    run.plan = vec![(0.0, 100.0), (100.0, 200.0)];
    run.decisions = vec![decision(80.0, 1, 2)];
    assert_eq!(waits(&run), [Some(20.0)], "the climb passes 170 at 70 s");
}

#[test]
fn a_launch_that_is_taken_back_never_took_effect() {
    let mut run = run_of_a_test();
    let launch = run.decisions[0].clone();
    let at_s = launch.at_s + 1.0;
    run.decisions.insert(1, Decision { at_s, before: 2, desired: 1, ..launch });
    let took: Vec<bool> =
        Findings::of(&run).changes.iter().map(|it| it.took_s.is_some()).take(3).collect();
    assert_eq!(took, [false, true, true], "the second left one in service at once");
}

#[test]
fn capacity_goes_in_steps_and_cpu_is_the_line_that_it_was_made_with() {
    let findings = Findings::of(&run_of_a_test());
    let steps: Vec<u32> = findings.steps.iter().map(|step| step.proxies).collect();
    assert_eq!(steps, [1, 2, 3, 4, 3, 2, 1]);
    let lines: Vec<(&str, f64)> =
        findings.cpu.iter().map(|it| (it.what, (it.slope * 10_000.0).round())).collect();
    assert_eq!(lines, [("balancer", 130.0), ("each proxy", 300.0), ("store", 500.0)]);
    assert!(findings.cpu.iter().all(|it| it.r_squared > 0.999), "{:?}", findings.cpu);
    assert_eq!(findings.above_capacity_s, 0.0, "it launches in time");
}

#[test]
fn even_shares_are_even_and_a_neighbour_that_takes_it_all_is_a_spike() {
    let mut run = run_of_a_test();
    let findings = Findings::of(&run);
    assert_eq!(findings.sharing.iter().map(|it| it.proxies).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(findings.sharing.iter().all(|it| (it.worst - 1.0).abs() < 1e-9));
    let leave: Vec<&str> = findings.departures.iter().map(|it| it.instance.as_str()).collect();
    assert_eq!(leave, ["proxy-4", "proxy-3", "proxy-2"]);
    assert!(findings.departures[2].others.is_none(), "one is left");

    // As in the paper: what the fourth had goes to the first.
    let at_s = findings.departures[0].at_s;
    for sample in &mut run.samples {
        let is_then = sample.at_s >= at_s && sample.at_s < at_s + 12.0;
        if is_then && sample.part == Part::Proxy && sample.instance == "proxy-1" {
            sample.calls_per_s *= 1.5;
        } else if is_then && sample.part == Part::Proxy {
            sample.calls_per_s *= 0.75;
        }
    }
    let spiky = Findings::of(&run);
    let busiest = spiky.departures[0].others.expect("three were left");
    assert!((busiest.calls - 1.5).abs() < 0.01, "{busiest:?}");
}

#[test]
fn a_load_above_capacity_is_counted_in_seconds_of_the_experiment() {
    let mut run = run_of_a_test();
    for moment in &mut run.moments {
        moment.in_service = moment.in_service.min(3);
    }
    let findings = Findings::of(&run);
    let above = run.moments.iter().filter(|it| it.wanted_cps > 600.0).count() as f64;
    assert_eq!(findings.above_capacity_s, above * 10.0);
    // Each of four has at most 190 cps.
    assert_eq!(findings.proxy_above_s, 0.0);
    assert!((180.0..=190.0).contains(&findings.proxy_peak_cps), "{}", findings.proxy_peak_cps);
}

#[test]
fn the_report_answers_every_point_and_repeats() {
    let run = run_of_a_test();
    let text = report(&run);
    assert_eq!(text, report(&run), "the same run gives the same bytes");
    for words in [
        "calls made, 0 failed; proxies 1 → 4 → 1",
        "change at 170, 340 and 510 cps",
        "| 2 → 3 | 350 cps | 340 cps |",
        "above the capacity in service for 0 s",
        "| 4 | ",
        "| proxy-4 | 40 s | 3 | 1.000 |",
        "| each proxy | 300 µs |",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
}

#[test]
fn figures_are_readable_for_people() {
    assert_eq!(thousands(2_951_100), "2,951,100");
    assert_eq!((thousands(0), thousands(999)), ("0".to_owned(), "999".to_owned()));
    assert_eq!(clock(6_755.4), "1:52:35");
}
