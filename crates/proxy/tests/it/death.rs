//! The proxy of a ringing call dies: what its callee says next comes to another.

use std::net::SocketAddr;

use fleet::{GenerationNumber, Incarnation, InstanceId, Membership};
use sip_message::{Framing, Index};

use crate::handover::{AT_A, Bed, Stops};

/// The proxy that is left when the first one is dead.
const AT_B: Stops<'static> = Stops(&[], 0, &[]);

/// The branches of the Vias, topmost first.
fn branches(message: &str) -> Vec<String> {
    let mut index = Index::new();
    let parsed = sip_message::parse(message.as_bytes(), &mut index, Framing::Datagram);
    let parsed = parsed.unwrap_or_else(|malformed| panic!("{}: {message}", malformed.error));
    let branch = |via: sip_message::Via<'_>| {
        String::from_utf8_lossy(via.branch().expect("a branch")).into_owned()
    };
    parsed.vias().map(|via| branch(via.expect("a Via"))).collect()
}

fn inherited(bed: &Bed, outcome: &str) -> u64 {
    let text = bed.proxies.last().expect("one lives").0.handle().metrics();
    let label = format!("outcome=\"{outcome}\"");
    let line = text.lines().find(|line| line.contains(&label)).expect("a metric");
    line.rsplit(' ').next().and_then(|it| it.parse().ok()).expect("a number")
}

/// Kills the first proxy; returns where the other one is.
fn kill_a(bed: &mut Bed) -> SocketAddr {
    bed.proxies.remove(0).0.stop();
    bed.proxies[0].1
}

/// A call that rang when its proxy died is answered: whoever owns it now takes the dead one's Via off
/// and sends the response the way that the Via below says.
#[test]
fn a_response_past_its_dead_proxy_reaches_the_caller() {
    let mut bed = Bed::new(51, 2);
    let (invite, ringing) = bed.ring(&AT_A);
    let b = kill_a(&mut bed);
    for _ in 0..2 {
        bed.callee.answer_to(b, &ringing, "200 OK");
        let answered = bed.caller.expect("200");
        assert_eq!(branches(&answered)[1..], branches(&invite), "below the balancer's Via");
        assert_eq!(branches(&answered), branches(&ringing)[1..], "only the dead proxy's is gone");
    }
    assert_eq!(inherited(&bed, "forwarded"), 2);
    // A 100, and what answers a CANCEL, was for the dead proxy alone.
    bed.callee.answer_to(b, &ringing, "100 Trying");
    bed.callee.answer_to(b, &ringing.replace("2 INVITE", "2 CANCEL"), "200 OK");
    bed.callee.answer_to(b, &ringing, "486 Busy Here");
    let next = bed.caller.next();
    assert!(next.starts_with("SIP/2.0 486"), "{next}");
    bed.stop();
}

/// A caller that has heard nothing sends its INVITE again. The phone takes the copy of the new owner
/// for a repetition, and whatever it answers, to whomever, belongs to the new owner's transaction.
#[test]
fn an_invite_that_comes_again_after_the_death_is_the_same_call() {
    let mut bed = Bed::new(52, 2);
    let (invite, ringing) = bed.ring(&AT_A);
    let b = kill_a(&mut bed);
    bed.send(2, &AT_B, &invite);
    bed.caller.expect("100");
    let again = bed.callee.expect("INVITE");
    assert_eq!(branches(&again)[0], branches(&ringing)[0], "the phone knows it");

    bed.callee.answer_to(b, &ringing, "180 Ringing");
    bed.caller.expect("180");
    bed.callee.answer_to(b, &ringing, "486 Busy Here");
    let ack = bed.callee.expect("ACK");
    assert_eq!(branches(&ack), branches(&again)[..1]);
    let refused = bed.caller.expect("486");
    assert_eq!(branches(&refused)[1..], branches(&invite));
    bed.send(2, &AT_B, &bed.caller.ack(2, &refused, None));
    assert_eq!((inherited(&bed, "matched"), inherited(&bed, "forwarded")), (2, 0));
    bed.stop();
}

/// The dead one's place has been taken, at the same address: what still comes there for the dead one
/// goes on to the owner of the call.
#[test]
fn whoever_has_a_dead_proxys_address_passes_its_responses_on_to_the_owner() {
    let mut bed = Bed::new(53, 2);
    let (invite, ringing) = bed.ring(&AT_A);
    let (dead, address) = bed.proxies.remove(0);
    dead.stop();
    let (heir, _) = crate::start_with(
        &address.ip().to_string(),
        crate::direct_binding(bed.callee.address()),
        |config| config.incarnation = Incarnation(2),
    );
    bed.proxies.insert(0, (heir, address));
    let known = bed.proxies[1].0.handle().membership().expect("a membership");
    let mut members = known.members();
    members.proxies[0].incarnation = Incarnation(2);
    members.proxies[0].weight = 0;
    let number = GenerationNumber { fence: 1, counter: 2 };
    let newer = Membership::new(number, known.rows, members);
    for (proxy, _) in &bed.proxies {
        proxy.handle().put_membership(newer.clone()).expect("newer");
    }
    assert_eq!(newer.proxies[0].instance, InstanceId::proxy(1));

    bed.callee.answer_to(address, &ringing, "200 OK");
    let answered = bed.caller.expect("200");
    assert_eq!(branches(&answered)[1..], branches(&invite));
    assert_eq!(inherited(&bed, "forwarded"), 1, "by the owner");
    bed.stop();
}
