//! Registrations: what is bound, for how long, and what outlives the cloud.

use crate::call::connect;
use crate::cloud::{DOMAIN, Data, PASSWORD, PATIENCE, eventually};
use crate::phone::Phone;

/// A phone that registered before a restart is called after it, without having registered again.
#[test]
fn users_and_live_bindings_survive_a_restart() {
    let data = Data::claim(148).with_users(&["alice", "bob"]);
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0));
    let cloud = data.up("--balancers 2..2", "");
    assert_eq!(bob.register(cloud.balancer(2), 600).status(), Some(200));
    let before = data.good("registration list --json", "");
    cloud.stop();

    let cloud = data.up("--balancers 2..2", "");
    let seconds_left = |text: &str| {
        let line: serde_json::Value = serde_json::from_str(text).expect("one registration");
        (line["binding"].clone(), line["expires_s"].as_u64().expect("a time"))
    };
    let (bound, left) = seconds_left(&before);
    let (still_bound, still_left) = seconds_left(&data.good("registration list --json", ""));
    assert!(still_bound == bound && still_left <= left && still_left > left - 60);

    let call = alice.dial(cloud.balancer(1), "bob");
    let ringing = bob.ring();
    let (mut ours, _) = connect(&mut alice, &mut bob, &call, &ringing, cloud.balancer(1));
    alice.hang_up(&mut ours, cloud.balancer(2), &mut bob);
}

#[test]
fn a_binding_ends_when_it_expires_and_when_it_is_removed() {
    let data = Data::claim(149).with_users(&["alice", "bob"]);
    let cloud = data.up("--balancers 2..2", "registration.expires_min_s = 1");
    let (here, there) = (cloud.balancer(1), cloud.balancer(2));
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0));
    let status_of_a_call = |alice: &mut Phone| {
        let call = alice.dial(here, "bob");
        alice.outcome(&call).status()
    };

    assert_eq!(bob.register(here, 1).status(), Some(200));
    let gone = || data.good("registration list", "").is_empty().then_some(());
    assert_eq!(eventually(PATIENCE, gone), Some(()), "it expires");
    assert_eq!(status_of_a_call(&mut alice), Some(480));

    // Bound by one balancer, removed by the other.
    assert_eq!(bob.register(here, 600).status(), Some(200));
    let removed = bob.register(there, 0);
    assert_eq!((removed.status(), removed.values("Contact").len()), (Some(200), 0));
    assert_eq!(status_of_a_call(&mut alice), Some(480));
    assert!(!bob.is_called());
}

/// What an operator changes counts from the next request on.
#[test]
fn commands_take_effect_while_the_cloud_runs() {
    let data = Data::claim(150).with_users(&["bob"]);
    let cloud = data.up("", "");
    let at = cloud.balancer(1);
    let mut alice = Phone::udp("alice", data.address(32, 1, 0));
    let mut bob = Phone::udp("bob", data.address(32, 2, 0));

    assert_eq!(alice.register(at, 600).status(), Some(401), "no such user yet");
    data.good(&format!("user add alice@{DOMAIN}"), PASSWORD);
    assert_eq!(alice.register(at, 600).status(), Some(200));
    assert!(data.good("registration list", "").contains(&alice.contact()));

    // Bob never registers: the operator says where he is.
    data.good(&format!("registration add bob@{DOMAIN} {} --direct", bob.contact()), "");
    let call = alice.dial(at, "bob");
    let ringing = bob.ring();
    let (_, mut theirs) = connect(&mut alice, &mut bob, &call, &ringing, at);
    bob.hang_up(&mut theirs, at, &mut alice);
    data.good(&format!("registration remove bob@{DOMAIN}"), "");
    let call = alice.dial(at, "bob");
    assert_eq!(alice.outcome(&call).status(), Some(480));

    data.good(&format!("user passwd alice@{DOMAIN}"), "another");
    assert_eq!(alice.register(at, 600).status(), Some(401));
    let mut alice = alice.with_password("another");
    assert_eq!(alice.register(at, 600).status(), Some(200));
    data.good(&format!("user remove alice@{DOMAIN}"), "");
    assert_eq!(alice.register(at, 600).status(), Some(401));
}
