//! Rule 24 on virtual time: what is repeated when, until what, and what goes when room is short.

use std::net::SocketAddr;

use sip_message::{OwnedMessage, Transport};
use testkit::{epoch, request, response_to};

use super::*;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const MEMBER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const ROOMY: usize = 1 << 20;

fn flow(number: u32) -> Flow {
    Flow {
        listener: 0,
        transport: Transport::Tcp,
        remote: SocketAddr::from(([192, 0, 2, 1], 40_000)),
        connection: Some(connection(number)),
    }
}

fn connection(number: u32) -> StreamId {
    StreamId { number, incarnation: 1 }
}

/// A ledger, its clock, and one connection of a client.
struct Desk {
    ledger: Ledger,
    now: Instant,
}

impl Desk {
    fn new(bytes_max: usize) -> Self {
        let mut ledger = Ledger::new(Timing::default(), bytes_max);
        ledger.opened(connection(1), CLIENT, epoch());
        Self { ledger, now: epoch() }
    }

    fn key(message: &OwnedMessage) -> Key {
        let view = message.view();
        let branch = view.top_via().ok().and_then(|via| via.branch()).unwrap_or_default();
        Key::new(connection(1), branch, &view)
    }

    /// A client's request on the connection.
    fn ask(&mut self, message: &OwnedMessage) {
        self.ledger.keep_request(&Self::key(message), &message.view(), &flow(1), self.now);
    }

    /// A response to that client.
    fn tell(&mut self, message: &OwnedMessage, status: u16) {
        self.ledger.hear_response(&Self::key(message), status, connection(1), self.now);
    }

    /// A final or provisional response of the peer on the connection to `message`.
    fn answer(&mut self, message: &OwnedMessage, status: u16) {
        let response = response_to(message, status, "callee");
        let key = Self::key(&response);
        self.ledger.keep_response(&key, &response.view(), &flow(1), self.now);
    }

    /// A proxy's request for the peer on the connection.
    fn pass(&mut self, message: &OwnedMessage) -> Passage {
        self.ledger.let_pass(&Self::key(message), &message.view(), connection(1), self.now)
    }

    /// Milliseconds after the start at which something was repeated, and the first line of it.
    fn run(&mut self, until: Duration) -> Vec<(u128, String)> {
        let end = epoch() + until;
        let mut seen = Vec::new();
        while let Some(at) = self.ledger.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Vec::new();
            self.ledger.handle_timeout(self.now, &mut out);
            let millis = (self.now - epoch()).as_millis();
            seen.extend(out.iter().map(|kept| (millis, first_word(&kept.bytes))));
        }
        self.now = end;
        seen
    }

    fn times(&mut self, until: Duration) -> Vec<u128> {
        self.run(until).into_iter().map(|(at, _)| at).collect()
    }

    fn is_at_rest(&self) -> bool {
        self.at_rest_for(Duration::ZERO) == [connection(1)]
    }

    fn at_rest_for(&self, quiet: Duration) -> Vec<StreamId> {
        self.ledger.at_rest(quiet, self.now, |ip| ip == MEMBER).collect()
    }
}

fn first_word(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split(' ');
    let first = words.next().unwrap_or_default();
    let status = words.next().unwrap_or_default();
    if first == "SIP/2.0" { status.to_owned() } else { first.to_owned() }
}

fn invite() -> OwnedMessage {
    request("INVITE sip:bob@example.com SIP/2.0\nCall-ID: one")
}

fn bye() -> OwnedMessage {
    request("BYE sip:bob@example.com SIP/2.0\nCall-ID: one\nCSeq: 2 BYE")
}

const MINUTE: Duration = Duration::from_secs(60);

/// Goal: an INVITE that nobody answers is repeated as Timer A would, and given up after 64·T1.
#[test]
fn an_unanswered_invite_of_a_stream_client_is_repeated_on_timer_a() {
    let mut desk = Desk::new(ROOMY);
    desk.ask(&invite());
    assert_eq!(desk.times(MINUTE), [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    let counters = desk.ledger.counters();
    assert_eq!((counters.requests_open, counters.requests_expired_total), (0, 1));
    assert_eq!(counters.bytes, 0, "nothing is left of it");
    assert!(desk.is_at_rest());
}

#[test]
fn an_unanswered_bye_of_a_stream_client_is_repeated_on_timer_e() {
    let mut desk = Desk::new(ROOMY);
    desk.ask(&bye());
    let times = desk.times(MINUTE);
    assert_eq!(times, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
}

/// Goal: what ends the repetition of what. Method: each response once, one second after the
/// request; then how often the request is still repeated, and whether it is open after 40 s.
#[test]
fn responses_end_or_slow_repetition() {
    let table = [
        ("100 to INVITE", invite(), 100, vec![500, 1_500, 3_500, 7_500, 15_500, 31_500], false),
        ("180 to INVITE", invite(), 180, vec![500], true),
        ("200 to INVITE", invite(), 200, vec![500], false),
        ("486 to INVITE", invite(), 486, vec![500], false),
        (
            "100 to BYE",
            bye(),
            100,
            vec![500, 1_500, 5_500, 9_500, 13_500, 17_500, 21_500, 25_500, 29_500],
            false,
        ),
        ("200 to BYE", bye(), 200, vec![500], false),
    ];
    for (name, request, status, expected, is_open) in table {
        let mut desk = Desk::new(ROOMY);
        desk.ask(&request);
        let mut times = desk.times(Duration::from_secs(1));
        desk.tell(&request, status);
        times.extend(desk.times(Duration::from_secs(40)));
        assert_eq!(times, expected, "{name}");
        assert_eq!(desk.ledger.counters().requests_open == 1, is_open, "{name}");
        assert_eq!(desk.is_at_rest(), !is_open, "{name}: a call that rings holds its connection");
    }
}

#[test]
fn a_call_that_rings_is_open_until_timer_c_lets_no_call_ring_any_more() {
    let mut desk = Desk::new(ROOMY);
    desk.ask(&invite());
    desk.tell(&invite(), 180);
    desk.run(Duration::from_secs(211));
    assert!(!desk.is_at_rest());
    desk.run(Duration::from_secs(213));
    assert!(desk.is_at_rest());
}

#[test]
fn a_clients_own_repeat_and_an_ack_are_not_kept_again() {
    let mut desk = Desk::new(ROOMY);
    desk.ask(&invite());
    desk.ask(&invite());
    desk.ask(&request("ACK sip:bob@example.com SIP/2.0\nCall-ID: two"));
    assert_eq!(desk.ledger.counters().requests_open, 1);
    assert_eq!(desk.times(Duration::from_secs(1)), [500]);
    // Another connection's response is not this one's.
    let other = Key::new(connection(2), b"z9hG4bKtest1", &invite().view());
    desk.ledger.hear_response(&other, 200, connection(2), desk.now);
    assert_eq!(desk.ledger.counters().requests_open, 1);
}

/// Goal: a refusal that a callee on a stream gives once reaches a proxy that lost it, or its heir:
/// repeated until the ACK, as Timer G would.
#[test]
fn a_refusal_from_a_stream_is_repeated_until_its_ack() {
    let mut desk = Desk::new(ROOMY);
    assert_eq!(desk.pass(&invite()), Passage::Through);
    assert!(!desk.is_at_rest());
    desk.answer(&invite(), 180);
    desk.answer(&invite(), 486);
    assert!(desk.is_at_rest());
    let seen = desk.run(Duration::from_secs(8));
    let expected = [500, 1_500, 3_500, 7_500].map(|at| (at, "486".to_owned()));
    assert_eq!(seen, expected);

    let ack = request("ACK sip:bob@example.com SIP/2.0\nCall-ID: one");
    assert_eq!(desk.pass(&ack), Passage::Through);
    assert_eq!(desk.pass(&ack), Passage::Absorbed, "the callee has it");
    assert_eq!(desk.run(Duration::from_secs(31)), []);
    let replayed = desk.pass(&invite());
    assert!(matches!(&replayed, Passage::Replay(kept) if first_word(&kept.bytes) == "486"));
    assert_eq!(desk.run(MINUTE), []);
    assert_eq!(desk.pass(&invite()), Passage::Through, "forgotten after 64 T1");
}

#[test]
fn a_refusal_without_ack_is_repeated_every_t2_and_given_up_after_64_t1() {
    let mut desk = Desk::new(ROOMY);
    desk.answer(&invite(), 486);
    let times = desk.times(MINUTE);
    assert_eq!(times, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    assert_eq!(desk.ledger.counters().responses_kept, 0);
}

/// Goal: another final response is replayed to a repeated request and not repeated by itself; a
/// 2xx to an INVITE is the callee's own to repeat.
#[test]
fn another_final_response_from_a_stream_is_replayed_to_a_repeated_request() {
    let mut desk = Desk::new(ROOMY);
    assert_eq!(desk.pass(&bye()), Passage::Through);
    desk.answer(&bye(), 200);
    assert_eq!(desk.run(Duration::from_secs(31)), []);
    for _ in 0..2 {
        let passage = desk.pass(&bye());
        assert!(matches!(&passage, Passage::Replay(kept) if first_word(&kept.bytes) == "200"));
    }
    assert_eq!(desk.ledger.counters().responses_replayed_total, 2);

    desk.answer(&invite(), 200);
    assert_eq!(desk.pass(&invite()), Passage::Through);
}

/// Goal: both stores are bounded, the oldest go, and it is counted. Method: a hundred requests and
/// responses into room for some.
#[test]
fn when_full_the_oldest_go_and_are_counted() {
    let mut desk = Desk::new(8_000);
    let numbered =
        |number: u32| request(&format!("BYE sip:b SIP/2.0\nCall-ID: {number}\nCSeq: 2 BYE"));
    for number in 0..100 {
        desk.ask(&numbered(number));
        desk.answer(&numbered(number + 1_000), 200);
    }
    let counters = desk.ledger.counters();
    assert!(counters.bytes <= 16_000, "{counters:?}");
    assert!((2..50).contains(&counters.requests_open), "{counters:?}");
    let kept = (counters.requests_open + counters.responses_kept) as u64;
    assert_eq!(counters.evicted_total, 200 - kept);
    assert!(matches!(desk.pass(&numbered(1_099)), Passage::Replay(_)), "the newest is there");
    assert_eq!(desk.pass(&numbered(1_000)), Passage::Through, "the oldest is not");

    let mut tiny = Desk::new(100);
    tiny.ask(&invite());
    let counters = tiny.ledger.counters();
    assert_eq!((counters.requests_open, counters.evicted_total), (0, 1), "larger than the store");
    assert!(tiny.is_at_rest(), "what was not kept holds nothing");
}

#[test]
fn a_connection_is_at_rest_between_transactions_and_after_a_quiet_time() {
    let mut desk = Desk::new(ROOMY);
    desk.ledger.opened(connection(2), MEMBER, epoch());
    let quiet = Duration::from_secs(2);
    assert_eq!(desk.at_rest_for(quiet), [], "it has only just come");
    desk.ask(&bye());
    desk.now += quiet;
    assert_eq!(desk.at_rest_for(quiet), [], "a transaction is open");
    desk.tell(&bye(), 200);
    assert_eq!(desk.at_rest_for(quiet), [], "the client may go on at once");
    desk.now += quiet;
    assert_eq!(desk.at_rest_for(quiet), [connection(1)], "never a member's");
    assert_eq!(desk.ledger.clients(|ip| ip == MEMBER), 1);
    desk.ledger.closed(connection(1));
    assert_eq!(desk.ledger.clients(|ip| ip == MEMBER), 0);
}
