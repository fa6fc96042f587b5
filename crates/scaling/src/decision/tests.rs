//! The rules at their edges, as tables.

use super::*;
use crate::policy::PAPER;

fn polls(cps: &[u32]) -> Vec<Poll> {
    cps.iter().map(|&cps| Poll::answered(cps)).collect()
}

/// The rule of the paper's §4.1 at its edges. Capacity 200 cps each, 85 %, five polls, 1 to 4.
#[test]
fn tier_changes_by_one_after_five_agreeing_polls() {
    struct Row {
        name: &'static str,
        in_service: u32,
        starting: u32,
        polls_cps: &'static [u32],
        expected: u32,
    }
    #[rustfmt::skip]
    let table = [
        Row { name: "four polls are too few",        in_service: 1, starting: 0, polls_cps: &[180; 4],                  expected: 1 },
        Row { name: "five above 170 add one",        in_service: 1, starting: 0, polls_cps: &[180; 5],                  expected: 2 },
        Row { name: "170 itself is not above",       in_service: 1, starting: 0, polls_cps: &[170; 5],                  expected: 1 },
        Row { name: "one dip starts the count anew", in_service: 1, starting: 0, polls_cps: &[180, 180, 165, 180, 180], expected: 1 },
        Row { name: "a booting machine counts",      in_service: 1, starting: 1, polls_cps: &[180; 5],                  expected: 2 },
        Row { name: "but only for its own share",    in_service: 1, starting: 1, polls_cps: &[345; 5],                  expected: 3 },
        Row { name: "never above the maximum",       in_service: 4, starting: 0, polls_cps: &[760; 5],                  expected: 4 },
        Row { name: "below 170 two become one",      in_service: 2, starting: 0, polls_cps: &[160; 5],                  expected: 1 },
        Row { name: "170 itself is not below",       in_service: 2, starting: 0, polls_cps: &[170; 5],                  expected: 2 },
        Row { name: "not while one is starting",     in_service: 2, starting: 1, polls_cps: &[100; 5],                  expected: 3 },
        Row { name: "the last one stays",            in_service: 1, starting: 0, polls_cps: &[0; 5],                    expected: 1 },
        Row { name: "one at a time, however high",   in_service: 1, starting: 0, polls_cps: &[700; 5],                  expected: 2 },
        Row { name: "the minimum needs no polls",    in_service: 0, starting: 0, polls_cps: &[],                        expected: 1 },
    ];

    for row in table {
        let polls = polls(row.polls_cps);
        let view = TierView::new(&PAPER, row.in_service, &polls).with_starting(row.starting);
        let decision = decide(&view);
        assert_eq!(decision.instances, row.expected, "{}: {}", row.name, decision.reason);
    }
}

/// Two in service, one of them silent: what is left looks idle, and might be anything.
#[test]
fn silence_neither_adds_nor_removes() {
    let silent = |cps| vec![Poll { reported: CallRate::from_cps(cps), silent: 1 }; 12];
    for policy in [PAPER, ScalingPolicy::default()] {
        for cps in [0, 50, 169] {
            let polls = silent(cps);
            let decision = decide(&TierView::new(&policy, 2, &polls));
            assert_eq!(decision.instances, 2, "{cps} cps reported: {}", decision.reason);
        }
        // What the answering one carries alone is enough to add.
        let polls = silent(350);
        assert_eq!(decide(&TierView::new(&policy, 2, &polls)).instances, 3);
    }
}

/// The default rule. Capacity 200 each; up above 75 % for two polls, down below 60 % of the
/// survivors' capacity for twelve; 1 to 8.
#[test]
fn the_default_rule_grows_fast_and_shrinks_slowly() {
    struct Row {
        name: &'static str,
        in_service: u32,
        starting: u32,
        draining: u32,
        polls_cps: &'static [u32],
        expected: u32,
    }
    #[rustfmt::skip]
    let table = [
        Row { name: "one poll is too few",             in_service: 1, starting: 0, draining: 0, polls_cps: &[160],       expected: 1 },
        Row { name: "two above 150 add",               in_service: 1, starting: 0, draining: 0, polls_cps: &[160; 2],    expected: 2 },
        Row { name: "150 itself is not above",         in_service: 1, starting: 0, draining: 0, polls_cps: &[150; 2],    expected: 1 },
        Row { name: "several at once",                 in_service: 1, starting: 0, draining: 0, polls_cps: &[700; 2],    expected: 5 },
        Row { name: "the booting ones count",          in_service: 1, starting: 4, draining: 0, polls_cps: &[700; 2],    expected: 5 },
        Row { name: "never above the maximum",         in_service: 7, starting: 0, draining: 0, polls_cps: &[9000; 2],   expected: 8 },
        Row { name: "between the thresholds it rests", in_service: 2, starting: 0, draining: 0, polls_cps: &[130; 12],   expected: 2 },
        Row { name: "eleven below are too few",        in_service: 2, starting: 0, draining: 0, polls_cps: &[110; 11],   expected: 2 },
        Row { name: "twelve below 120 remove one",     in_service: 2, starting: 0, draining: 0, polls_cps: &[110; 12],   expected: 1 },
        Row { name: "one at a time on the way down",   in_service: 5, starting: 0, draining: 0, polls_cps: &[10; 12],    expected: 4 },
        Row { name: "not while one is draining",       in_service: 4, starting: 0, draining: 1, polls_cps: &[10; 12],    expected: 4 },
        Row { name: "the last one stays",              in_service: 1, starting: 0, draining: 0, polls_cps: &[0; 12],     expected: 1 },
    ];
    let policy = ScalingPolicy::default();
    for row in table {
        let polls = polls(row.polls_cps);
        let decision = decide(&TierView {
            draining: row.draining,
            ..TierView::new(&policy, row.in_service, &polls).with_starting(row.starting)
        });
        assert_eq!(decision.instances, row.expected, "{}: {}", row.name, decision.reason);
    }
}

/// 10 cps more every poll of 5 s, and machines that take 100 s: the load will have grown by 200.
#[test]
fn a_rise_is_answered_before_it_arrives() {
    let policy = ScalingPolicy::default();
    let rising: Vec<u32> = (0..12).map(|step| 30 + 10 * step).collect();
    let polls = polls(&rising);
    let at_once = decide(&TierView::new(&policy, 1, &polls));
    assert_eq!(at_once.instances, 1, "{}", at_once.reason);

    let slow_boot =
        TierView { boot_time: Duration::from_secs(100), ..TierView::new(&policy, 1, &polls) };
    let decision = decide(&slow_boot);
    // 140 now, 350 expected, of which twice the load that two polls agree on (130) is believed.
    assert_eq!(decision.instances, 2, "{}", decision.reason);
    assert_eq!(decision.reason.to_string(), "260 cps expected within 105 s, above 150 cps");
}

#[test]
fn the_number_has_hard_limits() {
    let two = polls(&[700; 2]);
    let base = ScalingPolicy::default();
    struct Row {
        name: &'static str,
        policy: ScalingPolicy,
        in_service: u32,
        launched: u32,
        expected: u32,
        reason: &'static str,
    }
    #[rustfmt::skip]
    let table = [
        Row { name: "frozen", policy: ScalingPolicy { is_frozen: true, ..base.clone() }, in_service: 1, launched: 0, expected: 1, reason: "frozen by the operator" },
        Row { name: "launches used up", policy: base.clone(), in_service: 1, launched: 8, expected: 3, reason: "5 needed, 8 were launched a short while ago" },
        Row { name: "no launches left", policy: base.clone(), in_service: 1, launched: 11, expected: 1, reason: "5 needed, 11 were launched a short while ago" },
        Row { name: "at the maximum", policy: ScalingPolicy { instances_max: 1, ..base.clone() }, in_service: 1, launched: 0, expected: 1, reason: "5 needed, held at the maximum" },
        Row { name: "a lowered maximum", policy: ScalingPolicy { instances_max: 2, ..base.clone() }, in_service: 4, launched: 0, expected: 2, reason: "4 is above the maximum of 2" },
        Row { name: "a raised minimum", policy: ScalingPolicy { instances_min: 3, ..base }, in_service: 1, launched: 0, expected: 3, reason: "1 is below the minimum of 3" },
    ];
    for row in table {
        let view =
            TierView { launched: row.launched, ..TierView::new(&row.policy, row.in_service, &two) };
        let decision = decide(&view);
        assert_eq!(decision.instances, row.expected, "{}", row.name);
        assert_eq!(decision.reason.to_string(), row.reason, "{}", row.name);
    }
}

#[test]
fn nothing_shrinks_while_one_in_service_does_not_answer() {
    let quiet = polls(&[100; 12]);
    for policy in [PAPER, ScalingPolicy::default()] {
        let with = |unheard| decide(&TierView { unheard, ..TierView::new(&policy, 3, &quiet) });
        assert_eq!(with(0).instances, 2);
        let held = with(1);
        assert_eq!(held.instances, 3);
        assert_eq!(held.reason.to_string(), "fewer might do, 1 in service did not answer");
        let cut = decide(&TierView { is_cut_off: true, ..TierView::new(&policy, 3, &quiet) });
        assert_eq!((cut.instances, cut.reason), (3, Reason::CutOff));
    }
}

/// CPU may only raise the number, and not again while a machine is on its way.
#[test]
fn cpu_raises_and_never_lowers() {
    let rule = AdaptiveRule { cpu_percent_max: Some(80), ..AdaptiveRule::default() };
    let policy = ScalingPolicy { rule: Rule::Adaptive(rule), ..ScalingPolicy::default() };
    let quiet = polls(&[100; 3]);
    let with = |cpu_percent, starting| {
        let view = TierView::new(&policy, 2, &quiet).with_starting(starting);
        let view = TierView { cpu_percent, ..view };
        decide(&view).instances
    };
    assert_eq!(with(Some(81), 0), 3);
    assert_eq!(with(Some(180), 0), 5);
    assert_eq!(with(Some(81), 1), 3, "one is on its way");
    assert_eq!(with(Some(80), 0), 2);
    assert_eq!(with(None, 0), 2, "unknown is not idle and not busy");
}

/// Goal: what the operator says an instance can carry counts, on the way up and on the way down.
///
/// Method: two instances of 200 calls per second, thresholds of 75 and 60 %; one of them has half or
/// twice the weight.
#[test]
fn weights_are_capacity() {
    let policy = ScalingPolicy::default();
    let decided = |planned_percent: u32, heaviest_percent: u32, polls: &[Poll]| {
        let view = TierView::new(&policy, 2, polls);
        decide(&TierView { planned_percent, heaviest_percent, ..view }).instances
    };
    let table = [
        ("two ordinary ones carry 300", 200, 100, 290, 2),
        ("one and a half carry 225", 150, 100, 230, 3),
        ("a double one and an ordinary one carry 450", 300, 200, 440, 2),
        ("far beyond, by ordinary ones", 150, 100, 400, 4),
        ("one ordinary survivor takes 120", 200, 100, 110, 1),
        ("the survivor may be the one with half a share", 150, 100, 70, 2),
        ("and takes 60", 150, 100, 55, 1),
        ("not the double one's load", 300, 200, 130, 2),
    ];
    for (name, percent, heaviest, cps, expected) in table {
        assert_eq!(decided(percent, heaviest, &polls(&[cps; 12])), expected, "{name}");
    }
}
