//! Changes of owners: how long earlier ones are named, who may go, and what a new manager reads back.

use super::*;

fn number(counter: u64) -> GenerationNumber {
    GenerationNumber { fence: 1, counter }
}

/// The earlier sets as the first balancer has them: `1.2 first: 1 2`.
fn earlier(world: &World) -> Vec<String> {
    let balancer = world.nodes.get(&InstanceId::balancer(1)).expect("a balancer");
    let table = balancer.membership.as_ref().expect("a table");
    let slots = |set: &fleet::EarlierSet| -> String {
        set.proxies.iter().map(|member| format!(" {}", member.instance.slot)).collect()
    };
    let write = |set: &fleet::EarlierSet| {
        let when = if set.is_settled { "settled" } else { "first" };
        format!("{} {when}:{}", set.ended_with, slots(set))
    };
    table.earlier.iter().map(write).collect()
}

/// Two proxies become three, while a call rings at the first one.
fn grown() -> World {
    let mut world = World::settled(2);
    world.proxies.instances_min = 3;
    let node = world.node(InstanceId::proxy(1));
    (node.transactions, node.oldest_stamp) = (1, Some(number(1)));
    world.rounds(4, 10);
    assert_eq!(world.owners(), [1, 2, 3]);
    world
}

#[test]
fn requests_pass_earlier_owners_first_for_64_t1_and_then_only_walk_back() {
    let mut world = grown();
    assert_eq!(earlier(&world), ["1.1 first: 1 2"]);
    world.rounds(5, 10);
    assert_eq!(earlier(&world), ["1.1 first: 1 2"], "32 s are not over");
    world.rounds(4, 10);
    assert_eq!(earlier(&world), ["1.1 settled: 1 2"], "repeats can come no more");
    world.rounds(20, 10);
    assert_eq!(earlier(&world), ["1.1 settled: 1 2"], "it still rings");
    world.node(InstanceId::proxy(1)).oldest_stamp = Some(number(2));
    world.rounds(2, 10);
    assert!(earlier(&world).is_empty(), "what is left began under the new generation");
}

#[test]
fn the_64_t1_begin_when_the_last_balancer_acknowledges() {
    let mut world = World::settled(2);
    world.balancers.instances_min = 2;
    world.balancers.instances_max = 2;
    world.rounds(6, 0);
    world.node(InstanceId::balancer(2)).is_silent = true;
    world.node(InstanceId::proxy(1)).oldest_stamp = Some(number(1));
    world.proxies.instances_min = 3;
    world.rounds(15, 10);
    let [set] = &earlier(&world)[..] else { panic!("{:?}", earlier(&world)) };
    assert!(set.contains("first"), "the other one may still send as before: {set}");
    world.node(InstanceId::balancer(2)).is_silent = false;
    world.rounds(4, 10);
    assert!(earlier(&world)[0].contains("first"));
    world.rounds(8, 10);
    assert!(earlier(&world)[0].contains("settled"));
}

/// Its own transactions are over, but requests of those that began at another earlier owner pass it
/// until no table names it.
#[test]
fn a_proxy_goes_only_when_no_table_names_it() {
    let mut world = World::settled(3);
    world.node(InstanceId::proxy(1)).oldest_stamp = Some(number(1));
    world.proxies.instances_min = 2;
    world.rounds(20, 10);
    assert_eq!(world.owners(), [1, 2]);
    assert!(world.nodes.contains_key(&InstanceId::proxy(3)), "{:?}", world.acts);
    world.node(InstanceId::proxy(1)).oldest_stamp = None;
    world.rounds(4, 10);
    assert!(world.acts.iter().any(|act| act == "terminate proxy-3: empty"), "{:?}", world.acts);
}

#[test]
fn silence_of_an_earlier_owner_is_no_emptiness() {
    let mut world = grown();
    world.node(InstanceId::proxy(1)).oldest_stamp = None;
    world.node(InstanceId::proxy(2)).is_silent = true;
    world.rounds(10, 10);
    assert_eq!(earlier(&world).len(), 1);
    world.node(InstanceId::proxy(2)).is_silent = false;
    world.rounds(2, 10);
    assert!(earlier(&world).is_empty());
}

/// Up, up again and down within the ringing of one call: every set is kept, oldest first.
#[test]
fn changes_overlap() {
    let mut world = grown();
    world.proxies.instances_min = 4;
    world.rounds(3, 10);
    world.proxies.instances_min = 3;
    world.rounds(6, 10);
    let sets: Vec<String> = earlier(&world)
        .iter()
        .map(|set| set.rsplit(": ").next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(sets, ["1 2", "1 2 3", "1 2 3 4"]);
    world.node(InstanceId::proxy(1)).oldest_stamp = None;
    world.rounds(2, 10);
    assert!(earlier(&world).is_empty());
}

/// A manager that knows nothing takes over at any moment: no earlier owner is forgotten.
#[test]
fn a_new_manager_reads_the_earlier_owners_back_from_the_nodes() {
    for restart in 0..12 {
        let mut world = grown();
        for round in 0..12 {
            if round == restart {
                world.memory = Memory::default();
            }
            let _ = world.round(10);
            assert_eq!(earlier(&world).len(), 1, "restart before round {restart}, round {round}");
        }
        world.node(InstanceId::proxy(1)).oldest_stamp = None;
        world.rounds(3, 10);
        assert!(earlier(&world).is_empty(), "restart before round {restart}");
    }
}

/// A fleet that changes faster than its calls end keeps its owners until a set has gone.
#[test]
fn no_generation_names_more_earlier_sets_than_a_node_takes() {
    let mut world = grown();
    for change in 0..12 {
        world.proxies.instances_min = 4 - change % 2;
        world.rounds(6, 10);
        assert!(earlier(&world).len() <= fleet::EARLIER_SETS_MAX);
    }
    assert_eq!(earlier(&world).len(), fleet::EARLIER_SETS_MAX);
    let plan = world.round(10);
    let notes: Vec<&str> = plan.standings.values().map(|one| one.note.as_str()).collect();
    assert!(notes.iter().any(|note| note.contains("8 sets of earlier owners")), "{notes:?}");
    world.node(InstanceId::proxy(1)).oldest_stamp = None;
    world.proxies.instances_min = 4;
    world.rounds(8, 10);
    assert_eq!((world.owners().len(), earlier(&world).len()), (4, 0));
}

/// A dead earlier owner has nothing that anybody could reach.
#[test]
fn a_dead_earlier_owner_holds_nothing_up() {
    let mut world = grown();
    world.node(InstanceId::proxy(1)).is_dead = true;
    world.rounds(8, 10);
    assert!(earlier(&world).is_empty(), "{:?}", world.acts);
}
