//! The dangerous moments over HTTP: real control interfaces on loopback addresses of this test's own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet::{GenerationNumber, Incarnation, InstanceId, Membership, StaleGeneration, Tier};
use lsm::{Clock, HttpNodes, Keeper, LsmConfiguration, Manager, Seams};
use node_api::wire::{
    CallsToMember, Generation, NodeStatus, Origin, Secret, SipAddresses, WorkerStatus,
};
use node_api::{NodeHandle, Server, serve};
use provider::Addresses;
use provider::in_process::{InProcessCompute, InProcessDns};
use store::MemoryLease;

use crate::world::{POLL, TestClock, configuration, next_keeper};

/// A node behind a real server: it takes what it is given and counts what it is made to count.
struct Node {
    instance: InstanceId,
    at: Addresses,
    born_ms: u64,
    clock: Arc<TestClock>,
    membership: Mutex<Option<Membership>>,
    is_draining: AtomicBool,
    calls: AtomicU64,
    transactions: AtomicU64,
    calls_to: Mutex<BTreeMap<InstanceId, u64>>,
}

impl NodeHandle for Node {
    fn status(&self) -> NodeStatus {
        let membership = self.membership();
        let sip = self.at.sip;
        let is_proxy = self.instance.tier == Tier::Proxy;
        let is_draining = self.is_draining.load(Ordering::SeqCst);
        let calls_total = self.calls.load(Ordering::SeqCst);
        let worker = WorkerStatus { worker: 0, address: sip, calls_total, server_transactions: 0 };
        let addresses = SipAddresses { internal: sip, advertised: sip, extra: Vec::new() };
        let given = self.calls_to.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let to = |(instance, calls_total)| CallsToMember {
            instance,
            worker: 0,
            incarnation: 0,
            calls_total,
        };
        let life = Incarnation(u32::try_from(self.born_ms / 1_000).unwrap_or(0));
        NodeStatus {
            uptime_ms: self.clock.unix_ms() - self.born_ms + 1,
            ready: !is_draining && (is_proxy || membership.is_some()),
            draining: is_draining,
            calls_total,
            server_transactions: self.transactions.load(Ordering::SeqCst),
            calls_to_members: given.into_iter().map(to).collect(),
            workers: if is_proxy { vec![worker] } else { Vec::new() },
            generation: membership.as_ref().map(|have| Generation::from(have.generation)),
            digest: membership.as_ref().map(|have| format!("{:016x}", have.digest)),
            ..NodeStatus::started(self.instance, life, addresses)
        }
    }

    fn membership(&self) -> Option<Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put_membership(&self, membership: Membership) -> Result<(), StaleGeneration> {
        let mut have = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        membership.follows(have.as_ref())?;
        *have = Some(membership);
        Ok(())
    }

    fn drain(&self, on: bool) {
        self.is_draining.store(on, Ordering::SeqCst);
    }

    fn metrics(&self) -> String {
        String::new()
    }
}

/// A cloud in memory whose machines are HTTP servers, and the manager that sees no more than they say.
struct Fleet {
    clock: Arc<TestClock>,
    compute: Arc<InProcessCompute>,
    dns: Arc<InProcessDns>,
    config: LsmConfiguration,
    nodes: BTreeMap<InstanceId, (Arc<Node>, Option<Server>)>,
    manager: Manager,
    keeper: Keeper,
    lease: MemoryLease,
    /// Managers so far, and the fence of the last one.
    lives: Arc<AtomicU64>,
    folder: PathBuf,
}

impl Fleet {
    /// In a network of its own; machines boot in 10 s.
    async fn new(network: [u8; 2], proxies_min: u32) -> Self {
        let name = format!("lsm-it-fleet-{}-{}", network[1], std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut config = configuration(folder.join("journal.jsonl"));
        config.settings.poll_timeout = Duration::from_secs(10);
        config.settings.proxies.instances_min = proxies_min;
        let clock = Arc::new(TestClock::default());
        clock.set(1_700_000_000_000);
        let compute = InProcessCompute::new(clock.unix_ms(), Duration::from_secs(10));
        let compute = Arc::new(compute.in_network(network));
        let dns = Arc::new(InProcessDns::default());
        let (lease, lives) = (MemoryLease::default(), Arc::new(AtomicU64::new(0)));
        let keeper = next_keeper(&lease, &clock, &lives);
        let manager = manager(&config, &compute, &dns, &clock, &keeper);
        let nodes = BTreeMap::new();
        let mut fleet =
            Self { clock, compute, dns, config, nodes, manager, keeper, lease, lives, folder };
        for _ in 0..6 {
            fleet.round(0).await;
        }
        fleet
    }

    /// Another manager, which knows nothing and has a higher fence.
    fn restart_manager(&mut self) {
        self.keeper = next_keeper(&self.lease, &self.clock, &self.lives);
        let Self { config, compute, dns, clock, keeper, .. } = self;
        self.manager = manager(config, compute, dns, clock, keeper);
    }

    /// A poll interval passes with this load, then the manager looks.
    async fn round(&mut self, cps: u64) {
        let elapsed_ms = u64::try_from(POLL.as_millis()).expect("short");
        self.clock.set(self.clock.unix_ms() + elapsed_ms);
        self.compute.advance_to(self.clock.unix_ms());
        self.follow_machines().await;
        self.carry(cps * elapsed_ms / 1_000);
        self.keeper.turn();
        let _ = self.manager.round().await;
        self.follow_machines().await;
    }

    async fn rounds(&mut self, count: usize, cps: u64) {
        for _ in 0..count {
            self.round(cps).await;
        }
    }

    /// Running machines serve, others do not.
    async fn follow_machines(&mut self) {
        let machines = self.compute.machines().expect("all");
        let running = |instance: &InstanceId| {
            let is_it = |one: &&provider::Machine| one.instance == *instance;
            machines
                .iter()
                .find(is_it)
                .is_some_and(|one| one.state == provider::MachineState::Running)
        };
        let gone: Vec<InstanceId> =
            self.nodes.keys().filter(|one| !running(one)).copied().collect();
        for instance in gone {
            if let Some((_, Some(server))) = self.nodes.remove(&instance) {
                server.stop().await;
            }
        }
        for machine in machines.iter().filter(|one| running(&one.instance)) {
            if self.nodes.contains_key(&machine.instance) {
                continue;
            }
            let node = Arc::new(Node {
                instance: machine.instance,
                at: machine.addresses,
                born_ms: self.clock.unix_ms(),
                clock: Arc::clone(&self.clock),
                membership: Mutex::default(),
                is_draining: AtomicBool::new(false),
                calls: AtomicU64::new(0),
                transactions: AtomicU64::new(0),
                calls_to: Mutex::default(),
            });
            self.nodes.insert(machine.instance, (node, None));
            self.connect(machine.instance, true).await;
        }
    }

    /// Opens or closes the way from the manager to a node, which goes on all the same.
    async fn connect(&mut self, instance: InstanceId, is_open: bool) {
        let token = &self.config.template.base.control.token;
        let (node, server) = self.nodes.get_mut(&instance).expect("it runs");
        if let Some(server) = server.take() {
            server.stop().await;
        }
        if is_open {
            *server = Some(
                serve(node.at.control, token, &Origin::default(), node.clone())
                    .await
                    .expect("serves"),
            );
        }
    }

    async fn connect_all(&mut self, is_open: bool) {
        let all: Vec<InstanceId> = self.nodes.keys().copied().collect();
        for instance in all {
            self.connect(instance, is_open).await;
        }
    }

    /// The balancer gives these calls evenly to the owners in its table.
    fn carry(&self, calls: u64) {
        let Some((balancer, _)) = self.nodes.get(&InstanceId::balancer(1)) else { return };
        let Some(table) = balancer.membership() else { return };
        let share = calls / table.proxies.len() as u64;
        let mut given = balancer.calls_to.lock().unwrap_or_else(PoisonError::into_inner);
        for member in &table.proxies {
            *given.entry(member.instance).or_default() += share;
            balancer.calls.fetch_add(share, Ordering::SeqCst);
            if let Some((proxy, _)) = self.nodes.get(&member.instance) {
                proxy.calls.fetch_add(share, Ordering::SeqCst);
            }
        }
    }

    fn table(&self) -> Membership {
        let (balancer, _) = self.nodes.get(&InstanceId::balancer(1)).expect("it runs");
        balancer.membership().expect("it was given one")
    }

    fn owners(&self) -> Vec<u16> {
        self.table().proxies.iter().map(|member| member.instance.slot).collect()
    }

    fn node(&self, slot: u16) -> &Node {
        &self.nodes.get(&InstanceId::proxy(slot)).expect("it runs").0
    }

    async fn end(mut self) {
        self.connect_all(false).await;
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn manager(
    config: &LsmConfiguration,
    compute: &Arc<InProcessCompute>,
    dns: &Arc<InProcessDns>,
    clock: &Arc<TestClock>,
    keeper: &Keeper,
) -> Manager {
    let token: &Secret = &config.template.base.control.token;
    let http = HttpNodes::new(token, Duration::from_secs(10)).expect("a client");
    let seams = Seams {
        compute: compute.clone(),
        dns: dns.clone(),
        nodes: Arc::new(http),
        clock: clock.clone(),
        leadership: keeper.leadership(),
    };
    Manager::new(config.clone(), seams).expect("a manager")
}

/// Three proxies carry a load; every interface closes, and the load falls to almost nothing. The fleet
/// stays as it is for 40 rounds. When the interfaces are open again, the tier shrinks.
#[tokio::test]
async fn a_blind_manager_takes_nothing_away() {
    let mut fleet = Fleet::new([127, 84], 3).await;
    fleet.rounds(3, 90).await;
    assert_eq!(fleet.owners(), [1, 2, 3]);
    let mut settings = fleet.config.settings.clone();
    settings.proxies.instances_min = 1;
    fleet.config.settings = settings;
    fleet.restart_manager();
    fleet.rounds(4, 90).await;
    let before = fleet.table();
    assert_eq!(before.proxies.len(), 3);

    fleet.connect_all(false).await;
    let made = fleet.compute.created_total();
    fleet.rounds(40, 3).await;
    assert_eq!(fleet.table(), before, "nobody was told anything");
    assert_eq!(fleet.compute.machines().expect("all").len(), 4);
    assert_eq!(fleet.compute.created_total(), made);
    assert!((1..=3).all(|slot| !fleet.node(slot).is_draining.load(Ordering::SeqCst)));

    fleet.connect_all(true).await;
    fleet.rounds(30, 3).await;
    assert_eq!(fleet.owners(), [1]);
    fleet.end().await;
}

/// A manager dies between asking for a machine and its first answer, the next one while a proxy drains:
/// nothing is made twice, nothing is left over, and generations rise over all three.
#[tokio::test]
async fn a_change_outlives_two_managers() {
    let mut fleet = Fleet::new([127, 84 + 1], 1).await;
    fleet.rounds(3, 20).await;
    fleet.rounds(2, 80).await;
    assert_eq!(fleet.compute.created_total(), 3, "asked for");
    assert_eq!(fleet.owners(), [1], "and not there yet");
    fleet.restart_manager();
    fleet.rounds(6, 80).await;
    assert_eq!(fleet.owners(), [1, 2]);
    assert_eq!(fleet.compute.created_total(), 3);
    let second = fleet.table().generation;
    assert_eq!(second.fence, fleet.lives.load(Ordering::SeqCst));

    fleet.node(2).transactions.store(3, Ordering::SeqCst);
    fleet.rounds(15, 20).await;
    assert_eq!(fleet.owners(), [1]);
    assert!(fleet.node(2).is_draining.load(Ordering::SeqCst), "told");
    fleet.restart_manager();
    fleet.rounds(3, 20).await;
    assert!(fleet.nodes.contains_key(&InstanceId::proxy(2)), "it is not empty");
    fleet.node(2).transactions.store(0, Ordering::SeqCst);
    fleet.rounds(5, 20).await;
    assert_eq!(fleet.compute.machines().expect("all").len(), 2);
    let third: GenerationNumber = fleet.table().generation;
    assert!(
        third > second && third.fence == fleet.lives.load(Ordering::SeqCst),
        "{second} {third}"
    );
    fleet.end().await;
}
