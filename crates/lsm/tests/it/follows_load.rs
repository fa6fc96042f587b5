//! The tier follows the load, and says why.

use fleet::{InstanceId, Tier};
use node_api::wire::{EventKind, NodeConfiguration};

use crate::world::World;

/// 20 → 150 → 20 cps with proxies trusted with 60 each, as in the README's demo.
#[tokio::test]
async fn the_proxy_tier_goes_from_one_to_four_and_back_with_the_load() {
    let mut world = World::new("follows");
    world.rounds(6, 20).await;
    assert_eq!(world.owners(), [1]);
    world.rounds(12, 150).await;
    assert_eq!(world.owners(), [1, 2, 3, 4]);
    world.rounds(80, 20).await;
    assert_eq!(world.owners(), [1]);
    assert_eq!(world.nodes.lock().len(), 2, "what was drained is gone");
    assert_eq!(world.compute.created_total(), 5, "nothing was made twice");

    let decisions = world.told(EventKind::Decision);
    let expected = [
        "balancer: 0 → 1: 0 is below the minimum of 1",
        "proxy: 0 → 1: 0 is below the minimum of 1",
        "proxy: 1 → 4: above 45 cps for 2 polls",
        "proxy: 4 → 3: below 108 cps for 12 polls",
        "proxy: 3 → 2: below 72 cps for 12 polls",
        "proxy: 2 → 1: below 36 cps for 12 polls",
    ];
    assert_eq!(decisions, expected);
}

#[tokio::test]
async fn a_new_node_gets_a_file_with_everything_for_its_slot() {
    let mut world = World::new("file");
    world.rounds(4, 0).await;
    for instance in [InstanceId::proxy(1), InstanceId::balancer(1)] {
        let request = world.compute.request(instance).expect("it was made");
        let file = request.files.iter().find(|file| file.name == "node.json").expect("its file");
        let node: NodeConfiguration = serde_json::from_slice(&file.content).expect("reads");
        assert_eq!(node.instance, instance);
        assert_eq!(node.sip.internal.port(), 5060);
        assert_eq!(node.control.listen.ip(), node.sip.internal.ip());
        assert_eq!(node.control.token.expose(), "nodes");
        assert_eq!(node.keys.signing, 1);
    }
}

/// A balancer is found by clients only when it can serve them, and the status shows the names.
#[tokio::test]
async fn the_status_shows_tiers_instances_and_names() {
    let mut world = World::new("status");
    world.rounds(6, 40).await;
    let fleet = world.fleet();
    let proxies = fleet.tiers.iter().find(|tier| tier.tier == Tier::Proxy.name()).expect("there");
    assert_eq!((proxies.in_service, proxies.desired, proxies.silent), (1, 1, 0));
    assert!((proxies.load_cps - 40.0).abs() < 1.0, "{}", proxies.load_cps);
    assert!((proxies.capacity_cps - 60.0).abs() < 0.1);
    assert_eq!(fleet.instances.len(), 2);
    assert!(fleet.instances.iter().all(|one| one.state == "in service" && one.answers));
    assert_eq!(fleet.dns.len(), 1);
    let metrics = world.manager.handle().metrics();
    assert!(metrics.contains("sipcloud_tier_desired_instances{tier=\"proxy\"} 1\n"), "{metrics}");
    assert!(metrics.contains("# TYPE sipcloud_instances gauge\n"), "{metrics}");
}

#[tokio::test]
async fn the_balancer_tier_grows_and_shrinks_with_its_names() {
    let mut world = World::new("balancers");
    world.rounds(5, 10).await;
    let mut settings = world.config.settings.clone();
    (settings.balancers.instances_min, settings.balancers.instances_max) = (2, 2);
    world.config.settings = settings.clone();
    world.restart_manager();
    world.rounds(6, 10).await;
    assert_eq!(world.fleet().dns.len(), 2);

    (settings.balancers.instances_min, settings.balancers.instances_max) = (1, 1);
    world.config.settings = settings;
    world.restart_manager();
    world.rounds(2, 10).await;
    assert_eq!(world.fleet().dns.len(), 1, "out of the names at once");
    assert_eq!(world.nodes.lock().len(), 3, "the machine serves on while answers may be kept");
    world.rounds(8, 10).await;
    assert_eq!(world.nodes.lock().len(), 3, "and while a transaction names it");
    world.rounds(12, 0).await;
    assert_eq!(world.nodes.lock().len(), 2, "empty and gone");
}

#[tokio::test]
async fn a_dry_run_decides_and_does_nothing() {
    let mut world = World::new("dry");
    world.rounds(5, 20).await;
    world.config.settings.is_dry_run = true;
    world.restart_manager();
    let made = world.compute.created_total();
    world.rounds(12, 150).await;
    assert_eq!(world.compute.created_total(), made);
    let decisions = world.told(EventKind::Decision);
    let dry: Vec<&String> = decisions.iter().filter(|text| text.contains("(dry run)")).collect();
    assert_eq!(dry, ["proxy: 1 → 4: above 45 cps for 2 polls (dry run)"]);
}
