//! Members that die, freeze and come back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fleet::InstanceId;
use node_api::server::NodeHandle;
use node_api::wire::{DoubtReason, MemberInDoubt};

use crate::bed::{AnsweringPeer, Bed, request, wait};

const VIA: &str = "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport\r\n";

/// Members that are skipped. Others may be suspect for a moment, if this machine is busy.
fn dead(bed: &Bed) -> Vec<MemberInDoubt> {
    let mut members = bed.balancer.node().status().members_in_doubt;
    members.retain(|member| member.is_dead);
    members
}

/// Sends as many requests of as many calls as there are numbers.
fn send_calls(bed: &Bed, port: u16, numbers: std::ops::Range<u32>) {
    let client = bed.peer(&format!("30.1:{port}"));
    for number in numbers {
        client.send(request("INVITE", &format!("call-{number}"), VIA));
    }
}

fn receive_all(peer: &AnsweringPeer, count: usize) {
    for _ in 0..count {
        peer.receive();
    }
}

/// Goal: a frozen process (it listens, and nothing answers) is suspect, then dead and skipped. That
/// it answers again brings it back only together with a generation, and the manager can see both.
#[test]
fn a_frozen_member_is_skipped_and_returns_with_a_generation() {
    let mut bed = Bed::new(55);
    let first = bed.peer("20.1:5060").answering();
    let second = bed.peer("20.2:5060").answering();
    bed.put(&[1, 2]);
    let know = |peer: &AnsweringPeer| peer.answered.load(Ordering::Relaxed) >= 3;
    wait("an answer of both", || know(&first) && know(&second));
    assert_eq!(dead(&bed), []);

    second.answers.store(false, Ordering::Relaxed);
    wait("the death", || !dead(&bed).is_empty());
    let [doubt] = &dead(&bed)[..] else { panic!("one is dead") };
    assert_eq!((doubt.instance, doubt.reason), (InstanceId::proxy(2), DoubtReason::Silent));
    assert!(!doubt.answers);
    send_calls(&bed, 5060, 0..16);
    receive_all(&first, 16);

    second.answers.store(true, Ordering::Relaxed);
    wait("an answer", || dead(&bed).iter().any(|doubt| doubt.answers));
    send_calls(&bed, 5061, 16..32);
    receive_all(&first, 16);

    bed.put(&[1, 2]);
    wait("the return", || dead(&bed).is_empty());
    send_calls(&bed, 5062, 0..64);
    second.receive();
    let metrics = bed.balancer.node().metrics();
    for line in [
        "sipcloud_balancer_members{state=\"dead\"} 0\n",
        "sipcloud_balancer_member_transitions_total{to=\"dead\",reason=\"silent\"} 1\n",
        "sipcloud_balancer_member_transitions_total{to=\"alive\",reason=\"generation\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
}

/// Goal: under load a death is known from the messages that come back, not from the next round of
/// probes. Method: there is no next round.
#[test]
fn a_dead_member_is_found_by_the_messages_that_come_back() {
    let mut bed = Bed::with(56, |config| config.probing.interval = Duration::from_secs(3_600));
    let first = bed.peer("20.1:5060").answering();
    bed.put(&[1, 2]);
    let mut number = 0;
    wait("the death", || {
        number += 1;
        send_calls(&bed, 5060, number..number + 1);
        !dead(&bed).is_empty()
    });
    let [doubt] = &dead(&bed)[..] else { panic!("one is dead") };
    assert_eq!((doubt.instance, doubt.reason), (InstanceId::proxy(2), DoubtReason::Refused));
    while first.inbox.try_recv().is_ok() {}
    send_calls(&bed, 5061, 1_000..1_064);
    receive_all(&first, 64);
}
