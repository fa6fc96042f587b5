//! What the operator gave to proxies, and its product with a slow start.

use super::*;

fn weights(world: &World) -> Vec<u16> {
    let table = world.held().expect("a generation");
    table.proxies.iter().map(|member| member.weight).collect()
}

/// One generation like any other change of owners, the same again is none, and a new manager keeps it.
#[test]
fn a_weight_is_a_generation_and_stays() {
    let mut world = World::settled(3);
    world.weights.insert(InstanceId::proxy(2), 50);
    world.rounds(5, 10);
    let all = " proxy-1 proxy-2 proxy-3";
    let expected =
        [format!("publish 1.2 to 4:{all}, first{all}"), format!("publish 1.3 to 4:{all}")];
    assert_eq!(world.acts, expected, "made, and its earlier owners forgotten when they are empty");
    assert_eq!(weights(&world), [100, 50, 100]);
    world.memory = Memory::default();
    world.rounds(5, 10);
    assert_eq!(world.acts.len(), 2, "{:?}", world.acts);
    world.weights.clear();
    world.rounds(5, 10);
    assert_eq!(weights(&world), [100, 100, 100]);
}

/// A replacement in the slot has the slot's weight, from the beginning of its slow start.
#[test]
fn a_slow_start_is_a_part_of_the_weight() {
    let mut world = World::new(3, 8);
    world.timing.slow_start = Duration::from_secs(40);
    world.weights.insert(InstanceId::proxy(2), 200);
    world.rounds(6, 10);
    assert_eq!(weights(&world), [100, 200, 100]);
    world.node(InstanceId::proxy(2)).is_dead = true;
    let mut seen = Vec::new();
    for round in 0..20 {
        // Another manager in the middle of it goes on with the stage that was reached.
        if round == 6 {
            world.memory = Memory::default();
        }
        let _ = world.round(10);
        seen.extend(weights(&world).get(1).filter(|_| world.owners().len() == 3).copied());
    }
    seen.dedup();
    assert_eq!(seen, [50, 100, 200]);
}

/// What the operator says holds at once, whatever the slow start: nobody is new.
#[test]
fn another_weight_does_not_start_slowly() {
    let mut world = World::new(3, 8);
    world.timing.slow_start = Duration::from_secs(400);
    world.rounds(6, 10);
    for (weight, expected) in [(50, 50), (100, 100), (25, 25), (400, 400)] {
        world.weights.insert(InstanceId::proxy(2), weight);
        world.rounds(2, 10);
        assert_eq!(weights(&world), [100, expected, 100]);
    }
}

/// Calls of every generation still ring: a change of weight waits and says so.
#[test]
fn a_weight_waits_while_many_earlier_sets_are_open() {
    let mut world = World::settled(3);
    let first = world.held().expect("given").generation;
    let node = world.node(InstanceId::proxy(1));
    (node.transactions, node.oldest_stamp) = (1, Some(first));
    for weight in [90, 80, 70, 60] {
        world.weights.insert(InstanceId::proxy(2), weight);
        world.rounds(2, 10);
    }
    world.weights.insert(InstanceId::proxy(2), 50);
    let plan = world.round(10);
    let note = plan.standings.get(&InstanceId::proxy(2)).map(|one| one.note.as_str());
    assert_eq!(note, Some("weight 60, waits for earlier owners to get 50"));
    world.node(InstanceId::proxy(1)).transactions = 0;
    world.node(InstanceId::proxy(1)).oldest_stamp = None;
    world.rounds(3, 10);
    assert_eq!(weights(&world), [100, 50, 100]);
}

/// A tier grows by what its instances are trusted with, not by their number.
#[test]
fn a_tier_of_light_proxies_grows_sooner() {
    for (weight, expected) in [(100, 2), (25, 3)] {
        let mut world = World::settled(2);
        world.weights.insert(InstanceId::proxy(1), weight);
        world.rounds(8, 300);
        assert_eq!(world.owners().len(), expected, "{weight}: {:?}", world.acts);
    }
}
