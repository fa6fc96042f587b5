//! The response context, driven event by event on virtual time, and in random orders.

use super::*;
use crate::target::{Target, TargetIdentity, TargetReach};

/// A handle of a response, for a reader's eyes.
type Handle = &'static str;

/// Targets of these groups and slots; an `r` in the third place makes one refreshable.
fn targets(places: &[(u16, u16, bool)]) -> TargetSet {
    let target = |&(group, slot, is_refreshable): &(u16, u16, bool)| Target {
        request_uri: Vec::new(),
        routes: Vec::new(),
        identity: TargetIdentity::RequestUri,
        aor: None,
        reach: TargetReach::Flow,
        attempt: 0,
        group,
        slot,
        is_refreshable,
        max_breadth: 60,
    };
    TargetSet { targets: places.iter().map(target).collect() }
}

/// A context, the clock, and what it has asked for since it was last looked at.
struct Bench {
    context: ResponseContext<Handle>,
    now: Instant,
    out: Vec<Action<Handle>>,
}

impl Bench {
    fn new(kind: ContextKind, places: &[(u16, u16, bool)]) -> Self {
        let mut out = Vec::new();
        let timers = ContextTimers::default();
        let context =
            ResponseContext::start(kind, &targets(places), timers, testkit::epoch(), &mut out);
        Self { context, now: testkit::epoch(), out }
    }

    fn invite(places: &[(u16, u16, bool)]) -> Self {
        Self::new(ContextKind::Invite, places)
    }

    fn parallel(branches: u16) -> Self {
        let places: Vec<_> = (0..branches).map(|slot| (0, slot, false)).collect();
        let mut bench = Self::invite(&places);
        bench.out.clear();
        bench
    }

    fn response(&mut self, branch: usize, code: u16, handle: Handle) -> Vec<Action<Handle>> {
        let status = StatusCode::new(code).expect("a status");
        self.context.handle_response(self.now, branch, status, handle, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn failure(&mut self, branch: usize, failure: BranchFailure) -> Vec<Action<Handle>> {
        self.context.handle_failure(self.now, branch, failure, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn cancel(&mut self) -> Vec<Action<Handle>> {
        self.context.handle_cancel(self.now, &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// Moves the clock to the next deadline, which must be `seconds` after the start.
    fn timeout_at(&mut self, seconds: u64) -> Vec<Action<Handle>> {
        let deadline = self.context.poll_timeout().expect("a deadline");
        assert_eq!((deadline - testkit::epoch()).as_secs(), seconds);
        self.now = deadline;
        self.context.handle_timeout(self.now, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn actions(&mut self) -> Vec<Action<Handle>> {
        std::mem::take(&mut self.out)
    }
}

fn forward(branch: usize, response: Handle) -> Action<Handle> {
    Action::Forward { branch, response, challenges: Vec::new() }
}

fn local(code: u16) -> Action<Handle> {
    Action::RespondLocally(StatusCode::new(code).expect("a status"))
}

#[test]
fn ringing_is_forwarded_at_once_and_trying_never() {
    let mut bench = Bench::parallel(1);
    assert_eq!(bench.response(0, 100, "100"), []);
    assert_eq!(bench.response(0, 180, "180"), [forward(0, "180")]);
    assert_eq!(bench.response(0, 183, "183"), [forward(0, "183")]);
    assert_eq!(bench.response(0, 200, "200"), [forward(0, "200"), Action::Done]);
    assert!(bench.context.is_answered() && bench.context.is_done());
}

#[test]
fn the_first_answer_wins_and_the_others_are_cancelled_once_they_have_rung() {
    let mut bench = Bench::parallel(3);
    bench.response(0, 180, "ring 0");
    bench.response(1, 180, "ring 1");
    assert_eq!(bench.response(0, 200, "200"), [forward(0, "200"), Action::Cancel(1)]);
    assert_eq!(bench.response(2, 100, "100"), [Action::Cancel(2)], "only now (§9.1)");
    assert_eq!(bench.response(1, 487, "487"), [], "one answer was given");
    assert_eq!(bench.response(2, 487, "487"), [Action::Done]);
}

#[test]
fn every_2xx_to_an_invite_goes_upstream() {
    let mut bench = Bench::parallel(2);
    bench.response(0, 180, "ring 0");
    bench.response(1, 180, "ring 1");
    bench.response(0, 200, "200 of 0");
    assert_eq!(bench.response(1, 200, "200 of 1"), [forward(1, "200 of 1"), Action::Done]);
    assert_eq!(bench.response(1, 200, "again"), [forward(1, "again")]);
}

#[test]
fn only_the_first_2xx_to_anything_else_goes_upstream() {
    let mut bench = Bench::new(ContextKind::NonInvite, &[(0, 0, false), (0, 1, false)]);
    bench.actions();
    assert_eq!(bench.response(0, 200, "first"), [forward(0, "first")]);
    assert_eq!(bench.response(1, 200, "second"), [Action::Done]);
}

/// RFC 3261 §16.7 step 6, with 503, 430 and 408 where they must not leave.
#[test]
fn the_best_refusal_is_chosen_when_all_have_come() {
    struct Row {
        name: &'static str,
        codes: &'static [u16],
        expected: Action<Handle>,
    }
    #[rustfmt::skip]
    let table = [
        Row { name: "one",                            codes: &[486],           expected: forward(0, "response") },
        Row { name: "the lowest class",               codes: &[500, 404],      expected: forward(1, "response") },
        Row { name: "3xx before 4xx",                 codes: &[404, 302],      expected: forward(1, "response") },
        Row { name: "6xx before all",                 codes: &[302, 603],      expected: forward(1, "response") },
        Row { name: "what helps to ask again",        codes: &[486, 415],      expected: forward(1, "response") },
        Row { name: "a person before a clock",        codes: &[408, 486],      expected: forward(1, "response") },
        Row { name: "anything before 503",            codes: &[503, 500],      expected: forward(1, "response") },
        Row { name: "a 503 becomes 500",              codes: &[503],           expected: local(500) },
        Row { name: "two of them too",                codes: &[503, 503],      expected: local(500) },
        Row { name: "a 430 becomes 480",              codes: &[430],           expected: local(480) },
        Row { name: "a 430 beside an answer is none", codes: &[430, 486],      expected: forward(1, "response") },
    ];
    for row in table {
        let branches = u16::try_from(row.codes.len()).expect("few");
        let mut bench = Bench::parallel(branches);
        let mut last = Vec::new();
        for (branch, code) in row.codes.iter().enumerate() {
            assert!(!last.contains(&Action::Done), "{}: too early", row.name);
            last = bench.response(branch, *code, "response");
        }
        assert_eq!(last, [row.expected, Action::Done], "{}", row.name);
    }
}

#[test]
fn challenges_are_gathered() {
    let mut bench = Bench::parallel(3);
    bench.response(0, 401, "401 of 0");
    bench.response(1, 486, "486 of 1");
    let last = bench.response(2, 407, "407 of 2");
    let challenges = vec!["407 of 2"];
    let expected = Action::Forward { branch: 0, response: "401 of 0", challenges };
    assert_eq!(last, [expected, Action::Done]);
}

#[test]
fn a_6xx_ends_the_search() {
    let mut bench = Bench::invite(&[(0, 0, false), (0, 1, false), (1, 2, false)]);
    assert_eq!(bench.actions(), [Action::Start(0), Action::Start(1)]);
    bench.response(1, 180, "ring");
    assert_eq!(bench.response(0, 603, "603"), [Action::Cancel(1)]);
    assert_eq!(bench.response(1, 487, "487"), [forward(0, "603"), Action::Done]);
}

#[test]
fn groups_are_tried_one_after_the_other() {
    let mut bench = Bench::invite(&[(0, 0, false), (0, 1, false), (1, 2, false), (2, 3, false)]);
    assert_eq!(bench.actions(), [Action::Start(0), Action::Start(1)]);
    assert_eq!(bench.response(0, 486, "486"), []);
    assert_eq!(bench.response(1, 404, "404"), [Action::Start(2)]);
    assert_eq!(bench.response(2, 200, "200"), [forward(2, "200"), Action::Done]);
}

/// Protocol rules 13 and 16: the phone's next flow on 430, or if nothing at all was heard.
#[test]
fn a_lost_flow_is_followed_by_the_phones_next_one() {
    let flows = [(0, 0, false), (0, 0, false), (0, 1, false)];
    type Failing = fn(&mut Bench) -> Vec<Action<Handle>>;
    let table: [(&str, Failing); 3] = [
        ("430", |bench| bench.response(0, 430, "430")),
        ("no answer at all", |bench| bench.failure(0, BranchFailure::TimedOut)),
        ("transport", |bench| bench.failure(0, BranchFailure::TransportFailed)),
    ];
    for (name, fail) in table {
        let mut bench = Bench::invite(&flows);
        assert_eq!(bench.actions(), [Action::Start(0), Action::Start(2)], "{name}: one a phone");
        assert_eq!(fail(&mut bench), [Action::Start(1)], "{name}");
    }

    let mut bench = Bench::invite(&flows);
    bench.actions();
    bench.response(0, 180, "ring");
    assert_eq!(bench.failure(0, BranchFailure::TimedOut), [], "it did ring");
    assert_eq!(bench.response(2, 486, "486"), [forward(2, "486"), Action::Done]);
}

/// Protocol rule 14.
#[test]
fn a_lost_flow_of_a_dialog_is_replaced_by_the_present_binding() {
    for kind in [ContextKind::Invite, ContextKind::NonInvite] {
        let mut bench = Bench::new(kind, &[(0, 0, true)]);
        bench.actions();
        assert_eq!(bench.response(0, 430, "430"), [Action::Refresh(0)]);
        bench.context.handle_refreshed(bench.now, 0, Some(1), &mut bench.out);
        assert_eq!(bench.actions(), [Action::Start(1)]);
        assert_eq!(bench.response(1, 200, "200"), [forward(1, "200"), Action::Done]);

        let mut bench = Bench::new(kind, &[(0, 0, true)]);
        bench.actions();
        bench.response(0, 430, "430");
        bench.context.handle_refreshed(bench.now, 0, None, &mut bench.out);
        assert_eq!(bench.actions(), [local(480), Action::Done], "there is none");
    }
}

#[test]
fn cancel_reaches_what_rings_and_what_will_ring() {
    let mut bench = Bench::invite(&[(0, 0, false), (0, 1, false), (1, 2, false)]);
    bench.actions();
    bench.response(0, 180, "ring");
    assert_eq!(bench.cancel(), [Action::Cancel(0)]);
    assert_eq!(bench.response(1, 180, "ring"), [Action::Cancel(1)], "and is not passed on");
    assert_eq!(bench.response(0, 487, "487 of 0"), []);
    let last = bench.response(1, 487, "487 of 1");
    assert_eq!(last, [forward(0, "487 of 0"), Action::Done], "the next group is not tried");
    assert_eq!(bench.cancel(), [], "twice is once");
}

#[test]
fn a_cancelled_call_that_nobody_heard_of_is_terminated() {
    let mut bench = Bench::parallel(1);
    assert_eq!(bench.cancel(), []);
    let last = bench.failure(0, BranchFailure::TimedOut);
    assert_eq!(last, [local(487), Action::Done]);
}

/// The phone has the CANCEL; its 487 may have gone where nobody is any more.
#[test]
fn a_cancel_that_went_another_way_is_waited_for_a_few_seconds() {
    let mut bench = Bench::parallel(1);
    bench.context.handle_cancel_taken(bench.now, 0);
    assert!(!bench.context.is_cancelling(0), "nobody has cancelled it");
    bench.response(0, 180, "ring");
    bench.wait(10);
    bench.cancel();
    assert!(bench.context.is_cancelling(0));
    bench.wait(1);
    bench.context.handle_cancel_taken(bench.now, 0);
    assert_eq!(bench.timeout_at(15), [Action::Abandon(0), local(487), Action::Done]);
    assert!(!bench.context.is_cancelling(0));
}

#[test]
fn an_answer_that_crosses_the_cancel_is_forwarded() {
    let mut bench = Bench::parallel(1);
    bench.response(0, 180, "ring");
    bench.cancel();
    assert_eq!(bench.response(0, 200, "200"), [forward(0, "200"), Action::Done]);
}

#[test]
fn cancel_does_nothing_to_other_methods() {
    let mut bench = Bench::new(ContextKind::NonInvite, &[(0, 0, false)]);
    bench.actions();
    bench.response(0, 183, "183");
    assert_eq!(bench.cancel(), []);
    assert_eq!(bench.response(0, 200, "200"), [forward(0, "200"), Action::Done]);
}

/// RFC 3261 §16.8: prolonged by what rings, not by 100; then CANCEL, then nobody waits any more.
#[test]
fn timer_c_ends_endless_ringing() {
    let mut bench = Bench::parallel(1);
    bench.wait(10);
    bench.response(0, 180, "ring");
    bench.wait(10);
    bench.response(0, 100, "100");
    assert_eq!(bench.timeout_at(195), [Action::Cancel(0)], "10 s after the start + 185 s");
    assert_eq!(bench.timeout_at(227), [Action::Abandon(0), local(408), Action::Done]);
    assert_eq!(bench.context.poll_timeout(), None);
}

#[test]
fn timer_c_that_is_obeyed_gives_the_callees_487() {
    let mut bench = Bench::parallel(1);
    bench.response(0, 180, "ring");
    assert_eq!(bench.timeout_at(185), [Action::Cancel(0)]);
    assert_eq!(bench.response(0, 487, "487"), [forward(0, "487"), Action::Done]);
}

/// RFC 3261 §16.8 second half, and RFC 4320 for what is no INVITE.
#[test]
fn silence_is_408_for_an_invite_and_silence_for_the_rest() {
    let mut invite = Bench::parallel(1);
    assert_eq!(invite.failure(0, BranchFailure::TimedOut), [local(408), Action::Done]);

    let mut other = Bench::new(ContextKind::NonInvite, &[(0, 0, false)]);
    other.actions();
    other.wait(32);
    assert_eq!(other.failure(0, BranchFailure::TimedOut), [Action::Done]);
    assert!(other.context.is_silent());
}

/// Somebody says 408 early. The client hears nothing and repeats its request until Timer F: it must
/// find its transaction until then, and nobody may keep it longer.
#[test]
fn a_request_that_stays_unanswered_is_kept_for_its_repetitions() {
    let mut bench = Bench::new(ContextKind::NonInvite, &[(0, 0, false)]);
    bench.actions();
    assert_eq!(bench.response(0, 408, "408"), []);
    assert!(!bench.context.is_done());
    assert_eq!(bench.timeout_at(32), [Action::Done]);
    assert_eq!((bench.context.is_silent(), bench.context.poll_timeout()), (true, None));
}

#[test]
fn a_late_refusal_of_a_non_invite_is_dropped_and_a_late_success_is_not() {
    let mut bench = Bench::new(ContextKind::NonInvite, &[(0, 0, false)]);
    bench.actions();
    bench.wait(33);
    assert_eq!(bench.response(0, 404, "404"), [Action::Done]);

    let mut bench = Bench::new(ContextKind::NonInvite, &[(0, 0, false)]);
    bench.actions();
    bench.wait(33);
    assert_eq!(bench.response(0, 200, "200"), [forward(0, "200"), Action::Done]);
}

#[test]
fn a_transport_failure_is_500_upstream() {
    for failure in [BranchFailure::TransportFailed, BranchFailure::Unresolved] {
        let mut bench = Bench::parallel(1);
        assert_eq!(bench.failure(0, failure), [local(500), Action::Done], "{failure:?}");
    }
}

/// Whatever happens in whatever order, there is at most one final answer that is no 2xx, and once
/// every branch has ended, Done has come exactly once.
#[test]
fn any_order_of_events_gives_one_answer_and_one_end() {
    let mut seed = 0x5eed_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for run in 0..2_000 {
        let kind = if run % 2 == 0 { ContextKind::Invite } else { ContextKind::NonInvite };
        let mut bench =
            Bench::new(kind, &[(0, 0, false), (0, 0, false), (0, 1, true), (1, 2, false)]);
        let mut active: Vec<usize> = Vec::new();
        let (mut refusals, mut done) = (0, 0);
        for _ in 0..60 {
            for action in bench.actions() {
                match action {
                    Action::Start(branch) => active.push(branch),
                    Action::Forward { response: "refusal", .. } | Action::RespondLocally(_) => {
                        refusals += 1;
                    }
                    Action::Refresh(branch) => {
                        let place = (random(2) == 0).then_some(bench.context.branches.len());
                        bench.context.handle_refreshed(bench.now, branch, place, &mut bench.out);
                    }
                    Action::Done => done += 1,
                    _ => {}
                }
            }
            let Some(&branch) = active.get(random(8) as usize) else { continue };
            let out = &mut bench.out;
            match random(9) {
                0 => bench.context.handle_cancel(bench.now, out),
                1 => bench.context.handle_failure(bench.now, branch, BranchFailure::TimedOut, out),
                2 => bench.now += Duration::from_secs(random(100)),
                3 => bench.context.handle_timeout(bench.now, out),
                code => {
                    let table = [
                        (180, "ring"),
                        (200, "200"),
                        (486, "refusal"),
                        (603, "refusal"),
                        (430, "x"),
                    ];
                    let (code, handle) = table[code as usize - 4];
                    let status = StatusCode::new(code).expect("a status");
                    bench.context.handle_response(bench.now, branch, status, handle, out);
                }
            }
        }
        if bench.context.is_silent() {
            bench.wait(32);
            bench.context.handle_timeout(bench.now, &mut bench.out);
        }
        let is_over = !bench.context.branches.iter().any(|branch| branch.state.is_active());
        for action in bench.actions() {
            done += u32::from(action == Action::Done);
            refusals += u32::from(matches!(
                action,
                Action::RespondLocally(_) | Action::Forward { response: "refusal", .. }
            ));
        }
        assert!(refusals <= 1, "run {run}: {refusals} refusals");
        assert_eq!(done, u32::from(is_over), "run {run}");
    }
}
