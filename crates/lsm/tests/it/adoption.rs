//! A manager may be killed at any moment: the next one carries on (paper §3.5).

use fleet::InstanceId;
use node_api::OrderError;
use node_api::wire::{EventKind, WeightWish, Wishes};

use crate::world::World;

/// The whole rise and fall, with a new manager before one of the rounds; for every round.
#[tokio::test]
async fn a_new_manager_carries_on_from_any_round() {
    for restart in 0..70 {
        let mut world = World::new(&format!("restart-{restart}"));
        let mut most = 0;
        for round in 0..110 {
            if round == restart {
                world.restart_manager();
            }
            let cps = if (8..20).contains(&round) { 150 } else { 20 };
            world.round(cps).await;
            most = most.max(world.owners().len());
        }
        assert_eq!(most, 4, "restart before round {restart}");
        assert_eq!(world.owners(), [1], "restart before round {restart}");
        assert_eq!(world.nodes.lock().len(), 2, "restart before round {restart}: none forgotten");
        assert_eq!(world.compute.created_total(), 5, "restart before round {restart}: none twice");
    }
}

#[tokio::test]
async fn adoption_changes_nothing_for_the_nodes() {
    let mut world = World::new("adopts");
    world.rounds(6, 20).await;
    world.rounds(12, 150).await;
    let table = |world: &World| world.nodes.lock()[&InstanceId::balancer(1)].membership.clone();
    let before = table(&world).expect("a table");
    world.restart_manager();
    world.rounds(6, 150).await;
    assert_eq!(table(&world), Some(before), "the same members need no new generation");
}

/// The owners changed while a call rang at the first one; the manager that knew dies.
#[tokio::test]
async fn a_new_manager_forgets_no_earlier_owner() {
    let mut world = World::new("earlier");
    world.rounds(6, 20).await;
    let table = |world: &World| {
        let nodes = world.nodes.lock();
        nodes[&InstanceId::balancer(1)].membership.clone().expect("a table")
    };
    let first = table(&world).generation;
    world.change(InstanceId::proxy(1), |node| {
        (node.transactions, node.oldest_stamp) = (1, Some(first.into()));
    });
    world.rounds(8, 100).await;
    let before = table(&world);
    assert_eq!(before.earlier.first().map(|set| set.ended_with), Some(first), "{before:?}");
    for _ in 0..4 {
        world.restart_manager();
        world.rounds(3, 100).await;
        let after = table(&world);
        assert!(after.earlier.starts_with(&before.earlier), "{after:?}");
    }
    world.change(InstanceId::proxy(1), |node| {
        (node.transactions, node.oldest_stamp) = (0, None);
    });
    world.rounds(4, 100).await;
    assert!(table(&world).earlier.is_empty());
}

/// Goal: a drain that had no time to begin and a weight are the next manager's too, and a drain is for
/// one machine alone. What cannot be is refused.
#[tokio::test]
async fn what_operators_asked_for_outlives_the_manager() {
    let mut world = World::new("wishes");
    world.rounds(6, 20).await;
    world.rounds(12, 100).await;
    assert_eq!(world.owners(), [1, 2, 3]);
    let asked = world.manager.handle();
    let [one, two, nobody] = [1, 2, 9].map(InstanceId::proxy);
    let balancer = InstanceId::balancer(1);
    asked.weigh(two, 50, "a test").expect("taken");
    asked.drain(one, "repair").expect("taken");
    let refusals = [
        (asked.weigh(balancer, 50, ""), OrderError::NoWeight { instance: balancer }),
        (asked.weigh(two, 0, ""), OrderError::Weight { instance: two, weight: 0 }),
        (asked.weigh(two, 1_001, ""), OrderError::Weight { instance: two, weight: 1_001 }),
        (asked.weigh(nobody, 50, ""), OrderError::Unknown { instance: nobody }),
    ];
    for (answer, expected) in refusals {
        assert_eq!(answer, Err(expected));
    }
    world.restart_manager();
    world.rounds(16, 100).await;
    let weights = |world: &World| -> Vec<(u16, u16)> {
        let nodes = world.nodes.lock();
        let table = nodes[&balancer].membership.as_ref().expect("a table");
        table.proxies.iter().map(|member| (member.instance.slot, member.weight)).collect()
    };
    assert_eq!(weights(&world), [(2, 50), (3, 100), (4, 100)], "{:?}", world.events());
    let told = world.told(EventKind::Act);
    assert!(told.contains(&"proxy-2: weight 50, was 100: a test".to_owned()), "{told:?}");
    let shown = world.fleet().instances;
    let shown: Vec<_> = shown.iter().map(|it| (it.instance, it.weight, it.weight_now)).collect();
    assert!(shown.contains(&(two, 50, Some(50))), "{shown:?}");

    // The next machine in the slot of the drained one is not meant.
    world.rounds(20, 180).await;
    assert_eq!(weights(&world).first(), Some(&(1, 100)));
    let text = std::fs::read(&world.config.wishes).expect("written");
    let wishes: Wishes = serde_json::from_slice(&text).expect("JSON");
    let weight = WeightWish { instance: two, weight: 50 };
    assert_eq!(wishes, Wishes { drains: Vec::new(), weights: vec![weight] });
}

/// The journal's numbers go on, and the new manager says that it is new.
#[tokio::test]
async fn the_journal_goes_on_over_restarts() {
    let mut world = World::new("journal");
    world.rounds(5, 20).await;
    let before = world.events().last().expect("events").number;
    world.restart_manager();
    world.rounds(2, 20).await;
    let events = world.events();
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected);
    let starts = events.iter().filter(|event| event.kind == EventKind::Manager).count();
    assert_eq!(starts, 2, "each says that it leads");
    assert!(events.last().expect("events").number > before);
}

/// One of three proxies does not answer the new manager at first: it keeps its calls.
#[tokio::test]
async fn a_new_manager_does_not_drop_a_proxy_that_answers_late() {
    let mut world = World::new("late");
    world.rounds(6, 20).await;
    world.rounds(12, 100).await;
    assert_eq!(world.owners(), [1, 2, 3]);
    world.restart_manager();
    world.change(InstanceId::proxy(3), |node| node.is_silent = true);
    for _ in 0..2 {
        world.round(100).await;
        assert_eq!(world.owners(), [1, 2, 3], "it may be slow and not gone");
    }
    world.change(InstanceId::proxy(3), |node| node.is_silent = false);
    for _ in 0..5 {
        world.round(100).await;
        assert_eq!(world.owners(), [1, 2, 3]);
    }
}
