//! A cloud, nodes and a load that exist only in memory; time moves when a test says so.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use fleet::{CallRate, FleetKey, FleetKeys, Incarnation, InstanceId, Membership, Tier};
use lsm::{
    Clock, JournalLimits, Keeper, Lease, LsmConfiguration, Manager, NodeAccess, NodeTemplate, Pace,
    Seams, Settings,
};
use node_api::ClientError;
use node_api::wire::{
    CallsToMember, Control, Digest, Event, FleetStatus, Generation, Keys, LeavingBalancer, Limits,
    Log, NodeConfiguration, NodeStatus, Origin, Registration, Secret, SipAddresses,
    StoreConfiguration, StoreKind, Timers, WorkerStatus,
};
use provider::in_process::{InProcessCompute, InProcessDns};
use provider::{Machine, MachineState};
use scaling::{AdaptiveRule, PAPER, Rule, ScalingPolicy, Timing};
use store::MemoryLease;

pub(crate) const POLL: Duration = Duration::from_secs(5);
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The clock of a test.
#[derive(Default)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_ms())
    }
}

/// Nodes that pretend: one for every running machine of the cloud.
pub(crate) struct FakeNodes {
    compute: Arc<InProcessCompute>,
    clock: Arc<TestClock>,
    nodes: Mutex<BTreeMap<InstanceId, FakeNode>>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeNode {
    born_ms: u64,
    pub(crate) is_silent: bool,
    pub(crate) is_draining: bool,
    pub(crate) transactions: u64,
    pub(crate) oldest_stamp: Option<Generation>,
    pub(crate) membership: Option<Membership>,
    /// The highest that it obeyed.
    pub(crate) fence: u64,
    /// Thousandths of calls.
    calls: u64,
    calls_to: BTreeMap<InstanceId, u64>,
    pub(crate) takes_share: bool,
    /// There are calls: every balancer carries some.
    is_loaded: bool,
}

impl FakeNodes {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, FakeNode>> {
        self.nodes.lock().expect("not poisoned")
    }

    fn machines(&self) -> Vec<Machine> {
        self.compute.machines().unwrap_or_default()
    }

    /// Lets running machines have a node, and gives the load to the owners for `elapsed_ms`.
    async fn live(&self, cps: u32, elapsed_ms: u64) {
        let machines = self.machines();
        let mut nodes = self.lock();
        let now_ms = self.clock.unix_ms();
        nodes.retain(|instance, node| {
            machines.iter().any(|machine| {
                machine.instance == *instance
                    && machine.state != MachineState::Dead
                    && machine.created_at_ms <= node.born_ms
            })
        });
        for machine in &machines {
            if machine.state == MachineState::Running {
                nodes.entry(machine.instance).or_insert_with(|| FakeNode {
                    born_ms: now_ms,
                    takes_share: true,
                    ..FakeNode::default()
                });
            }
        }
        nodes.values_mut().for_each(|node| node.is_loaded = cps > 0);
        let tables: Vec<(InstanceId, Membership)> = nodes
            .iter()
            .filter(|(instance, _)| instance.tier == Tier::LoadBalancer)
            .filter_map(|(&instance, node)| Some((instance, node.membership.clone()?)))
            .collect();
        for (balancer, table) in &tables {
            let owners: Vec<InstanceId> =
                table.proxies.iter().map(|member| member.instance).collect();
            let share =
                u64::from(cps) * elapsed_ms / tables.len() as u64 / owners.len().max(1) as u64;
            for owner in owners {
                if let Some(proxy) = nodes.get_mut(&owner).filter(|proxy| proxy.takes_share) {
                    proxy.calls += share;
                }
                let balancer = nodes.get_mut(balancer).expect("it has a table");
                balancer.calls += share;
                *balancer.calls_to.entry(owner).or_default() += share;
            }
        }
    }

    async fn machine_at(&self, control: SocketAddr) -> Option<Machine> {
        let machines = self.machines();
        machines.into_iter().find(|machine| machine.addresses.control == control)
    }

    fn silence(control: SocketAddr) -> ClientError {
        ClientError::TimedOut { address: control, timeout_ms: 1_000 }
    }

    /// The answering node at that address, for `act`.
    async fn with<T>(
        &self,
        control: SocketAddr,
        act: impl FnOnce(&Machine, &mut FakeNode) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let machine = self.machine_at(control).await;
        let machine = machine.filter(|machine| machine.state == MachineState::Running);
        let machine = machine.ok_or_else(|| Self::silence(control))?;
        let mut nodes = self.lock();
        let node = nodes.get_mut(&machine.instance).filter(|node| !node.is_silent);
        act(&machine, node.ok_or_else(|| Self::silence(control))?)
    }
}

#[async_trait]
impl NodeAccess for FakeNodes {
    async fn status(&self, control: SocketAddr) -> Result<NodeStatus, ClientError> {
        let now_ms = self.clock.unix_ms();
        self.with(control, |machine, node| Ok(node.status(machine, now_ms))).await
    }

    async fn membership(&self, control: SocketAddr) -> Result<Option<Membership>, ClientError> {
        self.with(control, |_, node| Ok(node.membership.clone())).await
    }

    async fn put_membership(
        &self,
        control: SocketAddr,
        membership: &Membership,
    ) -> Result<(), ClientError> {
        let fence = membership.generation.fence;
        self.with(control, |_, node| {
            node.obey(control, fence)?;
            let taken = membership.follows(node.membership.as_ref());
            taken.map_err(|why| ClientError::Refused {
                address: control,
                status: 409,
                why: why.to_string(),
            })?;
            node.membership = Some(membership.clone());
            Ok(())
        })
        .await
    }

    async fn drain(&self, control: SocketAddr, on: bool, fence: u64) -> Result<(), ClientError> {
        self.with(control, |_, node| {
            node.obey(control, fence)?;
            node.is_draining = on;
            Ok(())
        })
        .await
    }
}

impl FakeNode {
    /// A balancer that leaves is needed while there are calls.
    fn balancers_leaving(&self) -> impl Iterator<Item = LeavingBalancer> {
        let leaving = self.membership.iter().flat_map(|have| &have.leaving);
        leaving.map(|&instance| LeavingBalancer {
            instance,
            transactions: u64::from(self.is_loaded),
            bindings_until_ms: Some(0),
        })
    }

    fn obey(&mut self, control: SocketAddr, fence: u64) -> Result<(), ClientError> {
        if fence < self.fence {
            let why = format!("fence {fence} is older than {}", self.fence);
            return Err(ClientError::Refused { address: control, status: 409, why });
        }
        self.fence = fence;
        Ok(())
    }

    fn status(&self, machine: &Machine, now_ms: u64) -> NodeStatus {
        let instance = machine.instance;
        let internal = machine.addresses.sip;
        let sip = SipAddresses { internal, advertised: internal, extra: Vec::new() };
        let incarnation = Incarnation(u32::try_from(self.born_ms / 1_000).expect("a time"));
        let is_proxy = instance.tier == Tier::Proxy;
        let worker = WorkerStatus {
            worker: 0,
            address: internal,
            calls_total: self.calls / 1_000,
            server_transactions: self.transactions,
        };
        let calls_to = |(&instance, &calls): (&InstanceId, &u64)| CallsToMember {
            instance,
            worker: 0,
            incarnation: 0,
            calls_total: calls / 1_000,
        };
        NodeStatus {
            uptime_ms: now_ms - self.born_ms,
            ready: (is_proxy || self.membership.is_some()) && !self.is_draining,
            draining: self.is_draining,
            workers: if is_proxy { vec![worker] } else { Vec::new() },
            generation: self.membership.as_ref().map(|have| Generation::from(have.generation)),
            digest: self.membership.as_ref().map(|have| format!("{:016x}", have.digest)),
            calls_total: self.calls / 1_000,
            calls_to_members: self.calls_to.iter().map(calls_to).collect(),
            server_transactions: self.transactions,
            fence: self.fence,
            oldest_stamp: self.oldest_stamp,
            balancers_leaving: self.balancers_leaving().filter(|_| is_proxy).collect(),
            ..NodeStatus::started(instance, incarnation, sip)
        }
    }
}

/// Everything together.
pub(crate) struct World {
    pub(crate) clock: Arc<TestClock>,
    pub(crate) compute: Arc<InProcessCompute>,
    pub(crate) dns: Arc<InProcessDns>,
    pub(crate) nodes: Arc<FakeNodes>,
    pub(crate) config: LsmConfiguration,
    pub(crate) manager: Manager,
    keeper: Keeper,
    pub(crate) lease: MemoryLease,
    /// Managers so far; all but the last are known to be dead.
    lives: Arc<AtomicU64>,
    folder: PathBuf,
}

impl World {
    /// One balancer, one to four proxies of 60 cps each, the default rule; machines boot in 10 s.
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    pub(crate) fn with(name: &str, change: impl FnOnce(&mut LsmConfiguration)) -> Self {
        let folder = std::env::temp_dir().join(format!("lsm-it-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut config = configuration(folder.join("journal.jsonl"));
        change(&mut config);
        let clock = Arc::new(TestClock::default());
        clock.0.store(EPOCH_MS, Ordering::SeqCst);
        let compute = Arc::new(InProcessCompute::new(EPOCH_MS, Duration::from_secs(10)));
        let dns = Arc::new(InProcessDns::default());
        let nodes = Arc::new(FakeNodes {
            compute: Arc::clone(&compute),
            clock: Arc::clone(&clock),
            nodes: Mutex::default(),
        });
        let (lease, lives) = (MemoryLease::default(), Arc::new(AtomicU64::new(0)));
        let keeper = next_keeper(&lease, &clock, &lives);
        let seams = Seams {
            compute: compute.clone(),
            dns: dns.clone(),
            nodes: nodes.clone(),
            clock: clock.clone(),
            leadership: keeper.leadership(),
        };
        let manager = Manager::new(config.clone(), seams).expect("a manager");
        Self { clock, compute, dns, nodes, config, manager, keeper, lease, lives, folder }
    }

    /// Another manager takes the place of this one, which was killed.
    pub(crate) fn restart_manager(&mut self) {
        self.keeper = next_keeper(&self.lease, &self.clock, &self.lives);
        let seams = Seams {
            compute: self.compute.clone(),
            dns: self.dns.clone(),
            nodes: self.nodes.clone(),
            clock: self.clock.clone(),
            leadership: self.keeper.leadership(),
        };
        self.manager = Manager::new(self.config.clone(), seams).expect("a manager");
    }

    /// Lets a poll interval pass with this load, then polls, and settles what came of it.
    pub(crate) async fn round(&mut self, cps: u32) {
        self.pass_time(cps).await;
        self.keeper.turn();
        let mut pace = self.manager.round().await;
        for _ in 0..3 {
            if pace == Pace::Soon {
                self.nodes.live(cps, 0).await;
                pace = self.manager.settle().await;
            }
        }
    }

    /// Lets a poll interval pass with this load.
    pub(crate) async fn pass_time(&self, cps: u32) {
        let elapsed_ms = u64::try_from(POLL.as_millis()).expect("short");
        self.clock.0.fetch_add(elapsed_ms, Ordering::SeqCst);
        self.compute.advance_to(self.clock.unix_ms());
        self.nodes.live(cps, elapsed_ms).await;
    }

    pub(crate) async fn rounds(&mut self, count: usize, cps: u32) {
        for _ in 0..count {
            self.round(cps).await;
        }
    }

    pub(crate) fn fleet(&self) -> FleetStatus {
        self.manager.handle().fleet()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.manager.handle().events(0, usize::MAX).events
    }

    /// What was decided, as `proxy 1 → 2: why`.
    pub(crate) fn told(&self, kind: node_api::wire::EventKind) -> Vec<String> {
        let events = self.events().into_iter().filter(|event| event.kind == kind);
        events
            .map(|event| {
                let about = event.instance.map(|instance| instance.to_string()).or(event.tier);
                format!("{}: {}", about.unwrap_or_else(|| "fleet".to_owned()), event.text)
            })
            .collect()
    }

    /// The slots of the proxies that own calls, as the first balancer has them.
    pub(crate) fn owners(&self) -> Vec<u16> {
        let nodes = self.nodes.lock();
        let table = nodes.get(&InstanceId::balancer(1)).and_then(|node| node.membership.as_ref());
        table.map_or_else(Vec::new, |table| {
            table.proxies.iter().map(|member| member.instance.slot).collect()
        })
    }

    pub(crate) fn change(&self, instance: InstanceId, change: impl FnOnce(&mut FakeNode)) {
        change(self.nodes.lock().get_mut(&instance).expect("it runs"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// The turns of the next manager; all before it are known to be dead.
pub(crate) fn next_keeper(
    lease: &MemoryLease,
    clock: &Arc<TestClock>,
    lives: &Arc<AtomicU64>,
) -> Keeper {
    let number = lives.fetch_add(1, Ordering::SeqCst) + 1;
    let lives = Arc::clone(lives);
    let is_gone = move |holder: &str| {
        let life = holder.rsplit('/').next().and_then(|life| life.parse().ok());
        life.is_some_and(|life: u64| life < lives.load(Ordering::SeqCst))
    };
    let lease = Lease {
        store: Box::new(lease.clone()),
        holder: format!("manager-1/{number}"),
        fence_min: 1,
        is_gone: Box::new(is_gone),
    };
    Keeper::new(lease, POLL, Arc::clone(clock) as Arc<dyn Clock>)
}

pub(crate) fn configuration(journal: PathBuf) -> LsmConfiguration {
    let rule = AdaptiveRule { trend_polls: 0, ..AdaptiveRule::default() };
    let proxies = ScalingPolicy {
        capacity_each: CallRate::from_cps(60),
        rule: Rule::Adaptive(rule),
        instances_min: 1,
        instances_max: 4,
        ..ScalingPolicy::default()
    };
    let balancers =
        ScalingPolicy { capacity_each: CallRate::from_cps(2_000), instances_max: 1, ..PAPER };
    let settings = Settings {
        balancers,
        proxies,
        timing: Timing { poll_interval: POLL, ..Timing::default() },
        ..Settings::default()
    };
    LsmConfiguration {
        settings,
        template: NodeTemplate {
            base: node_configuration(),
            balancer_threads: 1,
            advertised: BTreeMap::new(),
        },
        listen: SocketAddr::from(([127, 34, 1, 1], 0)),
        token: Secret::new("manager"),
        wishes: journal.with_file_name("wishes.json"),
        journal,
        journal_limits: JournalLimits::default(),
        name: "manager-1".to_owned(),
        store: lsm::StoreWatch::default(),
    }
}

fn node_configuration() -> NodeConfiguration {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let keys = FleetKeys { keys: vec![FleetKey { id: 1, secret: [7; 32] }], signing: 1 };
    NodeConfiguration {
        instance: InstanceId::proxy(1),
        sip: SipAddresses { internal: nowhere, advertised: nowhere, extra: Vec::new() },
        workers: 1,
        control: Control { listen: nowhere, token: Secret::new("nodes") },
        keys: Keys::from(&keys),
        domains: vec!["example.net".to_owned()],
        service_names: vec!["example.net".to_owned()],
        store: StoreConfiguration::file(StoreKind::Memory, ""),
        timers: Timers::default(),
        limits: Limits::default(),
        probing: node_api::wire::Probing::default(),
        registration: Registration::default(),
        digest: Digest::default(),
        trusted_trunks: Vec::new(),
        foreign_callers: false,
        capacity_cps: 60,
        internal_mtu_bytes: 1_400,
        rows: 1 << 8,
        log: Log::default(),
        origin: Origin::default(),
    }
}
