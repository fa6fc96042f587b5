//! Silence, deaths and a cloud that fails.

use fleet::InstanceId;
use node_api::wire::EventKind;
use provider::ProviderError;
use provider::in_process::Fault;

use crate::world::World;

#[tokio::test]
async fn lost_polls_neither_shrink_nor_grow_the_tier() {
    let mut world = World::new("lost");
    world.rounds(6, 20).await;
    world.rounds(12, 100).await;
    assert_eq!(world.owners(), [1, 2, 3]);
    for node in world.nodes.lock().values_mut() {
        node.is_silent = true;
    }
    let made = world.compute.created_total();
    world.rounds(60, 10).await;
    assert_eq!(world.owners(), [1, 2, 3]);
    assert_eq!((world.compute.created_total(), world.nodes.lock().len()), (made, 4));
    let fleet = world.fleet();
    let silent = fleet.tiers.iter().find(|tier| tier.tier == "proxy").map(|tier| tier.silent);
    assert_eq!(silent, Some(3), "and the status says so");
}

/// An overloaded proxy neither answers nor counts: the balancers know what they gave it.
#[tokio::test]
async fn the_balancers_word_counts_for_a_silent_proxy() {
    let mut world = World::new("word");
    world.rounds(6, 20).await;
    world.change(InstanceId::proxy(1), |node| (node.is_silent, node.takes_share) = (true, false));
    world.rounds(8, 100).await;
    assert_eq!(world.owners(), [1, 2, 3], "{:?}", world.told(EventKind::Decision));
}

#[tokio::test]
async fn a_dead_proxy_is_replaced_in_its_slot() {
    let mut world = World::new("dead");
    world.rounds(6, 20).await;
    world.rounds(12, 100).await;
    world.compute.kill(InstanceId::proxy(2));
    world.round(100).await;
    assert_eq!(world.owners(), [1, 3], "it takes no more calls");
    world.rounds(4, 100).await;
    assert_eq!(world.owners(), [1, 2, 3]);
    let acts = world.told(EventKind::Act);
    assert!(acts.contains(&"proxy-2: terminated: its process is dead".to_owned()), "{acts:?}");
    assert!(acts.contains(&"proxy-2: created: makes up the number".to_owned()), "{acts:?}");
}

#[tokio::test]
async fn a_dead_balancer_is_replaced_and_gets_the_table_before_its_name() {
    let mut world = World::new("dead-balancer");
    world.rounds(6, 20).await;
    world.compute.kill(InstanceId::balancer(1));
    world.rounds(5, 20).await;
    assert_eq!(world.owners(), [1]);
    assert_eq!(world.fleet().dns.len(), 1);
    assert_eq!(world.compute.created_total(), 3);
}

#[tokio::test]
async fn an_unlisted_cloud_is_told_once_and_nothing_is_done() {
    let mut world = World::new("unlisted");
    world.rounds(6, 20).await;
    let before = world.events().len();
    for _ in 0..5 {
        let why = "maintenance".to_owned();
        world.compute.fault_next(Fault::Fails(ProviderError::Unavailable { why }));
        let _ = world.manager.round().await;
    }
    let told = world.told(EventKind::Failure);
    let text = "fleet: failed to list the machines: the provider is unavailable: maintenance";
    assert_eq!(told, [text]);
    assert_eq!(world.events().len(), before + 1);
}

/// The provider lists all, then only one, then none of the machines, which all answer: nothing is
/// made, nothing withdrawn. A machine that does not answer either is gone.
#[tokio::test]
async fn a_partial_list_is_no_death() {
    let mut world = World::new("partial");
    world.rounds(6, 20).await;
    world.rounds(12, 100).await;
    assert_eq!(world.owners(), [1, 2, 3]);
    let made = world.compute.created_total();
    let all: Vec<InstanceId> = world.nodes.lock().keys().copied().collect();
    for hidden in [&all[1..2], &all[..3], &all[..]] {
        hidden.iter().for_each(|&one| world.compute.hide(one, true));
        world.rounds(40, 100).await;
        assert_eq!(world.owners(), [1, 2, 3]);
        assert_eq!(world.compute.created_total(), made);
        hidden.iter().for_each(|&one| world.compute.hide(one, false));
    }
    world.compute.hide(InstanceId::proxy(3), true);
    world.change(InstanceId::proxy(3), |node| node.is_silent = true);
    world.rounds(4, 100).await;
    assert_eq!(world.owners(), [1, 2], "gone");
}

/// A cloud without tokens makes a second machine; it goes, the first one stays.
#[tokio::test]
async fn a_second_machine_in_a_slot_is_swept() {
    let mut world = World::new("second");
    world.rounds(6, 20).await;
    world.compute.duplicate(InstanceId::proxy(1));
    world.rounds(14, 20).await;
    let acts = world.told(EventKind::Act);
    let swept = "proxy-1: terminated: a second machine in its slot".to_owned();
    assert_eq!(acts.iter().filter(|act| **act == swept).count(), 1, "{acts:?}");
    assert_eq!(world.owners(), [1]);
    assert_eq!(world.compute.machines().expect("all").len(), 2);
}

/// The cloud makes the machine and the answer is lost, or does not make it: the manager asks again.
#[tokio::test]
async fn a_creation_that_fails_is_asked_for_again_and_makes_one_machine() {
    let error = ProviderError::Unavailable { why: "no answer".to_owned() };
    for fault in [Fault::HappensAndFails(error.clone()), Fault::Fails(error)] {
        let mut world = World::new("answer");
        world.rounds(6, 20).await;
        world.compute.fault_next_create(fault.clone());
        world.rounds(8, 80).await;
        assert_eq!(world.owners(), [1, 2], "{fault:?}");
        assert_eq!(world.compute.created_total(), 3, "{fault:?}");
        let told = world.told(EventKind::Failure);
        let text = "proxy-2: failed to create it: the provider is unavailable: no answer";
        assert_eq!(told, [text], "{fault:?}");
    }
}

#[tokio::test]
async fn a_drain_asked_for_by_the_operator_is_replaced_then_carried_out() {
    let mut world = World::new("operator");
    world.rounds(6, 20).await;
    let handle = world.manager.handle();
    assert!(handle.drain(InstanceId::proxy(7), "").is_err(), "there is no proxy-7");
    handle.drain(InstanceId::proxy(1), "a test").expect("taken");
    world.change(InstanceId::proxy(1), |node| node.transactions = 2);
    world.rounds(6, 20).await;
    assert_eq!(world.owners(), [2]);
    let fleet = world.fleet();
    let first = fleet.instances.iter().find(|one| one.instance == InstanceId::proxy(1));
    let first = first.expect("still there");
    assert_eq!(
        (first.state.as_str(), first.note.as_str()),
        ("draining", "waits for 2 transactions")
    );
    world.change(InstanceId::proxy(1), |node| node.transactions = 0);
    world.rounds(3, 20).await;
    assert_eq!(world.nodes.lock().len(), 2);
    world.rounds(30, 20).await;
    assert_eq!(world.owners(), [2], "its slot may be used again without being drained again");
}

/// Draining nodes find load again: they come back instead of new machines.
#[tokio::test]
async fn load_that_returns_takes_draining_proxies_back() {
    let mut world = World::new("returns");
    world.rounds(6, 20).await;
    world.rounds(12, 80).await;
    assert_eq!(world.owners(), [1, 2]);
    world.change(InstanceId::proxy(2), |node| node.transactions = 1);
    world.rounds(16, 20).await;
    assert_eq!(world.owners(), [1]);
    let made = world.compute.created_total();
    world.rounds(6, 80).await;
    assert_eq!(world.owners(), [1, 2]);
    assert_eq!(world.compute.created_total(), made);
}
