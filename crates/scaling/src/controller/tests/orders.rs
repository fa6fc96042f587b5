//! Restarts before any round, and events in any order.

use super::*;

/// The manager forgets everything, once before each of the rounds of a rise and fall, and once every
/// seven rounds: the tier gets there all the same, nothing is made twice and nothing forgotten.
#[test]
fn a_restart_before_any_round_changes_only_how_long_it_takes() {
    let load = |round: usize| if (10..40).contains(&round) { 300 } else { 20 };
    let run = |restarts: &dyn Fn(usize) -> bool| {
        let mut world = World::new(1, 4);
        let mut most = 0;
        for round in 0..100 {
            if restarts(round) {
                world.memory = Memory::default();
            }
            let _ = world.round(load(round));
            most = most.max(world.owners().len());
        }
        let made = world.acts.iter().filter(|act| act.starts_with("create")).count();
        (most, world.owners(), world.nodes.len(), made)
    };
    let expected = (2, vec![1], 2, 3);
    for restart in 0..100 {
        assert_eq!(run(&|round| round == restart), expected, "restart before round {restart}");
    }
    assert_eq!(run(&|round| round % 7 == 0), expected, "restart every seven rounds");
}

/// Random loads, silences, deaths and restarts: what must never happen, never does (the world
/// itself checks that no slot is made twice and no empty table published).
#[test]
fn no_order_of_events_breaks_the_promises() {
    for seed in 1..=200_u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut next = move |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut world = World::new(1, 5);
        for _ in 0..80 {
            let slots: Vec<InstanceId> = world.nodes.keys().copied().collect();
            for instance in slots {
                let is_dead = next(60) == 0;
                let node = world.node(instance);
                node.is_dead |= is_dead;
                node.is_silent = next(6) == 0;
                node.transactions = next(3);
                let now = node.membership.as_ref().map(|have| have.generation);
                node.oldest_stamp = now.filter(|_| node.transactions > 0);
            }
            if next(15) == 0 {
                world.memory = Memory::default();
            }
            let before = world.nodes.clone();
            let cps = u32::try_from(next(900)).expect("small");
            let plan = world.round(cps);
            assert!(world.nodes.len() <= 5 + 1 + 5, "seed {seed}: {:?}", world.acts);
            for action in &plan.actions {
                let Action::Terminate { instance, cause: Cause::Empty, .. } = action else {
                    continue;
                };
                let node = before.get(instance).expect("it existed");
                assert!(node.transactions == 0 && !node.is_silent, "seed {seed}: {instance}");
                assert!(!world.owners().contains(&instance.slot) || instance.tier != Tier::Proxy);
                let is_named = |table: &Membership| {
                    let mut sets = table.earlier.iter().flat_map(|set| &set.proxies);
                    sets.any(|member| member.instance == *instance)
                };
                let balancer = before.get(&InstanceId::balancer(1)).expect("the only one");
                let table = balancer.membership.as_ref().filter(|_| !balancer.is_dead);
                assert!(!table.is_some_and(is_named), "seed {seed}: {instance}");
            }
        }
        for node in world.nodes.values_mut() {
            (node.is_silent, node.transactions, node.oldest_stamp) = (false, 0, None);
        }
        world.rounds(80, 10);
        assert_eq!(world.nodes.len(), 2, "seed {seed}: {:?}", world.acts);
        let generation = |node: &Node| node.membership.as_ref().map(|have| have.generation);
        let all: BTreeSet<_> = world.nodes.values().map(generation).collect();
        assert_eq!(all.len(), 1, "seed {seed}: all nodes have one generation: {all:?}");
        assert_eq!(world.dns.known().map(BTreeSet::len), Some(1), "seed {seed}");
    }
}
