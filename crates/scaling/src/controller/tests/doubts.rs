//! What balancers say of proxies: whom nobody reaches, and who is held dead and lives.

use super::*;

/// What the first balancer says of these proxies from now on, in the life that its table has.
fn doubt(world: &mut World, slots: &[u16], is_dead: bool, answers: bool) {
    let held = world.held().expect("a generation");
    let members = held.proxies.iter().filter(|member| slots.contains(&member.instance.slot));
    let doubts = members.map(|member| Doubt {
        instance: member.instance,
        worker: member.worker,
        incarnation: member.incarnation,
        is_dead,
        answers,
    });
    world.node(InstanceId::balancer(1)).doubts = doubts.collect();
}

/// A new manager hears the balancer alone; the proxies have never answered it.
fn taken_over() -> World {
    let mut world = World::settled(4);
    for slot in 1..=4 {
        let node = world.node(InstanceId::proxy(slot));
        (node.is_silent, node.last) = (true, None);
    }
    world.memory = Memory::default();
    world
}

fn is_ended(world: &World, slot: u16) -> bool {
    let text = format!("terminate proxy-{slot}: no answer for ");
    world.acts.iter().any(|act| act.starts_with(&text))
}

/// Goal: what two sides do not reach, and one of them carries the calls, is given up, although the
/// manager hears a minority.
///
/// Method: what the balancer says of the second proxy; the others it does not doubt.
#[test]
fn a_proxy_that_neither_manager_nor_balancers_reach_is_replaced() {
    let table = [
        ("dead", true, false, true),
        ("suspect for long", false, false, true),
        ("dead, and answers again", true, true, false),
        ("suspect, and answers again", false, true, false),
    ];
    for (name, is_dead, answers, is_given_up) in table {
        let mut world = taken_over();
        doubt(&mut world, &[2], is_dead, answers);
        world.rounds(20, 10);
        assert!(world.acts.is_empty(), "{name}, too early: {:?}", world.acts);
        world.rounds(10, 10);
        assert_eq!(is_ended(&world, 2), is_given_up, "{name}: {:?}", world.acts);
        let others = [1, 3, 4].iter().filter(|&&slot| is_ended(&world, slot)).count();
        assert_eq!(others, 0, "{name}: the balancer reaches them: {:?}", world.acts);
        assert_eq!(world.owners(), [1, 2, 3, 4], "{name}: those stay in the table");
    }
}

/// The balancer's word has to hold all the time, and a silent balancer may reach everybody.
#[test]
fn a_word_that_was_broken_off_gives_nobody_up() {
    let mut world = taken_over();
    for round in 0..60 {
        doubt(&mut world, &[1, 2, 3, 4], true, round % 20 == 0);
        let _ = world.round(10);
    }
    assert!(world.acts.is_empty(), "{:?}", world.acts);

    let mut world = World::settled(2);
    (world.balancers.instances_min, world.balancers.instances_max) = (2, 2);
    world.rounds(6, 10);
    world.acts.clear();
    doubt(&mut world, &[1, 2], true, false);
    for silent in [InstanceId::balancer(2), InstanceId::proxy(1), InstanceId::proxy(2)] {
        world.node(silent).is_silent = true;
    }
    world.rounds(60, 10);
    assert!(!is_ended(&world, 1) && !is_ended(&world, 2), "{:?}", world.acts);
}

/// Out of the table for one generation, so that those who had its calls are its heirs everywhere.
#[test]
fn a_proxy_that_was_held_dead_and_lives_comes_back_by_two_generations() {
    let mut world = World::settled(3);
    doubt(&mut world, &[2], true, true);
    let plan = world.round(10);
    let said = "balancer-1 held it dead and it answers: returns with the next generation";
    assert_eq!(plan.remarks, [(InstanceId::proxy(2), said.to_owned())]);
    let held = world.held().expect("a generation");
    let retired: Vec<u16> = held.retired.iter().map(|member| member.instance.slot).collect();
    assert_eq!(retired, [2], "its Via is still known");
    world.node(InstanceId::balancer(1)).doubts.clear();
    world.rounds(1, 10);
    let all = " proxy-1 proxy-2 proxy-3";
    let expected = [
        format!("publish 1.2 to 4: proxy-1 proxy-3, first{all}"),
        format!("publish 1.3 to 4:{all}, first{all}, first proxy-1 proxy-3"),
    ];
    assert_eq!(world.acts, expected);
}

/// Who is dead for a balancer and does not answer it, or not the manager, does not come back.
#[test]
fn a_dead_proxy_does_not_come_back() {
    for (is_silent, answers) in [(false, false), (true, true)] {
        let mut world = World::settled(3);
        doubt(&mut world, &[2], true, answers);
        world.node(InstanceId::proxy(2)).is_silent = is_silent;
        world.rounds(10, 10);
        assert!(world.acts.is_empty(), "{:?}", world.acts);
    }
}

/// Where nobody else is left to have its calls, it is the same table with another number.
#[test]
fn the_last_owner_comes_back_without_leaving_the_table() {
    let mut world = World::settled(2);
    doubt(&mut world, &[1, 2], true, true);
    world.rounds(1, 10);
    world.node(InstanceId::balancer(1)).doubts.clear();
    world.rounds(5, 10);
    assert_eq!(world.acts, ["publish 1.2 to 3: proxy-1 proxy-2"]);
}

/// Goal: one that comes and goes does not make a generation each time. Method: it is held dead
/// whenever it owns calls; rounds of 5 s, waits from 64 s on.
#[test]
fn one_that_comes_and_goes_is_brought_back_ever_more_rarely() {
    let mut world = World::settled(3);
    let mut returns = Vec::new();
    for round in 0..220 {
        world.node(InstanceId::balancer(1)).doubts.clear();
        doubt(&mut world, &[2], true, true);
        let plan = world.round(10);
        returns.extend(plan.remarks.iter().map(|_| round));
    }
    let waits: Vec<i32> = returns.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits, [13, 26, 52, 103]);
    assert_eq!(world.owners(), [1, 2, 3]);
}
