//! What the owner of a dead proxy's call does with its responses, on virtual time.

use fleet::{Incarnation, InstanceId};
use testkit::epoch;

use super::*;
use crate::branch::{
    BalancerBranch, BalancerVia, MethodClass, ProxyBranch, ProxyVia, proxy_branch,
    write_balancer_via, write_proxy_via,
};
use crate::flow_token::{Flow, write_path};
use crate::golden::ring;
use crate::testing::{response, with};

const T64: Duration = Duration::from_secs(32);
const CLIENT_VIA: &str = "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKclient";

fn flow() -> Flow {
    Flow {
        listener: 0,
        transport: sip_message::Transport::Udp,
        remote: "192.0.2.7:5060".parse().expect("an address"),
        connection: None,
    }
}

/// Via lines of a dead proxy's branch to `phone`, and of the balancer that brought the request.
fn vias(phone: &str, several: bool) -> [String; 2] {
    let (ring, text) = (ring(), |line: Vec<u8>| String::from_utf8(line).expect("text"));
    let inputs = ProxyBranch {
        call_id: b"call-1",
        from_tag: b"from1",
        cseq: 1,
        class: MethodClass::Invite,
        request_uri: b"sip:bob@example.com",
        target: phone.as_bytes(),
        attempt: 0,
    };
    let (mut branch, mut top, mut below) = (Vec::new(), Vec::new(), Vec::new());
    proxy_branch(&ring, &inputs, &mut branch);
    let via = ProxyVia {
        transport: sip_message::Transport::Udp,
        sent_by: "127.0.20.3:5061".parse().expect("an address"),
        branch: &branch,
        instance: InstanceId::proxy(3),
        incarnation: Incarnation(7),
        several,
    };
    write_proxy_via(&ring, &via, &mut top);
    let balancer = BalancerVia {
        transport: sip_message::Transport::Udp,
        sent_by: "127.0.10.1:5060".parse().expect("an address"),
        key_id: None,
        branch: BalancerBranch {
            received_branch: b"z9hG4bKclient",
            received_sent_by: Some(b"192.0.2.1:5060"),
            call_id: b"call-1",
            from_tag: b"from1",
            cseq: 1,
        },
        flow: &flow(),
        answered_to_source: false,
    };
    write_balancer_via(&ring, &balancer, &mut below);
    [text(top), text(below)]
}

fn path() -> String {
    let mut path = Vec::new();
    write_path(&ring(), &flow(), "127.0.10.1:5060".parse().expect("an address"), &mut path);
    String::from_utf8(path).expect("text")
}

fn membership() -> Membership {
    let mut members = testkit::membership(1, 1).members();
    members.balancers[0].internal = "127.0.10.1:5060".parse().expect("an address");
    Membership::new(fleet::GenerationNumber { fence: 1, counter: 1 }, 16, members)
}

/// The bytes of a response with these Vias, the client's below them, and `fields`.
fn bytes(start: &str, [top, below]: &[String; 2], fields: &[&str]) -> Vec<u8> {
    let lines = [top.trim_end(), below.trim_end(), CLIENT_VIA];
    response(start, &[&lines, fields].concat())
}

fn with_stray<R>(bytes: &[u8], check: impl FnOnce(&Stray<'_>, &Message<'_>) -> R) -> R {
    with(bytes, |message| {
        let stray = Stray::read(&ring(), Some(&membership()), message).expect("a stray");
        check(&stray, message)
    })
}

#[test]
fn every_response_to_a_dead_proxys_request_is_judged() {
    #[rustfmt::skip]
    let table = [
        ("180 Ringing",     "INVITE",  false, Judgement::Pass(None)),
        ("180 Ringing",     "INVITE",  true,  Judgement::Pass(None)),
        ("100 Trying",      "INVITE",  false, Judgement::HopByHop),
        ("200 OK",          "INVITE",  true,  Judgement::Pass(None)),
        ("486 Busy Here",   "INVITE",  false, Judgement::Pass(None)),
        ("486 Busy Here",   "INVITE",  true,  Judgement::Withhold),
        ("302 Moved",       "INVITE",  true,  Judgement::Withhold),
        ("603 Decline",     "INVITE",  true,  Judgement::Withhold),
        ("503 Unavailable", "INVITE",  false, Judgement::Pass(StatusCode::new(500))),
        ("430 Flow Failed", "INVITE",  false, Judgement::Withhold),
        ("200 OK",          "CANCEL",  false, Judgement::HopByHop),
        ("481 No",          "CANCEL",  true,  Judgement::HopByHop),
        ("200 OK",          "BYE",     false, Judgement::Pass(None)),
        ("481 No",          "BYE",     false, Judgement::Pass(None)),
        ("430 Flow Failed", "BYE",     false, Judgement::ComesAgain),
        ("408 Timeout",     "BYE",     false, Judgement::ComesAgain),
        ("486 Busy Here",   "MESSAGE", true,  Judgement::ComesAgain),
    ];
    for (start, method, several, expected) in table {
        let cseq = format!("CSeq: 1 {method}");
        let text = bytes(start, &vias("a", several), &[&cseq]);
        let judged = with_stray(&text, judge);
        assert_eq!(judged, expected, "{start} to {method}, several: {several}");
    }
}

/// Both Vias must be ours, and the flow one of our balancers'.
#[test]
fn a_stray_is_believed_only_if_its_macs_hold() {
    let good = vias("a", true);
    let field = |value: &str| format!("X-SipCloud-Flow: {value}");
    let path = path();
    with_stray(&bytes("486 Busy", &good, &[&field(&path)]), |stray, _| {
        assert_eq!(stray.writer.instance, InstanceId::proxy(3));
        assert!(stray.writer.several);
        assert_eq!(stray.certainty, Certainty::Dead);
        assert_eq!(stray.flow, Some(path.as_bytes()));
    });
    with_stray(&bytes("486 Busy", &good, &[&field(&format!("{path};suspect"))]), |stray, _| {
        assert_eq!(stray.certainty, Certainty::Suspect);
        assert!(stray.flow.is_some());
    });
    let doubtful = bytes("486 Busy", &good, &[&field(&format!("{path};suspect"))]);
    assert_eq!(with_stray(&doubtful, judge), Judgement::ComesAgain, "if it lives, it acknowledges");
    for elsewhere in [path.replace("127.0.10.1", "127.0.10.9"), path.replacen("sip:", "sip:A", 1)] {
        let text = bytes("486 Busy", &good, &[&field(&elsewhere)]);
        with_stray(&text, |stray, _| assert_eq!(stray.flow, None, "{elsewhere}"));
    }
    let [top, below] = &good;
    let client = CLIENT_VIA.to_owned();
    let broken = [
        [top.replace(".1.", ".0."), below.clone()],
        [top.clone(), below.replace("127.0.10.1", "127.0.10.9")],
        [top.clone(), client.clone()],
        [client, top.clone()],
    ];
    for vias in broken {
        with(&bytes("486 Busy", &vias, &[]), |message| {
            assert!(Stray::read(&ring(), Some(&membership()), message).is_none(), "{vias:?}");
        });
    }
}

#[test]
fn the_ack_has_the_dead_proxys_via_and_goes_the_way_of_the_refusal() {
    let good = vias("a", true);
    let path = path();
    let suspect = format!("X-SipCloud-Flow: {path};suspect");
    let ack = with_stray(&bytes("486 Busy", &good, &[&suspect]), |stray, message| {
        let mut out = Vec::new();
        write_ack(message, stray.flow.expect("a flow"), &mut out);
        String::from_utf8(out).expect("text")
    });
    assert!(ack.starts_with("ACK sip:bob@example.com SIP/2.0\r\n"), "{ack}");
    for line in [&good[0], &format!("Route: {path}\r\n"), "To: <sip:bob@example.com>;tag=to1\r\n"] {
        assert!(ack.contains(line), "{line} in {ack}");
    }
    assert_eq!(ack.matches("Via:").count(), 1, "{ack}");
    with(ack.as_bytes(), |message| assert_eq!(message.cseq().method, Method::Ack));
}

/// One call whose refusals are named by their status.
struct Bench {
    withheld: Withheld<u16>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { withheld: Withheld::new(T64), now: epoch() }
    }

    fn refuse(&mut self, phone: &str, status: u16) -> Fate<u16> {
        let text = bytes("486 Busy Here", &vias(phone, true), &[]);
        let code = StatusCode::new(status).expect("a status");
        with_stray(&text, |stray, _| self.withheld.refuse(self.now, stray, code, || status))
    }

    fn answer(&mut self) {
        let text = bytes("200 OK", &vias("a", true), &[]);
        with_stray(&text, |stray, _| self.withheld.answer(self.now, stray.call));
    }

    fn cancel(&mut self) -> Option<u16> {
        let text = bytes("200 OK", &vias("a", true), &[]);
        with_stray(&text, |stray, _| self.withheld.cancel(self.now, stray.call))
    }

    fn wait(&mut self, time: Duration) -> Option<u16> {
        self.now += time;
        let due = self.withheld.pop_due(self.now);
        assert_eq!(self.withheld.pop_due(self.now), None, "one at a time");
        due
    }
}

#[test]
fn the_best_refusal_goes_64_t1_after_the_last_one_and_only_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.refuse("a", 503), Fate::Kept);
    assert_eq!(bench.wait(T64 / 2), None);
    assert_eq!(bench.refuse("b", 486), Fate::Kept);
    assert_eq!(bench.refuse("c", 408), Fate::Kept);
    let millisecond = Duration::from_millis(1);
    assert_eq!(bench.wait(T64 - millisecond), None, "64·T1 after the last");
    assert_eq!(bench.refuse("b", 486), Fate::Kept, "a repetition puts nothing off");
    assert_eq!(bench.wait(millisecond), Some(486), "the best of the lowest class");
    assert_eq!(bench.refuse("d", 486), Fate::TooLate);
    assert_eq!(bench.wait(T64), None);
    assert!(bench.withheld.is_empty());
    assert_eq!(bench.withheld.poll_timeout(), None);
}

#[test]
fn after_an_answer_no_refusal_follows() {
    let mut bench = Bench::new();
    assert_eq!(bench.refuse("a", 486), Fate::Kept);
    bench.answer();
    assert_eq!(bench.refuse("b", 603), Fate::TooLate);
    assert_eq!(bench.wait(T64), None);
    let mut bench = Bench::new();
    bench.answer();
    assert_eq!(bench.refuse("a", 486), Fate::TooLate);
}

#[test]
fn a_caller_that_cancelled_waits_for_nobody() {
    let mut bench = Bench::new();
    assert_eq!(bench.refuse("a", 486), Fate::Kept);
    assert_eq!(bench.cancel(), Some(486), "what is known goes at once");
    assert_eq!(bench.refuse("b", 487), Fate::TooLate);

    let mut bench = Bench::new();
    assert_eq!(bench.cancel(), None);
    assert_eq!(bench.cancel(), None, "a repetition");
    let Fate::Released(released) = bench.refuse("a", 487) else { panic!("the first one") };
    assert_eq!(released, 487);
    assert_eq!(bench.refuse("b", 487), Fate::TooLate);
    assert_eq!(bench.cancel(), None);

    // Its CANCEL went through another proxy, when the call was that one's.
    let mut bench = Bench::new();
    assert_eq!(bench.refuse("a", 486), Fate::Kept);
    assert_eq!(bench.refuse("b", 487), Fate::Kept);
    assert_eq!(bench.refuse("c", 486), Fate::Kept, "puts nothing off any more");
    assert_eq!(bench.wait(T64 / 4), Some(486));
}

/// An INVITE that comes again finds out what is known already, and does not ring where it is over.
#[test]
fn an_invite_that_comes_again_asks_nobody_twice() {
    let mut bench = Bench::new();
    let text = bytes("486 Busy Here", &vias("a", true), &[]);
    let branch_of = |phone: &str| {
        let text = bytes("486 Busy Here", &vias(phone, true), &[]);
        with_stray(&text, |stray, _| stray.branch.to_vec())
    };
    let call = with_stray(&text, |stray, _| stray.call.to_vec());
    assert!(!bench.withheld.is_over(&call));
    bench.refuse("a", 486);
    assert_eq!(bench.withheld.recall(&call, &branch_of("a")), Some(&486));
    assert_eq!(bench.withheld.recall(&call, &branch_of("b")), None);
    assert!(!bench.withheld.is_over(&call));
    bench.answer();
    assert_eq!(bench.withheld.recall(&call, &branch_of("a")), None);
    assert!(bench.withheld.is_over(&call));
    bench.wait(T64);
    assert!(!bench.withheld.is_over(&call));
    bench.cancel();
    assert!(bench.withheld.is_over(&call));
}

/// A full table withholds nothing more, and what it has it keeps.
#[test]
fn a_full_table_lets_refusals_pass() {
    let mut bench = Bench::new();
    for number in 0..CALLS_MAX {
        let call = number.to_string();
        bench.withheld.cancel(bench.now, call.as_bytes());
    }
    assert_eq!(bench.refuse("a", 486), Fate::Full);
    bench.answer();
    assert_eq!(bench.withheld.len(), CALLS_MAX);
    assert_eq!(bench.wait(T64), None);
    assert!(bench.withheld.is_empty());
    assert_eq!(bench.refuse("a", 486), Fate::Kept);
}
