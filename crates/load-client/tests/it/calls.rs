//! The flows, without losses: what succeeds, and how every deviation is told.

use std::time::Duration;

use load_client::{Mode, Plan, Retransmission, Stop, Uas, UasOptions, run_uac};

use crate::{FAST, REALM, address, challenging, plan, run, unchallenged, users};

/// Goal: Figure 4 of the paper, both challenges included, with and without retransmission.
#[test]
fn challenged_calls_succeed_and_both_sides_count_the_same() {
    for (retransmission, host) in [(Retransmission::On, 1), (Retransmission::Off, 2)] {
        let uas = Uas::start(challenging(&format!("127.81.{host}.1:0"))).expect("a callee");
        let local = format!("127.81.{host}.2:0");
        let plan = Plan { retransmission, ..plan(&local, uas.addresses(), "100@500ms") };
        let report = run(&plan);
        assert_eq!((report.started, report.succeeded, report.failed), (50, 50, 0), "{report}");
        assert_eq!((report.unfinished, report.failed_over), (0, 0));
        assert_eq!(
            (report.ringing.count(), report.answer.count(), report.bye.count()),
            (50, 50, 50)
        );
        assert!(report.own.send_errors == 0 && report.own.unreadable == 0, "{report}");

        let callees = uas.stop();
        assert_eq!((callees.calls, callees.answered, callees.ended), (50, 50, 50));
        assert_eq!((callees.confirmed, callees.unacknowledged), (50, 0));
    }
}

/// SIPp's scenario fails too when a server lets everybody through.
#[test]
fn calls_that_nobody_challenges_fail_if_a_challenge_is_required() {
    let uas = Uas::start(UasOptions {
        timing: FAST,
        ..UasOptions::direct(vec![address("127.81.3.1:0")], REALM)
    })
    .expect("a callee");
    let strict = plan("127.81.3.2:0", uas.addresses(), "50@200ms");
    let report = run(&strict);
    assert_eq!((report.succeeded, report.failed), (0, 10));
    let failure = report.failures.first().expect("a failure");
    assert_eq!((failure.expected, failure.came.as_str()), ("401 or 407 to INVITE", "200 OK"));

    let report = run(&unchallenged(strict));
    assert_eq!((report.succeeded, report.failed), (10, 0), "{report}");
    // The strict callers acknowledged and hung up all the same.
    let callees = uas.stop();
    assert_eq!((callees.calls, callees.confirmed, callees.ended), (20, 20, 20));
}

#[test]
fn ringing_and_talking_take_their_time() {
    let uas = Uas::start(UasOptions {
        ring_for: Duration::from_millis(100),
        ..challenging("127.81.4.1:0")
    })
    .expect("a callee");
    let mix = Mode::Complete { talk: Duration::from_millis(150) }.into();
    let report = run(&Plan { mix, ..plan("127.81.4.2:0", uas.addresses(), "50@200ms") });
    assert_eq!((report.succeeded, report.failed), (10, 0), "{report}");
    assert!(report.answer.percentile(1.0) >= Duration::from_millis(97), "{report}");
    assert!(report.ringing.percentile(50.0) < Duration::from_millis(97), "{report}");
    assert!(report.duration >= Duration::from_millis(180 + 250), "{report}");
}

#[test]
fn calls_cancelled_while_ringing_end_with_487() {
    let uas =
        Uas::start(UasOptions { ring_for: Duration::from_secs(30), ..challenging("127.81.5.1:0") })
            .expect("a callee");
    let mix = Mode::CancelWhileRinging { ringing: Duration::from_millis(50) }.into();
    let report = run(&Plan { mix, ..plan("127.81.5.2:0", uas.addresses(), "50@200ms") });
    assert_eq!((report.succeeded, report.failed), (10, 0), "{report}");
    let callees = uas.stop();
    assert_eq!((callees.calls, callees.cancelled, callees.answered), (10, 10, 0));
}

/// A callee that answers at once cannot be cancelled: the calls are failures, and still ended.
#[test]
fn calls_answered_instead_of_cancelled_fail_and_are_hung_up() {
    let uas = Uas::start(challenging("127.81.6.1:0")).expect("a callee");
    let mix = Mode::CancelWhileRinging { ringing: Duration::from_millis(50) }.into();
    let report = run(&Plan { mix, ..plan("127.81.6.2:0", uas.addresses(), "50@200ms") });
    assert_eq!((report.succeeded, report.failed), (0, 10), "{report}");
    assert_eq!(uas.stop().ended, 10);
}

#[test]
fn every_refused_call_is_told_with_its_call_id_and_what_came() {
    let uas = Uas::start(UasOptions { refuse_with: Some(486), ..challenging("127.81.7.1:0") })
        .expect("a callee");
    let kept = Plan { failures_kept_max: 3, ..plan("127.81.7.2:0", uas.addresses(), "50@200ms") };
    let report = run(&kept);
    assert_eq!((report.succeeded, report.failed, report.failures.len()), (0, 10, 3));
    for failure in &report.failures {
        assert_eq!(failure.expected, "180 or 200 to INVITE");
        assert_eq!(failure.came, "486 Busy Here");
        assert!(failure.call_id.ends_with("@127.81.7.2") && failure.unix_ms > 0, "{failure}");
    }
    assert!(report.to_string().contains("and 7 failures more"), "{report}");
}

#[test]
fn wrong_passwords_fail_at_the_second_407() {
    let uas = Uas::start(challenging("127.81.8.1:0")).expect("a callee");
    let mut plan = plan("127.81.8.2:0", uas.addresses(), "50@100ms");
    plan.users = users(1);
    plan.users[0].password = "wrong".to_owned();
    let report = run(&plan);
    assert_eq!((report.succeeded, report.failed), (0, 5));
    assert_eq!(report.failures[0].came, "407 Proxy Authentication Required");
    assert_eq!(report.failures[0].expected, "180 or 200 to INVITE");
    assert_eq!(uas.stop().calls, 0);
}

/// Goal: a stopped run starts nothing more, lets its calls end, and tells what it cut off.
#[test]
fn a_stopped_run_winds_down() {
    let uas =
        Uas::start(UasOptions { ring_for: Duration::from_secs(30), ..challenging("127.81.9.1:0") })
            .expect("a callee");
    let plan = Plan {
        wind_down: Duration::from_millis(100),
        ..plan("127.81.9.2:0", uas.addresses(), "20@1h")
    };
    let stop = Stop::new();
    let mut samples = Vec::new();
    let report = run_uac(&plan, &stop, |sample| {
        samples.push(sample.clone());
        stop.stop();
    })
    .expect("the sockets can be bound");
    assert_eq!(samples.len(), 1);
    assert_eq!(samples[0].started, samples[0].in_flight);
    assert_eq!((report.succeeded, report.failed), (0, 0));
    assert_eq!(report.unfinished, report.started);
    assert!((15..=21).contains(&report.started), "{report}");
}

#[test]
fn a_plan_without_callees_is_refused() {
    let plan =
        Plan { callees: Vec::new(), ..plan("127.81.10.2:0", &[address("127.0.0.1:9")], "1@1s") };
    let error = run_uac(&plan, &Stop::new(), |_| {}).expect_err("nobody to call");
    assert_eq!(error.to_string(), "the plan names no callee");
}

/// Goal: one run makes calls of several kinds, each to its own callees, and counts them apart.
#[test]
fn a_mix_has_its_shares_and_its_callees() {
    let rings = [("slow".to_owned(), Duration::from_secs(30))].into();
    let uas = Uas::start(UasOptions { rings, ..challenging("127.81.11.1:0") }).expect("a callee");
    let plan = Plan {
        mix: "talk=50,talk/100ms=30@bob,cancel/30ms=20@slow".parse().expect("a mix"),
        ..plan("127.81.11.2:0", uas.addresses(), "200@500ms")
    };
    let report = run(&plan);
    assert_eq!((report.succeeded, report.failed, report.healed), (100, 0, 0), "{report}");
    let kinds: Vec<_> = report.kinds.iter().map(|it| (it.kind.as_str(), it.succeeded)).collect();
    assert_eq!(kinds, [("talk", 50), ("talk/0.1s", 30), ("cancel/0.03s", 20)]);
    let callees = uas.stop();
    assert_eq!((callees.ended, callees.cancelled), (80, 20));
}
