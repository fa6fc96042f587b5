//! The manager as a service: its loop, its interface, its end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet::{Incarnation, InstanceId, Membership, StaleGeneration, Tier};
use lsm::{Clock, HttpNodes, Keeper, Lease, Manager, Seams};
use node_api::wire::{
    EventKind, Generation, NodeStatus, Origin, Secret, SipAddresses, WorkerStatus,
};
use node_api::{ManagerClient, NodeHandle, serve};
use provider::in_process::{InProcessCompute, InProcessDns};
use provider::{Addresses, ComputeProvider, DnsProvider};
use store::MemoryLease;

use crate::world::{POLL, TestClock, configuration};

const PATIENCE: Duration = Duration::from_secs(10);

fn lease(store: &MemoryLease, name: &str) -> Lease {
    Lease {
        store: Box::new(store.clone()),
        holder: format!("{name}/of this test"),
        fence_min: 1,
        is_gone: Box::new(|_| false),
    }
}

/// A fleet of nothing, so that nobody is called.
#[tokio::test]
async fn the_service_answers_while_it_runs_and_stops_when_told() {
    let folder = std::env::temp_dir().join(format!("lsm-it-service-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut config = configuration(folder.join("journal.jsonl"));
    config.settings.balancers.instances_min = 0;
    config.settings.proxies.instances_min = 0;
    let compute = Arc::new(InProcessCompute::new(0, Duration::ZERO));
    let (store, dns) = (MemoryLease::default(), Arc::new(InProcessDns::default()));
    let lsm = lsm::start(config, lease(&store, "manager-1"), compute, dns).await;
    let lsm = lsm.expect("starts");
    lsm.holds().wait_for(|&holds| holds).await.expect("it leads");
    let client = ManagerClient::new(lsm.address(), &Secret::new("manager"), PATIENCE);
    let client = client.expect("a client");
    // The interface is there before the first round.
    let page = loop {
        let page = client.events(0).await.expect("answers");
        if !page.events.is_empty() {
            break page;
        }
    };
    assert!(page.events[0].text.starts_with("manager-1 leads: process"), "{page:?}");
    let manager = client.fleet().await.expect("answers").manager;
    assert_eq!((manager.pid, manager.leader.as_str()), (std::process::id(), "manager-1"));
    client.note("an operator was here").await.expect("written");
    lsm.stop().await;
    assert!(client.fleet().await.is_err(), "stopped");
    let journal = std::fs::read_to_string(folder.join("journal.jsonl")).expect("a journal");
    assert!(journal.contains("an operator was here"), "{journal}");
    assert!(journal.trim_end().ends_with("nodes go on\"}"), "{journal}");
    std::fs::remove_dir_all(folder).ok();
}

/// Two over one lease: the second stands by, says who leads, and takes the first one's place when it
/// is stopped. Their journal is one story.
#[tokio::test]
async fn a_standby_says_who_leads_and_takes_over() {
    let folder = std::env::temp_dir().join(format!("lsm-it-standby-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let store = MemoryLease::default();
    let token = Secret::new("manager");
    let mut managers = Vec::new();
    for name in ["manager-1", "manager-2"] {
        let mut config = configuration(folder.join("journal.jsonl"));
        config.settings.balancers.instances_min = 0;
        config.settings.proxies.instances_min = 0;
        name.clone_into(&mut config.name);
        let compute = Arc::new(InProcessCompute::new(0, Duration::ZERO));
        let dns = Arc::new(InProcessDns::default());
        let lsm = lsm::start(config, lease(&store, name), compute, dns).await.expect("starts");
        if managers.is_empty() {
            lsm.holds().wait_for(|&holds| holds).await.expect("it leads");
            // Who stops before its first round has nothing to tell.
            let client = ManagerClient::new(lsm.address(), &token, PATIENCE).expect("a client");
            while client.events(0).await.expect("answers").events.is_empty() {}
        }
        managers.push(lsm);
    }
    let second = managers.pop().expect("two");
    let client = ManagerClient::new(second.address(), &token, PATIENCE);
    let client = client.expect("a client");
    let refused = client.note("to the wrong one").await.expect_err("it stands by");
    assert!(matches!(refused, node_api::ClientError::Refused { status: 409, .. }), "{refused}");
    assert!(!client.fleet().await.expect("answers").manager.leads);

    managers.pop().expect("the first").stop().await;
    second.holds().wait_for(|&holds| holds).await.expect("it leads");
    while client.events(0).await.expect("answers").events.is_empty() {}
    client.note("to the right one").await.expect("it leads");
    let events = client.events(0).await.expect("answers").events;
    let story: Vec<&str> = events
        .iter()
        .filter(|event| event.kind == EventKind::Manager)
        .map(|event| event.text.split(':').next().expect("a text"))
        .collect();
    let expected = [
        "manager-1 leads",
        "manager-1 stops, the nodes go on",
        "manager-2 leads",
        "to the right one",
    ];
    assert_eq!(story, expected);
    assert_eq!(client.fleet().await.expect("answers").manager.fence, 2);
    second.stop().await;
    std::fs::remove_dir_all(folder).ok();
}

/// A node that takes what it is given.
struct Node {
    instance: InstanceId,
    at: Addresses,
    membership: Mutex<Option<Membership>>,
}

impl NodeHandle for Node {
    fn status(&self) -> NodeStatus {
        let membership = self.membership.lock().expect("not poisoned").clone();
        let sip = self.at.sip;
        let is_proxy = self.instance.tier == Tier::Proxy;
        let worker =
            WorkerStatus { worker: 0, address: sip, calls_total: 0, server_transactions: 0 };
        let addresses = SipAddresses { internal: sip, advertised: sip, extra: Vec::new() };
        NodeStatus {
            uptime_ms: 1,
            ready: is_proxy || membership.is_some(),
            workers: if is_proxy { vec![worker] } else { Vec::new() },
            generation: membership.as_ref().map(|have| Generation::from(have.generation)),
            digest: membership.as_ref().map(|have| format!("{:016x}", have.digest)),
            ..NodeStatus::started(self.instance, Incarnation(7), addresses)
        }
    }

    fn membership(&self) -> Option<Membership> {
        self.membership.lock().expect("not poisoned").clone()
    }

    fn put_membership(&self, membership: Membership) -> Result<(), StaleGeneration> {
        membership.validate()?;
        *self.membership.lock().expect("not poisoned") = Some(membership);
        Ok(())
    }

    fn drain(&self, _on: bool) {}

    fn metrics(&self) -> String {
        String::new()
    }
}

/// The same over HTTP: two real control interfaces on loopback addresses of this test's own.
#[tokio::test]
async fn nodes_are_configured_over_http() {
    let folder = std::env::temp_dir().join(format!("lsm-it-http-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut config = configuration(folder.join("journal.jsonl"));
    config.settings.poll_timeout = PATIENCE;
    let token = config.template.base.control.token.clone();
    let compute = Arc::new(InProcessCompute::new(0, Duration::ZERO).in_network([127, 35]));
    let dns = Arc::new(InProcessDns::default());
    let mut nodes = Vec::new();
    for instance in [InstanceId::balancer(1), InstanceId::proxy(1)] {
        let at = compute.addresses(instance).expect("a place");
        let node = Arc::new(Node { instance, at, membership: Mutex::default() });
        let server =
            serve(at.control, &token, &Origin::default(), node.clone()).await.expect("serves");
        nodes.push((node, server));
    }
    let http = HttpNodes::new(&token, PATIENCE).expect("a client");
    let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
    let mut keeper =
        Keeper::new(lease(&MemoryLease::default(), "manager-1"), POLL, Arc::clone(&clock));
    keeper.turn();
    let leadership = keeper.leadership();
    let seams = Seams { compute, dns: dns.clone(), nodes: Arc::new(http), clock, leadership };
    let mut manager = Manager::new(config, seams).expect("a manager");
    for _ in 0..4 {
        let _ = manager.round().await;
    }
    for (node, _) in &nodes {
        let membership = node.membership.lock().expect("not poisoned").clone();
        let membership = membership.expect("it was given one");
        assert_eq!(membership.generation.counter, 1, "{}: no second one", node.instance);
        assert_eq!((membership.proxies.len(), membership.balancers.len()), (1, 1));
    }
    let zone = dns.published().await.expect("published").expect("a zone");
    assert_eq!(zone.balancers.len(), 1);
    for (_, server) in nodes {
        server.stop().await;
    }
    std::fs::remove_dir_all(folder).ok();
}
