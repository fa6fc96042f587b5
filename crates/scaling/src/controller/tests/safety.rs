//! Missing data, second machines, clocks that jump, starts that fail.

use super::*;

/// Its load is small by what the balancers say; it is asked all the same before the tier shrinks.
#[test]
fn a_tier_with_an_unheard_proxy_does_not_shrink() {
    let mut world = World::settled(3);
    world.proxies.instances_min = 1;
    world.node(InstanceId::proxy(2)).is_silent = true;
    world.rounds(20, 10);
    assert_eq!(world.owners(), [1, 2, 3], "{:?}", world.acts);
    world.node(InstanceId::proxy(2)).is_silent = false;
    world.rounds(1, 10);
    assert_eq!(world.owners(), [1, 2]);
}

/// Every machine dies before its first answer, for 60 rounds: the waits between grow to 300 s. The
/// first one that answers ends the waiting.
#[test]
fn starts_that_fail_in_a_row_are_tried_ever_more_rarely() {
    let mut world = World::settled(1);
    world.proxies.instances_min = 2;
    let mut created = Vec::new();
    for round in 0..150 {
        if let Some(node) = world.nodes.get_mut(&InstanceId::proxy(2)) {
            node.is_dead = true;
        }
        let acts = world.acts.len();
        let _ = world.round(10);
        let is_created = |act: &String| act.starts_with("create proxy-2");
        created.extend(world.acts[acts..].iter().filter(|act| is_created(act)).map(|_| round));
    }
    let waits: Vec<i32> = created.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits, [1, 3, 5, 9, 17, 33, 61], "rounds of 5 s");
}

#[test]
fn a_second_machine_in_a_slot_is_removed_after_its_grace() {
    let mut world = World::settled(1);
    let stray = Stray { instance: InstanceId::proxy(1), machine: "second".to_owned() };
    world.strays.push(stray);
    let mut removed = Vec::new();
    for round in 0..14 {
        let plan = world.round_without_acts(10);
        removed.extend(plan.actions.iter().map(|action| (round, format!("{action:?}"))));
    }
    let (round, text) = removed.first().expect("removed");
    assert_eq!(*round, 13, "the first after 60 s");
    assert!(text.contains("\"second\"") && text.contains("Stray"), "{text}");
}

/// The clock is set an hour on, and two hours back, while a proxy drains and another boots.
#[test]
fn a_jump_of_the_clock_ends_no_wait() {
    for (forward_ms, back_ms) in [(3_600_000, 0), (0, 7_200_000)] {
        let mut world = World::settled(2);
        world.proxies.instances_min = 1;
        world.node(InstanceId::proxy(2)).transactions = 3;
        world.rounds(10, 10);
        assert!(world.acts.contains(&"drain proxy-2".to_owned()), "{:?}", world.acts);
        world.now_ms = world.now_ms + forward_ms - back_ms;
        world.rounds(10, 10);
        assert!(!world.acts.iter().any(|act| act.contains("terminate")), "{:?}", world.acts);
        world.rounds(40, 10);
        let gone = "terminate proxy-2: drain limit reached with 3 transactions left";
        assert!(world.acts.iter().any(|act| act == gone), "{:?}", world.acts);
    }
}

fn weights(world: &World) -> Vec<u16> {
    let balancer = world.nodes.get(&InstanceId::balancer(1)).expect("it exists");
    let table = balancer.membership.as_ref().expect("it has one");
    table.proxies.iter().map(|member| member.weight).collect()
}

/// A replacement enters with a quarter of its share, has half of it after half of the slow start and
/// all of it after the whole. The first fleet has no slow start, and those that stay keep their weight.
#[test]
fn a_returning_proxy_takes_its_share_in_three_steps() {
    let mut world = World::new(3, 8);
    world.timing.slow_start = Duration::from_secs(40);
    world.rounds(6, 10);
    assert_eq!(weights(&world), [100, 100, 100]);
    world.node(InstanceId::proxy(2)).is_dead = true;
    let mut seen = Vec::new();
    for round in 0..20 {
        let _ = world.round(10);
        let now = weights(&world);
        if seen.last().is_none_or(|(_, before)| *before != now) {
            seen.push((round, now));
        }
    }
    let two = vec![100, 100];
    let with = |weight| vec![100, weight, 100];
    assert_eq!(seen, [(0, two), (1, with(25)), (5, with(50)), (9, with(100))]);
}

/// Calls of every generation still ring: a rise waits, so that changes that cannot wait have room.
#[test]
fn a_rise_of_weight_waits_while_many_earlier_sets_are_open() {
    let mut world = World::settled(3);
    world.timing.slow_start = Duration::from_secs(10);
    let first = world.node(InstanceId::proxy(1)).membership.as_ref().expect("given").generation;
    let node = world.node(InstanceId::proxy(1));
    (node.transactions, node.oldest_stamp) = (1, Some(first));
    for slot in [2, 3] {
        world.node(InstanceId::proxy(slot)).is_dead = true;
        world.rounds(12, 10);
    }
    assert!(weights(&world).iter().any(|&weight| weight < 100), "{:?}", weights(&world));
    world.node(InstanceId::proxy(1)).transactions = 0;
    world.node(InstanceId::proxy(1)).oldest_stamp = None;
    world.rounds(12, 10);
    assert_eq!(weights(&world), [100, 100, 100]);
}

/// The manager's clock is two hours behind the provider's: a machine of the future, which never
/// answers, has no more time than others.
#[test]
fn a_machine_of_the_future_is_given_up_like_any_other() {
    let mut world = World::settled(1);
    world.proxies.instances_min = 2;
    world.rounds(1, 10);
    world.node(InstanceId::proxy(2)).is_silent = true;
    world.memory = Memory::default();
    world.now_ms -= 7_200_000;
    world.rounds(119, 10);
    assert!(!world.acts.iter().any(|act| act.starts_with("terminate")), "{:?}", world.acts);
    world.rounds(3, 10);
    let gone = "terminate proxy-2: did not become ready in time";
    assert!(world.acts.iter().any(|act| act == gone), "{:?}", world.acts);
}

/// Every proxy was gone, and nobody could be called: what was counted then takes nobody away.
#[test]
fn what_was_counted_while_nobody_served_takes_nobody_away() {
    let mut world = World::settled(2);
    world.proxies.instances_min = 1;
    for slot in [1, 2] {
        world.node(InstanceId::proxy(slot)).is_dead = true;
    }
    world.rounds(5, 0);
    world.rounds(12, 180);
    assert_eq!(world.owners(), [1, 2], "{:?}", world.acts);
    assert!(!world.acts.iter().any(|act| act.starts_with("drain")), "{:?}", world.acts);
}
