//! The owner of a call changes in the middle of it: proxies with real sockets, and a caller that
//! writes what a balancer would, so that each request takes exactly the way under test.

use std::net::SocketAddr;

use fleet::{
    BalancerMember, GenerationNumber, Incarnation, InstanceId, Member, Members, Membership,
    WEIGHT_NORMAL,
};
use proxy::Running;
use sip_core::handover::Way;
use sip_core::mac::KeyRing;
use sip_message::{Framing, Index};

use crate::balancer::via_line;
use crate::phone::Phone;

/// Proxies at 127.31.`net`.1 and up, a callee and a caller who is its own balancer.
pub(crate) struct Bed {
    pub(crate) proxies: Vec<(Running, SocketAddr)>,
    pub(crate) callee: Phone,
    pub(crate) caller: Phone,
    ring: KeyRing,
}

/// The way of a request: who comes first, who owns it now, who is walked back to.
pub(crate) struct Stops<'a>(pub(crate) &'a [usize], pub(crate) usize, pub(crate) &'a [usize]);

/// Only the first proxy, before any change.
pub(crate) const AT_A: Stops<'static> = Stops(&[], 0, &[]);
/// The second one owns it now; repeats may still come.
const A_THEN_B: Stops<'static> = Stops(&[0], 1, &[]);
/// Repeats can come no more.
const B_BACK_TO_A: Stops<'static> = Stops(&[], 1, &[0]);

impl Bed {
    pub(crate) fn new(net: u8, proxies: u8) -> Self {
        let callee = Phone::at(&format!("127.31.{net}.101:5060"));
        let caller = Phone::at(&format!("127.31.{net}.102:5060"));
        let start = |slot: u8| {
            let bob = crate::direct_binding(callee.address());
            crate::start_with(&format!("127.31.{net}.{slot}"), bob, |config| {
                config.instance = InstanceId::proxy(slot.into());
            })
        };
        let proxies: Vec<(Running, SocketAddr)> = (1..=proxies).map(start).collect();
        let balancer = BalancerMember {
            instance: InstanceId::balancer(1),
            incarnation: Incarnation(1),
            internal: caller.address(),
            advertised: caller.address(),
        };
        let member = |(slot, (_, address)): (u16, &(Running, SocketAddr))| Member {
            instance: InstanceId::proxy(slot),
            worker: 0,
            incarnation: Incarnation(1),
            address: *address,
            weight: WEIGHT_NORMAL,
        };
        let members = Members {
            proxies: (1..).zip(&proxies).map(member).collect(),
            balancers: vec![balancer],
            ..Members::default()
        };
        let membership = Membership::new(GenerationNumber { fence: 1, counter: 1 }, 1, members);
        for (proxy, _) in &proxies {
            proxy.handle().put_membership(membership.clone()).expect("taken");
        }
        let ring = KeyRing::new(&crate::keys()).expect("sound keys");
        Self { proxies, callee, caller, ring }
    }

    /// Sends what the caller says as a balancer of generation 1.`counter` would.
    pub(crate) fn send(&self, counter: u64, stops: &Stops<'_>, text: &str) {
        let Stops(earlier, present, back) = stops;
        let address = |place: usize| self.proxies[place].1;
        let mut way = Way::new(GenerationNumber { fence: 1, counter });
        earlier.iter().for_each(|&place| way.push_earlier(Some(address(place))));
        way.push_present(address(*present));
        back.iter().for_each(|&place| way.push_back(Some(address(place))));
        let mut index = Index::new();
        let message = sip_message::parse(text.as_bytes(), &mut index, Framing::Datagram)
            .unwrap_or_else(|malformed| panic!("{}: {text}", malformed.error));
        let client = self.caller.address();
        let mut lines = via_line(&self.ring, client, client, &message);
        way.write(&self.ring, message.call_id(), &mut lines);
        let lines = String::from_utf8(lines).expect("text");
        self.caller.send(way.first(), &text.replacen("\r\n", &format!("\r\n{lines}"), 1));
    }

    /// An INVITE that rings at the callee, sent the way `stops`; both the INVITE as the caller wrote
    /// it and as the callee got it.
    pub(crate) fn ring(&mut self, stops: &Stops<'_>) -> (String, String) {
        self.send(1, stops, &self.caller.invite(1, None));
        let challenge = self.caller.expect("407");
        self.send(1, stops, &self.caller.ack(1, &challenge, None));
        let credentials = self.caller.credentials(&challenge, "INVITE", "sip:bob@example.com");
        let invite = self.caller.invite(2, Some(&credentials));
        self.send(1, stops, &invite);
        self.caller.expect("100");
        let ringing = self.callee.expect("INVITE");
        self.callee.answer(&ringing, "180 Ringing");
        self.caller.expect("180");
        (invite, ringing)
    }

    /// The caller cancels; everything ends as RFC 3261 has it.
    fn cancel(&mut self, stops: &Stops<'_>, ringing: &str) {
        self.send(2, stops, &self.caller.cancel(2));
        let cancel = self.callee.expect("CANCEL");
        self.callee.answer(&cancel, "200 OK");
        self.callee.answer(ringing, "487 Request Terminated");
        self.callee.expect("ACK");
        let ended = self.caller.expect("487");
        self.send(2, stops, &self.caller.ack(2, &ended, None));
    }

    /// Requests that began something at this proxy.
    fn begun(&self, place: usize) -> u64 {
        let text = self.proxies[place].0.handle().metrics();
        let of = |line: &&str| {
            line.starts_with("sipcloud_proxy_requests_total")
                && ["INVITE", "BYE"].iter().any(|method| line.contains(method))
        };
        let count = |line: &str| line.rsplit(' ').next().and_then(|it| it.parse::<u64>().ok());
        text.lines().filter(of).filter_map(count).sum()
    }

    fn oldest_stamp(&self, place: usize) -> Option<u64> {
        self.proxies[place].0.handle().status().oldest_stamp.map(|stamp| stamp.counter)
    }

    /// Waits until the worker of this proxy has shown its oldest stamp.
    fn wait_for_stamp(&self, place: usize, counter: u64) {
        for _ in 0..100_000 {
            if self.oldest_stamp(place) == Some(counter) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("proxy {place} shows {:?}", self.oldest_stamp(place));
    }

    pub(crate) fn stop(self) {
        for (proxy, _) in self.proxies {
            proxy.stop();
        }
    }
}

#[test]
fn what_began_at_the_earlier_owner_ends_there() {
    let mut bed = Bed::new(41, 2);
    let (invite, ringing) = bed.ring(&AT_A);
    bed.wait_for_stamp(0, 1);

    bed.send(2, &A_THEN_B, &invite);
    let again = bed.caller.expect("180");
    assert!(again.contains("tag=callee"), "the last response, not another call: {again}");
    bed.cancel(&A_THEN_B, &ringing);

    assert_eq!((bed.begun(0), bed.begun(1)), (2, 0), "the new owner never saw it");
    bed.stop();
}

/// Goal: a copy of an INVITE that its own repetition has overtaken, and that is sent as if nothing had
/// changed, begins nothing at the earlier owner; one that is sent by a later generation does.
#[test]
fn an_invite_that_its_repetition_has_overtaken_goes_after_it() {
    let mut bed = Bed::new(49, 2);
    let (invite, _) = bed.ring(&A_THEN_B);
    bed.send(0, &AT_A, &invite);
    let again = bed.caller.expect("180");
    assert!(again.contains("tag=callee"), "the last response, not another call: {again}");
    assert_eq!((bed.begun(0), bed.begun(1)), (0, 2));

    bed.send(3, &AT_A, &invite);
    bed.callee.expect("INVITE");
    assert_eq!(bed.begun(0), 1);
    bed.stop();
}

/// The same when the copy was late between two proxies: it ends where its repetition was passed on.
#[test]
fn a_copy_that_was_late_between_proxies_goes_after_its_repetition() {
    let mut bed = Bed::new(54, 3);
    let (invite, _) = bed.ring(&Stops(&[1], 2, &[]));
    bed.send(0, &A_THEN_B, &invite);
    let again = bed.caller.expect("180");
    assert!(again.contains("tag=callee"), "the last response, not another call: {again}");
    assert_eq!((bed.begun(0), bed.begun(1), bed.begun(2)), (0, 0, 2));
    bed.stop();
}

#[test]
fn what_the_earlier_owner_does_not_know_goes_on_unchanged() {
    let mut bed = Bed::new(42, 2);
    let (_, ringing) = bed.ring(&A_THEN_B);
    let b = bed.proxies[1].1;
    assert!(ringing.contains(&format!("Via: SIP/2.0/UDP {b};")), "{ringing}");
    assert!(!ringing.contains(&bed.proxies[0].1.to_string()), "no trace of the other: {ringing}");
    assert!(ringing.contains("Max-Forwards: 69"), "one hop, and not two: {ringing}");
    assert!(!ringing.contains("X-SipCloud"), "nothing private leaves: {ringing}");
    bed.wait_for_stamp(1, 1);
    assert_eq!(bed.oldest_stamp(0), None);
    bed.cancel(&A_THEN_B, &ringing);
    assert_eq!((bed.begun(0), bed.begun(1)), (0, 2));
    bed.stop();
}

#[test]
fn a_cancel_and_the_ack_to_a_refusal_walk_back_when_the_call_has_rung_long() {
    let mut bed = Bed::new(43, 2);
    let (_, ringing) = bed.ring(&AT_A);
    bed.cancel(&B_BACK_TO_A, &ringing);
    // The ACK was absorbed: the refusal is not repeated, and the next thing heard is the marker.
    bed.send(2, &AT_A, &bed.caller.request("OPTIONS", "sip:example.com", "example.com"));
    let next = bed.caller.expect("");
    assert!(!next.starts_with("SIP/2.0 487"), "{next}");
    bed.stop();
}

/// A → B → C while the callee rings: the refusal and its ACK.
#[test]
fn changes_overlap_and_the_oldest_owner_is_asked_first() {
    let mut bed = Bed::new(44, 3);
    let (invite, ringing) = bed.ring(&AT_A);
    let way = Stops(&[0, 1], 2, &[]);
    bed.send(3, &way, &invite);
    bed.caller.expect("180");
    bed.callee.answer(&ringing, "486 Busy Here");
    bed.callee.expect("ACK");
    let refused = bed.caller.expect("486");
    bed.send(3, &way, &bed.caller.ack(2, &refused, None));
    assert_eq!((bed.begun(0), bed.begun(1), bed.begun(2)), (2, 0, 0));
    bed.stop();
}

/// A dialog outlives its first owner: the ACK to the 2xx and the BYE pass it, whichever side of the
/// change they are on.
#[test]
fn an_answered_call_goes_on_at_the_new_owner() {
    for (net, change) in [(45, A_THEN_B), (46, B_BACK_TO_A)] {
        let mut bed = Bed::new(net, 2);
        let (_, ringing) = bed.ring(&AT_A);
        bed.callee.answer(&ringing, "200 OK");
        let answered = bed.caller.expect("200");
        bed.send(2, &change, &bed.caller.ack(2, &answered, Some(&answered)));
        bed.callee.expect("ACK");
        // A BYE never walks back; while repeats may come it passes the earlier owner.
        let bye_way = if change.0.is_empty() { Stops(&[], 1, &[]) } else { A_THEN_B };
        bed.send(2, &bye_way, &bed.caller.bye(3, &answered, None));
        let challenge = bed.caller.expect("407");
        let uri = crate::phone::contact_of(&answered);
        let credentials = bed.caller.credentials(&challenge, "BYE", &uri);
        bed.send(2, &bye_way, &bed.caller.bye(4, &answered, Some(&credentials)));
        let bye = bed.callee.expect("BYE");
        bed.callee.answer(&bye, "200 OK");
        bed.caller.expect("200");
        assert!(bye.contains(&bed.proxies[1].1.to_string()), "the new owner's Via: {bye}");
        bed.stop();
    }
}

#[test]
fn a_cancel_that_matches_nowhere_is_refused_once_at_the_end_of_its_way() {
    let mut bed = Bed::new(47, 2);
    bed.caller.invite(1, None);
    for way in [A_THEN_B, B_BACK_TO_A] {
        bed.send(2, &way, &bed.caller.cancel(1));
        bed.caller.expect("481");
        bed.caller.invite(1, None);
    }
    bed.stop();
}

/// Somebody who reaches a proxy directly cannot make it send anywhere.
#[test]
fn a_way_without_a_balancers_via_is_not_followed() {
    let mut bed = Bed::new(48, 2);
    let mut way = Way::new(GenerationNumber { fence: 1, counter: 1 });
    way.push_earlier(Some(bed.proxies[0].1));
    way.push_present(bed.proxies[1].1);
    let request = bed.caller.request("OPTIONS", "sip:127.31.48.1:5060", "example.com");
    let mut line = Vec::new();
    way.write(&bed.ring, b"alice-at-127.31.48.102", &mut line);
    let line = String::from_utf8(line).expect("text");
    let text = request.replacen("\r\n", &format!("\r\n{line}"), 1);
    bed.caller.send(bed.proxies[0].1, &text);
    bed.caller.expect("200");
    let handed_on = bed.proxies[0].0.handle().metrics();
    assert!(handed_on.contains("handed_on_total{worker=\"0\"} 0\n"), "{handed_on}");
    bed.stop();
}
