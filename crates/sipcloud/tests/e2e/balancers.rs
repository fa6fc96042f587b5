//! A balancer dies or leaves under calls.

use std::net::SocketAddr;

use fleet::{InstanceId, Tier};
use load_client::Plan;
use node_api::wire::Event;

use crate::call::connect;
use crate::cloud::{Cloud, Data, PATIENCE, instances, kill, tier};
use crate::load::{self, CALLERS};
use crate::phone::{Incoming, Outgoing, Phone};

fn pid(cloud: &Cloud<'_>, slot: usize) -> u32 {
    let fleet = cloud.fleet();
    instances(&fleet, Tier::LoadBalancer)[slot - 1].pid.expect("a process")
}

/// Calls to bob that ring.
fn ringing(
    alice: &mut Phone,
    bob: &mut Phone,
    at: SocketAddr,
    count: usize,
) -> Vec<(Outgoing, Incoming)> {
    let mut call = || {
        let call = alice.dial(at, "bob");
        let rings = bob.ring();
        alice.hear_ringing(&call);
        (call, rings)
    };
    (0..count).map(|_| call()).collect()
}

/// Refuses one call and cancels the other, each at both sides.
fn end(alice: &mut Phone, bob: &mut Phone, calls: [(Outgoing, Incoming); 2]) {
    let [(refused, rings), (cancelled, rings_too)] = calls;
    std::thread::scope(|scope| {
        scope.spawn(|| bob.refuse(&rings, "486 Busy Here"));
        assert_eq!(alice.outcome(&refused).status(), Some(486));
    });
    std::thread::scope(|scope| {
        scope.spawn(|| bob.be_cancelled(&rings_too));
        alice.cancel(&cancelled);
        assert_eq!(alice.outcome(&cancelled).status(), Some(487));
    });
}

/// A balancer that is killed comes back at its address: who registered through it over UDP is called
/// as before, and what rang through it at either side is answered, refused and cancelled.
#[test]
fn a_killed_balancer_is_replaced_at_its_address() {
    let data = Data::claim(159).with_users(&["alice", "bob"]);
    let cloud = data.up("--balancers 2..2", "");
    let at = cloud.balancer(2);
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0));
    assert_eq!(bob.register(at, 600).status(), Some(200));
    let mut calls = ringing(&mut alice, &mut bob, at, 3);
    let before = cloud.fleet();
    let killed = pid(&cloud, 2);
    kill("KILL", killed);
    let after = cloud.wait("a replacement", PATIENCE, |fleet| {
        let now = instances(fleet, Tier::LoadBalancer);
        now.iter().all(|it| it.pid != Some(killed))
            && tier(fleet, Tier::LoadBalancer).in_service == 2
    });
    assert_eq!(after.instances.len(), before.instances.len());
    let (call, rings) = calls.remove(0);
    let (mut ours, _) = connect(&mut alice, &mut bob, &call, &rings, at);
    alice.hang_up(&mut ours, at, &mut bob);
    let [refused, cancelled] = calls.try_into().unwrap_or_else(|_| unreachable!("three less one"));
    end(&mut alice, &mut bob, [refused, cancelled]);
    for slot in [1, 2] {
        let call = alice.dial(cloud.balancer(slot), "bob");
        let rings = bob.ring();
        let (mut ours, _) = connect(&mut alice, &mut bob, &call, &rings, cloud.balancer(2));
        alice.hang_up(&mut ours, cloud.balancer(1), &mut bob);
    }
}

/// Lets a process go on when the test ends, however it does.
struct Stopped(u32);

impl Stopped {
    fn at(pid: u32) -> Self {
        kill("STOP", pid);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill("CONT", self.0);
    }
}

/// Goal: nobody takes the place of a dead balancer. The calls that its clients make are answered,
/// refused and cancelled through the other one, and its phones are called through that one; when it is
/// back, it serves.
///
/// Method: the manager is held up; the balancer is killed, or stopped so that only its silence tells.
fn calls_outlive_their_balancer(network: u8, signal: &str) {
    let data = Data::claim(network).with_users(&["alice", "bob", "carol"]);
    let cloud = data.up("--balancers 2..2 --proxies 2..2", "");
    let (living, dying) = (cloud.balancer(1), cloud.balancer(2));
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0));
    let mut carol = Phone::udp("carol", data.address(32, 3, 0));
    assert_eq!(bob.register(living, 600).status(), Some(200));
    assert_eq!(carol.register(dying, 600).status(), Some(200));
    let mut calls = ringing(&mut alice, &mut bob, dying, 3);
    let killed = pid(&cloud, 2);
    let seen = cloud.fleet().manager;
    let manager = Stopped::at(seen.pid);
    let woken = match signal {
        "STOP" => Some(Stopped::at(killed)),
        _ => {
            kill(signal, killed);
            None
        }
    };

    let (call, rings) = calls.remove(0);
    let (mut ours, _) = connect(&mut alice, &mut bob, &call, &rings, living);
    assert!(ours.leads_to(living), "ACK and BYE go where somebody is");
    alice.hang_up(&mut ours, living, &mut bob);
    let calls: Vec<_> =
        calls.into_iter().map(|(call, rings)| (call.through(living), rings)).collect();
    let [refused, cancelled] = calls.try_into().unwrap_or_else(|_| unreachable!("three less one"));
    end(&mut alice, &mut bob, [refused, cancelled]);
    let call = alice.dial(living, "carol");
    let rings = carol.ring();
    let (mut ours, _) = connect(&mut alice, &mut carol, &call, &rings, living);
    alice.hang_up(&mut ours, living, &mut carol);

    drop(woken);
    drop(manager);
    cloud.wait("both balancers", PATIENCE, |fleet| {
        let all = instances(fleet, Tier::LoadBalancer);
        fleet.manager.rounds_total > seen.rounds_total + 2
            && all.iter().all(|it| it.answers)
            && tier(fleet, Tier::LoadBalancer).in_service == 2
    });
    let call = alice.dial(dying, "carol");
    let rings = carol.ring();
    let (mut ours, _) = connect(&mut alice, &mut carol, &call, &rings, dying);
    alice.hang_up(&mut ours, dying, &mut carol);
}

#[test]
fn calls_go_on_through_another_balancer_while_nobody_replaces_a_killed_one() {
    calls_outlive_their_balancer(182, "KILL");
}

#[test]
fn calls_go_on_through_another_balancer_while_theirs_hangs() {
    calls_outlive_their_balancer(183, "STOP");
}

/// Goal: a balancer that leaves under load fails no call. It stays while transactions name it and while
/// a phone is registered through it; that one is asked to come back soon, and then finds another one.
#[test]
fn a_balancer_leaves_when_nothing_needs_it_and_no_call_fails() {
    let data = Data::claim(184).with_users(&CALLERS).with_users(&["carol"]);
    let cloud = data.up(
        "--balancers 2..2 --proxies 2..2",
        "timers.t1_ms = 100\ndns.ttl_s = 1\nregistration.expires_min_s = 2\n",
    );
    let _callees = load::direct_callees(&cloud);
    let (staying, leaving) = (cloud.balancer(1), cloud.balancer(2));
    let mut carol = Phone::udp("carol", data.address(32, 3, 0));
    assert_eq!(carol.register(leaving, 5).status(), Some(200));
    // The clients of one balancer do not know yet that it leaves.
    let callers = |at, from, schedule| {
        let plan = load::figure_4(&cloud, vec![at], &["trunk"], schedule);
        load::start(Plan { local: vec![data.address(31, from, 0)], ..plan })
    };
    let runs = [callers(staying, 1, "20@12s"), callers(leaving, 2, "20@4s")];
    let file = data.path().join("running.toml");
    let text = std::fs::read_to_string(&file).expect("written by the cloud");
    let (others, balancers) = text.split_once("[balancers]\n").expect("in it");
    let fewer = balancers.replacen("instances_min = 2", "instances_min = 1", 1).replacen(
        "instances_max = 2",
        "instances_max = 1",
        1,
    );
    std::fs::write(&file, format!("{others}[balancers]\n{fewer}")).expect("written");
    kill("HUP", cloud.fleet().manager.pid);
    cloud.wait("a drain", PATIENCE, |fleet| {
        instances(fleet, Tier::LoadBalancer).iter().any(|it| it.state == "draining")
    });
    let renewed = carol.register(leaving, 600);
    assert_eq!(renewed.contact_expires(), Some(2), "it comes back soon: {renewed:?}");
    assert_eq!(carol.register(staying, 600).contact_expires(), Some(600));
    for run in runs {
        load::assert_no_call_failed(&run.join().expect("the callers"));
    }
    cloud.wait("its end", PATIENCE, |fleet| instances(fleet, Tier::LoadBalancer).len() == 1);
    let events = cloud.events();
    let is_its_end =
        |it: &Event| it.instance == Some(InstanceId::balancer(2)) && it.text == "terminated: empty";
    assert!(events.iter().any(is_its_end), "it had become empty: {events:?}");
    let mut anna = Phone::udp("anna", data.address(32, 4, 0));
    let call = anna.dial(staying, "carol");
    let rings = carol.ring();
    let (mut ours, _) = connect(&mut anna, &mut carol, &call, &rings, staying);
    anna.hang_up(&mut ours, staying, &mut carol);
}
