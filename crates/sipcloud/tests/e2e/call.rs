//! Calls: Figure 4, requests that enter anywhere, cancelled, forked and refused calls.

use std::net::SocketAddr;

use fleet::Tier;
use load_client::{Registration, Uas, UasOptions};

use crate::cloud::{DOMAIN, Data, PATIENCE, instances};
use crate::load::{self, CALLERS};
use crate::phone::{Dialog, Incoming, Outgoing, Phone};

/// Figure 4 of the paper, whoever is called and whichever balancer is asked; both proxies take part.
#[test]
fn figure_4_succeeds_with_registered_and_direct_callees_through_one_balancer_and_two() {
    let data = Data::claim(141).with_users(&CALLERS).with_users(&["bob", "bill"]);
    let cloud = data.up("--balancers 2..2 --proxies 2..2", "");
    let trunk = load::direct_callees(&cloud);
    let both = vec![cloud.balancer(1), cloud.balancer(2)];
    let registered = Uas::start(UasOptions {
        users: vec![load::user("bob"), load::user("bill")],
        registration: Some(Registration::at(both.clone())),
        ..UasOptions::direct(vec![data.address(30, 3, 0), data.address(30, 4, 0)], DOMAIN)
    })
    .expect("callees");
    assert!(registered.wait_registered(2, PATIENCE), "{:?}", registered.counters());

    let one = vec![cloud.balancer(1)];
    let mut calls = 0;
    for (targets, callees) in [
        (&one, &["bob", "bill"][..]),
        (&one, &["trunk"]),
        (&both, &["bob", "bill"]),
        (&both, &["trunk"]),
    ] {
        let report = load::run(&load::figure_4(&cloud, targets.clone(), callees, "50@1s"));
        load::assert_no_call_failed(&report);
        calls += report.succeeded;
    }
    let ended = registered.stop().ended + trunk.stop().ended;
    assert_eq!((calls, ended), (200, 200), "every call was hung up at both sides");

    let fleet = cloud.wait("the count of calls", PATIENCE, |fleet| {
        instances(fleet, Tier::Proxy).iter().map(|it| it.calls_total).sum::<u64>() == calls
    });
    for proxy in instances(&fleet, Tier::Proxy) {
        assert!(proxy.calls_total > calls / 5, "{} took its share: {fleet:?}", proxy.instance);
    }
}

/// A caller over TCP, a callee over TCP, both, and the other side over UDP at another balancer.
#[test]
fn calls_cross_from_tcp_to_udp_and_back() {
    let data = Data::claim(142).with_users(&["alice", "bob"]);
    let cloud = data.up("--balancers 2..2 --proxies 2..2", "");
    let (here, there) = (cloud.balancer(1), cloud.balancer(2));
    type Make = fn(&Data, &str, SocketAddr) -> Phone;
    let udp: Make = |data, user, _| Phone::udp(user, data.address(32, user.as_bytes()[0], 0));
    let tcp: Make = |_, user, balancer| Phone::tcp(user, balancer);
    for (caller, callee) in [(tcp, udp), (udp, tcp), (tcp, tcp)] {
        let mut alice = caller(&data, "alice", here);
        let mut bob = callee(&data, "bob", there);
        assert_eq!(bob.register(there, 600).status(), Some(200));
        for is_caller_first in [true, false] {
            let call = alice.dial(here, "bob");
            let ringing = bob.ring();
            alice.hear_ringing(&call);
            let (mut ours, mut theirs) = connect(&mut alice, &mut bob, &call, &ringing, here);
            if is_caller_first {
                alice.hang_up(&mut ours, here, &mut bob);
            } else {
                bob.hang_up(&mut theirs, there, &mut alice);
            }
        }
        assert_eq!(bob.register(there, 0).status(), Some(200));
    }
}

/// Goal: after the INVITE, every request of a call may come by another balancer.
///
/// Method: calls over all combinations of the balancers for INVITE, ACK and BYE, the BYE from either
/// side; the Call-IDs spread them over three proxies.
#[test]
fn requests_of_a_call_enter_by_any_balancer() {
    let data = Data::claim(143).with_users(&["alice", "bob"]);
    let cloud = data.up("--balancers 2..2 --proxies 3..3", "");
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0));
    assert_eq!(bob.register(cloud.balancer(1), 600).status(), Some(200));
    for number in 0..16_u8 {
        let at = |bit: u8| cloud.balancer(1 + (number >> bit & 1));
        let call = alice.dial(at(0), "bob");
        let ringing = bob.ring();
        let (mut ours, mut theirs) = connect(&mut alice, &mut bob, &call, &ringing, at(1));
        if number >> 3 == 0 {
            alice.hang_up(&mut ours, at(2), &mut bob);
        } else {
            bob.hang_up(&mut theirs, at(2), &mut alice);
        }
    }
}

/// Picks up, and acknowledges at a balancer. Both at once: who picks up waits for the ACK.
pub(crate) fn connect(
    caller: &mut Phone,
    callee: &mut Phone,
    call: &Outgoing,
    ringing: &Incoming,
    at: SocketAddr,
) -> (Dialog, Dialog) {
    std::thread::scope(|scope| {
        let picked_up = scope.spawn(|| callee.pick_up(ringing));
        let answer = caller.outcome(call);
        let ours = caller.acknowledge(call, &answer, at);
        (ours, picked_up.join().expect("an ACK"))
    })
}

#[test]
fn a_call_cancelled_while_ringing_ends_at_both_sides() {
    let data = Data::claim(144).with_users(&["alice", "bob"]);
    let cloud = data.up("--proxies 2..2", "");
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0));
    assert_eq!(bob.register(cloud.balancer(1), 600).status(), Some(200));
    for _ in 0..4 {
        let call = alice.dial(cloud.balancer(1), "bob");
        let ringing = bob.ring();
        alice.hear_ringing(&call);
        alice.cancel(&call);
        bob.be_cancelled(&ringing);
        assert_eq!(alice.outcome(&call).status(), Some(487));
    }
}

/// Every device of a user rings; the one that is picked up has the call, the other one is cancelled.
#[test]
fn two_devices_ring_and_the_slower_one_is_cancelled() {
    let data = Data::claim(145).with_users(&["alice", "bob"]);
    let cloud = data.up("--balancers 2..2", "");
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut desk = Phone::udp("bob", data.address(32, 2, 0));
    let mut mobile = Phone::tcp("bob", cloud.balancer(2));
    assert_eq!(desk.register(cloud.balancer(1), 600).status(), Some(200));
    let bound = mobile.register(cloud.balancer(2), 600);
    assert_eq!(bound.values("Contact").len(), 2, "both are bound: {bound:?}");

    let call = alice.dial(cloud.balancer(1), "bob");
    let (at_desk, at_mobile) = (desk.ring(), mobile.ring());
    let (mut ours, _) = connect(&mut alice, &mut mobile, &call, &at_mobile, cloud.balancer(2));
    desk.be_cancelled(&at_desk);
    alice.hang_up(&mut ours, cloud.balancer(2), &mut mobile);

    // All busy: the caller hears so once, after the last one has said it.
    let call = alice.dial(cloud.balancer(1), "bob");
    let (at_desk, at_mobile) = (desk.ring(), mobile.ring());
    desk.refuse(&at_desk, "486 Busy Here");
    mobile.refuse(&at_mobile, "486 Busy Here");
    assert_eq!(alice.outcome(&call).status(), Some(486));
}

/// A phone behind an address translator is reached at the port that its REGISTER came from, and
/// answered there, whatever it believes about itself.
#[test]
fn a_phone_behind_an_address_translator_can_call_and_be_called() {
    let data = Data::claim(146).with_users(&["alice", "bob"]);
    let cloud = data.up("", "");
    let private = |last: u8| SocketAddr::from(([10, 0, 0, last], 5060));
    let mut alice = Phone::udp("alice", data.address(32, 1, 0)).believing(private(1));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0)).believing(private(2));
    for phone in [&mut alice, &mut bob] {
        assert_eq!(phone.register(cloud.balancer(1), 600).status(), Some(200));
    }
    let call = alice.dial(cloud.balancer(1), "bob");
    let ringing = bob.ring();
    assert_eq!(ringing.invite.uri(), "sip:bob@10.0.0.2:5060", "the contact as it was given");
    let (_, mut theirs) = connect(&mut alice, &mut bob, &call, &ringing, cloud.balancer(1));
    bob.hang_up(&mut theirs, cloud.balancer(1), &mut alice);
}

#[test]
fn what_cannot_be_served_is_refused_with_the_right_status() {
    let data = Data::claim(147).with_users(&["alice", "bob"]);
    let cloud = data.up("", "");
    let at = cloud.balancer(1);
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    // Nobody learns which users there are: those that are not registered and those that are not.
    for callee in ["nobody", "bob"] {
        let call = alice.dial(at, callee);
        assert_eq!(alice.outcome(&call).status(), Some(480), "{callee}");
    }

    let mut stranger = Phone::udp("alice", data.address(32, 2, 0)).with_password("wrong");
    assert_eq!(stranger.register(at, 600).status(), Some(401));
    let call = stranger.dial(at, "bob");
    assert_eq!(stranger.outcome(&call).status(), Some(407));

    // OPTIONS to the tier is answered without credentials, by address and by name.
    for uri in [format!("sip:{at}"), format!("sip:{DOMAIN}")] {
        let answer = alice.ask(at, "OPTIONS", &uri, &format!("<{uri}>"), &uri, "");
        assert_eq!(answer.status(), Some(200), "{answer:?}");
        assert!(answer.value("Allow").contains("INVITE"), "{answer:?}");
    }
    // Nothing is passed on to other domains for whoever cannot show that it belongs here.
    let elsewhere = "sip:carol@elsewhere.test";
    let ask = |phone: &mut Phone| {
        phone.ask(at, "MESSAGE", elsewhere, &format!("<{elsewhere}>"), "relay", "").status()
    };
    assert_eq!(ask(&mut stranger), Some(407));
    assert_eq!(ask(&mut stranger.of_domain("foreign.test")), Some(403));
}
